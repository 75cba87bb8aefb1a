//! What can be wrong with a policy file, each with its place and with what to do. It must never repeat a key's text.

use std::cell::RefCell;
use std::fmt;

use crate::decision::name::InvalidName;
use crate::decision::pattern::PatternError;
use crate::decision::reference::ReferenceError;
use crate::edge::sigstore::key::KeyError;

pub use crate::edge::yaml::Position;

/// Something wrong, or unwise, in a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The file as it was found.
    pub file: String,
    /// Line, from 1; 0 where the file as a whole is meant.
    pub line: u64,
    /// Column in characters, from 1; 0 where the file as a whole is meant.
    pub column: u64,
    /// What is wrong.
    pub fault: Fault,
}

impl PolicyError {
    /// A fault of a file as a whole.
    #[must_use]
    pub fn of_file(file: impl Into<String>, fault: Fault) -> Self {
        Self { file: file.into(), line: 0, column: 0, fault }
    }

    /// A fault at a place.
    #[must_use]
    pub fn at(file: impl Into<String>, at: Position, fault: Fault) -> Self {
        Self { file: file.into(), line: at.line, column: at.column, fault }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.fault)
        } else {
            write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.fault)
        }
    }
}

impl std::error::Error for PolicyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.fault)
    }
}

/// Everything that can be wrong. Texts from the file are shortened and escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    // the folder and its files
    /// A file or folder that cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// Something that is no regular file.
    #[error("is not a regular file")]
    NotAFile,
    /// Over the limit for one file.
    #[error("is larger than {limit} bytes: split it")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// Over the limit for a folder.
    #[error("holds more than {limit} policy files")]
    TooManyFiles {
        /// The limit.
        limit: usize,
    },
    /// Not UTF-8.
    #[error("is not UTF-8 text")]
    NotUtf8,
    /// Nothing in it.
    #[error("holds no policy: write one, or remove the file")]
    NoDocument,
    /// Neither YAML nor JSON, or over a parse budget.
    #[error("{0}")]
    Syntax(String),
    /// The set kept over restarts cannot be used.
    #[error("the last good policies kept here cannot be used and are ignored: {0}")]
    NotRemembered(String),
    /// The set could not be kept for a restart.
    #[error("the last good policies could not be kept for a restart: {0}")]
    NotKept(String),

    // the shape of a document
    /// The same key twice in one mapping.
    #[error("key `{key}` is already written at {first}: remove one of them")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where it stands first.
        first: Position,
    },
    /// A key that is no text.
    #[error("a key must be text: put it in quotes")]
    KeyNotText,
    /// A key that nothing knows.
    #[error("unknown key `{key}`: {}", could_stand(.known, .meant.as_deref()))]
    UnknownKey {
        /// The key.
        key: String,
        /// The keys that can stand here.
        known: Vec<&'static str>,
        /// The known key that was probably meant.
        meant: Option<String>,
    },
    /// A key that a later version honours.
    #[error("this version cannot honour `{key}` yet: {hint}")]
    NotYet {
        /// The key.
        key: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// A required key is not there.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// A value of another type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Any other fault of shape.
    #[error("{0}")]
    Shape(String),
    /// A list or mapping with nothing in it.
    #[error("`{key}` is empty: {hint}")]
    Empty {
        /// The key.
        key: &'static str,
        /// What to do.
        hint: &'static str,
    },

    // names and values
    /// A name that is not allowed.
    #[error("{0}")]
    Name(#[from] InvalidName),
    /// A pattern that is none, or matches nothing.
    #[error("{0}")]
    Pattern(#[from] PatternError),
    /// A pattern whose shortest match is longer than any repository.
    #[error(
        "no repository is long enough to match: the shortest match has {shortest} characters, a repository at most 255"
    )]
    PatternTooLong {
        /// The length of the shortest match.
        shortest: usize,
    },
    /// A digest that is none.
    #[error("a digest is `sha256:` and 64 lower-case hex digits: {0}")]
    Digest(#[source] ReferenceError),
    /// The same name, pattern, signer or digest twice.
    #[error("{what} `{text}` is already given at {first}: remove one of them")]
    Duplicate {
        /// What kind of thing.
        what: &'static str,
        /// Which one.
        text: String,
        /// Where it stands first.
        first: Position,
    },
    /// The same policy or deny-list twice.
    #[error(
        "{kind} `{name}` is already defined in {first}: neither is used; give one of them another name or remove it"
    )]
    SameName {
        /// `ReleasePolicy` or `DenyList`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Where the other one stands.
        first: String,
    },
    /// Neither a date nor a timestamp.
    #[error("`{0}` is neither a date (2027-06-30) nor a timestamp (2027-06-30T12:00:00Z)")]
    Time(String),
    /// A text over its limit or with control characters.
    #[error("`{key}` must be 1 to {limit} characters of text on one line")]
    Text {
        /// The key.
        key: &'static str,
        /// The limit in characters.
        limit: usize,
    },

    // namespaces
    /// Both or neither of `names` and `otherwise`.
    #[error("say which namespaces: either `names: [...]` or `otherwise: true`, and not both")]
    NamespacesOneOf,
    /// `otherwise: false`.
    #[error("`otherwise` can only be `true`: write `names` instead, or remove it")]
    OtherwiseFalse,

    // signers
    /// A signer without keys.
    #[error("signer `{0}` has no `keys`: nobody could sign for it")]
    SignerWithoutKeys(String),
    /// A key that is given in no way or in several.
    #[error("a key is given by either `file` or `pem`, exactly one of them")]
    KeyOneOf,
    /// A signer that does not say that no log is asked for.
    #[error(
        "the signatures of `{0}` would be looked up in the transparency log (the default), which this version cannot check \
         yet: write `transparencyLog: not-required` beside `keys`"
    )]
    LogNotChecked(String),
    /// A key file outside the folder of its policy.
    #[error("key file `{file}` is outside the folder of this policy: put it beside the policy or below it")]
    KeyOutside {
        /// As written.
        file: String,
    },
    /// A key file that cannot be read.
    #[error("key file `{file}` cannot be read: {why}")]
    KeyUnreadable {
        /// As written.
        file: String,
        /// Why.
        why: String,
    },
    /// A text that is no usable public key.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// `scheme: rsa-pss` for a key that is not RSA.
    #[error("`scheme: rsa-pss` is for RSA keys, and this is none: remove `scheme`")]
    NotRsa,
    /// A window without any time in it.
    #[error("`notAfter` is not later than `notBefore`: the key would never count")]
    EmptyWindow,

    // rules
    /// A rule without `signatures`.
    #[error(
        "rule `{0}` does not say who must have signed: write `signatures: {{by: [...]}}`, or `signatures: not-required` beside `digests`"
    )]
    SignaturesMissing(String),
    /// A rule that checks nothing.
    #[error("rule `{0}` checks nothing: without signatures it needs `digests`, each looked at by somebody")]
    ChecksNothing(String),
    /// A name in `by` that is no signer.
    #[error("`{0}` is no signer of this policy: define it under `signers`")]
    UnknownSigner(String),
    /// `atLeast` outside 1 to the number of signers.
    #[error("`atLeast` must be 1 to {most}, the number of signers in `by`")]
    AtLeastRange {
        /// How many signers there are.
        most: usize,
    },
    /// `atLeast` that shared keys make impossible.
    #[error(
        "never satisfied: one key counts for one signer only, and the keys of `by` make at most {most} signers, not {at_least}"
    )]
    AtLeastUnreachable {
        /// How many signers can be counted.
        most: usize,
        /// How many are asked for.
        at_least: usize,
    },
    /// `annotations` or `signedFrom` where no signature is asked for.
    #[error("`{0}` is about signatures, and this rule asks for none: remove it")]
    NeedsSignatures(&'static str),

    // break-glass
    /// Somebody in `users` or `groups` that no request could ever come from.
    #[error(
        "`{0}` cannot be listed: break-glass is for persons by their exact name, and for groups of persons; service accounts, \
         nodes, parts of Kubernetes and groups that hold everybody are none"
    )]
    NotPersons(String),
    /// Neither `users` nor `groups`.
    #[error("nobody may ask: list somebody in `users` or `groups`, or remove `breakGlass`")]
    NobodyMayAsk,

    // warnings
    /// `breakGlass` where nothing is enforced.
    #[error(
        "`breakGlass` has no effect: nothing that a policy in this mode says is enforced, so there is nothing to override"
    )]
    NothingToOverride,
    /// A signer that no rule names.
    #[error("signer `{0}` is used by no rule")]
    UnusedSigner(String),
    /// A key that stands twice for one signer, or for several.
    #[error("this key ({fingerprint}) is also a key of `{other}`: a signature by it counts once")]
    SharedKey {
        /// The beginning of its fingerprint.
        fingerprint: String,
        /// The other signer.
        other: String,
    },
    /// A signer none of whose keys counts any more.
    #[error("every key of signer `{0}` is past its `notAfter`: nothing that it signed counts")]
    ExpiredSigner(String),
    /// A digest that stands twice in one rule.
    #[error("digest {0} is listed twice in this rule")]
    RepeatedDigest(String),
    /// Two rules that cover the same repositories and list no digest in common.
    #[error(
        "rule `{rule}` covers `{repository}` too and lists no digest of this rule: an image must satisfy both, so none passes"
    )]
    DisjointDigests {
        /// The other rule.
        rule: String,
        /// The pattern that both have.
        repository: String,
    },
    /// A folder without policies.
    #[error("holds no policy files (*.yaml, *.yml, *.json): every namespace is denied `no-policy`")]
    NoFiles,
    /// A deny-listed digest that a rule lists as good.
    #[error("digest {digest} is withdrawn by deny-list `{list}`: listing it here has no effect")]
    ListedAndWithdrawn {
        /// The digest, shortened.
        digest: String,
        /// The deny-list.
        list: String,
    },
}

