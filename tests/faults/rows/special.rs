//! Faults that belong to one stage, or to the image itself, and the twins of all.

use provost::decision::code::Code;

use super::{Broken, Listing, Row, Shown};
use crate::sample::{INDEX, MANIFEST, Stage, shape, signed};
use crate::spoil::{cut_json, endless, gzipped, half, redirect};
use crate::wire::{Act, Answer, Around, Asked, Auth, Reply};

/// Connections, challenges, tokens.
pub(super) fn before_any_answer() -> Vec<Row> {
    [connections(), challenges(), tokens()].concat()
}

/// Lists, images, evidence, and what is no fault.
pub(super) fn after_all() -> Vec<Row> {
    [lists(), contents(), evidence(), twins()].concat()
}

fn connections() -> Vec<Row> {
    use Code::{AddressRefused, DeadlineExceeded, EvidenceUnavailable};
    let at = Stage::Connection;
    vec![
        Row::deny(at, "nobody listens", "X-043", EvidenceUnavailable).broken(Broken::Refuse, false),
        Row::deny(at, "accepted, and not a word", "X-044", DeadlineExceeded).broken(Broken::Silent, false).slow(),
        Row::deny(at, "closed at once", "X-043", EvidenceUnavailable).broken(Broken::Close, false),
        Row::deny(at, "reset at once", "X-043", EvidenceUnavailable).broken(Broken::Reset, false),
        Row::deny(at, "no word in the TLS handshake", "X-044", DeadlineExceeded).broken(Broken::Silent, true).slow(),
        Row::deny(at, "closed in the TLS handshake", "X-043", EvidenceUnavailable).broken(Broken::Close, true),
        Row::deny(at, "reset in the TLS handshake", "X-043", EvidenceUnavailable).broken(Broken::Reset, true),
        Row::deny(at, "plain HTTP instead of TLS", "X-043", EvidenceUnavailable).broken(Broken::PlainText, true),
        Row::deny(at, "certificate expired", "X-043", EvidenceUnavailable)
            .broken(Broken::Certificate(Shown::Expired), true),
        Row::deny(at, "certificate for another name", "X-043", EvidenceUnavailable)
            .broken(Broken::Certificate(Shown::OtherName), true),
        Row::deny(at, "certificate of an unknown CA", "X-043", EvidenceUnavailable)
            .broken(Broken::Certificate(Shown::UnknownCa), true),
        Row::deny(at, "unlisted, at 127.0.0.1", "X-045", AddressRefused).listing(Listing::Unlisted),
        Row::deny(at, "unlisted, a name at loopback", "X-045", AddressRefused).listing(Listing::UnlistedName),
        Row::deny(at, "listed with another network", "X-045", AddressRefused).listing(Listing::OtherNetwork),
    ]
}

fn challenges() -> Vec<Row> {
    let deny = |fault: &str, rule| Row::deny(Stage::Challenge, fault, rule, Code::RegistryAuthFailed);
    let says = |fault: &str, rule, text: fn(&Around) -> String| {
        deny(fault, rule)
            .by(move |_, honest, around| honest.with("WWW-Authenticate", &text(around)).whole())
            .unasked(&[Stage::Token])
    };
    vec![
        says("realm on another host", "X-047", |a| format!("Bearer realm=\"https://{}/token\"", a.traps[1])),
        says("realm on another port, http", "X-047", |a| format!("Bearer realm=\"http://{}/token\"", a.traps[0])),
        says("realm at the metadata service", "X-047", |_| "Bearer realm=\"https://169.254.169.254/token\"".to_owned()),
        says("realm with a user name", "X-047", |a| {
            format!("Bearer realm=\"{}/token\"", a.base.replace("://", "://user@"))
        }),
        says("realm is a file", "X-047", |_| "Bearer realm=\"file:///etc/passwd\"".to_owned()),
        says("realm twice", "X-047", |a| {
            format!("Bearer realm=\"{}/token\",realm=\"https://{}/token\"", a.base, a.traps[1])
        }),
        says("a scheme that nobody speaks", "X-042", |_| "Negotiate abcd==".to_owned()),
        says("a challenge that cannot be read", "X-042", |_| "Bearer realm=\"".to_owned()),
        deny("401 without a challenge", "X-042")
            .by(|_, _, _| Reply::error(401, "UNAUTHORIZED").whole())
            .unasked(&[Stage::Token]),
        deny("403", "X-042").by(|_, _, _| Reply::error(403, "DENIED").whole()).unasked(&[Stage::Token]),
    ]
}

