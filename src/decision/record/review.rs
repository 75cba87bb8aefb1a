//! The record of a review: what was asked, of which images, what was answered and on what ground. It must never drop an
//! image of a review that is within the limits, and never hold more of the object than its images and their places.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Serialize;

use super::Refusal;
use super::fit::{MAX_EVENT, Omitted, canonical_in_order as canonical, shorten};
use crate::decision::code::Code;
use crate::decision::evidence::{Identity, Origin};
use crate::decision::policy::Mode;
use crate::decision::reference::{Digest, ImageRef};
use crate::decision::review::{Fault, Holder, Operation, Request, ReviewedImage};
use crate::decision::verdict::{Denial, Ground, Note, OverrideRequest, Permission, Proof, Softened, Verdict};

#[cfg(test)]
mod tests;

/// What a review's record is made of.
#[derive(Debug, Clone, Copy)]
pub struct ReviewInput<'a> {
    /// Who asked for what; as much as could be read of it.
    pub request: &'a Request,
    /// Every image, as asked.
    pub images: &'a [ReviewedImage],
    /// What was answered.
    pub verdict: &'a Verdict,
    /// What was wrong with a review that could not be judged by the rules.
    pub fault: Option<&'a Fault>,
    /// Where the time went, in the order of the stages.
    pub stages: &'a [(&'static str, Duration)],
}

/// A review as it is recorded: canonical JSON within the limit of a record.
///
/// Members: `type` (`review`), `uid`, `dryRun`, `operation`, `kind`, `resource`, `requestKind`, `requestResource`,
/// `namespace`, `name`, `user`, `caller`, `groups`, `verdict`, `softened`, `notes`, `codes`, `overrides` (what waives the
/// denials that enforce), `policies`, `images`, `denials`, `fault`, `stages` (pairs of name and microseconds) and, where
/// something had no room, `omitted`: its count and the SHA-256 of the
/// canonical JSON of the whole list. Members that would be empty are left out, but for `codes`, `images`, `policies`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewRecord {
    canonical: String,
    refusal: Option<Refusal>,
}

impl ReviewRecord {
    /// Writes down a review. What is too long is shortened as little as it must be.
    #[must_use]
    pub fn new(input: ReviewInput<'_>) -> Self {
        let canonical = LEVELS
            .iter()
            .filter(|level| input.images.len() <= level.images)
            .find_map(|level| {
                let attempt = shape(input, level, Hashes::Unset);
                let text = Some(canonical(&attempt)).filter(|text| text.len() <= MAX_EVENT)?;
                // What is left out is hashed once it is known that this is how it fits.
                Some(if attempt.omitted.is_empty() { text } else { canonical(&shape(input, level, Hashes::Set)) })
            })
            .unwrap_or_else(|| tight(input));
        Self { canonical, refusal: Refusal::of(&input) }
    }

    /// What makes it equal to other refusals; `None` where it is none.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// The record's `event`, as canonical JSON.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }
}

/// How wide things may be.
struct Level {
    /// Bytes of an ordinary text.
    text: usize,
    /// Bytes of an image as asked.
    asked: usize,
    groups: usize,
    policies: usize,
    denials: usize,
    overrides: usize,
    /// For how many images this level is tried at all.
    images: usize,
    proofs: Proofs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Proofs {
    /// With each signature, its signer, identity and source.
    Whole,
    /// With the digest of each piece of evidence only.
    Evidence,
    /// Not at all: only their hash.
    Hash,
}

/// Whether what is left out is hashed already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hashes {
    Set,
    Unset,
}

impl Hashes {
    fn of<T: Serialize>(self, count: usize, whole: impl Iterator<Item = T>) -> Omitted {
        match self {
            Self::Set => Omitted::of_each(count, whole),
            Self::Unset => Omitted::unhashed(count),
        }
    }
}

