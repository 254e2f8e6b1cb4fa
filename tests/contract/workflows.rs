//! The engine's own rows: lists, states, journals, events, and what a person may ask of a workflow.

use anyhow::{Context as _, ensure};
use cairn_engine::Entry;
use cairn_steps::report::STATUSES;
use cairn_tests::{client::Client, program::CairnOptions, site::Site};
use http::Method;
use serde_json::{Value, json};

use crate::{problem, request, started};

async fn ask(client: &Client, id: &str, what: &str) -> anyhow::Result<cairn_tests::client::Answer> {
    client.send(Method::POST, &format!("/workflows/{id}/{what}"), &[], None).await
}

async fn submitted(client: &Client, service: &str) -> anyhow::Result<String> {
    let answer = client.post("/clusters", &request("acme", service)).await?.expect(202)?.json()?;
    Ok(answer["id"].as_str().context("an id")?.to_owned())
}

async fn fault(site: &Site, fault: &Value) -> anyhow::Result<()> {
    Client::new(&site.sandbox.url).post("/sandbox/faults", fault).await?.expect(201)?;
    Ok(())
}

async fn no_faults(site: &Site) -> anyhow::Result<()> {
    Client::new(&site.sandbox.url).send(Method::DELETE, "/sandbox/faults", &[], None).await?.expect(200)?;
    Ok(())
}

