//! Whether what was denied is overridden: an override is a verdict, not a bypass. It must never waive a denial by anything
//! but the `breakGlass` of the very policy that denies, nor let several permissions add up.
//!
//! The rules have run when this is asked, and all that they refused comes in. What is answered concerns only the denials
//! that enforce: either every one of them is waived, or what is wrong with the request stands beside them.

use super::code::Code;
use super::pattern::TicketPattern;
use super::policy::{Governing, Mode, OverrideRequests, PolicyStamp, Waivable, is_machine, is_machine_group};
use super::reference::ImageRef;
use super::review::{BREAK_GLASS_LABEL, BREAK_GLASS_REASON, Holder, OverrideAsked, Place, Request, Review, Subject};
use super::verdict::{Denial, OverrideRequest, Permission};

/// Longest reason with its ticket, in characters.
pub const MAX_REASON: usize = 500;
/// Longest user name that is kept of a permission, in characters.
const MAX_USER: usize = 256;

/// What becomes of denials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::decision) enum Outcome {
    /// Nobody asked for an override.
    NotAsked,
    /// It does not count: what to say beside the denials; never empty.
    Refused(Vec<Denial>),
    /// Every denial that enforces is waived by one of these, none by two; never empty.
    Waived(Vec<Permission>),
}

/// Which word of a policy covers a code; `None`: nothing waives it. What is about the image's name, about the digest itself,
/// about the review as a whole or about us is never waived.
#[must_use]
pub const fn waivable(code: Code) -> Option<Waivable> {
    match code {
        Code::NotReleaseRepo | Code::DigestNotListed => Some(Waivable::Repository),
        Code::Unsigned
        | Code::SignatureInvalid
        | Code::WrongSigner
        | Code::ThresholdNotMet
        | Code::SubjectMismatch
        | Code::KeyNotValid
        | Code::EvidenceMalformed
        | Code::AnnotationMismatch
        | Code::EvidenceUnavailable
        | Code::RateLimited
        | Code::RegistryAuthFailed
        | Code::DeadlineExceeded
        | Code::ImageNotFound => Some(Waivable::Signatures),
        Code::NotDigestPinned
        | Code::MalformedReference
        | Code::UnsupportedDigest
        | Code::EmptyImage
        | Code::DenyListed
        | Code::UnknownImageField
        | Code::UnsupportedKind
        | Code::MalformedReview
        | Code::ReviewTooLarge
        | Code::NoPolicy
        | Code::PolicyInvalid
        | Code::DigestMismatch
        | Code::ManifestInvalid
        | Code::AddressRefused
        | Code::BudgetExceeded
        | Code::BreakGlassDisabled
        | Code::BreakGlassRefused
        | Code::BreakGlassMalformed
        | Code::GrantNotWaivable
        | Code::GrantInsufficient
        | Code::AuditUnavailable
        | Code::Overloaded
        | Code::InternalError => None,
    }
}

/// Whether a review that passes asked for an override all the same (BG-08). A reason that an earlier request left on a pod
/// asks for nothing.
pub(in crate::decision) fn is_unneeded(review: &Review) -> bool {
    let OverrideAsked { reason, containers, label, owned: _ } = &review.override_asked;
    *label || !containers.is_empty() || reason.as_ref().is_some_and(|reason| reason.fresh)
}

/// Whether a review asks for an override, in whatever way.
pub(in crate::decision) fn is_asked(review: &Review) -> bool {
    let OverrideAsked { reason, containers, label, owned: _ } = &review.override_asked;
    reason.is_some() || !containers.is_empty() || *label
}

