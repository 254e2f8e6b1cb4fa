//! Starts that cannot be, and clusters that are not there: said clearly, and nothing is lost.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, ensure};
use cairn_steps::report::STATUSES;
use cairn_tests::{
    client::Client,
    program::{CairnOptions, DEADLINE, Ended, Process, cairn, run},
    site::{Site, statuses},
};
use serde_json::json;

/// It ended by itself, not with success, and said this.
fn refused(ended: &Ended, words: &[&str]) -> anyhow::Result<()> {
    ensure!(ended.status.code().is_some_and(|code| code != 0), "{ended:?}");
    ensure!(!ended.output.contains("panicked"), "{}", ended.output);
    for word in words {
        ensure!(ended.output.contains(word), "{word:?} is not in:\n{}", ended.output);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_journal_is_refused_and_the_first_goes_on() -> anyhow::Result<()> {
    let site = Site::new().await?;
    let first = site.cairn(CairnOptions::default()).await?;
    let second = run(site.options(CairnOptions::default()).command(&site.data())?).await?;
    refused(&second, &["another process", "stop that one first"])?;
    let body = json!({ "user": "acme", "service_name": "search" });
    first.client.post("/clusters?wait=60s", &body).await?.expect(201)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_used_is_named() -> anyhow::Result<()> {
    let site = Site::new().await?;
    // A file stands where the directory should be: that stops root, too.
    std::fs::write(site.data(), "not a directory")?;
    let ended = run(site.options(CairnOptions::default()).command(&site.data())?).await?;
    refused(&ended, &[&site.data().display().to_string()])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_written_is_named() -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        println!("skipped: root writes everywhere");
        return Ok(());
    }
    let site = Site::new().await?;
    std::fs::create_dir(site.data())?;
    std::fs::set_permissions(site.data(), std::fs::Permissions::from_mode(0o555))?;
    let ended = run(site.options(CairnOptions::default()).command(&site.data())?).await?;
    refused(&ended, &[&site.data().display().to_string()])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_not_there_at_the_start_is_waited_for() -> anyhow::Result<()> {
    let site = Site::new().await?;
    // A port that was free a moment ago, and that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let nowhere = format!("http://{free}");
    let options = CairnOptions { arguments: vec!["--sandbox".to_owned(), nowhere], ..CairnOptions::default() };
    let mut process = Process::start(options.command(&site.data())?)?;
    let url = process.said(cairn_tests::program::url_in).await?;
    let client = Client::new(&url);
    let answer = client.get("/readyz").await?.expect(503)?;
    ensure!(!answer.header("retry-after").is_empty() && answer.text.contains("cluster"), "{answer:?}");

    // What is submitted meanwhile is safe, and goes on once there is a cluster.
    loop {
        let body = json!({ "user": "acme", "service_name": "search" });
        let answer = client.post_with("/clusters", &body, &[("idempotency-key", "k")]).await?;
        if answer.status == 202 {
            break;
        }
        // Until recovery is done nothing is accepted, and that is said.
        answer.expect(503)?;
    }
    let ended = process.terminate().await?;
    ensure!(ended.status.success(), "{ended:?}");
    let cairn = site.cairn(CairnOptions::default()).await?;
    let listed = cairn.client.get("/workflows?user=acme").await?.expect(200)?.json()?;
    let id = listed["workflows"][0]["id"].as_str().context("it was accepted")?;
    // It has failed for now and waits for its next attempt; a person need not wait for that.
    cairn.client.send(http::Method::POST, &format!("/workflows/{id}/retry"), &[], None).await?;
    cairn.client.workflow_when(id, |workflow| workflow["status"] == "succeeded").await?;
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_fails_in_the_middle_delays_a_creation_and_spoils_nothing() -> anyhow::Result<()> {
    let site = Site::new().await?;
    let cluster = Client::new(&site.sandbox.url);
    // Answers are lost after the write was applied, then nothing is executed at all, then it is well again.
    for (skip, times, action) in [
        (3, 2, json!("drop_after")),
        (9, 3, json!({ "status": { "code": 503, "retry_after": 1 } })),
        (14, 2, json!("drop_before")),
        (20, 1, json!({ "status": { "code": 429 } })),
    ] {
        let fault = json!({ "when": { "skip": skip, "times": times }, "action": action });
        cluster.post("/sandbox/faults", &fault).await?.expect(201)?;
    }
    let cairn = site.cairn(CairnOptions::default()).await?;
    let body = json!({ "user": "acme", "service_name": "search" });
    cairn.client.post("/clusters?wait=60s", &body).await?.expect(201)?;
    let reports = cairn.client.get("/deployment/reports/acme/search").await?.expect(200)?.json()?;
    ensure!(statuses(&reports) == STATUSES, "{reports}");
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_a_newer_format_is_left_alone() -> anyhow::Result<()> {
    let site = Site::new().await?;
    let engine = site.cairn(CairnOptions::default()).await?;
    engine.process.terminate().await?;
    let segment = site.data().join("log/000001.log");
    let known = std::fs::read(&segment)?;
    std::fs::write(&segment, of_format(&known, 999))?;
    let ended = run(site.options(CairnOptions::default()).command(&site.data())?).await?;
    refused(&ended, &["999", "use a newer cairn"])?;
    let untouched = std::fs::read(&segment)?;
    ensure!(untouched == of_format(&known, 999), "a journal of another format was changed");
    std::fs::write(&segment, known)?;
    site.cairn(CairnOptions::default()).await?;
    site.verify().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_gone_for_a_while_is_found_again_and_the_creation_goes_on() -> anyhow::Result<()> {
    let site = Site::new().await?;
    let cluster = Client::new(&site.sandbox.url);
    let hold = json!({ "action": { "pods": { "trouble": "NotReady" } } });
    cluster.post("/sandbox/faults", &hold).await?.expect(201)?;
    let cairn = site.cairn(CairnOptions::default()).await?;
    let body = json!({ "user": "acme", "service_name": "search" });
    let answer = cairn.client.post("/clusters", &body).await?.expect(202)?.json()?;
    let id = answer["id"].as_str().context("an id")?.to_owned();
    cairn.client.events(&id, 0, |event| event.data["fact"]["step"] == "rollout_completed").await?;
    // With the process its faults are gone, and so is every watch; its objects are not.
    let gone = site.kill_sandbox().await?;
    while cairn.client.get("/readyz").await?.status != 503 {}
    // What is submitted meanwhile is accepted, and waits.
    let late = json!({ "user": "acme", "service_name": "late" });
    let answer = cairn.client.post("/clusters", &late).await?.expect(202)?.json()?;
    let late = answer["id"].as_str().context("an id")?.to_owned();
    let site = Site::revive_sandbox(gone).await?;
    cairn.client.ready(DEADLINE).await?;
    for id in [&id, &late] {
        cairn.client.workflow_when(id, |workflow| workflow["status"] == "succeeded").await?;
    }
    site.judge(&cairn.client, Vec::new()).await?;
    Ok(())
}

/// The file is for scripts; on a full disk, say, the engine is of more use than its absence.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_file_that_cannot_be_written_keeps_no_engine_from_starting() -> anyhow::Result<()> {
    let site = Site::new().await?;
    std::fs::create_dir_all(site.data().join("cairn.port"))?;
    let cairn = site.cairn(CairnOptions::default()).await?;
    let ended = cairn.process.terminate().await?;
    ensure!(ended.status.success() && ended.output.contains("cairn.port"), "{ended:?}");
    Ok(())
}

/// A segment of the log whose header says that it has this format: a checksum over its first 68 bytes follows them.
fn of_format(segment: &[u8], format: u16) -> Vec<u8> {
    let mut segment = segment.to_vec();
    segment[8..10].copy_from_slice(&format.to_le_bytes());
    let sum = crc32c::crc32c(&segment[..68]);
    segment[68..72].copy_from_slice(&sum.to_le_bytes());
    segment
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_use_is_told_apart_from_a_failure() -> anyhow::Result<()> {
    let ended = run(cairn(&["demo", "--fail-at", "nope"])).await?;
    ensure!(ended.status.code() == Some(2) && ended.output.contains("k8s_applied"), "{ended:?}");
    Ok(())
}
