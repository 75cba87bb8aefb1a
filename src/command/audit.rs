//! `provost audit`: reads ledgers, while a server writes them or after. It must never write to one, nor print untrusted text
//! as it is.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use jiff::{Timestamp, civil, tz::TimeZone};

use crate::decision::chain::{End, Finding, Tampering, Verifier};
use crate::decision::code::Code;
use crate::decision::printable::{printable, printable_json};
use crate::decision::record::RecordPlace;
use crate::decision::reference::{Digest, ImageRef};
use crate::edge::clock;
use crate::edge::ledger::{Filter, ImageFilter, Reader, Shown, StoredRecord};

mod show;
mod stats;
mod table;

/// Flags of `provost audit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Records that match, the oldest first
    #[command(after_help = "Example: provost audit query --since 1h --verdict deny --code unsigned -o csv")]
    Query(Box<QueryArgs>),
    /// One record, whole
    #[command(after_help = "Example: provost audit show kqzt-184467")]
    Show(ShowArgs),
    /// The newest records, and with -f those that come
    #[command(after_help = "Example: provost audit tail -f -n 20")]
    Tail(TailArgs),
    /// How many records, by verdict, code and namespace
    #[command(after_help = "Example: provost audit stats --since 7d")]
    Stats(StatsArgs),
    /// Whether every record is as it was written: 0 yes, 1 no (findings by record), 2 could not tell
    #[command(after_help = "Example: provost audit verify --ledger ledger.db\n\
        Give the names of records that others keep (the API server's audit log has one for each review), and they must be \
        there: provost audit verify kqzt-184467-9f3c2a7e11d0c4aa")]
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
struct Ledgers {
    /// The ledger's file; given several times, ledgers are merged by time
    #[arg(long = "ledger", value_name = "PATH", env = "PROVOST_LEDGER", default_value = "ledger.db")]
    paths: Vec<PathBuf>,
}

impl Ledgers {
    fn open(&self) -> anyhow::Result<Vec<Reader>> {
        self.paths.iter().map(|path| Reader::open(path).with_context(|| shown_path(path))).collect()
    }
}

#[derive(Debug, clap::Args)]
struct QueryArgs {
    #[command(flatten)]
    ledgers: Ledgers,
    /// The namespace of the review
    #[arg(long, short)]
    namespace: Option<String>,
    /// From then on: 90m, 1h, 7d, 2026-11-01 or 2026-11-01T09:30:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Before then
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
    /// admit, deny, override, would-deny, no-images; or the kind of another event: started, stopped, recovered, …
    #[arg(long)]
    verdict: Option<String>,
    /// Overrides only: what was admitted although it was refused
    #[arg(long, conflicts_with = "verdict")]
    break_glass: bool,
    /// A reason code, for example unsigned
    #[arg(long, value_parser = parse_code)]
    code: Option<Code>,
    /// A repository, or an image with its digest; a tag is not looked at
    #[arg(long, value_parser = parse_image)]
    image: Option<ImageRef>,
    /// A digest, sha256:…
    #[arg(long, value_parser = str::parse::<Digest>)]
    digest: Option<Digest>,
    /// Who sent the request
    #[arg(long)]
    user: Option<String>,
    /// The newest so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// How they are printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people
    #[default]
    Table,
    /// One record a line, complete
    Json,
    /// RFC 4180, with a line of names
    Csv,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    ledgers: Ledgers,
    /// Its name, or the first two parts of it
    record: RecordPlace,
    /// json: the record as it is stored
    #[arg(short, long, value_enum, default_value_t)]
    output: ShowOutput,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum ShowOutput {
    /// For people
    #[default]
    Table,
    /// One line
    Json,
}

#[derive(Debug, clap::Args)]
struct TailArgs {
    #[command(flatten)]
    ledgers: Ledgers,
    /// How many to begin with
    #[arg(short = 'n', long, default_value_t = 10)]
    lines: u32,
    /// Go on with those that come
    #[arg(short, long)]
    follow: bool,
    /// How they are printed
    #[arg(short, long, value_enum, default_value_t)]
    output: ShowOutput,
}

#[derive(Debug, clap::Args)]
struct StatsArgs {
    #[command(flatten)]
    ledgers: Ledgers,
    /// From then on: 90m, 1h, 7d, 2026-11-01 or 2026-11-01T09:30:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Before then
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
    /// How they are printed
    #[arg(short, long, value_enum, default_value_t)]
    output: ShowOutput,
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    #[command(flatten)]
    ledgers: Ledgers,
    /// Names of records that must be there
    records: Vec<RecordPlace>,
}

impl Args {
    /// Runs it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut out = BufWriter::new(io::stdout().lock());
        // Findings that nobody reads must not end as if there were none.
        let unread = if matches!(self.command, Command::Verify(_)) { ExitCode::from(2) } else { ExitCode::SUCCESS };
        let result = self.command.run(&mut out);
        match result.and_then(|code| out.flush().map(|()| code).map_err(Into::into)) {
            // Whoever reads has seen enough, as with `| head`.
            Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
                Ok(unread)
            }
            result => result,
        }
    }
}

