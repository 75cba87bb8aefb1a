//! The image's own manifest and its children. It must never call an image sound that was not read.

use super::super::fetch::{Read, Step};
use super::super::limits::{INDEX_DEPTH, INDEX_ENTRIES};
use super::super::manifest::{self, Document, Index, Invalid};
use super::{Image, Search};
use crate::decision::code::Code;
use crate::decision::reference::Digest;
use crate::edge::registry::Failure;

impl Search<'_> {
    /// Takes in the image's own manifest, and checks what waited for it.
    pub(super) fn image(&mut self, fetched: Result<Read, Failure>) {
        self.image = Image::Failed;
        self.found.changed = true;
        let wanted = self.question.image.digest();
        match fetched {
            Ok(read) if read.digest != wanted => {
                let detail = format!("the registry's manifest hashes to {}", read.digest);
                self.found.image_fault(Code::DigestMismatch, detail);
            }
            Ok(read) => match read.document {
                Ok(Document::Manifest(_)) => self.image = Image::Read(read.bytes),
                Ok(Document::Index(index)) => {
                    self.image = Image::Read(read.bytes);
                    self.entries(index, 1);
                }
                Err(unread) => self.found.image_fault(Code::ManifestInvalid, unread.into_detail()),
            },
            Err(failure) => self.found.image_failed(&failure),
        }
        for (source, bytes) in std::mem::take(&mut self.waiting) {
            self.bundle(source, bytes);
        }
    }

    /// Takes in an index within the image's index.
    pub(super) fn nested(&mut self, digest: Digest, depth: usize, fetched: Result<Read, Failure>) {
        self.nested -= 1;
        self.found.changed = true;
        match fetched.map(|read| read.document) {
            Ok(Ok(Document::Index(index))) => self.entries(index, depth),
            Ok(Ok(Document::Manifest(_))) => {
                self.found.image_fault(Code::ManifestInvalid, format!("{digest} is listed as an index and is none"));
            }
            Ok(Err(unread)) => {
                self.found.image_fault(Code::ManifestInvalid, format!("{digest}: {}", unread.into_detail()));
            }
            Err(failure) => self.found.image_failed(&failure),
        }
    }

    /// Takes in the entries of the image's index. Every entry counts as a child: what calls itself an attestation may be
    /// runnable all the same, and to know better one would have to fetch it.
    fn entries(&mut self, index: Index, depth: usize) {
        if index.count == 0 {
            return self.found.image_fault(Code::ManifestInvalid, "it is an index without entries".to_owned());
        }
        if self.children.len() + index.count > INDEX_ENTRIES {
            return self
                .found
                .image_fault(Code::BudgetExceeded, format!("it is an index of over {INDEX_ENTRIES} entries"));
        }
        for entry in index.entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Invalid(detail)) => return self.found.image_fault(Code::ManifestInvalid, detail),
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
