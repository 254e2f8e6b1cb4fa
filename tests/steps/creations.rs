//! Whole creations, through the engine: ten reports, or a full rollback with nothing left.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use cairn_engine::{
    Engine, EngineOptions, Limits, Outcome, Registry, SystemChance, SystemClock, WorkflowState, store::MemoryStore,
};
use cairn_steps::{
    cluster::rollout::RolloutRules,
    create::{Deps, create_definition},
    gitlab::{GitLab, GitLabRules},
    report::{FAILED, STATUSES, reports},
};
use cairn_tests::{steps::failing_at, world::submission};
use serde_json::json;

use crate::{
    bench::body,
    site::{Site, on_the_cluster},
};

/// A creation from its submission to its end, with this step failing for good after its work was done.
async fn created(site: &Site, failing: Option<&str>) -> anyhow::Result<(String, WorkflowState)> {
    let (service, namespace) = site.service();
    site.bind_claims(&namespace);
    let rollout = RolloutRules { deadline: site.patience, ..RolloutRules::default() };
    let deps = Deps { rollout, ..Deps::new(site.cluster.clone(), GitLab::new(GitLabRules::default())) };
    let definition = create_definition(deps);
    let definition = match failing {
        Some(step) => failing_at(&definition, step),
        None => definition,
    };
    let options = EngineOptions {
        store: Arc::new(MemoryStore::new()),
        definitions: Registry::new([definition]),
        clock: Arc::new(SystemClock),
        chance: Arc::new(SystemChance),
        limits: Limits::default(),
    };
    let engine = Engine::open(options).await?;
    let request = body(&service, &json!({"replicas": 2}))?;
    let workflow = engine.submit(submission(&request, [].into())?).await?.id();
    // A rollout, and a rollback behind it.
    let settled = tokio::time::timeout(site.patience * 2, engine.settled(workflow)).await;
    let state = settled.context("it neither ends nor parks")??;
    let made = reports(&engine.entries(workflow).await?)?;
    let statuses: Vec<&str> = made.iter().map(|report| report.status.as_str()).collect();
    match failing {
        None => ensure!(statuses == STATUSES, "{statuses:?}: {:?} {:?}", state.phase(), state.failure()),
        Some(step) => {
            let done = STATUSES.iter().position(|status| *status == step).context("one of the ten")?;
            ensure!(statuses == [&STATUSES[..done], &[FAILED]].concat(), "{statuses:?}: {:?}", state.phase());
        }
    }
    engine.shutdown(Duration::from_secs(1)).await?;
    Ok((namespace, state))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_makes_a_cluster_with_ten_reports() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let (namespace, state) = created(site, None).await?;
        ensure!(state.outcome() == Some(Outcome::Succeeded), "{:?}", state.phase());
        ensure!(!site.is_gone(&namespace).await?, "{namespace} is gone");
        Ok(())
    })
    .await
}

async fn failing_after(step: &str) -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let (namespace, state) = created(site, Some(step)).await?;
        ensure!(state.outcome() == Some(Outcome::Failed), "{:?} {:?}", state.phase(), state.failure());
        ensure!(site.is_gone(&namespace).await?, "{namespace} is left");
        Ok(())
    })
    .await
}

macro_rules! failing_after {
    ($($step:ident)*) => {
        mod failed_after_a_step_a_creation_leaves_nothing {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $step() -> anyhow::Result<()> {
                    super::failing_after(stringify!($step)).await
                }
            )*
        }
    };
}

failing_after! {
    starting namespace_created gitlab_pulled k8s_applied resources_configured disk_configured gpu_configured
    rollout_completed tenant_synced completed
}