impl Command {
    fn run(self, out: &mut impl Write) -> anyhow::Result<ExitCode> {
        match self {
            Self::Query(args) => query(&args, out),
            Self::Show(args) => show(&args, out),
            Self::Tail(args) => tail(&args, out),
            Self::Stats(args) => stats(&args, out),
            Self::Verify(args) => verify(&args, out),
        }
    }
}

/// Records as `provost audit query` shows them.
pub(super) fn table(records: &[StoredRecord], out: &mut impl Write) -> io::Result<()> {
    table::print(records, out)
}

fn query(args: &QueryArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    if let (Some(image), Some(digest)) = (&args.image, args.digest)
        && image.digest().is_some_and(|of_image| of_image != digest)
    {
        anyhow::bail!("--image and --digest name two digests: no record can match");
    }
    let filter = Filter {
        namespace: args.namespace.clone(),
        since: args.since,
        until: args.until,
        verdict: if args.break_glass { Some("override".to_owned()) } else { args.verdict.clone() },
        code: args.code,
        image: ImageFilter {
            repository: args.image.as_ref().map(|image| image.repository().clone()),
            digest: args.digest.or_else(|| args.image.as_ref().and_then(ImageRef::digest)),
        },
        user: args.user.clone(),
    };
    let limit = args.limit as usize;
    let mut records = Vec::new();
    let mut more = false;
    for reader in args.ledgers.open()? {
        let mut count = 0;
        reader.query(&filter, |record| {
            if count == limit {
                more = true;
                return std::ops::ControlFlow::Break(());
            }
            count += 1;
            records.push(record);
            std::ops::ControlFlow::Continue(())
        })?;
    }
    sort_by_time(&mut records);
    let surplus = records.len().saturating_sub(limit);
    more |= surplus > 0;
    let records = &records[surplus..];
    match args.output {
        Output::Table => table::print(records, out)?,
        Output::Json => records.iter().try_for_each(|record| writeln!(out, "{}", as_json(record)))?,
        Output::Csv => table::print_csv(records, out)?,
    }
    out.flush()?;
    if more {
        eprintln!("provost: the newest {limit} are shown, and there are more: use --limit, --since or --until");
    }
    Ok(ExitCode::SUCCESS)
}

/// By time, and where two are equal by their order in their file.
fn sort_by_time(records: &mut [StoredRecord]) {
    records.sort_by(|a, b| (a.time, a.position, &a.name).cmp(&(b.time, b.position, &b.name)));
}

fn show(args: &ShowArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut lost = false;
    let mut other = None;
    for reader in args.ledgers.open()? {
        match reader.show(args.record)? {
            Shown::Found(record) => {
                match args.output {
                    ShowOutput::Table => show::print(&record, out)?,
                    ShowOutput::Json => writeln!(out, "{}", as_json(&record))?,
                }
                return Ok(ExitCode::SUCCESS);
            }
            Shown::LostInCrash => lost = true,
            Shown::Other(record) => other = Some(record.name),
            Shown::Unknown => {}
        }
    }
    let record = args.record;
    if let Some(other) = other {
        eprintln!("provost: {record} is not in the ledger: in its place stands {}", printable(&other));
    } else if lost {
        eprintln!("provost: {record} is lost-in-crash: its server ended before it was on disk");
    } else {
        eprintln!("provost: {record} is not in the ledger");
    }
    Ok(ExitCode::from(1))
}

fn tail(args: &TailArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let readers = args.ledgers.open()?;
    let mut positions = Vec::with_capacity(readers.len());
    let mut records = Vec::new();
    for reader in &readers {
        let newest = reader.tail(args.lines.max(1))?;
        positions.push(newest.last().map_or(0, |record| record.position));
        records.extend(newest);
    }
    sort_by_time(&mut records);
    let surplus = records.len().saturating_sub(args.lines as usize);
    print_lines(&records[surplus..], args.output, out)?;
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(250));
        loop {
            ticks.tick().await;
            let mut records = Vec::new();
            for (reader, position) in readers.iter().zip(&mut positions) {
                let more = reader.after(*position)?;
                *position = more.last().map_or(*position, |record| record.position);
                records.extend(more);
            }
            sort_by_time(&mut records);
            print_lines(&records, args.output, out)?;
        }
    })
}

