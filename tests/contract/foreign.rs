//! What is somebody else's is never adopted, changed or deleted.

use anyhow::{Context as _, ensure};
use cairn_tests::{client::Client, oracle::verdict, world::TESTER};
use serde_json::{Value, json};

use crate::{problem, request, started, with};

async fn somebody_makes(cluster: &Client, path: &str, object: Value) -> anyhow::Result<()> {
    cluster.post(&format!("{path}?fieldManager={TESTER}"), &object).await?.expect(201)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_of_somebody_elses_is_named_and_never_touched() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    let cluster = Client::new(&site.sandbox.url);
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "theirs" } });
    somebody_makes(&cluster, "/api/v1/namespaces", namespace).await?;
    let config =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "precious" }, "data": { "a": "b" } });
    somebody_makes(&cluster, "/api/v1/namespaces/theirs/configmaps", config).await?;
    let before = site.sandbox.objects().await?;

    let body = with(&request("acme", "search"), &json!({ "namespace": "theirs" }));
    let failed = problem(cairn.client.post("/clusters?wait=60s", &body).await?, 500)?;
    ensure!(failed["detail"].as_str().is_some_and(|detail| detail.contains("theirs")), "{failed}");
    ensure!(failed["report"]["result"]["left"] == json!([]), "{failed}");

    let mut evidence = site.evidence(&cairn.client, Vec::new()).await?;
    evidence.foreign = before.clone();
    let verdict = verdict(&evidence);
    ensure!(verdict.is_empty(), "{verdict}");
    ensure!(evidence.writes.is_empty(), "{:?}", evidence.writes);
    ensure!(evidence.objects == before, "the cluster has changed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_puts_into_a_clusters_namespace_outlives_its_rollback() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    let cluster = Client::new(&site.sandbox.url);
    // The rollout hangs, so that there is time to put something there; then somebody cancels.
    let fault = json!({ "action": { "pods": { "trouble": "NotReady" } } });
    cluster.post("/sandbox/faults", &fault).await?.expect(201)?;
    let answer = cairn.client.post("/clusters", &request("acme", "search")).await?.expect(202)?.json()?;
    let id = answer["id"].as_str().context("an id")?.to_owned();
    cairn.client.events(&id, 0, |event| event.data["fact"]["step"] == "rollout_completed").await?;
    let claim =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "precious" }, "data": { "a": "b" } });
    somebody_makes(&cluster, "/api/v1/namespaces/acme--search/configmaps", claim).await?;
    cairn.client.send(http::Method::POST, &format!("/workflows/{id}/cancel"), &[], None).await?.expect(202)?;

    // A namespace is not deleted over somebody's head: it waits for a person, and says for what.
    let parked = cairn.client.workflow_when(&id, |workflow| workflow["status"] == "parked").await?;
    ensure!(parked.to_string().contains("precious"), "{parked}");
    let path = "/api/v1/namespaces/acme--search/configmaps/precious";
    let there = cluster.get(path).await?.expect(200)?.json()?;
    ensure!(there["data"]["a"] == "b", "{there}");

    // Somebody takes it away; the rollback goes on and leaves nothing.
    cluster.send(http::Method::DELETE, path, &[], None).await?.expect(200)?;
    cairn.client.send(http::Method::POST, &format!("/workflows/{id}/retry"), &[], None).await?.expect(202)?;
    cairn.client.workflow_when(&id, |workflow| workflow["status"] == "cancelled").await?;
    let objects = site.sandbox.objects().await?;
    ensure!(!Value::from(objects).to_string().contains("acme--search"), "something is left");
    site.verify().await
}
