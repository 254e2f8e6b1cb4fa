//! A cluster's whole life over HTTP, with SIGKILL again and again in between: created, changed, deleted with its data kept,
//! created over the data, deleted.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cairn_engine::{Outcome, WorkflowId};
use cairn_steps::report::{DELETE_STATUSES, STATUSES, UPDATE_STATUSES};
use cairn_tests::{
    client::{Answer, Client},
    oracle::Told,
    program::{Cairn, CairnOptions},
    site::{Numbers, Site, seed, statuses},
};
use http::Method;
use serde_json::json;

const SEARCH: &str = "/clusters/acme/search";

/// One act of the life: how it is submitted.
struct Act {
    method: Method,
    path: String,
    body: Option<String>,
    key: &'static str,
}

fn acts() -> Vec<Act> {
    let create = || json!({ "user": "acme", "service_name": "search", "replicas": 2, "disk_size": "20Gi" }).to_string();
    let change = json!({ "replicas": 3, "cpu_limit": "3", "disk_size": "30Gi" }).to_string();
    let again = json!({ "user": "acme", "service_name": "search", "replicas": 3, "disk_size": "30Gi" }).to_string();
    let act = |method: Method, path: &str, body: Option<String>, key| Act { method, path: path.to_owned(), body, key };
    vec![
        act(Method::POST, "/clusters", Some(create()), "first"),
        act(Method::PATCH, SEARCH, Some(change), "second"),
        act(Method::DELETE, &format!("{SEARCH}?keep_data=true"), None, "third"),
        act(Method::POST, "/clusters", Some(again), "fourth"),
        act(Method::DELETE, SEARCH, None, "fifth"),
    ]
}

/// Submits as a client that wants an answer does: with a key, which makes asking again safe.
async fn submit(client: &Client, act: &Act) -> anyhow::Result<Answer> {
    let body = act.body.clone().map(String::into_bytes);
    client.send(act.method.clone(), &act.path, &[("idempotency-key", act.key)], body).await
}

fn workflow_of(answer: &Answer) -> anyhow::Result<WorkflowId> {
    let body = answer.json()?;
    Ok(body["id"].as_str().with_context(|| format!("no workflow in {body}"))?.parse()?)
}

async fn lived(site: &Site, act: &Act, numbers: &mut Numbers, told: &mut Vec<Told>) -> anyhow::Result<()> {
    let accepted =
        |workflow| Told::Accepted { workflow, tenant: "acme".to_owned(), service: "search".to_owned(), input: None };
    // Three deaths: at an append of its own choice, and at any moment.
    for round in 0..3 {
        let kill_at = (round == 0).then(|| format!("append:{}:after", 2 + numbers.below(6)));
        let Ok(cairn) = site.cairn(CairnOptions { kill_at: kill_at.clone(), ..CairnOptions::default() }).await else {
            continue;
        };
        if let Ok(answer) = submit(&cairn.client, act).await {
            ensure!([200, 202].contains(&answer.status), "{answer:?}");
            told.push(accepted(workflow_of(&answer)?));
        }
        if kill_at.is_none() {
            // A moment, not a wait for anything: that is what is tried here.
            tokio::time::sleep(Duration::from_millis(numbers.below(600))).await;
            cairn.process.kill().await?;
        } else {
            cairn.process.ended().await?;
        }
        site.verify().await.with_context(|| format!("after death {round} of {}", act.key))?;
    }
    let cairn: Cairn = site.cairn(CairnOptions::default()).await?;
    let answer = submit(&cairn.client, act).await?;
    ensure!([200, 202].contains(&answer.status), "{answer:?}");
    let workflow = workflow_of(&answer)?;
    cairn.client.workflow_when(&workflow.to_string(), |workflow| workflow["status"] == "succeeded").await?;
    told.extend([accepted(workflow), Told::Ended { workflow, outcome: Outcome::Succeeded }]);
    site.judge(&cairn.client, told.clone()).await.with_context(|| format!("after {}", act.key))?;
    cairn.process.terminate().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_a_cluster_lives_its_whole_life() -> anyhow::Result<()> {
    let mut numbers = Numbers::of(seed());
    let site = Site::new().await?;
    let mut told = Vec::new();
    for act in acts() {
        lived(&site, &act, &mut numbers, &mut told).await?;
    }
    let cairn = site.cairn(CairnOptions::default()).await?;
    let reports = cairn.client.get("/deployment/reports/acme/search").await?.expect(200)?.json()?;
    let all: Vec<&str> = STATUSES
        .into_iter()
        .chain(UPDATE_STATUSES)
        .chain(DELETE_STATUSES)
        .chain(STATUSES)
        .chain(DELETE_STATUSES)
        .collect();
    ensure!(statuses(&reports) == all, "{:?}", statuses(&reports));
    Ok(())
}