/// From wide to narrow. A review of a few images with names of a usual length takes the first.
const LEVELS: [Level; 3] = [
    Level {
        text: 1024,
        asked: 1024,
        groups: 64,
        policies: 64,
        denials: 256,
        overrides: 64,
        images: 128,
        proofs: Proofs::Whole,
    },
    Level {
        text: 256,
        asked: 512,
        groups: 32,
        policies: 16,
        denials: 64,
        overrides: 16,
        images: 128,
        proofs: Proofs::Whole,
    },
    Level {
        text: 96,
        asked: 512,
        groups: 16,
        policies: 8,
        denials: 32,
        overrides: 8,
        images: 128,
        proofs: Proofs::Evidence,
    },
];

/// So many denials are hashed in their narrowest form where they are left out.
const MANY: usize = 1024;

/// For what fits no other way: what was asked and how it ended, and the images with whatever room is left.
const TIGHT: Level =
    Level { text: 64, asked: 512, groups: 2, policies: 2, denials: 0, overrides: 2, images: 0, proofs: Proofs::Hash };

// The members of all shapes stand in the order in which they are written: that of their names in JSON (RFC 8785).

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shape<'a> {
    /// `certificate`, `token` or `unknown` (C-08).
    caller: &'static str,
    codes: Vec<Code>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    denials: Vec<DenialShape<'a>>,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<FaultShape<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<Cow<'a, str>>,
    images: Vec<ImageShape<'a>>,
    kind: Cow<'a, str>,
    name: Cow<'a, str>,
    namespace: Cow<'a, str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<&'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    omitted: BTreeMap<&'static str, Omitted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<Operation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    overrides: Vec<OverrideShape<'a>>,
    policies: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_kind: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_resource: Option<Cow<'a, str>>,
    resource: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    softened: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stages: Vec<(&'static str, u64)>,
    r#type: &'static str,
    uid: Cow<'a, str>,
    user: Cow<'a, str>,
    verdict: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageShape<'a> {
    /// How many further places hold the same image; only in a tight record.
    #[serde(skip_serializing_if = "Option::is_none")]
    also: Option<usize>,
    /// As asked. Left out only where a tight record holds repository and digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<Cow<'a, str>>,
    at: Cow<'a, str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    codes: Vec<Code>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<Holder>,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    proofs: Vec<ProofShape<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_false")]
    unchanged: bool,
    /// Repository and digest are those that were verified.
    #[serde(skip_serializing_if = "is_false")]
    verified: bool,
}

#[derive(Serialize)]
struct ProofShape<'a> {
    /// Seconds since a stale proof was fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<u64>,
    ground: &'static str,
    #[serde(skip_serializing_if = "is_false")]
    listed: bool,
    /// `fetched`, `cached` or `stale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    signatures: Vec<SignatureShape<'a>>,
}

#[derive(Serialize)]
struct SignatureShape<'a> {
    evidence: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct DenialShape<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Cow<'a, str>>,
    code: Code,
    #[serde(skip_serializing_if = "str::is_empty")]
    found: Cow<'a, str>,
    mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    wanted: Cow<'a, str>,
}

#[derive(Serialize)]
struct OverrideShape<'a> {
    /// `request`.
    by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Cow<'a, str>>,
    policies: Vec<Cow<'a, str>>,
    reason: Cow<'a, str>,
    ticket: Cow<'a, str>,
    user: Cow<'a, str>,
}

#[derive(Serialize)]
struct FaultShape<'a> {
    code: Code,
    detail: Cow<'a, str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

