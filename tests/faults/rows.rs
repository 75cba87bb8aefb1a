//! The faults: what a registry does wrong, at which stage, and how that must end. The codes are those of the design; where
//! Provost answers otherwise the row says so, and the table shows it.

use std::sync::Arc;

use bytes::Bytes;
use provost::decision::code::Code;

use crate::sample::{MANIFEST, INDEX, Shape, Signed, Stage, shape, signed};
use crate::wire::{Act, Answer, Around, Asked, Auth, Door, Reply, Spoil};

/// How a review of the image must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Admit,
    Deny(Code),
}

/// How the same review must end if it was proven before the fault began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Warm {
    /// A proof is kept for ten minutes, whatever becomes of the registry.
    Admit,
    /// The image never was provable.
    Same,
}

/// How the settings know the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listing {
    /// With its network.
    Listed,
    /// With another network.
    OtherNetwork,
    /// Not at all.
    Unlisted,
    /// Not at all, and named `localhost`.
    UnlistedName,
}

/// Which certificate a registry shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    Expired,
    OtherName,
    UnknownCa,
}

/// How connections fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    No,
    Refuse,
    Silent,
    Close,
    Reset,
    PlainText,
    Certificate(Shown),
}

impl Broken {
    /// As the server does it; a certificate is made by whoever has the authority.
    pub(crate) fn door(self, present: impl FnOnce(Shown) -> tokio_rustls::TlsAcceptor) -> Door {
        match self {
            Self::No => Door::Open,
            Self::Refuse => Door::Refuse,
            Self::Silent => Door::Silent,
            Self::Close => Door::Close,
            Self::Reset => Door::Reset,
            Self::PlainText => Door::PlainText,
            Self::Certificate(shown) => Door::Present(present(shown)),
        }
    }
}

/// One fault.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) stage: Stage,
    pub(crate) fault: String,
    /// The rule that says how it must end.
    pub(crate) rule: &'static str,
    pub(crate) want: Want,
    /// The code that comes instead, and the finding that says why.
    pub(crate) departs: Option<(Code, &'static str)>,
    pub(crate) warm: Warm,
    /// `timeoutSeconds` of the webhook.
    pub(crate) seconds: u64,
    pub(crate) shape: Shape,
    pub(crate) signed: Signed,
    pub(crate) listing: Listing,
    pub(crate) tls: bool,
    pub(crate) broken: Broken,
    pub(crate) auth: Auth,
    pub(crate) spoil: Option<Spoil>,
    /// Stages that may not be asked.
    pub(crate) unasked: &'static [Stage],
}

impl Row {
    fn new(stage: Stage, fault: impl Into<String>, rule: &'static str, want: Want) -> Self {
        let signed = match stage {
            Stage::FallbackTag => signed::fallback,
            Stage::SigTag => signed::sig,
            Stage::Connection
            | Stage::Challenge
            | Stage::Token
            | Stage::Image
            | Stage::Referrers
            | Stage::Candidate
            | Stage::Blob => signed::bundle,
        };
        Self {
            stage,
            fault: fault.into(),
            rule,
            want,
            departs: None,
            warm: Warm::Admit,
            seconds: QUICK,
            shape: shape::plain,
            signed,
            listing: Listing::Listed,
            tls: false,
            broken: Broken::No,
            auth: Auth::Bearer,
            spoil: None,
            unasked: &[],
        }
    }

    fn deny(stage: Stage, fault: impl Into<String>, rule: &'static str, code: Code) -> Self {
        Self::new(stage, fault, rule, Want::Deny(code))
    }

    fn admit(stage: Stage, fault: impl Into<String>, rule: &'static str) -> Self {
        Self::new(stage, fault, rule, Want::Admit)
    }

    /// What the registry answers at this stage.
    fn by(mut self, spoil: impl Fn(&Asked, Reply, &Around) -> Answer + Send + Sync + 'static) -> Self {
        self.spoil = Some(Arc::new(spoil));
        self
    }

    /// What hangs on the image, from the beginning.
    fn hung(mut self, signed: Signed) -> Self {
        self.signed = signed;
        self
    }

