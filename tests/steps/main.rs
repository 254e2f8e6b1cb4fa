//! The ten steps as a whole, on the sandbox; and, with `CAIRN_TEST_KUBECONFIG=FILE`, the same on a real cluster, in
//! namespaces of its own.
//!
//! Real time and a real engine: what passes here on the sandbox is what is shown on a real cluster.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use cairn_engine::{Engine, EngineOptions, Limits, Outcome, Registry, SystemClock, WorkflowState, store::MemoryStore};
use cairn_steps::{
    cluster::Cluster,
    report::{FAILED, STATUSES, reports},
    sandbox::{Sandbox, SandboxOptions},
};
use cairn_tests::{
    steps::failing_at,
    world::{definition, submission},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

/// The longest that a creation may take on a real cluster, which has images to pull.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// A cluster to try the steps on.
struct Target {
    name: &'static str,
    cluster: Cluster,
}

/// The sandbox, and the real cluster if one was named.
async fn targets() -> anyhow::Result<Vec<Target>> {
    let options = SandboxOptions { pod_ready_after: Duration::from_millis(100), ..SandboxOptions::default() };
    let sandbox = Sandbox::open(options)?;
    let mut targets = vec![Target { name: "the sandbox", cluster: Cluster::new(sandbox.client()) }];
    match std::env::var_os("CAIRN_TEST_KUBECONFIG").map(PathBuf::from) {
        None => println!("skipped on a real cluster: CAIRN_TEST_KUBECONFIG names none"),
        Some(path) => {
            // Both this and the engine's client may be the first to need it.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let kubeconfig = Kubeconfig::read_from(&path).with_context(|| path.display().to_string())?;
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            targets.push(Target { name: "the real cluster", cluster: Cluster::connect(config)? });
        }
    }
    Ok(targets)
}

/// A service name that no earlier run has left behind.
fn service() -> String {
    format!("t{:x}", jiff::Timestamp::now().as_nanosecond() & 0xffff_ffff_ffff)
}

async fn created(target: &Target, request: &Value, failing: Option<&str>) -> anyhow::Result<WorkflowState> {
    let definition = definition(target.cluster.clone());
    let definition = match failing {
        Some(step) => failing_at(&definition, step),
        None => definition,
    };
    let options = EngineOptions {
        store: Arc::new(MemoryStore::new()),
        definitions: Registry::new([definition]),
        clock: Arc::new(SystemClock),
        limits: Limits::default(),
    };
    let engine = Engine::open(options).await?;
    let workflow = engine.submit(submission(request, [].into())?).await?.id();
    let state = tokio::time::timeout(PATIENCE, engine.settled(workflow)).await.context("it does not end")??;
    let made = reports(&engine.entries(workflow).await?)?;
    let statuses: Vec<&str> = made.iter().map(|report| report.status.as_str()).collect();
    match failing {
        None => ensure!(statuses == STATUSES, "{statuses:?}: {:?}", state.failure()),
        Some(step) => {
            let done = STATUSES.iter().position(|status| *status == step).context("one of the ten")?;
            ensure!(statuses == [&STATUSES[..done], &[FAILED]].concat(), "{statuses:?}: {:?}", state.phase());
        }
    }
    engine.shutdown(Duration::from_secs(1)).await?;
    Ok(state)
}

async fn is_gone(target: &Target, namespace: &str) -> anyhow::Result<bool> {
    let namespaces: Api<Namespace> = Api::all(target.cluster.client().clone());
    Ok(namespaces.get_opt(namespace).await?.is_none())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_makes_a_cluster_with_ten_reports() -> anyhow::Result<()> {
    for target in targets().await? {
        let service = service();
        let request = json!({ "user": "trial", "service_name": service, "disk_size": "1Gi" });
        let state = created(&target, &request, None).await.with_context(|| format!("on {}", target.name))?;
        ensure!(state.outcome() == Some(Outcome::Succeeded), "on {}: {:?}", target.name, state.phase());
        let namespaces: Api<Namespace> = Api::all(target.cluster.client().clone());
        namespaces.delete(&format!("trial--{service}"), &kube::api::DeleteParams::default()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_after_any_step_a_creation_leaves_nothing() -> anyhow::Result<()> {
    for target in targets().await? {
        for step in STATUSES {
            let service = service();
            let request = json!({ "user": "trial", "service_name": service, "disk_size": "1Gi" });
            let state =
                created(&target, &request, Some(step)).await.with_context(|| format!("{step} on {}", target.name))?;
            ensure!(state.outcome() == Some(Outcome::Failed), "{step} on {}: {:?}", target.name, state.phase());
            let namespace = format!("trial--{service}");
            ensure!(is_gone(&target, &namespace).await?, "{step} on {}: {namespace} is left", target.name);
        }
    }
    Ok(())
}
