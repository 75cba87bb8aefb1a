//! {fault} × {one image, several} × {cold, warm}, each against the running server, under both failure policies at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use provost::edge::ledger::Reader;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tokio_rustls::TlsAcceptor;

use crate::caller::{Called, Effect, FailurePolicy, pod};
use crate::canary;
use crate::gate::{Ended, Gate, Listed};
use crate::rows::{self, Listing, Row, Shown, Want, Warm};
use crate::sample::{Contents, Image, Key, Stage, shape, signed};
use crate::wire::{Auth, Script, Server};

/// Cells that run at once: those that wait for time to pass, and those that keep the machine busy.
const AT_ONCE: [usize; 2] = [12, 6];
/// C-01: a reply always comes so much before the stated end.
const BEFORE_THE_END: Duration = Duration::from_millis(200);
/// All of it, build and machine aside.
const LONGEST: Duration = Duration::from_secs(120);

/// A certificate authority, made for one run.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("certificate");
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// A server's side of TLS with a leaf for one name.
    pub(crate) fn acceptor(&self, name: &str, expired: bool) -> TlsAcceptor {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        if expired {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let leaf = params.signed_by(&key, &self.issuer).expect("certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .expect("configuration");
        TlsAcceptor::from(Arc::new(config))
    }
}

/// One image, or one among good ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crowd {
    One,
    Several,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cache {
    Cold,
    Warm,
}

const CELLS: [(Cache, Crowd); 4] = [
    (Cache::Cold, Crowd::One),
    (Cache::Cold, Crowd::Several),
    (Cache::Warm, Crowd::One),
    (Cache::Warm, Crowd::Several),
];

/// One cell with its own registry.
struct Cell {
    row: usize,
    cache: Cache,
    crowd: Crowd,
    server: Server,
    /// As the pod names them; the faulty one last of one, or second of three.
    images: Vec<String>,
    host: String,
}

/// How a cell ended.
struct Outcome {
    row: usize,
    /// For the table.
    shown: String,
    took: Duration,
    /// The departure that the row announces has shown itself.
    departed: bool,
    wrong: Vec<String>,
    record: String,
    replies: Vec<u8>,
}

/// Everything around the cells.
struct Played {
    cells: Vec<Cell>,
    /// Serves the good images of pods with several.
    good: Server,
    storage: Server,
    traps: [Server; 2],
    authority: Authority,
    key: Key,
}

async fn set(rows: &[Row]) -> Played {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let key = Key::new();
    let own = authority.acceptor("127.0.0.1", false);
    let traps = [Server::trap(None).await, Server::trap(Some(own.clone())).await];
    let trapped = [traps[0].host(), traps[1].host()];
    let script = |contents, auth, number| Script {
        contents,
        tls: None,
        auth,
        canary: canary::make(number),
        door: crate::wire::Door::Open,
        spoil: None,
        traps: trapped.clone(),
        storage: String::new(),
    };
    let mut good = Contents::default();
    let behind = shape::plain(&mut good, "release/behind", "behind");
    signed::bundle(&mut good, &behind, &key);
    let mut stored = Contents::default();
    let mut made: Vec<(usize, Cache, Crowd, Contents, Image, Image)> = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        for (cache, crowd) in CELLS {
            let text = format!("{number} {cache:?} {crowd:?}");
            let mut contents = Contents::default();
            let image = (row.shape)(&mut contents, "release/app", &text);
            (row.signed)(&mut contents, &image, &key);
            // The good image before the faulty one is as cold as that; the one behind it is known to all.
            let before = match (cache, crowd) {
                (Cache::Cold, Crowd::Several) => {
                    let before = shape::plain(&mut good, "release/before", &text);
                    signed::bundle(&mut good, &before, &key);
                    before
                }
                (Cache::Cold, Crowd::One) | (Cache::Warm, _) => behind.clone(),
            };
            let blobs = contents.0.iter().filter(|(_, object)| object.stage == Stage::Blob);
            stored.0.extend(blobs.map(|(path, object)| (path.clone(), object.clone())));
            made.push((number, cache, crowd, contents, image, before));
        }
    }
    let good = Server::start(script(good, Auth::Bearer, 0)).await;
    let storage = Server::start(Script { tls: Some(own.clone()), ..script(stored, Auth::None, 1) }).await;
    let mut cells = Vec::new();
    for (number, (row, cache, crowd, contents, image, before)) in made.into_iter().enumerate() {
        let about = &rows[row];
        let door = about.broken.door(|shown| match shown {
            Shown::Expired => authority.acceptor("127.0.0.1", true),
            Shown::OtherName => authority.acceptor("127.0.0.2", false),
            Shown::UnknownCa => stranger.acceptor("127.0.0.1", false),
        });
        let server = Server::start(Script {
            tls: about.tls.then(|| own.clone()),
            door,
            spoil: about.spoil.clone().map(|spoil| (about.stage, spoil)),
            storage: format!("https://{}", storage.host()),
            ..script(contents, auth(about, crowd), number + 2)
        })
        .await;
        let host = match about.listing {
            Listing::Listed | Listing::OtherNetwork | Listing::Unlisted => server.host(),
            Listing::UnlistedName => format!("localhost:{}", server.address.port()),
        };
        let faulty = image.at(&host);
        let images = match crowd {
            Crowd::One => vec![faulty],
            Crowd::Several => vec![before.at(&good.host()), faulty, behind.at(&good.host())],
        };
        cells.push(Cell { row, cache, crowd, server, images, host });
    }
    Played { cells, good, storage, traps, authority, key }
}

