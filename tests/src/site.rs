//! A place where the real programs work: a temporary directory, a sandbox cluster that outlives engines, and what is
//! needed to judge both.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use cairn_engine::Commit;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::Client,
    oracle::{Evidence, Told, Views, verdict},
    program::{Cairn, CairnOptions, DEADLINE, SandboxProgram, cairn_journal, run},
    world::writes,
};

/// Where the cluster keeps its objects.
const CLUSTER: &str = "cluster";

/// A directory and a cluster.
pub struct Site {
    directory: TempDir,
    /// The cluster, in a process of its own.
    pub sandbox: SandboxProgram,
}

impl Site {
    /// A new one.
    ///
    /// # Errors
    /// If the cluster does not start.
    pub async fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let sandbox = SandboxProgram::start(&directory.path().join(CLUSTER)).await?;
        Ok(Self { directory, sandbox })
    }

    /// Kills the cluster; its objects stay. Returns the port at which it can come back.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub async fn kill_sandbox(self) -> anyhow::Result<(TempDir, String)> {
        let port = self.sandbox.url.rsplit(':').next().context("a URL with a port")?.to_owned();
        self.sandbox.process.kill().await?;
        Ok((self.directory, port))
    }

    /// Brings a killed cluster back.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn revive_sandbox((directory, port): (TempDir, String)) -> anyhow::Result<Self> {
        let sandbox = SandboxProgram::start_at(&directory.path().join(CLUSTER), &port).await?;
        Ok(Self { directory, sandbox })
    }

    /// A new one, with everything that was in the directory of one whose cluster was killed.
    ///
    /// # Errors
    /// If it cannot be copied, or the cluster does not start.
    pub async fn like(killed: &TempDir) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut copy = tokio::process::Command::new("cp");
        // Most of a log is room for what is to come.
        copy.args(["--archive", "--sparse=always"]).arg(killed.path().join(".")).arg(directory.path());
        ensure!(copy.status().await.context("there is no cp")?.success(), "it cannot be copied");
        let sandbox = SandboxProgram::start(&directory.path().join(CLUSTER)).await?;
        Ok(Self { directory, sandbox })
    }

    /// The engine's data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Where there is room for more.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `options`, with this site's cluster.
    #[must_use]
    pub fn options(&self, mut options: CairnOptions) -> CairnOptions {
        options.arguments.extend(["--sandbox".to_owned(), self.sandbox.url.clone()]);
        options
    }

    /// Starts an engine on the data directory and waits until it is ready.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn cairn(&self, options: CairnOptions) -> anyhow::Result<Cairn> {
        Cairn::dev(&self.data(), &self.options(options)).await
    }

    /// All that is known of this site, as the engine behind `client` has it.
    ///
    /// # Errors
    /// If the engine or the cluster does not answer.
    pub async fn evidence(&self, client: &Client, told: Vec<Told>) -> anyhow::Result<Evidence> {
        let commits = commits(client).await?;
        let views = self.data().join("views");
        let views = if views.is_dir() { Some(views_at(&views, &commits).await?) } else { None };
        Ok(Evidence {
            told,
            commits,
            views,
            writes: writes(&self.sandbox.effects().await?, true),
            objects: self.sandbox.objects().await?,
            at_rest: true,
            ..Evidence::default()
        })
    }

    /// Asks the oracle about this site, and `cairn-journal` about its journal, in place and from an export.
    ///
    /// # Errors
    /// If anything is broken.
    pub async fn judge(&self, client: &Client, told: Vec<Told>) -> anyhow::Result<Evidence> {
        let evidence = self.evidence(client, told).await?;
        let verdict = verdict(&evidence);
        ensure!(verdict.is_empty(), "violations:\n{verdict}");
        self.verify().await?;
        Ok(evidence)
    }

    /// Has `cairn-journal` check the journal in the data directory, whether an engine runs there or not.
    ///
    /// # Errors
    /// If it finds anything.
    pub async fn verify(&self) -> anyhow::Result<()> {
        verify(&self.data()).await
    }
}

/// Has `cairn-journal` check the journal in this directory.
///
/// # Errors
/// If it finds anything.
pub async fn verify(data: &Path) -> anyhow::Result<()> {
    let data = data.to_str().context("temporary directories have plain names")?;
    let verified = run(cairn_journal(&["verify", "--data", data])).await?;
    ensure!(verified.status.success(), "verify ended with {}:\n{}", verified.status, verified.output);
    Ok(())
}

/// The whole journal, from its first commit, over HTTP.
///
/// # Errors
/// If it cannot be read.
pub async fn commits(client: &Client) -> anyhow::Result<Vec<Commit>> {
    let journal = client.get("/journal").await?.expect(200)?;
    journal.text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// The views in this directory, once they have everything of these commits.
async fn views_at(directory: &Path, commits: &[Commit]) -> anyhow::Result<Views> {
    let last = commits.last().map_or(0, |commit| commit.number.0);
    let caught_up = async {
        loop {
            // The cursor moves last; nobody but it tells how far the views are.
            let cursor = std::fs::read(directory.join(".cursor")).unwrap_or_default();
            let cursor: Value = serde_json::from_slice(&cursor).unwrap_or_default();
            if cursor["commit"].as_u64().is_some_and(|at| at >= last) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, caught_up).await.context("the views do not catch up")?;
    let json = |path: &Path| -> anyhow::Result<Value> {
        serde_json::from_slice(&std::fs::read(path)?).with_context(|| path.display().to_string())
    };
    let files = |name: &str| -> anyhow::Result<BTreeMap<String, Value>> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(directory.join(name))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            files.insert(name, Value::Null);
        }
        for (file, value) in &mut files {
            *value = json(&directory.join(name).join(file))?;
        }
        Ok(files)
    };
    Ok(Views {
        reports: files("deployment_reports")?.into_values().collect(),
        log: std::fs::read_to_string(directory.join("deployment.log"))?.lines().map(str::to_owned).collect(),
        tenant_data: files("tenant_data")?,
        deployments: json(&directory.join("deployments.json"))?,
    })
}

/// The statuses of these reports, in order.
#[must_use]
pub fn statuses(reports: &Value) -> Vec<String> {
    let reports = reports.as_array().map(Vec::as_slice).unwrap_or_default();
    reports.iter().map(|report| report["status"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A number from the environment (`CAIRN_TEST_SEED`), or from the clock; printed, so that a failure can be repeated.
#[must_use]
pub fn seed() -> u64 {
    let given = std::env::var("CAIRN_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed =
        given.unwrap_or_else(|| u64::try_from(jiff::Timestamp::now().as_nanosecond() & 0xffff_ffff).unwrap_or(1));
    println!("seed {seed}: CAIRN_TEST_SEED={seed} does the same again");
    seed
}

/// Numbers that look random and are not: the same seed gives the same ones (SplitMix64).
#[derive(Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The numbers of this seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below `bound`.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    /// Whether it is one of so many times out of a hundred.
    pub fn happens(&mut self, of_hundred: u64) -> bool {
        self.below(100) < of_hundred
    }

    /// One of these.
    ///
    /// # Panics
    /// If there are none.
    pub fn one_of<T: Copy>(&mut self, these: &[T]) -> T {
        these[usize::try_from(self.below(these.len() as u64)).expect("a place in a slice")]
    }
}