/// Judges what was asked for against all that stands in the way: denials that enforce, and what an override would let pass
/// unjudged. Denials that a policy's mode softens need nobody's permission.
pub(in crate::decision) fn judge(review: &Review, governing: &Governing, refused: &[Denial]) -> Outcome {
    let asked = &review.override_asked;
    if !is_asked(review) {
        return Outcome::NotAsked;
    }
    let enforcing: Vec<&Denial> = refused.iter().filter(|denial| denial.mode == Mode::Enforce).collect();
    if enforcing.is_empty() {
        // What denies is nobody's to waive.
        return Outcome::NotAsked;
    }
    let (stakes, mut faults) = stakes(&enforcing, governing);
    if asked.reason.is_none() && asked.containers.is_empty() {
        let found = format!("the label {BREAK_GLASS_LABEL}, which says neither who answers for it nor why");
        faults.push(beside(Code::BreakGlassMalformed, None, None, how_to_ask(&stakes, None), found));
    }
    if !faults.is_empty() {
        return Outcome::Refused(faults);
    }
    if let Some(fault) = cannot_count(review) {
        return Outcome::Refused(vec![fault]);
    }
    let mut permissions = Vec::new();
    match (is_for_debug_containers(&review.request), &asked.reason) {
        (false, Some(reason)) => match permit(review, None, &reason.text, &stakes) {
            Ok(permission) => permissions.push(permission),
            Err(refused) => faults.extend(refused),
        },
        // Reasons for debug containers on a request that adds none: `cannot_count` says so for a reason that stands alone.
        (false, None) | (true, _) => {
            for stakes in stakes.chunk_by(|a, b| a.denial.place == b.denial.place) {
                match permit_container(review, stakes) {
                    Ok(permission) => permissions.push(permission),
                    Err(refused) => faults.extend(refused),
                }
            }
        }
    }
    if faults.is_empty() && !permissions.is_empty() { Outcome::Waived(permissions) } else { Outcome::Refused(faults) }
}

/// A denial that may be waived, with what its policy says about that.
#[derive(Clone, Copy)]
struct Stake<'a> {
    denial: &'a Denial,
    policy: &'a PolicyStamp,
    rules: &'a OverrideRequests,
    kind: Waivable,
}

/// What is at stake; and where something stands in the way whoever asks, what that is.
fn stakes<'a>(enforcing: &[&'a Denial], governing: &'a Governing) -> (Vec<Stake<'a>>, Vec<Denial>) {
    let mut stakes = Vec::new();
    let mut never: Vec<Code> = Vec::new();
    let mut disabled: Vec<&PolicyStamp> = Vec::new();
    for denial in enforcing {
        let (Some(policy), Some(kind)) = (&denial.policy, waivable(denial.code)) else {
            push_once(&mut never, denial.code);
            continue;
        };
        match governing.policies.iter().find(|p| p.name == policy.name).and_then(|p| p.break_glass.as_ref()) {
            Some(break_glass) => stakes.push(Stake { denial, policy, rules: &break_glass.request, kind }),
            None => push_once(&mut disabled, policy),
        }
    }
    let mut faults: Vec<Denial> = disabled
        .into_iter()
        .map(|policy| {
            let found = format!("policy {} lets nobody override it", policy.name);
            beside(Code::BreakGlassDisabled, None, Some(policy), String::new(), found)
        })
        .collect();
    if !never.is_empty() {
        faults.push(beside(Code::GrantNotWaivable, None, None, String::new(), codes(&never)));
    }
    (stakes, faults)
}

