//! The audit ledger's store: one `SQLite` file, one thread that writes it, and the names that records get. It must never
//! say that a record is saved before its commit has reached the disk.
//!
//! A record has its sequence, hash and name from the moment [`Ledger::append`] is called, and stands in the queue in that
//! order. The writer takes all that is queued in one transaction (group commit; WAL with `synchronous=FULL`, so that a
//! commit is an fsync). When the store fails, the queue keeps what it can, and is written first when the store is back.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use self::queue::{Queue, Refused, Told};
use crate::decision::record::{Event, RecordName, Started, Writer};

mod query;
mod queue;
mod read;
mod reserve;
mod store;
mod stream;
#[cfg(test)]
mod tests;
mod writer;

pub use query::{Filter, ImageFilter};
pub use read::{All, Reader, Shown, Stats, StoredRecord};
pub use store::{LedgerError, SCHEMA};

/// Where records are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// In this file, made if it is not there.
    File(PathBuf),
    /// In memory, for measurements and tests: gone when the process ends.
    Memory,
    /// Nowhere: records are named and, where a stream is set, streamed.
    Off,
}

/// What must be on disk before its reply is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Denials (and overrides).
    #[default]
    Denials,
    /// Every reply.
    All,
}

/// How a ledger is opened.
pub struct Settings {
    /// Where records are kept.
    pub store: Store,
    /// What must be on disk before its reply is sent.
    pub durability: Durability,
    /// The cluster's name, as records hold it.
    pub cluster: String,
    /// The replica's name, as records hold it.
    pub replica: String,
    /// Where each record goes as a line of JSON, after it was saved or when it cannot be.
    pub stream: Option<Box<dyn Write + Send>>,
    /// How many records may wait for the store; each takes up to 16 KiB.
    pub queue: usize,
    /// Bytes beside the file that are kept back for overrides ([`Wait::OrNothing`]), for when the disk is full; at most a
    /// quarter of the room that there is. 0 is none.
    pub reserve: u64,
    /// What the record `started` says, which is on disk when [`Ledger::open`] returns.
    pub started: Started,
}

impl Settings {
    /// Settings with a queue of 4096 records, 8 MiB kept back for overrides, durable denials and no stream.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            durability: Durability::Denials,
            cluster: String::new(),
            replica: String::new(),
            stream: None,
            queue: 4096,
            reserve: 8 << 20,
            started: Started { version: env!("CARGO_PKG_VERSION").to_owned(), ..Started::default() },
        }
    }
}

/// How long an event waits for its place on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until it is on disk: for what stays as it is even if that fails, a denial.
    Saved,
    /// Not at all, or, under [`Durability::All`], as [`Wait::OrNothing`]: for an admission.
    Queued,
    /// Until it is on disk, and not even queued while the store is failing: for what may only happen if it is recorded, an
    /// override. On a full disk the space that is kept back is given up for it.
    OrNothing,
}

/// What became of an event. Only with [`Appended::is_kept`] may anything be allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// It is on disk, under this name.
    Saved(RecordName),
    /// It has this name and will be written with the next group.
    Queued(RecordName),
    /// It is counted with others, and said by the record of this name, which is on disk: refusals that are equal to it
    /// came ten times within the last minute. The count, with the uids, is on disk within a second.
    Repeat(RecordName),
    /// It is queued, but not on disk: the deadline has passed or the store is failing. A denial is sent with
    /// `record: pending`.
    Pending,
    /// It is recorded nowhere, and why. An admission becomes `audit-unavailable`, a denial is sent without a record.
    Unavailable(String),
    /// The ledger is off.
    Off,
}

impl Appended {
    /// Whether the record is as safe as the settings ask for.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        match self {
            Self::Saved(_) | Self::Queued(_) | Self::Repeat(_) | Self::Off => true,
            Self::Pending | Self::Unavailable(_) => false,
        }
    }

    /// The name of its own record, where there is one and it may be given away.
    #[must_use]
    pub const fn name(&self) -> Option<RecordName> {
        match self {
            Self::Saved(name) | Self::Queued(name) => Some(*name),
            Self::Repeat(_) | Self::Pending | Self::Unavailable(_) | Self::Off => None,
        }
    }
}

/// How the store does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Commits succeed.
    Well,
    /// They do not.
    Failing {
        /// Why.
        reason: String,
        /// Records that are not on disk.
        unsaved: usize,
    },
    /// The ledger was sealed, or its writer ended.
    Closed,
}