/// From here on no pod of the site's cluster becomes ready.
async fn hold_pods(site: &Site) -> anyhow::Result<()> {
    fault(site, &json!({ "action": { "pods": { "trouble": "NotReady" } } })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_resume_without_gap_or_repeat_and_are_the_journal() -> anyhow::Result<()> {
    let (_site, cairn) = started(&[]).await?;
    let id = submitted(&cairn.client, "search").await?;
    let mut seen = Vec::new();
    loop {
        // The connection is dropped after every third event, and taken up again where it was.
        let last = seen.last().map_or(0, |event: &cairn_tests::client::Event| event.id);
        let mut count = 0;
        let part = cairn.client.events(&id, last, |_| {
            count += 1;
            count == 3
        });
        seen.extend(part.await?);
        if seen.last().is_some_and(|event| event.name == "finished") {
            break;
        }
    }
    let ids: Vec<u64> = seen.iter().map(|event| event.id).collect();
    ensure!(ids == (1..=ids.len() as u64).collect::<Vec<_>>(), "{ids:?}");

    let journal = cairn.client.get(&format!("/workflows/{id}/journal")).await?.expect(200)?.json()?;
    let entries: Vec<Entry> = serde_json::from_value(journal.clone())?;
    ensure!(Value::from(seen.iter().map(|event| event.data.clone()).collect::<Vec<_>>()) == journal, "{journal}");
    ensure!(entries.windows(2).all(|pair| pair[1].previous == pair[0].hash), "the chain of hashes is broken");
    let lines = cairn.client.get(&format!("/workflows/{id}/journal?format=ndjson")).await?.expect(200)?;
    ensure!(lines.text.lines().count() == entries.len(), "{}", lines.text);

    // Who has seen the end need not come back, and who has seen more than there is does not belong here.
    let answer = |last: u64| {
        let last = last.to_string();
        let (client, path) = (cairn.client.clone(), format!("/workflows/{id}/events"));
        async move { client.send(Method::GET, &path, &[("last-event-id", &last)], None).await }
    };
    answer(ids.len() as u64).await?.expect(204)?;
    problem(answer(1_000_000).await?, 422)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn workflows_are_listed_newest_first_filtered_and_paged() -> anyhow::Result<()> {
    let (_site, cairn) = started(&[]).await?;
    let mut ids = Vec::new();
    for place in 0..7 {
        ids.push(submitted(&cairn.client, &format!("search-{place}")).await?);
    }
    for id in &ids {
        cairn.client.workflow_when(id, |workflow| workflow["status"] == "succeeded").await?;
    }
    ids.reverse();
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let page = cairn.client.get(&format!("/workflows?user=acme&limit=3{after}")).await?.expect(200)?.json()?;
        let workflows = page["workflows"].as_array().context("a page")?;
        listed.extend(workflows.iter().filter_map(|workflow| workflow["id"].as_str().map(str::to_owned)));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    ensure!(listed == ids, "{listed:?} instead of {ids:?}");
    for (query, count) in [
        ("status=succeeded", 7),
        ("status=failed", 0),
        ("kind=create", 7),
        ("kind=delete", 0),
        ("service_name=search-3", 1),
        ("user=globex", 0),
    ] {
        let page = cairn.client.get(&format!("/workflows?{query}")).await?.expect(200)?.json()?;
        ensure!(page["workflows"].as_array().is_some_and(|page| page.len() == count), "{query}: {page}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_in_the_middle_of_its_rollout_a_creation_leaves_nothing() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    hold_pods(&site).await?;
    let id = submitted(&cairn.client, "search").await?;
    cairn.client.events(&id, 0, |event| event.data["fact"]["step"] == "rollout_completed").await?;
    let cancelled = ask(&cairn.client, &id, "cancel").await?.expect(202)?.json()?;
    ensure!(cancelled["cancel_requested"] == true, "{cancelled}");
    let ended = cairn.client.workflow_when(&id, |workflow| workflow["status"] == "cancelled").await?;
    ensure!(ended["left"] == json!([]), "{ended}");
    problem(ask(&cairn.client, &id, "cancel").await?, 409)?;
    problem(ask(&cairn.client, &id, "retry").await?, 409)?;
    problem(ask(&cairn.client, "01a208f9-cc8e-729c-8c31-7bf9f6ea8409", "cancel").await?, 404)?;
    problem(cairn.client.get("/tenant/containers/acme/search").await?, 404)?;
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_survives_a_restart_and_ends_with_a_resume() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    // Each call takes a moment, so that the pause comes in time.
    fault(&site, &json!({ "action": { "latency": { "millis": 50 } } })).await?;
    let id = submitted(&cairn.client, "search").await?;
    cairn.client.events(&id, 0, |event| event.data["fact"]["step"] == "k8s_applied").await?;
    let paused = ask(&cairn.client, &id, "pause").await?.expect(202)?.json()?;
    ensure!(paused["paused"] == true, "{paused}");
    problem(ask(&cairn.client, &id, "pause").await?, 409)?;
    cairn.client.workflow_when(&id, |workflow| workflow["status"] == "paused").await?;
    cairn.process.kill().await?;
    no_faults(&site).await?;

    let cairn = site.cairn(CairnOptions::default()).await?;
    let still = cairn.client.workflow_when(&id, |workflow| workflow["status"] == "paused").await?;
    ensure!(still["waits"]["for"].as_str().is_some_and(|text| text.contains("resume")), "{still}");
    ask(&cairn.client, &id, "resume").await?.expect(202)?;
    cairn.client.workflow_when(&id, |workflow| workflow["status"] == "succeeded").await?;
    problem(ask(&cairn.client, &id, "resume").await?, 409)?;
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_on_failure_a_creation_waits_and_goes_on_when_it_is_retried() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    fault(&site, &json!({ "action": { "pods": { "trouble": "InvalidImageName" } } })).await?;
    let mut body = request("acme", "search");
    body["on_failure"] = json!("keep");
    let answer = cairn.client.post("/clusters", &body).await?.expect(202)?.json()?;
    let id = answer["id"].as_str().context("an id")?.to_owned();
    let parked = cairn.client.workflow_when(&id, |workflow| workflow["status"] == "parked").await?;
    ensure!(parked["step"] == "rollout_completed" || parked["error"]["step"] == "rollout_completed", "{parked}");
    ensure!(parked["waits"]["for"].as_str().is_some_and(|text| text.contains("retry")), "{parked}");
    no_faults(&site).await?;
    // The pods need a moment to notice that their images can be had again; until then a retry ends as before.
    let ended = loop {
        ask(&cairn.client, &id, "retry").await?.expect(202)?;
        let settled = |workflow: &Value| ["parked", "succeeded"].iter().any(|status| workflow["status"] == *status);
        let ended = cairn.client.workflow_when(&id, settled).await?;
        if ended["status"] == "succeeded" {
            break ended;
        }
    };
    let steps: Vec<&str> =
        ended["steps"].as_array().context("steps")?.iter().filter_map(|step| step["name"].as_str()).collect();
    ensure!(steps == STATUSES, "{steps:?}");
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness_say_what_is_not_well() -> anyhow::Result<()> {
    let (site, cairn) = started(&[]).await?;
    cairn.client.get("/healthz").await?.expect(200)?;
    let ready = cairn.client.get("/readyz").await?.expect(200)?.json()?;
    for check in ["recovery", "journal", "cluster"] {
        ensure!(ready["checks"][check]["ok"] == true, "{ready}");
    }
    site.sandbox.process.signal(rustix::process::Signal::STOP)?;
    let gone = async {
        loop {
            let answer = cairn.client.get("/readyz").await?;
            if answer.status == 503 {
                return problem(answer, 503);
            }
        }
    };
    let not_ready = tokio::time::timeout(cairn_tests::program::DEADLINE, gone).await??;
    ensure!(
        not_ready["checks"]["cluster"]["ok"] == false && not_ready["checks"]["journal"]["ok"] == true,
        "{not_ready}"
    );
    cairn.client.get("/healthz").await?.expect(200)?;
    site.sandbox.process.signal(rustix::process::Signal::CONT)?;
    cairn.client.ready(cairn_tests::program::DEADLINE).await
}
