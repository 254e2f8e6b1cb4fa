//! Somebody else deletes, scales, relabels or takes over what a creation makes, right after any of its calls. How it ends is
//! then open; that it ends, says why, touches nothing that is not its own and leaves nothing of its own is not.

use anyhow::{Context as _, bail, ensure};
use cairn_engine::{Fact, ParkReason};
use cairn_tests::{
    life::Deed,
    oracle::{Violation, check},
    world::{TESTER, World, request},
};
use futures::FutureExt as _;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Namespace, PersistentVolumeClaim},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

const NAMESPACE: &str = "acme--search";

/// Does something to the cluster behind this client.
type Doing = fn(Client) -> Deed;

/// What somebody does. Most of it fails as long as there is nothing to do it to: that is no matter.
fn deeds() -> Vec<(&'static str, Doing)> {
    vec![
        ("deletes the namespace", |client| delete(Api::<Namespace>::all(client), NAMESPACE)),
        ("deletes the StatefulSet", |client| {
            delete(Api::<StatefulSet>::namespaced(client, NAMESPACE), "elasticsearch")
        }),
        ("deletes a claim", |client| {
            delete(Api::<PersistentVolumeClaim>::namespaced(client, NAMESPACE), "elasticsearch-data-elasticsearch-0")
        }),
        ("scales the StatefulSet to nothing", |client| {
            let patch = json!({ "spec": { "replicas": 0 } });
            merge(Api::<StatefulSet>::namespaced(client, NAMESPACE), "elasticsearch", patch)
        }),
        ("takes the namespace's mark away", |client| {
            let patch = json!({ "metadata": { "annotations": { "cairn.dev/workflow": null } } });
            merge(Api::<Namespace>::all(client), NAMESPACE, patch)
        }),
        ("marks the StatefulSet as another workflow's", |client| {
            let patch = json!({ "metadata": { "annotations": { "cairn.dev/workflow": "another" } } });
            merge(Api::<StatefulSet>::namespaced(client, NAMESPACE), "elasticsearch", patch)
        }),
        ("puts something of theirs into the namespace", |client| {
            async move {
                let object = json!({ "metadata": { "name": "precious" }, "data": { "a": "b" } });
                let object = serde_json::from_value(object).expect("a ConfigMap");
                let params = PostParams { field_manager: Some(TESTER.to_owned()), ..PostParams::default() };
                let _ = Api::<ConfigMap>::namespaced(client, NAMESPACE).create(&params, &object).await;
            }
            .boxed()
        }),
    ]
}

fn delete<K>(api: Api<K>, name: &'static str) -> Deed
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    async move { drop(api.delete(name, &DeleteParams::default()).await) }.boxed()
}

fn merge<K>(api: Api<K>, name: &'static str, patch: Value) -> Deed
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let params = PatchParams { field_manager: Some(TESTER.to_owned()), ..PatchParams::default() };
    async move { drop(api.patch(name, &params, &Patch::Merge(patch)).await) }.boxed()
}

/// How one creation ended: in one word, and how many calls it made.
fn creation(failing: Option<&str>, deed: Option<(u64, Doing)>) -> anyhow::Result<(&'static str, u64)> {
    World::run(async |mut world: World| {
        world.add_foreign().await?;
        let running = world.open(None, failing).await?;
        if let Some((call, deed)) = deed {
            running.life.after_call(call, deed(world.sandbox.client()));
        }
        let workflow = world.submit(&running, &request("acme", "search")).await?.context("the journal is well")?;
        let state = world.settle(&running, workflow).await?.context("nobody ends this life")?;
        let (_, calls) = running.life.counts();
        world.rest().await;
        let evidence = world.evidence(true)?;
        let broken: Vec<Violation> =
            check(&evidence).into_iter().filter(|violation| !is_somebodys(violation)).collect();
        ensure!(broken.is_empty(), "violations: {broken:?}");
        let last = evidence.commits.iter().flat_map(|commit| &commit.entries).last().map(|entry| &entry.fact);
        let word = match last {
            Some(Fact::Finished { outcome: cairn_engine::Outcome::Succeeded, .. }) => "succeeded",
            Some(Fact::Finished { .. }) => "rolled back",
            // Waiting for a person is right only where a person has done something that nobody else may undo.
            Some(Fact::Parked { reason: ParkReason::CompensationFailing | ParkReason::Residue { .. } }) => "parked",
            other => bail!("it ended with {other:?}: {:?}", state.phase()),
        };
        Ok((word, calls))
    })
}

/// What a second pair of hands in the same cluster makes look broken: objects made anew because somebody deleted them, and
/// writes to what was somebody's for a moment.
fn is_somebodys(violation: &Violation) -> bool {
    matches!(violation.invariant, "I9" | "I15") && !violation.detail.contains("theirs")
}

fn sweep(failing: Option<&str>) -> anyhow::Result<()> {
    let (_, calls) = creation(failing, None).context("the clean run")?;
    let mut faults = Vec::new();
    for (name, deed) in deeds() {
        let mut words = std::collections::BTreeMap::<&str, usize>::new();
        for call in 1..=calls {
            match creation(failing, Some((call, deed))) {
                Ok((word, _)) => *words.entry(word).or_default() += 1,
                Err(error) => faults.push(format!("somebody {name} after call {call}: {error:#}")),
            }
        }
        println!("{failing:?} failing, somebody {name}: {words:?}");
    }
    println!("points swept {}, violations {}", calls * deeds().len() as u64, faults.len());
    if !faults.is_empty() {
        bail!("{}", faults.iter().take(8).cloned().collect::<Vec<_>>().join("\n\n"));
    }
    Ok(())
}

#[test]
fn whatever_somebody_does_a_creation_ends_and_says_how() -> anyhow::Result<()> {
    sweep(None)
}

#[test]
fn whatever_somebody_does_a_rollback_ends_and_says_how() -> anyhow::Result<()> {
    sweep(Some("gpu_configured"))
}
