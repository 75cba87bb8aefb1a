//! `provost codes [CODE]`: what each reason code means and what to do, from the list that makes the denials.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::render;
use crate::decision::code::{Blame, Code};

/// Flags of `provost codes`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: provost codes not-digest-pinned")]
pub struct Args {
    /// The code of a denial; without it, all of them
    code: Option<String>,
    /// text, or markdown as in docs/codes.md
    #[arg(short, long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "markdown"])]
    output: String,
}

impl Args {
    /// Runs it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let codes: Vec<Code> = match &self.code {
            None => Code::ALL.to_vec(),
            Some(text) => Code::ALL.iter().copied().filter(|code| code.as_str() == text).collect(),
        };
        anyhow::ensure!(!codes.is_empty(), "there is no such code; `provost codes` lists them all");
        if self.output == "markdown" {
            print!("{}", markdown(&codes));
        } else {
            for code in codes {
                println!("{code}\n{}", render::wrapped(code.meaning(), "    ", 100));
                println!("{}\n", render::wrapped(&format!("→ {}", code.advice()), "    ", 100));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The text of `docs/codes.md`.
#[must_use]
pub fn markdown(codes: &[Code]) -> String {
    let mut out = String::from(
        "# Reason codes\n\nEvery denial carries one or more of these codes. They are stable: scripts may rely on them. \
         This page is the output of `provost codes -o markdown`; a test holds it to the code.\n",
    );
    for code in codes {
        let whose = match code.blame() {
            Blame::Request => "the request",
            Blame::Policy => "the policy",
            Blame::Evidence => "the image or its signatures",
            Blame::Registry => "the registry, or the way to it",
            Blame::Ours => "Provost",
        };
        let _ = write!(
            out,
            "\n## {code}\n\n{}\n\n**Do this:** {}.\n\nIt is about {whose}; HTTP status in the reply: {}",
            code.meaning(),
            code.advice(),
            code.http_status()
        );
        out.push_str(if code.can_be_softened() { ".\n" } else { "; it denies in every mode.\n" });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_codes_is_current() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/codes.md")).unwrap_or_default();
        assert!(page == markdown(Code::ALL), "write it anew: cargo run -- codes -o markdown > docs/codes.md");
    }

    #[test]
    fn every_code_says_what_it_means_and_what_to_do() {
        for code in Code::ALL {
            assert!(code.meaning().ends_with('.') && code.meaning().len() > 30, "{code}");
            assert!(!code.advice().ends_with('.') && code.advice().len() > 10, "{code}");
        }
    }
}
