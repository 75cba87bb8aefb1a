//! Reviews that were turned away, gathered for one record a second. It must never hold more than their names.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::decision::record::{Event, Shed};
use crate::edge::ledger::{Appended, Ledger, Wait};

/// How long reviews are gathered for one record.
const TOGETHER: Duration = Duration::from_secs(1);
/// How long the record may take.
const UNHURRIED: Duration = Duration::from_secs(30);

/// What was turned away and is not recorded yet. Clones share it.
#[derive(Clone)]
pub struct Turned {
    ledger: Ledger,
    pending: Arc<Mutex<Option<Shed>>>,
}

impl Turned {
    /// Nothing yet.
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, pending: Arc::default() }
    }

    /// Adds a review; the first of a second has the record written at its end. Must be called within a Tokio runtime.
    pub fn add(&self, uid: &str) {
        let first = {
            let mut pending = self.lock();
            let first = pending.is_none();
            let shed = pending.get_or_insert_with(|| Shed { count: 0, uids: Vec::new(), rest: None });
            shed.count += 1;
            if shed.uids.len() < Shed::NAMED {
                shed.uids.push(crate::decision::record::shorten(uid, 54).into_owned());
            } else {
                shed.rest = Some(Shed::fold(shed.rest, uid));
            }
            first
        };
        if first {
            let gathered = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(TOGETHER).await;
                gathered.write().await;
            });
        }
    }

    /// Writes what is gathered; for the end of the process, which does not wait for the second's.
    pub async fn write(&self) {
        let Some(shed) = self.lock().take() else { return };
        let count = shed.count;
        match self.ledger.append(Event::Shed(shed), Wait::Queued, Instant::now() + UNHURRIED).await {
            Appended::Saved(_) | Appended::Queued(_) | Appended::Off => {}
            Appended::Pending => tracing::error!(count, "reviews that were turned away are not on disk yet"),
            Appended::Unavailable(why) => tracing::error!(count, why, "reviews turned away could not be recorded"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Shed>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