    /// An image that is as it is, so that no proof can have come before the fault.
    fn born(mut self, shape: Shape, signed: Signed) -> Self {
        (self.shape, self.signed, self.warm) = (shape, signed, Warm::Same);
        self
    }

    /// Whether it takes as long as the caller waits.
    pub(crate) fn is_slow(&self) -> bool {
        self.seconds == SLOW
    }

    fn slow(mut self) -> Self {
        self.seconds = SLOW;
        self
    }

    fn departs(mut self, code: Code, finding: &'static str) -> Self {
        self.departs = Some((code, finding));
        self
    }

    fn broken(mut self, broken: Broken, tls: bool) -> Self {
        (self.broken, self.tls) = (broken, tls);
        self
    }

    fn listing(mut self, listing: Listing) -> Self {
        (self.listing, self.warm) = (listing, Warm::Same);
        self.unasked = &EVERYTHING;
        self
    }

    fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    fn unasked(mut self, stages: &'static [Stage]) -> Self {
        self.unasked = stages;
        self
    }
}

/// `timeoutSeconds` where the answer does not wait for time to pass: the default.
const QUICK: u64 = 10;
/// `timeoutSeconds` where it does.
const SLOW: u64 = 3;
const EVERYTHING: [Stage; 8] = [
    Stage::Challenge,
    Stage::Token,
    Stage::Image,
    Stage::Referrers,
    Stage::FallbackTag,
    Stage::SigTag,
    Stage::Candidate,
    Stage::Blob,
];

/// Every row.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = connections();
    rows.extend(challenges());
    rows.extend(tokens());
    for stage in [
        Stage::Image,
        Stage::Referrers,
        Stage::FallbackTag,
        Stage::SigTag,
        Stage::Candidate,
        Stage::Blob,
    ] {
        rows.extend(answers(stage));
    }
    rows.extend(lists());
    rows.extend(contents());
    rows.extend(evidence());
    rows.extend(twins());
    rows
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
    use Code::{BudgetExceeded, DeadlineExceeded, EvidenceUnavailable, ManifestInvalid, RateLimited, RegistryAuthFailed};
    let at = Stage::Token;
    let status = |code: u16| move |_: &Asked, _: Reply, _: &Around| Reply::error(code, "SAID").whole();
    vec![
        Row::deny(at, "no answer", "X-044", DeadlineExceeded).by(|_, _, _| vec![Act::Hang]).slow(),
        Row::deny(at, "silent in the body", "X-044", DeadlineExceeded).by(|_, honest, _| half(&honest, Act::Hang)).slow(),
        Row::deny(at, "401", "X-042", RegistryAuthFailed).by(status(401)),
        Row::deny(at, "403", "X-042", RegistryAuthFailed).by(status(403)),
        Row::deny(at, "400", "X-042", RegistryAuthFailed).by(status(400)),
        Row::deny(at, "404", "X-042", RegistryAuthFailed).by(status(404)),
        Row::deny(at, "429", "X-042", RateLimited).by(status(429)),
        Row::deny(at, "500", "X-043", EvidenceUnavailable).by(status(500)),
        Row::deny(at, "reset", "X-043", EvidenceUnavailable).by(|_, _, _| vec![Act::Reset]),
        Row::deny(at, "cut short", "X-043", EvidenceUnavailable).by(|_, honest, _| half(&honest, Act::Close)),
        Row::deny(at, "cut JSON", "X-043", EvidenceUnavailable)
            .by(|_, honest, _| cut_json(honest))
            .departs(ManifestInvalid, "F-03"),
        Row::deny(at, "no token in the reply", "S-9", RegistryAuthFailed)
            .by(|_, _, _| Reply::new(200, "{}").whole())
            .departs(ManifestInvalid, "F-03"),
        Row::deny(at, "over 64 KiB", "S-8", BudgetExceeded)
            .by(|_, _, _| Reply::new(200, " ".repeat(64 * 1024 + 1)).whole()),
        Row::deny(at, "endless", "S-8", BudgetExceeded).by(|_, honest, _| endless(&honest)),
        Row::deny(at, "gzip", "X-100", EvidenceUnavailable).by(|_, honest, _| gzipped(honest)),
        Row::deny(at, "redirect to another host", "X-047", RegistryAuthFailed)
            .by(|_, _, around| redirect(&format!("http://{}/token", around.traps[0]))),
    ]
}

