//! {fault} × {one image, several} × {cold, warm}, each against the running server, under both failure policies at once.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::authority::Authority;
use crate::caller::{Called, Effect, FailurePolicy, pod};
use crate::canary;
use crate::gate::{Gate, Listed};
use crate::report::{credentials, ledger, table};
use crate::rows::{self, Listing, Row, Shown, Want, Warm};
use crate::sample::{Contents, Key, Stage, shape, signed};
use crate::wire::{Auth, Script, Server};
use futures::StreamExt as _;

/// Cells that run at once: those that wait for time to pass, and those that keep the machine busy.
const AT_ONCE: [usize; 2] = [16, 16];
/// C-01: a reply always comes so much before the stated end.
const BEFORE_THE_END: Duration = Duration::from_millis(200);
/// All of it, build and machine aside.
const LONGEST: Duration = Duration::from_mins(2);

/// One image, or one among good ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowd {
    One,
    Several,
}

/// What is known when the fault begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    Cold,
    Warm,
}

const CELLS: [(Cache, Crowd); 4] = [
    (Cache::Cold, Crowd::One),
    (Cache::Cold, Crowd::Several),
    (Cache::Warm, Crowd::One),
    (Cache::Warm, Crowd::Several),
];

/// The registries of a row, and the cells that each serves: a cold cell has its own, for what one review learns is known to
/// the next.
const SITES: [(Cache, &[Crowd]); 3] =
    [(Cache::Cold, &[Crowd::One]), (Cache::Cold, &[Crowd::Several]), (Cache::Warm, &[Crowd::One, Crowd::Several])];

/// A registry with its cells.
pub(crate) struct Site {
    pub(crate) row: usize,
    pub(crate) cache: Cache,
    pub(crate) crowds: &'static [Crowd],
    pub(crate) server: Server,
    pub(crate) host: String,
    /// The image under test, as a pod names it.
    pub(crate) faulty: String,
    /// Good images before and behind it.
    pub(crate) good: [String; 2],
}

impl Site {
    fn images(&self, crowd: Crowd) -> Vec<String> {
        let [before, behind] = self.good.clone();
        match crowd {
            Crowd::One => vec![self.faulty.clone()],
            Crowd::Several => vec![before, self.faulty.clone(), behind],
        }
    }
}

/// How a cell ended.
pub(crate) struct Outcome {
    pub(crate) row: usize,
    pub(crate) cell: (Cache, Crowd),
    /// For the table.
    pub(crate) shown: String,
    pub(crate) took: Duration,
    pub(crate) wrong: Vec<String>,
    pub(crate) record: String,
    pub(crate) replies: Vec<u8>,
}

/// Everything around the server under test.
pub(crate) struct Played {
    pub(crate) sites: Vec<Site>,
    /// Serves the good images of pods with several.
    pub(crate) good: Server,
    pub(crate) storage: Server,
    pub(crate) traps: [Server; 2],
    pub(crate) authority: Authority,
    pub(crate) key: Key,
}

pub(crate) async fn set(rows: &[Row]) -> Played {
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
    let mut made = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        for site in SITES {
            let text = format!("{number} {site:?}");
            let mut contents = Contents::default();
            let image = (row.shape)(&mut contents, "release/app", &text);
            (row.signed)(&mut contents, &image, &key);
            // The good image before the faulty one is as cold as that; the one behind it is known to all.
            let before = if site == (Cache::Cold, &[Crowd::Several]) {
                let before = shape::plain(&mut good, "release/before", &text);
                signed::bundle(&mut good, &before, &key);
                before
            } else {
                behind.clone()
            };
            let blobs = contents.0.iter().filter(|(_, object)| object.stage == Stage::Blob);
            stored.0.extend(blobs.map(|(path, object)| (path.clone(), object.clone())));
            made.push((number, site, contents, image, before));
        }
    }
    let good = Server::start(script(good, Auth::Bearer, 0)).await;
    let storage = Server::start(Script { tls: Some(own.clone()), ..script(stored, Auth::None, 1) }).await;
    let mut sites = Vec::new();
    for (number, (row, (cache, crowds), contents, image, before)) in made.into_iter().enumerate() {
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
            ..script(contents, auth(about, crowds), number + 2)
        })
        .await;
        let host = match about.listing {
            Listing::Listed | Listing::OtherNetwork | Listing::Unlisted => server.host(),
            Listing::UnlistedName => format!("localhost:{}", server.address.port()),
        };
        let (faulty, good) = (image.at(&host), [before.at(&good.host()), behind.at(&good.host())]);
        sites.push(Site { row, cache, crowds, server, host, faulty, good });
    }
    Played { sites, good, storage, traps, authority, key }
}

