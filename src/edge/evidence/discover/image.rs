//! The image's own manifest and its children. It must never call an image sound that was not read.

use serde_json::value::RawValue;

use super::super::fetch::Step;
use super::super::limits::{INDEX_DEPTH, INDEX_ENTRIES};
use super::super::manifest::{self, Document};
use super::{Image, Search};
use crate::decision::code::Code;
use crate::decision::reference::Digest;
use crate::edge::registry::{Failure, Manifest};

impl Search<'_> {
    /// Takes in the image's own manifest, and checks what waited for it.
    pub(super) fn image(&mut self, fetched: Result<Manifest, Failure>) {
        self.image = Image::Failed;
        self.found.changed = true;
        let wanted = self.question.image.digest();
        match fetched {
            Ok(manifest) if manifest.digest != wanted => {
                self.found.image_fault(
                    Code::DigestMismatch,
                    format!("the registry's manifest hashes to {}", manifest.digest),
                );
            }
            Ok(manifest) => match Document::read(&manifest) {
                Ok(Document::Manifest(_)) => self.image = Image::Read(manifest.bytes),
                Ok(Document::Index(entries)) => {
                    self.image = Image::Read(manifest.bytes);
                    self.entries(&entries, 1);
                }
                Err(invalid) => self.found.image_fault(Code::ManifestInvalid, invalid.0),
            },
            Err(failure) => self.found.image_failed(&failure),
        }
        for (source, bytes) in std::mem::take(&mut self.waiting) {
            self.bundle(source, bytes);
        }
    }

    /// Takes in an index within the image's index.
    pub(super) fn nested(&mut self, digest: Digest, depth: usize, fetched: Result<Manifest, Failure>) {
        self.nested -= 1;
        self.found.changed = true;
        match fetched.map(|manifest| Document::read(&manifest)) {
            Ok(Ok(Document::Index(entries))) => self.entries(&entries, depth),
            Ok(Ok(Document::Manifest(_))) => {
                self.found.image_fault(Code::ManifestInvalid, format!("{digest} is listed as an index and is none"));
            }
            Ok(Err(invalid)) => self.found.image_fault(Code::ManifestInvalid, format!("{digest}: {}", invalid.0)),
            Err(failure) => self.found.image_failed(&failure),
        }
    }

    /// Takes in the entries of the image's index. Every entry counts as a child: what calls itself an attestation may be
    /// runnable all the same, and to know better one would have to fetch it.
    fn entries(&mut self, entries: &[Box<RawValue>], depth: usize) {
        if entries.is_empty() {
            return self.found.image_fault(Code::ManifestInvalid, "it is an index without entries".to_owned());
        }
        if self.children.len() + entries.len() > INDEX_ENTRIES {
            return self
                .found
                .image_fault(Code::BudgetExceeded, format!("it is an index of over {INDEX_ENTRIES} entries"));
        }
        for raw in entries {
            let entry = match manifest::descriptor(raw) {
                Ok(entry) => entry,
                Err(invalid) => return self.found.image_fault(Code::ManifestInvalid, invalid.0),
            };
            if !self.children.contains(&entry.digest) {
                self.children.push(entry.digest);
            }
            if manifest::is_index(&entry.media_type) {
                if depth >= INDEX_DEPTH {
                    let detail = format!("its indexes are nested deeper than {INDEX_DEPTH}");
                    return self.found.image_fault(Code::BudgetExceeded, detail);
                }
                if self.question.children {
                    self.nested += 1;
                    self.ask(Step::Nested { digest: entry.digest, depth: depth + 1 });
                }
            }
        }
    }
}
