//! Load on the real server over TLS, against a bare echo of the same bytes in the same run.
//!
//! Each server is a process of its own on core 0; this process, the caller, should stand on core 1 (`scripts/bench` sees to
//! both). All of it stays on loopback and ends by itself.
//!
//! ```text
//! load [--connections N] [--seconds N]      the whole run
//! load echo FOLDER                          role: answers each body with itself
//! load gate FOLDER off|memory               role: the gate with its ledger off or in memory; serve has no such setting
//! ```
//!
//! With its ledger on disk it is `provost serve` itself that is measured.

mod caller;
#[path = "../common/mod.rs"]
mod common;
mod role;
mod setup;

use std::time::Duration;

use anyhow::{Context as _, bail};

use caller::{Figures, Load};
use setup::{Server, Setup, Target};

/// What one run may take at most, everything included.
const LIMIT: Duration = Duration::from_mins(2);

fn main() -> anyhow::Result<()> {
    // cargo adds `--bench`, and says so to no one.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["echo", folder] => role::echo(folder.as_ref()),
        ["gate", folder, ledger] => role::gate(folder.as_ref(), ledger),
        options => {
            let load = options_of(options)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { tokio::time::timeout(LIMIT, run(load)).await })?
        }
    }
}

fn options_of(options: &[&str]) -> anyhow::Result<Load> {
    let mut load = Load { connections: 32, time: Duration::from_secs(4) };
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        let number =
            rest.next().and_then(|text| text.parse::<u32>().ok()).with_context(|| format!("{option}: a number"))?;
        match *option {
            "--connections" if (1..=1024).contains(&number) => load.connections = number as usize,
            "--seconds" if (1..=10).contains(&number) => load.time = Duration::from_secs(number.into()),
            _ => bail!("{option} {number}: not an option; --connections 1..1024, --seconds 1..10"),
        }
    }
    Ok(load)
}

async fn run(load: Load) -> anyhow::Result<()> {
    let setup = Setup::new().await?;
    println!(
        "{} connections with keep-alive, one call at a time on each; server on one core, caller on another; warm cache",
        load.connections
    );
    for (what, body, allowed) in [
        ("admit: a signed pod", &setup.admitted, true),
        ("deny: an unpinned, a foreign, an unsigned image", &setup.denied, false),
    ] {
        println!("\n{what}, {} bytes\n{HEADINGS}", body.len());
        let marker = if allowed { r#""allowed":true"# } else { r#""allowed":false"# };
        let echo = measure(&setup, Target::Echo, body, None, load).await?;
        print_row("echo of the same bytes", &echo, &echo);
        for target in [Target::Off, Target::Memory, Target::Disk] {
            let figures = measure(&setup, target, body, Some(marker), load).await?;
            print_row(target.name(), &figures, &echo);
        }
    }
    Ok(())
}

/// Starts a server, loads it, ends it.
async fn measure(
    setup: &Setup,
    target: Target,
    body: &[u8],
    marker: Option<&str>,
    load: Load,
) -> anyhow::Result<Figures> {
    let server = Server::start(setup, target).await?;
    let figures = caller::run(&setup.roots, server.address, body, marker, load, &server).await;
    figures.with_context(|| target.name())
}

const HEADINGS: &str =
    "                              calls/s   of echo       p50       p99     p99.9   CPU/call   server busy";

fn print_row(name: &str, figures: &Figures, echo: &Figures) {
    let ms = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1000.0);
    println!(
        "{name:<28}{:>9.0}{:>9.0}%{:>11}{:>10}{:>10}{:>8.1} µs{:>12.0}%",
        figures.rate(),
        100.0 * figures.rate() / echo.rate(),
        ms(figures.quantile(500)),
        ms(figures.quantile(990)),
        ms(figures.quantile(999)),
        figures.cpu_per_call().as_secs_f64() * 1e6,
        100.0 * figures.busy(),
    );
}
