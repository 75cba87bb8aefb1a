//! Certificates that are swapped under a server.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};

use super::*;
use crate::edge::clock;

const LONGEST: Duration = Duration::from_secs(20);
const NAME: &str = "provost.provost.svc";

fn made() -> ca::Made {
    ca::make(&[NAME.to_owned()], 30).expect("a certificate")
}

fn files(dir: &Path) -> CertFiles {
    CertFiles { cert: dir.join("tls.crt"), key: dir.join("tls.key") }
}

fn leaf(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM")
}

/// A folder as a kubelet mounts a Secret: files are links into `..data`, which is a link that is swapped by a rename.
struct Mounted {
    dir: tempfile::TempDir,
    generation: u32,
}

impl Mounted {
    fn new(cert: &str, key: &str) -> Self {
        let mut mounted = Self { dir: tempfile::tempdir().expect("a temporary folder"), generation: 0 };
        mounted.swap(cert, key);
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), mounted.dir.path().join(name)).expect("a link");
        }
        mounted
    }

    fn swap(&mut self, cert: &str, key: &str) {
        let root = self.dir.path();
        let (old, new) = (format!("..gen{}", self.generation), format!("..gen{}", self.generation + 1));
        fs::create_dir(root.join(&new)).expect("a folder");
        fs::write(root.join(&new).join("tls.crt"), cert).expect("written");
        fs::write(root.join(&new).join("tls.key"), key).expect("written");
        symlink(&new, root.join("..data_tmp")).expect("a link");
        fs::rename(root.join("..data_tmp"), root.join("..data")).expect("swapped");
        if self.generation > 0 {
            fs::remove_dir_all(root.join(old)).expect("removed");
        }
        self.generation += 1;
    }
}

/// One handshake; the certificate that was shown. Every CA is trusted.
async fn shown(address: std::net::SocketAddr, cas: &[ca::Made]) -> std::io::Result<CertificateDer<'static>> {
    let mut roots = rustls::RootCertStore::empty();
    for made in cas {
        roots.add(leaf(&made.ca_pem)).expect("a CA");
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the defaults are right")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from(NAME).expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    let chain = stream.get_ref().1.peer_certificates().expect("a certificate was shown");
    Ok(chain[0].clone().into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn c_42_twenty_swaps_in_a_row_and_then_what_does_not_fit() {
    let cas: Vec<ca::Made> = (0..21).map(|_| made()).collect();
    let mut mounted = Mounted::new(&cas[0].cert_pem, &cas[0].key_pem);
    let files = files(mounted.dir.path());
    let cert = Arc::new(ServingCert::new());
    let seen = cert.look(&files, None).await;
    assert!(cert.not_after().is_some());
    let follow = tokio::spawn({
        let cert = Arc::clone(&cert);
        async move { cert.follow_every(&files, seen, Duration::from_millis(5), || {}).await }
    });
    let acceptor = TlsAcceptor::from(server_config(Arc::clone(&cert)).expect("the settings are right"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move { acceptor.accept(tcp).await.map(drop) });
        }
    });

    for next in &cas[1..] {
        mounted.swap(&next.cert_pem, &next.key_pem);
        let (wanted, began) = (leaf(&next.cert_pem), Instant::now());
        while shown(address, &cas).await.expect("no handshake fails") != wanted {
            assert!(began.elapsed() < Duration::from_secs(5), "the new pair is served within 5 s");
        }
    }
    let last = leaf(&cas[20].cert_pem);
    for (what, cert_pem, key_pem) in unfit(&cas) {
        mounted.swap(&cert_pem, &key_pem);
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(60) {
            assert_eq!(shown(address, &cas).await.expect("no handshake fails"), last, "{what}: the old pair is kept");
        }
    }
    // And a good one is taken over after all that.
    mounted.swap(&cas[3].cert_pem, &cas[3].key_pem);
    let good = timeout(LONGEST, async {
        while shown(address, &cas).await.expect("no handshake fails") != leaf(&cas[3].cert_pem) {}
    });
    good.await.expect("served within the time");
    follow.abort();
}

