//! Who calls (C-08): by the certificate of the connection, or by the token at the end of the path. It must never show a
//! token, and never refuse a caller that has none.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::{constant_time, digest, rand};

use super::connection::Phase;
use super::room::Place;
use crate::decision::reference::Digest;
use crate::decision::review::Caller;
use crate::edge::tls::{LoadError, POLL, Watched};

/// Most tokens at a time: two while one replaces the other, and a few for those who rotate slowly.
const MOST: usize = 16;
/// The shortest token that is taken.
pub(super) const SHORTEST: usize = 16;
/// The longest: a path segment of a webhook's Service is a DNS label (C-11).
const LONGEST: usize = 63;

/// What a request's connection is.
#[derive(Clone)]
pub(super) struct Visitor {
    pub(super) phase: Phase,
    pub(super) place: Arc<Place>,
    /// The subject of the client certificate that was checked in the handshake.
    pub(super) certificate: Option<Arc<str>>,
}

/// The tokens that callers may show. Only their hashes are kept.
#[derive(Default)]
pub struct Callers {
    tokens: ArcSwap<Vec<[u8; 32]>>,
}

impl std::fmt::Debug for Callers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callers").field("tokens", &self.tokens.load().len()).finish()
    }
}

impl Callers {
    /// Takes the tokens of a file over, one on each line, or keeps those that it has and says why. Empty lines and those
    /// that begin with `#` are left out. Gives how many there are.
    pub fn offer(&self, file: &Path, content: &[u8]) -> Result<usize, LoadError> {
        let bad = |detail: String| LoadError::Malformed { file: file.to_owned(), detail };
        let text = std::str::from_utf8(content).map_err(|_| bad("is not text".to_owned()))?;
        let mut tokens = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if !is_token(line) {
                let detail = format!(
                    "line {}: a token is {SHORTEST} to {LONGEST} of a-z 0-9 -, and begins and ends with none of -",
                    number + 1
                );
                return Err(bad(detail));
            }
            tokens.push(hash(line));
        }
        if tokens.is_empty() || tokens.len() > MOST {
            return Err(bad(format!("holds {} tokens, and must hold 1 to {MOST}", tokens.len())));
        }
        let count = tokens.len();
        self.tokens.store(Arc::new(tokens));
        Ok(count)
    }

    /// Looks at the file every 2 s, for ever, and takes over what changed and can be used.
    pub async fn follow(&self, watched: Watched) {
        self.follow_every(watched, POLL).await;
    }

    /// [`Callers::follow`] with a period of its own, for tests.
    pub async fn follow_every(&self, mut watched: Watched, period: Duration) {
        loop {
            tokio::time::sleep(period).await;
            let Some(read) = watched.changed().await else { continue };
            match read.and_then(|content| self.offer(watched.file(), &content)) {
                Ok(count) => tracing::info!(file = %watched.file().display(), count, "caller tokens loaded"),
                Err(error) => tracing::warn!(%error, "caller tokens not taken over; the old ones stay"),
            }
        }
    }

    /// Who calls, by the subject of a checked certificate and the path of the request.
    pub(super) fn of(&self, certificate: Option<&str>, path: &str) -> Caller {
        if let Some(subject) = certificate {
            return Caller::Certificate(subject.to_owned());
        }
        match path.strip_prefix("/validate/") {
            Some(shown) if self.holds(shown) => Caller::Token,
            Some(_) | None => Caller::Unknown,
        }
    }

    /// Compares hashes, every one of them, in the same time whatever is shown.
    fn holds(&self, shown: &str) -> bool {
        let shown = hash(shown);
        let mut found = false;
        for token in self.tokens.load().iter() {
            found |= constant_time::verify_slices_are_equal(token, &shown).is_ok();
        }
        found
    }
}

/// Writes a new token to a file that is not there yet, for its owner alone (mode 0600).
pub fn make_token(file: &Path) -> io::Result<()> {
    let mut random = [0; 32];
    rand::fill(&mut random).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    let mut token = Digest::from_bytes(random).hex();
    // 160 bits: a DNS label has no room for all of them.
    token.truncate(40);
    token.push('\n');
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(token.as_bytes())?;
    file.sync_all()
}