fn tokens() -> Vec<Row> {
    use Code::{BudgetExceeded, DeadlineExceeded, EvidenceUnavailable, RateLimited, RegistryAuthFailed};
    let at = Stage::Token;
    let status = |code: u16| move |_: &Asked, _: Reply, _: &Around| Reply::error(code, "SAID").whole();
    vec![
        Row::deny(at, "no answer", "X-044", DeadlineExceeded).by(|_, _, _| vec![Act::Hang]).slow(),
        Row::deny(at, "silent in the body", "X-044", DeadlineExceeded)
            .by(|_, honest, _| half(&honest, Act::Hang))
            .slow(),
        Row::deny(at, "401", "X-042", RegistryAuthFailed).by(status(401)),
        Row::deny(at, "403", "X-042", RegistryAuthFailed).by(status(403)),
        Row::deny(at, "400", "X-042", RegistryAuthFailed).by(status(400)),
        Row::deny(at, "404", "X-042", RegistryAuthFailed).by(status(404)),
        Row::deny(at, "429", "X-042", RateLimited).by(status(429)),
        Row::deny(at, "500", "X-043", EvidenceUnavailable).by(status(500)),
        Row::deny(at, "reset", "X-043", EvidenceUnavailable).by(|_, _, _| vec![Act::Reset]),
        Row::deny(at, "cut short", "X-043", EvidenceUnavailable).by(|_, honest, _| half(&honest, Act::Close)),
        Row::deny(at, "cut JSON", "X-043", EvidenceUnavailable).by(|_, honest, _| cut_json(honest)),
        Row::deny(at, "no token in the reply", "S-9", RegistryAuthFailed).by(|_, _, _| Reply::new(200, "{}").whole()),
        Row::deny(at, "over 64 KiB", "S-8", BudgetExceeded)
            .by(|_, _, _| Reply::new(200, " ".repeat(64 * 1024 + 1)).whole()),
        Row::deny(at, "endless", "S-8", BudgetExceeded).by(|_, honest, _| endless(&honest)),
        Row::deny(at, "gzip", "X-100", EvidenceUnavailable).by(|_, honest, _| gzipped(honest)),
        Row::deny(at, "redirect to another host", "X-047", RegistryAuthFailed)
            .by(|_, _, around| redirect(&format!("http://{}/token", around.traps[0]))),
    ]
}

