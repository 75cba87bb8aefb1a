//! Records in columns, for people and for spreadsheets. It must never let untrusted text out of its cell.

use std::io::{self, Write};

use jiff::Timestamp;
use serde_json::Value;

use crate::decision::printable::printable;
use crate::edge::ledger::StoredRecord;

/// Aligned columns with a line of titles.
pub(super) fn print(records: &[StoredRecord], out: &mut impl Write) -> io::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let cells: Vec<[String; 7]> = records.iter().map(cells).collect();
    let titles = ["TIME", "RECORD", "VERDICT", "NAMESPACE", "OBJECT", "USER", "CODES AND IMAGES"];
    let mut widths = titles.map(str::len);
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: [&str; 7]| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', (width + 2).saturating_sub(cell.chars().count())));
        }
        line
    };
    writeln!(out, "{}", line(titles).trim_end())?;
    for row in &cells {
        writeln!(out, "{}", line(row.each_ref().map(String::as_str)).trim_end())?;
    }
    Ok(())
}

/// One record in a line of its own, for output that goes on.
pub(super) fn print_line(record: &StoredRecord, out: &mut impl Write) -> io::Result<()> {
    let cells = cells(record);
    let line: Vec<_> = cells.iter().map(String::as_str).filter(|cell| !cell.is_empty()).collect();
    writeln!(out, "{}", line.join("  "))
}

/// RFC 4180, CRLF at the end of lines. A cell that a spreadsheet would take for a formula gets an apostrophe before it.
pub(super) fn print_csv(records: &[StoredRecord], out: &mut impl Write) -> io::Result<()> {
    write!(out, "time,record,event,verdict,dry_run,operation,kind,namespace,name,user,codes,policies,images\r\n")?;
    for record in records {
        let event = event(record);
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let row = [
            rfc3339(record.time),
            record.name.clone(),
            text("type"),
            text("verdict"),
            event["dryRun"].as_bool().map(|dry| dry.to_string()).unwrap_or_default(),
            text("operation"),
            text("kind"),
            text("namespace"),
            text("name"),
            text("user"),
            texts(&event["codes"]).join(" "),
            texts(&event["policies"]).join(" "),
            images(&event).join(" "),
        ];
        let row: Vec<_> = row.iter().map(|cell| csv_cell(cell)).collect();
        write!(out, "{}\r\n", row.join(","))?;
    }
    Ok(())
}