fn is_token(text: &str) -> bool {
    (SHORTEST..=LONGEST).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn hash(text: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const OLD: &str = "0123456789abcdef-old";
    const NEW: &str = "0123456789abcdef-new";

    fn with(content: &str) -> Callers {
        let callers = Callers::default();
        callers.offer(Path::new("caller-token"), content.as_bytes()).expect("tokens");
        callers
    }

    #[test]
    fn c_08_a_caller_is_known_by_certificate_or_token_and_else_unknown() {
        let callers = with(&format!("# rotated every month\n{OLD}\n\n  {NEW}  \n"));
        let table = [
            (None, format!("/validate/{OLD}"), Caller::Token),
            (None, format!("/validate/{NEW}"), Caller::Token),
            (None, "/validate".to_owned(), Caller::Unknown),
            (None, "/validate/".to_owned(), Caller::Unknown),
            (None, format!("/validate/{}", &OLD[..19]), Caller::Unknown),
            (None, format!("/validate/{OLD}x"), Caller::Unknown),
            (None, format!("/validate/{}", OLD.to_uppercase()), Caller::Unknown),
            (None, format!("/validate/%30{}", &OLD[1..]), Caller::Unknown),
            (None, format!("/{OLD}"), Caller::Unknown),
            (Some("kube-apiserver"), "/validate".to_owned(), Caller::Certificate("kube-apiserver".to_owned())),
            (Some("a"), format!("/validate/{OLD}"), Caller::Certificate("a".to_owned())),
        ];
        for (certificate, path, want) in table {
            assert_eq!(callers.of(certificate, &path), want, "{path}");
        }
        assert_eq!(Callers::default().of(None, "/validate/"), Caller::Unknown, "no token is no token");
        assert!(!format!("{callers:?}").contains("0123"));
    }

    #[test]
    fn what_is_no_token_is_named_by_its_line_and_the_old_ones_stay() {
        let callers = with(OLD);
        for (content, names) in [
            ("", "holds 0 tokens"),
            ("# only words\n", "holds 0 tokens"),
            ("0123456789abcde", "line 1"),
            ("0123456789abcdef\n0123456789ABCDEF", "line 2"),
            ("0123456789abcdef/0", "line 1"),
            ("-0123456789abcdef", "line 1"),
            (&"a".repeat(64), "line 1"),
            (&format!("{OLD}\n").repeat(17), "holds 17 tokens"),
        ] {
            let error = callers.offer(Path::new("t"), content.as_bytes()).expect_err(content).to_string();
            assert!(error.starts_with("t: ") && error.contains(names) && !error.contains("0123"), "{error}");
            assert_eq!(callers.of(None, &format!("/validate/{OLD}")), Caller::Token);
        }
        assert!(callers.offer(Path::new("t"), b"\xff").is_err());
        for good in ["0123456789abcdef", &"a".repeat(63)] {
            assert_eq!(with(good).of(None, &format!("/validate/{good}")), Caller::Token);
        }
    }

    #[test]
    fn a_token_that_is_made_is_private_can_be_used_and_is_made_once() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("caller-token");
        make_token(&file).expect("made");
        let content = std::fs::read_to_string(&file).expect("written");
        assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(with(&content).of(None, &format!("/validate/{}", content.trim())), Caller::Token);
        assert_eq!(make_token(&file).expect_err("it is there").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&file).expect("written"), content);
    }

    #[tokio::test]
    async fn c_08_tokens_are_rotated_with_overlap_while_serving() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("caller-token");
        std::fs::write(&file, OLD).expect("written");
        let callers = Arc::new(with(OLD));
        let follow = tokio::spawn({
            let (callers, watched) = (Arc::clone(&callers), Watched::new(file.clone()));
            async move { callers.follow_every(watched, Duration::from_millis(2)).await }
        });
        let known = |token: &str| callers.of(None, &format!("/validate/{token}")).is_known();
        for (content, old, new) in [
            (format!("{OLD}\n{NEW}\n"), true, true),
            (NEW.to_owned(), false, true),
            ("broken".to_owned(), false, true),
            (OLD.to_owned(), true, false),
        ] {
            std::fs::write(dir.path().join("next"), &content).expect("written");
            std::fs::rename(dir.path().join("next"), &file).expect("swapped");
            let there = tokio::time::timeout(Duration::from_secs(10), async {
                while (known(OLD), known(NEW)) != (old, new) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            there.await.expect("taken over in time");
        }
        follow.abort();
    }
}