/// What can be wrong with any answer. The code may depend on what was asked for.
fn answers(stage: Stage) -> Vec<Row> {
    use Code::{
        AddressRefused, BudgetExceeded, DeadlineExceeded, DigestMismatch, EvidenceMalformed, EvidenceUnavailable,
        ImageNotFound, ManifestInvalid, RateLimited, RegistryAuthFailed, Unsigned,
    };
    // By digest, the body is hashed; a tag and a list prove nothing by themselves.
    let by_digest = matches!(stage, Stage::Image | Stage::Candidate | Stage::Blob);
    // Only the length of a blob is known before it is asked for.
    let too_long = if stage == Stage::Blob { DigestMismatch } else { BudgetExceeded };
    // signatures.md section 2: a redirect to another host means "no API here"; the fallback tag is asked, and has nothing.
    let elsewhere = if stage == Stage::Referrers { Unsigned } else { AddressRefused };
    let status = |code: u16| move |_: &Asked, _: Reply, _: &Around| Reply::error(code, "SAID").whole();
    let deny = |fault: &str, rule, code| Row::deny(stage, fault, rule, code);
    let mut rows = vec![
        deny("no answer", "X-044", DeadlineExceeded).by(|_, _, _| vec![Act::Hang]).slow(),
        deny("silent in the head", "X-044", DeadlineExceeded)
            .by(|_, honest, _| vec![Act::Send(honest.head().into()), Act::Hang])
            .slow(),
        deny("silent in the body", "X-044", DeadlineExceeded).by(|_, honest, _| half(&honest, Act::Hang)).slow(),
        deny("a byte at a time", "X-044", DeadlineExceeded).by(|_, honest, _| drip(&honest)).slow(),
        deny("401 again and again", "X-042", RegistryAuthFailed).by(|_, _, around| {
            let challenge = format!("Bearer realm=\"{}/token\",service=\"here\"", around.base);
            Reply::error(401, "UNAUTHORIZED").with("WWW-Authenticate", &challenge).whole()
        }),
        deny("403", "X-042", RegistryAuthFailed).by(status(403)),
        deny("429", "X-042", RateLimited).by(status(429)),
        deny("429, Retry-After: 1", "X-042", RateLimited)
            .by(|_, _, _| Reply::error(429, "TOOMANYREQUESTS").with("Retry-After", "1").whole()),
        deny("429, Retry-After: 3600", "X-042", RateLimited)
            .by(|_, _, _| Reply::error(429, "TOOMANYREQUESTS").with("Retry-After", "3600").whole()),
        deny("500", "X-040", EvidenceUnavailable).by(status(500)),
        deny("503, Retry-After: 1", "X-040", EvidenceUnavailable)
            .by(|_, _, _| Reply::error(503, "UNAVAILABLE").with("Retry-After", "1").whole()),
        deny("500 with an endless body", "X-040", EvidenceUnavailable)
            .by(|_, honest, _| endless(&Reply { status: 500, ..honest })),
        deny("204", "X-040", EvidenceUnavailable).by(|_, _, _| Reply::new(204, "").whole()),
        deny("400", "X-040", EvidenceUnavailable).by(status(400)),
        deny("410", "X-040", EvidenceUnavailable).by(status(410)),
        deny("reset before the answer", "X-043", EvidenceUnavailable).by(|_, _, _| vec![Act::Reset]),
        deny("reset in the body", "X-043", EvidenceUnavailable).by(|_, honest, _| half(&honest, Act::Reset)),
        deny("closed before the answer", "X-043", EvidenceUnavailable).by(|_, _, _| vec![Act::Close]),
        deny("cut short", "X-043", EvidenceUnavailable).by(|_, honest, _| half(&honest, Act::Close)),
        deny("not HTTP", "X-043", EvidenceUnavailable)
            .by(|_, _, _| vec![Act::Send(Bytes::from_static(b"\x15\x03\x01\x00\x02\x02\x46 hello\r\n\r\n")), Act::Close]),
        deny("headers without end", "X-098", EvidenceUnavailable).by(|_, honest, _| {
            vec![Act::Send(honest.head().into()), Act::Endless("X-More: and more and more\r\n".repeat(1000).into())]
        }),
        deny("gzip", "X-100", EvidenceUnavailable).by(|_, honest, _| gzipped(honest)),
        deny("said to be zstd", "X-100", EvidenceUnavailable)
            .by(|_, honest, _| honest.with("Content-Encoding", "zstd").whole()),
        deny("declares 5 GiB", "X-098", too_long).by(|_, honest, _| {
            let mut answer = honest.claiming(5 << 30);
            answer.push(Act::Hang);
            answer
        }),
        deny("endless body", "X-098", too_long).by(|_, honest, _| endless(&honest)),
        deny("redirect to another host, http", "X-045", elsewhere)
            .by(|asked, _, around| redirect(&format!("http://{}{}", around.traps[0], asked.target))),
        deny("redirect to an unlisted host, https", "X-045", elsewhere)
            .by(|asked, _, around| redirect(&format!("https://{}{}", around.traps[1], asked.target))),
        deny("redirect to link-local", "X-045", elsewhere)
            .by(|_, _, _| redirect("https://169.254.169.254/latest/meta-data/")),
        deny("redirect to an address in disguise", "X-045", AddressRefused)
            .by(|_, _, _| redirect("https://0xa9fea9fe/latest/meta-data/")),
        deny("redirect to a file", "X-045", AddressRefused).by(|_, _, _| redirect("file:///etc/passwd")),
        deny("redirect in a circle", "X-045", AddressRefused).by(|asked, _, _| redirect(&asked.target)),
        {
            let row = deny("redirect without a Location", "S-9", EvidenceUnavailable)
                .by(|_, _, _| Reply::new(307, "").whole());
            if by_digest { row.departs(ManifestInvalid, "F-02") } else { row }
        },
    ];
    rows.push(match stage {
        Stage::Image | Stage::Candidate | Stage::Blob => {
            deny("cut JSON", "X-035", DigestMismatch).by(|_, honest, _| cut_json(honest))
        }
        Stage::FallbackTag | Stage::SigTag => deny("cut JSON", "X-043", EvidenceUnavailable)
            .by(|_, honest, _| cut_json(honest))
            .departs(ManifestInvalid, "F-01"),
        Stage::Connection | Stage::Challenge | Stage::Token | Stage::Referrers => {
            deny("cut JSON", "X-043", EvidenceUnavailable).by(|_, honest, _| cut_json(honest))
        }
    });
    rows.push(match stage {
        Stage::Image => deny("404", "X-040", ImageNotFound).by(status(404)),
        Stage::Candidate | Stage::Blob => deny("404", "S-9", EvidenceMalformed).by(status(404)),
        Stage::Connection
        | Stage::Challenge
        | Stage::Token
        | Stage::Referrers
        | Stage::FallbackTag
        | Stage::SigTag => deny("404", "X-051", Unsigned).by(status(404)),
    });
    rows.push(match stage {
        Stage::Referrers => deny("405", "S-2", Unsigned).by(status(405)),
        Stage::Connection
        | Stage::Challenge
        | Stage::Token
        | Stage::Image
        | Stage::FallbackTag
        | Stage::SigTag
        | Stage::Candidate
        | Stage::Blob => deny("405", "X-040", EvidenceUnavailable).by(status(405)),
    });
    if by_digest {
        rows.extend([
            deny("one bit flipped", "X-035", DigestMismatch).by(|asked, honest, _| {
                let claimed = asked.target.rsplit('/').next().unwrap_or_default().to_owned();
                flipped(honest).with("Docker-Content-Digest", &claimed).whole()
            }),
            deny("one byte more", "X-035", DigestMismatch).by(|_, honest, _| {
                let body = [&honest.body[..], b"\n"].concat();
                Reply { body: body.into(), ..honest }.whole()
            }),
            deny("declares one byte less", "X-035", DigestMismatch).by(|_, honest, _| {
                let mut answer = honest.claiming(honest.body.len() as u64 - 1);
                answer.push(Act::Close);
                answer
            }),
            deny("nothing", "X-035", DigestMismatch).by(|_, honest, _| Reply { body: Bytes::new(), ..honest }.whole()),
        ]);
    }
    rows
}

