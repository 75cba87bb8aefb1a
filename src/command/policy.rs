//! `provost policy`: for those who write policies. It must never judge a file otherwise than the server does.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::decision::policy::{DenyList, NamespaceSelector, Policy};
use crate::edge::clock;
use crate::edge::policy_dir::{Kind, Linted, PolicyError, lint, schema};

/// Flags of `provost policy`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What is wrong and what is unwise in policy files, without a cluster
    #[command(after_help = "\
Example: provost policy lint policies/

Exit codes: 0 clean (warnings are allowed), 1 errors, 2 could not tell (a file that cannot be read, or no policy file).")]
    Lint(LintArgs),
    /// The JSON Schema of a policy file, for editors
    #[command(after_help = "Example: provost policy schema release-policy > release-policy.json")]
    Schema(SchemaArgs),
}

#[derive(Debug, clap::Args)]
struct LintArgs {
    /// Policy files, and folders of them; together they are one set
    #[arg(required = true, value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct SchemaArgs {
    /// Of which kind; without it, one schema for either
    #[arg(value_enum)]
    kind: Option<KindName>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum KindName {
    /// Which images may run in some namespaces
    #[value(alias = "ReleasePolicy")]
    ReleasePolicy,
    /// Digests that never run
    #[value(alias = "DenyList")]
    DenyList,
}

impl Args {
    /// Runs it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Lint(args) => run_lint(&args),
            Command::Schema(args) => {
                let kind = args.kind.map(|kind| match kind {
                    KindName::ReleasePolicy => Kind::ReleasePolicy,
                    KindName::DenyList => Kind::DenyList,
                });
                print(&serde_json::to_string_pretty(&schema(kind))?)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

fn run_lint(args: &LintArgs) -> anyhow::Result<ExitCode> {
    let linted = lint(&args.paths, clock::now());
    match args.output {
        Output::Table => print(&table(&linted)?)?,
        Output::Json => print(&serde_json::to_string_pretty(&as_json(&linted))?)?,
    }
    Ok(if linted.could_not_tell {
        ExitCode::from(2)
    } else if linted.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Text to stdout. Whoever reads may stop reading, as `head` does: that is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.trim_end().as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn table(linted: &Linted) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    for (what, findings) in [("error", &linted.problems), ("warning", &linted.warnings)] {
        for finding in findings {
            writeln!(out, "{}: {what}: {}", place(finding), finding.fault)?;
        }
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let rows = rows(linted);
    let width = rows.iter().map(|row| row[0].len()).max().unwrap_or_default();
    let second = rows.iter().map(|row| row[1].len()).max().unwrap_or_default();
    for [name, mode, what, hash] in &rows {
        writeln!(out, "{name:width$}  {mode:second$}  {what}; {hash}")?;
    }
    if !rows.is_empty() {
        out.push('\n');
    }
    let (files, errors, warnings) = (linted.files, linted.problems.len(), linted.warnings.len());
    let verdict = if linted.could_not_tell {
        "could not tell"
    } else if errors == 0 {
        "good"
    } else {
        "not good"
    };
    let (files, errors, warnings) = (count(files, "file"), count(errors, "error"), count(warnings, "warning"));
    writeln!(out, "{verdict}: {files}, {errors}, {warnings}")?;
    Ok(out)
}

/// Name, mode, contents and hash of each good policy and deny-list.
fn rows(linted: &Linted) -> Vec<[String; 4]> {
    let policies = linted.set.policies.values().map(|policy| {
        let what = format!(
            "{}; {}, {}",
            namespaces(&policy.namespaces),
            count(policy.rules.len(), "rule"),
            count(policy.signers.len(), "signer")
        );
        [policy.name.to_string(), mode(policy), what, policy.hash.short()]
    });
    let lists = linted.set.deny_lists.values().map(|list| {
        [
            list.name.to_string(),
            "deny-list".to_owned(),
            count(list.digests.len(), "withdrawn digest"),
            list.hash.short(),
        ]
    });
    policies.chain(lists).collect()
}

fn mode(policy: &Policy) -> String {
    serde_json::to_value(policy.mode).ok().and_then(|mode| mode.as_str().map(str::to_owned)).unwrap_or_default()
}

fn namespaces(selector: &NamespaceSelector) -> String {
    match selector {
        NamespaceSelector::Names(patterns) => {
            let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            format!("namespaces {}", patterns.join(", "))
        }
        NamespaceSelector::Otherwise => "every namespace that no other policy enforces in".to_owned(),
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn place(error: &PolicyError) -> String {
    if error.line == 0 { error.file.clone() } else { format!("{}:{}:{}", error.file, error.line, error.column) }
}

fn as_json(linted: &Linted) -> Value {
    let finding = |error: &PolicyError| json!({"file": error.file, "line": error.line, "column": error.column, "message": error.fault.to_string()});
    let policy = |policy: &Policy| {
        json!({
            "kind": Kind::ReleasePolicy.as_str(), "name": policy.name, "hash": policy.hash, "mode": policy.mode,
            "rules": policy.rules.len(), "signers": policy.signers.len(),
        })
    };
    let list = |list: &DenyList| json!({"kind": Kind::DenyList.as_str(), "name": list.name, "hash": list.hash, "digests": list.digests.len()});
    let policies = linted.set.policies.values().map(|p| policy(p));
    json!({
        "files": linted.files,
        "couldNotTell": linted.could_not_tell,
        "errors": linted.problems.iter().map(finding).collect::<Vec<_>>(),
        "warnings": linted.warnings.iter().map(finding).collect::<Vec<_>>(),
        "policies": policies.chain(linted.set.deny_lists.values().map(|l| list(l))).collect::<Vec<_>>(),
    })
}
