//! The `SQLite` file: its schema, its lock, its commits. It must never be written by two processes, nor by an older version
//! than the one that made it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::decision::record::{ChainName, Record, Row};
use crate::decision::reference::Digest;

/// The version of the schema that this program writes (`PRAGMA user_version`).
pub const SCHEMA: u32 = 1;

/// `PRAGMA application_id`: `PRVL`.
pub(super) const APPLICATION: u32 = 0x5052_564c;

/// The steps from each version of the schema to the next, the first from an empty file.
const MIGRATIONS: [&str; SCHEMA as usize] = ["
    CREATE TABLE records (
        chain TEXT NOT NULL, seq INTEGER NOT NULL,
        time INTEGER NOT NULL,                      -- microseconds since 1970-01-01 UTC
        uid TEXT NOT NULL, dry_run INTEGER NOT NULL, namespace TEXT NOT NULL,
        verdict TEXT NOT NULL,                      -- or the kind of event, for what is no review
        codes TEXT NOT NULL,                        -- separated by commas
        user TEXT NOT NULL, grant_id TEXT,
        previous BLOB NOT NULL, hash BLOB NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (chain, seq)
    ) STRICT;
    CREATE INDEX records_time ON records (time);
    CREATE INDEX records_namespace ON records (namespace, time);
    CREATE INDEX records_user ON records (user, time);
    CREATE INDEX records_refused ON records (verdict, time) WHERE verdict <> 'admit';
    CREATE TABLE record_images (
        chain TEXT NOT NULL, seq INTEGER NOT NULL, item INTEGER NOT NULL,
        time INTEGER NOT NULL,                      -- that of the record, so that each index answers in order of time
        repository TEXT, digest TEXT, code TEXT,
        PRIMARY KEY (chain, seq, item)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX images_repository ON record_images (repository, time) WHERE repository IS NOT NULL;
    CREATE INDEX images_digest ON record_images (digest, time) WHERE digest IS NOT NULL;
    CREATE INDEX images_code ON record_images (code, time) WHERE code IS NOT NULL;
"];

/// What can be wrong with a ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another process writes this file.
    #[error("the ledger {path} is in use: another process writes it, and two may not write one chain")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of Provost made it.
    #[error(
        "the ledger {path} has schema {found}, and this version knows up to {SCHEMA}: use the version that made it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema's version.
        found: u32,
    },
    /// It is another program's file, or nobody's.
    #[error("{path} is no ledger of Provost")]
    NotALedger {
        /// The file.
        path: PathBuf,
    },
    /// The file under the ledger's name is not the one that was opened.
    #[error("the ledger {path} was moved, removed or replaced while it was written")]
    Moved {
        /// The file.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `SQLite` refuses.
    #[error("cannot {what}: {source}")]
    Sqlite {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: rusqlite::Error,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers, which name a new chain")]
    Random,
    /// The system gives no thread.
    #[error("cannot start a thread for the ledger: {0}")]
    Thread(io::Error),
    /// At the end, not everything was on disk.
    #[error("the ledger was not sealed in time; {unsaved} records are not on disk")]
    NotSealed {
        /// How many.
        unsaved: usize,
    },
}

impl LedgerError {
    /// There is no room left on the disk.
    pub(super) fn is_full(&self) -> bool {
        let Self::Sqlite { source, .. } = self else { return false };
        // Without room for its shared memory, SQLite calls it a fault of input and output.
        source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            || source.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
    }
}

/// For `map_err`: what was tried when `SQLite` refused.
pub(super) fn failed(what: &'static str) -> impl FnOnce(rusqlite::Error) -> LedgerError {
    move |source| LedgerError::Sqlite { what, source }
}

/// The newest record of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) chain: ChainName,
    pub(super) seq: u64,
    pub(super) hash: Digest,
    pub(super) stopped: bool,
}

/// An open store, ours to write.
pub(super) struct Database {
    /// `None` after a fault that only a fresh connection can cure.
    connection: Option<Connection>,
    file: Option<OurFile>,
    /// The last record that was written.
    last: Option<(ChainName, u64)>,
    /// A commit failed: what it wrote may be there.
    in_doubt: bool,
    /// Commits so far.
    #[cfg(test)]
    pub(super) commits: std::sync::Arc<std::sync::atomic::AtomicU64>,
    /// The most pages that the file may have.
    #[cfg(test)]
    pub(super) pages: std::sync::Arc<std::sync::atomic::AtomicU32>,
}

struct OurFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// Held as long as we write. It is a file of its own, so that readers are not kept out.
    _lock: File,
}