/// Pairs that cannot be served; the last of `cas` is the one that is.
fn unfit(cas: &[ca::Made]) -> [(&'static str, String, String); 5] {
    let (one, two) = (&cas[1], &cas[2]);
    [
        ("no PEM", "tls.crt".to_owned(), one.key_pem.clone()),
        ("another's key", one.cert_pem.clone(), two.key_pem.clone()),
        ("no key", one.cert_pem.clone(), String::new()),
        ("cut short", one.cert_pem[..200].to_owned(), one.key_pem.clone()),
        ("a key as certificate", one.key_pem.clone(), one.key_pem.clone()),
    ]
}

#[test]
fn c_42_what_does_not_fit_is_named_and_the_old_pair_kept() {
    let cas: Vec<ca::Made> = (0..3).map(|_| made()).collect();
    let files = files(Path::new("/certs"));
    let cert = ServingCert::new();
    let good = |made: &ca::Made| cert.offer(&files, made.cert_pem.as_bytes(), made.key_pem.as_bytes());
    let end = good(&cas[0]).expect("a pair that fits");
    let errors = unfit(&cas).map(|(what, cert_pem, key_pem)| {
        let error = cert.offer(&files, cert_pem.as_bytes(), key_pem.as_bytes()).expect_err(what);
        let secret = key_pem.lines().nth(1);
        assert!(secret.is_none_or(|secret| !error.to_string().contains(secret)), "{error}");
        error
    });
    assert_eq!(errors[1].to_string(), "/certs/tls.key is not the key of /certs/tls.crt");
    assert_eq!(errors[2].to_string(), "/certs/tls.key: holds no private key in PEM");
    for (error, begins) in errors.iter().zip([
        "/certs/tls.crt: holds no certificate",
        "/certs/tls.key is not",
        "/certs/tls.key: ",
        "/certs/tls.crt: not PEM",
        "/certs/tls.crt: holds no certificate",
    ]) {
        assert!(error.to_string().starts_with(begins), "{error}");
    }
    assert_eq!(cert.not_after(), Some(end));

    // One that has ended does not take the place of one that has not; where there is none it is served, unready.
    let (ended, key) = ended();
    let error = cert.offer(&files, ended.as_bytes(), key.as_bytes()).expect_err("it has ended");
    assert!(matches!(error, LoadError::Expired { .. }), "{error}");
    let other = ServingCert::new();
    let end = other.offer(&files, ended.as_bytes(), key.as_bytes()).expect("better than none");
    assert!(end < clock::now());
    good(&cas[2]).expect("a pair that fits");
}

/// A certificate that ended long ago.
fn ended() -> (String, String) {
    let mut params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 2, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

#[tokio::test]
async fn a_certificate_that_is_not_there_yet_is_taken_up_when_it_comes() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (files, cert, made) = (files(dir.path()), ServingCert::new(), made());
    let seen = cert.look(&files, None).await;
    assert!(matches!(seen, Seen::Unreadable(_)), "{seen:?}");
    assert_eq!(cert.not_after(), None);
    fs::write(&files.cert, &made.cert_pem).expect("written");
    fs::write(&files.key, &made.key_pem).expect("written");
    cert.look(&files, Some(seen)).await;
    assert!(cert.not_after().is_some());
}

#[test]
fn c_06_what_is_made_is_a_ca_and_a_leaf_for_these_names_only() {
    let made = made();
    let ca = leaf(&made.ca_pem);
    let ca = x509_cert::Certificate::from_der(&ca).expect("X.509").tbs_certificate;
    let end = leaf(&made.cert_pem);
    let end = x509_cert::Certificate::from_der(&end).expect("X.509").tbs_certificate;
    let constraints = |of: &x509_cert::TbsCertificate| of.get::<BasicConstraints>().expect("reads").map(|(_, is)| is);
    assert_eq!(constraints(&ca), Some(BasicConstraints { ca: true, path_len_constraint: Some(0) }));
    assert!(constraints(&end).is_none_or(|is| !is.ca));
    let usage = |of: &x509_cert::TbsCertificate| of.get::<KeyUsage>().expect("reads").expect("is there").1;
    assert!(usage(&ca).key_cert_sign() && !usage(&ca).digital_signature());
    assert!(usage(&end).digital_signature() && !usage(&end).key_cert_sign());
    let (_, extended) = end.get::<ExtendedKeyUsage>().expect("reads").expect("is there");
    assert_eq!(extended.0.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1.3.6.1.5.5.7.3.1"]);
    assert_eq!(end.issuer.to_der().expect("DER"), ca.subject.to_der().expect("DER"));
    assert_ne!(ca.serial_number, end.serial_number);
    let names: BTreeSet<&str> = made.names.iter().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from([NAME, "localhost", "127.0.0.1", "::1"]));
    let days = |from: jiff::Timestamp| (made.not_after.as_second() - from.as_second()) / 86_400;
    assert!((30..=31).contains(&days(clock::now())), "{}", made.not_after);
    assert!(!format!("{made:?}").contains("PRIVATE"));
}

#[test]
fn names_that_no_caller_asks_for_are_refused() {
    for name in ["provost.provost.svc", "node1", "10.0.0.1", "fd00::1", "*.example.com", "a-b.c"] {
        assert!(ca::make(&[name.to_owned()], 1).is_ok(), "{name}");
    }
    for name in ["", "provost.provost.svc.", "a b", "-a.b", "a..b", "10.0.0.256", "*", "a.*.b", "https://a", "a:443"] {
        assert!(matches!(ca::make(&[name.to_owned()], 1), Err(ca::MakeError::Name(_))), "{name}");
    }
    for (days, fits) in [(0, false), (1, true), (ca::MOST_DAYS, true), (ca::MOST_DAYS + 1, false)] {
        assert_eq!(ca::make(&[], days).is_ok(), fits, "{days}");
    }
}
