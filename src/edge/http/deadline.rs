//! How long a review may take: the API server's `?timeout=`, less what the way back needs (C-01). It must never give a
//! review more time than its caller has.

use std::time::Duration;

/// What is counted where the caller says nothing that we can use.
const UNSAID: Duration = Duration::from_secs(10);
/// The longest timeout that a webhook configuration may hold.
const LONGEST: Duration = Duration::from_secs(30);
/// Kept back for the way to the caller.
const WAY_BACK: Duration = Duration::from_millis(500);
/// No review gets less, whatever the caller says.
const SHORTEST: Duration = Duration::from_millis(200);

/// The time for one review, from the moment its headers were read: `timeout` of the query less 500 ms, never under
/// 200 ms. Missing, unreadable, zero or above 30 s counts as 10 s (C-01).
#[must_use]
pub fn budget(query: Option<&str>) -> Duration {
    let said = query
        .and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("timeout=")))
        .and_then(go_duration)
        .filter(|said| !said.is_zero() && *said <= LONGEST)
        .unwrap_or(UNSAID);
    said.saturating_sub(WAY_BACK).max(SHORTEST)
}

/// Reads a duration as Go's `time.ParseDuration` does: `10s`, `1m30s`, `1.5s`, `500ms`. Negative ones, and what it
/// cannot read, are `None`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let nanos = nanoseconds(unit)?;
        let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
        total = total.checked_add(whole.checked_mul(nanos)?)?.checked_add(part(fraction, nanos))?;
        rest = after;
    }
    Some(Duration::from_nanos(total))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `0.fraction` of a unit, digit by digit; what is below a nanosecond is dropped.
fn part(fraction: &str, nanos: u64) -> u64 {
    let mut unit = nanos;
    let mut sum = 0;
    for digit in fraction.bytes() {
        unit /= 10;
        sum += unit * u64::from(digit - b'0');
    }
    sum
}

fn nanoseconds(unit: &str) -> Option<u64> {
    match unit {
        "ns" => Some(1),
        "us" => Some(1_000),
        "ms" => Some(1_000_000),
        "s" => Some(1_000_000_000),
        "m" => Some(60_000_000_000),
        "h" => Some(3_600_000_000_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_01_the_budget_follows_the_timeout() {
        let table: &[(Option<&str>, u64)] = &[
            (Some("timeout=1s"), 500),
            (Some("timeout=2s"), 1_500),
            (Some("timeout=10s"), 9_500),
            (Some("timeout=29s"), 28_500),
            (Some("timeout=30s"), 29_500),
            (Some("timeout=30.000000001s"), 9_500),
            (Some("timeout=31s"), 9_500),
            (Some("timeout=1h"), 9_500),
            (Some("timeout=1m30s"), 9_500),
            (Some("timeout=0m30s"), 29_500),
            (Some("timeout=2s500ms"), 2_000),
            (Some("timeout=1.5s"), 1_000),
            (Some("timeout=.5s"), 200),
            (Some("timeout=500ms"), 200),
            (Some("timeout=700ms"), 200),
            (Some("timeout=701ms"), 201),
            (Some("timeout=1ns"), 200),
            (Some("timeout=+3s"), 2_500),
            (Some("timeout=0s"), 9_500),
            (Some("timeout=0"), 9_500),
            (Some("timeout=-5s"), 9_500),
            (Some("timeout=abc"), 9_500),
            (Some("timeout=10"), 9_500),
            (Some("timeout=s"), 9_500),
            (Some("timeout=.s"), 9_500),
            (Some("timeout=1s2"), 9_500),
            (Some("timeout=1S"), 9_500),
            (Some("timeout="), 9_500),
            (Some("timeout=99999999999999999999s"), 9_500),
            (Some("timeout=9999999999h"), 9_500),
            (Some("Timeout=1s"), 9_500),
            (Some("dryRun=All&timeout=3s"), 2_500),
            (Some("timeout=3s&timeout=20s"), 2_500),
            (Some(""), 9_500),
            (None, 9_500),
        ];
        for (query, want) in table {
            assert_eq!(budget(*query), Duration::from_millis(*want), "{query:?}");
        }
    }

    #[test]
    fn c_01_every_whole_second_leaves_half_a_second() {
        for seconds in 1..=30 {
            let query = format!("timeout={seconds}s");
            assert_eq!(budget(Some(&query)), Duration::from_millis(seconds * 1_000 - 500), "{query}");
        }
    }
}