impl Database {
    /// Opens a file for writing, makes it where there is none, and migrates it.
    pub(super) fn open(path: &Path) -> Result<Self, LedgerError> {
        let file = |what| move |source| LedgerError::File { what, path: path.to_owned(), source };
        let is_new = !path.exists();
        // Made here and not by SQLite: only its owner may read who deployed what.
        File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(file("open"))?;
        // One lock for one file, whatever name it is opened by.
        let path = &fs::canonicalize(path).map_err(file("find"))?;
        let lock = lock(path)?;
        let identity = identity(path).ok_or_else(|| LedgerError::Moved { path: path.clone() })?;
        let mut connection = connect(path)?;
        migrate(&mut connection, path)?;
        settle(&connection)?;
        if is_new && let Some(folder) = path.parent() {
            // The name of a new file is durable only with its folder.
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(file("sync the folder of"))?;
        }
        let file = OurFile { path: path.clone(), identity, _lock: lock };
        Ok(Self::with(connection, Some(file)))
    }

    /// A store that ends with the process.
    pub(super) fn in_memory() -> Result<Self, LedgerError> {
        let mut connection = Connection::open_in_memory().map_err(failed("open a ledger in memory"))?;
        migrate(&mut connection, Path::new(":memory:"))?;
        Ok(Self::with(connection, None))
    }

    fn with(connection: Connection, file: Option<OurFile>) -> Self {
        Self {
            connection: Some(connection),
            file,
            last: None,
            in_doubt: false,
            #[cfg(test)]
            commits: std::sync::Arc::default(),
            #[cfg(test)]
            pages: std::sync::Arc::new(u32::MAX.into()),
        }
    }

