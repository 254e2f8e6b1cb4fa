//! Many clients at the same time: one wins where one can, and no quota is ever exceeded.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use cairn_tests::{client::Answer, oracle::verdict, program::CairnOptions};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::{configured, request, started, with};

const AT_ONCE: usize = 20;

fn counted(answers: &[Answer]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.status).or_default() += 1;
    }
    counts
}

async fn all(
    answers: impl Iterator<Item = impl Future<Output = anyhow::Result<Answer>>>,
) -> anyhow::Result<Vec<Answer>> {
    join_all(answers).await.into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_times_the_same_key_at_once_is_one_workflow() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    let body = request("acme", "search");
    let answers =
        all((0..AT_ONCE).map(|_| cairn.client.post_with("/clusters", &body, &[("idempotency-key", "k")]))).await?;
    ensure!(counted(&answers) == BTreeMap::from([(200, AT_ONCE - 1), (202, 1)]), "{:?}", counted(&answers));
    let bodies: BTreeSet<&str> = answers.iter().map(|answer| answer.text.as_str()).collect();
    ensure!(bodies.len() == 1, "{bodies:?}");
    let id = answers[0].json()?["id"].as_str().context("an id")?.to_owned();
    cairn.client.workflow_when(&id, |workflow| workflow["status"] == "succeeded").await?;
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_times_the_same_key_with_other_bodies_at_once_is_one_workflow() -> anyhow::Result<()> {
    let (_site, cairn) = started(&[]).await?;
    let bodies: Vec<Value> = (0..AT_ONCE).map(|place| request("acme", &format!("search-{place}"))).collect();
    let key = [("idempotency-key", "k")];
    let answers = all(bodies.iter().map(|body| cairn.client.post_with("/clusters", body, &key))).await?;
    ensure!(counted(&answers) == BTreeMap::from([(202, 1), (409, AT_ONCE - 1)]), "{:?}", counted(&answers));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_times_the_same_service_at_once_has_one_winner() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    let body = request("acme", "search");
    let answers = all((0..AT_ONCE).map(|_| cairn.client.post("/clusters?wait=60s", &body))).await?;
    ensure!(counted(&answers) == BTreeMap::from([(201, 1), (409, AT_ONCE - 1)]), "{:?}", counted(&answers));
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_reached_by_many_at_once_is_never_exceeded() -> anyhow::Result<()> {
    let (site, cairn) = configured("[quota.default]\nclusters = 7\n", CairnOptions::default()).await?;
    let bodies: Vec<Value> = (0..AT_ONCE).map(|place| request("acme", &format!("search-{place}"))).collect();
    let answers = all(bodies.iter().map(|body| cairn.client.post("/clusters?wait=60s", body))).await?;
    ensure!(counted(&answers) == BTreeMap::from([(201, 7), (403, AT_ONCE - 7)]), "{:?}", counted(&answers));
    let mut evidence = site.evidence(&cairn.client, Vec::new()).await?;
    evidence.quota = [("clusters".into(), 7)].into();
    let verdict = verdict(&evidence);
    ensure!(verdict.is_empty(), "{verdict}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn more_submissions_than_may_wait_are_told_to_come_back_and_none_is_lost() -> anyhow::Result<()> {
    let (site, cairn) = configured("[limits]\nqueue = 1\n", CairnOptions::default()).await?;
    let bodies: Vec<Value> =
        (0..100).map(|place| with(&request("acme", &format!("search-{place}")), &json!({ "replicas": 1 }))).collect();
    let answers = all(bodies.iter().map(|body| cairn.client.post("/clusters", body))).await?;
    let counts = counted(&answers);
    ensure!(counts.keys().all(|status| [202, 429].contains(status)), "{counts:?}");
    ensure!(
        answers.iter().all(|answer| answer.status == 202 || !answer.header("retry-after").is_empty()),
        "{counts:?}"
    );
    let accepted: BTreeSet<String> = answers
        .iter()
        .filter(|answer| answer.status == 202)
        .map(|answer| Ok(answer.json()?["id"].as_str().context("an id")?.to_owned()))
        .collect::<anyhow::Result<_>>()?;
    let listed = cairn.client.get("/workflows?limit=500").await?.expect(200)?.json()?;
    let listed: BTreeSet<String> = listed["workflows"]
        .as_array()
        .context("a page")?
        .iter()
        .filter_map(|workflow| workflow["id"].as_str().map(str::to_owned))
        .collect();
    ensure!(listed == accepted, "accepted {}, listed {}", accepted.len(), listed.len());
    site.verify().await
}
