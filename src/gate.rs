//! The one file that brings rules and edges together: plan → evidence → decide → record. It must never hold a rule of its
//! own; what it adds is order, time limits and the promise that nothing goes unanswered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use crate::decision::code::Code;
use crate::decision::decide::{self, Enough, decide};
use crate::decision::evidence::Question;
use crate::decision::plan::{Limits, plan};
use crate::decision::policy::Governing;
use crate::decision::record::{Event, ReviewInput, ReviewRecord};
use crate::decision::review::{Caller, Fault, Request, Review, ReviewedImage, Subject};
use crate::decision::verdict::Verdict;
use crate::edge::admission::{self, RecordMark, Undecodable};
use crate::edge::evidence::{self, Evidence};
use crate::edge::http::{Reply, Reviewer};
use crate::edge::ledger::{Appended, Ledger, Wait};
use crate::edge::policy_dir::PolicyDir;
use crate::edge::{clock, metrics};

mod load;

pub use load::{Load, LoadLimits};

/// Everything that a review needs: policies, evidence, ledger. Cheap to clone.
#[derive(Clone)]
pub struct Gate {
    /// The policies that serve.
    pub policies: Arc<PolicyDir>,
    /// What can be proven about an image.
    pub evidence: Evidence,
    /// What can be proven to a caller that is not known: the same, without the operator's credentials (C-08).
    pub for_strangers: Evidence,
    /// Where every decision is recorded.
    pub ledger: Ledger,
    /// Limits of the rules.
    pub limits: Limits,
    /// How much is under way, and may be.
    pub load: Arc<Load>,
    /// Judge and record everything, and deny nothing.
    pub observe: bool,
}

