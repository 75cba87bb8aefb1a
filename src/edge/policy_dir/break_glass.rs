//! The `breakGlass` of a policy: who may override what of it. It must never let somebody be listed whom no request could
//! come from, nor a word that changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::decision::pattern::TicketPattern;
use crate::decision::policy::{BreakGlass, Mode, OverrideRequests, Waivable, is_machine, is_machine_group};

use super::compile::{is_line, list, parsed, repeated};
use super::document::{self as written, not_yet_hint};
use super::fault::{Fault, Faults, Position, shown};
use super::read::At;

/// Longest name of a user or group, in characters.
const MAX_NAME: usize = 256;

/// `None` only where a fault was recorded.
pub(super) fn compile(written: &At<written::BreakGlass>, mode: Option<Mode>, faults: &Faults) -> Option<BreakGlass> {
    match mode {
        Some(Mode::Warn | Mode::Audit) => faults.warn(written.at, Fault::NothingToOverride),
        Some(Mode::Enforce) | None => {}
    }
    let written::BreakGlass { request, grants } = written.value.as_ref()?;
    let Some(request) = request else {
        // With `grants` alone there is one fault already, and it says what to write.
        if grants.is_none() {
            faults.error(written.at, Fault::Missing { key: "request".to_owned() });
        }
        return None;
    };
    Some(BreakGlass { request: requests(request, faults)? })
}

fn requests(written: &At<written::OverrideRequests>, faults: &Faults) -> Option<OverrideRequests> {
    let written::OverrideRequests { users, groups, waivable, ticket_pattern, rbac } = written.value.as_ref()?;
    if let Some(At { at, value: Some(true) }) = rbac {
        not_yet(*at, "rbac", faults);
    }
    if users.is_none() && groups.is_none() {
        faults.error(written.at, Fault::NobodyMayAsk);
    }
    let users = names(users.as_ref(), "users", is_machine, faults);
    // Everybody who is known at all has this one.
    let is_no_group = |group: &str| is_machine_group(group) || group == "system:authenticated";
    let groups = names(groups.as_ref(), "groups", is_no_group, faults);
    let waivable = self::waivable(waivable, faults);
    let ticket_pattern = parsed::<TicketPattern>(ticket_pattern, faults, Fault::from);
    Some(OverrideRequests { users: users?, groups: groups?, waivable: waivable?, ticket_pattern: ticket_pattern? })
}

fn names(
    written: Option<&At<Vec<At<String>>>>,
    key: &'static str,
    is_nobody: impl Fn(&str) -> bool,
    faults: &Faults,
) -> Option<BTreeSet<String>> {
    let Some(written) = written else { return Some(BTreeSet::new()) };
    let mut seen = BTreeMap::new();
    let mut whole = true;
    for item in list(written, key, "list who may ask, or remove it", faults)? {
        let Some(name) = &item.value else {
            whole = false;
            continue;
        };
        if name.trim() != name || !is_line(name, MAX_NAME) {
            faults.error(item.at, Fault::Text { key, limit: MAX_NAME });
            whole = false;
        } else if is_nobody(name) || name.contains('*') {
            faults.error(item.at, Fault::NotPersons(shown(name)));
            whole = false;
        } else {
            let what = if key == "users" { "user" } else { "group" };
            repeated(&mut seen, name.clone(), item.at, what, faults);
        }
    }
    whole.then(|| seen.into_keys().collect())
}

fn waivable(written: &At<Vec<At<written::Waivable>>>, faults: &Faults) -> Option<BTreeSet<Waivable>> {
    let mut seen: BTreeMap<&'static str, Position> = BTreeMap::new();
    let mut whole = true;
    let mut out = BTreeSet::new();
    for item in list(written, "waivable", "say what may be waived, or remove `breakGlass`", faults)? {
        let kind = match item.value {
            Some(written::Waivable::Repository) => Waivable::Repository,
            Some(written::Waivable::Signatures) => Waivable::Signatures,
            Some(written::Waivable::Attestations) => {
                not_yet(item.at, "attestations", faults);
                whole = false;
                continue;
            }
            None => {
                whole = false;
                continue;
            }
        };
        repeated(&mut seen, kind.as_str(), item.at, "word", faults);
        out.insert(kind);
    }
    whole.then_some(out)
}

/// A value that a later version honours.
fn not_yet(at: Position, key: &'static str, faults: &Faults) {
    let hint = not_yet_hint(key).map_or("remove it", |(_, hint)| hint);
    faults.error(at, Fault::NotYet { key, hint });
}
