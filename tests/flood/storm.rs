//! ten thousand connections that are silent, slow or speak nonsense, from a hundred addresses, while an API server
//! goes on calling: every call is answered, p99 under a second, and the process stays under 256 MiB.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use provost::edge::samples::SampleKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::program::{ALONE, Outcome, Program, Registry, call, review};

const CONNECTIONS: usize = 10_000;
const ADDRESSES: usize = 100;
/// How many of the flood are opened at a time.
const AT_A_TIME: usize = 100;
/// The pause of each between two: some six hundred connections a second.
const PACE: Duration = Duration::from_millis(150);
/// The flood and what is called beside it.
const LONGEST: Duration = Duration::from_mins(1);
/// How long the flood is held once all of it was opened: longer than the server's patience with newcomers.
const HELD: Duration = Duration::from_secs(6);

/// What is kept open, and so holds a place where the server lets it.
type Held = Box<dyn Any + Send>;

#[tokio::test(flavor = "multi_thread")]
async fn x_094_ten_thousand_connections_and_an_api_server_beside_them() {
    let _alone = ALONE.write().await;
    let files = raise_file_limit(CONNECTIONS + 1_000);
    assert!(files > CONNECTIONS + 500, "this test needs {CONNECTIONS} connections, and may open {files} files");
    let key = SampleKey::generate().expect("a key");
    let registry = Registry::start(&key, 1, false).await;
    let program = Arc::new(Program::start(&key, &[(&registry, "")], "", &[]).await);
    let url = program.url(&format!("/validate/{}", program.token()));
    let image = registry.images[0].clone();

    // An API server with a pooled connection, and one that comes anew each time, as after a rotation of its CA.
    let over = Arc::new(AtomicBool::new(false));
    let callers = [usize::MAX, 0].map(|pooled| {
        let client = program.client().pool_max_idle_per_host(pooled).build().expect("a client");
        let (over, url, image) = (Arc::clone(&over), url.clone(), image.clone());
        tokio::spawn(async move {
            let mut outcomes: Vec<Outcome> = Vec::new();
            while !over.load(Ordering::Acquire) {
                let uid = format!("u-{pooled}-{}", outcomes.len());
                outcomes.push(call(&client, &url, &uid, review(&uid, &[&image])).await);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            outcomes
        })
    });

    let opened = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let flood = timeout(LONGEST, flood(&program, Arc::clone(&opened))).await.expect("opened in time");
    let took = began.elapsed();
    assert_eq!(flood.len(), CONNECTIONS);
    let places = program.metric("provost_connections").await;
    assert!(places <= 2048.0, "{places} connections");
    tokio::time::sleep(HELD).await;
    let memory = program.peak_memory();
    let turned_over = program.metric("provost_http_refused_total").await;
    over.store(true, Ordering::Release);
    let mut figures = Vec::new();
    for (name, caller) in ["pooled", "anew each time"].into_iter().zip(callers) {
        let outcomes = caller.await.expect("no panic");
        for outcome in &outcomes {
            outcome.assert_admitted();
        }
        let mut times: Vec<Duration> = outcomes.iter().map(|outcome| outcome.took).collect();
        times.sort_unstable();
        assert!(times.len() > 100, "{name}: only {} calls", times.len());
        let p99 = times[times.len() * 99 / 100];
        figures.push(format!("{name}: {} calls, p99 {p99:?}, longest {:?}", times.len(), times[times.len() - 1]));
        assert!(p99 < Duration::from_secs(1), "{figures:?}");
    }
    println!(
        "{CONNECTIONS} connections in {took:?}; {places} had a place; {turned_over} turned over or refused; peak memory \
         {} MiB; {}",
        memory >> 20,
        figures.join("; ")
    );
    assert!(turned_over > 1_000.0, "the flood was turned over: {turned_over}");
    assert!(memory < 256 << 20, "{} MiB", memory >> 20);
    drop(flood);
    let client = program.client().build().expect("a client");
    call(&client, &url, "after", review("after", &[&image])).await.assert_admitted();
}

/// Opens all connections, and holds them.
async fn flood(program: &Program, opened: Arc<AtomicUsize>) -> Vec<Held> {
    let (target, tls) = (program.review, connector(&program.ca));
    let mut tasks = JoinSet::new();
    for worker in 0..AT_A_TIME {
        let (tls, opened) = (tls.clone(), Arc::clone(&opened));
        tasks.spawn(async move {
            let mut held = Vec::new();
            for number in (worker..CONNECTIONS).step_by(AT_A_TIME) {
                held.push(one(number, target, &tls).await);
                tokio::time::sleep(PACE).await;
                opened.fetch_add(1, Ordering::AcqRel);
            }
            held
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

/// One connection of the flood: most say nothing or nonsense, some go through a handshake and then dawdle.
async fn one(number: usize, target: SocketAddr, tls: &TlsConnector) -> Held {
    let mut stream = connect(number, target).await;
    // The server may have had enough of it at any point.
    match number % 40 {
        0..=19 => {}
        20..=29 => {
            let _sent = stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await;
        }
        30..=38 => {
            let _sent = stream.write_all(b"POST /validate HTTP/1.1\r\nHost: x\r\n\r\n{\"junk\":").await;
        }
        _ => {
            let name = ServerName::try_from("provost.provost.svc").expect("a name");
            let fresh = connect(number, target).await;
            let Ok(Ok(mut stream)) = timeout(Duration::from_secs(2), tls.connect(name, fresh)).await else {
                return Box::new(stream);
            };
            let head = "POST /validate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
            let text = match number % 3 {
                0 => "POST /vali".to_owned(),
                1 => format!("{head}Content-Length: 100000\r\n\r\n{{\"kind\":\"AdmissionReview\","),
                _ => format!("{head}Content-Length: 4\r\n\r\njunk"),
            };
            let _sent = stream.write_all(text.as_bytes()).await;
            let _sent = stream.flush().await;
            return Box::new(stream);
        }
    }
    Box::new(stream)
}

async fn connect(number: usize, target: SocketAddr) -> TcpStream {
    let source = IpAddr::from([127, 0, 1, u8::try_from(1 + number % ADDRESSES).expect("below 256")]);
    loop {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::new(source, 0)).expect("loopback addresses are all ours");
        if let Ok(Ok(stream)) = timeout(Duration::from_secs(5), socket.connect(target)).await {
            return stream;
        }
    }
}

fn connector(ca: &str) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM")).expect("a CA");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the defaults are right")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// How many files this process may open, after asking for so many.
fn raise_file_limit(wanted: usize) -> usize {
    let now = || {
        let limits = std::fs::read_to_string("/proc/self/limits").expect("limits");
        let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
        line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX)
    };
    if now() < wanted {
        let own = std::process::id().to_string();
        let limit = format!("--nofile={wanted}:");
        let raised = Command::new("prlimit").args(["--pid", &own, &limit]).status();
        assert!(raised.is_ok_and(|status| status.success()), "prlimit (util-linux) cannot raise the limit to {wanted}");
    }
    now()
}
