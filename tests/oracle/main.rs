//! The bypass oracle: a second, independent reader of pods and templates, written from the OpenAPI that a real API server
//! serves, is compared with Provost's own on random objects. Both must find the same images in the same places, the same
//! unknown fields that may hold one, and the same images left as they were (C-37).
//!
//! `PROVOST_ORACLE_OBJECTS` says how many objects (100 000 where it is not set), `PROVOST_ORACLE_SEED` which; the seed of a
//! run is shown where it fails. `scripts/mutate` shows that the oracle notices a reader that overlooks something.

mod extract;
mod generate;
mod json;
mod random;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};

use provost::decision::code::Code;
use provost::decision::review::{Holder, Subject};
use provost::edge::admission::{Undecodable, decode, known_fields};
use serde_json::Value;

use extract::{Held, Item};
use generate::{Review, WITHOUT_IMAGES, review};
use random::Random;
use schema::{IMAGES, NO_IMAGES, Schema};

/// What a reader says about a review.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    /// It is judged by these, sorted by place.
    Judged { is_pod: bool, images: Vec<Image>, unknown: Vec<(String, bool)> },
    /// Nothing in it can hold an image.
    NoImages,
    /// It is refused.
    Refused(Code),
}

/// An image: its place, its list, the name there, its text, and whether it was left as it was.
type Image = (String, String, String, String, bool);

/// What the second extractor says.
fn oracle(schema: &Schema, review: &Review) -> Said {
    let gvk = [&review.group, &review.version, &review.kind];
    if review.operation == "DELETE" || WITHOUT_IMAGES.iter().any(|(g, v, k)| gvk == [g, v, k]) {
        return Said::NoImages;
    }
    let Some((_, of)) = schema.kinds.iter().find(|(known, _)| gvk == [&known[0], &known[1], &known[2]]) else {
        return Said::Refused(Code::UnsupportedKind);
    };
    let mut held = Held::of(schema, *of, review.object());
    if held.images.is_empty() {
        return Said::Refused(Code::MalformedReview);
    }
    if review.operation == "UPDATE" {
        held.mark(&Held::of(schema, *of, review.old()));
    }
    let image = |i: &Item<'_>| (i.path.clone(), i.list.to_owned(), i.name.to_owned(), i.text().to_owned(), i.unchanged);
    let mut images: Vec<_> = held.images.iter().map(image).collect();
    images.sort();
    let mut unknown: Vec<_> = held.strangers.iter().map(|field| (field.path.clone(), field.unchanged)).collect();
    unknown.sort();
    Said::Judged { is_pod: review.kind == "Pod", images, unknown }
}

/// What Provost says.
fn provost(review: &Review) -> Said {
    let read = match decode(review.body.as_bytes()) {
        Ok(read) => read,
        Err(Undecodable::Refuse { fault, .. }) => return Said::Refused(fault.code),
        Err(Undecodable::NoReply { .. }) => return Said::Refused(Code::InternalError),
    };
    let is_pod = match read.subject {
        Subject::Pod => true,
        Subject::Template => false,
        Subject::NoImages => {
            assert!(read.images.is_empty() && read.unknown_fields.is_empty());
            return Said::NoImages;
        }
    };
    let images = read.images.into_iter().map(|image| {
        let list = match image.place.holder {
            Holder::Container => "containers",
            Holder::InitContainer => "initContainers",
            Holder::EphemeralContainer => "ephemeralContainers",
            Holder::Volume => "volumes",
        };
        (image.place.path, list.to_owned(), image.place.name, image.text, image.unchanged)
    });
    let mut images: Vec<_> = images.collect();
    images.sort();
    let mut unknown: Vec<_> = read.unknown_fields.into_iter().map(|field| (field.path, field.unchanged)).collect();
    unknown.sort();
    Said::Judged { is_pod, images, unknown }
}

#[expect(clippy::disallowed_methods, reason = "how long to search is no setting of the product")]
fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("PROVOST_ORACLE_… is a whole number"),
        Err(_) => otherwise,
    }
}

/// How often something was seen, so that a generator that went blind is noticed.
type Seen = BTreeMap<&'static str, u64>;

