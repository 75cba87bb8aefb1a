//! Images made and signed the way people do it: by crane and cosign.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::json;

use super::keys::{Key, cosign};
use super::process::{Done, Program};
use super::registry::Registry;
use super::{folder, tools};

/// An image or an index in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// Host and path, without tag and digest.
    pub(crate) repository: String,
    /// `sha256:` and 64 digits.
    pub(crate) digest: String,
}

impl Image {
    /// `repository@digest`.
    pub(crate) fn pinned(&self) -> String {
        format!("{}@{}", self.repository, self.digest)
    }

    /// `repository:v1`, the tag under which it was pushed.
    pub(crate) fn tagged(&self) -> String {
        format!("{}:v1", self.repository)
    }
}

/// How cosign writes a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Format {
    /// A Sigstore bundle as a referrer: what cosign 3 does by itself.
    Bundle,
    /// The `.sig` tag (`.att` for attestations).
    Legacy,
    /// The layers of the `.sig` tag in a referrer; signatures only.
    LegacyAsReferrer,
}

/// Pushes a new image whose digest nothing else in any registry has.
pub(crate) fn push(registry: &Registry, path: &str, content: &str) -> Image {
    let folder = folder::new("layer");
    folder::write(&folder.join("files/hello"), format!("{content}\n"));
    let layer = folder.join("layer.tar");
    Program::new("tar")
        .args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-C"])
        .arg(folder.join("files"))
        .arg("-cf")
        .arg(&layer)
        .arg("hello")
        .must();
    let name = format!("{}/{path}:v1", registry.host);
    let crane = crane(registry).args(["append", "--oci-empty-base", "-f"]).arg(layer).args(["-t", &name]);
    image(&crane.must())
}

/// Pushes an index over images of the same repository.
pub(crate) fn push_index(registry: &Registry, path: &str, children: &[&Image]) -> Image {
    let name = format!("{}/{path}:v1", registry.host);
    let mut crane = crane(registry).args(["index", "append", "-t", &name]);
    for child in children {
        crane = crane.args(["-m", &child.pinned()]);
    }
    image(&crane.must())
}

/// Copies an image, without anything that hangs on it.
pub(crate) fn copy(registry: &Registry, from: &Image, path: &str) -> Image {
    let repository = format!("{}/{path}", registry.host);
    crane(registry).args(["copy", &from.pinned(), &format!("{repository}:v1")]).must();
    Image { repository, digest: from.digest.clone() }
}

/// Signs an image by its digest.
pub(crate) fn sign(registry: &Registry, image: &Image, key: &Key, format: Format, annotations: &BTreeMap<&str, &str>) {
    let mut call =
        registry.client(cosign()).args(["sign", "--yes", "--allow-http-registry", "--key"]).arg(key.private());
    for (name, value) in annotations {
        call = call.args(["-a", &format!("{name}={value}")]);
    }
    in_format(call, format).arg(image.pinned()).must();
}

/// Attests provenance of an image.
pub(crate) fn attest(registry: &Registry, image: &Image, key: &Key, format: Format) {
    let call =
        registry.client(cosign()).args(["attest", "--yes", "--allow-http-registry", "--type", "slsaprovenance1"]);
    let call = call.arg("--predicate").arg(&settings().predicate).arg("--key").arg(key.private());
    in_format(call, format).arg(image.pinned()).must();
}

/// What `cosign verify` says of an image: exit code 0 accepts.
pub(crate) fn cosign_verify(
    registry: &Registry,
    image: &Image,
    key: &Key,
    format: Format,
    annotations: &[&str],
) -> Done {
    let mut call =
        registry.client(cosign()).args(["verify", "--insecure-ignore-tlog", "--allow-http-registry", "--key"]);
    call = call.arg(key.public());
    for annotation in annotations {
        call = call.args(["-a", annotation]);
    }
    match format {
        Format::Bundle => call,
        Format::Legacy => call.arg("--new-bundle-format=false"),
        Format::LegacyAsReferrer => call.args(["--new-bundle-format=false", "--experimental-oci11"]),
    }
    .arg(image.pinned())
    .run()
}

pub(crate) fn crane(registry: &Registry) -> Program {
    registry.client(Program::new(tools::path("crane")).arg("--insecure"))
}

/// `repository@sha256:…`, as crane prints what it has pushed.
fn image(printed: &str) -> Image {
    let name = printed.split_whitespace().find(|word| word.contains("@sha256:")).expect("crane prints the digest");
    let (repository, digest) = name.split_once('@').expect("looked for above");
    Image { repository: repository.to_owned(), digest: digest.to_owned() }
}

fn in_format(call: Program, format: Format) -> Program {
    let old = ["--use-signing-config=false", "--new-bundle-format=false", "--tlog-upload=false"];
    match format {
        Format::Bundle => {
            let Settings { signing_config, trusted_root, .. } = settings();
            call.arg("--signing-config").arg(signing_config).arg("--trusted-root").arg(trusted_root)
        }
        Format::Legacy => call.args(old),
        Format::LegacyAsReferrer => {
            call.args(old).args(["--registry-referrers-mode", "oci-1-1"]).env("COSIGN_EXPERIMENTAL", "1")
        }
    }
}

/// What cosign wants to read: no log, no authority, no roots.
struct Settings {
    signing_config: PathBuf,
    trusted_root: PathBuf,
    predicate: PathBuf,
}

fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let folder = folder::new("cosign");
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            folder::write(&path, text);
            path
        };
        let nothing = |name: &str, kind: &str| {
            let text = json!({"mediaType": format!("application/vnd.dev.sigstore.{kind}")});
            write(&format!("{name}.json"), &text.to_string())
        };
        let build =
            json!({"buildType": "https://example.com/build/v1", "externalParameters": {}, "resolvedDependencies": []});
        let predicate =
            json!({"buildDefinition": build, "runDetails": {"builder": {"id": "https://example.com/builder"}}});
        Settings {
            signing_config: nothing("signing-config", "signingconfig.v0.2+json"),
            trusted_root: nothing("trusted-root", "trustedroot+json;version=0.1"),
            predicate: write("predicate.json", &predicate.to_string()),
        }
    })
}