/// One image is always behind an authorization; several show what is the same without.
fn auth(row: &Row, crowd: Crowd) -> Auth {
    match (crowd, row.stage) {
        (Crowd::One, _) | (Crowd::Several, Stage::Challenge | Stage::Token) => row.auth,
        (Crowd::Several, _) => Auth::None,
    }
}

impl Played {
    async fn gate(&self, rows: &[Row]) -> Gate {
        let with_credentials = |server: &Server, listed: Listed| Listed { canary: Some(server.canary().to_owned()), ..listed };
        let mut registries = vec![
            with_credentials(&self.good, Listed::plain(self.good.host())),
            // Storage gets nothing: it is no registry, and nobody logs in there.
            Listed { plain_http: false, ca: Some(self.authority.pem.clone()), ..Listed::plain(self.storage.host()) },
        ];
        let mut hosts = vec![self.good.host()];
        for cell in &self.cells {
            let row = &rows[cell.row];
            hosts.push(cell.host.clone());
            let listed = Listed::plain(cell.host.clone());
            let listed = if row.tls {
                Listed { plain_http: false, ca: Some(self.authority.pem.clone()), ..listed }
            } else {
                listed
            };
            match row.listing {
                Listing::Listed => registries.push(with_credentials(&cell.server, listed)),
                Listing::OtherNetwork => {
                    registries.push(with_credentials(&cell.server, Listed { addresses: "127.0.0.2/32", ..listed }));
                }
                Listing::Unlisted | Listing::UnlistedName => {}
            }
        }
        Gate::start(&self.key, &hosts, &registries).await
    }
}

/// How late this machine wakes those who wait: what a busy one adds to every reply is no fault of the server.
struct Lag(Mutex<Vec<(Instant, Duration)>>);

impl Lag {
    /// Between two measurements.
    const EVERY: Duration = Duration::from_millis(20);

    async fn measure(&self) {
        loop {
            let slept = Instant::now();
            tokio::time::sleep(Self::EVERY).await;
            let late = slept.elapsed().saturating_sub(Self::EVERY);
            self.0.lock().expect("lock").push((Instant::now(), late));
        }
    }

    /// The worst since then.
    fn since(&self, began: Instant) -> Duration {
        let all = self.0.lock().expect("lock");
        all.iter().rev().take_while(|(at, _)| *at >= began).map(|(_, late)| *late).max().unwrap_or_default()
    }
}

