//! The `registries` of `provost.yaml`. It must never print what a credentials or key file holds.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use super::reader::{Reader, Section};
use super::{Config, Problem, Problems, Setting, path};
use crate::decision::reference::Host;
use crate::edge::registry::{ClientCert, DockerConfig, HostSettings, Network, Settings};

/// No CA, key or credentials file is larger.
const LARGEST: u64 = 1 << 20;

/// What is written about one registry host. The files are not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryHost {
    /// `addresses`: networks in which the host may stand although they are private or special.
    pub addresses: Vec<Setting<Network>>,
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

impl Config {
    /// What the registry client is told: the files that `registries` names are read here. Beside it come warnings about
    /// what a credentials file holds and is not used. Errors with every file that cannot be used.
    pub fn registry_settings(&self) -> Result<(Settings, Vec<String>), Problems> {
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        let hosts = self.registries.iter().map(|(host, about)| {
            let mut files = Files { host, problems: &mut problems };
            let credentials = about.credentials_file.as_ref().and_then(|file| {
                let (config, noted) = files.read("credentialsFile", file, |content| {
                    DockerConfig::parse(&content).map_err(|error| error.to_string())
                })?;
                warnings.extend(noted.into_iter().map(|noted| format!("{}: {noted}", file.value.display())));
                Some(config)
            });
            let client_cert = about.client_cert.as_ref().and_then(|(cert, key)| {
                let (cert, key) = (files.read("clientCert.cert", cert, Ok), files.read("clientCert.key", key, Ok));
                Some(ClientCert { cert: cert?, key: key? })
            });
            let settings = HostSettings {
                addresses: about.addresses.iter().map(|network| network.value).collect(),
                ca: about.ca.as_ref().and_then(|file| files.read("ca", file, Ok)),
                plain_http: about.plain_http.value,
                credentials,
                realm: about.realm.as_ref().map(|realm| realm.value.clone()),
                client_cert,
            };
            (host.clone(), settings)
        });
        let settings = Settings { hosts: hosts.collect(), ..Settings::default() };
        if problems.is_empty() { Ok((settings, warnings)) } else { Err(Problems(problems)) }
    }
}

/// Reads the files of one host.
struct Files<'a> {
    host: &'a Host,
    problems: &'a mut Vec<Problem>,
}

impl Files<'_> {
    fn read<T>(
        &mut self,
        key: &str,
        file: &Setting<PathBuf>,
        parse: impl FnOnce(Vec<u8>) -> Result<T, String>,
    ) -> Option<T> {
        let detail = match small(&file.value).and_then(parse) {
            Ok(read) => return Some(read),
            Err(detail) => detail,
        };
        self.problems.push(Problem::NamedFile {
            at: file.source.clone(),
            key: format!("registries.{}.{key}", self.host),
            file: file.value.clone(),
            detail,
        });
        None
    }
}

fn small(file: &std::path::Path) -> Result<Vec<u8>, String> {
    let opened = std::fs::File::open(file).map_err(|error| error.to_string())?;
    let mut content = Vec::new();
    opened.take(LARGEST + 1).read_to_end(&mut content).map_err(|error| error.to_string())?;
    if content.len() as u64 > LARGEST { Err(format!("larger than {LARGEST} bytes")) } else { Ok(content) }
}

fn host(reader: &mut Reader<'_>, section: &mut Section) -> RegistryHost {
    let addresses = networks(reader, section);
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

fn networks(reader: &mut Reader<'_>, section: &mut Section) -> Vec<Setting<Network>> {
    let key = section.full("addresses");
    let mut networks = Vec::new();
    for Setting { value, source } in reader.list(section, "addresses") {
        match value.parse() {
            Ok(value) => networks.push(Setting { value, source }),
            Err(error) => {
                let problem = Problem::BadValue { at: source, key: key.clone(), detail: format!("{error}") };
                reader.problems.push(problem);
            }
        }
    }
    networks
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
