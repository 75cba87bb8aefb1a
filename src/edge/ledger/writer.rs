//! The thread that writes: takes what is queued, commits it as one group, tells those who wait. It must never write one
//! record before another of a lower sequence, nor give up a record while there is hope for the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use tokio::sync::watch;

use super::Store;
use super::queue::{GROUP, Item, Next, Queue, Told};
use super::reserve::{ALARM, Reserve, share_used};
use super::store::{Database, LedgerError, Tail};
use super::stream::Stream;
use crate::decision::record::{ChainName, Event, NO_RECORD, Record, Recovery, Started, Writer};
use crate::decision::reference::Digest;
use crate::edge::clock;

/// The first pause after a commit failed; it doubles up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Where a process begins to write.
pub(super) struct Head {
    pub(super) chain: ChainName,
    pub(super) seq: u64,
    pub(super) last: Digest,
    /// Random numbers that nobody else knows.
    pub(super) seed: [u8; 32],
    /// What was written already.
    pub(super) records: Vec<Record>,
}

/// Opens the store and writes the first records of this process: they are on disk before any name is given away, so that
/// no name is ever given away twice.
pub(super) fn begin(
    store: Store,
    writer: &Writer,
    started: Started,
    reserve: u64,
) -> Result<(Option<Kept>, Head), LedgerError> {
    let mut database = match store {
        Store::File(path) => Some(Database::open(&path)?),
        Store::Memory => Some(Database::in_memory()?),
        Store::Off => None,
    };
    let tail = database.as_ref().map_or(Ok(None), Database::tail)?;
    let (chain, mut seq, mut last, recovered) = match tail {
        Some(Tail { chain, seq, hash, stopped: true }) => (chain, seq, hash, None),
        Some(Tail { chain, seq, hash, stopped: false }) => {
            (draw(database.as_ref())?, 0, NO_RECORD, Some(Event::Recovered(Recovery { chain, seq, hash })))
        }
        None => (draw(database.as_ref())?, 0, NO_RECORD, None),
    };
    let mut records = Vec::with_capacity(2);
    for event in recovered.into_iter().chain([Event::Started(started)]) {
        seq += 1;
        let record = event.draft().seal(chain, seq, clock::now(), writer, last);
        last = record.hash;
        records.push(record);
    }
    if let Some(database) = &mut database {
        database.commit(records.iter())?;
    }
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).map_err(|_| LedgerError::Random)?;
    let kept = database.map(|database| {
        let reserve = database.path().map(|path| Reserve::beside(path, reserve));
        Kept { database, reserve, giving: false, is_spent: false }
    });
    Ok((kept, Head { chain, seq, last, seed, records }))
}

/// New letters, other than those of any chain in the store.
fn draw(database: Option<&Database>) -> Result<ChainName, LedgerError> {
    loop {
        let mut random = [0; 4];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| LedgerError::Random)?;
        let chain = ChainName::drawn(u32::from_le_bytes(random));
        if !database.map_or(Ok(false), |database| database.has_chain(chain))? {
            return Ok(chain);
        }
    }
}

/// Starts the thread. `ending` turns true when everything is written and closed.
pub(super) fn start(
    queue: Arc<Queue>,
    kept: Option<Kept>,
    begun: Vec<Record>,
    stream: Option<Stream>,
    ending: watch::Sender<bool>,
) -> Result<thread::JoinHandle<()>, LedgerError> {
    let work = move || {
        // Also where this thread panics: nobody waits for a writer that is gone.
        let _end = Ending { queue: Arc::clone(&queue), ending };
        let thread = Thread { queue, kept, stream, measured: None, alarmed: false };
        for record in &begun {
            thread.tell_stream(record, true);
        }
        counter!("provost_ledger_records_total").increment(begun.len() as u64);
        thread.run();
    };
    thread::Builder::new().name("ledger".to_owned()).spawn(work).map_err(LedgerError::Thread)
}

struct Ending {
    queue: Arc<Queue>,
    ending: watch::Sender<bool>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.queue.end();
        self.ending.send_replace(true);
    }
}

/// A store, and the space beside it.
pub(super) struct Kept {
    pub(super) database: Database,
    pub(super) reserve: Option<Reserve>,
    /// The space was given up and is taken back when what it was given up for is on disk.
    pub(super) giving: bool,
    /// It was given up in vain: there is too little of it left.
    pub(super) is_spent: bool,
}

struct Thread {
    queue: Arc<Queue>,
    kept: Option<Kept>,
    stream: Option<Stream>,
    /// When the size of the store was last looked at.
    measured: Option<Instant>,
    /// It was said that space becomes scarce.
    alarmed: bool,
}

impl Thread {
    fn run(mut self) {
        while let Next::More(items) = self.queue.take() {
            if !self.write(items.into()) {
                break;
            }
        }
        if let Some(kept) = self.kept.take()
            && let Err(error) = kept.database.close()
        {
            tracing::warn!(%error, "the ledger was not closed in order; nothing in it is lost");
        }
        if let Some(stream) = self.stream.take() {
            stream.end();
        }
    }