async fn play(cell: &Cell, row: &Row, gate: &Gate, lag: &Lag) -> Outcome {
    let mut wrong = Vec::new();
    let number = cell.server.address.port();
    let review = |what: &str| pod(&format!("{number}-{what}"), &cell.images);
    let mut replies = Vec::new();
    if cell.cache == Cache::Warm {
        // What was proven before is proven while all is well; on a busy machine that may take its time.
        let before = gate.caller.review(&review("before"), 30).await;
        replies.extend(format!("{:?}", before.reply).into_bytes());
        if row.warm == Warm::Admit && before.effect(FailurePolicy::Fail) != Effect::Admitted {
            wrong.push(format!("not proven before the fault: {}", before.message()));
        }
    }
    cell.server.switch_on().await;
    let began = Instant::now();
    let called = gate.caller.review(&review("faulty"), row.seconds).await;
    replies.extend(format!("{:?}", called.reply).into_bytes());
    let want = if cell.cache == Cache::Warm && row.warm == Warm::Admit { Want::Admit } else { row.want };
    let departed = judge(cell, row, want, &called, &mut wrong);
    // Server and caller are woken late, one after the other.
    let lag = lag.since(began) * 2;
    if called.took + BEFORE_THE_END > Duration::from_secs(row.seconds) + lag {
        wrong.push(format!("late, after {:?} of {} s on a machine that lags {lag:?}", called.took, row.seconds));
    }
    let asked = cell.server.asked();
    for asked in asked.iter().filter(|asked| asked.faulty && row.unasked.contains(&asked.stage)) {
        wrong.push(format!("asked for {}", asked.target));
    }
    if row.unasked.contains(&Stage::Challenge) && cell.server.accepted() > 0 {
        wrong.push(format!("{} connections", cell.server.accepted()));
    }
    if asked.iter().any(|asked| asked.target.contains("..")) {
        wrong.push("a path that leads upwards was asked for".to_owned());
    }
    let effect = |policy| match called.effect(policy) {
        Effect::Admitted => "admit",
        Effect::Denied => "deny",
    };
    let (fail, ignore) = (effect(FailurePolicy::Fail), effect(FailurePolicy::Ignore));
    let effect = if fail == ignore { fail.to_owned() } else { format!("{fail}/{ignore}") };
    let shown = [effect.as_str(), called.codes()].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
    let record = called.annotation("record").to_owned();
    Outcome { row: cell.row, shown, took: called.took, departed, wrong, record, replies }
}

/// Compares a call with what must come of it; whether it went the way of the row's departure.
fn judge(cell: &Cell, row: &Row, want: Want, called: &Called, wrong: &mut Vec<String>) -> bool {
    let effects = [FailurePolicy::Fail, FailurePolicy::Ignore].map(|policy| called.effect(policy));
    let mut say = |what: String| wrong.push(format!("{what}: {}", called.message()));
    if let Err(error) = &called.reply {
        say(format!("no reply that counts ({error})"));
        return false;
    }
    if called.repeats > 0 {
        say(format!("repeated {} times", called.repeats));
    }
    let code = match want {
        Want::Admit if effects == [Effect::Admitted; 2] => return false,
        Want::Admit => {
            say("not admitted".to_owned());
            return false;
        }
        Want::Deny(code) => code,
    };
    if effects != [Effect::Denied; 2] {
        say(format!("not denied under both policies: {effects:?}"));
    }
    let departed = row.departs.is_some_and(|(other, _)| called.codes() == other.as_str());
    if called.codes() != code.as_str() && !departed {
        say(format!("denied by {:?} instead of {code}", called.codes()));
    }
    let status = called.reply.as_ref().map(|reply| &reply["status"]["code"]);
    if status.is_ok_and(|status| *status != 403) {
        say(format!("status {status:?}"));
    }
    let (counted, place) = match cell.crowd {
        Crowd::One => ("1 image refused", "spec.containers[0]"),
        Crowd::Several => ("1 of 3 images refused", "spec.containers[1]"),
    };
    if !called.message().starts_with(counted) || called.message().matches("spec.containers[").count() != 1 {
        say(format!("not \"{counted}\""));
    }
    if !called.message().contains(place) {
        say(format!("{place} is not named"));
    }
    departed
}