fn shape<'a>(input: ReviewInput<'a>, level: &Level, hashes: Hashes) -> Shape<'a> {
    let ReviewInput { request, verdict, fault, stages, .. } = input;
    let text = |text: &'a str| shorten(text, level.text);
    let owned = |text: String| Cow::Owned(shorten(&text, level.text).into_owned());
    let mut omitted = BTreeMap::new();
    let (groups, policies) = (&request.groups, verdict.policies());
    if groups.len() > level.groups {
        omitted.insert("groups", hashes.of(groups.len() - level.groups, groups.iter()));
    }
    if policies.len() > level.policies {
        omitted.insert("policies", hashes.of(policies.len() - level.policies, policies.iter()));
    }
    let (denials, proofs) = (verdict.denials(), verdict.proofs());
    if denials.len() > level.denials {
        // Of thousands, most say the same of another place of the same image.
        let level = if denials.len() > MANY { &TIGHT } else { &LEVELS[0] };
        let mut once = Once { width: level.text, known: HashMap::new() };
        let whole = denials.iter().map(|denial| denial_shape_with(denial, level, |text| once.shorten(text)));
        omitted.insert("denials", hashes.of(denials.len() - level.denials, whole));
    }
    let permissions = verdict.permissions();
    if permissions.len() > level.overrides {
        let whole = permissions.iter().map(|permission| override_shape(permission, &LEVELS[0]));
        omitted.insert("overrides", hashes.of(permissions.len() - level.overrides, whole));
    }
    if level.proofs != Proofs::Whole && !proofs.is_empty() {
        let whole = proofs.iter().map(|proof| proof_shape(proof, &LEVELS[0]));
        omitted.insert("proofs", hashes.of(proofs.len(), whole));
    }
    let resource = if request.sub_resource.is_empty() {
        text(&request.resource)
    } else {
        owned(format!("{}/{}", request.resource, request.sub_resource))
    };
    Shape {
        r#type: "review",
        uid: text(&request.uid),
        dry_run: request.dry_run,
        operation: request.operation,
        kind: owned(request.kind.to_string()),
        resource,
        request_kind: request.request_kind.as_ref().map(|kind| owned(kind.to_string())),
        request_resource: request.request_resource.as_deref().map(text),
        namespace: text(&request.namespace),
        name: text(&request.name),
        user: text(&request.user),
        caller: request.caller.word(),
        groups: groups.iter().take(level.groups).map(|group| text(group)).collect(),
        verdict: verdict.word(),
        softened: verdict.softened().map(softened_word),
        notes: verdict.notes().iter().copied().map(Note::as_str).collect(),
        codes: verdict.codes(),
        overrides: permissions.iter().take(level.overrides).map(|one| override_shape(one, level)).collect(),
        policies: policies.iter().take(level.policies).map(|stamp| owned(stamp.to_string())).collect(),
        images: image_shapes(input, level),
        denials: denials.iter().take(level.denials).map(|denial| denial_shape(denial, level)).collect(),
        fault: fault.map(|Fault { code, detail }| FaultShape { code: *code, detail: text(detail) }),
        stages: stages.iter().map(|(stage, time)| (*stage, micros(*time))).collect(),
        omitted,
    }
}

/// Everything but the images takes the narrowest form; the images share what is left. Equal images are written once.
fn tight(input: ReviewInput<'_>) -> String {
    let mut shape = shape(ReviewInput { images: &[], ..input }, &TIGHT, Hashes::Set);
    let all = image_shapes(input, &TIGHT);
    let mut distinct: Vec<ImageShape<'_>> = Vec::new();
    let mut index: HashMap<(&str, bool), usize> = HashMap::new();
    for (image, reviewed) in all.into_iter().zip(input.images) {
        if let Some(at) = index.get(&(reviewed.text.as_str(), reviewed.unchanged)) {
            let known = &mut distinct[*at];
            known.also = Some(known.also.unwrap_or(0) + 1);
            for code in image.codes {
                if !known.codes.contains(&code) {
                    known.codes.push(code);
                }
            }
        } else {
            index.insert((reviewed.text.as_str(), reviewed.unchanged), distinct.len());
            distinct.push(image);
        }
    }
    let places = input.images.iter().map(|image| (&image.place.path, &image.place.name, &image.text));
    // The hash of all images stands for what is left out of each of them.
    shape.omitted.insert("images", Omitted::unhashed(0));
    let room = MAX_EVENT.saturating_sub(canonical(&shape).len() + 16);
    for width in WIDTHS {
        let mut left = room;
        // Stops at the first image without room, so that a flood of images costs no more than those that fit.
        let fitting = distinct.iter().map_while(|image| {
            let narrow = narrow(image, width);
            left = left.checked_sub(canonical(&narrow).len() + 1)?;
            Some(narrow)
        });
        shape.images = fitting.collect();
        if shape.images.len() == distinct.len() {
            break;
        }
    }
    shape.omitted.insert("images", Omitted::of_each(distinct.len() - shape.images.len(), places));
    canonical(&shape)
}

