//! `provost completions SHELL`: what a shell needs to complete our commands, from the definition that parses them.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::engine::print;

/// Flags of `provost completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples: provost completions bash > /etc/bash_completion.d/provost
          provost completions zsh > \"${fpath[1]}/_provost\"
          provost completions fish > ~/.config/fish/completions/provost.fish")]
pub struct Args {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Args {
    /// Runs it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Cli::command(), "provost", &mut script);
        print(&String::from_utf8(script)?)?;
        Ok(ExitCode::SUCCESS)
    }
}
