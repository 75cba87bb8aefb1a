//! The objects of a manifest: out of documents and lists, each workload as a review, each image with its place. It must
//! never skip an object that may hold a pod.

use std::ops::Range;

use super::object::{self, Names};
use super::source::Manifest;
use super::{Position, Problem, documents};
use crate::decision::code::Code;
use crate::decision::name::Namespace;
use crate::decision::review::{Fault, Holder, Place, Request, Review};
use crate::edge::admission::is_workload;
use crate::edge::yaml::Node;

/// How deep lists may stand in lists.
const MAX_LISTS: usize = 4;

/// What a manifest file holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// Every object with a pod, or of which it cannot be said that it has none, in the order of the file.
    pub workloads: Vec<Workload>,
    /// How many objects have no pods: other kinds, custom resources, documents that are no Kubernetes objects.
    pub skipped: usize,
    /// Documents that cannot be read.
    pub problems: Vec<Problem>,
}

/// One object with a pod.
#[derive(Debug)]
pub struct Workload {
    /// The file as it was named.
    pub file: String,
    /// Where the object begins.
    pub at: Position,
    /// Its kind, name and namespace, as far as they could be read; untrusted text.
    pub request: Request,
    /// What is judged; a fault where the object cannot be read as its kind.
    pub review: Result<Review, Fault>,
    /// Where each image of the review stands.
    pub images: Vec<Spot>,
}

/// Where an image stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// Where it is used; of a container without an image, the container.
    pub at: Position,
    /// Where it is written: elsewhere for an alias, and for what a merge brings.
    pub written: Position,
    /// The bytes of the scalar in the file, with its quotes; `None` where no image is written.
    pub bytes: Option<Range<usize>>,
}

/// Reads a manifest. `namespace` is that of objects which name none.
#[must_use]
pub fn contents(manifest: &Manifest, namespace: &Namespace) -> Contents {
    let mut finding = Finding { file: &manifest.name, namespace, found: Contents::default() };
    for document in documents(&manifest.text) {
        match document {
            Ok(tree) => finding.object(&tree.root, &Names::of(&tree.root), 0),
            Err(error) => {
                let what = error.message;
                finding.found.problems.push(Problem { file: manifest.name.clone(), at: error.at, what });
            }
        }
    }
    finding.found
}

struct Finding<'a> {
    file: &'a str,
    namespace: &'a Namespace,
    found: Contents,
}

impl Finding<'_> {
    fn object(&mut self, node: &Node, names: &Names<'_>, lists: usize) {
        if let Some(items) = names.list(node) {
            if lists >= MAX_LISTS {
                return self.malformed(node, format!("lists stand in lists more than {MAX_LISTS} deep"));
            }
            return match items {
                Ok(items) => {
                    for item in items {
                        self.object(item, &names.of_item(item), lists + 1);
                    }
                }
                Err(detail) => self.malformed(node, detail),
            };
        }
        match names.fault(node) {
            Some(detail) => self.malformed(node, detail),
            None if is_workload(&names.api_version, &names.kind) => self.workload(node, names),
            None => self.found.skipped += 1,
        }
    }

    fn workload(&mut self, node: &Node, names: &Names<'_>) {
        let (request, review) = object::review(node, names, self.namespace);
        let images = review.as_ref().map(|review| review.images.iter().map(|image| spot(node, &image.place)).collect());
        let images = images.unwrap_or_default();
        self.found.workloads.push(Workload { file: self.file.to_owned(), at: node.at, request, review, images });
    }

    /// An object of which it cannot be said what it is.
    fn malformed(&mut self, node: &Node, detail: String) {
        self.found.workloads.push(Workload {
            file: self.file.to_owned(),
            at: node.at,
            request: Request { namespace: self.namespace.to_string(), ..Request::default() },
            review: Err(Fault::new(Code::MalformedReview, detail)),
            images: Vec::new(),
        });
    }
}

/// Finds the scalar of an image, or what stands nearest to where it should be.
fn spot(object: &Node, place: &Place) -> Spot {
    let (holder, nearest) = object::follow(object, &place.path);
    let key = match place.holder {
        Holder::Container | Holder::InitContainer | Holder::EphemeralContainer => "image",
        Holder::Volume => "reference",
    };
    match holder.and_then(|holder| holder.field(key)) {
        Some(image) if image.text().is_some() => {
            Spot { at: image.at, written: image.written.at, bytes: Some(image.written.bytes.clone()) }
        }
        Some(image) => Spot { at: image.at, written: image.written.at, bytes: None },
        None => Spot { at: nearest.at, written: nearest.written.at, bytes: None },
    }
}

#[cfg(test)]
mod tests;
