//! Loopback addresses and plain HTTP, as much as a test needs to ask whether a server is there.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Ports that no outgoing connection is given by the kernel, so that nothing takes one between its choice and its use.
const FIRST_PORT: u16 = 12_000;
const PORTS: u16 = 18_000;

/// A port of 127.0.0.1 that is free, and that is given only once.
pub(crate) fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Runs side by side begin at different places.
    let start = u16::try_from(process::id().wrapping_mul(97) % u32::from(PORTS)).expect("below PORTS");
    for _ in 0..PORTS {
        let offset = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST_PORT + (start % PORTS).wrapping_add(offset % PORTS) % PORTS;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port of 127.0.0.1 is free");
}

/// An address in the range of the cluster's services on which port 443 can be listened to, given only once.
pub(crate) fn service_address() -> Ipv4Addr {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(process::id() % 0xf000).expect("below 0xf000");
    for _ in 0..1000 {
        // The first 256 addresses are where the API server takes those that nobody asks for.
        let [high, low] = (0x0100 + start.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % 0xf000).to_be_bytes();
        let address = Ipv4Addr::new(127, 96, high, low);
        if low != 0 && low != 255 && TcpListener::bind((address, 443)).is_ok() {
            return address;
        }
    }
    panic!("port 443 of 127.96.0.0/16 cannot be listened to: run the tests as root, as a container does");
}

/// Status and body of `GET path`; `None` where there is no answer.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let limit = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    let accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
