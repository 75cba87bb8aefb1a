//! Child processes: calls with a time limit and servers with their logs. It must never leave one behind.
//!
//! All are started by one thread that lives as long as this process, through `setpriv --pdeathsig KILL`: the kernel
//! ends them when that thread ends, so also when this process is killed. A call runs below `timeout` besides.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use super::{folder, wait};

/// Far above what any call here takes on a slow machine.
const CALL_LIMIT: Duration = Duration::from_mins(1);

/// What a program is started with. Its environment holds nothing of ours: a place of its own for everything that it
/// wants to keep, and a proxy that does not exist, so that nothing leaves this machine by mistake.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    input: Vec<u8>,
    limit: Duration,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    pub(crate) fn new(path: impl AsRef<Path>) -> Self {
        static HOME: OnceLock<PathBuf> = OnceLock::new();
        let home = HOME.get_or_init(|| folder::new("home"));
        let nobody = OsString::from("http://127.0.0.1:9");
        Self {
            path: path.as_ref().to_owned(),
            args: Vec::new(),
            env: vec![
                ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
                ("HOME", home.into()),
                ("DOCKER_CONFIG", home.into()),
                ("HTTP_PROXY", nobody.clone()),
                ("HTTPS_PROXY", nobody),
                // The API server finds Services by itself, on loopback.
                ("NO_PROXY", "127.0.0.0/8,.svc".into()),
            ],
            input: Vec::new(),
            limit: CALL_LIMIT,
        }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable; the last value counts.
    pub(crate) fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name, value.as_ref().to_owned()));
        self
    }

    /// What the call reads on its standard input.
    pub(crate) fn input(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.input = text.into();
        self
    }

    /// Runs to the end. Fails only where that takes too long.
    pub(crate) fn run(self) -> Done {
        let shown = self.shown();
        let limit = self.limit.as_secs().to_string();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "timeout", "-k", "1", &limit, "setpriv", "--pdeathsig", "KILL"]);
        self.finish(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command);
        let mut stdin = child.stdin.take().expect("piped above");
        let writer = thread::spawn(move || {
            // A program that does not read all of its input says so by its exit code.
            let _ = stdin.write_all(&self.input);
        });
        let output = child.wait_with_output().unwrap_or_else(|e| panic!("{shown}: {e}"));
        writer.join().expect("writing does not panic");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let done = Done {
            code: output.status.code().unwrap_or(137),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        assert!(![124, 137].contains(&done.code), "{shown}: ended after {limit} s or was killed\n{}", done.stderr);
        done
    }

    /// Runs to the end; gives what it prints. Fails where the program fails.
    pub(crate) fn must(self) -> String {
        let shown = self.shown();
        let done = self.run();
        assert!(done.code == 0, "{shown}\nexit code {}\n{}{}", done.code, done.stdout, done.stderr);
        done.stdout
    }

    /// Starts a server whose output goes to files in a folder of its own.
    pub(crate) fn serve(self, name: &str) -> Server {
        let logs = folder::new(&format!("{name}-logs"));
        let file = |name: &str| File::create(logs.join(name)).expect("a log file");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        self.finish(&mut command);
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        Server { name: name.to_owned(), logs, child: Mutex::new(spawn(command)) }
    }

    fn finish(&self, command: &mut Command) {
        command.arg(&self.path).args(&self.args).env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
    }

    fn shown(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.args.iter().fold(name.into_owned(), |shown, arg| shown + " " + &arg.to_string_lossy())
    }
}

/// A running server. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    logs: PathBuf,
    child: Mutex<Child>,
}

impl Server {
    /// The first answer that a line of its standard output gives.
    pub(crate) fn stdout_line<T>(&self, pick: impl Fn(&str) -> Option<T>) -> T {
        self.line("stdout", pick)
    }

    /// The first answer that a line of its standard error gives.
    pub(crate) fn stderr_line<T>(&self, pick: impl Fn(&str) -> Option<T>) -> T {
        self.line("stderr", pick)
    }

    fn line<T>(&self, stream: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        self.until(&format!("the line on {stream}"), Duration::from_secs(30), || {
            fs::read_to_string(self.logs.join(stream)).ok()?.lines().find_map(&pick)
        })
    }

    /// Like [`wait::until`]; gives up at once, with its logs, where the server has ended.
    pub(crate) fn until<T>(&self, what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
        wait::until(&format!("{}: {what}", self.name), limit, || {
            let answer = ask();
            assert!(answer.is_some() || self.is_running(), "{} has ended\n{}", self.name, self.log());
            answer
        })
    }

    pub(crate) fn is_running(&self) -> bool {
        self.lock().try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Everything that it has written, for the message of a test that fails.
    pub(crate) fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.logs.join(name)).unwrap_or_default();
        format!("{}{}", read("stdout"), read("stderr"))
    }

    /// The file that holds its standard output.
    pub(crate) fn stdout(&self) -> PathBuf {
        self.logs.join("stdout")
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        let mut child = self.lock();
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Asks it to end by SIGTERM and does not wait.
    pub(crate) fn ask_to_end(&self) {
        let id = self.lock().id().to_string();
        Program::new("/bin/sh").args(["-c", "kill -TERM \"$1\"", "kill", &id]).must();
    }

    /// Waits for its end.
    pub(crate) fn ended(&self, limit: Duration) -> ExitStatus {
        wait::until(&format!("{} ends", self.name), limit, || self.lock().try_wait().expect("a child of ours"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().expect("nothing panics while it holds the child")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a process from the one thread that lives as long as we do: the kernel ends a child when the *thread* that
/// started it ends, and tests run in threads that come and go.
fn spawn(command: Command) -> Child {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static KEEPER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // Whoever asked may have given up.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let shown = format!("{command:?}");
    let (answer, started) = mpsc::channel();
    keeper.lock().expect("nothing panics while it sends").send((command, answer)).expect("the keeper lives");
    started.recv().expect("the keeper answers").unwrap_or_else(|e| panic!("{shown}: {e}"))
}
