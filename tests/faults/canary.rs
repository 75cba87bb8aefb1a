//! Finds canaries in bytes: as they are, in base64 at any offset, and in hexadecimal.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::sample::hex;

/// Every canary begins so. What follows are digits and small letters, [`LENGTH`] in all.
const STEM: &str = "qxcanary";
/// How long a canary is.
const LENGTH: usize = 28;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A canary that nobody can guess and no other run has.
pub(crate) fn make(number: usize) -> String {
    let mut random = [0; 6];
    aws_lc_rs::rand::fill(&mut random).expect("random bytes");
    let canary = format!("{STEM}{number:08}{}", hex(&random));
    assert_eq!(canary.len(), LENGTH);
    canary
}

/// Every canary in these bytes, in whatever form.
pub(crate) fn find(bytes: &[u8]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let patterns = patterns();
    let mut begins = [false; 256];
    for (pattern, _) in &patterns {
        begins[usize::from(pattern[0])] = true;
    }
    // One pass, for these are megabytes.
    for (at, byte) in bytes.iter().enumerate() {
        if begins[usize::from(*byte)] {
            let here = patterns.iter().filter(|(pattern, _)| bytes[at..].starts_with(pattern));
            found.extend(here.filter_map(|(_, form)| form.read(bytes, at)));
        }
    }
    found
}

/// How a canary can be written.
#[derive(Debug, Clone, Copy)]
enum Form {
    Raw,
    /// So many letters of base64 before the pattern belong to the group that it begins in, and so many bytes to others.
    Base64 {
        letters: usize,
        bytes: usize,
    },
    Hex,
}

/// The stem in each form: what stands where a canary begins.
fn patterns() -> Vec<(Vec<u8>, Form)> {
    let hex = hex(STEM.as_bytes());
    let mut all = vec![
        (STEM.as_bytes().to_vec(), Form::Raw),
        (hex.to_uppercase().into_bytes(), Form::Hex),
        (hex.into_bytes(), Form::Hex),
    ];
    for bytes in 0..3 {
        // The letters that hold bits of a neighbour may be any: they are left out. Both alphabets have all others.
        let letters = [0, 2, 3][bytes];
        let text = STANDARD.encode([&[0; 2][..bytes], STEM.as_bytes()].concat());
        let whole = (bytes + STEM.len()) * 8 / 6;
        all.push((text.as_bytes()[letters..whole].to_vec(), Form::Base64 { letters, bytes }));
    }
    all
}

impl Form {
    /// The canary whose stem is there.
    fn read(self, bytes: &[u8], at: usize) -> Option<String> {
        let canary = match self {
            Self::Raw => bytes.get(at..at + LENGTH)?.to_vec(),
            Self::Hex => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let digits: Option<Vec<u8>> = bytes.get(at..at + 2 * LENGTH)?.iter().map(digit).collect();
                digits?.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
            }
            Self::Base64 { letters, bytes: before } => {
                let group = at.checked_sub(letters)?;
                let needed = ((before + LENGTH) * 8).div_ceil(6);
                let text = bytes.get(group..group + needed)?;
                let decoded = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()?;
                decoded.get(before..before + LENGTH)?.to_vec()
            }
        };
        String::from_utf8(canary).ok()
    }
}

#[test]
fn x_047_a_canary_is_found_in_every_form() {
    let canary = make(7);
    let basic = |user: &str| STANDARD.encode(format!("{user}:p{canary}"));
    for text in [
        canary.clone(),
        format!("u{canary}:p{canary}"),
        format!("Authorization: Basic {}", basic("a")),
        format!("Authorization: Basic {}", basic("ab")),
        format!("Authorization: Basic {}", basic("abc")),
        format!("x=abc{}", basic("abcd")),
        URL_SAFE.encode(format!("\u{ff}\u{fe}{canary}")),
        hex(canary.as_bytes()),
        hex(canary.as_bytes()).to_uppercase(),
    ] {
        assert_eq!(find(text.as_bytes()), BTreeSet::from([canary.clone()]), "{text}");
    }
    // The twin: the same texts with a letter less.
    for text in [
        canary[..LENGTH - 1].to_owned(),
        STANDARD.encode(&canary[..LENGTH - 1]),
        STANDARD.encode("nothing at all in here, really"),
    ] {
        assert_eq!(find(text.as_bytes()), BTreeSet::new(), "{text}");
    }
}
