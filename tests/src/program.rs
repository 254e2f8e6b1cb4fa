//! The real programs, in processes of their own: found in the target directory, started on free ports and in temporary
//! directories, killed without mercy, and never left behind.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, Once, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
};

use crate::client::Client;

/// The longest that anything of a program may take: far more than it should, on a machine that is busy.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// The program `name`, as the build has put it beside the tests; built now if it is not there.
///
/// # Panics
/// If it cannot be built: no test can go on then.
#[must_use]
pub fn path_of(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    let directory = target_directory();
    let path = directory.join(name);
    if !path.exists() {
        BUILT.call_once(|| {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let built = std::process::Command::new(cargo)
                .args(["build", "--workspace", "--bins", "--locked"])
                .current_dir(workspace())
                .status();
            assert!(built.is_ok_and(|status| status.success()), "the programs do not build");
        });
    }
    path
}

/// The root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

fn target_directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows its own path");
        // target/debug/deps/test-0123456789abcdef
        test.parent().and_then(Path::parent).expect("tests lie two levels below the target directory").to_owned()
    })
}

/// A command that runs `cairn` with `arguments`, in no environment of the tester's.
#[must_use]
pub fn cairn(arguments: &[&str]) -> Command {
    program("cairn", arguments)
}

/// A command that runs `cairn-journal` with `arguments`.
#[must_use]
pub fn cairn_journal(arguments: &[&str]) -> Command {
    program("cairn-journal", arguments)
}

fn program(name: &str, arguments: &[&str]) -> Command {
    program_at(&path_of(name), arguments)
}

/// A command that runs the program at `path` with `arguments`, in no environment of the tester's.
#[must_use]
pub fn program_at(path: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.args(arguments).kill_on_drop(true).stdin(Stdio::null());
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("CAIRN_") {
            command.env_remove(variable);
        }
    }
    command
}

/// How a program ended, and all that it said.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// Standard output and standard error, as the lines came.
    pub output: String,
}

/// Runs `command` to its end.
///
/// # Errors
/// If it does not start, or not end in [`DEADLINE`].
pub async fn run(command: Command) -> anyhow::Result<Ended> {
    Process::start(command)?.ended().await
}

/// A program that runs.
pub struct Process {
    child: Child,
    output: Output,
}

impl Process {
    /// Starts `command`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let output = Output::default();
        output.follow(child.stdout.take().context("standard output is piped")?);
        output.follow(child.stderr.take().context("standard error is piped")?);
        Ok(Self { child, output })
    }

    /// Returns the first line for which `wanted` has an answer, with that answer.
    ///
    /// # Errors
    /// If the program ends first, or says nothing of the kind in [`DEADLINE`].
    pub async fn said<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let mut lines = self.output.changed.subscribe();
        let found = async {
            loop {
                lines.borrow_and_update();
                if let Some(found) = self.output.text().lines().find_map(&wanted) {
                    return Ok(found);
                }
                tokio::select! {
                    _ = lines.changed() => {}
                    status = self.child.wait() => {
                        // What it said last may still be on its way.
                        tokio::task::yield_now().await;
                        if let Some(found) = self.output.text().lines().find_map(&wanted) {
                            return Ok(found);
                        }
                        bail!("it ended ({:?}) and said:\n{}", status, self.output.text());
                    }
                }
            }
        };
        match tokio::time::timeout(DEADLINE, found).await {
            Ok(found) => found,
            Err(_) => bail!("it has not said it in time, but:\n{}", self.output.text()),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it does not end in [`DEADLINE`]; it is killed then.
    pub async fn ended(self) -> anyhow::Result<Ended> {
        self.ended_within(DEADLINE).await
    }

    /// Waits for its end, as long as this.
    ///
    /// # Errors
    /// If it does not end by then; it is killed.
    pub async fn ended_within(mut self, limit: Duration) -> anyhow::Result<Ended> {
        let status = match tokio::time::timeout(limit, self.child.wait()).await {
            Ok(status) => status?,
            Err(_) => bail!("it does not end; it said:\n{}", self.output.text()),
        };
        self.output.finished().await;
        Ok(Ended { status, output: self.output.text() })
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot kill it")
    }

    /// Asks it with SIGTERM to end, and waits for its end.
    ///
    /// # Errors
    /// If it does not end in [`DEADLINE`].
    pub async fn terminate(self) -> anyhow::Result<Ended> {
        self.signal(rustix::process::Signal::TERM)?;
        self.ended().await
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: rustix::process::Signal) -> anyhow::Result<()> {
        rustix::process::kill_process(self.id()?, signal).context("cannot signal it")
    }

    /// Sends a signal to the process group that it leads, as a terminal does.
    ///
    /// # Errors
    /// If it has ended, or leads no group.
    pub fn signal_group(&self, signal: rustix::process::Signal) -> anyhow::Result<()> {
        rustix::process::kill_process_group(self.id()?, signal).context("cannot signal its group")
    }

    /// The number of its process.
    ///
    /// # Errors
    /// If it has ended.
    pub fn id(&self) -> anyhow::Result<rustix::process::Pid> {
        let id = self.child.id().context("it has ended")?;
        rustix::process::Pid::from_raw(id.try_into()?).context("no process has the id 0")
    }

    /// What it has said so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.text()
    }
}

/// What a program says, as it says it.
#[derive(Clone)]
struct Output {
    text: Arc<Mutex<String>>,
    changed: watch::Sender<usize>,
    open: watch::Sender<usize>,
}

impl Default for Output {
    fn default() -> Self {
        Self { text: Arc::default(), changed: watch::Sender::new(0), open: watch::Sender::new(0) }
    }
}

