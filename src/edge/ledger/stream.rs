//! Records as lines of JSON for a log pipeline. It must never hold up the ledger: where the reader is too slow, lines are
//! dropped and their number is told; the ledger keeps the records.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use super::store::LedgerError;

/// Lines that may wait for their reader.
const WAITING: usize = 8192;

pub(super) struct Stream {
    lines: SyncSender<String>,
    dropped: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
}

impl Stream {
    pub(super) fn start(sink: Box<dyn Write + Send>) -> Result<Self, LedgerError> {
        let (lines, waiting) = sync_channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        let thread = thread::Builder::new().name("records".to_owned()).spawn(move || write(sink, &waiting, &counted));
        Ok(Self { lines, dropped, thread: thread.map_err(LedgerError::Thread)? })
    }

    pub(super) fn send(&self, line: String) {
        match self.lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits until the last line is written.
    pub(super) fn end(self) {
        let Self { lines, thread, .. } = self;
        drop(lines);
        if thread.join().is_err() {
            tracing::error!("the stream of records did not end in order");
        }
    }
}

fn write(mut sink: Box<dyn Write + Send>, waiting: &Receiver<String>, dropped: &AtomicU64) {
    while let Ok(mut lines) = waiting.recv() {
        lines.push('\n');
        for line in waiting.try_iter().take(255) {
            lines.push_str(&line);
            lines.push('\n');
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            lines = format!("{lines}{{\"recordsNotStreamed\":{lost}}}\n");
            tracing::warn!(lost, "the reader of the records' stream is too slow; the ledger has them");
        }
        if let Err(error) = sink.write_all(lines.as_bytes()).and_then(|()| sink.flush()) {
            tracing::error!(%error, "the stream of records ended; the ledger goes on without it");
            return;
        }
    }
}