/// Why a request like this cannot count, whatever the policies say; `None` where it can.
fn cannot_count(review: &Review) -> Option<Denial> {
    const OWN_POD: &str = "a pod that you make yourself";
    let Review { request, override_asked: asked, .. } = review;
    let refuse =
        |found: String, wanted: &str| Some(beside(Code::BreakGlassRefused, None, None, wanted.to_owned(), found));
    if !request.caller.is_known() {
        return refuse("a caller that has not shown that it is the API server".to_owned(), "one that has");
    }
    match review.subject {
        Subject::Template => return refuse("a reason on a template".to_owned(), OWN_POD),
        Subject::Pod | Subject::NoImages => {}
    }
    if is_machine(&request.user) || request.groups.iter().any(|group| is_machine_group(group)) {
        return refuse(format!("sent by {}, which is no person", shown(&request.user)), OWN_POD);
    }
    if is_for_debug_containers(request) {
        // Whose pod it is does not matter: the person who asks adds the container, and nobody else does.
        if asked.containers.is_empty() {
            let wanted = format!("the annotation {BREAK_GLASS_REASON}.<container>, put on the pod beforehand");
            return refuse("a reason that is not for this container".to_owned(), &wanted);
        }
    } else if asked.owned {
        return refuse("a pod that belongs to a controller".to_owned(), OWN_POD);
    } else if !asked.reason.as_ref().is_some_and(|reason| reason.fresh) {
        return refuse(
            "a reason left over from an earlier request".to_owned(),
            "one that this very request adds or changes",
        );
    }
    None
}

fn is_for_debug_containers(request: &Request) -> bool {
    request.sub_resource == "ephemeralcontainers"
}

/// Whether the reason for one debug container waives all that is denied of it. All stakes are of one place.
fn permit_container(review: &Review, stakes: &[Stake<'_>]) -> Result<Permission, Vec<Denial>> {
    let Some(place) = stakes.first().and_then(|stake| stake.denial.place.as_ref()) else { return Err(Vec::new()) };
    let text = match place.holder {
        Holder::EphemeralContainer => review.override_asked.containers.get(&place.name),
        Holder::Container | Holder::InitContainer | Holder::Volume => None,
    };
    let Some(text) = text else {
        let wanted = how_to_ask(stakes, Some(place));
        let found = "no reason for this container".to_owned();
        return Err(vec![beside(Code::BreakGlassMalformed, stakes.first(), None, wanted, found)]);
    };
    permit(review, Some(place), text, stakes)
}

/// Whether one text by one person waives all stakes: who asks, what is said, what it covers, in this order.
fn permit(
    review: &Review,
    container: Option<&Place>,
    text: &str,
    stakes: &[Stake<'_>],
) -> Result<Permission, Vec<Denial>> {
    let request = &review.request;
    let at = container.and_then(|_| stakes.first());
    let mut policies: Vec<(&PolicyStamp, &OverrideRequests)> = Vec::new();
    for stake in stakes {
        push_once(&mut policies, (stake.policy, stake.rules));
    }
    let each = |fault: &dyn Fn(&PolicyStamp, &OverrideRequests) -> Option<Denial>| {
        let faults: Vec<Denial> = policies.iter().filter_map(|(policy, rules)| fault(policy, rules)).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    };
    each(&|policy, rules| {
        (!rules.lists(&request.user, &request.groups)).then(|| {
            let found = format!("{} is not listed by policy {}", shown(&request.user), policy.name);
            beside(Code::BreakGlassRefused, at, Some(policy), "somebody whom the policy lists".to_owned(), found)
        })
    })?;
    let said = Said::parse(text, container.is_some()).map_err(|why| {
        let found = format!("\"{}\": {why}", shown(text));
        vec![beside(Code::BreakGlassMalformed, at, None, how_to_ask(stakes, container), found)]
    })?;
    each(&|policy, rules| {
        (!rules.ticket_pattern.matches(said.ticket)).then(|| {
            let found = format!("\"{}\", whose first word is no such ticket", shown(text));
            let wanted = way_to_ask(Some(&rules.ticket_pattern), container, at);
            beside(Code::BreakGlassMalformed, at, Some(policy), wanted, found)
        })
    })?;
    if let (Some(named), Some(stake)) = (said.image, at)
        && !is_same_image(named, stake.denial.image().unwrap_or_default())
    {
        let found = format!("a reason for {}", shown(named));
        return Err(vec![beside(Code::BreakGlassRefused, at, None, "a reason for this very image".to_owned(), found)]);
    }
    each(&|policy, rules| {
        let mut uncovered = Vec::new();
        for stake in stakes.iter().filter(|s| s.policy == policy && !rules.waivable.contains(&s.kind)) {
            push_once(&mut uncovered, stake.denial.code);
        }
        (!uncovered.is_empty()).then(|| {
            let words = rules.waivable.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
            let wanted = format!("only what policy {} lets a person waive alone: {words}", policy.name);
            beside(Code::GrantInsufficient, at, Some(policy), wanted, codes(&uncovered))
        })
    })?;
    Ok(Permission::Request(OverrideRequest {
        user: request.user.chars().take(MAX_USER).collect(),
        ticket: said.ticket.to_owned(),
        reason: said.why.to_owned(),
        container: container.map(|place| place.name.clone()),
        policies: policies.into_iter().map(|(policy, _)| policy.clone()).collect(),
    }))
}

/// Both pinned, to one digest in one repository. The tag means nothing.
fn is_same_image(named: &str, image: &str) -> bool {
    let pinned = |text: &str| text.parse::<ImageRef>().ok().and_then(|image| image.pinned());
    pinned(named).is_some_and(|named| Some(named) == pinned(image))
}

/// A reason taken apart: `<ticket> <why>`, for a debug container `<ticket> <image@digest> <why>`.
#[derive(Debug, PartialEq, Eq)]
struct Said<'a> {
    ticket: &'a str,
    image: Option<&'a str>,
    why: &'a str,
}

impl<'a> Said<'a> {
    fn parse(text: &'a str, names_image: bool) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.len() > 4 * MAX_REASON || text.chars().count() > MAX_REASON {
            return Err("longer than 500 characters");
        }
        if text.chars().any(char::is_control) {
            return Err("more than one line");
        }
        let word = |text: &'a str| text.split_once(' ').map_or((text, ""), |(word, rest)| (word, rest.trim_start()));
        let (ticket, rest) = word(text);
        let (image, why) = if names_image {
            let (image, why) = word(rest);
            (Some(image), why)
        } else {
            (None, rest)
        };
        if ticket.is_empty() {
            return Err("it is empty");
        }
        if !why.chars().any(char::is_alphanumeric) {
            return Err("it does not say why");
        }
        Ok(Self { ticket, image, why })
    }
}