/// The parts of the time that a review took, in the order in which they were spent.
#[derive(Debug, Clone, Default)]
pub struct Stages(Vec<(&'static str, Duration)>);

impl Stages {
    /// Notes that a stage ended now, having begun at `since`; gives the time at which the next begins.
    fn end(&mut self, stage: &'static str, since: Instant) -> Instant {
        let now = Instant::now();
        self.0.push((stage, now.duration_since(since)));
        now
    }
}

impl Reviewer for Gate {
    /// One review, from the bytes of an `AdmissionReview` to the bytes of its reply.
    async fn review(&self, body: Bytes, deadline: Instant, caller: Caller) -> Reply {
        let begun = Instant::now();
        let Some(turn) = self.load.turn(deadline).await else {
            return self.refuse(body, decide::no_room(), deadline, caller).await;
        };
        count(&caller);
        let mut stages = Stages::default();
        match admission::decode(&body) {
            Ok(mut review) => {
                // From here on its bytes are somebody else's.
                drop(body);
                review.request.caller = caller;
                let decoded = stages.end("decode", begun);
                let Some(verdict) = self.judge(&review, turn, deadline).await else {
                    return self.turn_away(&review.request);
                };
                stages.end("judge", decoded);
                Reply::InBand(self.answer(&review.request, &review.images, verdict, deadline, &stages).await)
            }
            Err(Undecodable::Refuse { request, fault }) => {
                stages.end("decode", begun);
                // It waits for the disk now, and computes no more.
                drop(turn);
                let request = Request { caller, ..*request };
                Reply::Unjudged(self.answer(&request, &[], decide::refuse(&fault), deadline, &stages).await)
            }
            Err(Undecodable::NoReply { detail }) => Reply::Impossible(detail),
        }
    }

    /// A review that cannot be judged: refused in-band where its uid can be read, and recorded like any other.
    async fn refuse(&self, head: Bytes, fault: Fault, deadline: Instant, caller: Caller) -> Reply {
        let Some(uid) = admission::rescue_uid(&head) else { return Reply::Impossible(fault.detail) };
        count(&caller);
        let request = Request { uid, caller, ..Request::default() };
        if fault.code == Code::Overloaded {
            return self.turn_away(&request);
        }
        let verdict = decide::refuse(&fault);
        Reply::Unjudged(self.answer(&request, &[], verdict, deadline, &Stages::default()).await)
    }

    fn last_resort(&self, head: &[u8], fault: Fault) -> Reply {
        match admission::rescue_uid(head) {
            Some(uid) => Reply::Unjudged(self.render(&uid, &self.settled(decide::refuse(&fault)), RecordMark::None)),
            None => Reply::Impossible(fault.detail),
        }
    }
}

impl Gate {
    /// `None` where there is no place to wait for evidence.
    async fn judge(&self, review: &Review, turn: SemaphorePermit<'_>, deadline: Instant) -> Option<Verdict> {
        // Nothing new starts: no policy is needed, so a broken or absent one cannot make old objects immutable (C-37).
        let governing = if review.subject == Subject::NoImages || review.leaves_all_images() {
            Governing::default()
        } else {
            self.policies.current().governing(&review.namespace)
        };
        let known = review.request.caller.is_known();
        let evidence = if known { &self.evidence } else { &self.for_strangers };
        // Whoever waits does not compute. What is left to do after waiting takes no time worth a turn.
        let mut turn = Some(turn);
        let place = |questions: &[&Question]| {
            turn.take();
            self.load.place(questions, known)
        };
        judge_where(evidence, review, &governing, self.limits, time_for_evidence(deadline), place).await
    }

    /// Records a verdict and renders the reply from it.
    async fn answer(
        &self,
        request: &Request,
        images: &[ReviewedImage],
        verdict: Verdict,
        deadline: Instant,
        stages: &Stages,
    ) -> Bytes {
        let verdict = self.settled(verdict);
        let input = ReviewInput { request, images, verdict: &verdict, fault: None, stages: &stages.0 };
        // A denial is on disk before it is answered; what is allowed joins the next group, but for an override, which is
        // nothing unless it is on disk (BG-09).
        let wait = match verdict {
            Verdict::Deny(_) => Wait::Saved,
            Verdict::Override(_) => Wait::OrNothing,
            Verdict::Admit(_) | Verdict::WouldDeny(_) | Verdict::NoImages => Wait::Queued,
        };
        let recorded = self.ledger.append(Event::Review(ReviewRecord::new(input)), wait, deadline).await;
        let mark = match &recorded {
            Appended::Saved(name) | Appended::Queued(name) => RecordMark::Saved(name.to_string()),
            Appended::Repeat(of) => RecordMark::RepeatOf(of.to_string()),
            Appended::Pending => RecordMark::Pending,
            Appended::Unavailable(_) | Appended::Off => RecordMark::None,
        };
        let Some(why) = lacks_record(recorded, &verdict) else {
            metrics::review(&verdict, request, &stages.0);
            return self.render(&request.uid, &verdict, mark);
        };
        let was_allowed = !matches!(verdict, Verdict::Deny(_));
        let verdict = self.settled(decide::unrecorded(verdict, &why));
        if was_allowed {
            // Else the ledger would hold nothing of the attempt, or later an admission that was denied.
            let input = ReviewInput { request, images, verdict: &verdict, fault: None, stages: &stages.0 };
            self.ledger.append(Event::Review(ReviewRecord::new(input)), Wait::Queued, deadline).await;
        }
        metrics::review(&verdict, request, &stages.0);
        self.render(&request.uid, &verdict, mark)
    }

    /// A review for which there is no room: answered at once, and recorded together with others (C-03).
    fn turn_away(&self, request: &Request) -> Reply {
        let verdict = self.settled(decide::shed());
        ::metrics::counter!(metrics::OVERLOADED_TOTAL).increment(1);
        metrics::review(&verdict, request, &[]);
        self.ledger.shed(&request.uid);
        Reply::Unjudged(self.render(&request.uid, &verdict, RecordMark::None))
    }

    fn settled(&self, verdict: Verdict) -> Verdict {
        if self.observe { decide::observed(verdict) } else { verdict }
    }

    fn render(&self, uid: &str, verdict: &Verdict, record: RecordMark) -> Bytes {
        let reply = admission::Reply { uid, verdict, record };
        Bytes::from(if self.observe { admission::encode_observed(&reply) } else { admission::encode(&reply) })
    }
}

/// Why a verdict cannot stand with what became of its record; `None` where it can. A denial stands in any case but for one
/// that is recorded nowhere, and then it says so.
fn lacks_record(recorded: Appended, verdict: &Verdict) -> Option<String> {
    match (recorded, verdict) {
        (Appended::Unavailable(why), _) => Some(why),
        (Appended::Queued(_) | Appended::Repeat(_) | Appended::Pending | Appended::Off, Verdict::Override(_)) => {
            Some("an override must be on disk, and its record is not".to_owned())
        }
        (Appended::Repeat(_) | Appended::Pending, Verdict::Admit(_) | Verdict::WouldDeny(_) | Verdict::NoImages) => {
            Some("the record is not on disk".to_owned())
        }
        (Appended::Saved(_) | Appended::Queued(_) | Appended::Off, _)
        | (Appended::Repeat(_) | Appended::Pending, Verdict::Deny(_)) => None,
    }
}

fn count(caller: &Caller) {
    if !caller.is_known() {
        ::metrics::counter!(metrics::CALLERS_UNKNOWN_TOTAL).increment(1);
    }
}

/// The verdict on one review under given policies: the same for the webhook, the command line and the demo.
pub async fn judge(
    evidence: &Evidence,
    review: &Review,
    governing: &Governing,
    limits: Limits,
    deadline: Instant,
) -> Verdict {
    // Whoever asks for one verdict has all the room there is.
    let verdict = judge_where(evidence, review, governing, limits, deadline, |_| Some(())).await;
    verdict.unwrap_or_else(decide::shed)
}

/// The same, where there may be no place to wait for what is not at hand: `None` then.
async fn judge_where<P>(
    evidence: &Evidence,
    review: &Review,
    governing: &Governing,
    limits: Limits,
    deadline: Instant,
    place: impl FnOnce(&[&Question]) -> Option<P>,
) -> Option<Verdict> {
    let plan = plan(review, governing, limits);
    let now = clock::now();
    let asked: Vec<(&Question, evidence::Enough)> = plan
        .questions()
        .iter()
        .enumerate()
        .map(|(index, question)| {
            let enough = Enough::new(&plan, governing, index, now);
            let enough: evidence::Enough =
                Arc::new(move |facts| enough.as_ref().is_some_and(|enough| enough.holds(facts)));
            (question, enough)
        })
        .collect();
    let at_hand = join_all(asked.iter().map(|(question, enough)| evidence.at_hand(question, enough))).await;
    let open: Vec<&Question> =
        asked.iter().zip(&at_hand).filter(|(_, known)| known.is_none()).map(|((question, _), _)| *question).collect();
    let _place = if open.is_empty() { None } else { Some(place(&open)?) };
    let answers = join_all(asked.iter().zip(at_hand).map(async |((question, enough), known)| match known {
        Some(answer) => answer,
        None => evidence.answer(question, deadline, Arc::clone(enough)).await,
    }))
    .await;
    Some(decide(review, governing, &plan, &answers, now))
}

/// Evidence may take all the time but what recording and answering need.
fn time_for_evidence(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline - (left / 4).min(Duration::from_millis(250))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::code::Code;
    use crate::decision::verdict::for_tests::{admit, denial, deny, overridden};

    #[test]
    fn bg_09_x_121_x_127_no_durable_record_no_override() {
        let refused = || vec![denial(Code::Unsigned, None, "", "")];
        let verdict = |word: &str| match word {
            "override" => overridden(refused(), Vec::new(), Vec::new()),
            "deny" => deny(refused(), Vec::new(), 1),
            _ => admit(Vec::new(), Vec::new(), Vec::new()),
        };
        let name = "kqzt-1-0000000000000000".parse().expect("a record's name");
        for (what, recorded, denied) in [
            ("on disk", Appended::Saved(name), [false, false, false]),
            ("queued", Appended::Queued(name), [true, false, false]),
            ("late", Appended::Pending, [true, true, false]),
            ("nowhere", Appended::Unavailable("disk full".to_owned()), [true, true, true]),
            ("off", Appended::Off, [true, false, false]),
        ] {
            for (word, denied) in ["override", "admit", "deny"].into_iter().zip(denied) {
                let lacks = lacks_record(recorded.clone(), &verdict(word));
                assert_eq!(lacks.is_some(), denied, "{word}, {what}");
            }
        }
        // What was waived denies again.
        let verdict = decide::unrecorded(verdict("override"), "disk full");
        assert_eq!((verdict.word(), verdict.codes()), ("deny", vec![Code::AuditUnavailable, Code::Unsigned]));
    }
}