/// Ever narrower names. Not all images fit in the narrowest only where there are more than one review may hold, which then
/// is denied anyway.
const WIDTHS: [usize; 9] = [512, 256, 192, 128, 96, 80, 64, 48, 36];

/// One image in `width` bytes for its name. Where a repository and a digest are known they say it all but the tag.
fn narrow<'a>(image: &ImageShape<'a>, width: usize) -> ImageShape<'a> {
    let again = |text: &Cow<'a, str>| Cow::Owned(shorten(text, width).into_owned());
    let pinned = image.repository.is_some() && image.digest.is_some();
    ImageShape {
        asked: image.asked.as_ref().filter(|_| !pinned).map(again),
        at: match image.at.rfind('.') {
            // `spec.template.spec.volumes[2].image` and `spec.containers[0]`: the list and its index are enough.
            Some(dot) if image.at.ends_with(".image") => last_part(&image.at[..dot]),
            _ => last_part(&image.at),
        },
        holder: None,
        name: Cow::Borrowed(""),
        also: image.also,
        repository: if pinned || width > 64 { image.repository.as_ref().map(again) } else { None },
        digest: image.digest,
        verified: image.verified,
        unchanged: image.unchanged,
        codes: image.codes.iter().copied().take(if width > 64 { 8 } else { 1 }).collect(),
        proofs: Vec::new(),
    }
}

fn last_part(path: &str) -> Cow<'static, str> {
    let last = path.rsplit('.').next().unwrap_or(path);
    Cow::Owned(shorten(last, 36).into_owned())
}

fn image_shapes<'a>(input: ReviewInput<'a>, level: &Level) -> Vec<ImageShape<'a>> {
    let ReviewInput { images, verdict, .. } = input;
    let mut proofs: HashMap<&str, Vec<&Proof>> = HashMap::new();
    for proof in verdict.proofs() {
        proofs.entry(proof.place().path.as_str()).or_default().push(proof);
    }
    let mut codes: HashMap<&str, Vec<Code>> = HashMap::new();
    for denial in verdict.denials() {
        let Some(place) = denial.place() else { continue };
        let known = codes.entry(place.path.as_str()).or_default();
        if !known.contains(&denial.code()) {
            known.push(denial.code());
        }
    }
    let one = |image: &'a ReviewedImage| {
        let proofs = proofs.get(image.place.path.as_str()).map_or(&[][..], Vec::as_slice);
        let verified = proofs.iter().find_map(|proof| match proof.ground() {
            Ground::Rule { .. } => proof.image(),
            Ground::Unchanged | Ground::EmptyInTemplate => None,
        });
        let (repository, digest) = match verified {
            Some(pinned) => (Some(pinned.repository().to_string()), Some(pinned.digest())),
            None => match image.text.parse::<ImageRef>() {
                Ok(named) => (Some(named.repository().to_string()), named.digest()),
                Err(_) => (None, None),
            },
        };
        ImageShape {
            asked: Some(shorten(&image.text, level.asked)),
            at: shorten(&image.place.path, level.text.max(128)),
            holder: Some(image.place.holder),
            name: shorten(&image.place.name, level.text),
            also: None,
            repository: repository.map(Cow::Owned),
            digest,
            verified: verified.is_some(),
            unchanged: image.unchanged,
            codes: codes.get(image.place.path.as_str()).cloned().unwrap_or_default(),
            proofs: match level.proofs {
                Proofs::Whole | Proofs::Evidence => proofs.iter().map(|proof| proof_shape(proof, level)).collect(),
                Proofs::Hash => Vec::new(),
            },
        }
    };
    images.iter().map(one).collect()
}

