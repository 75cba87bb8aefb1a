//! One search: every place in which evidence about an image can lie, in rounds, within limits. It must never take a
//! source that did not answer for one that has nothing.

mod image;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::timeout_at;

use super::fetch::{Calls, Check, Done, Read, Step, Tools, Wanted, fallback_tag, legacy_tag};
use super::findings::Findings;
use super::limits::{AT_ONCE, CHECKS_IN_A_TURN};
use super::manifest::{Artifact, Document, Index, Invalid};
use crate::decision::code::Code;
use crate::decision::evidence::{Facts, Question, Rejected, VerifiedStatement};
use crate::decision::reference::Digest;
use crate::edge::registry::{Budget, Descriptor, Failure, Referrers};
use crate::edge::sigstore::verify::{self, Candidate, Claim, Unproven};
use crate::edge::sigstore::{bundle, payload};

/// Searches until `stop` says that the facts suffice, or until there is nothing left to ask.
///
/// `stop` is asked after each change that can matter to it. Where the children of an index are part of the question, it
/// is not asked before they are known, and where they cannot be known no statement is handed out.
pub(super) async fn search(
    tools: &Tools,
    question: &Arc<Question>,
    budget: &Budget,
    mut stop: impl FnMut(&Facts) -> bool,
) -> Facts {
    let calls = Calls { tools, question, budget, scope: tools.source.credential_scope(question.image.repository()) };
    let mut search = Search::new(tools, question);
    let mut running: FuturesUnordered<BoxFuture<'_, Done>> = FuturesUnordered::new();
    let has_api = tools.source.has_referrers_api(question.image.repository().host()).await;
    search.first_round(has_api == Some(true));
    loop {
        while let Some(step) = search.next_step(running.len()) {
            running.push(Box::pin(calls.run(step)));
        }
        if running.is_empty() {
            // Before any other answer than "proven", every source that was left out is asked.
            if search.ask_the_rest() {
                continue;
            }
            break;
        }
        match timeout_at(budget.deadline, running.next()).await {
            Ok(Some(done)) => search.absorb(done),
            Ok(None) => continue,
            Err(_) => {
                search.found.unanswered(Code::DeadlineExceeded, "the search for evidence took too long".to_owned());
                return search.finish(false);
            }
        }
        if search.found.changed && search.may_be_judged() {
            search.found.changed = false;
            if stop(&search.found.facts) {
                return search.finish(false);
            }
        }
    }
    search.finish(true)
}

/// What is known about the image's own manifest.
#[derive(Debug, PartialEq, Eq)]
enum Image {
    NotAsked,
    Asked,
    /// Read, and sound.
    Read(Bytes),
    /// Answered, but of no use; `image_fault`, `unanswered` or `limit` says why.
    Failed,
}

/// Order of fetching: sources, then what was opened, then what looks most likely, newest first.
type Rank = (u8, Reverse<i64>, Digest, u64);

/// A payload with every layer that points to it: digest, size, and each layer's place and signature.
type Shared = (Digest, u64, Vec<(String, String)>);

struct Search<'a> {
    tools: &'a Tools,
    question: &'a Question,
    found: Findings,
    queue: BTreeMap<Rank, Step>,
    steps: u64,
    seen: BTreeSet<Digest>,
    listed: usize,
    /// Referrers that count as opened, and how many of them are on their way.
    opened: usize,
    opening: usize,
    /// Candidates to check, in turns, and whether some are being checked.
    checks: VecDeque<Check>,
    checking: bool,
    fallback_asked: bool,
    image: Image,
    /// Entries of the image's index, and of the indexes in it.
    children: Vec<Digest>,
    /// Nested indexes that are still to come.
    nested: usize,
    /// Bundles that can only be checked against the image's own bytes.
    waiting: Vec<(String, Bytes)>,
}