fn print_lines(records: &[StoredRecord], output: ShowOutput, out: &mut impl Write) -> io::Result<()> {
    for record in records {
        match output {
            ShowOutput::Table => table::print_line(record, out)?,
            ShowOutput::Json => writeln!(out, "{}", as_json(record))?,
        }
    }
    out.flush()
}

fn stats(args: &StatsArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let readers = args.ledgers.open()?;
    let each = readers.iter().map(|reader| reader.stats(args.since, args.until)).collect::<Result<Vec<_>, _>>()?;
    let all = stats::sum(each);
    match args.output {
        ShowOutput::Table => stats::print(&all, out)?,
        ShowOutput::Json => writeln!(out, "{}", stats::as_json(&all))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(args: &VerifyArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let readers = args.ledgers.open()?;
    let mut sound = true;
    for reader in &readers {
        let path = shown_path(reader.path());
        let mut verifier = Verifier::default();
        // With several ledgers, each answers for its own chains.
        for place in args.records.iter().filter(|place| readers.len() == 1 || has_chain(reader, **place)) {
            verifier.expect(*place);
        }
        for stored in reader.all() {
            verifier.push(&stored.with_context(|| format!("{path} can not be read to its end"))?);
        }
        let stray = reader.stray_image()?.map(|place| Finding {
            kind: Tampering::ColumnsChanged,
            record: place,
            detail: "record_images has rows of a record that is not there".to_owned(),
        });
        match (verifier.finish(), stray) {
            (Ok(summary), None) => {
                writeln!(
                    out,
                    "{path}: {} records in {} chains, all as they were written",
                    summary.records,
                    summary.chains.len()
                )?;
                for chain in &summary.chains {
                    writeln!(out, "  {} ends with {}, {}", chain.chain, chain.last, end_words(chain.end))?;
                }
                for place in &summary.lost_in_crash {
                    writeln!(
                        out,
                        "  {place} is lost-in-crash: it was named, and its server ended before it was on disk"
                    )?;
                }
            }
            (result, stray) => {
                sound = false;
                let findings: Vec<_> = result.err().into_iter().flatten().chain(stray).collect();
                writeln!(out, "{path}: NOT as it was written, {} findings", findings.len())?;
                for finding in &findings {
                    writeln!(out, "  {}", printable(&finding.to_string()))?;
                }
            }
        }
    }
    let strangers =
        args.records.iter().filter(|place| readers.len() > 1 && !readers.iter().any(|r| has_chain(r, **place)));
    for place in strangers {
        sound = false;
        writeln!(out, "  cut {place}: it was named, and no ledger has its chain")?;
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn has_chain(reader: &Reader, place: RecordPlace) -> bool {
    let first = RecordPlace { seq: 1, hash16: None, ..place };
    matches!(reader.show(first), Ok(Shown::Found(_) | Shown::LostInCrash))
}

fn end_words(end: End) -> String {
    match end {
        End::Stopped => "stopped in order".to_owned(),
        End::Recovered(next) => format!("not stopped in order, and goes on in {next}"),
        End::Open => "not stopped: it is being written, or its server died, or its end was cut off".to_owned(),
    }
}

/// The record as one line: its body and what stands beside it. Made of strict JSON, so no control character is in it.
fn as_json(record: &StoredRecord) -> String {
    let body = record.body.strip_suffix('}').unwrap_or(&record.body);
    let StoredRecord { name, previous, hash, .. } = record;
    printable_json(&format!(r#"{body},"record":"{name}","previous":"{previous}","hash":"{hash}"}}"#))
}

fn shown_path(path: &Path) -> String {
    printable(&path.display().to_string())
}

fn parse_code(text: &str) -> Result<Code, String> {
    let known = Code::ALL.iter().copied().find(|code| code.as_str() == text);
    known.ok_or_else(|| {
        let all: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        format!("no such code; there are {}", all.join(", "))
    })
}

fn parse_image(text: &str) -> Result<ImageRef, String> {
    text.parse().map_err(|error: crate::decision::reference::ReferenceError| error.to_string())
}

/// `1h` and `7d` ago, a day (its beginning, UTC), or a time.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    parse_time_at(text, clock::now())
}

fn parse_time_at(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let wrong = || "not a time: 90m, 1h, 7d, 2026-11-01 or 2026-11-01T09:30:00Z".to_owned();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(day) = text.parse::<civil::Date>() {
        return day.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp()).map_err(|_| wrong());
    }
    let ago = text.parse::<jiff::Span>().map_err(|_| wrong())?;
    let then = now.to_zoned(TimeZone::UTC).checked_sub(ago).map_err(|_| wrong())?;
    if ago.is_negative() { Err(wrong()) } else { Ok(then.timestamp()) }
}

#[cfg(test)]
mod tests;
