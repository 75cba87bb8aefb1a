//! Secrets that pass by (X-130): in objects, in requests, in the environment, in settings and in what registries say. Each
//! is a canary; every reply, record, log line, metric and file that the server leaves is searched for them.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::authority::Authority;
use crate::canary;
use crate::gate::{Extra, Gate, Listed};
use crate::sample::{Contents, Key, Stage, shape, signed};
use crate::spoil::redirect;
use crate::wire::{Auth, Door, Script, Server, Spoil};

/// What a first start writes, or somebody gives: there secrets are at home.
const HOMES: [&str; 3] = ["caller-token", "tls.key", "provost.yaml"];

/// The place of the secret in a review that cannot be judged.
const WRONG: &str = "where it goes wrong";

/// The canaries, and where each was put.
#[derive(Default)]
struct Seeds(Vec<(String, String)>);

impl Seeds {
    fn plant(&mut self, place: &str) -> String {
        let canary = canary::make(self.0.len());
        self.0.push((canary.clone(), place.to_owned()));
        canary
    }
}

/// The request of a new pod in which everything that nobody needs for a verdict is a secret.
fn request(seeds: &mut Seeds, uid: &str, image: &str) -> Value {
    let mut plant = |place: &str| seeds.plant(&format!("{uid}: {place}"));
    let container = json!({
        "name": "app",
        "image": image,
        "env": [{"name": "PASSWORD", "value": plant("env")}],
        "command": ["sh", "-c", plant("command")],
        "args": [format!("--password={}", plant("args"))],
        "workingDir": plant("workingDir"),
        "livenessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "Authorization", "value": plant("probe")}]}},
        "lifecycle": {"preStop": {"exec": {"command": [plant("preStop")]}}},
    });
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": uid,
            "namespace": "payments",
            "labels": {"app": plant("label")},
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": plant("annotation"),
                "vault.example/token": plant("another annotation"),
            },
            "managedFields": [{"manager": plant("managedFields")}],
        },
        "spec": {
            "containers": [container],
            "volumes": [{"name": "v", "csi": {"driver": "d", "volumeAttributes": {"password": plant("volume")}}}],
            "hostAliases": [{"ip": "127.0.0.1", "hostnames": [plant("host alias")]}],
            "aFieldOfTheFuture": {"password": plant("unknown field")},
        },
        "status": {"message": plant("status")},
    });
    json!({
        "uid": uid,
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "name": uid,
        "namespace": "payments",
        "operation": "CREATE",
        "userInfo": {
            "username": "alice@acme.com",
            "uid": plant("user's uid"),
            "groups": ["system:authenticated"],
            "extra": {"authentication.kubernetes.io/credential-id": [plant("user's extra")]},
        },
        "object": object,
        "oldObject": null,
        "dryRun": false,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": plant("options")},
    })
}

/// As an API server writes it: the uid stands early.
fn review(request: &Value) -> String {
    let (uid, request) = (&request["uid"], request.to_string());
    let request = request.replacen('{', &format!("{{\"uid\":{uid},"), 1);
    // Only one of the two may stay.
    let request = match request.rmatch_indices(&format!(",\"uid\":{uid}")).next() {
        Some((at, found)) => format!("{}{}", &request[..at], &request[at + found.len()..]),
        None => request,
    };
    format!(r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{request}}}"#)
}

