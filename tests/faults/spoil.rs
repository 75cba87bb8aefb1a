//! Ways to spoil an honest answer.

use crate::wire::{Act, Answer, Reply};

/// Half of the body, and then something else.
pub(crate) fn half(reply: &Reply, then: Act) -> Answer {
    let length = reply.body.len();
    let head = format!("{}Content-Length: {length}\r\n\r\n", reply.head());
    vec![Act::Send(head.into()), Act::Send(reply.body.slice(..length / 2)), then]
}

/// A byte at a time.
pub(crate) fn drip(reply: &Reply) -> Answer {
    let head = format!("{}Content-Length: {}\r\n\r\n", reply.head(), reply.body.len());
    vec![Act::Send(head.into()), Act::Drip(reply.body.clone())]
}

/// Chunks of 64 KiB, for as long as anybody takes them.
pub(crate) fn endless(reply: &Reply) -> Answer {
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    vec![Act::Send(format!("{}Transfer-Encoding: chunked\r\n\r\n", reply.head()).into()), Act::Endless(chunk.into())]
}

/// The first half of the body as if it were all.
pub(crate) fn cut_json(reply: Reply) -> Answer {
    Reply { body: reply.body.slice(..reply.body.len() / 2), ..reply }.whole()
}

/// With its last bit changed.
pub(crate) fn flipped(reply: Reply) -> Reply {
    let mut body = reply.body.to_vec();
    if let Some(last) = body.last_mut() {
        *last ^= 1;
    }
    Reply { body: body.into(), ..reply }
}

/// Go there.
pub(crate) fn redirect(to: &str) -> Answer {
    Reply::new(307, "").with("Location", to).whole()
}

/// The same, truly in gzip: whoever decodes it reads what is right.
pub(crate) fn gzipped(reply: Reply) -> Answer {
    let mut body = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut rest = &reply.body[..];
    loop {
        let (block, after) = rest.split_at(rest.len().min(0xffff));
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        body.push(u8::from(after.is_empty()));
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(&(!length).to_le_bytes());
        body.extend_from_slice(block);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    body.extend_from_slice(&crc32(&reply.body).to_le_bytes());
    body.extend_from_slice(&u32::try_from(reply.body.len()).unwrap_or(u32::MAX).to_le_bytes());
    Reply { body: body.into(), ..reply }.with("Content-Encoding", "gzip").whole()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 })
    })
}
