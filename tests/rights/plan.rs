//! `cairn plan`, the program: against a cluster, and against an engine.

use anyhow::ensure;
use cairn_steps::sandbox::Fault;
use cairn_tests::{program::CairnOptions, site::Site};
use serde_json::Value;

use crate::doctor::{Patient, said};

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_from_flags_against_a_cluster_reads_as_a_list_and_makes_nothing() -> anyhow::Result<()> {
    let patient = Patient::new().await?;
    let kubeconfig = patient.path("kubeconfig");
    let flags = ["plan", "--user", "acme", "--service-name", "search", "--replicas", "2", "--kubeconfig", &kubeconfig];
    let plan = said(&flags).await?;
    ensure!(plan.code == Some(0), "{:?} {}", plan.code, plan.text);
    for line in ["plan: create acme/search in namespace acme--search", "+ StatefulSet/elasticsearch"] {
        ensure!(plan.text.lines().any(|said| said.starts_with(line)), "{line} in {}", plan.text);
    }
    ensure!(patient.sandbox.effects().is_empty(), "something was written");

    patient.sandbox.faults().add(Fault::forbid().verb("create").resource("namespaces"));
    let plan = said(&flags).await?;
    ensure!(plan.code == Some(1) && plan.text.contains("✘ Namespace/acme--search"), "{:?} {}", plan.code, plan.text);
    ensure!(said(&["plan", "--user", "ACME", "--kubeconfig", &kubeconfig]).await?.code == Some(2), "a wrong request");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_from_a_file_against_an_engine_knows_what_is_in_use() -> anyhow::Result<()> {
    let site = Site::new().await?;
    let cairn = site.cairn(CairnOptions::default()).await?;
    let file = site.path("request.json");
    std::fs::write(&file, r#"{"user": "acme", "service_name": "search"}"#)?;
    let (file, url) = (file.display().to_string(), cairn.client.url().to_owned());
    let plan = said(&["plan", "--file", &file, "--server", &url, "--replicas", "3", "--json"]).await?;
    ensure!(plan.code == Some(0), "{:?} {}", plan.code, plan.text);
    let plan: Value = serde_json::from_str(&plan.text)?;
    ensure!(plan["request"]["replicas"] == 3 && plan["quota"]["after"]["clusters"] == 1, "{plan:#}");
    ensure!(cairn.client.get("/workflows").await?.json()?["workflows"] == serde_json::json!([]), "something was begun");
    Ok(())
}

/// 2 is for whoever asks wrongly, 1 for what would not work out: a script tells them apart.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_use_and_a_wrong_request_are_2_and_what_would_not_work_out_is_1() -> anyhow::Result<()> {
    let site = Site::new().await?;
    let cairn = site.cairn(CairnOptions::default()).await?;
    let url = cairn.client.url().to_owned();
    let (file, nowhere) = (site.path("request.json"), site.path("nowhere.json").display().to_string());
    std::fs::write(&file, "replicas: 3")?;
    let file = file.display().to_string();
    let named = |name: &'static str| ["--user", "acme", "--service-name", name];
    let (good, bad) = (named("search"), named("SEARCH"));
    for (arguments, code) in [
        (vec!["--change", "--replicas", "2", "--server", &url, bad[0], bad[1], bad[2], bad[3]], 2),
        (vec!["--delete", "--server", &url, "--user", "acme"], 2),
        (vec!["--delete", "--server", &url, bad[0], bad[1], bad[2], bad[3]], 2),
        (vec!["--server", "nonsense", good[0], good[1], good[2], good[3]], 2),
        (vec!["--server", &url, "--token-file", &nowhere, good[0], good[1], good[2], good[3]], 2),
        (vec!["--server", &url, "--file", &nowhere], 2),
        (vec!["--server", &url, "--file", &file], 2),
        (vec!["--server", &url, "--replicas", "0", good[0], good[1], good[2], good[3]], 2),
        (vec!["--change", good[0], good[1], good[2], good[3]], 2),
        // There is no such cluster.
        (vec!["--change", "--replicas", "2", "--server", &url, good[0], good[1], good[2], good[3]], 1),
        (vec!["--delete", "--server", &url, good[0], good[1], good[2], good[3]], 1),
        (vec!["--server", "http://127.0.0.1:1", good[0], good[1], good[2], good[3]], 1),
        (vec!["--server", &url, good[0], good[1], good[2], good[3]], 0),
    ] {
        let answered = said(&[&["plan"], arguments.as_slice()].concat()).await?;
        ensure!(answered.code == Some(code), "{arguments:?} gives {:?}: {}", answered.code, answered.text);
    }
    Ok(())
}

/// What an engine would refuse whatever is in use, is refused without one.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_without_an_engine_is_held_against_the_settings_too() -> anyhow::Result<()> {
    let patient = Patient::new().await?;
    let (kubeconfig, config) = (patient.path("kubeconfig"), patient.path("limits.toml"));
    std::fs::write(&config, "[elastic]\nstrict_sizing = true\n[quota.default]\ngpus = 1\n")?;
    let fixed =
        ["plan", "--user", "acme", "--service-name", "search", "--kubeconfig", &kubeconfig, "--config", &config];
    let plan = said(&[&fixed[..], &["--gpu-count", "2"]].concat()).await?;
    ensure!(plan.code == Some(1) && plan.text.contains("may hold 1 gpus"), "{:?} {}", plan.code, plan.text);
    let plan = said(&[&fixed[..], &["--dimension", "4096", "--vector-count", "10000000"]].concat()).await?;
    ensure!(plan.code == Some(2), "{:?} {}", plan.code, plan.text);
    let plan = said(&fixed).await?;
    ensure!(plan.code == Some(0), "{:?} {}", plan.code, plan.text);
    Ok(())
}
