//! Whatever a registry or a file holds: each reader answers, and none panics.

use proptest::prelude::{any, prop_oneof, proptest};
use proptest::strategy::Strategy;

use super::super::address::parse_url;
use super::super::auth::parse_challenges;
use super::super::list::next_page;
use super::super::{DockerConfig, Network, parse_index};

/// Any text, and texts of the pieces that mean something to one of the readers.
fn junk() -> impl Strategy<Value = String> {
    let pieces = [
        "Bearer",
        "Basic",
        " ",
        ",",
        "=",
        "==",
        "\"",
        "\\",
        "realm",
        "rel",
        "next",
        "<",
        ">",
        ";",
        "https://",
        "//",
        "/",
        ":",
        "@",
        "[",
        "]",
        "::1",
        "127.0.0.1",
        "%31",
        "*",
        ".",
        "{",
        "}",
        "\"auths\"",
        "\"auth\"",
        "\"manifests\"",
        "\u{e9}",
        "r.example",
        "?",
        "#",
    ];
    let assembled = proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..24);
    prop_oneof![any::<String>(), assembled.prop_map(|pieces| pieces.concat())]
}

proptest! {
    #[test]
    fn readers_answer_whatever_they_are_given(text in junk()) {
        let base = reqwest::Url::parse("https://r.example/v2/").expect("url");
        let _ = parse_challenges(std::iter::once(text.as_str()));
        let _ = next_page(&[text.as_str()], &base);
        let _ = parse_index(text.as_bytes());
        let _ = text.parse::<Network>();
        let _ = DockerConfig::parse_legacy(format!("{{{text:?}:{{\"auth\":\"YTpi\"}}}}").as_bytes());
        let _ = DockerConfig::parse(text.as_bytes());
        for base in [None, Some(&base)] {
            if let Ok(url) = parse_url(&text, base) {
                // What is accepted leads where it says: to https or http, without user info.
                assert!(matches!(url.scheme(), "https" | "http") && url.username().is_empty());
            }
        }
    }
}
