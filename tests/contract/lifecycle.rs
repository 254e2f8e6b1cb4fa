//! `PATCH` and `DELETE /clusters/{user}/{service}`: answers, records, reports, and everything that can be asked wrongly.

use anyhow::{Context as _, ensure};
use cairn_steps::report::{DELETE_STATUSES, STATUSES, UPDATE_STATUSES};
use cairn_tests::{
    client::{Answer, Client},
    program::CairnOptions,
    site::statuses,
};
use http::Method;
use serde_json::{Value, json};

use crate::{configured, problem, request, started, with};

const SEARCH: &str = "/clusters/acme/search";

async fn patch(client: &Client, path: &str, body: &Value) -> anyhow::Result<Answer> {
    client.send(Method::PATCH, path, &[], Some(body.to_string().into_bytes())).await
}

async fn delete(client: &Client, path: &str) -> anyhow::Result<Answer> {
    client.send(Method::DELETE, path, &[], None).await
}

async fn created(client: &Client, fields: &Value) -> anyhow::Result<()> {
    client.post("/clusters?wait=60s", &with(&request("acme", "search"), fields)).await?.expect(201)?;
    Ok(())
}

/// One cluster from its creation to its deletion, and one more of the same name after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_created_changed_and_deleted_and_its_name_is_free_again() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    created(&cairn.client, &json!({})).await?;
    let change = json!({ "replicas": 2, "mem_limit": "4Gi", "disk_size": "20Gi" });
    let answer = patch(&cairn.client, &format!("{SEARCH}?wait=60s"), &change).await?.expect(200)?;
    let body = answer.json()?;
    ensure!(statuses(&body["reports"]) == UPDATE_STATUSES, "{body}");
    ensure!(body["status"] == "created" && body["details"]["replicas"] == 2, "{body}");
    ensure!(body["details"]["disk_size"] == "20Gi" && body["endpoints"]["elasticsearch"].is_string(), "{body}");
    ensure!(answer.header("location") == "/tenant/containers/acme/search", "{answer:?}");

    let answer = delete(&cairn.client, SEARCH).await?.expect(202)?;
    let id = answer.json()?["id"].as_str().context("an id")?.to_owned();
    ensure!(answer.header("location") == format!("/workflows/{id}"), "{answer:?}");
    let deployments = cairn.client.get("/deployments?user=acme").await?.expect(200)?.json()?;
    ensure!(["deleting", "deleted"].iter().any(|status| deployments[0]["status"] == *status), "{deployments}");
    cairn.client.workflow_when(&id, |workflow| workflow["status"] == "succeeded").await?;
    problem(cairn.client.get("/tenant/containers/acme/search").await?, 404)?;
    let deployments = cairn.client.get("/deployments?user=acme").await?.expect(200)?.json()?;
    ensure!(deployments[0]["status"] == "deleted", "{deployments}");
    let objects = site.sandbox.objects().await?;
    let left = objects.iter().filter(|object| object["metadata"]["namespace"] == "acme--search").count();
    ensure!(left == 0, "{objects:?}");
    problem(delete(&cairn.client, SEARCH).await?, 404)?;

    let reports = cairn.client.get("/deployment/reports/acme/search").await?.expect(200)?.json()?;
    let all: Vec<&str> = STATUSES.into_iter().chain(UPDATE_STATUSES).chain(DELETE_STATUSES).collect();
    ensure!(statuses(&reports) == all, "{:?}", statuses(&reports));
    let stats = cairn.client.get("/deployment/reports/acme/search/stats").await?.expect(200)?.json()?;
    ensure!(all.iter().all(|status| stats[status] == 1), "{stats}");
    for (kind, count) in [("create", 1), ("update", 1), ("delete", 1)] {
        let listed = cairn.client.get(&format!("/workflows?kind={kind}")).await?.expect(200)?.json()?;
        let listed = listed["workflows"].as_array().context("a list")?;
        ensure!(listed.len() == count && listed.iter().all(|workflow| workflow["kind"] == kind), "{listed:?}");
    }
    created(&cairn.client, &json!({})).await?;
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_data_is_charged_and_taken_over_by_the_creation_that_fits_it() -> anyhow::Result<()> {
    let quota = "[quota.default]\ndisk = \"40Gi\"\n";
    let (site, cairn) = configured(quota, CairnOptions::default()).await?;
    created(&cairn.client, &json!({ "replicas": 2 })).await?;
    let answer = delete(&cairn.client, &format!("{SEARCH}?keep_data=true&wait=60s")).await?.expect(200)?.json()?;
    ensure!(answer["status"] == "deleted" && statuses(&answer["reports"]) == DELETE_STATUSES, "{answer}");
    let claims =
        |objects: Vec<Value>| objects.into_iter().filter(|object| object["kind"] == "PersistentVolumeClaim").count();
    ensure!(claims(site.sandbox.objects().await?) == 2, "the disks are there");
    // 20Gi are held on: 30Gi more are too many, for whichever cluster.
    let other = with(&request("acme", "other"), &json!({ "disk_size": "30Gi" }));
    problem(cairn.client.post("/clusters", &other).await?, 403)?;
    let again = |fields: Value| with(&request("acme", "search"), &fields);
    let answer = cairn.client.post("/clusters", &again(json!({ "replicas": 1, "disk_size": "40Gi" }))).await?;
    ensure!(answer.status == 422 && answer.wrong_fields() == ["replicas", "disk_size"], "{answer:?}");
    let wrong = delete(&cairn.client, &format!("{SEARCH}?keep_data=true")).await?;
    ensure!(wrong.status == 422 && wrong.wrong_fields() == ["keep_data"], "{wrong:?}");
    cairn.client.post("/clusters?wait=60s", &again(json!({ "replicas": 2 }))).await?.expect(201)?;
    delete(&cairn.client, &format!("{SEARCH}?keep_data=true&wait=60s")).await?.expect(200)?;
    delete(&cairn.client, &format!("{SEARCH}?wait=60s")).await?.expect(200)?;
    ensure!(claims(site.sandbox.objects().await?) == 0, "the disks are gone");
    cairn.client.post("/clusters?wait=60s", &other).await?.expect(201)?;
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_of_a_change_is_named_and_nothing_is_recorded() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    problem(patch(&cairn.client, SEARCH, &json!({ "replicas": 3 })).await?, 404)?;
    problem(delete(&cairn.client, SEARCH).await?, 404)?;
    problem(delete(&cairn.client, "/clusters/ACME/search").await?, 404)?;
    created(&cairn.client, &json!({ "replicas": 2 })).await?;
    for (body, fields) in [
        (json!({}), vec!["body"]),
        (json!([]), vec!["body"]),
        (json!({ "replica": 3 }), vec!["replica"]),
        (json!({ "replicas": 1, "disk_size": "1Gi" }), vec!["replicas", "disk_size"]),
        (
            json!({ "namespace": "other", "dimension": 64, "vector_count": 1 }),
            vec!["namespace", "dimension", "vector_count"],
        ),
        (
            json!({ "user": "other", "service_name": "x", "gitlab_url": "https://x/y", "on_failure": "keep" }),
            vec!["user", "service_name", "gitlab_url", "on_failure"],
        ),
        (json!({ "mem_limit": "512Mi" }), vec!["mem_request"]),
        (
            json!({ "replicas": "3", "cpu_limit": 2, "disk_size": null, "gpu_count": -1 }),
            vec!["replicas", "cpu_limit", "disk_size", "gpu_count"],
        ),
        (json!({ "replicas": 101, "mem_limit": "1GB" }), vec!["replicas", "mem_limit"]),
    ] {
        let answer = patch(&cairn.client, SEARCH, &body).await?;
        let mut named = answer.wrong_fields();
        let mut wanted: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
        named.sort();
        wanted.sort();
        ensure!(answer.status == 422 && named == wanted, "{body}: {answer:?}");
    }
    for path in ["?keep_data=maybe", "?wait=soon", "?force=true"] {
        let answer = delete(&cairn.client, &format!("{SEARCH}{path}")).await?;
        ensure!(answer.status == 422 && answer.wrong_fields().len() == 1, "{path}: {answer:?}");
    }
    let answer = cairn.client.send(Method::PUT, SEARCH, &[], None).await?;
    problem(answer, 405)?;
    let listed = cairn.client.get("/workflows").await?.expect(200)?.json()?;
    ensure!(listed["workflows"].as_array().map(Vec::len) == Some(1), "{listed}");
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reserves_its_quota_when_it_is_submitted() -> anyhow::Result<()> {
    let quota = "[quota.default]\nmemory = \"6Gi\"\n";
    let (site, cairn) = configured(quota, CairnOptions::default()).await?;
    created(&cairn.client, &json!({})).await?;
    let refused = problem(patch(&cairn.client, SEARCH, &json!({ "mem_limit": "8Gi" })).await?, 403)?;
    ensure!(refused["quota"]["asked"] == 6_u64 << 30 && refused["quota"]["used"] == 2_u64 << 30, "{refused}");
    patch(&cairn.client, &format!("{SEARCH}?wait=60s"), &json!({ "mem_limit": "6Gi" })).await?.expect(200)?;
    problem(cairn.client.post("/clusters", &request("acme", "other")).await?, 403)?;
    patch(&cairn.client, &format!("{SEARCH}?wait=60s"), &json!({ "mem_limit": "3Gi" })).await?.expect(200)?;
    cairn.client.post("/clusters?wait=60s", &request("acme", "other")).await?.expect(201)?;
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

/// I26: one key, one workflow, one answer; also once the service is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_change_or_deletion_is_answered_as_before() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    created(&cairn.client, &json!({})).await?;
    let body = || Some(json!({ "gpu_count": 1 }).to_string().into_bytes());
    let (one, other) = ([("idempotency-key", "one")], [("idempotency-key", "other")]);
    let first = cairn.client.send(Method::PATCH, SEARCH, &one, body()).await?.expect(202)?;
    let second = cairn.client.send(Method::PATCH, SEARCH, &one, body()).await?.expect(200)?;
    ensure!(first.text == second.text, "{} {}", first.text, second.text);
    let id = first.json()?["id"].as_str().context("an id")?.to_owned();
    cairn.client.workflow_when(&id, |workflow| workflow["status"] == "succeeded").await?;
    let reused = problem(cairn.client.send(Method::DELETE, SEARCH, &one, None).await?, 409)?;
    ensure!(reused["type"].to_string().contains("key-reused"), "{reused}");
    let first = cairn.client.send(Method::DELETE, SEARCH, &other, None).await?.expect(202)?;
    let id = first.json()?["id"].as_str().context("an id")?.to_owned();
    cairn.client.workflow_when(&id, |workflow| workflow["status"] == "succeeded").await?;
    let second = cairn.client.send(Method::DELETE, SEARCH, &other, None).await?.expect(200)?;
    ensure!(first.text == second.text, "{} {}", first.text, second.text);
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_worked_on_is_left_to_that_and_what_is_parked_can_be_deleted() -> anyhow::Result<()> {
    let options = CairnOptions { fail_at: Some("disk_configured".to_owned()), ..CairnOptions::default() };
    let (site, cairn) = configured("", options).await?;
    let keep = with(&request("acme", "search"), &json!({ "on_failure": "keep" }));
    let parked = cairn.client.post("/clusters?wait=60s", &keep).await?.expect(500)?.json()?;
    let id = parked["workflow_id"].as_str().context("an id")?.to_owned();
    // A change has to wait for a person; a deletion ends it, and takes with it what it has left.
    let busy = problem(patch(&cairn.client, SEARCH, &json!({ "replicas": 2 })).await?, 409)?;
    ensure!(busy["links"]["workflow"] == format!("/workflows/{id}"), "{busy}");
    ensure!(busy["detail"].to_string().contains("retry it"), "{busy}");
    let deleted = delete(&cairn.client, &format!("{SEARCH}?wait=60s")).await?.expect(200)?.json()?;
    ensure!(deleted["status"] == "deleted", "{deleted}");
    let ended = cairn.client.get(&format!("/workflows/{id}")).await?.expect(200)?.json()?;
    ensure!(ended["status"] == "cancelled", "{ended}");
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}