    /// Writes all of `items`, and what comes while the store fails; false where the store was given up.
    fn write(&mut self, mut items: VecDeque<Item>) -> bool {
        let mut pause = FIRST_PAUSE;
        while !items.is_empty() {
            let begun = Instant::now();
            let count = items.len().min(GROUP);
            let committed = match &mut self.kept {
                Some(kept) => kept.commit(&items, count),
                None => Ok(()),
            };
            match committed {
                Ok(()) => {
                    histogram!("provost_ledger_commit_seconds").record(begun.elapsed().as_secs_f64());
                    counter!("provost_ledger_records_total").increment(count as u64);
                    // Before anybody hears of it, so that nobody else takes the room.
                    if let Some(kept) = &mut self.kept {
                        kept.take_back(items.iter().skip(count));
                    }
                    self.queue.saved(count);
                    for mut item in items.drain(..count) {
                        item.tell(Told::Saved);
                        self.tell_stream(&item.record, true);
                    }
                    pause = FIRST_PAUSE;
                    self.measure();
                }
                Err(error) => {
                    let spare = self.kept.as_mut().is_some_and(|kept| kept.is_spare(&error));
                    let reason = error.to_string();
                    tracing::error!(%reason, waiting = items.len(), "the ledger cannot be written");
                    self.queue.failing(reason, spare);
                    self.mark_unsaved(&mut items);
                    let Some(next) = self.wait(&mut items, pause) else { return false };
                    pause = next;
                }
            }
        }
        true
    }

    /// Waits before the store is tried again, while records go on coming. `None`: it is not to be tried again.
    fn wait(&self, items: &mut VecDeque<Item>, pause: Duration) -> Option<Duration> {
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some((pause * 2).min(LAST_PAUSE));
            }
            let more = self.queue.wait_to_retry(left)?;
            let is_urgent = more.iter().any(|item| item.essential);
            items.extend(more);
            if is_urgent {
                return Some(pause);
            }
            self.mark_unsaved(items);
        }
    }

    fn mark_unsaved(&self, items: &mut VecDeque<Item>) {
        gauge!("provost_ledger_unsaved").set(float(self.queue.unsaved()));
        for item in items.iter_mut().filter(|item| !item.streamed) {
            item.tell(Told::Failing);
            item.streamed = true;
            self.tell_stream(&item.record, false);
        }
    }

    fn tell_stream(&self, record: &Record, saved: bool) {
        if let Some(stream) = &self.stream {
            stream.send(record.line(saved));
        }
    }

    /// The store's size, at most once a second.
    fn measure(&mut self) {
        gauge!("provost_ledger_unsaved").set(float(self.queue.unsaved()));
        if self.measured.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            return;
        }
        self.measured = Some(Instant::now());
        let Some(Kept { database, reserve, .. }) = &mut self.kept else { return };
        if let Ok(Ok(bytes)) = database.bytes().map(usize::try_from) {
            gauge!("provost_ledger_bytes").set(float(bytes));
        }
        if let Some(reserve) = reserve {
            reserve.fill();
        }
        if let Some(used) = database.path().and_then(share_used) {
            gauge!("provost_ledger_space_used_ratio").set(used);
            let is_scarce = used >= ALARM;
            if is_scarce && !self.alarmed {
                let used = format!("{:.0} %", used * 100.0);
                tracing::error!(used, "the ledger's file system fills up; when it is full, everything is denied");
            }
            self.alarmed = is_scarce;
        }
    }
}

impl Kept {
    /// Commits the first `count` of `items`. Where the disk is full and one of the items is essential, what is kept back is
    /// given up, and it is tried once more.
    fn commit(&mut self, items: &VecDeque<Item>, count: usize) -> Result<(), LedgerError> {
        let mut attempt = || self.database.commit(items.iter().take(count).map(|item| &item.record));
        let result = attempt();
        let Err(error) = &result else {
            self.is_spent = false;
            return result;
        };
        let Some(reserve) = &mut self.reserve else { return result };
        if !self.is_spent && error.is_full() && items.iter().any(|item| item.essential) && reserve.release() {
            tracing::warn!("the disk is full: an override is recorded in the space that was kept back");
            self.giving = true;
            return attempt();
        }
        result
    }

    /// Whether a full disk has space for what is essential. What was given up in vain is taken back first.
    fn is_spare(&mut self, error: &LedgerError) -> bool {
        let Some(reserve) = &mut self.reserve else { return false };
        if std::mem::take(&mut self.giving) {
            self.is_spent = true;
            reserve.fill();
        }
        error.is_full() && reserve.is_held() && !self.is_spent
    }

    /// Takes back what was given up, once nothing essential waits any more.
    fn take_back<'a>(&mut self, mut waiting: impl Iterator<Item = &'a Item>) {
        if let Some(reserve) = &mut self.reserve
            && self.giving
            && !waiting.any(|item| item.essential)
        {
            self.giving = false;
            reserve.fill();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge; exact up to 2^53")]
const fn float(number: usize) -> f64 {
    number as f64
}
