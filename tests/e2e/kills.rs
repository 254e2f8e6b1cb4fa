//! SIGKILL, at every append of a creation: the next start goes on, and the client that was not answered
//! asks again with the same key.

use anyhow::{Context as _, ensure};
use cairn_tests::{
    creation::{accepted, ends, submit, workflow_of},
    program::CairnOptions,
    site::{Site, commits},
};
use futures::{StreamExt as _, stream};

/// Points that are tried at the same time: most of each is waiting.
const AT_ONCE: usize = 4;

/// How many appends a creation has when nobody disturbs it.
async fn appends(options: CairnOptions) -> anyhow::Result<u64> {
    let site = Site::new().await?;
    let failing = options.fail_at.is_some();
    let cairn = site.cairn(options).await?;
    ends(&site, &cairn, Vec::new(), failing).await?;
    let commits = commits(&cairn.client).await?;
    let count = commits.iter().filter(|commit| !commit.entries.is_empty()).count();
    cairn.process.terminate().await?;
    Ok(count.try_into()?)
}

/// One creation, killed at this append, then started again.
async fn killed_at(point: String, options: CairnOptions) -> anyhow::Result<()> {
    let site = Site::new().await?;
    let failing = options.fail_at.is_some();
    let mut told = Vec::new();
    let dying = site.cairn(CairnOptions { kill_at: Some(point), ..options.clone() }).await?;
    if let Ok(answer) = submit(&dying.client, "").await {
        told.push(accepted(workflow_of(&answer.expect(202)?)?));
    }
    let ended = dying.process.ended().await?;
    ensure!(std::os::unix::process::ExitStatusExt::signal(&ended.status) == Some(9), "not killed: {ended:?}");
    site.verify().await.context("after the kill")?;
    let cairn = site.cairn(options).await?;
    ends(&site, &cairn, told, failing).await?;
    let ended = cairn.process.terminate().await?;
    ensure!(ended.status.success(), "{ended:?}");
    site.verify().await.context("at the end")
}

async fn sweep(options: CairnOptions) -> anyhow::Result<()> {
    let failing = options.fail_at.is_some();
    let appends = appends(options.clone()).await.context("the clean run")?;
    let least = if failing { 22 } else { 12 };
    ensure!(appends >= least, "{appends} appends are fewer than the {least} of a creation");
    let points = (1..=appends).flat_map(|append| ["before", "after"].map(|side| format!("append:{append}:{side}")));
    let faults: Vec<String> = stream::iter(points)
        .map(|point| {
            let options = options.clone();
            async move {
                let result = killed_at(point.clone(), options).await;
                result.err().map(|error| format!("killed at {point}: {error:#}"))
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|fault| async { fault })
        .collect()
        .await;
    let ended = appends * 2 - u64::try_from(faults.len())?;
    let (resumed, rolled_back) = if failing { (0, ended) } else { (ended, 0) };
    println!(
        "killed with SIGKILL: points swept {}, resumed {resumed}, rolled back {rolled_back}, violations {}",
        appends * 2,
        faults.len()
    );
    ensure!(faults.is_empty(), "{}", faults.join("\n\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_of_its_appends_a_creation_ends_with_ten_reports() -> anyhow::Result<()> {
    sweep(CairnOptions::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_of_its_appends_a_creation_that_fails_leaves_nothing() -> anyhow::Result<()> {
    sweep(CairnOptions { fail_at: Some("tenant_synced".to_owned()), ..CairnOptions::default() }).await
}
