//! SIGTERM: the program ends cleanly in the middle of its work, and goes on with it the next time.

use anyhow::{Context as _, ensure};
use cairn_engine::Outcome;
use cairn_steps::report::STATUSES;
use cairn_tests::{
    oracle::Told,
    program::CairnOptions,
    site::{Site, statuses},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn terminated_in_the_middle_a_creation_goes_on_after_the_next_start() -> anyhow::Result<()> {
    let site = Site::new().await?;
    let cairn = site.cairn(CairnOptions::default()).await?;
    let body = json!({ "user": "acme", "service_name": "search" });
    let answer = cairn.client.post("/clusters", &body).await?.expect(202)?.json()?;
    let id = answer["id"].as_str().context("an id")?.to_owned();
    cairn.client.events(&id, 0, |event| event.data["fact"]["step"] == "k8s_applied").await?;
    let ended = cairn.process.terminate().await?;
    ensure!(ended.status.success(), "{ended:?}");
    site.verify().await?;

    let cairn = site.cairn(CairnOptions::default()).await?;
    cairn.client.workflow_when(&id, |workflow| workflow["status"] == "succeeded").await?;
    let reports = cairn.client.get("/deployment/reports/acme/search").await?.expect(200)?.json()?;
    ensure!(statuses(&reports) == STATUSES, "{reports}");
    let told = vec![Told::Ended { workflow: id.parse()?, outcome: Outcome::Succeeded }];
    site.judge(&cairn.client, told).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_while_clients_wait_and_watch_the_program_still_ends() -> anyhow::Result<()> {
    let site = Site::new().await?;
    let cairn = site.cairn(CairnOptions::default()).await?;
    hold_pods(&site).await?;
    let body = json!({ "user": "acme", "service_name": "search" });
    let answer = cairn.client.post("/clusters", &body).await?.expect(202)?.json()?;
    let id = answer["id"].as_str().context("an id")?.to_owned();
    let waiting = tokio::spawn({
        let (client, body) = (cairn.client.clone(), body.clone());
        async move { client.post("/clusters?wait=10m", &body).await }
    });
    let watching = tokio::spawn({
        let (client, id) = (cairn.client.clone(), id.clone());
        async move { client.events(&id, 0, |_| false).await }
    });
    cairn.client.events(&id, 0, |event| event.data["fact"]["step"] == "rollout_completed").await?;
    let ended = cairn.process.terminate().await?;
    ensure!(ended.status.success(), "{ended:?}");
    let seen = watching.await??;
    ensure!(seen.windows(2).all(|pair| pair[1].id == pair[0].id + 1), "{seen:?}");
    // The same service again is refused at once; what matters is that nobody was left hanging.
    waiting.await??.expect(409)?;
    Ok(())
}

/// From here on no pod of the site's cluster becomes ready.
async fn hold_pods(site: &Site) -> anyhow::Result<()> {
    let fault = json!({ "action": { "pods": { "trouble": "NotReady" } } });
    let cluster = cairn_tests::client::Client::new(&site.sandbox.url);
    cluster.post("/sandbox/faults", &fault).await?.expect(201)?;
    Ok(())
}
