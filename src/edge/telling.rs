//! Logs: to stderr, as text or as JSON lines, filtered by `RUST_LOG`. It must never write to stdout, where records and
//! data go.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Ours from `info`, everybody else's from `warn`.
const DEFAULT: &str = "warn,provost=info";

/// Installs the process's log. `RUST_LOG` replaces the default filter; a `RUST_LOG` that cannot be read is said and
/// ignored. Errors where a log is installed already.
pub fn install(format: LogFormat) -> Result<(), TryInitError> {
    let filter = EnvFilter::try_from_default_env();
    let unreadable = filter.as_ref().err().filter(|error| error_is_syntax(error)).map(ToString::to_string);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new(DEFAULT)))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.finish().try_init()?,
        LogFormat::Json => log.json().flatten_event(true).finish().try_init()?,
    }
    if let Some(error) = unreadable {
        tracing::warn!(%error, "RUST_LOG cannot be read; logging with {DEFAULT}");
    }
    Ok(())
}

/// A log of errors only, for commands that talk to a person by themselves. `RUST_LOG` replaces the filter.
pub fn install_quiet() -> Result<(), TryInitError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).finish().try_init()
}

/// `RUST_LOG` is there but wrong, as against not there at all.
fn error_is_syntax(error: &tracing_subscriber::filter::FromEnvError) -> bool {
    std::error::Error::source(error).is_some_and(|source| !source.is::<std::env::VarError>())
}