impl<'a> Search<'a> {
    fn new(tools: &'a Tools, question: &'a Question) -> Self {
        Self {
            tools,
            question,
            found: Findings::new(question.image.digest()),
            queue: BTreeMap::new(),
            steps: 0,
            seen: BTreeSet::new(),
            listed: 0,
            opened: 0,
            opening: 0,
            checks: VecDeque::new(),
            checking: false,
            fallback_asked: false,
            image: Image::NotAsked,
            children: Vec::new(),
            nested: 0,
            waiting: Vec::new(),
        }
    }

    fn first_round(&mut self, has_api: bool) {
        if self.question.children {
            self.ask_image();
        }
        if self.question.keys.is_empty() {
            return;
        }
        self.ask(Step::Referrers);
        self.ask(Step::LegacyTag);
        if !has_api {
            self.ask_fallback();
        }
    }

    /// Asks what was left out; whether there was anything.
    fn ask_the_rest(&mut self) -> bool {
        if !self.question.keys.is_empty() {
            self.ask_fallback();
        }
        self.ask_image();
        !self.queue.is_empty()
    }

    fn ask(&mut self, step: Step) {
        self.push(0, 0, Digest::from_bytes([0; 32]), step);
    }

    fn ask_fallback(&mut self) {
        if !std::mem::replace(&mut self.fallback_asked, true) {
            self.ask(Step::FallbackTag);
        }
    }

    fn ask_image(&mut self) {
        if self.image == Image::NotAsked {
            self.image = Image::Asked;
            self.ask(Step::Image);
        }
    }

    fn push(&mut self, class: u8, created: i64, digest: Digest, step: Step) {
        self.steps += 1;
        self.queue.insert((class, Reverse(created), digest, self.steps), step);
    }

    /// The next thing to do while so many are under way, if it is time for one. What waits to be checked comes first, and
    /// as long as it waits nothing is fetched in its place.
    fn next_step(&mut self, running: usize) -> Option<Step> {
        let turn = self.next_turn();
        if !turn.is_empty() {
            return Some(Step::Check(turn));
        }
        if running + self.checks.len() < AT_ONCE { self.next_fetch() } else { None }
    }

    /// The candidates to check next, if none is being checked. Those whose checks would be too many are dropped.
    fn next_turn(&mut self) -> Vec<Check> {
        let mut turn = Vec::new();
        let each = self.question.keys.len();
        while !self.checking && (turn.is_empty() || (turn.len() + 1) * each <= CHECKS_IN_A_TURN) {
            let Some(check) = self.checks.pop_front() else { break };
            let checks = self.found.facts.checks.saturating_add(each);
            if checks <= self.tools.limits.checks {
                self.found.facts.checks = checks;
                turn.push(check);
            } else {
                self.found.limit(format!("over {} signature checks", self.tools.limits.checks));
            }
        }
        self.checking |= !turn.is_empty();
        turn
    }

    /// The next thing to fetch, if it is time for it. Referrers over the limit are dropped, the least likely ones being
    /// last; but while some are on their way, one of those may turn out to be none, and use up no count.
    fn next_fetch(&mut self) -> Option<Step> {
        loop {
            let entry = self.queue.first_entry()?;
            if matches!(entry.get(), Step::Open(_)) {
                if self.opened >= self.tools.limits.opened {
                    if self.opening > 0 {
                        return None;
                    }
                    entry.remove();
                    self.found.limit(format!("over {} referrers", self.tools.limits.opened));
                    continue;
                }
                self.opened += 1;
                self.opening += 1;
            }
            return Some(entry.remove());
        }
    }

    fn absorb(&mut self, done: Done) {
        match done {
            Done::Referrers(list) => self.referrers(list),
            Done::LegacyTag(fetched) => self.legacy_tag(fetched),
            Done::FallbackTag(fetched) => self.fallback_tag(fetched),
            Done::Image(fetched) => self.image(fetched),
            Done::Nested(digest, depth, fetched) => self.nested(digest, depth, fetched),
            Done::Open(descriptor, fetched) => {
                self.opening -= 1;
                self.opened(&descriptor, fetched);
            }
            Done::Blob(what, fetched) => self.blob(what, fetched),
            Done::Checked(results) => {
                self.checking = false;
                for result in results {
                    self.judged(result);
                }
            }
        }
    }

