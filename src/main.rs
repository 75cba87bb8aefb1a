//! The binary: parses flags and calls a command.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("provost: another crypto provider is installed");
        return ExitCode::from(2);
    }
    match provost::command::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("provost: {error:#}");
            ExitCode::from(2)
        }
    }
}
