//! Ledgers in numbers. It must never count a ledger twice.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::table::rfc3339;
use crate::decision::printable::{printable, printable_json};
use crate::edge::ledger::Stats;

/// The sum over several ledgers.
pub(super) fn sum(each: Vec<Stats>) -> Stats {
    let mut all = Stats::default();
    for stats in each {
        let Stats { records, first, last, verdicts, codes, refused_in, bytes } = stats;
        all.records += records;
        all.first = [all.first, first].into_iter().flatten().min();
        all.last = all.last.max(last);
        add(&mut all.verdicts, verdicts);
        add(&mut all.codes, codes);
        add(&mut all.refused_in, refused_in);
        all.bytes += bytes;
    }
    all
}

fn add(all: &mut BTreeMap<String, u64>, more: BTreeMap<String, u64>) {
    for (key, count) in more {
        *all.entry(key).or_default() += count;
    }
}

pub(super) fn print(stats: &Stats, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{} records, {} bytes", stats.records, stats.bytes)?;
    if let (Some(first), Some(last)) = (stats.first, stats.last) {
        write!(out, ", {} to {}", rfc3339(first), rfc3339(last))?;
    }
    writeln!(out)?;
    for (title, counts) in
        [("by verdict", &stats.verdicts), ("by code", &stats.codes), ("refused, by namespace", &stats.refused_in)]
    {
        if counts.is_empty() {
            continue;
        }
        writeln!(out, "\n{title}")?;
        let mut counts: Vec<_> = counts.iter().collect();
        counts.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), *name));
        for (name, count) in counts.iter().take(20) {
            let name = if name.is_empty() { "(none)" } else { name };
            writeln!(out, "{count:>10}  {}", printable(name))?;
        }
        if counts.len() > 20 {
            writeln!(out, "            and {} more", counts.len() - 20)?;
        }
    }
    Ok(())
}

pub(super) fn as_json(stats: &Stats) -> String {
    let Stats { records, first, last, verdicts, codes, refused_in, bytes } = stats;
    let value = serde_json::json!({
        "records": records, "first": first, "last": last, "verdicts": verdicts, "codes": codes, "refusedIn": refused_in, "bytes": bytes,
    });
    printable_json(&value.to_string())
}