/// Behind an authorization, but where several are cold: they show that all is the same without.
pub(crate) fn auth(row: &Row, crowds: &[Crowd]) -> Auth {
    let matters = matches!(row.stage, Stage::Challenge | Stage::Token);
    if matters || crowds.contains(&Crowd::One) { row.auth } else { Auth::None }
}

impl Played {
    pub(crate) async fn gate(&self, rows: &[Row]) -> Gate {
        let with_credentials =
            |server: &Server, listed: Listed| Listed { canary: Some(server.canary().to_owned()), ..listed };
        let mut registries = vec![
            with_credentials(&self.good, Listed::plain(self.good.host())),
            // Storage gets nothing: it is no registry, and nobody logs in there.
            Listed { plain_http: false, ca: Some(self.authority.pem.clone()), ..Listed::plain(self.storage.host()) },
        ];
        let mut hosts = vec![self.good.host()];
        for site in &self.sites {
            let row = &rows[site.row];
            hosts.push(site.host.clone());
            let listed = Listed::plain(site.host.clone());
            let listed = if row.tls {
                Listed { plain_http: false, ca: Some(self.authority.pem.clone()), ..listed }
            } else {
                listed
            };
            match row.listing {
                Listing::Listed => registries.push(with_credentials(&site.server, listed)),
                Listing::OtherNetwork => {
                    registries.push(with_credentials(&site.server, Listed { addresses: "127.0.0.2/32", ..listed }));
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

async fn play(site: &Site, row: &Row, gate: &Gate, lag: &Lag) -> Vec<Outcome> {
    let number = site.server.address.port();
    let review = |crowd: Crowd, when: &str| pod(&format!("{number}-{crowd:?}-{when}"), &site.images(crowd));
    let mut told = Vec::new();
    let mut before = Vec::new();
    if site.cache == Cache::Warm {
        // What was proven before is proven while all is well; on a busy machine that may take its time.
        let called = gate.caller.review(&review(Crowd::One, "before"), 30).await;
        told.extend(format!("{:?}", called.reply).into_bytes());
        if row.warm == Warm::Admit && called.effect(FailurePolicy::Fail) != Effect::Admitted {
            before.push(format!("not proven before the fault: {}", called.message()));
        }
    }
    site.server.switch_on().await;
    let mut outcomes = Vec::new();
    for crowd in site.crowds {
        let began = Instant::now();
        let called = gate.caller.review(&review(*crowd, "faulty"), row.seconds).await;
        told.extend(format!("{:?}", called.reply).into_bytes());
        let mut wrong = std::mem::take(&mut before);
        let want = if site.cache == Cache::Warm && row.warm == Warm::Admit { Want::Admit } else { row.want };
        judge(*crowd, want, &called, &mut wrong);
        // Server, disk and caller are woken late, one after the other.
        let lag = lag.since(began) * 3;
        if called.took + BEFORE_THE_END > Duration::from_secs(row.seconds) + lag {
            wrong.push(format!("late, after {:?} of {} s on a machine that lags {lag:?}", called.took, row.seconds));
        }
        wrong.extend(overreach(site, row));
        let record = called.annotation("record").to_owned();
        let (replies, cell) = (std::mem::take(&mut told), (site.cache, *crowd));
        outcomes.push(Outcome {
            row: site.row,
            cell,
            shown: shown(&called),
            took: called.took,
            wrong,
            record,
            replies,
        });
    }
    outcomes
}

/// What was asked for and should not have been.
fn overreach(site: &Site, row: &Row) -> Vec<String> {
    let asked = site.server.asked();
    let mut wrong = Vec::new();
    for asked in asked.iter().filter(|asked| asked.faulty && row.unasked.contains(&asked.stage)) {
        wrong.push(format!("asked for {}", asked.target));
    }
    if row.unasked.contains(&Stage::Challenge) && site.server.accepted() > 0 {
        wrong.push(format!("{} connections", site.server.accepted()));
    }
    if asked.iter().any(|asked| asked.target.contains("..")) {
        wrong.push("a path that leads upwards was asked for".to_owned());
    }
    wrong
}

/// The effect under `Fail` and `Ignore`, where they agree once, and the codes.
fn shown(called: &Called) -> String {
    let effect = |policy| match called.effect(policy) {
        Effect::Admitted => "admit",
        Effect::Denied => "deny",
    };
    let (fail, ignore) = (effect(FailurePolicy::Fail), effect(FailurePolicy::Ignore));
    let effect = if fail == ignore { fail.to_owned() } else { format!("{fail}/{ignore}") };
    format!("{effect} {}", called.codes()).trim_end().to_owned()
}

/// Compares a call with what must come of it.
fn judge(crowd: Crowd, want: Want, called: &Called, wrong: &mut Vec<String>) {
    let effects = [FailurePolicy::Fail, FailurePolicy::Ignore].map(|policy| called.effect(policy));
    let mut say = |what: String| wrong.push(format!("{what}: {}", called.message()));
    if let Err(error) = &called.reply {
        return say(format!("no reply that counts ({error})"));
    }
    if called.repeats > 0 {
        say(format!("repeated {} times", called.repeats));
    }
    let code = match want {
        Want::Admit if effects == [Effect::Admitted; 2] => return,
        Want::Admit => return say("not admitted".to_owned()),
        Want::Deny(code) => code,
    };
    if effects != [Effect::Denied; 2] {
        say(format!("not denied under both policies: {effects:?}"));
    }
    if called.codes() != code.as_str() {
        say(format!("denied by {:?} instead of {code}", called.codes()));
    }
    let status = called.reply.as_ref().map(|reply| &reply["status"]["code"]);
    if status.is_ok_and(|status| *status != 403) {
        say(format!("status {status:?}"));
    }
    let (counted, place) = match crowd {
        Crowd::One => ("1 image refused", "spec.containers[0]"),
        Crowd::Several => ("1 of 3 images refused", "spec.containers[1]"),
    };
    if !called.message().starts_with(counted) || called.message().matches("spec.containers[").count() != 1 {
        say(format!("not \"{counted}\""));
    }
    if !called.message().contains(place) {
        say(format!("{place} is not named"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c_02_x_035_to_x_048_x_097_to_x_100_every_fault_of_a_registry_is_denied_in_band() {
    let _alone = crate::ALONE.lock().await;
    let began = Instant::now();
    let rows = rows::all();
    let stage = set(&rows).await;
    let gate = stage.gate(&rows).await;
    let ready = began.elapsed();
    let lag = Lag(Mutex::default());
    let waits = |site: &Site| rows[site.row].is_slow() && site.cache == Cache::Cold;
    let (waiting, busy): (Vec<&Site>, Vec<&Site>) = stage.sites.iter().partition(|site| waits(site));
    // One lane after the other: those that measure time are not to wait for those that take it.
    let playing = async {
        // An API server's connections stand. A new one's handshake counts against its caller's time and not against ours.
        let known = &stage.sites[0].good[1..];
        let first = (0..AT_ONCE[0]).map(|number| pod(&format!("first-{number}"), known)).collect::<Vec<_>>();
        futures::future::join_all(first.iter().map(|review| gate.caller.review(review, 30))).await;
        let mut outcomes: Vec<Outcome> = Vec::new();
        for (sites, at_once) in [waiting, busy].into_iter().zip(AT_ONCE) {
            let sites = futures::stream::iter(sites).map(|site| play(site, &rows[site.row], &gate, &lag));
            outcomes.extend(sites.buffer_unordered(at_once).collect::<Vec<_>>().await.into_iter().flatten());
        }
        outcomes
    };
    let mut outcomes = tokio::select! {
        () = lag.measure() => unreachable!("it measures for ever"),
        outcomes = tokio::time::timeout(LONGEST, playing) => outcomes.expect("the matrix ends in time"),
    };
    let played = began.elapsed();
    outcomes.sort_by_key(|outcome| (outcome.row, CELLS.iter().position(|cell| *cell == outcome.cell)));
    assert_eq!(outcomes.len(), rows.len() * CELLS.len());
    // what everybody else has proven with the operator's credential is not proven to a stranger.
    let stranger = gate.stranger.review(&pod("stranger", &stage.sites[0].good[1..]), 30).await;
    let metrics = gate.metrics().await;
    let ended = gate.end().await;
    let took = began.elapsed();

    println!("{}", table(&rows, &outcomes));
    let denied = outcomes.iter().filter(|outcome| outcome.shown.starts_with("deny")).count();
    println!(
        "{} faults and twins, {} cells: {denied} denied in-band under Fail and Ignore, {} admitted as they must be\n\
         {:.1} s to set up, {:.1} s to play, {:.1} s to end; the machine lagged {:?} at worst",
        rows.len(),
        outcomes.len(),
        outcomes.len() - denied,
        ready.as_secs_f64(),
        played.saturating_sub(ready).as_secs_f64(),
        took.saturating_sub(played).as_secs_f64(),
        lag.since(began)
    );

    let mut wrong: Vec<String> = Vec::new();
    for outcome in &outcomes {
        let (row, cell) = (&rows[outcome.row], outcome.cell);
        wrong.extend(outcome.wrong.iter().map(|what| format!("{:?}, {}, {cell:?}: {what}", row.stage, row.fault)));
    }
    if stranger.effect(FailurePolicy::Ignore) != Effect::Denied || stranger.codes() != "registry-auth-failed" {
        wrong.push(format!("a caller without a token: {:?}", stranger.reply));
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
