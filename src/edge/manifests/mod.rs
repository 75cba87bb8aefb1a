//! Kubernetes manifests on disk or from a pipe: read within bounds, every workload in them as a review, every image with
//! its place; and digests put into them without touching another byte. It must never judge, and never extract an image by
//! a way of its own: objects are read by the decoder of the webhook.

mod diff;
mod find;
mod object;
mod source;
mod splice;
mod write;

pub use diff::unified;
pub use find::{Contents, Spot, Workload, contents};
pub use source::{Input, Manifest, Manifests, read};
pub use splice::{Pin, SpliceError, splice};
pub use write::replace;

use crate::edge::yaml::{self, Rules, Tree, Unreadable};

pub use crate::edge::yaml::Position;

/// What a manifest may hold. Definitions of custom resources are deep, and nothing in them is looked at.
const RULES: Rules = Rules {
    max_depth: 100,
    max_nodes: 2_000_000,
    max_documents: 100_000,
    max_aliases: 20_000,
    max_aliased_nodes: 500_000,
    merge_keys: true,
    strict_booleans: false,
};

/// Something that cannot be read, so that nothing can be said about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {what}", if *.at == Position::default() { String::new() } else { format!(":{}", .at) })]
pub struct Problem {
    /// The file or folder as it was named; `stdin`.
    pub file: String,
    /// Where in it; `0:0` is the whole.
    pub at: Position,
    /// What is wrong.
    pub what: String,
}

/// Room for the parser at the deepest nesting, in bytes; a debug build needs some 20 KiB for each level.
const STACK: usize = 16 << 20;

/// The documents of a manifest. They are read on a stack of their own: the depth of a file must not depend on who asks.
fn documents(text: &str) -> Vec<Result<Tree, Unreadable>> {
    let read = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn_scoped(scope, || yaml::documents(text, RULES)).map_err(|error| error.to_string())?;
        thread.join().map_err(|_| "the parser failed".to_owned())
    });
    read.unwrap_or_else(|message| vec![Err(Unreadable { at: Position::default(), message })])
}
