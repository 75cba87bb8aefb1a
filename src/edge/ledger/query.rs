//! What is asked of a ledger, as SQL with bound values. It must never put a value into the text of a statement.

use jiff::Timestamp;
use rusqlite::types::Value;

use crate::decision::code::Code;
use crate::decision::record::column_repository;
use crate::decision::reference::{Digest, Repository};

/// Which records are asked for: those for which all that is given holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The namespace.
    pub namespace: Option<String>,
    /// From this time on.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// The verdict's word, or the kind of an event that is no review.
    pub verdict: Option<String>,
    /// A code among those of the record; where an image is given as well, among those of that image.
    pub code: Option<Code>,
    /// An image of the record.
    pub image: ImageFilter,
    /// Who sent the request.
    pub user: Option<String>,
}

/// Which image is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFilter {
    /// The repository.
    pub repository: Option<Repository>,
    /// The digest.
    pub digest: Option<Digest>,
}

/// The columns of a record as the reader takes them.
pub(super) struct Columns;

impl Columns {
    pub(super) const RECORD: &str = "r.rowid AS position, r.chain, r.seq, r.time, r.previous, r.hash, r.body";
}

impl Filter {
    /// The statement and its values; the newest records come first. A record may come several times in a row.
    pub(super) fn sql(&self) -> (String, Vec<Value>) {
        let mut values = Vec::new();
        let mut conditions: Vec<String> = Vec::new();
        let mut bind = |value: Value| {
            values.push(value);
            format!("?{}", values.len())
        };
        let ImageFilter { repository, digest } = &self.image;
        // Images are asked for by their own table, which answers in order of time and leads to the records.
        let by_image = repository.is_some() || digest.is_some() || self.code.is_some();
        let time = if by_image { "i.time" } else { "r.time" };
        if let Some(digest) = digest {
            conditions.push(format!("i.digest = {}", bind(digest.to_string().into())));
        }
        if let Some(repository) = repository {
            let (long, short) = (repository.to_string(), column_repository(&repository.to_string()));
            // Where the digest is known, its index leads: `+` keeps the other one out.
            let plus = if digest.is_some() { "+" } else { "" };
            conditions.push(format!("{plus}i.repository IN ({}, {})", bind(long.into()), bind(short.into())));
        }
        if let Some(code) = self.code {
            let plus = if digest.is_some() || repository.is_some() { "+" } else { "" };
            conditions.push(format!("{plus}i.code = {}", bind(code.as_str().to_owned().into())));
        }
        if let Some(namespace) = &self.namespace {
            conditions.push(format!("r.namespace = {}", bind(namespace.clone().into())));
        }
        if let Some(user) = &self.user {
            conditions.push(format!("r.user = {}", bind(user.clone().into())));
        }
        if let Some(verdict) = &self.verdict {
            conditions.push(format!("r.verdict = {}", bind(verdict.clone().into())));
            if verdict != "admit" {
                // Says what the partial index needs to hear.
                conditions.push("r.verdict <> 'admit'".to_owned());
            }
        }
        if let Some(since) = self.since {
            conditions.push(format!("{time} >= {}", bind(since.as_microsecond().into())));
        }
        if let Some(until) = self.until {
            conditions.push(format!("{time} < {}", bind(until.as_microsecond().into())));
        }
        let from = if by_image {
            "record_images i CROSS JOIN records r ON r.chain = i.chain AND r.seq = i.seq"
        } else {
            "records r"
        };
        let order = if by_image { "i.time DESC, i.chain DESC, i.seq DESC" } else { "r.time DESC, r.rowid DESC" };
        let conditions = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
        (format!("SELECT {} FROM {from} WHERE {conditions} ORDER BY {order}", Columns::RECORD), values)
    }
}
