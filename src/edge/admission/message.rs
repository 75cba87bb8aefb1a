//! A verdict in words: the message of a denial, warnings, lists for annotations (C-23 to C-26). It must never leave out
//! that something was left out, and never pass untrusted text on as it came.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;

use super::encode::RecordMark;
use crate::decision::code::Code;
use crate::decision::policy::Mode;
use crate::decision::printable::{clip, printable, shorten};
use crate::decision::review::{Holder, Place};
use crate::decision::verdict::{Denial, OverrideRequest, Permission, Softened, Verdict};

/// The longest message, in bytes: under 1.5 KiB.
pub(super) const MAX_MESSAGE: usize = 1535;
/// The most entries that a message can hold: each takes at least ten bytes.
const MAX_ENTRIES: usize = MAX_MESSAGE / 10;
/// The most that the names of policies and of the record may take of it.
const MAX_TAIL: usize = 480;
pub(super) const MAX_WARNINGS: usize = 8;
/// The longest warning, in characters.
pub(super) const MAX_WARNING: usize = 120;
/// The longest value of an audit annotation, in bytes: under 1 KiB.
pub(super) const MAX_ANNOTATION: usize = 1023;

/// The message of a denial: how many images, every one of them with every code and what to do, the policies, the record.
/// Where that is too long the details go first, then the names of images, and only then whole entries, with "and N more".
pub(super) fn message(verdict: &Verdict, record: &RecordMark) -> String {
    let enforced = enforced(verdict);
    let entries = entries(&enforced);
    let head = head(verdict, &entries);
    let tail = tail(verdict, record);
    let room = MAX_MESSAGE - head.len() - tail.len();
    let several_policies = verdict.policies().len() > 1;
    // More of them cannot fit, however little is said of each.
    let details: &[Detail] = if entries.len() > MAX_ENTRIES { &[Detail::Places] } else { Detail::ALL };
    let mut body = String::new();
    for detail in details {
        let few = entries.iter().take(MAX_ENTRIES);
        let rendered: Vec<String> = few.map(|entry| entry.render(*detail, several_policies)).collect();
        body = rendered.join("; ");
        if body.len() <= room && rendered.len() == entries.len() {
            break;
        }
        if *detail == Detail::Places {
            body = whole_entries(&rendered, entries.len(), "; ", room);
        }
    }
    format!("{head}{body}{tail}")
}

/// Warnings for the user who sent the request: none for an admission, nor for what only an `audit` policy refuses.
pub(super) fn warnings(verdict: &Verdict, record: &RecordMark) -> Vec<String> {
    warnings_within(verdict, record, MAX_WARNINGS)
}

/// The same where the operator only observes: each reply says so first.
pub(super) fn observed_warnings(verdict: &Verdict, record: &RecordMark) -> Vec<String> {
    let mut all =
        vec![format!("provost: observe mode: nothing is denied here; this review ended in {}", verdict.word())];
    all.extend(warnings_within(verdict, record, MAX_WARNINGS - 1));
    all
}

fn warnings_within(verdict: &Verdict, record: &RecordMark, most: usize) -> Vec<String> {
    let softened = match verdict {
        Verdict::Deny(_) => "",
        Verdict::Override(_) => " (overridden)",
        Verdict::Admit(_) | Verdict::NoImages | Verdict::WouldDeny(_) => match verdict.softened() {
            Some(Softened::Warn) => " (not enforced)",
            Some(Softened::MirrorPod) => " (mirror pod, not enforced)",
            Some(Softened::Observe) => " (observed, not enforced)",
            Some(Softened::Audit) | None => return Vec::new(),
        },
    };
    let mut seen = HashSet::new();
    let mut warnings = overrides(verdict, record);
    let first = warnings.len();
    for denial in verdict.denials() {
        // Whoever is turned away unjudged is told by the reason alone: its client tries again by itself.
        if denial.code() == Code::Overloaded && matches!(verdict, Verdict::Deny(_)) {
            continue;
        }
        let softened = match denial.mode() {
            Mode::Warn if verdict.softened().is_none() => " (not enforced)",
            Mode::Enforce | Mode::Warn => softened,
            Mode::Audit => continue,
        };
        let (path, what) = match denial.place() {
            Some(place) => (Some(place.path.as_str()), denial.image().unwrap_or_default()),
            None => (None, denial.found()),
        };
        // An API server drops what it was told before.
        if !seen.insert((denial.code(), softened, path, what)) || warnings.len() == most {
            continue;
        }
        let what = clip(&short_digests(what), MAX_WARNING);
        let what = denial.place().map_or_else(|| what.clone(), |place| format!("{} {what}", shown(place)));
        let warning = format!("provost: {}{softened}: {}", denial.code(), what.trim_end());
        warnings.push(shorten(&warning, MAX_WARNING));
    }
    if first + seen.len() > most {
        warnings.truncate(most - 1);
        let more = first + seen.len() - warnings.len();
        let record = record_name(record).map(|record| format!(", {record}")).unwrap_or_default();
        warnings.push(shorten(&format!("provost: and {more} more{record}"), MAX_WARNING));
    }
    warnings
}

