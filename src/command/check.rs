//! `provost check`: the verdict for each workload in manifests, by the engine that admits pods, with the line of each image.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::Instant;

use super::engine::{Engine, could_not_tell, print, print_styled};
use super::render;
use crate::decision::decide;
use crate::decision::name::Namespace;
use crate::decision::printable::printable;
use crate::decision::verdict::Verdict;
use crate::edge::manifests::{self, Input, Workload};
use crate::edge::report::{self, Report};
use crate::gate;

/// How many workloads are judged at the same time.
const AT_ONCE: usize = 8;

/// Flags of `provost check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples: provost check -p policies/ -f deploy/
          helm template web charts/web | provost check -p policies/ -n payments -f -

Exit code: 0 every workload would be admitted, 1 one is denied for certain, 2 could not tell (bad usage, a file that \
cannot be read, a registry that does not answer, no workload at all). What a policy in mode warn or audit complains about \
is shown, and is no denial.")]
pub struct Args {
    /// Policy files
    #[arg(short, long, value_name = "DIR", env = "PROVOST_POLICIES")]
    policies: Option<PathBuf>,
    /// Manifests: a file, a folder with all below it, or - for stdin; may be given more than once
    #[arg(short, long = "file", value_name = "FILE|DIR|-", required_unless_present = "schema")]
    files: Vec<String>,
    /// The namespace of objects that name none
    #[arg(short, long, default_value = "default")]
    namespace: Namespace,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Where registries and their credentials are configured
    #[arg(long, value_name = "FILE", env = "PROVOST_CONFIG")]
    config: Option<PathBuf>,
    /// How long to look for the signatures of one workload, in seconds: 1 to 3600
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Prints the JSON Schema of `-o json` and does nothing else
    #[arg(long)]
    schema: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs
    Json,
    /// For code scanning
    Sarif,
}

impl Args {
    /// Runs it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if self.schema {
            print(&(serde_json::to_string_pretty(&report::schema())? + "\n"))?;
            return Ok(ExitCode::SUCCESS);
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(self.check())
    }

    async fn check(self) -> anyhow::Result<ExitCode> {
        let engine = Engine::new(self.config.as_deref(), self.policies.as_deref())?;
        let inputs: Vec<Input> = self.files.iter().map(|file| Input::from(file.as_str())).collect();
        let read = manifests::read(&inputs);
        let mut report = Report { problems: read.problems, ..Report::default() };
        let mut workloads = Vec::new();
        for manifest in &read.files {
            let found = manifests::contents(manifest, &self.namespace);
            workloads.extend(found.workloads);
            report.skipped += found.skipped;
            report.problems.extend(found.problems);
        }
        let patience = Duration::from_secs(self.timeout);
        let judged = futures::stream::iter(workloads).map(|workload| judge(&engine, workload, patience));
        report.checked = judged.buffered(AT_ONCE).collect().await;

        match self.output {
            Output::Table => print_styled(&table(&report)?)?,
            Output::Json => print(&report::json(&report)?)?,
            Output::Sarif => print(&report::sarif(&report)?)?,
        }
        for problem in &report.problems {
            eprintln!("{}", printable(&problem.to_string()));
        }
        if report.checked.is_empty() {
            eprintln!("there is no workload in what was named, so nothing was checked");
        }
        Ok(exit(&report))
    }
}

async fn judge(engine: &Engine, workload: Workload, patience: Duration) -> (Workload, Verdict) {
    let verdict = match &workload.review {
        Ok(review) => {
            let governing = engine.policies.governing(&review.namespace);
            gate::judge(&engine.evidence, review, &governing, engine.limits, Instant::now() + patience).await
        }
        Err(fault) => decide::refuse(fault),
    };
    (workload, verdict)
}

fn exit(report: &Report) -> ExitCode {
    // Nobody asks for an override here; if somebody did, the images would still not hold.
    let denied = |verdict: &Verdict| matches!(verdict, Verdict::Deny(_) | Verdict::Override(_));
    if report.checked.iter().any(|(_, verdict)| denied(verdict) && !could_not_tell(verdict)) {
        // Whatever could not be read or asked would not change this.
        ExitCode::from(1)
    } else if report.checked.is_empty()
        || !report.problems.is_empty()
        || report.checked.iter().any(|(_, verdict)| denied(verdict))
    {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    }
}

fn table(report: &Report) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    for (workload, verdict) in &report.checked {
        let request = &workload.request;
        let or = |text: &str, nothing: &str| if text.is_empty() { nothing.to_owned() } else { printable(text) };
        writeln!(
            out,
            "{}  {}/{} ({})  {}:{}",
            render::headline(verdict),
            or(&request.namespace, "?"),
            or(&request.name, "?"),
            or(&request.kind.kind, "no kind"),
            printable(&workload.file),
            workload.at.line
        )?;
        let images = workload.review.as_ref().map(|review| review.images.as_slice()).unwrap_or_default();
        let place = |index: usize| {
            let (image, spot) = (images.get(index)?, workload.images.get(index)?);
            Some(format!("{}:{}  {}", workload.file, spot.at, image.place))
        };
        writeln!(out, "{}", render::verdict_with_places(verdict, images, place))?;
    }
    let totals = report.totals();
    write!(out, "{} admitted, {} denied, {} skipped", totals.admitted, totals.denied, totals.skipped)?;
    for (count, what) in [(totals.would_deny, "would be denied if it were enforced"), (totals.unreadable, "unreadable")]
    {
        if count > 0 {
            write!(out, ", {count} {what}")?;
        }
    }
    out.push('\n');
    Ok(out)
}