fn lists() -> Vec<Row> {
    use Code::{BudgetExceeded, EvidenceUnavailable, ManifestInvalid};
    let at = Stage::Referrers;
    let page = |entries: String, next: Option<String>| {
        let body = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{entries}]}}"#);
        let reply = Reply::new(200, body).with("Content-Type", INDEX);
        next.map_or_else(|| reply.clone(), |next| reply.clone().with("Link", &format!("<{next}>; rel=\"next\""))).whole()
    };
    let entry = |n: usize| format!(r#"{{"mediaType":"{MANIFEST}","digest":"sha256:{n:064x}","size":7}}"#);
    vec![
        Row::deny(at, "pages without end", "X-097", BudgetExceeded).by(move |asked, _, _| {
            let number: usize = asked.query().trim_start_matches("n=").parse().unwrap_or(0);
            page(String::new(), Some(format!("?n={}", number + 1)))
        }),
        Row::deny(at, "one page under many names", "X-097", BudgetExceeded).by(move |asked, honest, _| {
            let number: usize = asked.query().trim_start_matches("n=").parse().unwrap_or(0);
            let junk = Reply { body: honest.body.clone(), ..honest };
            let empty = r#"{"schemaVersion":2,"manifests":[]}"#;
            Reply { body: empty.into(), ..junk }.with("Link", &format!("<?n={}>; rel=\"next\"", number + 1)).whole()
        }),
        Row::deny(at, "a next page that is itself", "X-097", BudgetExceeded)
            .by(move |asked, _, _| page(String::new(), Some(asked.target.clone()))),
        Row::deny(at, "a next page on another host", "S-2", BudgetExceeded)
            .by(move |asked, _, around| page(String::new(), Some(format!("https://{}{}", around.traps[1], asked.target)))),
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
        Row::admit(stage, name, "twin").by(move |asked, honest, _| if asked.nth < times { answer() } else { honest.whole() })
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

/// Half of the body, and then something else.
fn half(reply: &Reply, then: Act) -> Answer {
    let length = reply.body.len();
    let head = format!("{}Content-Length: {length}\r\n\r\n", reply.head());
    vec![Act::Send(head.into()), Act::Send(reply.body.slice(..length / 2)), then]
}

fn drip(reply: &Reply) -> Answer {
    let head = format!("{}Content-Length: {}\r\n\r\n", reply.head(), reply.body.len());
    vec![Act::Send(head.into()), Act::Drip(reply.body.clone())]
}

/// Chunks of 64 KiB, for as long as anybody takes them.
fn endless(reply: &Reply) -> Answer {
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    vec![Act::Send(format!("{}Transfer-Encoding: chunked\r\n\r\n", reply.head()).into()), Act::Endless(chunk.into())]
}

/// The first half of the body as if it were all.
fn cut_json(reply: Reply) -> Answer {
    Reply { body: reply.body.slice(..reply.body.len() / 2), ..reply }.whole()
}

fn flipped(reply: Reply) -> Reply {
    let mut body = reply.body.to_vec();
    if let Some(last) = body.last_mut() {
        *last ^= 1;
    }
    Reply { body: body.into(), ..reply }
}

fn redirect(to: &str) -> Answer {
    Reply::new(307, "").with("Location", to).whole()
}

/// The same, truly in gzip: whoever decodes it reads what is right.
fn gzipped(reply: Reply) -> Answer {
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
