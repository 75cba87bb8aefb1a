//! Untrusted text on a terminal. It must never let a character through that moves the cursor, colours, or turns the line.

use std::fmt::Write as _;

/// The text with every control, format and bidirectional character, every line separator and every private or invisible one
/// written as `\u{…}`.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_plain(c) {
            out.push(c);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", c.escape_unicode());
        }
    }
    out
}

/// JSON without white space between its parts, with the same characters written as JSON escapes, `\u202e`: it means the same
/// to every reader, and nothing to a terminal.
#[must_use]
pub fn printable_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_plain(c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

const fn is_plain(c: char) -> bool {
    !matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'   // C0, DEL, C1
        | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x_129_nothing_untrusted_reaches_the_terminal() {
        for (text, want) in [
            ("plain text, ä 世界", "plain text, ä 世界"),
            ("a\nb", "a\\u{a}b"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("a\u{2066}b\u{200b}", "a\\u{2066}b\\u{200b}"),
            ("\u{feff}\u{e0041}", "\\u{feff}\\u{e0041}"),
            ("\r\t\u{7f}", "\\u{d}\\u{9}\\u{7f}"),
        ] {
            assert_eq!(printable(text), want);
        }
    }

    #[test]
    fn x_129_json_stays_the_same_json() {
        let value = serde_json::json!({"a\u{202e}": "\u{1b}[0m\u{9b}\u{e0041}\n ä 世"});
        let text = printable_json(&value.to_string());
        assert_eq!(text, "{\"a\\u202e\":\"\\u001b[0m\\u009b\\udb40\\udc41\\n ä 世\"}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
    }
}
