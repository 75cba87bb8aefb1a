//! `provost check`, `pin`, `completions` and `man` as a user meets them: the real program against a registry on this
//! machine. Goldens are in `tests/manifests/`; what was printed instead is left in the target's `tmp` folder.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use provost::decision::reference::Digest;
use provost::edge::samples::{SampleKey, Samples};
use serde_json::Value;

/// Stands for the registry's port in fixtures and goldens: as long as any that the system gives.
const PORT: &str = "54321";
/// No run of the program takes longer.
const PATIENCE: Duration = Duration::from_mins(2);

/// A registry with images, settings, policies, and a folder for manifests.
struct Stage {
    folder: tempfile::TempDir,
    port: u16,
    api: Digest,
    unsigned: Digest,
    _runtime: tokio::runtime::Runtime,
}

/// How the program ended.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Stage {
    fn set() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let key = SampleKey::generate().expect("key");
        let mut samples = Samples::default();
        let api = samples.image("release/payments/api", "1.2", "api");
        assert_eq!(samples.image("release/payments/api", "latest", "api"), api);
        let unsigned = samples.image("release/payments/unsigned", "1.0", "unsigned");
        samples.sign_with_bundle("release/payments/api", api, &key).expect("signed");
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).expect("listener");
        let port = listener.local_addr().expect("address").port();
        assert_eq!(port.to_string().len(), PORT.len());
        runtime.spawn(async move { axum::serve(listener, samples.into_router()).await });

        let stage = Self { folder: tempfile::tempdir().expect("folder"), port, api, unsigned, _runtime: runtime };
        let pem = key.public_pem().trim().replace('\n', "\n            ");
        let policy = |name: &str, mode: &str| {
            format!(
                "apiVersion: provost.dev/v1\nkind: ReleasePolicy\nmetadata: {{name: {name}}}\nspec:\n  mode: {mode}\n  \
                 namespaces: {{names: [{name}]}}\n  signers:\n    release:\n      keys:\n        - pem: |\n            \
                 {pem}\n      transparencyLog: not-required\n  rules:\n    - name: releases\n      repositories: \
                 [\"127.0.0.1:{PORT}/release/payments/**\", \"127.0.0.1:1/release/**\"]\n      signatures: {{by: [release]}}\n"
            )
        };
        stage.write("policies/payments.yaml", &policy("payments", "enforce"));
        stage.write("policies/relaxed.yaml", &policy("relaxed", "warn"));
        stage.write(
            "provost.yaml",
            &format!(
                "policies: policies/\nregistries:\n  \"127.0.0.1:{PORT}\": {{addresses: [127.0.0.0/8], plainHttp: true}}\n  \
                 \"127.0.0.1:1\": {{addresses: [127.0.0.0/8], plainHttp: true}}\n"
            ),
        );
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a text in which [`PORT`] and the names of digests are put in.
    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("folder")).expect("folder");
        fs::write(path, self.filled(text)).expect("file");
    }

    fn read(&self, name: &str) -> String {
        self.unfilled(&fs::read_to_string(self.path(name)).expect("file"))
    }

    fn filled(&self, text: &str) -> String {
        text.replace(PORT, &self.port.to_string())
            .replace("<api>", &self.api.to_string())
            .replace("<unsigned>", &self.unsigned.to_string())
    }

    fn unfilled(&self, text: &str) -> String {
        let text = text
            .replace(&format!(":{}", self.port), &format!(":{PORT}"))
            .replace(&self.api.to_string(), "<api>")
            .replace(&self.unsigned.to_string(), "<unsigned>")
            .replace(&self.unsigned.short(), "<unsigned>");
        // What is left differs with the key.
        let mut parts = text.split("sha256:");
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            out.push_str("sha256:…");
            out.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
        }
        out
    }

    /// Copies a folder of fixtures.
    fn copy(&self, from: &Path, to: &str) {
        for entry in fs::read_dir(from).expect("fixtures") {
            let entry = entry.expect("entry");
            let name = format!("{to}/{}", entry.file_name().to_str().expect("UTF-8"));
            if entry.path().is_dir() {
                self.copy(&entry.path(), &name);
            } else {
                self.write(&name, &fs::read_to_string(entry.path()).expect("fixture"));
            }
        }
    }

    fn run(&self, args: &[&str]) -> Ended {
        self.run_with(args, "")
    }

    /// Runs the program in the stage's folder; its output as it would be with [`PORT`] and the names of digests.
    fn run_with(&self, args: &[&str], stdin: &str) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_provost"));
        command.current_dir(self.folder.path()).env_clear().env("PROVOST_CONFIG", "provost.yaml").args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program was built with this test");
        let mut to = child.stdin.take().expect("a pipe");
        let text = self.filled(stdin);
        let (ended, when) = mpsc::channel();
        std::thread::spawn(move || {
            // Whoever does not read its input does not need it.
            let _ = to.write_all(text.as_bytes());
            drop(to);
            let _ = ended.send(child.wait_with_output());
        });
        let output = when.recv_timeout(PATIENCE).expect("it ends in time").expect("output");
        let text = |bytes: Vec<u8>| self.unfilled(&String::from_utf8(bytes).expect("UTF-8"));
        Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests")
}

