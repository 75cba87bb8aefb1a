//! One small file, looked at by its content. It must never hand over a content that did not hold still.

use std::path::{Path, PathBuf};

use super::serving::{LoadError, SETTLING, sha256, small_file};

/// A file with the content that was last seen in it.
#[derive(Debug)]
pub struct Watched {
    file: PathBuf,
    seen: Option<Seen>,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Content([u8; 32]),
    Unreadable(String),
}

impl Watched {
    /// A file that was not looked at yet.
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        Self { file, seen: None }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Its content, at most 1 MiB, or why it cannot be read; `None` where that is as it was at the last look.
    pub async fn changed(&mut self) -> Option<Result<Vec<u8>, LoadError>> {
        let (mut read, mut now) = self.read().await;
        if self.seen.as_ref() == Some(&now) {
            return None;
        }
        for _ in 0..SETTLING {
            let (again, then) = self.read().await;
            let settled = then == now;
            (read, now) = (again, then);
            if settled {
                break;
            }
        }
        self.seen = Some(now);
        Some(read)
    }

    async fn read(&self) -> (Result<Vec<u8>, LoadError>, Seen) {
        let read = small_file(&self.file).await;
        let seen = match &read {
            Ok(content) => Seen::Content(sha256(content)),
            Err(error) => Seen::Unreadable(error.to_string()),
        };
        (read, seen)
    }
}