/// The ledger of one process. Clones are the same ledger. Dropping the last one without [`Ledger::seal`] writes what is
/// queued and leaves the chain without `stopped`, as a crash would.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None`: off, and no stream.
    queue: Option<Arc<Queue>>,
    durability: Durability,
    off: bool,
    ended: watch::Receiver<bool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Ledger {
    /// Opens the ledger, makes or migrates its schema, and begins: with `started`, after `recovered` in a chain of its own
    /// where the last process did not stop in order. Both are on disk when this returns. Refused: a file that another
    /// process writes, that a newer version made, or that is no ledger.
    pub fn open(settings: Settings) -> Result<Self, LedgerError> {
        let Settings { store, durability, cluster, replica, stream, queue: bound, reserve, started } = settings;
        let writer = Writer::new(&cluster, &replica);
        let off = store == Store::Off;
        let (ending, ended) = watch::channel(false);
        if off && stream.is_none() {
            drop(ending);
            return Ok(Self { inner: Arc::new(Inner { queue: None, durability, off, ended, thread: None }) });
        }
        let (store, head) = writer::begin(store, &writer, started, reserve)?;
        let queue = Arc::new(Queue::new(&head, writer, bound.max(1)));
        let stream = match stream {
            Some(sink) => Some(stream::Stream::start(sink)?),
            None => None,
        };
        let thread = writer::start(Arc::clone(&queue), store, head.records, stream, ending)?;
        Ok(Self { inner: Arc::new(Inner { queue: Some(queue), durability, off, ended, thread: Some(thread) }) })
    }

    /// Records an event. Its place in the ledger is settled at once; `wait` says what it waits for, and `deadline` how long.
    /// Giving up the future does not take the record back.
    pub async fn append(&self, event: Event, wait: Wait, deadline: Instant) -> Appended {
        let Some(queue) = &self.inner.queue else { return Appended::Off };
        if let Some(of) = event.refusal().and_then(|refusal| queue.repeat(refusal)) {
            return Appended::Repeat(of);
        }
        let essential = wait == Wait::OrNothing;
        let wait = match (wait, self.inner.durability) {
            (Wait::Queued, Durability::All) => Wait::OrNothing,
            (wait, Durability::All | Durability::Denials) => wait,
        };
        let (name, told) = match queue.push(event.draft(), if self.inner.off { Wait::Queued } else { wait }, essential)
        {
            Ok(pushed) => pushed,
            Err(refused) => return Appended::Unavailable(refused.to_string()),
        };
        if self.inner.off {
            return Appended::Off;
        }
        let Some(told) = told else { return Appended::Queued(name) };
        match timeout_at(deadline, told).await {
            Ok(Ok(Told::Saved)) => {
                if let Some(refusal) = event.refusal() {
                    queue.recorded(refusal, name);
                }
                Appended::Saved(name)
            }
            Ok(Ok(Told::Failing) | Err(_)) | Err(_) => Appended::Pending,
        }
    }

    /// Counts a review that is turned away unjudged (C-03). It waits for nothing: all of them, with their uids, are one
    /// record within a second.
    pub fn shed(&self, uid: &str) {
        if let Some(queue) = &self.inner.queue {
            queue.shed(uid);
        }
    }

    /// How the store does.
    #[must_use]
    pub fn health(&self) -> Health {
        self.inner.queue.as_ref().map_or(Health::Well, |queue| queue.health())
    }

    /// Ends the ledger: no more events are taken, `stopped` is written after all that is queued, the file is closed. An
    /// error says what is not on disk when `deadline` comes; it is on the stream, marked `unsaved`.
    pub async fn seal(&self, deadline: Instant) -> Result<(), LedgerError> {
        let Some(queue) = &self.inner.queue else { return Ok(()) };
        match queue.push_last(Event::Stopped.draft()) {
            Ok(()) | Err(Refused::Closed) => {}
            Err(Refused::Full(_) | Refused::Failing(_)) => queue.close(),
        }
        let mut ended = self.inner.ended.clone();
        let in_time = timeout_at(deadline, ended.wait_for(|ended| *ended)).await.is_ok();
        queue.abandon();
        let unsaved = queue.unsaved();
        if in_time && unsaved == 0 { Ok(()) } else { Err(LedgerError::NotSealed { unsaved }) }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.close();
            queue.abandon();
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ledger's writer did not end in order");
        }
    }
}