    /// The newest record; `None` in a new store.
    pub(super) fn tail(&self) -> Result<Option<Tail>, LedgerError> {
        let Some(connection) = &self.connection else { return Ok(None) };
        let newest = "SELECT chain, seq, hash, verdict FROM records ORDER BY rowid DESC LIMIT 1";
        let found = connection
            .query_row(newest, [], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, [u8; 32]>(2)?,
                    row.get::<_, String>(3)?,
                ))
            })
            .optional()
            .map_err(failed("read the newest record"))?;
        let Some((chain, seq, hash, verdict)) = found else { return Ok(None) };
        let path = || self.file.as_ref().map_or_else(PathBuf::new, |file| file.path.clone());
        let (Ok(chain), Ok(seq)) = (chain.parse(), u64::try_from(seq)) else {
            return Err(LedgerError::NotALedger { path: path() });
        };
        Ok(Some(Tail { chain, seq, hash: Digest::from_bytes(hash), stopped: verdict == "stopped" }))
    }

    pub(super) fn has_chain(&self, chain: ChainName) -> Result<bool, LedgerError> {
        let Some(connection) = &self.connection else { return Ok(false) };
        connection
            .query_row("SELECT EXISTS (SELECT 1 FROM records WHERE chain = ?1)", [chain.to_string()], |row| row.get(0))
            .map_err(failed("look for a chain"))
    }

    /// Writes a group of records; when it returns without error they are on disk. After an error none or all may be there,
    /// and the same group is to be given again.
    pub(super) fn commit<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<(), LedgerError> {
        let result = self.try_commit(records);
        if let Err(error) = &result {
            self.in_doubt = true;
            if self.file.is_some() && !is_passing(error) {
                self.connection = None;
            }
            if let Some(connection) = &self.connection
                && error.is_full()
            {
                // The log may hold several times what it is about: emptying it can make the room that is missing. Whether it
                // does, the next commit tells.
                let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            }
        }
        result
    }

    fn try_commit<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<(), LedgerError> {
        if let Some(OurFile { path, identity: ours, .. }) = &self.file {
            if identity(path) != Some(*ours) {
                return Err(LedgerError::Moved { path: path.clone() });
            }
            if self.connection.is_none() {
                self.connection = Some(reconnect(path, self.last)?);
            }
        }
        let Some(connection) = &mut self.connection else { return Ok(()) };
        #[cfg(test)]
        connection
            .pragma_update(None, "max_page_count", self.pages.load(std::sync::atomic::Ordering::SeqCst))
            .map_err(failed("bound the file"))?;
        let write = failed("write to the ledger");
        let transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => transaction,
            Err(error) => return Err(write(error)),
        };
        let mut last = self.last;
        for record in records {
            if self.in_doubt && is_there(&transaction, record).map_err(failed("look for a record"))? {
                continue;
            }
            insert(&transaction, record).map_err(failed("write a record"))?;
            last = Some((record.name.chain, record.name.seq));
        }
        transaction.commit().map_err(write)?;
        self.last = last;
        self.in_doubt = false;
        #[cfg(test)]
        self.commits.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }

    /// The bytes of the file without what is not yet moved into it from the write-ahead log.
    pub(super) fn bytes(&self) -> Result<u64, LedgerError> {
        let Some(connection) = &self.connection else { return Ok(0) };
        file_bytes(connection)
    }

    /// Where it is; `None` in memory.
    pub(super) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// Moves everything into the one file and closes it.
    pub(super) fn close(mut self) -> Result<(), LedgerError> {
        let Some(connection) = self.connection.take() else { return Ok(()) };
        connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(failed("move the log into the ledger"))?;
        connection.close().map_err(|(_, error)| failed("close the ledger")(error))
    }
}

/// The bytes of a ledger's pages.
pub(super) fn file_bytes(connection: &Connection) -> Result<u64, LedgerError> {
    connection
        .query_row("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", [], |row| {
            row.get::<_, i64>(0)
        })
        .map(|bytes| u64::try_from(bytes).unwrap_or(0))
        .map_err(failed("measure the ledger"))
}

/// Faults that leave the connection as good as it was.
fn is_passing(error: &LedgerError) -> bool {
    match error {
        LedgerError::Sqlite { source, .. } => matches!(
            source.sqlite_error_code(),
            Some(
                rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked | rusqlite::ErrorCode::DiskFull
            )
        ),
        LedgerError::Moved { .. } => true,
        LedgerError::InUse { .. }
        | LedgerError::Newer { .. }
        | LedgerError::NotALedger { .. }
        | LedgerError::File { .. }
        | LedgerError::Random
        | LedgerError::Thread(_)
        | LedgerError::NotSealed { .. } => false,
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// `ledger.db.lock`, locked until it is closed: by us, or by the system when we die.
fn lock(path: &Path) -> Result<File, LedgerError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let at = PathBuf::from(name);
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&at)
        .map_err(|source| LedgerError::File { what: "open", path: at.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LedgerError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(LedgerError::File { what: "lock", path: at, source }),
    }
}

fn connect(path: &Path) -> Result<Connection, LedgerError> {
    use rusqlite::OpenFlags;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed("open the ledger"))?;
    connection.busy_timeout(Duration::from_millis(250)).map_err(failed("set up the ledger"))?;
    Ok(connection)
}

/// A fresh connection to the same file, which must still end as we know it.
fn reconnect(path: &Path, last: Option<(ChainName, u64)>) -> Result<Connection, LedgerError> {
    let mut connection = connect(path)?;
    migrate(&mut connection, path)?;
    if !settle(&connection)? {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        let source = rusqlite::Error::SqliteFailure(busy, Some("a reader holds the log".to_owned()));
        return Err(failed("settle the ledger's log")(source));
    }
    if let Some((chain, seq)) = last {
        let ours = "SELECT EXISTS (SELECT 1 FROM records WHERE chain = ?1 AND seq = ?2)";
        let there = connection
            .query_row(ours, params![chain.to_string(), column(seq)], |row| row.get::<_, bool>(0))
            .map_err(failed("look for our last record"))?;
        if !there {
            return Err(LedgerError::Moved { path: path.to_owned() });
        }
    }
    Ok(connection)
}

