//! The reading side: opens a ledger while its server writes it, or after. It must never write, nor lock the writer out.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::query::{Columns, Filter};
use super::store::{LedgerError, check_schema, column, failed, file_bytes};
use crate::decision::chain::Stored;
use crate::decision::record::{ImageRow, RecordPlace, Row};
use crate::decision::reference::Digest;

/// How many records are read at a time.
const PAGE: i64 = 1024;

/// A ledger opened for reading.
pub struct Reader {
    path: PathBuf,
    connection: Connection,
}

/// A record as it is shown: its columns and its body. Verified by nobody; texts are untrusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its name. Text, since what a store holds may be no name.
    pub name: String,
    /// When it was made.
    pub time: Timestamp,
    /// The hash of the record before it, `sha256:…`.
    pub previous: String,
    /// Its own hash, `sha256:…`.
    pub hash: String,
    /// Its body, canonical JSON.
    pub body: String,
    /// Where it stands in its file, in the order of writing.
    pub position: i64,
}

/// What is known about a record that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// It is here.
    Found(Box<StoredRecord>),
    /// Its chain ended before it, without `stopped`, and goes on in another: an unclean stop lost it.
    LostInCrash,
    /// Another record stands in its place: this one.
    Other(Box<StoredRecord>),
    /// Not in this ledger.
    Unknown,
}

/// A ledger in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records in the time that was asked for.
    pub records: u64,
    /// The oldest of them.
    pub first: Option<Timestamp>,
    /// The newest of them.
    pub last: Option<Timestamp>,
    /// By verdict, or kind of event.
    pub verdicts: BTreeMap<String, u64>,
    /// Records by reason code; one with two codes counts for both.
    pub codes: BTreeMap<String, u64>,
    /// Refusals by namespace.
    pub refused_in: BTreeMap<String, u64>,
    /// The size of the file in bytes.
    pub bytes: u64,
}