/// The annotation that would do, with the ticket as the first policy wants it.
fn how_to_ask(stakes: &[Stake<'_>], container: Option<&Place>) -> String {
    let first = stakes.first();
    way_to_ask(first.map(|stake| &stake.rules.ticket_pattern), container, first)
}

fn way_to_ask(ticket: Option<&TicketPattern>, container: Option<&Place>, at: Option<&Stake<'_>>) -> String {
    let ticket = ticket.map_or_else(|| "<ticket>".to_owned(), ToString::to_string);
    match container {
        None => format!("on a pod that you make yourself the annotation {BREAK_GLASS_REASON}: \"{ticket} <why>\""),
        Some(place) => {
            let image = at.and_then(|stake| stake.denial.image()).unwrap_or("<image@digest>");
            format!("on the pod beforehand {BREAK_GLASS_REASON}.{}: \"{ticket} {image} <why>\"", place.name)
        }
    }
}

/// What is wrong with a request for an override: of one image where `at` is given, else of the whole review.
fn beside(code: Code, at: Option<&Stake<'_>>, policy: Option<&PolicyStamp>, wanted: String, found: String) -> Denial {
    Denial {
        place: at.and_then(|stake| stake.denial.place.clone()),
        image: at.and_then(|stake| stake.denial.image.clone()),
        policy: policy.cloned(),
        ..Denial::of_review(code, wanted, found)
    }
}

fn codes(codes: &[Code]) -> String {
    codes.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(", ")
}

/// The beginning of a text that is not ours.
fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(80).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}

