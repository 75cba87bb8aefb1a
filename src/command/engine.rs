//! What `verify`, `check` and `pin` are put together from: settings, policies, registries, evidence, as the server has
//! them. It must never hold a rule.

use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;

use crate::decision::code::Blame;
use crate::decision::plan::Limits;
use crate::decision::policy::PolicySet;
use crate::decision::reference::{Digest, Repository, Tag};
use crate::decision::verdict::Verdict;
use crate::edge::config::{Config, Override, Source};
use crate::edge::evidence::{self, Evidence};
use crate::edge::policy_dir;
use crate::edge::registry::{Budget, Failure, ManifestRef, Registry};

/// What one search may spend on finding a tag's digest.
const TAG_BYTES: u64 = 8 << 20;
const TAG_REQUESTS: u64 = 20;

/// Policies, and where evidence is looked for.
pub(super) struct Engine {
    pub(super) policies: Arc<PolicySet>,
    pub(super) registry: Registry,
    pub(super) evidence: Evidence,
    pub(super) limits: Limits,
}

impl Engine {
    /// Reads settings and policies. Policies with problems are told and not used: what they say is not known.
    pub(super) fn new(config: Option<&Path>, policies: Option<&Path>) -> anyhow::Result<Self> {
        let policies = policies.map(|folder| Override {
            key: "policies",
            text: folder.display().to_string(),
            source: Source::Flag("--policies"),
        });
        let config = Config::load(config, policies.as_slice())?;
        let loaded = policy_dir::load(&config.policies.value, &policy_dir::Known::default());
        for problem in &loaded.problems {
            eprintln!("{problem}");
        }
        anyhow::ensure!(loaded.problems.is_empty(), "the policies in {} do not load", config.policies.value.display());
        let registry = registry(&config)?;
        Ok(Self {
            policies: loaded.set,
            evidence: Evidence::new(registry.clone(), evidence::Settings::default()),
            registry,
            limits: Limits { images_per_review: config.images_per_review.value, ..Limits::default() },
        })
    }
}

/// The registries that the settings name, and all public ones.
pub(super) fn registry(config: &Config) -> anyhow::Result<Registry> {
    let (registries, warnings) = config.registry_settings()?;
    for warning in warnings {
        eprintln!("{warning}");
    }
    Ok(Registry::new(&registries)?)
}

/// What a tag points at now.
pub(super) async fn resolve(
    registry: &Registry,
    repository: &Repository,
    tag: &Tag,
    deadline: Instant,
) -> Result<Digest, Failure> {
    let budget = Budget::new(deadline, TAG_BYTES, TAG_REQUESTS);
    Ok(registry.manifest(repository, &ManifestRef::Tag(tag.clone()), &budget).await?.digest)
}

/// Whether every denial is about a source that did not answer.
pub(super) fn could_not_tell(verdict: &Verdict) -> bool {
    let denials = verdict.denials();
    !denials.is_empty() && denials.iter().all(|denial| matches!(denial.code().blame(), Blame::Registry | Blame::Ours))
}

/// Text to stdout, byte for byte. Whoever reads may stop reading, as `head` does: that is no failure.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Text with styles to stdout: without them where it is no terminal, or where `NO_COLOR` is set.
pub(super) fn print_styled(text: &str) -> anyhow::Result<()> {
    use anstream::{AutoStream, ColorChoice};
    let plain = AutoStream::choice(&std::io::stdout()) == ColorChoice::Never;
    if plain { print(&anstream::adapter::strip_str(text).to_string()) } else { print(text) }
}
