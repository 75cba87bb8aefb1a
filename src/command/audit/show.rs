//! One record, whole, for people. It must never leave out a member, also of one that it does not know.

use std::io::{self, Write};

use serde_json::Value;

use super::table;
use crate::decision::printable::printable;
use crate::edge::ledger::StoredRecord;

/// Name and hashes, then every member of the body, indented by depth.
pub(super) fn print(record: &StoredRecord, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "record    {}", printable(&record.name))?;
    writeln!(out, "time      {}", table::rfc3339(record.time))?;
    writeln!(out, "hash      {}", printable(&record.hash))?;
    writeln!(out, "previous  {}", printable(&record.previous))?;
    match serde_json::from_str::<Value>(&record.body) {
        Ok(Value::Object(body)) => {
            let shown = ["chain", "seq", "time", "v"];
            body.iter()
                .filter(|(key, _)| !shown.contains(&key.as_str()))
                .try_for_each(|(key, value)| member(key, value, 0, out))
        }
        Ok(_) | Err(_) => writeln!(out, "its body is no JSON object: {}", printable(&record.body)),
    }
}

fn member(key: &str, value: &Value, depth: usize, out: &mut impl Write) -> io::Result<()> {
    let indent = "  ".repeat(depth);
    let key = printable(key);
    match value {
        Value::Object(members) => {
            writeln!(out, "{indent}{key}:")?;
            members.iter().try_for_each(|(key, value)| member(key, value, depth + 1, out))
        }
        Value::Array(items) if key == "stages" => {
            writeln!(out, "{indent}{key}: {}", items.iter().filter_map(stage).collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) if items.iter().all(|item| !item.is_object() && !item.is_array()) => {
            writeln!(out, "{indent}{key}: {}", items.iter().map(scalar).collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            writeln!(out, "{indent}{key}:")?;
            (1..).zip(items).try_for_each(|(number, item)| member(&format!("{number}"), item, depth + 1, out))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            writeln!(out, "{indent}{key}: {}", scalar(value))
        }
    }
}

/// `["decode", 12]` as `decode 12 µs`.
fn stage(pair: &Value) -> Option<String> {
    Some(format!("{} {} µs", printable(pair.get(0)?.as_str()?), pair.get(1)?.as_u64()?))
}

fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| printable(&value.to_string()), printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_shown_whole_and_escaped() {
        let body = serde_json::json!({
            "chain": "kqzt", "seq": 7, "time": "2026-11-20T10:00:00Z", "v": 1, "cluster": "prod", "replica": "r0",
            "event": {"type": "review", "user": "a\u{1b}[0m\nb", "codes": ["unsigned"], "stages": [["decode", 12], ["evidence", 3000]],
                      "images": [{"asked": "x", "codes": ["unsigned"]}], "groups": [], "dryRun": false, "new\u{7}": {"deep": [1]}},
        });
        let record = StoredRecord {
            name: "kqzt-7-9f3c2a7e11d0c4aa".to_owned(),
            time: "2026-11-20T10:00:00Z".parse().expect("time"),
            previous: "sha256:00".to_owned(),
            hash: "sha256:11".to_owned(),
            body: body.to_string(),
            position: 1,
        };
        let mut out = Vec::new();
        print(&record, &mut out).expect("a Vec takes all");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "record    kqzt-7-9f3c2a7e11d0c4aa\ntime      2026-11-20T10:00:00.000Z\nhash      sha256:11\nprevious  sha256:00\n\
             cluster: prod\nevent:\n  codes: unsigned\n  dryRun: false\n  groups: \n  images:\n    1:\n      asked: x\n      codes: unsigned\n  \
             new\\u{7}:\n    deep: 1\n  stages: decode 12 µs, evidence 3000 µs\n  type: review\n  user: a\\u{1b}[0m\\u{a}b\nreplica: r0\n"
        );
    }
}