impl Reader {
    /// Opens a ledger. A newer schema, or a file that is no ledger, is refused.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let missing = |source| LedgerError::File { what: "open", path: path.to_owned(), source };
        let path = std::fs::canonicalize(path).map_err(missing)?;
        let connection = open_read_only(&path)?;
        if check_schema(&connection, &path)? == 0 {
            return Err(LedgerError::NotALedger { path });
        }
        Ok(Self { path, connection })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives each record that matches to `each`, the newest first, until it breaks off.
    pub fn query(
        &self,
        filter: &Filter,
        mut each: impl FnMut(StoredRecord) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        let (sql, values) = filter.sql();
        let fail = || failed("query the ledger");
        let mut statement = self.connection.prepare(&sql).map_err(fail())?;
        let mut rows = statement.query(rusqlite::params_from_iter(values)).map_err(fail())?;
        let mut seen = None;
        while let Some(row) = rows.next().map_err(fail())? {
            let record = stored_record(row).map_err(fail())?;
            // A record with several images that match comes several times, in a row.
            if seen != Some(record.position) {
                seen = Some(record.position);
                if each(record).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Looks up one record.
    pub fn show(&self, place: RecordPlace) -> Result<Shown, LedgerError> {
        let fail = || failed("look up a record");
        let chain = place.chain.to_string();
        let found = self
            .connection
            .query_row(
                &format!("SELECT {} FROM records r WHERE chain = ?1 AND seq = ?2", Columns::RECORD),
                params![chain, column(place.seq)],
                stored_record,
            )
            .optional()
            .map_err(fail())?;
        if let Some(record) = found {
            let same = place.hash16.is_none() || record.name == place.to_string();
            return Ok(if same { Shown::Found(Box::new(record)) } else { Shown::Other(Box::new(record)) });
        }
        let recoveries = "SELECT body FROM records WHERE verdict = 'recovered' AND verdict <> 'admit'";
        let mut statement = self.connection.prepare(recoveries).map_err(fail())?;
        let mut rows = statement.query([]).map_err(fail())?;
        while let Some(row) = rows.next().map_err(fail())? {
            let body: String = row.get(0).map_err(fail())?;
            if Row::recovery(&body).is_some_and(|end| end.chain == place.chain && end.seq < place.seq) {
                return Ok(Shown::LostInCrash);
            }
        }
        Ok(Shown::Unknown)
    }

    /// The last `count` records in the order of writing, the oldest of them first.
    pub fn tail(&self, count: u32) -> Result<Vec<StoredRecord>, LedgerError> {
        let sql = format!("SELECT {} FROM records r ORDER BY rowid DESC LIMIT ?1", Columns::RECORD);
        let mut records = self.page(&sql, params![count])?;
        records.reverse();
        Ok(records)
    }

    /// The records after a position, in the order of writing; at most 1024 of them.
    pub fn after(&self, position: i64) -> Result<Vec<StoredRecord>, LedgerError> {
        let sql = format!("SELECT {} FROM records r WHERE rowid > ?1 ORDER BY rowid LIMIT ?2", Columns::RECORD);
        self.page(&sql, params![position, PAGE])
    }

    fn page(&self, sql: &str, values: impl rusqlite::Params) -> Result<Vec<StoredRecord>, LedgerError> {
        let fail = || failed("read records");
        let mut statement = self.connection.prepare_cached(sql).map_err(fail())?;
        let records = statement.query_map(values, stored_record).map_err(fail())?;
        records.collect::<Result<_, _>>().map_err(fail())
    }

    /// The ledger in numbers, from `since` to before `until`.
    pub fn stats(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> Result<Stats, LedgerError> {
        let fail = || failed("count records");
        let since = since.map_or(i64::MIN, Timestamp::as_microsecond);
        let until = until.map_or(i64::MAX, Timestamp::as_microsecond);
        let counts = |sql: &str| -> Result<BTreeMap<String, u64>, LedgerError> {
            let mut statement = self.connection.prepare(sql).map_err(fail())?;
            let rows = statement
                .query_map([since, until], |row| Ok((row.get(0)?, u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0))))
                .map_err(fail())?;
            rows.collect::<Result<_, _>>().map_err(fail())
        };
        let (first, last) = self
            .connection
            .query_row(
                "SELECT min(time), max(time) FROM records WHERE time >= ?1 AND time < ?2",
                [since, until],
                |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)),
            )
            .map_err(fail())?;
        let verdicts = counts("SELECT verdict, count(*) FROM records WHERE time >= ?1 AND time < ?2 GROUP BY verdict")?;
        Ok(Stats {
            records: verdicts.values().sum(),
            first: first.and_then(|time| Timestamp::from_microsecond(time).ok()),
            last: last.and_then(|time| Timestamp::from_microsecond(time).ok()),
            verdicts,
            codes: counts(
                "SELECT code, count(*) FROM (SELECT DISTINCT chain, seq, code FROM record_images
                 WHERE code IS NOT NULL AND time >= ?1 AND time < ?2) GROUP BY code",
            )?,
            refused_in: counts(
                "SELECT namespace, count(*) FROM records
                 WHERE verdict = 'deny' AND verdict <> 'admit' AND time >= ?1 AND time < ?2 GROUP BY namespace",
            )?,
            bytes: file_bytes(&self.connection)?,
        })
    }

    /// Every record with everything that is stored of it, by chain and sequence: what a verification needs. Records that
    /// are written meanwhile may or may not be among them.
    #[must_use]
    pub fn all(&self) -> All<'_> {
        All {
            reader: self,
            page: VecDeque::new(),
            images: VecDeque::new(),
            after: (String::new(), i64::MIN),
            done: false,
        }
    }

    /// Rows about images that belong to no record: the first place of such a row.
    pub fn stray_image(&self) -> Result<Option<String>, LedgerError> {
        self.connection
            .query_row(
                "SELECT chain || '-' || seq FROM record_images i
                 WHERE NOT EXISTS (SELECT 1 FROM records r WHERE r.chain = i.chain AND r.seq = i.seq) LIMIT 1",
                [],
                |row| row.get(0),
            )
            .optional()
            .map_err(failed("look for stray rows"))
    }
}

/// Every record of a ledger, read page by page.
pub struct All<'a> {
    reader: &'a Reader,
    page: VecDeque<Stored>,
    /// Rows about images, as far as they belong to the page.
    images: VecDeque<(String, i64, ImageRow)>,
    after: (String, i64),
    done: bool,
}

