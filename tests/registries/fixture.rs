//! Keys, registries and signed samples, made once, and the policies under which they are judged. It must never judge.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use serde_json::{Map, json};

use super::support::images::{self, Format, Image};
use super::support::keys::Key;
use super::support::process::Done;
use super::support::provost::{program, settings_of};
use super::support::registry::{self, Registry};
use super::support::{folder, process};

/// The keys of all samples.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) k1: Key,
    pub(crate) k2: Key,
    /// Signs nothing.
    pub(crate) other: Key,
    /// Kinds of key other than P-256, which is the kind of the three above.
    pub(crate) kinds: BTreeMap<&'static str, Key>,
}

/// The three registries, by the name that tests give them.
pub(crate) const CRANE: &str = "crane";
pub(crate) const DISTRIBUTION: &str = "distribution";
pub(crate) const REFERRERS: &str = "referrers";

/// What is pushed to each registry, and how it is signed there.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) registry: Registry,
    images: BTreeMap<String, Image>,
}

impl Samples {
    /// A sample by its name; see [`recipes`].
    pub(crate) fn image(&self, name: &str) -> &Image {
        self.images.get(name).unwrap_or_else(|| panic!("there is no sample {name}"))
    }
}

pub(crate) fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let curve = |name: &'static str| ["-algorithm", "EC", "-pkeyopt", name];
        let kinds: Vec<(&'static str, Vec<&'static str>)> = vec![
            ("p384", curve("ec_paramgen_curve:P-384").to_vec()),
            ("ed25519", vec!["-algorithm", "ed25519"]),
            ("rsa", vec!["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
        ];
        let p256 = in_parallel(["k1", "k2", "other"].to_vec(), Key::generated);
        let [k1, k2, other] = <[Key; 3]>::try_from(p256).expect("three names, three keys");
        let kinds = in_parallel(kinds, |(name, genpkey)| (name, Key::imported(name, &genpkey)));
        Keys { k1, k2, other, kinds: kinds.into_iter().collect() }
    })
}

