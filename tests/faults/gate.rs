//! The real server: `provost serve` with settings, policies, certificates and a ledger of its own, and everything that it
//! ever said.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::caller::Caller;
use crate::sample::{Key, digest};
use crate::wire::credential;

/// How long a start or an end may take on a loaded machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// One host of `registries`.
pub(crate) struct Listed {
    pub(crate) host: String,
    /// `addresses`.
    pub(crate) addresses: &'static str,
    pub(crate) plain_http: bool,
    /// Trusted beside the system's.
    pub(crate) ca: Option<String>,
    /// Goes into a credentials file, with user and password.
    pub(crate) canary: Option<String>,
}

impl Listed {
    /// A registry on loopback over plain HTTP, without credentials.
    pub(crate) fn plain(host: String) -> Self {
        Self { host, addresses: "127.0.0.0/8", plain_http: true, ca: None, canary: None }
    }
}

/// What else it is started with.
#[derive(Default)]
pub(crate) struct Extra<'a> {
    /// Variables of its environment.
    pub(crate) env: &'a [(&'a str, &'a str)],
    /// The token of its callers, where it is not to make one itself.
    pub(crate) token: Option<&'a str>,
}

/// A running `provost serve`.
pub(crate) struct Gate {
    process: Child,
    folder: TempDir,
    pub(crate) caller: Caller,
    /// The same without the token.
    pub(crate) stranger: Caller,
    health: SocketAddr,
    said: [Arc<Mutex<Vec<u8>>>; 2],
    readers: Vec<JoinHandle<()>>,
}

/// What was left when it had ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// By name: standard output and error, and every file that it wrote.
    pub(crate) said: Vec<(String, Vec<u8>)>,
    folder: TempDir,
}

impl Gate {
    /// Starts it with a policy for the namespace `payments`: images of these hosts, below `release/`, must be signed with
    /// this key. A deny-list makes it read each image's own manifest.
    pub(crate) async fn start(key: &Key, hosts: &[String], registries: &[Listed]) -> Self {
        Self::start_with(key, hosts, registries, &Extra::default()).await
    }