fn push_once<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x_107_a_reason_is_a_ticket_and_why() {
        let long = format!("INC-1 {}", "a".repeat(MAX_REASON - 6));
        let too_long = format!("{long}a");
        let wide = format!("INC-1 {}", "\u{10000}".repeat(MAX_REASON - 6));
        for (name, text, want) in [
            ("as asked for", "INC-42 database is down", Ok(("INC-42", "database is down"))),
            ("one word", "INC-42 rollback", Ok(("INC-42", "rollback"))),
            ("spaces around", "  INC-42   database  is down \n", Ok(("INC-42", "database  is down"))),
            ("as long as can be", &long, Ok(("INC-1", &long[6..]))),
            ("as wide as can be", &wide, Ok(("INC-1", &wide[6..]))),
            ("empty", "", Err("it is empty")),
            ("blank", " \n\t ", Err("it is empty")),
            ("a ticket alone", "INC-42", Err("it does not say why")),
            ("a ticket and nothing that says why", "INC-42 - ...", Err("it does not say why")),
            ("a ticket and what nobody sees", "INC-42 \u{200b}\u{202e}", Err("it does not say why")),
            ("a second line", "INC-42 a\nb", Err("more than one line")),
            ("a tab", "INC-42\tbroken", Err("more than one line")),
            ("an escape", "INC-42 \u{1b}[31mred", Err("more than one line")),
            ("one too many", &too_long, Err("longer than 500 characters")),
            ("a mebibyte", &"x".repeat(1 << 20), Err("longer than 500 characters")),
        ] {
            let said = Said::parse(text, false).map(|Said { ticket, image, why }| {
                assert_eq!(image, None, "{name}");
                (ticket, why)
            });
            assert_eq!(said, want, "{name}");
        }
    }

    #[test]
    fn a_reason_for_a_debug_container_names_its_image() {
        for (text, want) in [
            ("INC-42 r.example/a@sha256:b look at it", Ok(("INC-42", "r.example/a@sha256:b", "look at it"))),
            ("INC-42 look at it", Ok(("INC-42", "look", "at it"))),
            ("INC-42 r.example/a@sha256:b", Err("it does not say why")),
            ("INC-42", Err("it does not say why")),
        ] {
            let said = Said::parse(text, true).map(|said| (said.ticket, said.image.unwrap_or_default(), said.why));
            assert_eq!(said, want, "{text}");
        }
        let digest = |c: char| c.to_string().repeat(64);
        let (a, b) = (digest('a'), digest('b'));
        for (named, image, want) in [
            (format!("docker.io/library/busybox@sha256:{a}"), format!("busybox@sha256:{a}"), true),
            (format!("busybox:1.36@sha256:{a}"), format!("busybox@sha256:{a}"), true),
            (format!("busybox@sha256:{b}"), format!("busybox@sha256:{a}"), false),
            (format!("r.example/busybox@sha256:{a}"), format!("busybox@sha256:{a}"), false),
            ("busybox:1.36".to_owned(), "busybox:1.36".to_owned(), false),
            (String::new(), String::new(), false),
        ] {
            assert_eq!(is_same_image(&named, &image), want, "{named} for {image}");
        }
    }

    #[test]
    fn x_114_what_no_policy_can_waive() {
        let never: Vec<&str> =
            Code::ALL.iter().filter(|code| waivable(**code).is_none()).map(|code| code.as_str()).collect();
        for code in [
            "not-digest-pinned",
            "malformed-reference",
            "unsupported-digest",
            "empty-image",
            "deny-listed",
            "no-policy",
            "policy-invalid",
            "digest-mismatch",
            "manifest-invalid",
            "address-refused",
            "budget-exceeded",
            "break-glass-refused",
            "audit-unavailable",
            "internal-error",
        ] {
            assert!(never.contains(&code), "{code}");
        }
        // What always denies, whatever a policy's mode, no policy can waive either.
        for code in Code::ALL.iter().filter(|code| !code.can_be_softened()) {
            assert_eq!(waivable(*code), None, "{code}");
        }
    }
}
