//! `provost verify IMAGE`: one image against the rules that cover it, check by check, by the engine that admits pods.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::engine::{self, Engine, could_not_tell};
use super::render;
use crate::decision::name::Namespace;
use crate::decision::policy::{Governing, PolicySet};
use crate::decision::printable::printable;
use crate::decision::reference::{ImageRef, Tag};
use crate::decision::review::{Holder, OverrideAsked, Place, Request, Review, ReviewedImage, Subject};
use crate::decision::verdict::Verdict;
use crate::edge::registry::Registry;
use crate::gate;

/// Flags of `provost verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit code: 0 admitted, 1 denied, 2 could not tell.\n\n\
    Example: provost verify -p policies -n payments registry.example.com/release/payments/api@sha256:…")]
pub struct Args {
    /// The image, by digest; a tag is resolved, shown and denied
    image: String,
    /// Policy files
    #[arg(short, long, value_name = "DIR", env = "PROVOST_POLICIES")]
    policies: Option<PathBuf>,
    /// The policies of this namespace only; without it, every policy that covers the image
    #[arg(short, long)]
    namespace: Option<Namespace>,
    /// Where registries and their credentials are configured
    #[arg(long, value_name = "FILE", env = "PROVOST_CONFIG")]
    config: Option<PathBuf>,
    /// How long to look for signatures, in seconds: 1 to 3600
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

impl Args {
    /// Runs it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(self.verify())
    }

    async fn verify(self) -> anyhow::Result<ExitCode> {
        let engine = Engine::new(self.config.as_deref(), self.policies.as_deref())?;
        let deadline = Instant::now() + Duration::from_secs(self.timeout);
        let governing = match &self.namespace {
            Some(namespace) => engine.policies.governing(namespace),
            None => covering(&engine.policies, &self.image),
        };
        let review = review_of(&self.image, self.namespace.clone());
        let verdict = gate::judge(&engine.evidence, &review, &governing, engine.limits, deadline).await;
        anstream::println!("{}", render::headline(&verdict));
        anstream::print!("{}", render::verdict(&verdict, &review.images));
        if let Some((image, tag)) = tagged(&self.image) {
            show_tag(&engine.registry, &governing, &image, &tag, deadline).await;
        }
        Ok(match verdict {
            Verdict::Admit(_) => ExitCode::SUCCESS,
            Verdict::Deny(_) | Verdict::WouldDeny(_) if could_not_tell(&verdict) => ExitCode::from(2),
            // Nobody asks for an override here; if somebody did, the image would still not hold.
            Verdict::Deny(_) | Verdict::Override(_) | Verdict::WouldDeny(_) | Verdict::NoImages => ExitCode::from(1),
        })
    }
}

/// Every policy with a rule that covers the image, else every policy: they say which repositories would do.
fn covering(set: &PolicySet, image: &str) -> Governing {
    let covers = |policy: &crate::decision::policy::Policy| {
        image.parse::<ImageRef>().is_ok_and(|image| policy.covering(image.repository()).next().is_some())
    };
    let mut policies: Vec<_> = set.policies.values().filter(|policy| covers(policy)).cloned().collect();
    if policies.is_empty() {
        policies = set.policies.values().cloned().collect();
    }
    Governing { policies, deny_lists: set.deny_lists.values().cloned().collect(), broken: Vec::new() }
}

/// A pod with this one image, as far as the rules are concerned.
fn review_of(image: &str, namespace: Option<Namespace>) -> Review {
    let namespace = namespace.unwrap_or_else(Namespace::default_namespace);
    let place = Place { path: "image".to_owned(), holder: Holder::Container, name: String::new() };
    Review {
        request: Request { namespace: namespace.to_string(), ..Request::default() },
        namespace,
        subject: Subject::Pod,
        images: vec![ReviewedImage { place, text: image.to_owned(), unchanged: false }],
        unknown_fields: Vec::new(),
        mirror_of_node: None,
        override_asked: OverrideAsked::default(),
    }
}

fn tagged(image: &str) -> Option<(ImageRef, Tag)> {
    let image: ImageRef = image.parse().ok()?;
    let tag = if image.digest().is_some() { return None } else { image.tag().cloned() };
    let tag = tag.or_else(|| "latest".parse().ok())?;
    Some((image, tag))
}

/// Says what a tag points at now, where a policy allows to ask.
async fn show_tag(registry: &Registry, governing: &Governing, image: &ImageRef, tag: &Tag, deadline: Instant) {
    if !governing.policies.iter().any(|policy| policy.covering(image.repository()).next().is_some()) {
        return;
    }
    match engine::resolve(registry, image.repository(), tag, deadline).await {
        Ok(digest) => {
            let repository = image.repository();
            anstream::println!("  {tag} is now {digest}\n          provost verify {repository}@{digest}");
        }
        Err(failure) => anstream::println!("  {tag} could not be resolved: {}", printable(&failure.to_string())),
    }
}
