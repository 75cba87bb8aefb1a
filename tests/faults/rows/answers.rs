//! What can be wrong with any answer: silence, refusals, broken transport, too many bytes, wrong ones, redirects.

use bytes::Bytes;
use provost::decision::code::Code;

use super::Row;
use crate::sample::Stage;
use crate::spoil::{cut_json, drip, endless, flipped, gzipped, half, redirect};
use crate::wire::{Act, Around, Asked, Reply};

/// What one manifest, one list and one blob show for all: the rest is read by the same code.
const SAID_ELSEWHERE: [&str; 13] = [
    "silent in the head",
    "429, Retry-After: 3600",
    "503, Retry-After: 1",
    "500 with an endless body",
    "400",
    "410",
    "closed before the answer",
    "not HTTP",
    "headers without end",
    "said to be zstd",
    "redirect to an unlisted host, https",
    "redirect to an address in disguise",
    "redirect to a file",
];

/// What can be wrong with the answer at one stage. The code may depend on what was asked for.
pub(super) fn at(stage: Stage) -> Vec<Row> {
    let mut rows = [silent(stage), refused(stage), broken(stage), too_much(stage), elsewhere(stage)].concat();
    if is_by_digest(stage) {
        rows.extend(other_bytes(stage));
    }
    let in_full = matches!(stage, Stage::Image | Stage::Referrers | Stage::Blob);
    rows.retain(|row| in_full || !SAID_ELSEWHERE.contains(&row.fault.as_str()));
    rows
}

/// By digest, the body is hashed; a tag and a list prove nothing by themselves.
fn is_by_digest(stage: Stage) -> bool {
    matches!(stage, Stage::Image | Stage::Candidate | Stage::Blob)
}

fn silent(stage: Stage) -> Vec<Row> {
    use Code::DeadlineExceeded;
    let deny = |fault: &str, rule, code| Row::deny(stage, fault, rule, code);
    vec![
        deny("no answer", "X-044", DeadlineExceeded).by(|_, _, _| vec![Act::Hang]).slow(),
        deny("silent in the head", "X-044", DeadlineExceeded)
            .by(|_, honest, _| vec![Act::Send(honest.head().into()), Act::Hang])
            .slow(),
        deny("silent in the body", "X-044", DeadlineExceeded).by(|_, honest, _| half(&honest, Act::Hang)).slow(),
        deny("a byte at a time", "X-044", DeadlineExceeded).by(|_, honest, _| drip(&honest)).slow(),
    ]
}

fn refused(stage: Stage) -> Vec<Row> {
    use Code::{EvidenceMalformed, EvidenceUnavailable, ImageNotFound, RateLimited, RegistryAuthFailed, Unsigned};
    let deny = |fault: &str, rule, code| Row::deny(stage, fault, rule, code);
    let status = |code: u16| move |_: &Asked, _: Reply, _: &Around| Reply::error(code, "SAID").whole();
    let mut rows = vec![
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
    ];
    rows.push(match stage {
        Stage::Image => deny("404", "X-040", ImageNotFound).by(status(404)),
        Stage::Candidate | Stage::Blob => deny("404", "S-9", EvidenceMalformed).by(status(404)),
        Stage::Connection | Stage::Challenge | Stage::Token | Stage::Referrers | Stage::FallbackTag | Stage::SigTag => {
            deny("404", "X-051", Unsigned).by(status(404))
        }
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
    if stage == Stage::Image {
        rows.push(
            deny("429, Retry-After: 5, with 3 s left", "X-042", RateLimited)
                .by(|_, _, _| Reply::error(429, "TOOMANYREQUESTS").with("Retry-After", "5").whole())
                .slow(),
        );
    }
    rows
}

fn broken(stage: Stage) -> Vec<Row> {
    use Code::{DigestMismatch, EvidenceUnavailable};
    let deny = |fault: &str, rule, code| Row::deny(stage, fault, rule, code);
    let mut rows = vec![
        deny("reset before the answer", "X-043", EvidenceUnavailable).by(|_, _, _| vec![Act::Reset]),
        deny("reset in the body", "X-043", EvidenceUnavailable).by(|_, honest, _| half(&honest, Act::Reset)),
        deny("closed before the answer", "X-043", EvidenceUnavailable).by(|_, _, _| vec![Act::Close]),
        deny("cut short", "X-043", EvidenceUnavailable).by(|_, honest, _| half(&honest, Act::Close)),
        deny("not HTTP", "X-043", EvidenceUnavailable).by(|_, _, _| {
            vec![Act::Send(Bytes::from_static(b"\x15\x03\x01\x00\x02\x02\x46 hello\r\n\r\n")), Act::Close]
        }),
        deny("headers without end", "X-098", EvidenceUnavailable).by(|_, honest, _| {
            vec![Act::Send(honest.head().into()), Act::Endless("X-More: and more and more\r\n".repeat(1000).into())]
        }),
    ];
    rows.push(match stage {
        Stage::Image | Stage::Candidate | Stage::Blob => {
            deny("cut JSON", "X-035", DigestMismatch).by(|_, honest, _| cut_json(honest))
        }
        Stage::Connection | Stage::Challenge | Stage::Token | Stage::Referrers | Stage::FallbackTag | Stage::SigTag => {
            deny("cut JSON", "X-043", EvidenceUnavailable).by(|_, honest, _| cut_json(honest))
        }
    });
    rows
}

fn too_much(stage: Stage) -> Vec<Row> {
    use Code::{BudgetExceeded, DigestMismatch, EvidenceUnavailable};
    // Only the length of a blob is known before it is asked for.
    let too_long = if stage == Stage::Blob { DigestMismatch } else { BudgetExceeded };
    let deny = |fault: &str, rule, code| Row::deny(stage, fault, rule, code);
    vec![
        deny("gzip", "X-100", EvidenceUnavailable).by(|_, honest, _| gzipped(honest)),
        deny("said to be zstd", "X-100", EvidenceUnavailable)
            .by(|_, honest, _| honest.with("Content-Encoding", "zstd").whole()),
        deny("declares 5 GiB", "X-098", too_long).by(|_, honest, _| {
            let mut answer = honest.claiming(5 << 30);
            answer.push(Act::Hang);
            answer
        }),
        deny("endless body", "X-098", too_long).by(|_, honest, _| endless(&honest)),
    ]
}

fn elsewhere(stage: Stage) -> Vec<Row> {
    use Code::{AddressRefused, EvidenceUnavailable, Unsigned};
    // S-2: from the referrers API it means "no API here"; the fallback tag is asked, and has nothing.
    let elsewhere = if stage == Stage::Referrers { Unsigned } else { AddressRefused };
    let deny = |fault: &str, rule, code| Row::deny(stage, fault, rule, code);
    vec![
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
        deny("redirect without a Location", "S-9", EvidenceUnavailable).by(|_, _, _| Reply::new(307, "").whole()),
    ]
}

fn other_bytes(stage: Stage) -> Vec<Row> {
    use Code::DigestMismatch;
    let deny = |fault: &str, rule, code| Row::deny(stage, fault, rule, code);
    vec![
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
    ]
}