    fn referrers(&mut self, list: Result<Referrers, Failure>) {
        match list {
            Ok(Referrers::Listed { entries, complete, cut_by }) => {
                if let Some(limit) = cut_by {
                    self.found.limit(limit);
                }
                if !complete {
                    self.ask_fallback();
                }
                self.list(entries.into_iter());
            }
            Ok(Referrers::NoApi) | Err(Failure::NotFound { .. }) => {
                self.ask_fallback();
            }
            Err(failure) => self.found.source_failed(failure),
        }
    }

    fn fallback_tag(&mut self, fetched: Result<Read, Failure>) {
        let source = format!("tag {}", fallback_tag(self.question.image.digest()));
        let read = match fetched {
            Ok(read) => read,
            Err(failure) => return self.found.source_failed(failure),
        };
        // Tools that copy images leave the image itself under this tag.
        if read.digest == self.question.image.digest() {
            return;
        }
        match read.document {
            Ok(Document::Index(Index { entries, count })) => {
                if count > entries.len() {
                    self.found.limit(format!("over {} referrers are listed", entries.len()));
                }
                let entries: Vec<Descriptor> =
                    entries.into_iter().filter_map(|entry| self.sound(&source, entry)).collect();
                self.list(entries.into_iter());
            }
            Ok(Document::Manifest(_)) => {
                self.found.reject(&source, Code::ManifestInvalid, "it is not a list of referrers".to_owned());
            }
            Err(unread) => self.found.tag_unread(&source, unread),
        }
    }

    fn legacy_tag(&mut self, fetched: Result<Read, Failure>) {
        let source = format!("tag {}", legacy_tag(self.question.image.digest()));
        match fetched.map(|read| read.document) {
            Ok(Ok(Document::Manifest(artifact))) => self.payloads(&source, &artifact),
            Ok(Ok(Document::Index(_))) => {
                self.found.reject(&source, Code::ManifestInvalid, "it is an index, not a manifest".to_owned());
            }
            Ok(Err(unread)) => self.found.tag_unread(&source, unread),
            Err(failure) => self.found.source_failed(failure),
        }
    }

    /// Queues the entries of a list, each once, whatever list names it.
    fn list(&mut self, entries: impl Iterator<Item = Descriptor>) {
        for entry in entries {
            if self.seen.contains(&entry.digest) {
                continue;
            }
            if self.listed >= self.tools.limits.listed {
                self.found.limit(format!("over {} referrers are listed", self.tools.limits.listed));
                return;
            }
            self.listed += 1;
            self.seen.insert(entry.digest);
            let created = entry.annotations.get("org.opencontainers.image.created");
            let created =
                created.and_then(|t| t.parse::<jiff::Timestamp>().ok()).map_or(i64::MIN, jiff::Timestamp::as_second);
            self.push(2 + unlikeliness(&entry), created, entry.digest, Step::Open(entry));
        }
    }

    /// Looks at the manifest of a referrer.
    fn opened(&mut self, descriptor: &Descriptor, fetched: Result<Read, Failure>) {
        let source = format!("referrer {}", descriptor.digest);
        let read = match fetched {
            Ok(read) => read,
            Err(failure) => return self.found.candidate_failed(&source, failure),
        };
        if read.bytes.len() as u64 != descriptor.size {
            let detail = format!("it has {} bytes, not the {} that are listed", read.bytes.len(), descriptor.size);
            return self.found.reject(&source, Code::DigestMismatch, detail);
        }
        let artifact = match read.document {
            Ok(Document::Manifest(artifact)) => artifact,
            // An index refers to nothing here: a child beside the bundles. No candidate, and it uses up no count.
            Ok(Document::Index(_)) => return self.opened -= 1,
            Err(unread) => return self.found.reject(&source, Code::ManifestInvalid, unread.into_detail()),
        };
        // 2. It refers to this image. What refers to nothing is no candidate (a copied index leaves such entries).
        let subject = match &artifact.subject {
            Ok(Some(subject)) => *subject,
            Ok(None) => return self.opened -= 1,
            Err(Invalid(detail)) => return self.found.reject(&source, Code::ManifestInvalid, detail.clone()),
        };
        let bundled = artifact.kinds().any(bundle::is_bundle) || self.holds(&artifact, bundle::is_bundle);
        let legacy = artifact.kinds().any(|kind| kind == payload::ARTIFACT_TYPE)
            || self.holds(&artifact, |media_type| media_type == payload::MEDIA_TYPE);
        if !bundled && !legacy {
            return;
        }
        if subject != self.question.image.digest() {
            let detail = format!("it refers to {subject}, not {}", self.question.image.digest());
            return self.found.reject(&source, Code::SubjectMismatch, detail);
        }
        if bundled {
            self.bundle_layer(source, artifact);
        } else {
            self.payloads(&source, &artifact);
        }
    }