/// Who overrides, for how long, and that people will look: at most three of them, and how many more.
fn overrides(verdict: &Verdict, record: &RecordMark) -> Vec<String> {
    const MOST: usize = 3;
    let permissions = verdict.permissions();
    let shown = if permissions.len() > MOST { MOST - 1 } else { permissions.len() };
    let mut warnings: Vec<String> = permissions
        .iter()
        .take(shown)
        .map(|permission| {
            let Permission::Request(OverrideRequest { user, ticket, container, .. }) = permission;
            let scope = match container {
                None => "this request".to_owned(),
                Some(name) => format!("container {}", clip(name, 20)),
            };
            // There is no room for the whole name, and a record is found by its place in the ledger.
            let record = match record {
                RecordMark::Saved(id) => format!(": {}", clip(id.rsplit_once('-').map_or(id, |(place, _)| place), 24)),
                // An override is never a repeat, and is nothing without a record.
                RecordMark::RepeatOf(_) | RecordMark::Pending | RecordMark::None => String::new(),
            };
            let (user, ticket) = (clip(user, 24), clip(ticket, 16));
            shorten(
                &format!("provost: override by {user} ({ticket}), {scope} only, will be reviewed{record}"),
                MAX_WARNING,
            )
        })
        .collect();
    if shown < permissions.len() {
        warnings.push(format!("provost: and {} more overrides", permissions.len() - shown));
    }
    warnings
}

/// A comma-separated list for an annotation, cut at a whole entry.
pub(super) fn annotation_list<T: AsRef<str>>(entries: impl IntoIterator<Item = T>) -> String {
    let entries: Vec<String> = entries.into_iter().map(|entry| printable(entry.as_ref())).collect();
    whole_entries(&entries, entries.len(), ",", MAX_ANNOTATION)
}

/// Each image that was proven by facts older than they should be, with their age in seconds.
pub(super) fn stale(verdict: &Verdict) -> Vec<String> {
    let mut seen = HashSet::new();
    let entries = verdict.proofs().iter().filter_map(|proof| {
        let age = proof.stale()?;
        Some(format!("{} {}s", shown(proof.place()), age.as_secs()))
    });
    entries.filter(|entry| seen.insert(entry.clone())).collect()
}

/// How much of an entry is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// Everything.
    Full,
    /// Digests to 12 digits, long texts cut sooner.
    ShortNames,
    /// Place, image and codes.
    Codes,
    /// Place and codes.
    Places,
}

impl Detail {
    const ALL: &[Self] = &[Self::Full, Self::ShortNames, Self::Codes, Self::Places];
}

/// All that is said about one image, or one thing about the review as a whole.
struct Entry<'a> {
    place: Option<&'a Place>,
    image: Option<&'a str>,
    denials: Vec<&'a Denial>,
}

/// What denies. A denial that its policy's mode softens is a warning beside it and not a reason.
fn enforced(verdict: &Verdict) -> Vec<&Denial> {
    let enforced: Vec<&Denial> = verdict.denials().iter().filter(|denial| denial.mode() == Mode::Enforce).collect();
    if enforced.is_empty() { verdict.denials().iter().collect() } else { enforced }
}

/// Denials of one place stand together: they come in the order of the object.
fn entries<'a>(denials: &[&'a Denial]) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> = Vec::new();
    for denial in denials {
        match entries.last_mut() {
            Some(entry) if entry.place.is_some() && entry.place == denial.place() => entry.denials.push(denial),
            Some(_) | None => {
                entries.push(Entry { place: denial.place(), image: denial.image(), denials: vec![denial] });
            }
        }
    }
    entries
}

