//! `provost pin`: tag → `tag@digest` in manifests, every other byte kept. It must never take a digest from anywhere but
//! the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::Instant;

use super::engine::{print, registry, resolve};
use crate::decision::name::Namespace;
use crate::decision::printable::printable;
use crate::decision::reference::{Digest, ImageRef, Repository, Tag};
use crate::decision::review::{Review, Subject};
use crate::edge::config::Config;
use crate::edge::manifests::{self, Input, Manifest, Pin, Position, Spot, Workload};
use crate::edge::registry::Registry;

/// How many tags are resolved at the same time.
const AT_ONCE: usize = 8;

/// Flags of `provost pin`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples: provost pin -f deploy/ | git apply
          provost pin -f deploy/ --write
          helm template web charts/web | provost pin -f - > web.yaml

Without --write it prints a diff; of stdin it prints the pinned text. An image without a tag is :latest. What is pinned \
already stays as it is.

Exit code: 0 everything is pinned now, or in what was printed; 1 something could not be resolved or changed safely, the \
rest is done; 2 could not tell (bad usage, a file that cannot be read, nothing to read).")]
pub struct Args {
    /// Manifests: a file, a folder with all below it, or - for stdin; may be given more than once
    #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
    files: Vec<String>,
    /// Writes the files in place, each whole or not at all
    #[arg(short, long)]
    write: bool,
    /// Where registries and their credentials are configured
    #[arg(long, value_name = "FILE", env = "PROVOST_CONFIG")]
    config: Option<PathBuf>,
    /// How long to wait for the digest of one tag, in seconds: 1 to 3600
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

/// A tag in a repository, and the digest that the registry has for it, or why there is none.
type Digests = BTreeMap<(Repository, Tag), Result<Digest, String>>;

/// What was done.
#[derive(Debug, Default)]
struct Tally {
    pinned: usize,
    already: usize,
    /// Images and objects that stay as they are although they should not.
    left: usize,
    unreadable: usize,
}

impl Args {
    /// Runs it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let inputs: Vec<Input> = self.files.iter().map(|file| Input::from(file.as_str())).collect();
        let stdin = inputs.contains(&Input::Stdin);
        anyhow::ensure!(!stdin || inputs.len() == 1, "stdin stands alone: what is printed is its text, and no diff");
        anyhow::ensure!(!stdin || !self.write, "stdin cannot be written in place: leave out --write");
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(self.pin(&inputs))
    }

    async fn pin(&self, inputs: &[Input]) -> anyhow::Result<ExitCode> {
        let registry = registry(&Config::load(self.config.as_deref(), &[])?)?;
        let read = manifests::read(inputs);
        let mut tally = Tally { unreadable: read.problems.len(), ..Tally::default() };
        for problem in &read.problems {
            eprintln!("{}", printable(&problem.to_string()));
        }
        let mut wanted: Vec<(&Manifest, Vec<Unpinned>)> = Vec::new();
        for manifest in &read.files {
            let found = manifests::contents(manifest, &Namespace::default_namespace());
            for problem in &found.problems {
                eprintln!("{}", printable(&problem.to_string()));
            }
            tally.unreadable += found.problems.len();
            let mut unpinned = Vec::new();
            for workload in &found.workloads {
                collect(workload, &mut unpinned, &mut tally);
            }
            wanted.push((manifest, unpinned));
        }
        let tags = wanted.iter().flat_map(|(_, unpinned)| unpinned).map(|image| image.asked.clone()).collect();
        let digests = ask(&registry, tags, Duration::from_secs(self.timeout)).await;
        for (manifest, unpinned) in wanted {
            self.one(manifest, &unpinned, &digests, &mut tally)?;
        }
        let Tally { pinned, already, left, unreadable } = tally;
        eprintln!("{pinned} pinned, {already} pinned already, {left} left as they are, {unreadable} unreadable");
        Ok(if unreadable > 0 || read.files.is_empty() {
            ExitCode::from(2)
        } else if left > 0 {
            ExitCode::from(1)
        } else {
            ExitCode::SUCCESS
        })
    }