/// Reviews that cannot be read, or not be judged, each with its code, and with a secret where it goes wrong.
fn unreadable(seeds: &mut Seeds, image: &str) -> Vec<(&'static str, &'static str, String)> {
    let mut all = Vec::new();
    let mut add = |uid: &'static str, code, change: &dyn Fn(&mut Value, String), edit: &dyn Fn(String) -> String| {
        let mut request = request(seeds, uid, image);
        change(&mut request, seeds.plant(&format!("{uid}: {WRONG}")));
        all.push((uid, code, edit(review(&request))));
    };
    let pod = |request: &mut Value, pointer: &str, value: Value| {
        *request.pointer_mut(&format!("/object/spec{pointer}")).expect("it is there") = value;
    };
    let keep = |text: String| text;
    add("text-for-containers", "malformed-review", &|r, s| pod(r, "/containers", json!(s)), &keep);
    add("text-for-a-container", "malformed-review", &|r, s| pod(r, "/containers/0", json!(s)), &keep);
    add("object-for-an-image", "malformed-review", &|r, s| pod(r, "/containers/0/image", json!({ "a": s })), &keep);
    add("text-for-the-spec", "malformed-review", &|r, s| r["object"]["spec"] = json!(s), &keep);
    add("text-for-the-metadata", "malformed-review", &|r, s| r["object"]["metadata"] = json!(s), &keep);
    add("text-for-the-object", "malformed-review", &|r, s| r["object"] = json!(s), &keep);
    add("text-for-the-user", "malformed-review", &|r, s| r["userInfo"] = json!(s), &keep);
    add("text-for-the-groups", "malformed-review", &|r, s| r["userInfo"]["groups"] = json!(s), &keep);
    add("text-for-dry-run", "malformed-review", &|r, s| r["dryRun"] = json!(s), &keep);
    add("env-twice", "malformed-review", &|r, s| pod(r, "/containers/0/env/0/value", json!(s)), &|text| {
        text.replacen("\"env\":", "\"env\":[],\"env\":", 1)
    });
    add("half-a-surrogate", "malformed-review", &|r, s| pod(r, "/containers/0/env/0/value", json!(s)), &|text| {
        text.replacen("\"PASSWORD\",\"value\":\"", "\"PASSWORD\",\"value\":\"\\ud800", 1)
    });
    add("broken-off", "malformed-review", &|r, s| r["options"]["fieldManager"] = json!(s), &|text| {
        text[..text.len() - 20].to_owned()
    });
    add("more-behind", "malformed-review", &|r, s| r["options"]["fieldManager"] = json!(s), &|text| {
        format!("{text}{text}")
    });
    let hidden =
        |r: &mut Value, s| r["object"]["spec"]["future"] = json!({"image": "registry.example/x", "password": s});
    add("unknown-image", "unknown-image-field", &hidden, &keep);
    let secret = |r: &mut Value, s| {
        r["kind"]["kind"] = json!("Secret");
        r["resource"]["resource"] = json!("secrets");
        r["object"] =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": s}});
    };
    add("a-secret", "unsupported-kind", &secret, &keep);
    add("too-large", "review-too-large", &|r, s| r["object"]["status"]["message"] = json!(s), &|text| {
        text + &" ".repeat(9 << 20)
    });
    all
}