/// The rows and what came of them, as text.
fn table(rows: &[Row], outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "{:<12}{:<37}{:<22}{:<27}{:<27}{:<11}{:<11}{}\n",
        "stage", "fault", "must end in", "cold, one image", "cold, several", "warm, one", "warm, sev.", "rule"
    );
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.row == number).collect();
        let want = match row.want {
            Want::Admit => "admit".to_owned(),
            Want::Deny(code) => code.to_string(),
        };
        let short = |outcome: &Outcome| {
            let shown = outcome.shown.replace("deny ", "");
            let mark = if outcome.wrong.is_empty() { "" } else { "!" };
            format!("{mark}{shown} {:.1}s", outcome.took.as_secs_f64())
        };
        // What a warm cell repeats of a cold one need not be said in full.
        let word = |outcome: &Outcome| {
            let mark = if outcome.wrong.is_empty() { "" } else { "!" };
            format!("{mark}{}", outcome.shown.split(' ').next().unwrap_or_default())
        };
        let finding = row.departs.map(|(_, finding)| format!(" {finding}")).unwrap_or_default();
        text.push_str(&format!(
            "{:<12}{:<37}{:<22}{:<27}{:<27}{:<11}{:<11}{}{finding}\n",
            format!("{:?}", row.stage),
            row.fault,
            want,
            short(cells[0]),
            short(cells[1]),
            word(cells[2]),
            word(cells[3]),
            row.rule,
        ));
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c_02_x_035_to_x_048_x_097_to_x_100_every_fault_of_a_registry_is_denied_in_band() {
    let began = Instant::now();
    let rows = rows::all();
    let stage = set(&rows).await;
    let gate = stage.gate(&rows).await;
    let ready = began.elapsed();
    let lag = Lag(Mutex::default());
    let (rows_, gate_, lag_) = (&rows, &gate, &lag);
    let waits = |cell: &Cell| rows[cell.row].is_slow() && cell.cache == Cache::Cold;
    let (waiting, busy): (Vec<&Cell>, Vec<&Cell>) = stage.cells.iter().partition(|cell| waits(cell));
    let playing = futures::future::join_all([waiting, busy].into_iter().zip(AT_ONCE).map(|(cells, at_once)| {
        futures::stream::iter(cells)
            .map(move |cell| async move {
                let at = (cell.row, CELLS.iter().position(|known| *known == (cell.cache, cell.crowd)));
                (at, play(cell, &rows_[cell.row], gate_, lag_).await)
            })
            .buffer_unordered(at_once)
            .collect::<Vec<_>>()
    }));
    let lanes = tokio::select! {
        () = lag.measure() => unreachable!("it measures for ever"),
        lanes = tokio::time::timeout(LONGEST, playing) => lanes.expect("the matrix ends in time"),
    };
    let played = began.elapsed();
    let mut outcomes: Vec<_> = lanes.into_iter().flatten().collect();
    outcomes.sort_by_key(|(at, _)| *at);
    let outcomes: Vec<Outcome> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    let metrics = gate.metrics().await;
    let ended = gate.end().await;
    let took = began.elapsed();

    println!("{}", table(&rows, &outcomes));
    let denied = outcomes.iter().filter(|outcome| outcome.shown.starts_with("deny")).count();
    let departing: BTreeSet<&str> = rows.iter().filter_map(|row| row.departs).map(|(_, finding)| finding).collect();
    println!(
        "{} faults and twins, {} cells: {denied} denied in-band under Fail and Ignore, {} admitted as they must be; \
         departures from the design, all of them denials by another code: {departing:?}\n{:.1} s to set up, {:.1} s to play, {:.1} s to end; the machine lagged {:?} at worst",
        rows.len(),
        outcomes.len(),
        outcomes.len() - denied,
        ready.as_secs_f64(),
        (played - ready).as_secs_f64(),
        (took - played).as_secs_f64(),
        lag.since(began)
    );

    let mut wrong: Vec<String> = Vec::new();
    for (at, outcome) in outcomes.iter().enumerate() {
        let (row, cell) = (&rows[outcome.row], CELLS[at % CELLS.len()]);
        for what in &outcome.wrong {
            wrong.push(format!("{:?}, {}, {cell:?}: {what}", row.stage, row.fault));
        }
    }
    // A departure that is gone must not stay written down.
    for (number, row) in rows.iter().enumerate() {
        if let Some((code, finding)) = row.departs
            && !outcomes.iter().any(|outcome| outcome.row == number && outcome.departed)
        {
            wrong.push(format!("{:?}, {}: no longer departs by {code} ({finding}): take it out", row.stage, row.fault));
        }
    }
    for trap in &stage.traps {
        if trap.accepted() > 0 {
            let asked = String::from_utf8_lossy(&trap.received()).into_owned();
            wrong.push(format!("{} connections to a host that nobody listed: {asked}", trap.accepted()));
        }
    }
    wrong.extend(credentials(&stage, &rows, &outcomes, &metrics, &ended));
    wrong.extend(ledger(&outcomes, &ended));
    if !ended.status.success() {
        wrong.push(format!("serve ended with {}", ended.status));
    }
    assert!(wrong.is_empty(), "{} things are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// each canary stays with its own registry, and is told to nobody else.
fn credentials(stage: &Played, rows: &[Row], outcomes: &[Outcome], metrics: &str, ended: &Ended) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let servers = stage.cells.iter().map(|cell| &cell.server);
    for server in servers.chain([&stage.good, &stage.storage]).chain(&stage.traps) {
        let found = canary::find(&server.received());
        if found.contains(server.canary()) {
            seen.insert(server.canary());
        }
        for other in found.iter().filter(|canary| *canary != server.canary()) {
            wrong.push(format!("{} was sent the credential {other} of another host", server.address));
        }
        let clear = server.asked().iter().any(|asked| asked.target.contains(server.canary()));
        if clear {
            wrong.push(format!("{} found a credential in a URL", server.address));
        }
    }
    // The search can find: whoever asks for a credential, and is spoken to, has it.
    let asking = stage.cells.iter().filter(|cell| {
        let row = &rows[cell.row];
        let spoken_to = cell.cache == Cache::Warm || !matches!(row.stage, Stage::Connection | Stage::Challenge);
        auth(row, cell.crowd) != Auth::None && row.listing == Listing::Listed && spoken_to
    });
    for cell in asking {
        if !seen.contains(cell.server.canary()) {
            wrong.push(format!("{}: its own credential never came", rows[cell.row].fault));
        }
    }
    if seen.len() < stage.cells.len() / 3 {
        wrong.push(format!("only {} registries ever saw their own credential", seen.len()));
    }
    let replies = outcomes.iter().map(|outcome| ("a reply".to_owned(), outcome.replies.clone()));
    let told = ended.said.iter().cloned().chain(replies).chain([("metrics".to_owned(), metrics.as_bytes().to_vec())]);
    for (name, bytes) in told {
        for canary in canary::find(&bytes) {
            wrong.push(format!("{name} holds the credential {canary}"));
        }
    }
    let logged = ended.said.iter().map(|(name, bytes)| format!("{name} {} KiB", bytes.len() / 1024)).collect::<Vec<_>>();
    println!("{} registries saw their own credential; searched also: {}", seen.len(), logged.join(", "));
    if !stage.storage.asked().iter().any(|asked| asked.target.contains("/blobs/")) {
        wrong.push("the storage was never asked".to_owned());
    }
    wrong
}

/// Every denial names its record, and that record says the same.
fn ledger(outcomes: &[Outcome], ended: &Ended) -> Vec<String> {
    let reader = Reader::open(&ended.ledger()).expect("the ledger");
    let records = reader.tail(100_000).expect("records");
    let codes: std::collections::HashMap<String, String> = records
        .iter()
        .map(|record| {
            let body: Value = serde_json::from_str(&record.body).expect("JSON");
            let codes = body["event"]["codes"].as_array().into_iter().flatten().filter_map(Value::as_str);
            (record.name.clone(), codes.collect::<Vec<_>>().join(","))
        })
        .collect();
    let mut wrong = Vec::new();
    for outcome in outcomes {
        let want = outcome.shown.strip_prefix("deny ").unwrap_or_default();
        match codes.get(&outcome.record) {
            Some(codes) if codes == want => {}
            // On a busy disk the record may be later than the reply, which then names none.
            None if outcome.record == "pending" && outcome.took > Duration::from_secs(1) => {}
            other => wrong.push(format!("the record {:?} of {:?} says {other:?}", outcome.record, outcome.shown)),
        }
    }
    wrong
}
