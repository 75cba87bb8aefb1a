//! What a record's body says in the columns by which it is found. It must never take anything but the body's word, so that
//! a column that says otherwise is known to be changed.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;

use super::ChainName;
use crate::decision::reference::Digest;

/// The columns of one record. Empty text where a record has no such thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// The chain.
    pub chain: String,
    /// The place in the chain.
    pub seq: i64,
    /// Microseconds since 1970-01-01 UTC.
    pub time: i64,
    /// The review's uid.
    pub uid: String,
    /// Nothing was to be stored.
    pub dry_run: bool,
    /// The namespace.
    pub namespace: String,
    /// The verdict's word; the kind of event for what is no review.
    pub verdict: String,
    /// The codes of all denials, separated by commas.
    pub codes: String,
    /// Who sent the request.
    pub user: String,
    /// One row for each image and each of its codes, then one for each code that is about no image.
    pub images: Vec<ImageRow>,
}

/// One image of a record, or one code, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageRow {
    /// The repository, normalised; where the record had no room for it, as [`column_repository`] gives it.
    pub repository: Option<String>,
    /// The digest.
    pub digest: Option<String>,
    /// A reason code.
    pub code: Option<String>,
}

/// Where the chain before ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// The chain that ended without `stopped`.
    pub chain: ChainName,
    /// Its last record on disk.
    pub seq: u64,
    /// That record's hash.
    pub hash: Digest,
}

/// Why a body is no record's.
#[derive(Debug, thiserror::Error)]
#[error("not the body of a record: {0}")]
pub struct NotARecord(#[from] serde_json::Error);

impl Row {
    /// The columns of the record with this body.
    pub fn of(body: &str) -> Result<Self, NotARecord> {
        let Claims { chain, seq, time, event } = serde_json::from_str(body)?;
        let Event { kind, uid, dry_run, namespace, verdict, codes, user, images, .. } = event;
        let mut rows: Vec<ImageRow> = Vec::with_capacity(images.len());
        for image in &images {
            let row = ImageRow {
                repository: image.repository.as_deref().map(|text| match text.rsplit_once("…#") {
                    Some((_, hash)) => format!("#{hash}"),
                    None => text.to_owned(),
                }),
                digest: image.digest.as_deref().map(str::to_owned),
                code: None,
            };
            if image.codes.is_empty() {
                rows.push(row);
            } else {
                rows.extend(image.codes.iter().map(|code| ImageRow { code: Some(code.to_string()), ..row.clone() }));
            }
        }
        for code in &codes {
            if !images.iter().any(|image| image.codes.contains(code)) {
                rows.push(ImageRow { code: Some(code.to_string()), ..ImageRow::default() });
            }
        }
        Ok(Self {
            chain: chain.into_owned(),
            seq,
            time: time.as_microsecond(),
            uid: uid.into_owned(),
            dry_run,
            namespace: namespace.into_owned(),
            verdict: if verdict.is_empty() { kind.into_owned() } else { verdict.into_owned() },
            codes: codes.join(","),
            user: user.into_owned(),
            images: rows,
        })
    }

    /// Where the chain before ended, if the record with this body is `recovered`.
    #[must_use]
    pub fn recovery(body: &str) -> Option<Recovery> {
        let claims: Claims<'_> = serde_json::from_str(body).ok()?;
        if claims.event.kind != "recovered" {
            return None;
        }
        Some(Recovery { chain: claims.event.chain?.parse().ok()?, seq: claims.event.seq?, hash: claims.event.hash? })
    }
}

/// What stands in the column where a record had to shorten this repository: `#` and 32 hex digits of its SHA-256.
#[must_use]
pub fn column_repository(repository: &str) -> String {
    format!("#{}", super::fit::short_hash(repository))
}

#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    chain: Cow<'a, str>,
    seq: i64,
    time: Timestamp,
    #[serde(borrow)]
    event: Event<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(default)]
    dry_run: bool,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    verdict: Cow<'a, str>,
    #[serde(default)]
    codes: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    user: Cow<'a, str>,
    #[serde(borrow, default)]
    images: Vec<Image<'a>>,
    chain: Option<String>,
    seq: Option<u64>,
    hash: Option<Digest>,
}

#[derive(Deserialize)]
struct Image<'a> {
    #[serde(borrow)]
    repository: Option<Cow<'a, str>>,
    #[serde(borrow)]
    digest: Option<Cow<'a, str>>,
    #[serde(default)]
    codes: Vec<Cow<'a, str>>,
}