/// The samples of one of the three registries.
pub(crate) fn samples(name: &'static str) -> &'static Samples {
    static ALL: [OnceLock<Samples>; 3] = [const { OnceLock::new() }; 3];
    let (index, start): (_, fn() -> Registry) = match name {
        CRANE => (0, Registry::crane),
        DISTRIBUTION => (1, Registry::distribution),
        REFERRERS => (2, Registry::with_referrers),
        _ => panic!("there is no registry {name}"),
    };
    ALL[index].get_or_init(|| {
        let registry = start();
        let images = in_parallel(recipes(name), |recipe| recipe.make(&registry));
        Samples { registry, images: images.into_iter().flatten().collect() }
    })
}

/// How a sample is made: what is signed, and by whom in which format, one after the other.
struct Recipe {
    name: String,
    index: bool,
    steps: Vec<Step>,
}

enum Step {
    Sign(&'static Key, Format, BTreeMap<&'static str, &'static str>),
    Attest(&'static Key, Format),
}

/// The name of a format within the names of samples.
pub(crate) const fn word(format: Format) -> &'static str {
    match format {
        Format::Bundle => "bundle",
        Format::Legacy => "legacy",
        Format::LegacyAsReferrer => "legacy-as-referrer",
    }
}

pub(crate) const FORMATS: [Format; 3] = [Format::Bundle, Format::Legacy, Format::LegacyAsReferrer];

fn recipes(registry: &'static str) -> Vec<Recipe> {
    let Keys { k1, k2, kinds, .. } = keys();
    let sign = |key, format| Step::Sign(key, format, BTreeMap::new());
    let image = |name: String, steps| Recipe { name, index: false, steps };
    let mut recipes = vec![
        image("unsigned".to_owned(), vec![]),
        image("sig-beside-foreign-bundle".to_owned(), vec![sign(k1, Format::Legacy), sign(k2, Format::Bundle)]),
    ];
    for format in FORMATS {
        let named = |what: &str| format!("{what}-{}", word(format));
        recipes.extend([
            image(named("one"), vec![sign(k1, format)]),
            image(named("two"), vec![sign(k1, format), sign(k2, format)]),
            image(named("annotated"), vec![Step::Sign(k1, format, BTreeMap::from([("env", "prod")]))]),
            Recipe { index: true, ..image(named("index"), vec![sign(k1, format)]) },
        ]);
        // Attestations are never written as a legacy referrer.
        if format != Format::LegacyAsReferrer {
            recipes.push(image(named("attested"), vec![Step::Attest(k1, format)]));
            recipes.push(image(named("beside"), vec![sign(k1, format), Step::Attest(k1, format)]));
        }
        // What kind of key signed does not depend on the registry.
        if registry == REFERRERS {
            // cosign 3.1.3 cannot sign a bundle with Ed25519: it does not believe its own signature.
            let can = |kind: &str| (kind, format) != ("ed25519", Format::Bundle);
            let kinds = kinds.iter().filter(|(kind, _)| can(kind));
            recipes.extend(kinds.map(|(kind, key)| image(named(kind), vec![sign(key, format)])));
        }
    }
    recipes
}

impl Recipe {
    /// Every image that it makes, by name; the children of an index are `NAME/0` and `NAME/1`.
    fn make(self, registry: &Registry) -> Vec<(String, Image)> {
        let path = format!("team/{}", self.name);
        let mut made = Vec::new();
        let subject = if self.index {
            let children = ["0", "1"].map(|child| {
                let image = images::push(registry, &path, &format!("{} {child}", self.name));
                made.push((format!("{}/{child}", self.name), image.clone()));
                image
            });
            images::push_index(registry, &path, &children.iter().collect::<Vec<_>>())
        } else {
            images::push(registry, &path, &self.name)
        };
        for step in self.steps {
            match step {
                Step::Sign(key, format, annotations) => images::sign(registry, &subject, key, format, &annotations),
                Step::Attest(key, format) => images::attest(registry, &subject, key, format),
            }
        }
        made.push((self.name, subject));
        made
    }
}

/// What `provost verify` is asked with. Each policy governs the namespace of its own name and covers every repository
/// of the registries.
#[derive(Debug)]
pub(crate) struct Judge {
    policies: PathBuf,
    config: PathBuf,
}

impl Judge {
    /// A judge who knows registries, each with its entry of `provost.yaml`.
    pub(crate) fn new(hosts: &[&str], registries: &str) -> Self {
        let folder = folder::new("judge");
        let Keys { k1, k2, other, kinds } = keys();
        let mut signers = Map::new();
        let everybody =
            [("k1", k1), ("k2", k2), ("other", other)].into_iter().chain(kinds.iter().map(|(n, key)| (*n, key)));
        for (name, key) in everybody {
            let file = format!("keys/{name}.pub");
            folder::write(&folder.join("policies").join(&file), key.pem());
            signers.insert(name.to_owned(), json!({"keys": [{"file": file}], "transparencyLog": "not-required"}));
        }
        let mut rules = vec![
            ("by-both".to_owned(), json!({"signatures": {"by": ["k1", "k2"], "atLeast": 2}})),
            ("by-k1-for-prod".to_owned(), json!({"signatures": {"by": ["k1"]}, "annotations": {"env": "prod"}})),
            ("by-k1-for-test".to_owned(), json!({"signatures": {"by": ["k1"]}, "annotations": {"env": "test"}})),
        ];
        rules.extend(signers.keys().map(|name| (format!("by-{name}"), json!({"signatures": {"by": [name]}}))));
        let covered: Vec<String> = hosts.iter().map(|host| format!("{host}/**")).collect();
        for (name, mut rule) in rules {
            rule["name"] = json!("images");
            rule["repositories"] = json!(covered);
            let spec = json!({"namespaces": {"names": [name]}, "signers": signers, "rules": [rule]});
            let mut policy =
                json!({"apiVersion": "provost.dev/v1", "kind": "ReleasePolicy", "metadata": {"name": name}});
            policy["spec"] = spec;
            folder::write(&folder.join(format!("policies/{name}.yaml")), policy.to_string());
        }
        folder::write(&folder.join("provost.yaml"), settings_of(registries));
        Self { policies: folder.join("policies"), config: folder.join("provost.yaml") }
    }

    /// The folder of its policies.
    pub(crate) fn policies_folder(&self) -> &Path {
        &self.policies
    }

    /// For a registry with nothing but its own entry.
    pub(crate) fn of(registry: &Registry) -> Self {
        Self::new(&[&registry.host], &registry::settings(registry, registry.login.as_deref()))
    }

    /// `provost verify` of an image under the policy of that name.
    pub(crate) fn verify(&self, image: &str, policy: &str) -> Answer {
        let call = program().args(["verify", "-n", policy, "-p"]).arg(&self.policies).arg("--config").arg(&self.config);
        Answer(call.arg(image).run())
    }
}

/// What `provost verify` said.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) process::Done);

impl Answer {
    /// `admit`, or every code that it names, in its order; with the exit code where that does not go with them.
    pub(crate) fn verdict(&self) -> String {
        let Done { code, stdout, stderr } = &self.0;
        let mut codes: Vec<&str> = Vec::new();
        for line in stdout.lines().filter_map(|line| line.trim().strip_prefix("✗ ")) {
            let word = line.split_whitespace().next().unwrap_or_default();
            if word.starts_with(|c: char| c.is_ascii_lowercase()) && !codes.contains(&word) {
                codes.push(word);
            }
        }
        match code {
            0 if codes.is_empty() && stdout.contains("ADMIT") => "admit".to_owned(),
            1 if !codes.is_empty() => codes.join(","),
            2 if !codes.is_empty() => format!("could not tell: {}", codes.join(",")),
            _ => format!("exit code {code}\n{stdout}{stderr}"),
        }
    }
}

/// Does the same to each of many things, as many at once as there are processors, and gives the results in their order.
pub(crate) fn in_parallel<T: Send, R: Send>(things: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let workers = thread::available_parallelism().map_or(2, usize::from).min(8) + 1;
    let queue = std::sync::Mutex::new(things.into_iter().enumerate());
    let next = || queue.lock().expect("nothing panics while it holds the queue").next();
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let worker = || {
            let mut done = Vec::new();
            while let Some((index, thing)) = next() {
                done.push((index, work(thing)));
            }
            done
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        let end = |worker: thread::ScopedJoinHandle<'_, Vec<(usize, R)>>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(end).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
