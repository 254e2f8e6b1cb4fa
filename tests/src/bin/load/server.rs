//! The server that is measured: a process of its own on the same machine, which ends when this one does.

use std::{
    fs,
    io::{BufRead, BufReader, PipeWriter},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use cairn_tests::{
    client::Client,
    no_op,
    program::{DEADLINE, Process, program_at, url_in},
};

use crate::process;

/// Nobody comes near it, but every submission is counted.
const QUOTA: &str = "\
[quota.default]
clusters = 1000000
cpu = \"100000000\"
memory = \"100Pi\"
disk = \"1000Pi\"
gpus = 1000000
";
/// Connections that are not those of the clients.
const OTHERS: usize = 16;
/// How long it is waited for views to be written.
const VIEWS_TIME_MAX: Duration = Duration::from_secs(60);
/// How often it is looked how far they are.
const LOOK: Duration = Duration::from_millis(50);

/// Which program is measured.
pub(crate) enum Program {
    /// `cairn` with steps that do nothing, and with or without views, which is in this very program.
    NoOp { views: bool },
    /// The one at this path, whose creations work on a sandbox cluster within it.
    Cairn(PathBuf),
}

/// A server that runs.
pub(crate) struct Server {
    process: Process,
    /// Closed when this process ends, however it does: the server hears that and ends too.
    _alive: PipeWriter,
    id: i32,
    data: PathBuf,
    /// Where it listens.
    pub(crate) address: String,
}

impl Server {
    /// Starts it with its data in a new directory below `directory`, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) async fn start(
        program: &Program,
        directory: &Path,
        in_flight: usize,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let data = directory.join("data");
        let config = directory.join("cairn.toml");
        fs::create_dir_all(directory)?;
        fs::write(&config, QUOTA)?;
        let path_of = |path: &Path| path.to_str().map(str::to_owned).context("its name is no text");
        let (data_text, config) = (path_of(&data)?, path_of(&config)?);
        let (in_flight, connections) = (in_flight.to_string(), (connections + OTHERS).to_string());
        let arguments = [
            &["dev", "--port", "0", "--exit-with-parent", "--log-filter", "warn", "--pod-ready-after", "0s"][..],
            &["--data", &data_text, "--config", &config],
            &["--in-flight", &in_flight, "--in-flight-per-tenant", &in_flight, "--connections", &connections],
        ]
        .concat();
        let mut command = match program {
            Program::NoOp { views } => {
                let server = if *views { &["server"][..] } else { &["server", "--without-views"] };
                program_at(&std::env::current_exe()?, &[server, &arguments].concat())
            }
            Program::Cairn(path) => program_at(path, &arguments),
        };
        let (hears, alive) = std::io::pipe()?;
        command.stdin(hears);
        let mut process = Process::start(command)?;
        let url = process.said(|line| if line.contains("sandbox") { None } else { url_in(line) }).await?;
        Client::new(&url).ready(DEADLINE).await?;
        let id = process.id()?.as_raw_nonzero().get();
        let address = url.trim_start_matches("http://").to_owned();
        Ok(Self { process, _alive: alive, id, data, address })
    }

    /// The CPU seconds that it has used so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        process::cpu_seconds_of(self.id)
    }

    /// The memory that it has now, in MiB.
    pub(crate) fn rss_mib(&self) -> f64 {
        process::rss_bytes_of(self.id) / 1_048_576.0
    }

    /// What it says of itself, once it is ready.
    pub(crate) async fn health(&self) -> anyhow::Result<serde_json::Value> {
        Client::new(&format!("http://{}", self.address)).get("/readyz").await?.expect(200)?.json()
    }

    /// The most memory that it had at once, in MiB.
    pub(crate) fn peak_rss_mib(&self) -> f64 {
        process::peak_rss_mib_of(self.id)
    }

    /// Waits until the views have so many reports. That takes longer than anybody waits where they are far behind.
    pub(crate) async fn views_written(&self, reports: usize) -> anyhow::Result<Behind> {
        let start = Instant::now();
        let mut log = BufReader::new(fs::File::open(self.data.join("views/deployment.log"))?);
        let mut written = lines(&mut log)?;
        let behind = reports.saturating_sub(written) as f64;
        while written < reports {
            if start.elapsed() > VIEWS_TIME_MAX {
                return Ok(Behind { reports: behind, seconds: None });
            }
            tokio::time::sleep(LOOK).await;
            // On from where the last look ended.
            written += lines(&mut log)?;
        }
        Ok(Behind { reports: behind, seconds: Some(start.elapsed().as_secs_f64()) })
    }

    /// Stops it, in order or, where that could take minutes, at once; and gives the bytes that it leaves on the disk.
    ///
    /// # Errors
    /// If it does not stop, or what it leaves cannot be read.
    pub(crate) async fn stop(self, in_order: bool) -> anyhow::Result<Left> {
        if in_order {
            let ended = self.process.terminate().await?;
            anyhow::ensure!(ended.status.success(), "it ended with {} and said:\n{}", ended.status, ended.output);
        } else {
            self.process.kill().await?;
        }
        let left = |name: &str| process::allocated_bytes(&self.data.join(name)) as f64;
        let log = process::journal_bytes(&self.data.join("log"))? as f64;
        Ok(Left { log, index: left("journal"), views: left("views") })
    }
}

/// How far the views were behind the journal when the last workflow was answered.
pub(crate) struct Behind {
    /// So many reports.
    pub(crate) reports: f64,
    /// They were written so much later, if somebody has waited for that.
    pub(crate) seconds: Option<f64>,
}

/// The bytes that a server leaves on the disk.
pub(crate) struct Left {
    /// The frames of the commit log.
    pub(crate) log: f64,
    /// Its copy by key.
    pub(crate) index: f64,
    /// Report files and the like.
    pub(crate) views: f64,
}

fn lines(reader: &mut impl BufRead) -> std::io::Result<usize> {
    let mut lines = 0;
    loop {
        let read = reader.fill_buf()?;
        if read.is_empty() {
            return Ok(lines);
        }
        lines += read.iter().filter(|byte| **byte == b'\n').count();
        let length = read.len();
        reader.consume(length);
    }
}

/// Is the server of [`Program::NoOp`], with the arguments of `cairn`.
pub(crate) fn no_op_cairn(arguments: Vec<std::ffi::OsString>, views: bool) -> std::process::ExitCode {
    let instead = cairn_api::Instead { steps: no_op::instead_of, views };
    cairn_api::run_with(std::iter::once("cairn".into()).chain(arguments), instead)
}
