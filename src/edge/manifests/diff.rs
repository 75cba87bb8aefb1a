//! A unified diff of two texts that have the same number of lines, as `patch` and `git apply` read it. It must never be
//! asked about others: pinning changes lines and adds none.

use std::fmt::Write as _;

/// Lines around a change.
const CONTEXT: usize = 3;

/// The diff of a file; empty where nothing differs.
#[must_use]
pub fn unified(name: &str, old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let changed: Vec<usize> = (0..old.len().min(new.len())).filter(|line| old[*line] != new[*line]).collect();
    if changed.is_empty() {
        return String::new();
    }
    let name = name.trim_start_matches("./").trim_start_matches('/');
    // A name with a blank ends at the tab.
    let end = if name.contains(' ') { "\t" } else { "" };
    let mut out = format!("--- a/{name}{end}\n+++ b/{name}{end}\n");
    let mut rest = changed.as_slice();
    while let Some(first) = rest.first() {
        let last = rest.windows(2).take_while(|pair| pair[1] - pair[0] <= 2 * CONTEXT).count();
        let (hunk, after) = rest.split_at(last + 1);
        let from = first.saturating_sub(CONTEXT);
        let to = (hunk[last] + CONTEXT + 1).min(old.len()).min(new.len());
        let length = to - from;
        // Writing to a string does not fail.
        let _ = writeln!(out, "@@ -{},{length} +{},{length} @@", from + 1, from + 1);
        let mut line = from;
        while line < to {
            let run = (line..to).take_while(|line| old[*line] != new[*line]).count();
            if run == 0 {
                push(&mut out, ' ', old[line]);
                line += 1;
                continue;
            }
            old[line..line + run].iter().for_each(|text| push(&mut out, '-', text));
            new[line..line + run].iter().for_each(|text| push(&mut out, '+', text));
            line += run;
        }
        rest = after;
    }
    out
}

fn push(out: &mut String, mark: char, line: &str) {
    out.push(mark);
    out.push_str(line);
    if !line.ends_with('\n') {
        out.push_str("\n\\ No newline at end of file\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunks_have_context_and_join_where_they_touch() {
        let old = (1..=30).map(|line| line.to_string()).collect::<Vec<_>>().join("\n") + "\n";
        for (changed, want) in [
            (vec![], vec![]),
            (vec![1], vec!["@@ -1,4 +1,4 @@"]),
            (vec![10], vec!["@@ -7,7 +7,7 @@"]),
            (vec![10, 11], vec!["@@ -7,8 +7,8 @@"]),
            (vec![10, 16], vec!["@@ -7,13 +7,13 @@"]),
            (vec![10, 18], vec!["@@ -7,7 +7,7 @@", "@@ -15,7 +15,7 @@"]),
            (vec![30], vec!["@@ -27,4 +27,4 @@"]),
        ] {
            let new: String = (1..=30)
                .map(|line| if changed.contains(&line) { format!("{line}x\n") } else { format!("{line}\n") })
                .collect();
            let diff = unified("./a", &old, &new);
            let hunks: Vec<&str> = diff.lines().filter(|line| line.starts_with("@@")).collect();
            assert_eq!(hunks, want, "{changed:?}");
            assert_eq!(
                diff.lines().filter(|line| line.starts_with('+')).count(),
                if changed.is_empty() { 0 } else { changed.len() + 1 }
            );
        }
    }

    #[test]
    fn the_last_line_may_lack_its_end_and_lines_keep_theirs() {
        assert_eq!(
            unified("/x/a b", "1\r\n2", "1\r\n3"),
            "--- a/x/a b\t\n+++ b/x/a b\t\n@@ -1,2 +1,2 @@\n 1\r\n-2\n\\ No newline at end of file\n+3\n\\ No newline at end of file\n"
        );
    }
}