fn proof_shape<'a>(proof: &'a Proof, level: &Level) -> ProofShape<'a> {
    let bare = |ground| ProofShape {
        ground,
        policy: None,
        rule: None,
        listed: false,
        signatures: Vec::new(),
        origin: None,
        age: None,
    };
    match proof.ground() {
        Ground::Unchanged => bare("unchanged"),
        Ground::EmptyInTemplate => bare("empty-in-template"),
        Ground::Rule { policy, rule, listed, signatures, origin } => {
            let whole = level.proofs == Proofs::Whole;
            ProofShape {
                policy: Some(shorten(policy.name.as_str(), level.text).into_owned().into()),
                rule: Some(rule.as_str()),
                listed: *listed,
                signatures: (signatures.iter())
                    .map(|signature| SignatureShape {
                        signer: Some(signature.signer.as_str()),
                        identity: whole.then(|| identity_text(&signature.identity)),
                        evidence: signature.evidence,
                        source: whole.then(|| shorten(&signature.source, level.text)),
                    })
                    .collect(),
                origin: origin.map(|origin| match origin {
                    Origin::Fetched => "fetched",
                    Origin::Cached => "cached",
                    Origin::Stale(_) => "stale",
                }),
                age: proof.stale().map(|age| age.as_secs()),
                ..bare("rule")
            }
        }
    }
}

/// Texts that are shortened once, however often they are shared.
struct Once<'a> {
    width: usize,
    known: HashMap<(usize, usize), Cow<'a, str>>,
}

impl<'a> Once<'a> {
    fn shorten(&mut self, text: &'a str) -> Cow<'a, str> {
        let width = self.width;
        self.known.entry((text.as_ptr().addr(), text.len())).or_insert_with(|| shorten(text, width)).clone()
    }
}

fn denial_shape<'a>(denial: &'a Denial, level: &Level) -> DenialShape<'a> {
    denial_shape_with(denial, level, |text| shorten(text, level.text))
}

fn denial_shape_with<'a>(
    denial: &'a Denial,
    level: &Level,
    mut text: impl FnMut(&'a str) -> Cow<'a, str>,
) -> DenialShape<'a> {
    DenialShape {
        code: denial.code(),
        at: denial.place().map(|place| shorten(&place.path, level.text.max(128))),
        policy: denial.policy().map(|stamp| shorten(stamp.name.as_str(), level.text)),
        rule: denial.rule().map(crate::decision::name::RuleName::as_str),
        wanted: text(denial.wanted()),
        found: text(denial.found()),
        mode: denial.mode(),
    }
}

fn override_shape<'a>(permission: &'a Permission, level: &Level) -> OverrideShape<'a> {
    let text = |text: &'a str| shorten(text, level.text);
    let Permission::Request(OverrideRequest { user, ticket, reason, container, policies }) = permission;
    OverrideShape {
        by: permission.kind(),
        user: text(user),
        ticket: text(ticket),
        reason: text(reason),
        container: container.as_deref().map(text),
        policies: policies.iter().take(level.policies).map(|stamp| text(stamp.name.as_str())).collect(),
    }
}

fn identity_text(identity: &Identity) -> String {
    match identity {
        Identity::Key(fingerprint) => format!("key {fingerprint}"),
    }
}

const fn softened_word(softened: Softened) -> &'static str {
    match softened {
        Softened::Warn => "warn",
        Softened::Audit => "audit",
        Softened::MirrorPod => "mirror-pod",
        Softened::Observe => "observe",
    }
}

/// Whole microseconds, below 2^53 so that they are exact in every reader of JSON.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min((1 << 53) - 1)
}
