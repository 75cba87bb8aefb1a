//! Durations and sizes as people write them. It must never guess a unit.

use std::time::Duration;

const DURATIONS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 24 * 3_600_000)];
const SIZES: &[(&str, u64)] = &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

/// `15s`, `500ms`, `5m`, `24h`, `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    counted(text, DURATIONS)
        .map(Duration::from_millis)
        .ok_or_else(|| "not a duration such as 500ms, 15s, 5m, 24h or 7d".to_owned())
}

/// `512B`, `64KiB`, `64MiB`, `1GiB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    counted(text, SIZES).ok_or_else(|| "not a size such as 512KiB, 64MiB or 1GiB".to_owned())
}

/// The shortest exact way to write a duration.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show(millis, DURATIONS, "s")
}

/// The shortest exact way to write a size.
pub(super) fn show_size(bytes: u64) -> String {
    show(bytes, SIZES, "B")
}

fn counted(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(value: u64, units: &[(&str, u64)], zero: &str) -> String {
    let best = units.iter().filter(|(_, factor)| value.is_multiple_of(*factor)).max_by_key(|(_, factor)| *factor);
    match best {
        Some((name, factor)) if value > 0 => format!("{}{name}", value / factor),
        Some(_) | None => format!("0{zero}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown_exactly() {
        for (text, millis, shown) in [
            ("15s", 15_000, "15s"),
            ("500ms", 500, "500ms"),
            ("90s", 90_000, "90s"),
            ("60s", 60_000, "1m"),
            ("24h", 86_400_000, "1d"),
            ("0s", 0, "0s"),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(show_duration(Duration::from_millis(millis)), shown);
        }
        for bad in ["", "15", "s", "15 s", "1.5s", "-1s", "15S", "1m30s", "99999999999999999999s", "213503982335d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_and_shown_exactly() {
        for (text, bytes, shown) in
            [("64MiB", 64 << 20, "64MiB"), ("1024KiB", 1 << 20, "1MiB"), ("1000B", 1000, "1000B"), ("0B", 0, "0B")]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(show_size(bytes), shown);
        }
        for bad in ["64", "64MB", "64M", "64mib", "MiB", "1.5MiB", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
