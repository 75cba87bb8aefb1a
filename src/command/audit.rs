//! `provost audit` (being built)

use std::process::ExitCode;

/// Flags of `provost audit`.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// Runs it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("being built")
    }
}