    /// Whether a layer has such a media type.
    fn holds(&self, artifact: &Artifact, is: impl Fn(&str) -> bool) -> bool {
        let newest = artifact.newest().take(self.tools.limits.layers);
        newest.filter_map(|(_, layer)| layer.as_ref().ok()).any(|layer| is(&layer.media_type))
    }

    /// Queues the one layer of a bundle.
    fn bundle_layer(&mut self, source: String, artifact: Artifact) {
        let Ok([layer]) = <[_; 1]>::try_from(artifact.layers) else {
            return self.found.reject(&source, Code::EvidenceMalformed, "a bundle has exactly one layer".to_owned());
        };
        let Some(layer) = self.sound(&source, layer) else { return };
        if layer.size > bundle::MAX_SIGNATURE_BUNDLE {
            // What says of itself that it is something else is no candidate at all.
            let hint = artifact.annotations.get(bundle::PREDICATE_HINT);
            if hint.is_none_or(|predicate| predicate == bundle::IMAGE_SIGNATURE) {
                let limit = format!("a bundle of {} bytes, {} are read", layer.size, bundle::MAX_SIGNATURE_BUNDLE);
                self.found.reject(&source, Code::BudgetExceeded, limit.clone());
                self.found.limit(limit);
            }
            return;
        }
        let what = Wanted::Bundle(source);
        let step = Step::Blob { what, digest: layer.digest, size: layer.size, max: bundle::MAX_SIGNATURE_BUNDLE };
        self.push(1, 0, layer.digest, step);
    }

    /// Queues the payloads of a legacy manifest. Layers go by position: two may share a payload. Tools append, so that the
    /// last is the newest.
    fn payloads(&mut self, source: &str, artifact: &Artifact) {
        let limit = self.tools.limits.layers;
        if artifact.layer_count > limit {
            self.found.limit(format!("{} layers of signatures, {limit} are read", artifact.layer_count));
        }
        let mut blobs: Vec<Shared> = Vec::new();
        for (position, layer) in artifact.newest().take(limit) {
            let place = format!("{source}, layer {position}");
            let Some(layer) = self.sound(&place, layer.clone()) else { continue };
            if layer.media_type != payload::MEDIA_TYPE {
                continue;
            }
            let Some(signature) = layer.annotations.get(payload::SIGNATURE).cloned() else {
                self.found.reject(&place, Code::EvidenceMalformed, "the layer carries no signature".to_owned());
                continue;
            };
            match blobs.iter_mut().find(|(digest, size, _)| (*digest, *size) == (layer.digest, layer.size)) {
                Some((_, _, layers)) => layers.push((place, signature)),
                None => blobs.push((layer.digest, layer.size, vec![(place, signature)])),
            }
        }
        for (digest, size, layers) in blobs {
            // No digest in the rank: the order of the layers is kept.
            let step = Step::Blob { what: Wanted::Payload(layers), digest, size, max: payload::MAX_BYTES };
            self.push(1, 0, Digest::from_bytes([0; 32]), step);
        }
    }

