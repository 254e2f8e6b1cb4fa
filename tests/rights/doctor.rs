//! `cairn doctor`, the program, in front of a cluster that lacks something.

use std::net::Ipv4Addr;

use anyhow::{Context as _, ensure};
use cairn_steps::sandbox::{Fault, Sandbox, SandboxOptions};
use cairn_tests::program::cairn;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// A served cluster, and a directory with its kubeconfig.
pub(crate) struct Patient {
    pub(crate) sandbox: Sandbox,
    directory: TempDir,
}

/// How the doctor ended, and what it wrote to standard output.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

impl Patient {
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let sandbox = Sandbox::open(SandboxOptions::default())?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("kubeconfig"), Sandbox::kubeconfig(listener.local_addr()?))?;
        std::fs::write(directory.path().join("cairn.toml"), "[quota.default]\nclusters = 5\n")?;
        let serving = sandbox.clone();
        tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
        Ok(Self { sandbox, directory })
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    async fn doctor(&self, arguments: &[&str]) -> anyhow::Result<Said> {
        let (kubeconfig, config, data) = (self.path("kubeconfig"), self.path("cairn.toml"), self.path("data"));
        let fixed = ["doctor", "--kubeconfig", &kubeconfig, "--config", &config, "--data", &data];
        said(&[&fixed, arguments].concat()).await
    }
}

pub(crate) async fn said(arguments: &[&str]) -> anyhow::Result<Said> {
    let output = cairn(arguments).output().await?;
    Ok(Said { code: output.status.code(), text: String::from_utf8(output.stdout)? })
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_missing_the_doctor_says_so_and_makes_nothing() -> anyhow::Result<()> {
    let patient = Patient::new().await?;
    let said = patient.doctor(&[]).await?;
    ensure!(said.code == Some(0) && said.text.ends_with("nothing is missing\n"), "{:?} {}", said.code, said.text);
    ensure!(patient.sandbox.effects().is_empty(), "something was written");
    ensure!(!patient.directory.path().join("data").exists(), "the data directory was made");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_verb_taken_away_the_doctor_names_exactly_that_verb() -> anyhow::Result<()> {
    let patient = Patient::new().await?;
    patient.sandbox.faults().add(Fault::forbid().verb("delete").resource("namespaces"));
    let said = patient.doctor(&["--json"]).await?;
    ensure!(said.code == Some(1), "{:?} {}", said.code, said.text);
    let found: Value = serde_json::from_str(&said.text)?;
    let findings = found["findings"].as_array().context("a list")?;
    let wrong: Vec<&str> = findings
        .iter()
        .filter(|finding| finding["verdict"] != "good")
        .filter_map(|finding| finding["subject"].as_str())
        .collect();
    ensure!(wrong == ["delete namespaces"], "{wrong:?}");
    let table = patient.doctor(&[]).await?;
    let marked: Vec<&str> = table.text.lines().filter(|line| line.starts_with('✘')).collect();
    ensure!(marked.len() == 1 && marked[0].contains("delete namespaces"), "{}", table.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_use_is_2_and_a_cluster_that_is_not_there_1() -> anyhow::Result<()> {
    let patient = Patient::new().await?;
    ensure!(said(&["doctor", "--nonsense"]).await?.code == Some(2), "an unknown flag");
    ensure!(patient.doctor(&["--gitlab-host", "a/b"]).await?.code == Some(2), "a wrong setting");
    let nowhere = patient.path("nowhere");
    let missing = said(&["doctor", "--kubeconfig", &nowhere]).await?;
    ensure!(missing.code == Some(1) && missing.text.contains(&nowhere), "{}", missing.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_that_the_doctor_prints_has_every_right_of_the_table() -> anyhow::Result<()> {
    let printed = said(&["doctor", "--role"]).await?.text;
    ensure!(printed.contains(&cairn_steps::rights::role_rules()), "{printed}");
    Ok(())
}