fn head(verdict: &Verdict, entries: &[Entry<'_>]) -> String {
    let refused = entries.iter().filter(|entry| entry.place.is_some()).count();
    match (refused, verdict.images_reviewed()) {
        (0, _) if entries.is_empty() => "refused".to_owned(),
        (0, _) => String::new(),
        (1, all) if all <= 1 => "1 image refused; ".to_owned(),
        (_, all) if refused > all => format!("{refused} images refused; "),
        (_, all) => format!("{refused} of {all} images refused; "),
    }
}

/// Policies and record; the record is never cut.
fn tail(verdict: &Verdict, record: &RecordMark) -> String {
    let record = record_name(record).unwrap_or_default();
    let policies: Vec<String> = verdict.policies().iter().map(ToString::to_string).collect();
    if policies.is_empty() {
        return if record.is_empty() { record } else { format!("; {record}") };
    }
    let word = if policies.len() == 1 { "policy" } else { "policies" };
    let policies = whole_entries(&policies, policies.len(), ", ", MAX_TAIL - record.len() - "; policies , ".len());
    if record.is_empty() { format!("; {word} {policies}") } else { format!("; {word} {policies}, {record}") }
}

fn record_name(record: &RecordMark) -> Option<String> {
    match record {
        RecordMark::Saved(id) => Some(format!("record {}", clip(id, 80))),
        RecordMark::RepeatOf(id) => Some(format!("repeat of {}", clip(id, 80))),
        RecordMark::Pending => Some("record: pending".to_owned()),
        RecordMark::None => None,
    }
}

impl Entry<'_> {
    fn render(&self, detail: Detail, several_policies: bool) -> String {
        let mut out = String::new();
        if let Some(place) = self.place {
            out.push_str(&shown(place));
            let image = self.image.unwrap_or_default();
            let image = match detail {
                Detail::Full => clip(image, 512),
                Detail::ShortNames => clip(&short_digests(image), 256),
                Detail::Codes => clip(&short_digests(image), 128),
                Detail::Places => String::new(),
            };
            if !image.is_empty() {
                out.push(' ');
                out.push_str(&image);
            }
            out.push_str(": ");
        }
        let mut said: Vec<String> = Vec::new();
        for denial in &self.denials {
            let text = match detail {
                Detail::Full => explain(denial, several_policies, 400, |text| Cow::Borrowed(text)),
                Detail::ShortNames => explain(denial, several_policies, 120, short_digests),
                Detail::Codes | Detail::Places => denial.code().to_string(),
            };
            if !said.contains(&text) {
                said.push(text);
            }
        }
        let between = match detail {
            Detail::Full | Detail::ShortNames => "; also ",
            Detail::Codes | Detail::Places => ", ",
        };
        out.push_str(&said.join(between));
        out
    }
}

/// One denial: the code, what was found, what was wanted, what to do.
fn explain(denial: &Denial, several_policies: bool, limit: usize, digests: fn(&str) -> Cow<'_, str>) -> String {
    let show = |text: &str| clip(&digests(text), limit);
    let mut out = denial.code().to_string();
    if let (true, Some(policy)) = (several_policies, denial.policy()) {
        let _ = write!(out, " in {}", policy.name);
    }
    let (found, wanted) = (show(denial.found()), show(denial.wanted()));
    if denial.code() == Code::Overloaded {
        let _ = write!(out, ": {found}; {}", denial.advice());
        return out;
    }
    // The image's name stands before these and shows what was found.
    if denial.code() == Code::NotReleaseRepo && !wanted.is_empty() {
        let _ = write!(out, ", allowed here: {wanted}");
        return out;
    }
    if denial.code() != Code::NotDigestPinned {
        if !found.is_empty() {
            let _ = write!(out, ", found {found}");
        }
        if !wanted.is_empty() {
            let _ = write!(out, ", wanted {wanted}");
        }
    }
    let _ = write!(out, ", {}", denial.advice());
    out
}

/// A place as it is shown: the list and the name, whose `image` is not repeated for a volume.
fn shown(place: &Place) -> String {
    let path = match place.holder {
        Holder::Volume => place.path.strip_suffix(".image").unwrap_or(&place.path),
        Holder::Container | Holder::InitContainer | Holder::EphemeralContainer => &place.path,
    };
    let path = clip(path, 100);
    if place.name.is_empty() { path } else { format!("{path} ({})", clip(&place.name, 63)) }
}

/// The text with each sha256 digest cut to 12 hex digits.
fn short_digests(text: &str) -> Cow<'_, str> {
    const MARK: &str = "sha256:";
    if !text.contains(MARK) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let (before, hex) = rest.split_at(at + MARK.len());
        out.push_str(before);
        let digits = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
        out.push_str(&hex[..digits.min(12)]);
        rest = &hex[digits..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// As many entries as fit into `limit` bytes, with "and N more" for those of `total` that do not.
fn whole_entries(entries: &[String], total: usize, between: &str, limit: usize) -> String {
    let all = entries.join(between);
    if all.len() <= limit && entries.len() == total {
        return all;
    }
    let mut out = String::new();
    let mut kept = 0;
    for entry in entries {
        let before = if kept == 0 { "" } else { between };
        let end = format!("{between}and {} more", total - kept - 1);
        if out.len() + before.len() + entry.len() + end.len() > limit {
            break;
        }
        out.push_str(before);
        out.push_str(entry);
        kept += 1;
    }
    match kept {
        0 => format!("{total} in all"),
        _ => format!("{out}{between}and {} more", total - kept),
    }
}