impl Iterator for All<'_> {
    type Item = Result<Stored, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty()
            && !self.done
            && let Err(error) = self.fill()
        {
            self.done = true;
            return Some(Err(failed("read the ledger")(error)));
        }
        let mut stored = self.page.pop_front()?;
        while let Some((chain, seq, _)) = self.images.front() {
            match (chain, seq).cmp(&(&stored.row.chain, &stored.row.seq)) {
                // A stray row, found by `stray_image`.
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => {
                    stored.row.images.extend(self.images.front().map(|(_, _, row)| row.clone()));
                }
                std::cmp::Ordering::Greater => break,
            }
            self.images.pop_front();
        }
        Some(Ok(stored))
    }
}

impl All<'_> {
    fn fill(&mut self) -> rusqlite::Result<()> {
        let mut records = self.reader.connection.prepare_cached(
            "SELECT chain, seq, time, uid, dry_run, namespace, verdict, codes, user, previous, hash, body FROM records
             WHERE (chain, seq) > (?1, ?2) ORDER BY chain, seq LIMIT ?3",
        )?;
        let mut rows = records.query(params![self.after.0, self.after.1, PAGE])?;
        while let Some(row) = rows.next()? {
            self.page.push_back(Stored {
                row: Row {
                    chain: row.get(0)?,
                    seq: row.get(1)?,
                    time: row.get(2)?,
                    uid: row.get(3)?,
                    dry_run: row.get::<_, i64>(4)? != 0,
                    namespace: row.get(5)?,
                    verdict: row.get(6)?,
                    codes: row.get(7)?,
                    user: row.get(8)?,
                    images: Vec::new(),
                },
                previous: row.get(9)?,
                hash: row.get(10)?,
                body: row.get(11)?,
            });
        }
        let Some(last) = self.page.back().map(|last| (last.row.chain.clone(), last.row.seq)) else {
            self.done = true;
            return Ok(());
        };
        let mut images = self.reader.connection.prepare_cached(
            "SELECT chain, seq, repository, digest, code FROM record_images
             WHERE (chain, seq) > (?1, ?2) AND (chain, seq) <= (?3, ?4) ORDER BY chain, seq, item",
        )?;
        let mut rows = images.query(params![self.after.0, self.after.1, last.0, last.1])?;
        self.images.clear();
        while let Some(row) = rows.next()? {
            let image = ImageRow { repository: row.get(2)?, digest: row.get(3)?, code: row.get(4)? };
            self.images.push_back((row.get(0)?, row.get(1)?, image));
        }
        self.after = last;
        Ok(())
    }
}

fn stored_record(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredRecord> {
    let (chain, seq): (String, i64) = (row.get("chain")?, row.get("seq")?);
    let (previous, hash): ([u8; 32], [u8; 32]) = (row.get("previous")?, row.get("hash")?);
    let hash = Digest::from_bytes(hash);
    let time = Timestamp::from_microsecond(row.get("time")?).unwrap_or(Timestamp::UNIX_EPOCH);
    Ok(StoredRecord {
        name: format!("{chain}-{seq}-{}", &hash.hex()[..16]),
        time,
        previous: Digest::from_bytes(previous).to_string(),
        hash: hash.to_string(),
        body: row.get("body")?,
        position: row.get("position")?,
    })
}

/// Opens for reading only. A ledger at rest in a folder that we may not write (a backup, a mounted volume) has no log, and is
/// then read as a file that nobody changes.
fn open_read_only(path: &Path) -> Result<Connection, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let not_a_ledger = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => LedgerError::NotALedger { path: path.to_owned() },
        Some(_) | None => failed("open the ledger for reading")(error),
    };
    let open = |connection: rusqlite::Result<Connection>| -> rusqlite::Result<Connection> {
        let connection = connection?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    match open(Connection::open_with_flags(path, flags)) {
        Ok(connection) => Ok(connection),
        Err(error) => {
            let mut log = path.as_os_str().to_owned();
            log.push("-wal");
            let at_rest = std::fs::metadata(&log).map_or(true, |log| log.len() == 0);
            let shut = matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly)
            );
            if !(at_rest && shut) {
                return Err(not_a_ledger(error));
            }
            let uri = format!("file:{}?immutable=1", uri_path(path));
            open(Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)).map_err(not_a_ledger)
        }
    }
}

/// A path within a `file:` URI (`SQLite`, "URI Filenames").
fn uri_path(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    path.as_os_str()
        .as_bytes()
        .iter()
        .map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