fn lists() -> Vec<Row> {
    use Code::{BudgetExceeded, EvidenceUnavailable, ManifestInvalid};
    let at = Stage::Referrers;
    let page = |entries: String, next: Option<String>| {
        let body = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{entries}]}}"#);
        let reply = Reply::new(200, body).with("Content-Type", INDEX);
        next.map_or_else(|| reply.clone(), |next| reply.clone().with("Link", &format!("<{next}>; rel=\"next\"")))
            .whole()
    };
    let entry = |n: usize| format!(r#"{{"mediaType":"{MANIFEST}","digest":"sha256:{n:064x}","size":7}}"#);
    vec![
        Row::deny(at, "pages without end", "X-097", BudgetExceeded).by(move |asked, _, _| {
            let number: usize = asked.query().trim_start_matches("n=").parse().unwrap_or(0);
            page(String::new(), Some(format!("?n={}", number + 1)))
        }),
        Row::deny(at, "one page under many names", "X-097", BudgetExceeded).by(move |asked, _, _| {
            let number: usize = asked.query().trim_start_matches("n=").parse().unwrap_or(0);
            page(entry(7), Some(format!("?n={}", number + 1)))
        }),
        Row::deny(at, "a next page that is itself", "X-097", BudgetExceeded)
            .by(move |asked, _, _| page(String::new(), Some(asked.target.clone()))),
        Row::deny(at, "a next page on another host", "S-2", BudgetExceeded).by(move |asked, _, around| {
            page(String::new(), Some(format!("https://{}{}", around.traps[1], asked.target)))
        }),
        Row::deny(at, "a next page that fails", "X-040", EvidenceUnavailable).by(move |asked, _, _| {
            if asked.query().is_empty() {
                page(String::new(), Some("?n=1".to_owned()))
            } else {
                Reply::error(500, "SAID").whole()
            }
        }),
        Row::deny(at, "a next page that is not there", "X-040", EvidenceUnavailable).by(move |asked, _, _| {
            if asked.query().is_empty() {
                page(String::new(), Some("?n=1".to_owned()))
            } else {
                Reply::error(404, "NOT_FOUND").whole()
            }
        }),
        Row::deny(at, "over 4 MiB", "X-098", BudgetExceeded)
            .by(|_, honest, _| Reply { body: vec![b' '; (4 << 20) + 1].into(), ..honest }.whole()),
        Row::deny(at, "20 000 entries on one page", "X-097", BudgetExceeded).by(move |_, _, _| {
            let entries: Vec<String> = (0..20_000).map(entry).collect();
            page(entries.join(","), None)
        }),
        Row::deny(at, "HTML", "S-2", EvidenceUnavailable)
            .by(|_, _, _| Reply::new(200, "<html>sign in</html>").with("Content-Type", "text/html").whole()),
        Row::deny(at, "over 100 referrers of others", "X-097", BudgetExceeded)
            .born(shape::plain, signed::by_101_referrers_of_others),
        Row::deny(Stage::SigTag, "the good one behind 100 others", "X-097", BudgetExceeded)
            .born(shape::plain, signed::behind_100_of_others),
        Row::deny(Stage::Image, "Content-Type of an index", "X-037", ManifestInvalid)
            .by(|_, honest, _| honest.with("Content-Type", INDEX).whole()),
        Row::deny(Stage::Candidate, "Content-Type of an index", "X-037", ManifestInvalid)
            .by(|_, honest, _| honest.with("Content-Type", INDEX).whole()),
    ]
}

fn contents() -> Vec<Row> {
    use Code::{BudgetExceeded, ImageNotFound, ManifestInvalid, Unsigned};
    let at = Stage::Image;
    let deny = |fault: &str, rule, code, shape| Row::deny(at, fault, rule, code).born(shape, signed::bundle);
    vec![
        deny("empty index", "X-039", ManifestInvalid, shape::empty_index),
        deny("indexes nested deeper than 2", "X-039", BudgetExceeded, shape::nested_deeper),
        deny("index of 65", "X-039", BudgetExceeded, shape::index_of_65),
        deny("manifest and index at once", "X-037", ManifestInvalid, shape::manifest_and_index),
        deny("schema 1", "X-037", ManifestInvalid, shape::schema_1),
        deny("unknown media type", "X-037", ManifestInvalid, shape::unknown_type),
        deny("manifest served as index", "X-037", ManifestInvalid, shape::two_types),
        Row::deny(at, "not signed", "X-051", Unsigned).born(shape::plain, signed::not_at_all),
        Row::deny(Stage::Connection, "repository not there", "X-040", ImageNotFound).born(
            |contents, repository, text| {
                let image = shape::plain(contents, repository, text);
                contents.0.clear();
                image
            },
            |_, _, _| {},
        ),
    ]
}

