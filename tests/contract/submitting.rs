//! `POST /clusters` and the rows that are kept from the system before: answers, records, reports.

use anyhow::{Context as _, ensure};
use cairn_steps::report::{FAILED, STATUSES};
use cairn_tests::{program::CairnOptions, site::statuses};
use serde_json::json;

use crate::{configured, nothing_was_recorded, problem, request, started};

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_is_answered_with_its_workflow_and_ends_in_the_records() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    let answer = cairn.client.post("/clusters", &request("acme", "search")).await?.expect(202)?;
    let workflow = answer.json()?;
    let id = workflow["id"].as_str().context("an id")?;
    ensure!(answer.header("location") == format!("/workflows/{id}"), "{answer:?}");
    ensure!(workflow["status"] == "pending" && workflow["kind"] == "create", "{workflow}");

    // While it is being made, its records say so.
    let deployments = cairn.client.get("/deployments?user=acme&service_name=search").await?.expect(200)?.json()?;
    ensure!(deployments[0]["workflow_id"] == id, "{deployments}");

    cairn.client.workflow_when(id, |workflow| workflow["status"] == "succeeded").await?;
    let reports = cairn.client.get("/deployment/reports/acme/search").await?.expect(200)?.json()?;
    ensure!(statuses(&reports) == STATUSES, "{reports}");
    for (place, report) in reports.as_array().context("an array")?.iter().enumerate() {
        let keys: Vec<&String> = report.as_object().context("an object")?.keys().collect();
        ensure!(keys.len() == 13, "{keys:?}");
        let details = report["details"].as_object().context("details")?;
        ensure!(details.len() == 9 && details["cpu_request"] == "500m" && details["replicas"] == 1, "{details:?}");
        let skipped = [2, 6].contains(&place);
        ensure!(report["skipped"] == skipped, "{report}");
        ensure!(report["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{report}");
    }
    ensure!(reports[3]["result"]["objects"].to_string().contains("StatefulSet/elasticsearch"), "{}", reports[3]);

    let container = cairn.client.get("/tenant/containers/acme/search").await?.expect(200)?.json()?;
    ensure!(container["status"] == "created" && container["namespace"] == "acme--search", "{container}");
    let stats = cairn.client.get("/deployment/reports/acme/search/stats").await?.expect(200)?.json()?;
    ensure!(STATUSES.iter().all(|status| stats[status] == 1), "{stats}");
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_gets_the_container_and_ten_reports_or_the_failure() -> anyhow::Result<()> {
    let (site, cairn) = configured("", CairnOptions { fail_at: None, ..CairnOptions::default() }).await?;
    let answer = cairn.client.post("/clusters?wait=60s", &request("acme", "search")).await?.expect(201)?;
    let body = answer.json()?;
    ensure!(body["status"] == "created" && statuses(&body["reports"]) == STATUSES, "{body}");
    ensure!(answer.header("location") == "/tenant/containers/acme/search", "{answer:?}");
    for wrong in ["soon", "-1s", "11m", ""] {
        let answer = cairn.client.post(&format!("/clusters?wait={wrong}"), &request("acme", "other")).await?;
        ensure!(answer.wrong_fields() == ["wait"], "{answer:?}");
    }
    // Too short a wait is no failure: the submission stands.
    let answer = cairn.client.post("/clusters?wait=1ms", &request("acme", "other")).await?.expect(202)?;
    let id = answer.json()?["id"].as_str().context("an id")?.to_owned();
    cairn.client.workflow_when(&id, |workflow| workflow["status"] == "succeeded").await?;
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_that_fails_is_told_rolled_back_and_may_be_submitted_again() -> anyhow::Result<()> {
    let options = CairnOptions { fail_at: Some("disk_configured".to_owned()), ..CairnOptions::default() };
    let (site, cairn) = configured("[quota.default]\nclusters = 1\n", options).await?;
    let answer = cairn.client.post("/clusters?wait=60s", &request("acme", "search")).await?;
    let body = problem(answer, 500)?;
    let report = &body["report"];
    ensure!(report["status"] == FAILED && report["result"]["step"] == "disk_configured", "{body}");
    ensure!(report["result"]["left"] == json!([]), "{body}");
    ensure!(report["result"]["rolled_back"].as_array().is_some_and(|steps| steps.len() == 6), "{body}");

    problem(cairn.client.get("/tenant/containers/acme/search").await?, 404)?;
    let deployments = cairn.client.get("/deployments?user=acme").await?.expect(200)?.json()?;
    ensure!(deployments[0]["status"] == "failed", "{deployments}");
    let reports = cairn.client.get("/deployment/reports/acme/search").await?.expect(200)?.json()?;
    ensure!(statuses(&reports) == [&STATUSES[..5], &[FAILED]].concat(), "{reports}");

    // What it held of the quota is free again.
    problem(cairn.client.post("/clusters?wait=60s", &request("acme", "search")).await?, 500)?;
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_submission_and_another_body_is_refused() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    let key = [("idempotency-key", "monday")];
    let first = cairn.client.post_with("/clusters", &request("acme", "search"), &key).await?.expect(202)?;
    let again = cairn.client.post_with("/clusters", &request("acme", "search"), &key).await?.expect(200)?;
    ensure!(first.text == again.text, "{} and {}", first.text, again.text);
    let body = problem(cairn.client.post_with("/clusters", &request("acme", "logs"), &key).await?, 409)?;
    ensure!(body["detail"].as_str().is_some_and(|detail| detail.contains("/workflows/")), "{body}");
    // A key is a tenant's own.
    cairn.client.post_with("/clusters", &request("globex", "search"), &key).await?.expect(202)?;
    // And without it, the service is taken: the answer links to what takes it.
    let body = problem(cairn.client.post("/clusters", &request("acme", "search")).await?, 409)?;
    let id = first.json()?["id"].as_str().context("an id")?.to_owned();
    ensure!(body["detail"].as_str().is_some_and(|detail| detail.contains(&id)), "{body}");
    let listed = cairn.client.get("/workflows").await?.json()?;
    for workflow in listed["workflows"].as_array().context("a page")? {
        let id = workflow["id"].as_str().context("an id")?;
        cairn.client.workflow_when(id, |workflow| workflow["status"] == "succeeded").await?;
    }
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn over_its_quota_a_tenant_gets_the_figures_and_nothing_is_recorded() -> anyhow::Result<()> {
    let config = "[quota.default]\nmemory = \"3Gi\"\n[quota.tenants.globex]\ngpus = 0\n";
    let (site, cairn) = configured(config, CairnOptions::default()).await?;
    let body = crate::with(&request("acme", "search"), &json!({ "replicas": 2 }));
    let refused = problem(cairn.client.post("/clusters", &body).await?, 403)?;
    let quota = &refused["quota"];
    ensure!(quota["limit"] == 3_u64 << 30 && quota["asked"] == 4_u64 << 30 && quota["used"] == 0, "{refused}");
    problem(cairn.client.post("/clusters?dry_run=true", &body).await?, 403)?;
    let body = crate::with(&request("globex", "search"), &json!({ "gpu_count": 1 }));
    problem(cairn.client.post("/clusters", &body).await?, 403)?;
    nothing_was_recorded(&site, &cairn).await
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_read_again_on_a_hangup() -> anyhow::Result<()> {
    let (site, cairn) = configured("[quota.default]\nclusters = 0\n", CairnOptions::default()).await?;
    problem(cairn.client.post("/clusters", &request("acme", "search")).await?, 403)?;
    std::fs::write(site.path("cairn.toml"), "[quota.default]\nclusters = 1\n")?;
    cairn.process.signal(rustix::process::Signal::HUP)?;
    let accepted = async {
        // A signal has no answer: it has arrived when it shows.
        while cairn.client.post("/clusters?dry_run=true", &request("acme", "search")).await?.status != 200 {}
        anyhow::Ok(())
    };
    tokio::time::timeout(cairn_tests::program::DEADLINE, accepted).await.context("it is never read again")??;
    cairn.client.post("/clusters", &request("acme", "search")).await?.expect(202)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_shows_every_object_and_changes_nothing() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    let answer = cairn.client.post("/clusters?dry_run=true", &request("acme", "search")).await?.expect(200)?;
    let plan = answer.json()?;
    let kinds: Vec<&str> =
        plan["objects"].as_array().context("objects")?.iter().filter_map(|object| object["kind"].as_str()).collect();
    for kind in [
        "Namespace",
        "Service",
        "ConfigMap",
        "PodDisruptionBudget",
        "StatefulSet",
        "Deployment",
        "PersistentVolumeClaim",
    ] {
        ensure!(kinds.contains(&kind), "{kind} is not among {kinds:?}");
    }
    problem(cairn.client.post("/clusters?dry_run=true", &request("ACME", "search")).await?, 422)?;
    nothing_was_recorded(&site, &cairn).await
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_filtered_by_either_both_or_none_of_user_and_service() -> anyhow::Result<()> {
    let (_site, cairn) = started(&[]).await?;
    for (user, service) in [("acme", "search"), ("acme", "logs"), ("globex", "search")] {
        cairn.client.post("/clusters", &request(user, service)).await?.expect(202)?;
    }
    for (query, count) in [
        ("", 3),
        ("?user=acme", 2),
        ("?service_name=search", 2),
        ("?user=acme&service_name=logs", 1),
        ("?user=nobody", 0),
    ] {
        let records = cairn.client.get(&format!("/deployments{query}")).await?.expect(200)?.json()?;
        ensure!(records.as_array().is_some_and(|records| records.len() == count), "{query}: {records}");
    }
    Ok(())
}
