//! The top floor: one file for each subcommand. It assembles edges, asks the ground floor and prints; it must never hold a
//! rule or parse a wire format.
//!
//! Exit codes everywhere: 0 holds, 1 does not hold, 2 could not tell.

use std::process::ExitCode;

pub mod audit;
pub mod certs;
pub mod check;
pub mod codes;
pub mod completions;
pub mod demo;
mod engine;
pub mod man;
pub mod pin;
pub mod policy;
pub mod render;
pub mod serve;
pub mod server;
pub mod verify;

/// The admission gate for container images: pinned, promoted, signed, and on record.
#[derive(Debug, clap::Parser)]
#[command(name = "provost", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The webhook: reviews over TLS, health and metrics beside it
    Serve(serve::Args),
    /// The verdict for each workload in manifests, before they are deployed
    Check(check::Args),
    /// Puts digests behind the tags in manifests, and changes nothing else
    Pin(pin::Args),
    /// One image against the rules that cover it, check by check
    Verify(verify::Args),
    /// For policy authors
    Policy(policy::Args),
    /// The ledger
    Audit(audit::Args),
    /// What each reason code means, and what to do
    Codes(codes::Args),
    /// A development CA and a serving certificate
    Certs(certs::Args),
    /// Completions for a shell
    Completions(completions::Args),
    /// The manual page
    Man(man::Args),
    /// The whole story on this machine, without a cluster
    Demo(demo::Args),
}

impl Cli {
    /// Runs the command that was asked for.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(args) => args.run(),
            Command::Check(args) => args.run(),
            Command::Pin(args) => args.run(),
            Command::Verify(args) => args.run(),
            Command::Policy(args) => args.run(),
            Command::Audit(args) => args.run(),
            Command::Codes(args) => args.run(),
            Command::Certs(args) => args.run(),
            Command::Completions(args) => args.run(),
            Command::Man(args) => args.run(),
            Command::Demo(args) => args.run(),
        }
    }
}
