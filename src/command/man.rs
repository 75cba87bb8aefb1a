//! `provost man`: the manual page, from the definition that parses the flags.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;

use super::engine::print;

/// Flags of `provost man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples: provost man | man -l -
          provost man --dir /usr/local/share/man/man1")]
pub struct Args {
    /// Writes one page for each command into this folder; without it, the page of `provost` is printed
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Args {
    /// Runs it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let command = super::Cli::command();
        if let Some(folder) = &self.dir {
            std::fs::create_dir_all(folder)
                .and_then(|()| clap_mangen::generate_to(command, folder))
                .with_context(|| format!("cannot write the pages to {}", folder.display()))?;
        } else {
            let mut page = Vec::new();
            Man::new(command).render(&mut page)?;
            print(&String::from_utf8(page)?)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
