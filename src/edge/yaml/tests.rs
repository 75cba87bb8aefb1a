//! Tests of YAML trees: what a scalar's bytes are, in every style; what aliases and merges point at; odd keys.

use super::*;

const RULES: Rules = Rules {
    max_depth: 64,
    max_nodes: 10_000,
    max_documents: 100,
    max_aliases: 100,
    max_aliased_nodes: 1_000,
    merge_keys: true,
    strict_booleans: false,
};

fn roots(text: &str) -> Vec<Node> {
    documents(text, RULES).into_iter().map(|document| document.expect("readable").root).collect()
}

#[test]
fn a_scalar_knows_its_bytes() {
    for (name, text, want, at) in [
        ("plain", "a: nginx # c\n", "nginx", (1, 4)),
        ("after others", "# ü\nb: ß\na: nginx # ä\n", "nginx", (3, 4)),
        ("byte-order mark", "\u{feff}a: nginx\n", "nginx", (1, 4)),
        ("byte-order mark and letters", "\u{feff}# größe\na: nginx\n", "nginx", (2, 4)),
        ("single quotes", "a: 'nginx'\n", "'nginx'", (1, 4)),
        ("double quotes", "a: \"nginx\" \n", "\"nginx\"", (1, 4)),
        ("escapes", "a: \"\\x6eginx\"\n", "\"\\x6eginx\"", (1, 4)),
        ("tag", "a: !!str nginx\n", "nginx", (1, 10)),
        ("anchor", "a: &i nginx\n", "nginx", (1, 7)),
        ("block", "a: |-\n  nginx\nb: 1\n", "nginx\n", (2, 3)),
        ("CRLF", "b: 1\r\na: nginx\r\n", "nginx", (2, 4)),
        ("tab", "a:\tnginx\t# c\n", "nginx", (1, 4)),
        ("flow", "{b: [1, {c: d}], a: nginx}", "nginx", (1, 21)),
        ("JSON", "{\n\t\"a\" :\t\"nginx\"\n}", "\"nginx\"", (2, 8)),
        ("no newline at the end", "a: nginx", "nginx", (1, 4)),
    ] {
        let root = &roots(text)[0];
        let node = root.field("a").unwrap_or_else(|| panic!("{name}"));
        assert_eq!(node.text(), Some("nginx"), "{name}");
        assert_eq!(text.get(node.written.bytes.clone()), Some(want), "{name}");
        assert_eq!(node.at, Position { line: at.0, column: at.1 }, "{name}");
    }
}

#[test]
fn every_character_before_a_scalar_counts() {
    for before in 0..200 {
        let text = format!("# {}\na: nginx\n", "ü".repeat(before));
        let root = &roots(&text)[0];
        let bytes = root.field("a").map(|node| node.written.bytes.clone()).expect("a");
        assert_eq!(&text[bytes], "nginx", "{before}");
    }
}

#[test]
fn aliases_and_merges_are_used_here_and_written_there() {
    let text = "x: &x nginx\nbase: &base {image: postgres, b: 1}\na: *x\nm:\n  <<: *base\n  b: 2\n";
    let root = &roots(text)[0];
    let alias = root.field("a").expect("a");
    assert_eq!((alias.at, alias.written.at), (Position { line: 3, column: 4 }, Position { line: 1, column: 7 }));
    assert_eq!(&text[alias.written.bytes.clone()], "nginx");
    let merged = root.field("m").and_then(|m| m.field("image")).expect("image");
    assert_eq!((merged.at.line, merged.written.at.line), (5, 2));
    assert_eq!(&text[merged.written.bytes.clone()], "postgres");
    assert_eq!(root.field("m").and_then(|m| m.field("b")).map(|b| b.value.clone()), Some(Value::Integer(2)));
}

#[test]
fn odd_keys_are_told_and_kept() {
    let document = documents("a: 1\na: 2\n3: x\ntrue: z\n", RULES).remove(0).expect("readable");
    let told: Vec<String> = document.oddities.iter().map(|(at, oddity)| format!("{at} {oddity}")).collect();
    assert_eq!(
        told,
        [
            "2:1 key `a` is already written at 1:1",
            "3:1 a key must be text: put it in quotes",
            "4:1 a key must be text: put it in quotes",
        ]
    );
    assert_eq!(serde_json::to_string(&document.root).expect("JSON"), r#"{"a":1,"a":2,"3":"x","true":"z"}"#);
    assert!(document.root.field("a").is_none());
}

#[test]
fn empty_documents_are_none_and_unreadable_ones_are_told() {
    assert!(documents("", RULES).is_empty());
    assert!(documents("# only a comment\n---\n---\n# another\n", RULES).is_empty());
    let mut documents = documents("a: 1\n---\nb: [1\n", RULES).into_iter();
    assert!(documents.next().is_some_and(|document| document.is_ok()));
    let error = documents.next().expect("a second").expect_err("unclosed");
    assert_eq!(error.at.line, 3);
    assert!(error.message.starts_with("not readable as YAML: "), "{}", error.message);
}

#[test]
fn x_033_bombs_end_at_the_budget() {
    let deep = format!("a: {}{}\n", "[".repeat(100), "]".repeat(100));
    let aliases = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                   d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n";
    let many = "- 1\n".repeat(20_000);
    let documents_ = "---\na: 1\n".repeat(200);
    for (name, text) in [("depth", deep.as_str()), ("aliases", aliases), ("nodes", &many), ("documents", &documents_)] {
        assert!(documents(text, RULES).iter().any(Result::is_err), "{name} was read");
    }
}
