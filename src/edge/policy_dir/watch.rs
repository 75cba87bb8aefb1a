//! The folder over time: what serves now, and a look every two seconds whether something else is written. It must never
//! leave a reader between two sets.
//!
//! The contents are compared, not times or notices of the kernel: a kubelet swaps the link `..data` under the files, on
//! which neither can be relied.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::decision::policy::PolicySet;
use crate::decision::reference::Digest;

use super::fault::sort;
use super::folder::Snapshot;
use super::load::{Known, Loaded, merge};
use super::remember;

/// How often the folder is looked at.
pub const POLL: Duration = Duration::from_secs(2);
/// How long a changed folder must stay the same before it is read: an editor writes in steps.
const SETTLE: Duration = Duration::from_millis(200);
/// How often that is waited for, at most.
const SETTLE_ROUNDS: usize = 10;

/// A folder of policies and the set that serves.
#[derive(Debug)]
pub struct PolicyDir {
    folder: PathBuf,
    /// Where the last good set is kept.
    last_good: Option<PathBuf>,
    current: ArcSwap<PolicySet>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: Known,
    /// Of all that was read last.
    fingerprint: Option<Digest>,
    /// The key files that were read last.
    keys: Vec<PathBuf>,
    /// The set that is kept on disk, as far as is known.
    kept: Option<Arc<PolicySet>>,
}

impl PolicyDir {
    /// Reads the folder for the first time, after the last good set that `last_good` names. It blocks on the disk and
    /// always ends in a set that may serve: faults are in [`Loaded::problems`].
    #[must_use]
    pub fn open(folder: &Path, last_good: Option<&Path>) -> (Self, Loaded) {
        let (recalled, problem) = match last_good.map(remember::recall) {
            None | Some(Ok(None)) => (None, None),
            Some(Ok(Some(set))) => (Some(set), None),
            Some(Err(problem)) => (None, Some(problem)),
        };
        let known = recalled.map(Known::from_good).unwrap_or_default();
        let state = State { kept: known.good().cloned(), known, ..State::default() };
        let this = Self {
            folder: folder.to_owned(),
            last_good: last_good.map(Path::to_owned),
            current: ArcSwap::default(),
            state: Mutex::new(state),
        };
        let mut loaded = this.reload_now();
        loaded.problems.extend(problem);
        sort(&mut loaded.problems);
        (this, loaded)
    }

    /// The set that serves.
    #[must_use]
    pub fn current(&self) -> Arc<PolicySet> {
        self.current.load_full()
    }

    /// Reads the folder, whether or not it changed. It blocks on the disk.
    pub fn reload_now(&self) -> Loaded {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = Snapshot::of_folder(&self.folder);
        self.take_over(&mut state, &snapshot)
    }

    /// Reads the folder where it, or a key file that a policy names, changed. It blocks on the disk.
    pub fn reload_if_changed(&self) -> Option<Loaded> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = Snapshot::of_folder(&self.folder);
        let fingerprint = snapshot.fingerprint(snapshot.keys_again(state.keys.iter()));
        if state.fingerprint == Some(fingerprint) {
            // What could not be kept is tried again; that it failed was said when it failed first.
            let _ = self.keep(&mut state);
            return None;
        }
        Some(self.take_over(&mut state, &snapshot))
    }

    /// Looks at the folder every [`POLL`] for ever, and tells of each reload.
    pub async fn watch(self: Arc<Self>, on_change: impl Fn(&Loaded)) {
        self.watch_every(POLL, SETTLE, on_change).await;
    }

    pub(super) async fn watch_every(self: Arc<Self>, poll: Duration, settle: Duration, on_change: impl Fn(&Loaded)) {
        let mut ticks = tokio::time::interval(poll);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !Arc::clone(&self).settled(settle).await {
                continue;
            }
            let this = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || this.reload_if_changed()).await {
                Ok(Some(loaded)) => on_change(&loaded),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "the policy folder could not be read: what serves goes on"),
            }
        }
    }

    /// Waits, where the folder changed, until it is the same twice. False where there is nothing to read.
    async fn settled(self: Arc<Self>, settle: Duration) -> bool {
        let mut before = None;
        for _ in 0..SETTLE_ROUNDS {
            let this = Arc::clone(&self);
            let Ok((changed, fingerprint)) = tokio::task::spawn_blocking(move || this.look()).await else {
                return false;
            };
            if !changed || before == Some(fingerprint) {
                // Unchanged too, since a set that could not be kept is tried again there.
                return true;
            }
            before = Some(fingerprint);
            tokio::time::sleep(settle).await;
        }
        true
    }

    fn look(&self) -> (bool, Digest) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = Snapshot::of_folder(&self.folder);
        let fingerprint = snapshot.fingerprint(snapshot.keys_again(state.keys.iter()));
        (state.fingerprint != Some(fingerprint), fingerprint)
    }

    fn take_over(&self, state: &mut State, snapshot: &Snapshot) -> Loaded {
        let contents = snapshot.contents();
        state.keys = contents.keys.keys().cloned().collect();
        state.fingerprint = Some(snapshot.fingerprint(contents.keys.clone().into_iter()));
        let mut loaded = merge(contents, &state.known);
        state.known = loaded.known.clone();
        self.current.store(Arc::clone(&loaded.set));
        if let Err(problem) = self.keep(state) {
            loaded.problems.push(problem);
            sort(&mut loaded.problems);
        }
        loaded
    }

    /// Keeps the last good set where it is not what is kept already.
    fn keep(&self, state: &mut State) -> Result<(), super::PolicyError> {
        let (Some(path), Some(good)) = (&self.last_good, state.known.good()) else { return Ok(()) };
        if state.kept.as_ref().is_some_and(|kept| kept.policies == good.policies && kept.deny_lists == good.deny_lists)
        {
            return Ok(());
        }
        remember::keep(path, good)?;
        state.kept = Some(Arc::clone(good));
        Ok(())
    }
}