fn count(seen: &mut Seen, said: &Said) {
    let mut add = |what| *seen.entry(what).or_default() += 1;
    match said {
        Said::Refused(Code::MalformedReview) => add("refused: no image at all"),
        Said::Refused(_) => add("refused: unknown kind"),
        Said::NoImages => add("a kind or operation without images"),
        Said::Judged { images, unknown, is_pod } => {
            let names = match is_pod {
                true => {
                    ["image of a pod", "image of a pod, unchanged", "unknown field of a pod", "… of a pod, unchanged"]
                }
                false => ["image", "image, unchanged", "unknown field", "unknown field, unchanged"],
            };
            for (.., unchanged) in images {
                add(names[usize::from(*unchanged)]);
            }
            for (_, unchanged) in unknown {
                add(names[2 + usize::from(*unchanged)]);
            }
        }
    }
}

#[test]
fn x_001_to_x_018_a_second_extractor_finds_the_same() {
    const THREADS: u64 = 2;
    let start = number("PROVOST_ORACLE_SEED", std::hash::RandomState::new().build_hasher().finish());
    let objects = number("PROVOST_ORACLE_OBJECTS", 100_000);
    println!("PROVOST_ORACLE_SEED={start} PROVOST_ORACLE_OBJECTS={objects}");
    let schema = Schema::read();
    let search = |from: u64| {
        let mut seen = Seen::new();
        for object in (from..objects).step_by(usize::try_from(THREADS).expect("few")) {
            let review = review(&mut Random::of(start, object), &schema);
            let (wanted, found) = (oracle(&schema, &review), provost(&review));
            assert_eq!(
                wanted, found,
                "object {object} of seed {start}: oracle left, Provost right, of\n{}",
                review.body
            );
            if object % 64 == 0 {
                let read: Value = serde_json::from_str(&review.body).expect("what is written is JSON");
                assert_eq!(read, review.whole, "object {object} of seed {start} is not what was written");
            }
            count(&mut seen, &wanted);
        }
        seen
    };
    let mut seen = Seen::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|from| scope.spawn(move || search(from))).collect();
        for thread in threads {
            let more = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            for (what, times) in more {
                *seen.entry(what).or_default() += times;
            }
        }
    });
    println!("{seen:#?}");
    let blind = seen.len() < 11 || seen.values().any(|times| *times < 10);
    assert!(objects < 10_000 || !blind, "the generator no longer makes what it should: {seen:#?}");
}

#[test]
fn without_any_one_path_the_oracle_disagrees() {
    let schema = Schema::read();
    let lists = ["containers", "initContainers", "ephemeralContainers", "volumes"];
    let mut unnoticed: BTreeSet<(String, &str)> =
        schema.kinds.iter().flat_map(|(gvk, _)| lists.map(|list| (gvk[2].clone(), list))).collect();
    assert_eq!(unnoticed.len(), 36);
    for object in 0..20_000 {
        if unnoticed.is_empty() {
            break;
        }
        let review = review(&mut Random::of(1, object), &schema);
        let wanted = oracle(&schema, &review);
        let found = provost(&review);
        assert_eq!(wanted, found, "object {object} of seed 1");
        for list in lists {
            let mut blind = found.clone();
            if let Said::Judged { images, .. } = &mut blind {
                images.retain(|(_, of, ..)| of != list);
            }
            if blind != wanted {
                unnoticed.remove(&(review.kind.clone(), list));
            }
        }
    }
    assert!(unnoticed.is_empty(), "overlooked without a disagreement: {unnoticed:?}");
}

#[test]
fn every_field_of_the_schema_that_is_named_like_an_image_is_explained() {
    let document: Value = serde_json::from_str(include_str!("openapi.json")).expect("JSON");
    let mut found = BTreeSet::new();
    for (name, schema) in document["components"]["schemas"].as_object().expect("types") {
        for key in schema["properties"].as_object().expect("fields").keys() {
            let lower = key.to_ascii_lowercase();
            if lower.contains("image") || lower.ends_with("reference") {
                found.insert((name.as_str(), key.as_str()));
            }
        }
    }
    let explained: BTreeSet<_> = IMAGES.into_iter().chain(NO_IMAGES.map(|(of, key, _)| (of, key))).collect();
    assert_eq!(found, explained);
}

#[test]
fn x_015_every_field_that_the_api_server_knows_is_known() {
    let schema = Schema::read();
    for list in known_fields() {
        let of = schema.types.iter().find(|each| each.name == list.schema).expect("the extract holds it");
        let unknown: Vec<_> = of.fields.iter().filter(|(key, _)| !list.keys.contains(&key.as_str())).collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", list.schema);
    }
    assert_eq!(known_fields().len(), 5);
    let kinds: BTreeSet<_> = schema.kinds.iter().map(|(gvk, _)| gvk[2].as_str()).collect();
    assert_eq!(kinds.len(), 9, "{kinds:?}");
}