/// Compares with a golden file.
fn golden(name: &str, found: &str) {
    let want = fs::read_to_string(fixtures().join(name)).unwrap_or_default();
    if want != found {
        let left = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&left, found).expect("the target folder can be written to");
        assert_eq!(want, found, "{name} is not what was printed; that is in {}", left.display());
    }
}

#[test]
fn check_says_the_verdict_for_each_workload() {
    let stage = Stage::set();
    stage.copy(&fixtures().join("deploy"), "deploy");
    let table = stage.run(&["check", "-f", "deploy", "-n", "payments"]);
    assert_eq!(table.code, Some(1), "{}{}", table.out, table.err);
    golden("table.golden", &table.out);
    assert_eq!(table.err, "");

    let json = stage.run(&["check", "-f", "deploy", "-n", "payments", "-o", "json"]);
    assert_eq!((json.code, json.err.as_str()), (Some(1), ""));
    golden("json.golden", &json.out);
    let parsed: Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(parsed["schemaVersion"], 1);
    let schema: Value = serde_json::from_str(&stage.run(&["check", "--schema"]).out).expect("JSON");
    for required in schema["required"].as_array().expect("required") {
        assert!(!parsed[required.as_str().expect("text")].is_null(), "{required}");
    }

    let sarif = stage.run(&["check", "-f", "deploy", "-n", "payments", "-o", "sarif"]);
    assert_eq!((sarif.code, sarif.err.as_str()), (Some(1), ""));
    golden("sarif.golden", &sarif.out);
    let run = &serde_json::from_str::<Value>(&sarif.out).expect("JSON")["runs"][0];
    for result in run["results"].as_array().expect("results") {
        let index = usize::try_from(result["ruleIndex"].as_u64().expect("index")).expect("index");
        assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
    }
}

