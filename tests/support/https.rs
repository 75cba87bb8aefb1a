//! A caller of the webhook that is not the API server: it keeps connections, never repeats a POST, and shows which
//! certificate it was shown. It must never hide a failure.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const LIMIT: Duration = Duration::from_secs(30);

/// Whom to trust, and whom to call.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    address: SocketAddr,
    /// The name that the server must prove to have.
    name: String,
    config: Arc<ClientConfig>,
}

/// One connection; it is kept between calls.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The server ends the connection after it.
    pub(crate) closes: bool,
    pub(crate) body: String,
}

impl Caller {
    /// Trusts every certificate of a PEM text and nothing else.
    pub(crate) fn new(address: SocketAddr, name: &str, roots: &str) -> Self {
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
            store.add(root.expect("PEM")).expect("a certificate");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(store)
            .with_no_client_auth();
        // Nor does the API server; and a resumed session shows no certificate.
        config.resumption = Resumption::disabled();
        Self { address, name: name.to_owned(), config: Arc::new(config) }
    }

    /// Connects and shakes hands.
    pub(crate) fn connect(&self) -> io::Result<Connection> {
        let tcp = TcpStream::connect_timeout(&self.address, LIMIT)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(LIMIT))?;
        tcp.set_write_timeout(Some(LIMIT))?;
        let name = ServerName::try_from(self.name.clone()).expect("a DNS name");
        let mut tls = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        let mut tcp = tcp;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok(Connection { stream: BufReader::new(StreamOwned::new(tls, tcp)) })
    }
}

impl Connection {
    /// The DER of the certificate that the server showed.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        let chain = self.stream.get_ref().conn.peer_certificates().expect("a server shows its certificate");
        chain.first().expect("a leaf").to_vec()
    }

    /// Sends a body the way the API server does.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> io::Result<Answer> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: provost\r\nUser-Agent: kube-apiserver-admission\r\nContent-Length: {}\r\n\
             Accept: application/json, */*\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n",
            body.len()
        );
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        stream.flush()?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let (mut length, mut closes) = (None, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse::<usize>().ok(),
                Some(("connection", value)) => closes = value == "close",
                Some(_) => {}
                None => break,
            }
        }
        // An answer of ours always says how long it is.
        let mut body = vec![0; length.ok_or(io::ErrorKind::InvalidData)?];
        self.stream.read_exact(&mut body)?;
        Ok(Answer { status, closes, body: String::from_utf8_lossy(&body).into_owned() })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
