//! Reading one request body within bytes and time (C-09). It must never hold more of a body than the limit, and never
//! lose the beginning, where the uid stands.

use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// The largest body that is judged.
pub const LIMIT: usize = 8 << 20;
/// How much of a larger body is kept to read the uid from.
pub const HEAD: usize = 64 << 10;
/// How much of a larger body is read and dropped, so that a caller who writes all before it reads gets its reply.
const DRAINED: usize = 64 << 20;

/// How much of a body is kept where there is no room for more; the uid stands in the first few hundred bytes.
const SMALL_HEAD: usize = 4 << 10;
/// What all bodies of one kind of caller may take together.
const ALL_BODIES: usize = 32 << 20;
/// What is counted: memory is taken in pieces of this size.
const PIECE: usize = 1 << 10;

/// What bodies may take together. A body counts from its first byte until it is dropped.
#[derive(Debug, Clone)]
pub(super) struct Memory(Arc<Semaphore>);

impl Default for Memory {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ALL_BODIES / PIECE)))
    }
}

/// A body with what it takes.
struct Counted {
    bytes: Bytes,
    _taken: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What became of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// All of it.
    Whole(Bytes),
    /// More than [`LIMIT`]: its first [`HEAD`] bytes, and whether the rest was read and dropped.
    TooLarge(Bytes, Rest),
    /// No memory for it beside all others: a few KiB of its beginning, and whether the rest was read and dropped.
    NoRoom(Bytes, Rest),
    /// Not finished in time: its first [`HEAD`] bytes, or fewer.
    Late(Bytes),
    /// The connection broke, or the framing is wrong: its first [`HEAD`] bytes, or fewer.
    Cut(Bytes),
}

/// Whether the connection stands at the end of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Read,
    Unread,
}

/// Reads a body until its end, the limit, `until`, or the end of what all may take.
pub(super) async fn read<B>(body: B, until: Instant, memory: &Memory) -> Received
where
    B: Body<Data = Bytes>,
{
    let mut body = pin!(body);
    let mut kept = Kept::new(memory);
    // A length that is declared and too large is not collected at all.
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared > LIMIT {
        kept.overflow(Over::Limit);
    } else {
        kept.declared = declared;
    }
    loop {
        if kept.dropped > DRAINED {
            return kept.over(Rest::Unread);
        }
        let frame = match timeout_at(until, body.frame()).await {
            Err(_) if kept.over.is_some() => return kept.over(Rest::Unread),
            Err(_) => return Received::Late(kept.head()),
            Ok(Some(Err(_))) => return Received::Cut(kept.head()),
            Ok(None) if kept.over.is_some() => return kept.over(Rest::Read),
            Ok(None) => return Received::Whole(kept.all()),
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers hold nothing that we read.
        if let Ok(data) = frame.into_data() {
            kept.add(data);
        }
    }
}

/// The bytes so far. A body of one frame is passed on without a copy.
struct Kept<'a> {
    memory: &'a Memory,
    taken: Option<OwnedSemaphorePermit>,
    first: Option<Bytes>,
    joined: BytesMut,
    /// The length that the header says, where it is one that is read.
    declared: usize,
    over: Option<Over>,
    dropped: usize,
}

/// Why no more than the beginning is kept.
#[derive(Debug, Clone, Copy)]
enum Over {
    Limit,
    Memory,
}

impl Over {
    const fn head(self) -> usize {
        match self {
            Self::Limit => HEAD,
            Self::Memory => SMALL_HEAD,
        }
    }
}

impl<'a> Kept<'a> {
    fn new(memory: &'a Memory) -> Self {
        Self { memory, taken: None, first: None, joined: BytesMut::new(), declared: 0, over: None, dropped: 0 }
    }

    fn add(&mut self, data: Bytes) {
        if let Some(over) = self.over {
            self.add_to_head(over, &data);
        } else if self.len() + data.len() > LIMIT {
            self.overflow(Over::Limit);
            self.add_to_head(Over::Limit, &data);
        } else if !self.take(self.len() + data.len()) {
            self.overflow(Over::Memory);
            self.add_to_head(Over::Memory, &data);
        } else if self.first.is_none() && self.joined.is_empty() {
            self.first = Some(data);
        } else {
            self.join();
            self.joined.extend_from_slice(&data);
        }
    }