    fn blob(&mut self, what: Wanted, fetched: Result<Bytes, Failure>) {
        match (what, fetched) {
            (Wanted::Payload(layers), Ok(bytes)) => {
                let layers = layers.into_iter();
                self.checks.extend(layers.map(|(source, signature)| {
                    let payload = bytes.clone();
                    Check::Layer { source, payload, signature }
                }));
            }
            (Wanted::Payload(layers), Err(failure)) => {
                if let Some((source, _)) = layers.first() {
                    self.found.candidate_failed(source, failure);
                }
            }
            (Wanted::Bundle(source), Ok(bytes)) => self.bundle(source, bytes),
            (Wanted::Bundle(source), Err(failure)) => self.found.candidate_failed(&source, failure),
        }
    }

    fn bundle(&mut self, source: String, bytes: Bytes) {
        let Question { image, keys, .. } = self.question;
        let needs_image = verify::read_bundle(&Candidate { image: image.digest(), keys, source: &source }, &bytes)
            .is_ok_and(|bundle| bundle.needs_image(keys));
        let image = match &self.image {
            Image::NotAsked | Image::Asked if needs_image => {
                self.waiting.push((source, bytes));
                self.ask_image();
                return;
            }
            Image::Read(image) => Some(image.clone()),
            Image::NotAsked | Image::Asked | Image::Failed => None,
        };
        self.checks.push_back(Check::Bundle { source, bytes, image });
    }

    fn judged(&mut self, result: Result<VerifiedStatement, Unproven>) {
        match result {
            Ok(statement) => {
                self.found.statement(statement);
            }
            Err(Unproven { rejected: Rejected { code: Code::InternalError, source, detail }, .. }) => {
                self.found.unanswered(Code::InternalError, format!("{source}: {detail}"));
            }
            // An attestation that proves nothing is no failed signature.
            Err(Unproven { claims: Claim::Attestation(_), .. }) => {}
            Err(Unproven { rejected, claims: Claim::ImageSignature | Claim::Unreadable }) => {
                if rejected.code == Code::BudgetExceeded {
                    self.found.limit(rejected.detail.clone());
                }
                self.found.keep_rejected(rejected);
            }
        }
    }

    /// Whether every child of the image's index was asked for and is known; an image that is no index has none.
    fn knows_children(&self) -> bool {
        self.question.children
            && self.nested == 0
            && !self.found.children_unknown
            && matches!(self.image, Image::Read(_))
    }

    /// Whether the facts may be shown to whoever decides.
    fn may_be_judged(&mut self) -> bool {
        self.found.facts.children = self.knows_children().then(|| self.children.clone());
        self.found.facts.children.is_some() || !self.question.children
    }

    fn finish(mut self, to_the_end: bool) -> Facts {
        // Without the children nobody can say that none of them was withdrawn: then nothing is proven.
        if !self.may_be_judged() {
            self.found.facts.statements.clear();
        }
        self.found.facts.exhausted = to_the_end && self.found.facts.unanswered.is_empty();
        self.found.facts
    }

    /// A descriptor that can be used; one that cannot is a candidate that proves nothing.
    fn sound(&mut self, source: &str, read: Result<Descriptor, Invalid>) -> Option<Descriptor> {
        read.map_err(|Invalid(detail)| self.found.reject(source, Code::ManifestInvalid, detail)).ok()
    }
}

/// How unlikely a listed entry is to be a signature, by what the list says of it. Only an order: everything is opened.
fn unlikeliness(entry: &Descriptor) -> u8 {
    let likely = |kind: &str| bundle::is_bundle(kind) || kind == payload::ARTIFACT_TYPE;
    match (entry.annotations.get(bundle::PREDICATE_HINT), entry.artifact_type.as_deref()) {
        (Some(predicate), _) if predicate == bundle::IMAGE_SIGNATURE => 0,
        (Some(_), _) => 3,
        (None, Some(kind)) if likely(kind) => 0,
        // Some registries and older clients write this for bundles, or nothing.
        (None, Some("application/vnd.oci.empty.v1+json") | None) => 1,
        (None, Some(_)) => 2,
    }
}

#[cfg(test)]
mod tests;
