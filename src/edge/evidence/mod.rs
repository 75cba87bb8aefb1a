//! Evidence about images: found in registries, checked, kept as facts, one flight for each question. It must never say
//! whether the facts are enough, and never take "no answer" for "nothing there".
//!
//! [`Evidence::answer`] looks into the [`cache`], joins the [`flight`] that is under way, or starts one; a flight is one
//! [`discover`] search, whose candidates are checked in [`crate::edge::sigstore`].

mod cache;
mod discover;
mod fetch;
mod findings;
mod flight;
mod limits;
mod manifest;
mod source;

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::time::{Instant, timeout_at};

pub use self::limits::Limits;
pub use self::source::Source;

use self::cache::{Kept, Key, PROVEN, REFUTED, Store};
use self::fetch::Tools;
use self::flight::{Flight, Flights};
use crate::decision::code::Code;
use crate::decision::evidence::{Answer, Facts, Origin, Question, Unanswered};
use crate::edge::registry::{Budget, Failure};

/// Whether facts suffice for whoever asks: the search may stop there. It is asked often and must be quick.
pub type Enough = Arc<dyn Fn(&Facts) -> bool + Send + Sync>;

/// How evidence is looked for and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Most bytes that the cache takes.
    pub max_bytes: u64,
    /// How long a proof may serve while the registry does not answer; zero: not at all.
    pub stale_proofs: Duration,
    /// How long one search may take, whoever waits for it.
    pub max_flight: Duration,
    /// How much is looked at for one image.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            stale_proofs: Duration::from_hours(24),
            max_flight: Duration::from_secs(30),
            limits: Limits::default(),
        }
    }
}

/// Answers questions about images. Clones share everything.
#[derive(Clone)]
pub struct Evidence {
    tools: Tools,
    settings: Settings,
    flights: Flights,
}

impl Evidence {
    /// Evidence from one source. Limits are clamped to what they may be at most.
    #[must_use]
    pub fn new(source: impl Source, mut settings: Settings) -> Self {
        settings.limits = settings.limits.clamped();
        let store = Store::new(settings.max_bytes);
        let cores = source.cores();
        let tools = Tools { source: Arc::new(source), store, limits: settings.limits, cores };
        Self { tools, settings, flights: Flights::default() }
    }

    /// The same evidence over another source: cache and searches are shared, each under the credential that it is for.
    #[must_use]
    pub fn over(&self, source: impl Source) -> Self {
        let tools = Tools { source: Arc::new(source), ..self.tools.clone() };
        Self { tools, settings: self.settings.clone(), flights: self.flights.clone() }
    }

    /// What is known about an image without asking anybody: facts in the cache that settle the question.
    pub async fn at_hand(&self, question: &Question, enough: &Enough) -> Option<Answer> {
        let scope = self.tools.source.credential_scope(question.image.repository());
        let answer = self.kept(&Key::new(question, &self.settings.limits, &scope), enough).await?;
        counter!("provost_evidence_cache_hits_total").increment(1);
        counter!("provost_evidence_requests_total", "outcome" => outcome(&answer, enough)).increment(1);
        Some(answer)
    }

    /// What is known about an image, by `deadline`: from the cache where that suffices, else from a search that is shared
    /// with everybody who asks the same, and that goes on when its waiters have gone.
    ///
    /// Faults are answers too: [`Facts::unanswered`] says whose they are. Must be called within a Tokio runtime.
    pub async fn answer(&self, question: &Question, deadline: Instant, enough: Enough) -> Answer {
        let scope = self.tools.source.credential_scope(question.image.repository());
        let key = Key::new(question, &self.settings.limits, &scope);
        let answer = if let Some(answer) = self.kept(&key, &enough).await {
            counter!("provost_evidence_cache_hits_total").increment(1);
            answer
        } else {
            counter!("provost_evidence_cache_misses_total").increment(1);
            let facts = self.fetch(key, question, deadline, &enough).await;
            let stale = self.stale_instead(&key, &facts, &enough).await;
            stale.unwrap_or(Answer { facts, origin: Origin::Fetched })
        };
        counter!("provost_evidence_requests_total", "outcome" => outcome(&answer, &enough)).increment(1);
        answer
    }