    /// Counts a body of this length; false where that is more than there is. One whose length was not declared grows by
    /// doubling, and counts for twice its length.
    fn take(&mut self, length: usize) -> bool {
        let pieces = |bytes: usize| bytes.div_ceil(PIECE);
        let wanted = if self.declared >= length { pieces(length) } else { pieces(length) * 2 };
        let more = wanted.saturating_sub(self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        let Ok(more) = u32::try_from(more) else { return false };
        if more == 0 {
            return true;
        }
        let Ok(permit) = Arc::clone(&self.memory.0).try_acquire_many_owned(more) else { return false };
        match &mut self.taken {
            Some(taken) => taken.merge(permit),
            None => self.taken = Some(permit),
        }
        true
    }

    fn add_to_head(&mut self, over: Over, data: &[u8]) {
        let mut room = over.head().saturating_sub(self.joined.len()).min(data.len());
        if matches!(over, Over::Limit) && room > 0 && !self.take(self.joined.len() + room) {
            room = SMALL_HEAD.saturating_sub(self.joined.len()).min(room);
        }
        self.joined.extend_from_slice(data.get(..room).unwrap_or_default());
        self.dropped += data.len() - room;
    }

    /// From here on only the head is kept, in memory of its own, so that what was read is given back.
    fn overflow(&mut self, over: Over) {
        self.over = Some(over);
        self.join();
        let head = BytesMut::from(self.joined.get(..over.head()).unwrap_or(&self.joined));
        self.joined = head;
        let kept = self.joined.len().div_ceil(PIECE);
        if let Some(taken) = &mut self.taken {
            drop(taken.num_permits().checked_sub(kept).and_then(|surplus| taken.split(surplus)));
        }
    }

    fn join(&mut self) {
        if let Some(first) = self.first.take() {
            self.joined.reserve(self.declared.max(first.len()));
            self.joined.extend_from_slice(&first);
        }
    }

    fn len(&self) -> usize {
        self.first.as_ref().map_or(0, Bytes::len) + self.joined.len()
    }

    fn over(self, rest: Rest) -> Received {
        match self.over {
            Some(Over::Memory) => Received::NoRoom(self.head(), rest),
            Some(Over::Limit) | None => Received::TooLarge(self.head(), rest),
        }
    }

    fn all(mut self) -> Bytes {
        let bytes = self.first.take().unwrap_or_else(|| self.joined.freeze());
        if bytes.is_empty() { bytes } else { Bytes::from_owner(Counted { bytes, _taken: self.taken }) }
    }

    fn head(self) -> Bytes {
        let all = self.all();
        if all.len() > HEAD { all.slice(..HEAD) } else { all }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures::stream;
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn in_frames(frames: Vec<Vec<u8>>) -> impl Body<Data = Bytes, Error = Infallible> {
        StreamBody::new(stream::iter(frames.into_iter().map(|frame| Ok(Frame::data(Bytes::from(frame))))))
    }

    #[tokio::test]
    async fn c_09_the_limit_is_the_last_byte_that_is_judged() {
        let whole = vec![b'x'; LIMIT];
        assert_eq!(
            read(Full::from(whole.clone()), soon(), &Memory::default()).await,
            Received::Whole(Bytes::from(whole.clone()))
        );
        let mut more = whole;
        more.push(b'x');
        let head = Bytes::from(vec![b'x'; HEAD]);
        assert_eq!(read(Full::from(more), soon(), &Memory::default()).await, Received::TooLarge(head, Rest::Read));
    }

    #[tokio::test]
    async fn c_09_frames_are_joined_in_order_and_the_head_of_a_large_body_is_kept() {
        assert_eq!(
            read(in_frames(vec![b"ab".to_vec(), vec![], b"c".to_vec()]), soon(), &Memory::default()).await,
            Received::Whole("abc".into())
        );
        assert_eq!(read(in_frames(vec![]), soon(), &Memory::default()).await, Received::Whole(Bytes::new()));
        let mut frames = vec![b"uid".to_vec()];
        frames.extend((0..9).map(|_| vec![b'x'; 1 << 20]));
        match read(in_frames(frames), soon(), &Memory::default()).await {
            Received::TooLarge(head, Rest::Read) => {
                assert_eq!(head.len(), HEAD);
                assert!(head.starts_with(b"uidxxx"));
            }
            other @ (Received::Whole(_)
            | Received::TooLarge(..)
            | Received::NoRoom(..)
            | Received::Late(_)
            | Received::Cut(_)) => {
                panic!("{other:?}")
            }
        }
    }

    #[tokio::test]
    async fn c_09_what_is_read_and_dropped_has_a_limit_too() {
        let frames = (0..80).map(|_| vec![b'x'; 1 << 20]).collect();
        match read(in_frames(frames), soon(), &Memory::default()).await {
            Received::TooLarge(head, Rest::Unread) => assert_eq!(head.len(), HEAD),
            other @ (Received::Whole(_)
            | Received::TooLarge(..)
            | Received::NoRoom(..)
            | Received::Late(_)
            | Received::Cut(_)) => {
                panic!("{other:?}")
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_in_time_keeps_its_beginning() {
        let begun = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"begun")))]);
        let body = StreamBody::new(futures::StreamExt::chain(begun, stream::pending()));
        assert_eq!(
            read(body, Instant::now() + Duration::from_millis(30), &Memory::default()).await,
            Received::Late("begun".into())
        );
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_whole() {
        let frames = [Ok(Frame::data(Bytes::from_static(b"begun"))), Err(std::io::Error::other("reset"))];
        assert_eq!(
            read(StreamBody::new(stream::iter(frames)), soon(), &Memory::default()).await,
            Received::Cut("begun".into())
        );
    }

    #[tokio::test]
    async fn x_094_bodies_take_no_more_together_than_there_is_and_give_it_back() {
        let memory = Memory::default();
        let all = memory.0.available_permits();
        let whole = async || read(Full::from(vec![b'x'; LIMIT]), soon(), &memory).await;
        let mut held = Vec::new();
        for _ in 0..ALL_BODIES / LIMIT {
            held.push(whole().await);
        }
        assert!(held.iter().all(|received| matches!(received, Received::Whole(body) if body.len() == LIMIT)));
        assert_eq!(memory.0.available_permits(), 0);
        // A small one now finds no room; its beginning is kept to answer it by its uid.
        let small = || Full::from(vec![b'u'; 6 << 10]);
        let beginning = Bytes::from(vec![b'u'; SMALL_HEAD]);
        assert_eq!(read(small(), soon(), &memory).await, Received::NoRoom(beginning, Rest::Read));
        // Its twin comes when one of the others is gone, though a slice of that one was handed on.
        drop(held.pop());
        assert_eq!(read(small(), soon(), &memory).await, Received::Whole(vec![b'u'; 6 << 10].into()));
        drop(held);
        assert_eq!(memory.0.available_permits(), all);
    }

    #[tokio::test]
    async fn x_094_a_body_of_unknown_length_counts_twice_and_one_that_overflows_for_its_head() {
        let memory = Memory::default();
        let all = memory.0.available_permits();
        let frames = |count: usize| in_frames(vec![vec![b'x'; 1 << 20]; count]);
        let kept = read(frames(4), soon(), &memory).await;
        assert!(matches!(kept, Received::Whole(_)));
        assert_eq!(all - memory.0.available_permits(), (8 << 20) / PIECE);
        drop(kept);
        let head = read(frames(9), soon(), &memory).await;
        assert!(matches!(head, Received::TooLarge(_, Rest::Read)));
        assert!(all - memory.0.available_permits() <= 2 * HEAD / PIECE);
        drop(head);
        assert_eq!(memory.0.available_permits(), all);
    }
}
