//! Space that is kept back for what must be recorded: a file beside the ledger that holds nothing and takes room. It must
//! never be given up for anything but an override.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// How much is written at a time.
const BLOCK: usize = 64 * 1024;
/// From this share of its file system on, somebody should make room.
pub(super) const ALARM: f64 = 0.8;

/// `ledger.db.reserve`.
pub(super) struct Reserve {
    path: PathBuf,
    /// How much is to be kept back, and how much is, in bytes.
    wanted: u64,
    held: u64,
}

impl Reserve {
    /// Keeps back `wanted` bytes, but not more than a quarter of the room that there is; 0 is none.
    pub(super) fn beside(ledger: &Path, wanted: u64) -> Self {
        let mut path = ledger.as_os_str().to_owned();
        path.push(".reserve");
        let held = std::fs::metadata(&path).map_or(0, |found| found.len());
        let free = rustix::fs::statvfs(ledger).map_or(u64::MAX, |found| found.f_bavail.saturating_mul(found.f_frsize));
        let wanted = wanted.min(free.saturating_add(held) / 4);
        let mut reserve = Self { path: PathBuf::from(path), wanted, held: 0 };
        if let Err(error) = reserve.try_fill() {
            let (held, wanted) = (reserve.held, reserve.wanted);
            tracing::warn!(%error, held, wanted, "less space than wanted is kept back for overrides");
        }
        reserve
    }

    /// Whether there is something to give up.
    pub(super) const fn is_held(&self) -> bool {
        self.held > 0
    }

    /// Gives it up; false where there was nothing to give up.
    pub(super) fn release(&mut self) -> bool {
        if self.held == 0 {
            return false;
        }
        let given = File::options().write(true).open(&self.path).and_then(|file| file.set_len(0));
        match given {
            Ok(()) => {
                self.held = 0;
                true
            }
            Err(error) => {
                tracing::error!(%error, "the space kept back for overrides cannot be given up");
                false
            }
        }
    }

    /// Takes back what was given up, as far as there is room.
    pub(super) fn fill(&mut self) {
        if self.held < self.wanted
            && let Err(error) = self.try_fill()
        {
            tracing::debug!(%error, held = self.held, "less space than wanted is kept back for overrides");
        }
    }

    fn try_fill(&mut self) -> io::Result<()> {
        let mut file = File::options().append(true).create(true).mode(0o600).open(&self.path)?;
        self.held = file.metadata()?.len();
        if self.held > self.wanted {
            file.set_len(self.wanted)?;
            self.held = self.wanted;
        }
        // What can be compressed away keeps no room.
        let mut block = vec![0; BLOCK];
        while self.held < self.wanted {
            aws_lc_rs::rand::fill(&mut block).map_err(io::Error::other)?;
            let size = usize::try_from(self.wanted - self.held).unwrap_or(BLOCK).min(BLOCK);
            let written = file.write(&block[..size]);
            self.held = file.metadata()?.len();
            if written? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

/// The share of a file system that is used, 0 to 1; `None` where it is not known.
pub(super) fn share_used(path: &Path) -> Option<f64> {
    let found = rustix::fs::statvfs(path).ok().filter(|found| found.f_blocks > 0)?;
    #[expect(clippy::cast_precision_loss, reason = "a share; exact enough for any file system")]
    let (free, all) = (found.f_bavail as f64, found.f_blocks as f64);
    Some(1.0 - free / all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_held_given_up_and_taken_back() {
        let folder = tempfile::TempDir::new().expect("folder");
        let (ledger, file) = (folder.path().join("ledger.db"), folder.path().join("ledger.db.reserve"));
        let length = || std::fs::metadata(&file).expect("reserve").len();
        std::fs::write(&ledger, "").expect("write");
        let mut reserve = Reserve::beside(&ledger, 100_000);
        assert_eq!((length(), reserve.is_held()), (100_000, true));
        assert!(reserve.release());
        assert_eq!((length(), reserve.is_held()), (0, false));
        assert!(!reserve.release(), "twin: nothing is given up twice");
        reserve.fill();
        assert_eq!((length(), reserve.is_held()), (100_000, true));
        // Another size is taken over; none is none.
        assert!(Reserve::beside(&ledger, 7).is_held());
        assert_eq!(length(), 7);
        assert!(!Reserve::beside(&ledger, 0).is_held());
        let used = share_used(folder.path()).expect("a file system");
        assert!((0.0..=1.0).contains(&used), "{used}");
    }
}