impl Output {
    fn follow(&self, stream: impl AsyncRead + Unpin + Send + 'static) {
        let output = self.clone();
        output.open.send_modify(|open| *open += 1);
        tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let mut text = output.text.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&line);
                text.push('\n');
                drop(text);
                output.changed.send_modify(|lines| *lines += 1);
            }
            output.open.send_modify(|open| *open -= 1);
        });
    }

    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn finished(&self) {
        // A grandchild may hold the pipe open: what it says is not waited for.
        let mut open = self.open.subscribe();
        let _ = tokio::time::timeout(Duration::from_secs(1), open.wait_for(|open| *open == 0)).await;
    }
}

/// A sandbox cluster in a process of its own: it lives while engines die.
pub struct SandboxProgram {
    /// The process.
    pub process: Process,
    /// Where it answers.
    pub url: String,
}

impl SandboxProgram {
    /// Starts one; its objects are kept under `data`.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(data: &Path) -> anyhow::Result<Self> {
        Self::start_at(data, "0").await
    }

    /// Starts one at this port: the same as before, to whoever knew it there.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_at(data: &Path, port: &str) -> anyhow::Result<Self> {
        let data = data.to_str().context("temporary directories have plain names")?;
        let command = cairn(&["sandbox", "--port", port, "--data", data, "--pod-ready-after", "50ms"]);
        let mut process = Process::start(command)?;
        let url = process.said(url_in).await?;
        Ok(Self { process, url })
    }

    /// Every object in it.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn objects(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let answer = Client::new(&self.url).get("/sandbox/objects").await?;
        Ok(serde_json::from_value(answer.json()?)?)
    }

    /// Every write that took effect.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn effects(&self) -> anyhow::Result<serde_json::Value> {
        Client::new(&self.url).get("/sandbox/effects").await?.json()
    }
}

/// An engine in a process of its own.
pub struct Cairn {
    /// The process.
    pub process: Process,
    /// How it is talked to.
    pub client: Client,
}

/// What came of starting an engine.
pub enum Started {
    /// It is ready.
    Ready(Box<Cairn>),
    /// It is over.
    Ended(Ended),
}

/// How an engine is started.
#[derive(Clone, Default)]
pub struct CairnOptions {
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Where a process that is to die of itself dies: `append:3:before`.
    pub kill_at: Option<String>,
    /// The step that fails.
    pub fail_at: Option<String>,
    /// Further variables of its environment.
    pub environment: Vec<(String, String)>,
}

impl CairnOptions {
    /// The command that starts `cairn dev` on this data directory.
    ///
    /// # Errors
    /// If the directory's name is no text.
    pub fn command(&self, data: &Path) -> anyhow::Result<Command> {
        let data = data.to_str().context("temporary directories have plain names")?;
        let mut command = cairn(&["dev", "--port", "0", "--data", data]);
        command.args(&self.arguments);
        for (name, value) in [("CAIRN_KILL_AT", &self.kill_at), ("CAIRN_FAIL_AT", &self.fail_at)] {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }
}

impl Cairn {
    /// Starts `cairn dev` on this data directory and waits until recovery is done.
    ///
    /// # Errors
    /// If it ends first, or is not ready in [`DEADLINE`].
    pub async fn dev(data: &Path, options: &CairnOptions) -> anyhow::Result<Self> {
        match Self::start(data, options).await? {
            Started::Ready(cairn) => Ok(*cairn),
            Started::Ended(ended) => bail!("it ended ({:?}) and said:\n{}", ended.status, ended.output),
        }
    }

    /// The same for one that may not live so long.
    ///
    /// # Errors
    /// If it neither ends nor is ready in [`DEADLINE`].
    pub async fn start(data: &Path, options: &CairnOptions) -> anyhow::Result<Started> {
        let mut process = Process::start(options.command(data)?)?;
        let Ok(url) = process.said(api_url_in).await else { return Ok(Started::Ended(process.ended().await?)) };
        let client = Client::new(&url);
        let ready = tokio::select! {
            ready = client.ready(DEADLINE) => Some(ready),
            _ = process.child.wait() => None,
        };
        match ready {
            None => Ok(Started::Ended(process.ended().await?)),
            Some(ready) => {
                ready.with_context(|| format!("it said:\n{}", process.output()))?;
                Ok(Started::Ready(Box::new(Self { process, client })))
            }
        }
    }
}

/// The URL on loopback in a line that a program said.
#[must_use]
pub fn url_in(line: &str) -> Option<String> {
    let start = line.find("http://127.0.0.1:")?;
    let url: String =
        line[start..].chars().take_while(|char| !char.is_whitespace() && !"\"',;)\u{1b}".contains(*char)).collect();
    let port = url.rsplit(':').next()?.trim_end_matches('/');
    port.parse::<u16>().is_ok().then(|| url.trim_end_matches('/').to_owned())
}

/// The same for the API of an engine: its sandbox has a URL, too, and names itself.
fn api_url_in(line: &str) -> Option<String> {
    if line.to_lowercase().contains("sandbox") { None } else { url_in(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_found_in_what_a_program_says() {
        let found = |line| url_in(line);
        assert_eq!(found("listening on http://127.0.0.1:4711").as_deref(), Some("http://127.0.0.1:4711"));
        assert_eq!(found(r#"{"url":"http://127.0.0.1:4711/"}"#).as_deref(), Some("http://127.0.0.1:4711"));
        assert_eq!(found("http://127.0.0.1:4711/clusters"), None);
        assert_eq!(api_url_in("the sandbox cluster is at http://127.0.0.1:4711"), None);
    }
}