/// Moves what the log holds into the file, and syncs that; false where a reader is in the way. A connection that is opened
/// after a fault finds in the log what was written and never synced, and takes it for committed: after a failed fsync the
/// kernel may have dropped it, and with it all that stands behind it in the log. What is written to the file anew is
/// synced anew.
fn settle(connection: &Connection) -> Result<bool, LedgerError> {
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        .map(|busy| busy == 0)
        .map_err(failed("settle the ledger's log"))
}

/// Brings the schema up to ours, then sets how the connection writes.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), LedgerError> {
    let unreadable = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => LedgerError::NotALedger { path: path.to_owned() },
        Some(_) | None => failed("read the ledger")(error),
    };
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(unreadable)?;
    let found = check_schema(&transaction, path)?;
    for step in MIGRATIONS.iter().skip(found as usize) {
        transaction.execute_batch(step).map_err(failed("migrate the ledger"))?;
    }
    if found < SCHEMA {
        transaction.pragma_update(None, "application_id", APPLICATION).map_err(failed("mark the ledger"))?;
        transaction.pragma_update(None, "user_version", SCHEMA).map_err(failed("mark the ledger"))?;
    }
    transaction.commit().map_err(failed("migrate the ledger"))?;
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(failed("set up the ledger's log"))?;
    if mode != "wal" && mode != "memory" {
        return Err(LedgerError::File {
            what: "keep a write-ahead log beside",
            path: path.to_owned(),
            source: io::Error::other(format!("the journal mode stays {mode}")),
        });
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed("set up the ledger"))
}

/// The version of the schema; 0 where the file is empty.
pub(super) fn check_schema(connection: &Connection, path: &Path) -> Result<u32, LedgerError> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, u32>(0));
    let read = || -> rusqlite::Result<(u32, u32, u32)> {
        let objects = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((number("application_id")?, number("user_version")?, objects))
    };
    let (application, version, objects) = read().map_err(failed("read the ledger's schema"))?;
    match (application, version, objects) {
        (APPLICATION, found, _) if found > SCHEMA => Err(LedgerError::Newer { path: path.to_owned(), found }),
        (APPLICATION, found, _) if found > 0 => Ok(found),
        (0, 0, 0) => Ok(0),
        _ => Err(LedgerError::NotALedger { path: path.to_owned() }),
    }
}

/// A sequence as `SQLite` holds it; a record's name has no room for one that does not fit.
pub(super) fn column(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn is_there(connection: &Connection, record: &Record) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM records WHERE chain = ?1 AND seq = ?2 AND hash = ?3)")?
        .query_row(params![record.name.chain.to_string(), column(record.name.seq), record.hash.as_bytes()], |row| {
            row.get(0)
        })
}

fn insert(connection: &Connection, record: &Record) -> rusqlite::Result<()> {
    // The columns are taken from the body, so that they cannot differ from it.
    let row = Row::of(&record.body).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    connection
        .prepare_cached(
            "INSERT INTO records (chain, seq, time, uid, dry_run, namespace, verdict, codes, user, previous, hash, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            row.chain,
            row.seq,
            row.time,
            row.uid,
            row.dry_run,
            row.namespace,
            row.verdict,
            row.codes,
            row.user,
            record.previous.as_bytes(),
            record.hash.as_bytes(),
            record.body
        ])?;
    let mut images = connection.prepare_cached(
        "INSERT INTO record_images (chain, seq, item, time, repository, digest, code) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for (item, image) in (0_i64..).zip(&row.images) {
        images.execute(params![row.chain, row.seq, item, row.time, image.repository, image.digest, image.code])?;
    }
    Ok(())
}