    /// Kept facts that are young enough: to prove, or, where every source has answered, to refute.
    async fn kept(&self, key: &Key, enough: &Enough) -> Option<Answer> {
        let found = self.tools.store.facts(key).await?;
        let age = found.at.elapsed();
        let serves = (age < REFUTED && found.is_definite()) || (age < PROVEN && enough(&found.facts));
        serves.then_some(Answer { facts: found.facts, origin: Origin::Cached })
    }

    /// An older proof in place of facts that prove nothing only because the registry is unavailable.
    async fn stale_instead(&self, key: &Key, facts: &Facts, enough: &Enough) -> Option<Answer> {
        if facts.unanswered.is_empty() || !facts.unanswered.iter().all(|u| is_outage(u.code)) || enough(facts) {
            return None;
        }
        let Kept { facts, at } = self.tools.store.facts(key).await?;
        let age = at.elapsed();
        if age >= self.settings.stale_proofs || !enough(&facts) {
            return None;
        }
        counter!("provost_evidence_cache_stale_total").increment(1);
        Some(Answer { facts, origin: Origin::Stale(age) })
    }

    /// Joins the flight for this key, or starts it, and waits until the deadline for facts that suffice or are all that there
    /// is.
    async fn fetch(&self, key: Key, question: &Question, deadline: Instant, enough: &Enough) -> Arc<Facts> {
        let limits = &self.settings.limits;
        let budget = || Budget::new(Instant::now() + self.settings.max_flight, limits.bytes, limits.requests);
        let launch = |flight| self.launch(key, question.clone(), flight);
        loop {
            match self.flights.join_or_start(key, enough, budget, launch) {
                Ok(joined) => {
                    let facts = timeout_at(deadline, joined.wait(enough)).await;
                    return facts.unwrap_or_else(|_| Arc::new(late(question, joined.budget.sitting_out())));
                }
                // It was just landing. Its facts may suffice; else the next flight finds its bodies in the store.
                Err(landing) => {
                    if timeout_at(deadline, landing.landed()).await.is_err() {
                        return Arc::new(late(question, Vec::new()));
                    }
                    if let Some(answer) = self.kept(&key, enough).await {
                        return answer.facts;
                    }
                }
            }
        }
    }

    /// Starts the search as a task of its own, so that no waiter's end is its end.
    fn launch(&self, key: Key, question: Question, flight: Arc<Flight>) {
        let tools = self.tools.clone();
        let landing = self.flights.landing(key, &flight);
        tokio::spawn(async move {
            let _landing = landing;
            let question = Arc::new(question);
            let search = discover::search(&tools, &question, &flight.budget, |facts| flight.report(facts));
            let facts = flight.fly(search).await;
            if let Some(facts) = facts {
                let earlier = tools.store.facts(&key).await;
                if flight.worth_keeping(&facts, earlier.as_ref()) {
                    tools.store.keep(key, facts).await;
                }
            }
        });
    }
}

/// What is known to a waiter whose time is up while the search goes on: what the registry said to the calls that it made wait,
/// where it did, else that it took too long.
fn late(question: &Question, sitting_out: Vec<Failure>) -> Facts {
    if sitting_out.is_empty() {
        let detail = format!("the evidence about {} was not there in time; the search goes on", question.image);
        return Facts::unanswered(Code::DeadlineExceeded, detail);
    }
    let told = |failure: Failure| Unanswered {
        code: failure.code(),
        detail: format!("{}; the search goes on", findings::reader(&failure)),
    };
    Facts { unanswered: sitting_out.into_iter().map(told).collect(), ..Facts::default() }
}

/// Whether a code means that the registry does not answer. Where it refuses us, nothing old may serve.
fn is_outage(code: Code) -> bool {
    matches!(code, Code::EvidenceUnavailable | Code::RateLimited | Code::DeadlineExceeded)
}

/// A closed set of labels.
fn outcome(answer: &Answer, enough: &Enough) -> &'static str {
    if enough(&answer.facts) {
        "proven"
    } else if answer.facts.unanswered.is_empty() {
        "refuted"
    } else {
        "unavailable"
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