    /// The same, with more.
    pub(crate) async fn start_with(key: &Key, hosts: &[String], registries: &[Listed], extra: &Extra<'_>) -> Self {
        let folder =
            tempfile::Builder::new().prefix("faults-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("folder");
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| fs::write(at(name), text).expect("a file");
        let made = provost::edge::tls::ca::make(&["provost.provost.svc".to_owned()], 2).expect("certificates");
        write("ca.crt", &made.ca_pem);
        write("tls.crt", &made.cert_pem);
        write("tls.key", &made.key_pem);
        fs::create_dir(at("policies")).expect("a folder");
        write("policies/payments.yaml", &policy(key, hosts));
        let mut settings = json!({
            "cluster": "faults", "listen": "127.0.0.1:0", "healthListen": "127.0.0.1:0", "drain": "0s",
            "tls": {"cert": "tls.crt", "key": "tls.key"}, "policies": "policies", "ledger": {"store": "ledger.db"},
            "records": "stdout", "logFormat": "json", "registries": {}, "callerToken": "caller-token",
        });
        if let Some(token) = extra.token {
            write("caller-token", token);
        }
        fs::create_dir(at("secret")).expect("a folder");
        for (number, listed) in registries.iter().enumerate() {
            let mut about = json!({"addresses": [listed.addresses], "plainHttp": listed.plain_http});
            if let Some(ca) = &listed.ca {
                let name = format!("secret/{number}.crt");
                write(&name, ca);
                about["ca"] = json!(name);
            }
            if let Some(canary) = &listed.canary {
                let name = format!("secret/{number}.json");
                let auths = json!({"auths": {&listed.host: {"auth": BASE64.encode(credential(canary))}}});
                write(&name, &auths.to_string());
                about["credentialsFile"] = json!(name);
            }
            settings["registries"][&listed.host] = about;
        }
        // JSON is YAML.
        write("provost.yaml", &settings.to_string());

        let mut process = Command::new(env!("CARGO_BIN_EXE_provost"))
            .args(["serve", "--config"])
            .arg(at("provost.yaml"))
            // Everything that it can be brought to say.
            .env("RUST_LOG", "debug")
            // The system's roots are no part of this.
            .env("SSL_CERT_FILE", at("ca.crt"))
            // In a cluster the token would be somebody else's to make.
            .env_remove("KUBERNETES_SERVICE_HOST")
            .envs(extra.env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (tell, told) = mpsc::channel();
        let said = [Arc::default(), Arc::default()];
        let readers = vec![
            keep(process.stdout.take().expect("piped"), Arc::clone(&said[0]), None),
            keep(process.stderr.take().expect("piped"), Arc::clone(&said[1]), Some(tell)),
        ];
        let listening = tokio::task::spawn_blocking(move || told.recv_timeout(PATIENCE)).await.expect("no panic");
        if listening.is_err() {
            let _ = process.kill();
        }
        let why = || String::from_utf8_lossy(&said[1].lock().expect("lock")).into_owned();
        assert!(listening.is_ok(), "it does not listen: {}", why());
        let listening = listening.unwrap_or_default();
        let address = |key: &str| -> SocketAddr {
            let url = listening[key].as_str().expect("an address");
            let authority = url.split("//").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
            authority.parse().expect("an address")
        };
        // Made at the first start; without it a caller is trusted with no credential.
        let tokens = fs::read_to_string(at("caller-token")).expect("a caller token");
        let token = tokens.lines().next().expect("a caller token");
        let [caller, stranger] = [token, "nobody"].map(|token| Caller::new(address("review"), &made.ca_pem, token));
        Self { process, folder, caller, stranger, health: address("health"), said, readers }
    }

    /// The text of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        let answer = client.get(format!("http://{}/metrics", self.health)).send().await.expect("metrics");
        answer.text().await.expect("metrics")
    }

    /// Asks it to end, and waits for it.
    pub(crate) async fn end(mut self) -> Ended {
        let id = self.process.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &id]).status().expect("kill(1)");
        assert!(killed.success(), "it ended before it was told to");
        let readers = std::mem::take(&mut self.readers);
        // Its pipes close when it ends.
        let drained = tokio::task::spawn_blocking(move || readers.into_iter().all(|reader| reader.join().is_ok()));
        let drained = tokio::time::timeout(PATIENCE, drained).await;
        if drained.is_err() {
            let _ = self.process.kill();
        }
        let status = self.process.wait().expect("it ends");
        let [out, err] = &self.said;
        let mut said = vec![
            ("stdout".to_owned(), out.lock().expect("lock").clone()),
            ("stderr".to_owned(), err.lock().expect("lock").clone()),
        ];
        for entry in fs::read_dir(self.folder.path()).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                said.push((name, fs::read(&path).expect("a file")));
            }
        }
        let folder = std::mem::replace(&mut self.folder, TempDir::new().expect("folder"));
        Ended { status, said, folder }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Ended {
    pub(crate) fn ledger(&self) -> PathBuf {
        self.file("ledger.db")
    }

    /// A file of its folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Keeps a stream to its end; of the log it tells the line that says where is listened.
fn keep(
    from: impl Read + Send + 'static,
    to: Arc<Mutex<Vec<u8>>>,
    tell: Option<mpsc::Sender<Value>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        let mut tell = tell;
        while from.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            if let Some(teller) = &tell
                && let Ok(said) = serde_json::from_slice::<Value>(&line)
                && said["message"] == "listening"
            {
                // Nobody listens any more only where the start was given up.
                let _ = teller.send(said);
                tell = None;
            }
            to.lock().expect("lock").append(&mut line);
        }
    })
}

fn policy(key: &Key, hosts: &[String]) -> String {
    let key = key.public_pem();
    let repositories: Vec<String> = hosts.iter().map(|host| format!("{host}/release/**")).collect();
    let release = json!({
        "apiVersion": "provost.dev/v1", "kind": "ReleasePolicy", "metadata": {"name": "payments"},
        "spec": {
            "namespaces": {"names": ["payments"]},
            "signers": {"release-key": {"keys": [{"pem": key}], "transparencyLog": "not-required"}},
            "rules": [{"name": "releases", "repositories": repositories, "signatures": {"by": ["release-key"]}}],
        },
    });
    let withdrawn = json!({
        "apiVersion": "provost.dev/v1", "kind": "DenyList", "metadata": {"name": "withdrawn"},
        "spec": {"digests": [{"digest": digest(b"withdrawn"), "reason": "for this test"}]},
    });
    format!("{release}\n---\n{withdrawn}\n")
}
