//! Untrusted text made safe to show: in a terminal, a header, a log line, a record. It must never let through a character
//! that moves a cursor, reorders what is read, or is not seen at all (attack X-129, rule C-25).

use std::fmt::Write as _;

/// The text on one line, with each character that is not plainly visible written as `\u{…}`: controls (newline and ANSI
/// escape among them), marks that reorder or join text, invisible fillers, private use, and every space but the common one.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_visible(c) {
            out.push(c);
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
    }
    out
}

/// JSON without white space between its parts, with the same characters written as JSON escapes, `\u202e`: it means the same
/// to every reader, and nothing to a terminal.
#[must_use]
pub fn printable_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_visible(c) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// The text, or its beginning with `...`, in at most `limit` characters. Meant for text that is printable already: of other
/// text it may leave half an escape.
#[must_use]
pub fn shorten(text: &str, limit: usize) -> String {
    if text.chars().nth(limit).is_none() {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(limit.saturating_sub(3)).collect();
    out.push_str(&"..."[..limit.min(3)]);
    out
}

/// Untrusted text, printable and in at most `limit` characters, without looking at more of it than that.
#[must_use]
pub fn clip(text: &str, limit: usize) -> String {
    // No character becomes less than one, so what lies behind these is cut in any case.
    let end = text.char_indices().nth(limit + 1).map_or(text.len(), |(at, _)| at);
    shorten(&printable(&text[..end]), limit)
}

fn is_visible(c: char) -> bool {
    match c {
        ' '..='~' => true,
        // Soft hyphen; combining grapheme joiner; format characters and fillers of scripts; Braille blank.
        '\u{ad}'
        | '\u{34f}'
        | '\u{600}'..='\u{605}'
        | '\u{61c}'
        | '\u{6dd}'
        | '\u{70f}'
        | '\u{890}'..='\u{891}'
        | '\u{8e2}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{2800}'
        | '\u{3164}'
        | '\u{ffa0}'
        // Zero width, direction marks, line and paragraph separators, overrides and isolates, invisible operators.
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        // Private use; variation selectors; byte-order mark; interlinear marks, replaced objects.
        | '\u{e000}'..='\u{f8ff}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{fff0}'..='\u{fffc}'
        // Format characters of rarer scripts and of musical notation; tags, private planes.
        | '\u{110bd}'
        | '\u{110cd}'
        | '\u{13430}'..='\u{1345f}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{10ffff}' => false,
        c => !c.is_control() && !c.is_whitespace() && u32::from(c) & 0xfffe != 0xfffe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x_129_nothing_invisible_gets_through() {
        for (name, text, want) in [
            ("plain", "registry.example.com/a:1 (api)", "registry.example.com/a:1 (api)"),
            ("letters of any script", "größe 日本 …»«", "größe 日本 …»«"),
            ("newline", "a\nb\r", "a\\u{a}b\\u{d}"),
            ("ANSI escape", "\x1b[31mred", "\\u{1b}[31mred"),
            ("C1 control", "\u{9b}31m", "\\u{9b}31m"),
            ("right-to-left override", "a\u{202e}b", "a\\u{202e}b"),
            ("isolate", "\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
            ("zero width", "a\u{200b}\u{feff}b", "a\\u{200b}\\u{feff}b"),
            ("line separator", "a\u{2028}b", "a\\u{2028}b"),
            ("odd spaces", "a\u{a0}\u{3000}b", "a\\u{a0}\\u{3000}b"),
            ("tag", "\u{e0041}", "\\u{e0041}"),
            ("filler", "\u{3164}", "\\u{3164}"),
            ("private use", "\u{e000}", "\\u{e000}"),
            ("no character", "\u{ffff}\u{1fffe}", "\\u{ffff}\\u{1fffe}"),
            ("NUL", "\0", "\\u{0}"),
            ("replacement character is seen", "\u{fffd}", "\u{fffd}"),
        ] {
            assert_eq!(printable(text), want, "{name}");
        }
    }

    #[test]
    fn x_129_json_stays_the_same_json() {
        let value = serde_json::json!({"a\u{202e}": "\u{1b}[0m\u{9b}\u{e0041}\n ä 世\u{a0}"});
        let text = printable_json(&value.to_string());
        assert_eq!(text, "{\"a\\u202e\":\"\\u001b[0m\\u009b\\udb40\\udc41\\n ä 世\\u00a0\"}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
    }

    #[test]
    fn shortens_at_characters() {
        for (text, limit, want) in [
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abc..."),
            ("ääääääää", 6, "äää..."),
            ("abcd", 2, ".."),
            ("", 0, ""),
        ] {
            assert_eq!(shorten(text, limit), want, "{text} to {limit}");
        }
    }

    #[test]
    fn clips_what_is_printable() {
        for (text, limit, want) in [
            ("abcdef", 6, "abcdef"),
            ("abcdefg", 6, "abc..."),
            ("ab\n", 8, "ab\\u{a}"),
            ("abcd\n", 8, "abcd\\..."),
            ("\n\n\n\n", 8, "\\u{a}..."),
        ] {
            assert_eq!(clip(text, limit), want, "{text} to {limit}");
            assert_eq!(clip(text, limit), shorten(&printable(text), limit), "{text} to {limit}");
        }
    }

    proptest::proptest! {
        #[test]
        fn x_129_printable_text_stays_as_it_is(text in "\\PC*") {
            let once = printable(&text);
            proptest::prop_assert_eq!(printable(&once), once.clone());
            proptest::prop_assert!(!once.chars().any(char::is_control));
        }
    }
}