    /// Pins what can be pinned in one manifest.
    fn one(
        &self,
        manifest: &Manifest,
        unpinned: &[Unpinned],
        digests: &Digests,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        let mut pins = Vec::new();
        for image in unpinned {
            match digests.get(&image.asked) {
                Some(Ok(digest)) => pins.push(image.pin(*digest)),
                Some(Err(why)) => tally.leave(manifest, image.at, &format!("{}: {why}", image.text)),
                None => tally.leave(manifest, image.at, &format!("{}: was not asked for", image.text)),
            }
        }
        let text = spliced(manifest, pins, tally);
        match &manifest.path {
            None => print(&text),
            Some(_) if text == manifest.text => Ok(()),
            Some(path) if self.write => manifests::replace(path, &manifest.text, &text)
                .map_err(|error| anyhow::anyhow!("{}: {error}", printable(&manifest.name))),
            Some(_) => print(&manifests::unified(&printable(&manifest.name), &manifest.text, &text)),
        }
    }
}

/// The text with as many of these pins as can be put in safely.
fn spliced(manifest: &Manifest, mut pins: Vec<Pin>, tally: &mut Tally) -> String {
    while !pins.is_empty() {
        match manifests::splice(manifest, &pins) {
            Ok(text) => {
                tally.pinned += pins.len();
                return text;
            }
            Err(error) => {
                let before = pins.len();
                pins.retain(|pin| pin.at != error.at);
                let left = before - pins.len();
                tally.leave(manifest, error.at, &error.why);
                if left == 0 {
                    // It is about something else in the file, which an image would drag along.
                    tally.left += pins.len() - 1;
                    return manifest.text.clone();
                }
            }
        }
    }
    manifest.text.clone()
}

impl Tally {
    fn leave(&mut self, manifest: &Manifest, at: Position, why: &str) {
        self.left += 1;
        eprintln!("{}:{at}: {}", printable(&manifest.name), printable(why));
    }
}

/// An image that has no digest yet.
#[derive(Debug)]
struct Unpinned {
    at: Position,
    spot: Spot,
    text: String,
    /// Whether the tag is written.
    tagged: bool,
    asked: (Repository, Tag),
}

impl Unpinned {
    fn pin(&self, digest: Digest) -> Pin {
        let tag = if self.tagged { String::new() } else { format!(":{}", self.asked.1) };
        let bytes = self.spot.bytes.clone().unwrap_or_default();
        Pin { bytes, at: self.at, image: self.text.clone(), suffix: format!("{tag}@{digest}") }
    }
}

/// The images of a workload that have no digest.
fn collect(workload: &Workload, unpinned: &mut Vec<Unpinned>, tally: &mut Tally) {
    let tell = |at: Position, why: &str| eprintln!("{}:{at}: {}", printable(&workload.file), printable(why));
    let review = match &workload.review {
        Ok(review) => review,
        Err(fault) => {
            tally.left += 1;
            return tell(workload.at, &fault.to_string());
        }
    };
    for (image, spot) in review.images.iter().zip(&workload.images) {
        if is_filled_in_later(review, &image.text) {
            continue;
        }
        match image.text.parse::<ImageRef>().map_err(|error| error.to_string()) {
            Ok(name) if name.digest().is_some() => tally.already += 1,
            Ok(name) => match name.tag().cloned().or_else(|| "latest".parse().ok()) {
                Some(tag) => unpinned.push(Unpinned {
                    at: spot.at,
                    spot: spot.clone(),
                    text: image.text.clone(),
                    tagged: name.tag().is_some(),
                    asked: (name.repository().clone(), tag),
                }),
                None => tally.left += 1,
            },
            Err(why) => {
                tally.left += 1;
                tell(spot.at, &why);
            }
        }
    }
}

/// A template's empty image is put in by somebody else, and judged at the pod.
fn is_filled_in_later(review: &Review, image: &str) -> bool {
    review.subject == Subject::Template && image.is_empty()
}

/// Asks the registries, each tag once.
async fn ask(registry: &Registry, tags: BTreeSet<(Repository, Tag)>, patience: Duration) -> Digests {
    futures::stream::iter(tags)
        .map(|asked| async move {
            let found = resolve(registry, &asked.0, &asked.1, Instant::now() + patience).await;
            (asked, found.map_err(|failure| format!("{} ({})", failure, failure.code())))
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}
