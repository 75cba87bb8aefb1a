//! Digests put behind image names in a manifest's own text, byte for byte the same elsewhere. It must never guess: what
//! cannot be changed safely is refused, and the result is read again and compared before it is handed out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::source::Manifest;
use super::{Position, documents};
use crate::edge::yaml::{Node, Value};

/// One image that gets a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The bytes of its scalar, as [`super::Spot`] has them.
    pub bytes: Range<usize>,
    /// Where the image is used; for an alias not where it is written.
    pub at: Position,
    /// The image as written; the scalar must mean this.
    pub image: String,
    /// What is put behind it: `@sha256:…`, with a tag before it where none is written.
    pub suffix: String,
}

/// Why a manifest was left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {why}")]
pub struct SpliceError {
    /// Where.
    pub at: Position,
    /// What stands in the way.
    pub why: String,
}

impl SpliceError {
    fn new(at: Position, why: impl Into<String>) -> Self {
        Self { at, why: why.into() }
    }
}

/// The manifest's text with these images pinned. The same scalar may be named more than once (an alias brings it to many
/// places) and is changed once, if all want the same.
pub fn splice(manifest: &Manifest, pins: &[Pin]) -> Result<String, SpliceError> {
    let text = &manifest.text;
    let mut insertions: BTreeMap<usize, &Pin> = BTreeMap::new();
    for pin in pins {
        let at = insertion(text, pin)?;
        if let Some(other) = insertions.insert(at, pin)
            && (&other.suffix, &other.image) != (&pin.suffix, &pin.image)
        {
            return Err(SpliceError::new(pin.at, "two images in one place"));
        }
    }
    let mut out = String::with_capacity(text.len() + insertions.values().map(|pin| pin.suffix.len()).sum::<usize>());
    let mut done = 0;
    for (at, pin) in &insertions {
        out.push_str(&text[done..*at]);
        out.push_str(&pin.suffix);
        done = *at;
    }
    out.push_str(&text[done..]);
    compare(text, &out, pins)?;
    Ok(out)
}

/// The byte at which the suffix goes in.
fn insertion(text: &str, pin: &Pin) -> Result<usize, SpliceError> {
    let refuse = |why: &str| Err(SpliceError::new(pin.at, format!("{why}: pin it by hand")));
    let Some(scalar) = text.get(pin.bytes.clone()) else { return refuse("the image is not where it was read") };
    // Plain, or the only line of a block.
    if scalar.trim_end_matches(['\n', '\r', ' ', '\t']) == pin.image {
        return Ok(pin.bytes.start + pin.image.len());
    }
    let quoted = ['"', '\''].into_iter().find_map(|quote| scalar.strip_prefix(quote)?.strip_suffix(quote));
    match quoted {
        Some(inside) if inside.contains(['\n', '\r']) => refuse("the image is written over several lines"),
        Some(_) => Ok(pin.bytes.end - 1),
        None => refuse("the image is written over several lines or in a style that cannot be changed safely"),
    }
}

/// Holds that the new text says the same as the old one, but for the pinned scalars.
fn compare(old: &str, new: &str, pins: &[Pin]) -> Result<(), SpliceError> {
    let (before, after) = (documents(old), documents(new));
    let broken =
        || SpliceError::new(Position::default(), "with its digests it would not read as before: pin it by hand");
    if before.len() != after.len() {
        return Err(broken());
    }
    let comparison = Comparison {
        written: pins.iter().map(|pin| ((pin.bytes.start, pin.bytes.end), pin)).collect(),
        used: pins.iter().map(|pin| (pin.at, pin.bytes.start)).collect(),
    };
    for pair in before.iter().zip(&after) {
        match pair {
            (Ok(before), Ok(after)) => {
                comparison.same(&before.root, &after.root)?;
            }
            (Err(before), Err(after)) if before.message == after.message => {}
            (Ok(_) | Err(_), _) => return Err(broken()),
        }
    }
    Ok(())
}

struct Comparison<'a> {
    /// By the bytes of the scalar.
    written: BTreeMap<(usize, usize), &'a Pin>,
    /// Where each is used, and the first of its bytes.
    used: BTreeSet<(Position, usize)>,
}

impl Comparison<'_> {
    fn same(&self, before: &Node, after: &Node) -> Result<(), SpliceError> {
        let differs = |why: &str| Err(SpliceError::new(before.at, format!("{why}: pin it by hand")));
        match (&before.value, &after.value) {
            (Value::List(old), Value::List(new)) if old.len() == new.len() => {
                old.iter().zip(new).try_for_each(|(old, new)| self.same(old, new))
            }
            (Value::Map(old), Value::Map(new)) if old.len() == new.len() => {
                old.iter().zip(new).try_for_each(|((old_key, old), (new_key, new))| {
                    if (&old_key.text, old_key.is_text) != (&new_key.text, new_key.is_text) {
                        return differs("with a digest this would not read as before");
                    }
                    self.same(old, new)
                })
            }
            (old, new) => match (self.written.get(&(before.written.bytes.start, before.written.bytes.end)), old) {
                (Some(pin), Value::Text(text)) => {
                    if !self.used.contains(&(before.at, pin.bytes.start)) {
                        differs("what stands here is written in the same place as an image")
                    } else if *text == pin.image && *new == Value::Text(format!("{}{}", pin.image, pin.suffix)) {
                        Ok(())
                    } else {
                        differs("with a digest this would not read as meant")
                    }
                }
                (_, _) if old == new => Ok(()),
                (_, _) => differs("with a digest this would not read as before"),
            },
        }
    }
}

#[cfg(test)]
mod tests;