/// Everything that is said, by name.
type Said = Vec<(String, Vec<u8>)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn x_130_no_secret_that_passes_by_is_told_to_anybody() {
    let _alone = crate::ALONE.lock().await;
    let mut seeds = Seeds::default();
    let key = Key::new();
    let mut contents = Contents::default();
    let [good, bare, lost] =
        ["good", "bare", "lost"].map(|name| shape::plain(&mut contents, &format!("release/{name}"), name));
    signed::bundle(&mut contents, &good, &key);
    signed::not_at_all(&mut contents, &bare, &key);
    let stored = Contents(
        contents.0.iter().filter(|(_, o)| o.stage == Stage::Blob).map(|(p, o)| (p.clone(), o.clone())).collect(),
    );
    signed::bundle(&mut contents, &lost, &key);
    let authority = Authority::new();
    let script = |contents, auth, canary, spoil| Script {
        contents,
        tls: None,
        auth,
        canary,
        door: Door::Open,
        spoil,
        traps: Default::default(),
        storage: String::new(),
    };
    let tls = Some(authority.acceptor("127.0.0.1", false));
    let storage = Server::start(Script { tls, ..script(stored, Auth::None, String::new(), None) }).await;
    let gone =
        Server::start(Script { door: Door::Refuse, ..script(Contents::default(), Auth::None, String::new(), None) })
            .await;
    gone.switch_on().await;
    // As a registry on object storage does it: who has the address may read. One of the two does not listen, and that is
    // told.
    let (signature, there) = (seeds.plant("the signed address of a blob"), storage.host());
    let nowhere = gone.host();
    let elsewhere: Spoil = Arc::new(move |asked, _, _| {
        let at = if asked.target.contains("/lost/") { &nowhere } else { &there };
        redirect(&format!("https://{at}{}?X-Amz-Signature={signature}", asked.target))
    });
    let credential = seeds.plant("the credential of a registry");
    let registry =
        Server::start(script(contents, Auth::Bearer, credential.clone(), Some((Stage::Blob, elsewhere)))).await;
    registry.switch_on().await;
    let host = registry.host();
    let over_tls = |server: &Server| {
        let ca = Some(authority.pem.clone());
        Listed { plain_http: false, ca, ..Listed::plain(server.host()) }
    };
    let listed =
        [Listed { canary: Some(credential), ..Listed::plain(host.clone()) }, over_tls(&storage), over_tls(&gone)];
    let (token, env) = (seeds.plant("the token of a caller"), seeds.plant("an environment variable"));
    // And all that any part of it can be brought to log.
    let env_of_it = [("AWS_SECRET_ACCESS_KEY", &*env), ("REGISTRY_PASSWORD", &env), ("RUST_LOG", "trace")];
    let extra = Extra { env: &env_of_it, token: Some(&token) };
    let gate = Gate::start_with(&key, std::slice::from_ref(&host), &listed, &extra).await;

    let mut sent = env.clone();
    let mut said: Said = Vec::new();
    let mut say = async |gate: &Gate, path: &str, header: (&str, &str), body: String| {
        sent.extend([path, header.0, header.1, body.trim_end()]);
        let answer = gate.caller.say(path, header, body).await;
        said.push((format!("the reply to {}", said.len()), answer.clone().into_bytes()));
        answer
    };
    let plain = ("Accept", "application/json, */*");
    let path = format!("{}?timeout=30s", gate.caller.path());
    // Judged: admitted, denied, denied since the storage fails, as a dry run, as an update.
    for (uid, image, code) in [
        ("good", &good, ""),
        ("bare", &bare, "unsigned"),
        ("lost", &lost, "evidence-unavailable"),
        ("dry", &bare, "unsigned"),
        ("update", &bare, "unsigned"),
    ] {
        let mut asked = request(&mut seeds, uid, &image.at(&host));
        asked["dryRun"] = json!(uid == "dry");
        if uid == "update" {
            asked["operation"] = json!("UPDATE");
            asked["oldObject"] = request(&mut seeds, "old", &good.at(&host))["object"].take();
            asked["oldObject"]["metadata"]["name"] = json!("update");
        }
        let answer = say(&gate, &path, plain, review(&asked)).await;
        assert!(
            answer.contains(&format!("\"allowed\":{}", code.is_empty())) && answer.contains(code),
            "{uid}: {answer}"
        );
    }
    for (uid, code, body) in unreadable(&mut seeds, &good.at(&host)) {
        let answer = say(&gate, &path, plain, body).await;
        assert!(answer.contains("\"allowed\":false") && answer.contains(code), "{uid}: {answer}");
    }
    // What comes with a request: a token that is none (any more), or at the wrong place, and headers.
    for (place, path, status) in [
        ("another token", "/validate/CANARY?timeout=30s", "200"),
        ("a token and a slash", "/validate/CANARY/", "404"),
        ("a token elsewhere", "/CANARY/validate", "404"),
        ("a query", "/validate?timeout=30s&token=CANARY", "200"),
    ] {
        let path = path.replace("CANARY", &seeds.plant(place));
        let (header, asked) = (seeds.plant("a header"), request(&mut seeds, "stranger", &bare.at(&host)));
        let answer = say(&gate, &path, ("Authorization", &format!("Bearer {header}")), review(&asked)).await;
        assert!(answer.starts_with(status), "{place}: {answer}");
    }
    // The search can find: what stands in the name of an image is told, recorded and kept.
    let shown = canary::make(99_999_999);
    let asked = request(&mut seeds, "shown", &format!("{host}/elsewhere/{shown}@{}", good.digest));
    say(&gate, &path, plain, review(&asked)).await;

    said.push(("the metrics".to_owned(), gate.metrics().await.into_bytes()));
    let mut ended = gate.end().await;
    assert!(ended.status.success(), "{}", ended.status);
    said.append(&mut ended.said);
    let ledger = ended.ledger();
    for (name, args) in [
        ("audit query, as JSON", &["audit", "query", "-o", "json", "--ledger"][..]),
        ("audit query, as a table", &["audit", "query", "-o", "table", "--ledger"]),
        ("audit stats", &["audit", "stats", "--ledger"]),
    ] {
        said.push((name.to_owned(), told(args, &ledger)));
    }
    let settings = ["serve", "--print-config", "--config"];
    said.push(("the settings".to_owned(), told(&settings, &ended.file("provost.yaml"))));

    let sent_to_registries = [registry.received(), storage.received()].concat();
    let in_files = [token, env].concat();
    let planted: Vec<u8> = [sent.into_bytes(), sent_to_registries, in_files.into_bytes()].concat();
    let planted = canary::find(&planted);
    // What a fault replaces is gone; each kind of place, and each fault, must have come.
    let kind = |place: &str| match place.rsplit_once(": ") {
        Some((_, kind)) if kind != WRONG => kind.to_owned(),
        Some(_) | None => place.to_owned(),
    };
    let all: BTreeSet<String> = seeds.0.iter().map(|(_, place)| kind(place)).collect();
    let came = seeds.0.iter().filter(|(canary, _)| planted.contains(canary)).map(|(_, place)| kind(place)).collect();
    assert_eq!(all, came, "a secret never came");
    let private_key = std::fs::read_to_string(ended.file("tls.key")).expect("its own file");
    let mut wrong = Vec::new();
    let mut showing = Vec::new();
    for (name, bytes) in said.iter().filter(|(name, _)| !HOMES.contains(&name.as_str())) {
        for found in canary::find(bytes) {
            match seeds.0.iter().find(|(canary, _)| *canary == found) {
                Some((_, place)) => wrong.push(format!("{name} tells {place}")),
                None if found == shown => showing.push(name.as_str()),
                None => wrong.push(format!("{name} holds {found}")),
            }
        }
        let text = String::from_utf8_lossy(bytes);
        if private_key.lines().any(|line| !line.starts_with('-') && text.contains(line)) {
            wrong.push(format!("{name} tells the private key"));
        }
    }
    let log = said.iter().find(|(name, _)| name == "stderr").map(|(_, bytes)| String::from_utf8_lossy(bytes));
    assert!(
        log.is_some_and(|log| log.contains("\"level\":\"TRACE\"")),
        "it was brought to log more than it does by itself"
    );
    println!("{} secrets in {} places where something is said; shown: {showing:?}", seeds.0.len(), said.len());
    for must in ["stdout", "ledger.db", "audit query, as JSON"] {
        assert!(showing.contains(&must), "the search finds nothing in {must}: {showing:?}");
    }
    assert!(showing.iter().any(|name| name.starts_with("the reply")), "{showing:?}");
    assert!(wrong.is_empty(), "{} leaks:\n{}", wrong.len(), wrong.join("\n"));
}

/// What a command of ours prints about a file, with all that it can be brought to log.
fn told(args: &[&str], file: &std::path::Path) -> Vec<u8> {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "60", env!("CARGO_BIN_EXE_provost")]).args(args).arg(file).env("RUST_LOG", "debug");
    let output = command.output().expect("`timeout` (coreutils) is installed");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    [output.stdout, output.stderr].concat()
}
