//! The `registries` of `provost.yaml`. It must never print what a credentials or key file holds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::reader::{Reader, Section};
use super::{Problem, Setting, path};
use crate::decision::reference::Host;

/// What is written about one registry host. The files are not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryHost {
    /// `addresses`: networks in which the host may stand although they are private or special.
    pub addresses: Vec<Setting<String>>,
    /// `ca`: PEM.
    pub ca: Option<Setting<PathBuf>>,
    /// `plainHttp`.
    pub plain_http: Setting<bool>,
    /// `credentialsFile`: docker config format.
    pub credentials_file: Option<Setting<PathBuf>>,
    /// `realm`: the foreign address to which the host may send us for a token.
    pub realm: Option<Setting<String>>,
    /// `clientCert`: certificate and key, PEM; both or none.
    pub client_cert: Option<(Setting<PathBuf>, Setting<PathBuf>)>,
}

/// Reads the section. Hosts are compared as image names are: `index.docker.io` is `docker.io`.
pub(super) fn read(reader: &mut Reader<'_>, top: &mut Section) -> BTreeMap<Host, RegistryHost> {
    let mut hosts = BTreeMap::new();
    for (name, node) in reader.names(top, "registries") {
        let key = format!("registries.{}", name.value);
        let mut section = reader.section(format!("{key}."), &key, Some(node));
        let about = host(reader, &mut section);
        reader.finish(section, &[]);
        let detail = match name.value.parse::<Host>() {
            Err(error) => format!("not a registry host: {error}"),
            Ok(host) if hosts.contains_key(&host) => format!("stands here twice, as {host}"),
            Ok(host) => {
                hosts.insert(host, about);
                continue;
            }
        };
        reader.problems.push(Problem::BadValue { at: name.source, key, detail });
    }
    hosts
}

fn host(reader: &mut Reader<'_>, section: &mut Section) -> RegistryHost {
    let addresses = reader.list(section, "addresses");
    let ca = reader.maybe_text(section, "ca", path).map(|ca| reader.path(ca));
    let plain_http = reader.truth(section, "plainHttp");
    let credentials_file = reader.maybe_text(section, "credentialsFile", path).map(|file| reader.path(file));
    let realm = reader.maybe_text(section, "realm", realm);

    let whole = section.full("clientCert");
    let mut inner = reader.subsection(section, "clientCert");
    let cert = reader.maybe_text(&mut inner, "cert", path).map(|file| reader.path(file));
    let key = reader.maybe_text(&mut inner, "key", path).map(|file| reader.path(file));
    reader.finish(inner, &[]);
    let client_cert = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(Setting { source, .. }), None) | (None, Some(Setting { source, .. })) => {
            let detail = "needs both `cert` and `key`".to_owned();
            reader.problems.push(Problem::BadValue { at: source, key: whole, detail });
            None
        }
    };
    RegistryHost { addresses, ca, plain_http, credentials_file, realm, client_cert }
}

/// An origin, without anything that could be a secret.
fn realm(text: &str) -> Result<String, String> {
    let wrong = || "must be an address such as https://auth.corp.example, without user, query or fragment".to_owned();
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(wrong)?;
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'@' | b'?' | b'#' | b'\\');
    if rest.is_empty() || rest.starts_with('/') || !rest.bytes().all(plain) {
        Err(wrong())
    } else {
        Ok(text.to_owned())
    }
}
