//! JSON as odd as it can legally be: keys in any order, spaces, escapes. It must never write what is not the value.

use std::fmt::Write as _;

use serde_json::Value;

use crate::random::Random;

/// Writes a value; every fourth one in an odd way.
pub(crate) fn write(value: &Value, random: &mut Random) -> String {
    let mut out = String::with_capacity(2048);
    let is_odd = random.one_in(4);
    write_value(value, random, is_odd, &mut out);
    out
}

fn write_value(value: &Value, random: &mut Random, is_odd: bool, out: &mut String) {
    if is_odd {
        space(random, out);
    }
    match value {
        Value::Array(elements) => {
            out.push('[');
            for (at, element) in elements.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_value(element, random, is_odd, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            let mut fields: Vec<_> = fields.iter().collect();
            if is_odd && !fields.is_empty() {
                let (a, b) = (random.below(fields.len()), random.below(fields.len()));
                fields.rotate_left(a);
                fields.swap(a, b);
            }
            for (at, (key, value)) in fields.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                text(key, random, is_odd, out);
                out.push(':');
                write_value(value, random, is_odd, out);
            }
            out.push('}');
        }
        Value::String(string) => text(string, random, is_odd, out),
        Value::Null | Value::Bool(_) | Value::Number(_) => write!(out, "{value}").expect("a text takes it"),
    }
    if is_odd {
        space(random, out);
    }
}

fn space(random: &mut Random, out: &mut String) {
    if random.one_in(6) {
        let space: &&str = random.pick(&[" ", "\n", "\t", "\r\n", "  "]);
        out.push_str(space);
    }
}

fn text(text: &str, random: &mut Random, is_odd: bool, out: &mut String) {
    out.push('"');
    let escapes = is_odd && random.one_in(3);
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '/' if escapes => out.push_str("\\/"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' || escapes && random.one_in(3) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").expect("a text takes it");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