fn could_stand(known: &[&'static str], meant: Option<&str>) -> String {
    match meant {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.is_empty() => "nothing can stand here".to_owned(),
        None => format!("here can stand {}", words(known)),
    }
}

fn words(words: &[&'static str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// `a`, `b` or `c`.
pub(super) fn either(words: &[String]) -> String {
    match words {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Text from a file, escaped and shortened for a message; never PEM, which may be a private key in the wrong place.
pub(super) fn shown(text: &str) -> String {
    if text.contains("-----BEGIN") {
        return "(PEM)".to_owned();
    }
    let mut out: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().count() > 80 {
        out.push('…');
    }
    out
}

/// Where the faults of one file are gathered while it is read.
#[derive(Debug)]
pub(super) struct Faults {
    file: String,
    errors: RefCell<Vec<PolicyError>>,
    warnings: RefCell<Vec<PolicyError>>,
}

impl Faults {
    pub(super) fn of(file: impl Into<String>) -> Self {
        Self { file: file.into(), errors: RefCell::default(), warnings: RefCell::default() }
    }

    pub(super) fn error(&self, at: Position, fault: impl Into<Fault>) {
        self.errors.borrow_mut().push(PolicyError::at(&self.file, at, fault.into()));
    }

    pub(super) fn warn(&self, at: Position, fault: Fault) {
        self.warnings.borrow_mut().push(PolicyError::at(&self.file, at, fault));
    }

    /// How many errors there are so far.
    pub(super) fn count(&self) -> usize {
        self.errors.borrow().len()
    }

    /// The errors, by position, those after the first `from`; for what is shown of one document.
    pub(super) fn since(&self, from: usize) -> Vec<PolicyError> {
        let mut errors = self.errors.borrow().get(from..).unwrap_or_default().to_vec();
        sort(&mut errors);
        errors
    }

    /// All errors and all warnings, each by position.
    pub(super) fn finish(self) -> (Vec<PolicyError>, Vec<PolicyError>) {
        let (mut errors, mut warnings) = (self.errors.into_inner(), self.warnings.into_inner());
        sort(&mut errors);
        sort(&mut warnings);
        (errors, warnings)
    }
}

/// By file, line and column; equal ones stay in the order of their discovery.
pub(super) fn sort(errors: &mut [PolicyError]) {
    errors.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
}
