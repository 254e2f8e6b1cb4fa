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
