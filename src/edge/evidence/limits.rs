//! How much is looked at for one image. It must never be zero: a search that may look at nothing proves nothing.

/// Counts for one search. Sizes of single documents are fixed beside their formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Descriptors read from all lists of referrers; at most 1 000.
    pub listed: usize,
    /// Referrers whose manifests are opened; at most 1 000.
    pub opened: usize,
    /// Layers of one legacy signature manifest; at most 100.
    pub layers: usize,
    /// Pairs of (candidate, key) that are checked; at most 2 000.
    pub checks: usize,
    /// Bytes fetched; at most 96 MiB.
    pub bytes: u64,
    /// Requests made; at most 250.
    pub requests: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { listed: 1000, opened: 100, layers: 100, checks: 2000, bytes: 32 << 20, requests: 250 }
    }
}

impl Limits {
    /// The same limits, none above the figure beyond which it may not be configured, and none zero.
    #[must_use]
    pub fn clamped(self) -> Self {
        Self {
            listed: self.listed.clamp(1, ENTRIES_READ),
            opened: self.opened.clamp(1, 1000),
            layers: self.layers.clamp(1, LAYERS_READ),
            checks: self.checks.clamp(1, 2000),
            bytes: self.bytes.clamp(1, 96 << 20),
            requests: self.requests.clamp(1, 250),
        }
    }
}

/// Signature checks that a search makes in one turn. Few, so that others wait a moment; not one, since a turn on a busy
/// machine takes longer to come than a check takes.
pub(super) const CHECKS_IN_A_TURN: usize = 16;
/// Entries of an index that are read: the most of them that may be listed.
pub(super) const ENTRIES_READ: usize = 1000;
/// Layers of a manifest that are read: the most of them that may be signatures.
pub(super) const LAYERS_READ: usize = 100;
/// Requests under way at once for one image, with what they brought and has not been checked yet.
pub(super) const AT_ONCE: usize = 8;
/// Entries of an index that are read.
pub(super) const INDEX_ENTRIES: usize = 64;
/// How deep indexes may be nested: an index in an index, and no further.
pub(super) const INDEX_DEPTH: usize = 2;
/// Rejected candidates that are kept for the reader.
pub(super) const REJECTED_KEPT: usize = 10;
