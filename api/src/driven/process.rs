//! The engine as a process of its own: started, watched, ended.

use std::{
    ffi::OsString,
    fmt,
    fs::File,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::client::Client;
use crate::config::{Settings, Shared};

/// From its start until it is ready.
const READY_TIME_MAX: Duration = Duration::from_secs(60);
/// From SIGTERM until it has ended.
const END_TIME_MAX: Duration = Duration::from_secs(20);

/// How engines are started: always alike, but for the port and the fault.
pub(crate) struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
    removed: Vec<OsString>,
}

impl Launch {
    /// Engines with these settings, on the cluster at `sandbox`.
    ///
    /// # Errors
    /// If the data directory cannot be used.
    pub(crate) fn new(shared: &Shared, settings: &Settings, sandbox: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&settings.data)
            .with_context(|| format!("data: {} cannot be used", settings.data.display()))?;
        let mut arguments: Vec<OsString> =
            ["dev", "--exit-with-parent", "--sandbox", sandbox, "--data"].map(Into::into).into();
        arguments.push(settings.data.clone().into());
        // Variables are inherited; flags have to be handed on.
        for (flag, path) in
            [("--views", &shared.places.views), ("--log", &shared.places.log), ("--config", &shared.places.config)]
        {
            if let Some(path) = path {
                arguments.extend([flag.into(), path.into()]);
            }
        }
        if let Some(filter) = &shared.places.log_filter {
            arguments.extend(["--log-filter".into(), filter.into()]);
        }
        let texts = [
            ("--es-version", &shared.es_version),
            ("--es-image", &shared.es_image),
            ("--kibana-image", &shared.kibana_image),
        ];
        for (flag, text) in texts {
            if let Some(text) = text {
                arguments.extend([flag.into(), text.into()]);
            }
        }
        if shared.strict_sizing {
            arguments.push("--strict-sizing".into());
        }
        let format = match settings.log_format {
            crate::telemetry::LogFormat::Human => "human",
            crate::telemetry::LogFormat::Json => "json",
        };
        arguments.extend(["--log-format".into(), format.into()]);
        Ok(Self {
            program: this_program()?,
            arguments,
            log: settings.data.join("cairn.log"),
            // A fault is for the one that it is meant for.
            removed: vec!["CAIRN_KILL_AT".into(), "CAIRN_FAIL_AT".into()],
        })
    }

    /// The same, without the settings that variables make.
    pub(crate) fn without_variables(mut self) -> Self {
        let names = std::env::vars_os().map(|(name, _)| name);
        self.removed.extend(names.filter(|name| name.to_string_lossy().starts_with("CAIRN_")));
        self
    }

    /// Where engines write their logs.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Starts one, and returns once it is ready.
    ///
    /// # Errors
    /// If it ends before it is ready, or takes too long.
    pub(crate) async fn start(&self, port: u16, fault: &[String]) -> anyhow::Result<EngineProcess> {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("{} cannot be written", self.log.display()))?;
        let mut command = Command::new(&self.program);
        for name in &self.removed {
            command.env_remove(name);
        }
        let mut child = command
            .args(&self.arguments)
            .args(["--port", &port.to_string()])
            .args(fault)
            // A group of its own: Ctrl-C at a terminal is for this process, which then ends the engine in order. The
            // signal of both would be a second one to the engine, and end it at once.
            .process_group(0)
            // Closed when this process ends, however it ends; the engine then ends too.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("the engine cannot be started")?;
        // Taken out, since waiting for a child closes it.
        let stdin = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
        let ready = async {
            let port = loop {
                let Some(line) = lines.next_line().await? else { bail!("it ended before it was ready") };
                if let Some(port) = port_in(&line) {
                    break port;
                }
            };
            let client = Client::new(&url(port));
            while !client.is_ready().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(port)
        };
        let ready = tokio::select! {
            ready = tokio::time::timeout(READY_TIME_MAX, ready) => ready.unwrap_or_else(|_| bail!("it is not ready after a minute")),
            status = child.wait() => Err(anyhow::anyhow!("it ended before it was ready ({})", Ended::of(status?))),
        };
        let port = ready.with_context(|| format!("the engine did not start: {}", self.last_words()))?;
        Ok(EngineProcess { id: child.id().unwrap_or(0), child, port, _stdin: stdin, _lines: lines })
    }

    /// The last line of the log, which says why.
    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().last().unwrap_or("its log is empty").to_owned()
    }
}

/// An engine that runs, or has run.
pub(crate) struct EngineProcess {
    child: Child,
    id: u32,
    port: u16,
    /// Kept open as long as the engine is to live.
    _stdin: Option<tokio::process::ChildStdin>,
    /// Kept open: an engine whose output nobody takes must not stumble over it.
    _lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl EngineProcess {
    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// The port of its API.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its API.
    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    /// Kills it, as `kill -9` does, and returns once nothing of it runs any more.
    ///
    /// # Errors
    /// If the system does not allow that.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// How it ended, once it has.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<Ended> {
        Ok(Ended::of(self.child.wait().await?))
    }

    /// How it ended, if it does within `limit`.
    pub(crate) async fn ended_within(&mut self, limit: Duration) -> anyhow::Result<Option<Ended>> {
        match tokio::time::timeout(limit, self.ended()).await {
            Ok(ended) => ended.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// If it did not end in order.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_none()
            && let Some(id) = i32::try_from(self.id).ok().and_then(rustix::process::Pid::from_raw)
        {
            // It may just have ended by itself.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        match self.ended_within(END_TIME_MAX).await? {
            Some(ended) if ended.clean => Ok(()),
            Some(ended) => bail!("the engine did not end in order ({ended})"),
            None => bail!("the engine did not end within {} seconds of SIGTERM", END_TIME_MAX.as_secs()),
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// With SIGKILL.
    pub(crate) killed: bool,
    /// With exit code 0.
    pub(crate) clean: bool,
    status: ExitStatus,
}

impl Ended {
    fn of(status: ExitStatus) -> Self {
        Self { killed: status.signal() == Some(9), clean: status.success(), status }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)
    }
}

/// Where the program itself is: what is started is what is running.
fn this_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("the program does not know where it is")
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// The port in `listening on http://127.0.0.1:PORT`, or in the same as JSON.
fn port_in(line: &str) -> Option<u16> {
    let (before, rest) = line.split_once("http://127.0.0.1:")?;
    let digits = rest.split(|char: char| !char.is_ascii_digit()).next()?;
    before.contains("listening").then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_in_both_formats() {
        assert_eq!(port_in("listening on http://127.0.0.1:8080"), Some(8080));
        assert_eq!(port_in(r#"{"listening":"http://127.0.0.1:41"}"#), Some(41));
        assert_eq!(port_in("sandbox cluster at http://127.0.0.1:1"), None);
    }
}
