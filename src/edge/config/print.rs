//! The settings as `--print-config` shows them: YAML that can be read again, each value with its source behind it. It
//! must never show the content of a file that a setting names.

use std::fmt::Write as _;

use super::units::{show_duration, show_size};
use super::{Config, Durability, Records, Setting, Source};
use crate::edge::telling::LogFormat;

/// The column at which sources begin, where the value leaves room.
const SOURCES_AT: usize = 48;

impl Config {
    /// All settings as YAML, each with a comment that says where it comes from. Files are named, never shown.
    #[must_use]
    pub fn print(&self) -> String {
        let mut out = Printed::default();
        out.text("", "cluster", &self.cluster);
        out.shown("", "listen", &self.listen.value.to_string(), &self.listen.source);
        out.shown("", "healthListen", &self.health_listen.value.to_string(), &self.health_listen.source);
        out.head("", "tls");
        out.file("  ", "cert", &self.tls_cert);
        out.file("  ", "key", &self.tls_key);
        if let Some(ca) = &self.client_ca {
            out.file("  ", "clientCa", ca);
        }
        if !self.client_subjects.is_empty() {
            out.head("  ", "clientSubjects");
            for subject in &self.client_subjects {
                out.line(&format!("    - {}", quoted(&subject.value)), &subject.source);
            }
        }
        out.file("", "callerToken", &self.caller_token);
        out.shown("", "observe", &self.observe.value.to_string(), &self.observe.source);
        out.shown("", "drain", &show_duration(self.drain.value), &self.drain.source);
        out.file("", "policies", &self.policies);
        out.head("", "ledger");
        out.file("  ", "store", &self.ledger_store);
        let durability = match self.ledger_durability.value {
            Durability::Denials => "denials",
            Durability::All => "all",
        };
        out.shown("  ", "durability", durability, &self.ledger_durability.source);
        self.print_registries(&mut out);
        out.head("", "limits");
        out.shown("  ", "connections", &self.connections.value.to_string(), &self.connections.source);
        out.shown("  ", "computing", &self.computing.value.to_string(), &self.computing.source);
        out.shown("  ", "waiting", &self.waiting.value.to_string(), &self.waiting.source);
        out.shown("  ", "imagesPerReview", &self.images_per_review.value.to_string(), &self.images_per_review.source);
        out.head("", "cache");
        out.shown("  ", "size", &show_size(self.cache_size.value), &self.cache_size.source);
        out.shown("  ", "staleProofs", &show_duration(self.stale_proofs.value), &self.stale_proofs.source);
        let records = match self.records.value {
            Records::Stdout => "stdout",
            Records::None => "none",
        };
        out.shown("", "records", records, &self.records.source);
        let log_format = match self.log_format.value {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        out.shown("", "logFormat", log_format, &self.log_format.source);
        out.0
    }

    fn print_registries(&self, out: &mut Printed) {
        if self.registries.is_empty() {
            return out.shown("", "registries", "{}", &Source::Default);
        }
        out.head("", "registries");
        for (host, about) in &self.registries {
            out.head("  ", &quoted(host.as_str()));
            if !about.addresses.is_empty() {
                out.head("    ", "addresses");
                for network in &about.addresses {
                    out.line(&format!("      - {}", quoted(&network.value.to_string())), &network.source);
                }
            }
            if let Some(ca) = &about.ca {
                out.file("    ", "ca", ca);
            }
            out.shown("    ", "plainHttp", &about.plain_http.value.to_string(), &about.plain_http.source);
            if let Some(file) = &about.credentials_file {
                out.file("    ", "credentialsFile", file);
            }
            if let Some(realm) = &about.realm {
                out.text("    ", "realm", realm);
            }
            if let Some((cert, key)) = &about.client_cert {
                out.head("    ", "clientCert");
                out.file("      ", "cert", cert);
                out.file("      ", "key", key);
            }
        }
    }
}

#[derive(Default)]
struct Printed(String);

impl Printed {
    fn head(&mut self, indent: &str, key: &str) {
        // Writing to a string cannot fail.
        let _ok = writeln!(self.0, "{indent}{key}:").is_ok();
    }

    fn text(&mut self, indent: &str, key: &str, setting: &Setting<String>) {
        self.shown(indent, key, &quoted(&setting.value), &setting.source);
    }

    fn file(&mut self, indent: &str, key: &str, setting: &Setting<std::path::PathBuf>) {
        self.shown(indent, key, &quoted(&setting.value.to_string_lossy()), &setting.source);
    }

    fn shown(&mut self, indent: &str, key: &str, value: &str, source: &Source) {
        self.line(&format!("{indent}{key}: {value}"), source);
    }

    fn line(&mut self, line: &str, source: &Source) {
        let source = source.to_string();
        let source = source.escape_debug();
        let _ok = writeln!(self.0, "{line:SOURCES_AT$} # {source}").is_ok();
    }
}

/// Text as YAML reads it back as text.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':');
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || (c == '.' && text.contains('/')));
    let word = matches!(text.to_ascii_lowercase().as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off");
    if begins && !word && text.chars().all(plain) && !text.ends_with(':') {
        text.to_owned()
    } else {
        // JSON strings are YAML strings.
        serde_json::Value::from(text).to_string()
    }
}