#[test]
fn check_ends_in_0_1_or_2() {
    let stage = Stage::set();
    let pod = |namespace: &str, image: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: {namespace}}}\nspec: {{containers: [{{name: a, image: \"{image}\"}}]}}\n"
        )
    };
    let api = format!("127.0.0.1:{PORT}/release/payments/api@<api>");
    let unsigned = format!("127.0.0.1:{PORT}/release/payments/unsigned@<unsigned>");
    let down = "127.0.0.1:1/release/api@<api>";
    let good = pod("payments", &api);
    for (name, text, want, told) in [
        ("admitted", good.clone(), 0, "1 admitted, 0 denied, 0 skipped\n"),
        ("unsigned", pod("payments", &unsigned), 1, "unsigned"),
        ("nobody enforces", pod("relaxed", &unsigned), 0, "1 would be denied if it were enforced"),
        ("ungoverned", pod("other", &api), 1, "no-policy"),
        ("registry down", pod("payments", down), 2, "evidence-unavailable"),
        ("one down, one denied", format!("{}---\n{}", pod("payments", down), pod("other", &api)), 1, "no-policy"),
        ("nothing to check", "kind: Service\n".to_owned(), 2, "0 admitted, 0 denied, 1 skipped\n"),
        ("empty", String::new(), 2, "0 admitted, 0 denied, 0 skipped\n"),
        ("unreadable", format!("{good}---\na: [\n"), 2, "1 admitted, 0 denied, 0 skipped, 1 unreadable\n"),
        ("unreadable and denied", format!("{}---\na: [\n", pod("other", &api)), 1, "1 unreadable\n"),
    ] {
        let ended = stage.run_with(&["check", "-f", "-"], &text);
        assert_eq!(ended.code, Some(want), "{name}: {}{}", ended.out, ended.err);
        assert!(ended.out.contains(told), "{name}: {}", ended.out);
    }

    stage.write("good.yaml", &good);
    stage.write("bad-policies/a.yaml", "kind: ReleasePolicy\n");
    for (name, args, want, told) in [
        ("a file", vec!["check", "-f", "good.yaml"], 0, ""),
        ("twice is once", vec!["check", "-f", "good.yaml", "-f", "good.yaml"], 0, ""),
        ("missing file", vec!["check", "-f", "good.yaml", "-f", "missing.yaml"], 2, "missing.yaml: No such file"),
        ("no file", vec!["check"], 2, "--file"),
        ("no such output", vec!["check", "-f", "good.yaml", "-o", "xml"], 2, "xml"),
        ("no namespace", vec!["check", "-f", "good.yaml", "-n", "A_b"], 2, "A_b"),
        ("bad policies", vec!["check", "-f", "good.yaml", "-p", "bad-policies"], 2, "do not load"),
        ("no policies", vec!["check", "-f", "good.yaml", "-p", "nowhere"], 2, "nowhere"),
    ] {
        let ended = stage.run(&args);
        assert_eq!(ended.code, Some(want), "{name}: {}{}", ended.out, ended.err);
        assert!(ended.err.contains(told), "{name}: {}", ended.err);
    }
}

#[test]
fn check_reads_what_helm_and_kustomize_print() {
    let stage = Stage::set();
    let api = format!("127.0.0.1:{PORT}/release/payments/api@<api>");
    let printed = format!(
        "---\n# Source: web/templates/service.yaml\napiVersion: v1\nkind: Service\nmetadata:\n  name: web\n---\n\
         # Source: web/templates/empty.yaml\n\n---\n# Source: web/templates/deployment.yaml\napiVersion: apps/v1\n\
         kind: Deployment\nmetadata:\n  name: web\nspec:\n  template:\n    spec:\n      containers:\n      - image: {api}\n\
         \u{20}       name: web\n---\napiVersion: example.com/v1\nkind: Rollout\nspec: {{}}\n"
    );
    let ended = stage.run_with(&["check", "-n", "payments", "-f", "-"], &printed);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    for want in [
        "payments/web (Deployment)  stdin:12\n",
        "stdin:20:16  spec.template.spec.containers[0] (web)\n",
        "1 admitted, 0 denied, 2 skipped\n",
    ] {
        assert!(ended.out.contains(want), "{want}: {}", ended.out);
    }
    assert_eq!(stage.run_with(&["check", "-f", "-"], &printed).code, Some(1), "nobody governs `default`");
}

const PINNED: &str = "# größe\r
apiVersion: apps/v1\r
kind: Deployment\r
metadata: {name: web}\r
spec:\r
  template:\r
    spec:\r
      initContainers:\r
        - name: init\t# kept\r
          image: \"127.0.0.1:54321/release/payments/unsigned:1.0§@<unsigned>§\"   # the tag stays\r
      containers:\r
        - {name: web, image: &i 127.0.0.1:54321/release/payments/api§:latest@<api>§}\r
        - {name: side, image: *i}\r
        - name: done\r
          image: '127.0.0.1:54321/release/payments/api@<api>'\r
        - name: block\r
          image: |-\r
            127.0.0.1:54321/release/payments/api:1.2§@<api>§";

fn without_pins(text: &str) -> String {
    text.split('§').step_by(2).collect()
}

#[test]
fn pin_puts_digests_in_and_moves_no_other_byte() {
    let stage = Stage::set();
    let (before, after) = (without_pins(PINNED), PINNED.replace('§', ""));
    stage.write("deploy/web.yaml", &before);
    fs::set_permissions(stage.path("deploy/web.yaml"), fs::Permissions::from_mode(0o640)).expect("mode");

    let diff = stage.run(&["pin", "-f", "./deploy"]);
    assert_eq!(diff.code, Some(0), "{}{}", diff.out, diff.err);
    golden("pin.golden", &diff.out);
    assert_eq!(diff.err, "4 pinned, 1 pinned already, 0 left as they are, 0 unreadable\n");
    assert_eq!(stage.read("deploy/web.yaml"), before, "nothing is written without --write");

    let piped = stage.run_with(&["pin", "-f", "-"], &before);
    assert_eq!((piped.code, piped.out), (Some(0), after.clone()));

    let written = stage.run(&["pin", "-f", "deploy", "--write"]);
    assert_eq!((written.code, written.out.as_str()), (Some(0), ""), "{}", written.err);
    assert_eq!(stage.read("deploy/web.yaml"), after);
    let mode = fs::metadata(stage.path("deploy/web.yaml")).expect("file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);

    let again = stage.run(&["pin", "-f", "deploy", "--write"]);
    assert_eq!((again.code, again.out.as_str()), (Some(0), ""));
    assert_eq!(again.err, "0 pinned, 5 pinned already, 0 left as they are, 0 unreadable\n");
    assert_eq!(stage.read("deploy/web.yaml"), after);
}

#[test]
fn pin_says_what_it_leaves_and_why() {
    let stage = Stage::set();
    let pod = |image: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  containers:\n    - image: 127.0.0.1:{PORT}/release/payments/api:1.2\n    - image: {image}\n"
        )
    };
    for (name, image, told) in [
        (
            "no such tag",
            &*format!("127.0.0.1:{PORT}/release/payments/api:9.9"),
            "stdin:7:14: 127.0.0.1:54321/release/payments/api:9.9",
        ),
        ("not there, code", &format!("127.0.0.1:{PORT}/release/nothing:1"), "(image-not-found)"),
        ("an address that is not listed", "127.0.0.2:5000/a:1", "(address-refused)"),
        ("a private address", "10.0.0.1/a:1", "(address-refused)"),
        ("nobody there", "127.0.0.1:1/release/a:1", "(evidence-unavailable)"),
        ("no image name", "A b", "stdin:7:14: "),
        ("another digest", "a@sha512:abcd", "stdin:7:14: digest algorithm is not sha256"),
        (
            "over lines",
            &format!("\"127.0.0.1:{PORT}/release/payments/\\\n        api:1.2\""),
            "stdin:7:14: the image is written over several lines",
        ),
        ("no text", "12", "stdin:1:1: malformed-review"),
    ] {
        let before = pod(image);
        let ended = stage.run_with(&["pin", "-f", "-", "--timeout", "20"], &before);
        assert_eq!(ended.code, Some(1), "{name}: {}{}", ended.out, ended.err);
        assert!(ended.err.contains(told), "{name}: {}", ended.err);
        let good = if name == "no text" { before } else { before.replacen("api:1.2\n", "api:1.2@<api>\n", 1) };
        assert_eq!(ended.out, good, "{name}");
    }
    stage.write("a.yaml", &pod("b"));
    for (name, args, told) in [
        ("stdin in place", vec!["pin", "-f", "-", "--write"], "leave out --write"),
        ("stdin and a file", vec!["pin", "-f", "-", "-f", "a.yaml"], "stdin stands alone"),
        ("missing file", vec!["pin", "-f", "missing.yaml"], "No such file"),
        ("no file", vec!["pin"], "--file"),
        ("not YAML", vec!["pin", "-f", "provost.yaml", "-f", "broken.yaml"], "broken.yaml:1:4: not readable as YAML"),
    ] {
        stage.write("broken.yaml", "a: [\n");
        let ended = stage.run(&args);
        assert_eq!(ended.code, Some(2), "{name}: {}{}", ended.out, ended.err);
        assert!(ended.err.contains(told), "{name}: {}", ended.err);
    }
}

#[test]
fn completions_and_pages_name_every_command() {
    let stage = Stage::set();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = stage.run(&["completions", shell]);
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        for command in ["serve", "check", "pin", "verify", "completions"] {
            assert!(ended.out.contains(command), "{shell}: {command}");
        }
    }
    assert_eq!(stage.run(&["completions", "tcsh"]).code, Some(2));
    let page = stage.run(&["man"]);
    assert_eq!(page.code, Some(0));
    assert!(page.out.contains(".TH provost 1") && page.out.contains("provost\\-check(1)"), "{}", page.out);
    assert_eq!(stage.run(&["man", "--dir", "man1"]).code, Some(0));
    for (name, want) in
        [("provost.1", "admission gate"), ("provost-check.1", "Exit code: 0"), ("provost-pin.1", "git apply")]
    {
        assert!(stage.read(&format!("man1/{name}")).contains(want), "{name}");
    }
}