fn evidence() -> Vec<Row> {
    use Code::{BudgetExceeded, ManifestInvalid};
    let deny = |stage, fault: &str, rule, code, signed| Row::deny(stage, fault, rule, code).born(shape::plain, signed);
    vec![
        deny(Stage::Candidate, "a digest that is a path", "X-048", ManifestInvalid, signed::bundle_at_a_path)
            .unasked(&[Stage::Blob]),
        deny(Stage::Candidate, "a bundle over 256 KiB", "X-098", BudgetExceeded, signed::bundle_over_256_kib)
            .unasked(&[Stage::Blob]),
        deny(Stage::Candidate, "a bundle of a tebibyte", "X-098", BudgetExceeded, signed::bundle_of_a_tebibyte)
            .unasked(&[Stage::Blob]),
        deny(Stage::Blob, "5 log entries", "X-099", BudgetExceeded, signed::with_5_log_entries),
        deny(Stage::Blob, "5 timestamps", "X-099", BudgetExceeded, signed::with_5_timestamps),
        deny(Stage::Blob, "1 025 subjects", "X-099", BudgetExceeded, signed::with_1025_subjects),
    ]
}

/// What differs as little as possible from a fault, and is none.
fn twins() -> Vec<Row> {
    let well = |stage, name: &str, rule, signed| Row::admit(stage, name, rule).hung(signed);
    let slips = |stage, name: &str, times: usize, answer: fn() -> Answer| {
        Row::admit(stage, name, "twin")
            .by(move |asked, honest, _| if asked.nth < times { answer() } else { honest.whole() })
    };
    vec![
        well(Stage::Connection, "nothing wrong, bundle", "X-140", signed::bundle),
        well(Stage::Connection, "nothing wrong, .sig", "X-140", signed::sig),
        well(Stage::Connection, "nothing wrong, fallback tag", "X-140", signed::fallback),
        well(Stage::Connection, "nothing wrong, TLS", "twin", signed::bundle).broken(Broken::No, true),
        well(Stage::Challenge, "Basic", "twin", signed::bundle).auth(Auth::Basic),
        well(Stage::Challenge, "no authorization wanted", "twin", signed::bundle).auth(Auth::None),
        well(Stage::Referrers, "503, and .sig proves it", "S-11", signed::bundle_and_sig)
            .by(|_, _, _| Reply::error(503, "UNAVAILABLE").whole()),
        well(Stage::SigTag, "503, and the bundle proves it", "S-11", signed::bundle_and_sig)
            .by(|_, _, _| Reply::error(503, "UNAVAILABLE").whole()),
        slips(Stage::Image, "500 twice", 2, || Reply::error(500, "SAID").whole()),
        slips(Stage::Blob, "reset twice", 2, || vec![Act::Reset]),
        slips(Stage::Blob, "429 once, Retry-After: 1", 1, || {
            Reply::error(429, "TOOMANYREQUESTS").with("Retry-After", "1").whole()
        }),
        Row::admit(Stage::Blob, "redirect to storage, https", "X-047")
            .by(|asked, _, around| redirect(&format!("{}{}", around.storage, asked.target))),
        Row::admit(Stage::Image, "redirect on the same host", "twin").by(|asked, honest, _| {
            if asked.query().is_empty() { redirect(&format!("{}?once", asked.target)) } else { honest.whole() }
        }),
        Row::admit(Stage::Image, "index", "X-039").born(shape::index_of_one, signed::bundle),
        Row::admit(Stage::Image, "index in an index", "X-039").born(shape::index_in_index, signed::bundle),
        Row::admit(Stage::Image, "index of 64", "X-039").born(shape::index_of_64, signed::bundle),
        Row::admit(Stage::Blob, "a bundle of 256 KiB", "X-098").born(shape::plain, signed::bundle_of_256_kib),
        Row::admit(Stage::Blob, "1 024 subjects", "X-099").born(shape::plain, signed::with_1024_subjects),
    ]
}
