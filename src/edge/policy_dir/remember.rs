//! The last good policies on disk, so that a restart does not lose them. It must never trust what it cannot check: a file
//! that is damaged is as good as none.
//!
//! What is kept is manifests, their keys written into them, and they go through the parser again. The checksum is against
//! damage, not against malice: who can write here can write the ledger beside it.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::decision::policy::PolicySet;
use crate::decision::reference::Digest;
use crate::edge::sigstore::digest_of;

use super::compile::Good;
use super::fault::{Fault, PolicyError};
use super::folder::parse;
use super::keys::{KeyFiles, reason};
use super::manifest;

/// Largest accepted file, in bytes.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
const FORMAT: &str = "provost.dev/last-good-policies/v1";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    format: String,
    /// SHA-256 over the RFC 8785 form of `manifests`.
    checksum: Digest,
    manifests: Vec<Value>,
}

/// The policies that were kept. `Ok(None)` where there is no such file.
pub(super) fn recall(path: &Path) -> Result<Option<PolicySet>, PolicyError> {
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ignored(path, reason(&error))),
    };
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| ignored(path, error.to_string()))?;
    if kept.format != FORMAT {
        return Err(ignored(path, "it is of another format".to_owned()));
    }
    if checksum(&kept.manifests).map_err(|error| ignored(path, error.to_string()))? != kept.checksum {
        return Err(ignored(path, "its checksum does not fit: it is damaged".to_owned()));
    }
    let mut set = PolicySet::default();
    for manifest in &kept.manifests {
        take(manifest, path, &mut set)?;
    }
    Ok(Some(set))
}

/// Puts the good policies and deny-lists of a set in the place of those that were kept, at once or not at all.
pub(super) fn keep(path: &Path, set: &PolicySet) -> Result<(), PolicyError> {
    let failed = |why: String| PolicyError::of_file(path.display().to_string(), Fault::NotKept(why));
    let policies = set.policies.values().map(|policy| manifest::of_policy(policy));
    let manifests: Vec<Value> =
        policies.chain(set.deny_lists.values().map(|list| manifest::of_deny_list(list))).collect();
    let checksum = checksum(&manifests).map_err(|error| failed(error.to_string()))?;
    let kept = Kept { format: FORMAT.to_owned(), checksum, manifests };
    let bytes = serde_json::to_vec(&kept).map_err(|error| failed(error.to_string()))?;
    replace(path, &bytes).map_err(|error| failed(reason(&error)))
}

fn take(manifest: &Value, path: &Path, set: &mut PolicySet) -> Result<(), PolicyError> {
    let parsed = parse(&path.display().to_string(), &manifest.to_string(), &mut KeyFiles::none());
    if let Some(error) = parsed.errors.first() {
        return Err(ignored(path, error.fault.to_string()));
    }
    for document in parsed.documents {
        let twice = match document.good {
            Some(Good::Policy(policy, _)) => set.policies.insert(policy.name.clone(), Arc::clone(&policy)).is_some(),
            Some(Good::DenyList(list)) => set.deny_lists.insert(list.name.clone(), Arc::clone(&list)).is_some(),
            None => true,
        };
        if twice {
            return Err(ignored(path, "a policy in it is no policy, or stands twice".to_owned()));
        }
    }
    Ok(())
}

fn ignored(path: &Path, why: String) -> PolicyError {
    PolicyError::of_file(path.display().to_string(), Fault::NotRemembered(why))
}

fn checksum(manifests: &[Value]) -> Result<Digest, serde_json::Error> {
    Ok(digest_of(&serde_json_canonicalizer::to_vec(&manifests)?))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, "it is larger than 256 MiB"));
    }
    Ok(bytes)
}

/// Written beside it, synced, and renamed over it, so that a crash leaves the old or the new file.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    let beside = folder.join(name);
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        File::open(&folder)?.sync_all()
    });
    if written.is_err() {
        // What is left of it is of no use to anybody; that it may not be there is no second error.
        let _ = std::fs::remove_file(&beside);
    }
    written
}