fn csv_cell(text: &str) -> String {
    let mut text = printable(text);
    if text.starts_with(['=', '+', '-', '@']) {
        text.insert(0, '\'');
    }
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

fn cells(record: &StoredRecord) -> [String; 7] {
    let event = event(record);
    let text = |key: &str| printable(event[key].as_str().unwrap_or_default());
    let kind = text("kind");
    let kind = kind.rsplit('/').next().unwrap_or_default();
    let object = if kind.is_empty() { String::new() } else { format!("{kind}/{}", text("name")) };
    let mut verdict = if event["verdict"].is_null() { text("type") } else { text("verdict") };
    if event["dryRun"] == Value::Bool(true) {
        verdict.push_str(" (dry run)");
    }
    let mut last = texts(&event["codes"]).join(",");
    let mut images = images(&event);
    if let Some(count) = event["count"].as_u64() {
        let of = event["of"].as_str().map(|of| format!(" of {of}")).unwrap_or_default();
        images.push(format!("{count} times{of}"));
    }
    if !last.is_empty() && !images.is_empty() {
        last.push(' ');
    }
    last.push_str(&images.join(" "));
    let time = rfc3339(record.time);
    [time, printable(&record.name), verdict, text("namespace"), object, text("user"), printable(&last)]
}

/// The record's event; null where the body is no JSON.
pub(super) fn event(record: &StoredRecord) -> Value {
    serde_json::from_str::<Value>(&record.body).map_or(Value::Null, |mut body| body["event"].take())
}

fn images(event: &Value) -> Vec<String> {
    let one = |image: &Value| match (image["asked"].as_str(), image["repository"].as_str(), image["digest"].as_str()) {
        (Some(asked), _, _) => asked.to_owned(),
        (None, repository, digest) => format!("{}@{}", repository.unwrap_or("?"), digest.unwrap_or("?")),
    };
    event["images"].as_array().map(|images| images.iter().map(one).collect()).unwrap_or_default()
}

fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Milliseconds are enough for people.
pub(super) fn rfc3339(time: Timestamp) -> String {
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(user: &str, image: &str) -> StoredRecord {
        let event = serde_json::json!({
            "type": "review", "verdict": "deny", "dryRun": true, "kind": "apps/v1/Deployment", "name": "api", "namespace": "payments",
            "user": user, "codes": ["unsigned"], "images": [{"asked": image}],
        });
        StoredRecord {
            name: "kqzt-7-9f3c2a7e11d0c4aa".to_owned(),
            time: "2026-11-20T10:00:00.123456Z".parse().expect("time"),
            previous: String::new(),
            hash: String::new(),
            body: serde_json::json!({"event": event}).to_string(),
            position: 7,
        }
    }

    fn printed(render: impl Fn(&[StoredRecord], &mut Vec<u8>) -> io::Result<()>, records: &[StoredRecord]) -> String {
        let mut out = Vec::new();
        render(records, &mut out).expect("a Vec takes all");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_table_is_aligned_and_complete() {
        let text = printed(print, &[record("alice", "r.example/a"), record("system:serviceaccount:x:y", "b")]);
        assert_eq!(
            text,
            "TIME                      RECORD                   VERDICT         NAMESPACE  OBJECT          USER                       CODES AND IMAGES\n\
             2026-11-20T10:00:00.123Z  kqzt-7-9f3c2a7e11d0c4aa  deny (dry run)  payments   Deployment/api  alice                      unsigned r.example/a\n\
             2026-11-20T10:00:00.123Z  kqzt-7-9f3c2a7e11d0c4aa  deny (dry run)  payments   Deployment/api  system:serviceaccount:x:y  unsigned b\n"
        );
        assert_eq!(printed(print, &[]), "");
    }

    #[test]
    fn what_was_counted_says_how_often() {
        for (event, want) in [
            (
                serde_json::json!({"type": "repeats", "of": "kqzt-7-9f3c2a7e11d0c4aa", "count": 312, "codes": ["unsigned"]}),
                "repeats  unsigned 312 times of kqzt-7-9f3c2a7e11d0c4aa",
            ),
            (
                serde_json::json!({"type": "shed", "count": 9, "codes": ["overloaded"], "uids": ["u"]}),
                "shed  overloaded 9 times",
            ),
            // As earlier versions wrote it.
            (serde_json::json!({"type": "shed", "count": 9, "uids": ["u"]}), "shed  9 times"),
        ] {
            let record = StoredRecord { body: serde_json::json!({"event": event}).to_string(), ..record("", "") };
            let text = printed(|r, o| print_line(&r[0], o), &[record]);
            assert!(text.ends_with(&format!("  {want}\n")), "{text}");
        }
    }

    #[test]
    fn x_129_nothing_escapes_its_cell() {
        let hostile = record("a\u{1b}[31m\u{202e}b\nc", "x\r\ny");
        for text in [
            printed(print, std::slice::from_ref(&hostile)),
            printed(|r, o| print_line(&r[0], o), std::slice::from_ref(&hostile)),
            printed(print_csv, std::slice::from_ref(&hostile)),
        ] {
            assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
            assert!(text.contains("a\\u{1b}[31m\\u{202e}b\\u{a}c"), "{text:?}");
            assert!(text.lines().count() <= 2, "{text:?}");
        }
        for (text, want) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=cmd()", "'=cmd()"),
            ("@a,b", "\"'@a,b\""),
            ("a\nb", "a\\u{a}b"),
        ] {
            assert_eq!(csv_cell(text), want);
        }
    }
}
