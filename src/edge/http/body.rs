//! Reading one request body within bytes and time (C-09). It must never hold more of a body than the limit, and never
//! lose the beginning, where the uid stands.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::time::{Instant, timeout_at};

/// The largest body that is judged.
pub const LIMIT: usize = 8 << 20;
/// How much of a larger body is kept to read the uid from.
pub const HEAD: usize = 64 << 10;
/// How much of a larger body is read and dropped, so that a caller who writes all before it reads gets its reply.
const DRAINED: usize = 64 << 20;

/// What became of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// All of it.
    Whole(Bytes),
    /// More than [`LIMIT`]: its first [`HEAD`] bytes, and whether the rest was read and dropped.
    TooLarge(Bytes, Rest),
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

/// Reads a body until its end, the limit, or `until`.
pub(super) async fn read<B>(body: B, until: Instant) -> Received
where
    B: Body<Data = Bytes>,
{
    let mut body = pin!(body);
    let mut kept = Kept::default();
    // A length that is declared and too large is not collected at all.
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared > LIMIT {
        kept.overflow();
    }
    loop {
        if kept.dropped > DRAINED {
            return Received::TooLarge(kept.head(), Rest::Unread);
        }
        let frame = match timeout_at(until, body.frame()).await {
            Err(_) if kept.too_large => return Received::TooLarge(kept.head(), Rest::Unread),
            Err(_) => return Received::Late(kept.head()),
            Ok(Some(Err(_))) => return Received::Cut(kept.head()),
            Ok(None) if kept.too_large => return Received::TooLarge(kept.head(), Rest::Read),
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
#[derive(Default)]
struct Kept {
    first: Option<Bytes>,
    joined: BytesMut,
    too_large: bool,
    dropped: usize,
}

impl Kept {
    fn add(&mut self, data: Bytes) {
        if self.too_large {
            self.add_to_head(&data);
            return;
        }
        if self.len() + data.len() > LIMIT {
            self.overflow();
            self.add_to_head(&data);
        } else if self.first.is_none() && self.joined.is_empty() {
            self.first = Some(data);
        } else {
            self.join();
            self.joined.extend_from_slice(&data);
        }
    }

    fn add_to_head(&mut self, data: &[u8]) {
        let room = HEAD.saturating_sub(self.joined.len()).min(data.len());
        self.joined.extend_from_slice(data.get(..room).unwrap_or_default());
        self.dropped += data.len() - room;
    }

    /// From here on only the head is kept, in memory of its own, so that what was read is given back.
    fn overflow(&mut self) {
        self.too_large = true;
        self.join();
        let head = BytesMut::from(self.joined.get(..HEAD).unwrap_or(&self.joined));
        self.joined = head;
    }

    fn join(&mut self) {
        if let Some(first) = self.first.take() {
            self.joined.extend_from_slice(&first);
        }
    }

    fn len(&self) -> usize {
        self.first.as_ref().map_or(0, Bytes::len) + self.joined.len()
    }

    fn all(mut self) -> Bytes {
        self.first.take().unwrap_or_else(|| self.joined.freeze())
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
        assert_eq!(read(Full::from(whole.clone()), soon()).await, Received::Whole(Bytes::from(whole.clone())));
        let mut more = whole;
        more.push(b'x');
        let head = Bytes::from(vec![b'x'; HEAD]);
        assert_eq!(read(Full::from(more), soon()).await, Received::TooLarge(head, Rest::Read));
    }

    #[tokio::test]
    async fn c_09_frames_are_joined_in_order_and_the_head_of_a_large_body_is_kept() {
        assert_eq!(
            read(in_frames(vec![b"ab".to_vec(), vec![], b"c".to_vec()]), soon()).await,
            Received::Whole("abc".into())
        );
        assert_eq!(read(in_frames(vec![]), soon()).await, Received::Whole(Bytes::new()));
        let mut frames = vec![b"uid".to_vec()];
        frames.extend((0..9).map(|_| vec![b'x'; 1 << 20]));
        match read(in_frames(frames), soon()).await {
            Received::TooLarge(head, Rest::Read) => {
                assert_eq!(head.len(), HEAD);
                assert!(head.starts_with(b"uidxxx"));
            }
            other @ (Received::Whole(_) | Received::TooLarge(..) | Received::Late(_) | Received::Cut(_)) => {
                panic!("{other:?}")
            }
        }
    }

    #[tokio::test]
    async fn c_09_what_is_read_and_dropped_has_a_limit_too() {
        let frames = (0..80).map(|_| vec![b'x'; 1 << 20]).collect();
        match read(in_frames(frames), soon()).await {
            Received::TooLarge(head, Rest::Unread) => assert_eq!(head.len(), HEAD),
            other @ (Received::Whole(_) | Received::TooLarge(..) | Received::Late(_) | Received::Cut(_)) => {
                panic!("{other:?}")
            }
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_in_time_keeps_its_beginning() {
        let begun = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"begun")))]);
        let body = StreamBody::new(futures::StreamExt::chain(begun, stream::pending()));
        assert_eq!(read(body, Instant::now() + Duration::from_millis(30)).await, Received::Late("begun".into()));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_whole() {
        let frames = [Ok(Frame::data(Bytes::from_static(b"begun"))), Err(std::io::Error::other("reset"))];
        assert_eq!(read(StreamBody::new(stream::iter(frames)), soon()).await, Received::Cut("begun".into()));
    }
}
