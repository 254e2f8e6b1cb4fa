//! Each of the ten: run, run again, probed before and after; and a rollback from behind it, twice.

use anyhow::{Context as _, ensure};
use cairn_engine::Probe;
use serde_json::{Value, json};

use crate::{
    bench::{Bench, told},
    site::on_the_cluster,
};

/// The steps that leave something in the cluster.
const EFFECTIVE: [&str; 6] = [
    "namespace_created",
    "k8s_applied",
    "resources_configured",
    "disk_configured",
    "gpu_configured",
    "rollout_completed",
];

/// Two nodes; with GPUs where the step is about them, and nowhere else: a cluster may have none.
fn request(step: &str) -> Value {
    json!({"replicas": 2, "gpu_count": i32::from(step == "gpu_configured")})
}

/// Compensated without ever having run it changes nothing, its probe sees nothing before and everything after, and a
/// second run has no second effect.
async fn holds_twice(step: &str) -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &request(step))?;
        bench.up_to(step).await?;
        let before = bench.snapshot().await?;
        bench.compensate(step).await.map_err(|error| told(&error)).context("taken back without having run")?;
        ensure!(bench.snapshot().await? == before, "taking {step} back without having run it changed something");

        bench.begun(step)?;
        let answer = bench.probe(step).await?;
        ensure!(answer == Probe::NotApplied, "before its run: {answer:?}");
        let first = bench.run(step).await.map_err(|error| told(&error))?;
        if EFFECTIVE.contains(&step) {
            let answer = bench.probe(step).await?;
            ensure!(answer == Probe::Applied { output: first.clone() }, "after its run: {answer:?}, not {first:?}");
        }
        let after = bench.snapshot().await?;
        let second = bench.run(step).await.map_err(|error| told(&error)).context("the second run")?;
        ensure!(second.result == first.result, "the second run made {second:?}, the first {first:?}");
        let again = bench.snapshot().await?;
        ensure!(again == after, "the second run changed something: {after:#?} became {again:#?}");
        Ok(())
    })
    .await
}

/// A rollback from behind this step leaves nothing, and may be repeated.
async fn leaves_nothing(step: &str) -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &request(step))?;
        bench.up_to(step).await?;
        bench.done(step).await?;
        bench.roll_back_from(step).await?;
        ensure!(bench.residue().await?.is_empty(), "left: {:?}", bench.residue().await?);
        let gone = site.is_gone(&bench.namespace).await?;
        ensure!(gone, "the namespace is left");
        bench.roll_back_from(step).await.context("the second rollback")?;
        ensure!(bench.residue().await?.is_empty(), "left by the second: {:?}", bench.residue().await?);
        Ok(())
    })
    .await
}

macro_rules! each_step {
    ($what:ident: $($step:ident)*) => {
        mod $what {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $step() -> anyhow::Result<()> {
                    super::$what(stringify!($step)).await
                }
            )*
        }
    };
}

each_step! {
    holds_twice: starting namespace_created gitlab_pulled k8s_applied resources_configured disk_configured
        gpu_configured rollout_completed tenant_synced completed
}
each_step! {
    leaves_nothing: starting namespace_created gitlab_pulled k8s_applied resources_configured disk_configured
        gpu_configured rollout_completed tenant_synced completed
}
