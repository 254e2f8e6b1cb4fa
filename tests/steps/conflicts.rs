//! Fields that others have taken over (C2): shown with their owner, never taken by force.

use anyhow::{Context as _, ensure};
use cairn_engine::ErrorClass;
use cairn_steps::{names, render::Kind};
use kube::{
    api::{DynamicObject, Patch, PatchParams},
    core::Status,
};
use serde_json::{Value, json};

use crate::{
    bench::{Bench, made, says, told},
    site::on_the_cluster,
};

/// A set of no pods, as somebody applies it.
pub(crate) fn set(namespace: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "set", "namespace": namespace},
        "spec": {
            "replicas": 0, "serviceName": "set", "selector": {"matchLabels": {"app": "set"}},
            "template": {"metadata": {"labels": {"app": "set"}}, "spec": {"containers": [{
                "name": "main", "image": "registry.example/set:1", "resources": {"limits": {"cpu": "10m", "memory": "16Mi"}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}],
        },
    })
}

fn refusal(answer: kube::Result<DynamicObject>) -> anyhow::Result<Status> {
    match answer {
        Err(kube::Error::Api(status)) => Ok(*status),
        Err(error) => Err(error.into()),
        Ok(object) => anyhow::bail!("it was taken: {object:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_somebody_has_taken_over_are_not_taken_back_and_a_rollback_scales_them_to_none()
-> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({}))?;
        bench.up_to("rollout_completed").await?;
        let sets = site.objects(Kind::StatefulSet, &bench.namespace);
        let params = PatchParams { field_manager: Some("kubectl-scale".to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({"spec": {"replicas": 2}}));
        sets.patch(names::STATEFUL_SET, &params, &patch).await?;
        bench.begun("rollout_completed")?;
        let error = bench.run("rollout_completed").await.err().context("the replicas were taken back")?;
        ensure!(error.failure.class == ErrorClass::Permanent, "{error}");
        says(&error, "others own these fields")?;
        says(&error, ".spec.replicas: conflict with \"kubectl-scale\"")?;
        says(&error, "`kubectl patch --field-manager=cairn`")?;
        let said = bench.compensate("rollout_completed").await.map_err(|error| told(&error))?;
        ensure!(said.starts_with("scaled StatefulSet/elasticsearch"), "{said}");
        let set = sets.get(names::STATEFUL_SET).await?;
        ensure!(set.data["spec"]["replicas"] == 0, "{set:?}");
        bench.roll_back_from("gpu_configured").await?;
        ensure!(bench.residue().await?.is_empty());
        Ok(())
    })
    .await
}

/// A scale is no apply, and so, to the server, another manager's, although of the same name: the step's next apply ran into itself.
#[tokio::test(flavor = "multi_thread")]
async fn what_we_have_scaled_ourselves_is_ours_to_apply_and_the_field_is_given_back() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let mut bench = Bench::new(site, &json!({}))?;
        bench.up_to("resources_configured").await?;
        let applied = bench.state.output(&"k8s_applied".into()).context("applied")?.clone();
        let set = made(&applied).into_iter().find(|one| one.kind == "StatefulSet").context("made")?;
        let scaled = site.cluster.scale(&set, &bench.workflow(), 1).await.map_err(|error| told(&error))?;
        ensure!(scaled);
        let sets = site.objects(Kind::StatefulSet, &bench.namespace);
        ensure!(owners(&sets.get(names::STATEFUL_SET).await?) == ["cairn Update"]);
        bench.begun("resources_configured")?;
        // Its controller writes meanwhile: the condition is then not met, and the engine tries again.
        site.eventually("the replicas are applied", async || match bench.run("resources_configured").await {
            Ok(_) => Ok(std::ops::ControlFlow::Break(())),
            Err(error) if error.failure.class == ErrorClass::Permanent => Err(told(&error)),
            Err(error) => Ok(std::ops::ControlFlow::Continue(error.to_string())),
        })
        .await?;
        let set = sets.get(names::STATEFUL_SET).await?;
        ensure!(set.data["spec"]["replicas"] == 0, "{set:?}");
        ensure!(owners(&set) == ["cairn Apply"], "{:?}", owners(&set));
        Ok(())
    })
    .await
}

/// What taking back our own field rests on: between the look and the apply somebody may have taken it over.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_refuses_a_forced_apply_that_is_meant_for_another_version() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let namespace = site.namespace().await?;
        let sets = site.objects(Kind::StatefulSet, &namespace);
        let seen = sets.patch("set", &PatchParams::apply("first"), &Patch::Apply(set(&namespace))).await?;
        let label = Patch::Merge(json!({"metadata": {"labels": {"somebody": "was-here"}}}));
        sets.patch("set", &PatchParams::default(), &label).await?;
        let mut aimed = set(&namespace);
        aimed["metadata"]["resourceVersion"] = json!(seen.metadata.resource_version);
        let forced = PatchParams::apply("first").force();
        let status = refusal(sets.patch("set", &forced, &Patch::Apply(aimed)).await)?;
        ensure!((status.code, status.reason.as_str()) == (409, "Conflict"), "{status:?}");
        ensure!(status.details.iter().all(|details| details.causes.is_empty()), "{status:?}");
        Ok(())
    })
    .await
}

/// Who owns the replicas of a set.
fn owners(set: &DynamicObject) -> Vec<String> {
    let entries = serde_json::to_value(&set.metadata.managed_fields).unwrap_or_default();
    let entries = entries.as_array().cloned().unwrap_or_default();
    let owns = |entry: &&Value| entry.pointer("/fieldsV1/f:spec/f:replicas").is_some();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries
        .iter()
        .filter(owns)
        .map(|entry| format!("{} {}", text(&entry["manager"]), text(&entry["operation"])))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_names_each_field_with_its_manager_and_force_leaves_the_generation() -> anyhow::Result<()> {
    on_the_cluster(async |site| {
        let namespace = site.namespace().await?;
        let sets = site.objects(Kind::StatefulSet, &namespace);
        let made = sets.patch("set", &PatchParams::apply("first"), &Patch::Apply(set(&namespace))).await?;

        // The same manifest under another name: defaulting has changed an atomic list since, so that it differs (C15).
        let same = sets.patch("set", &PatchParams::apply("second"), &Patch::Apply(set(&namespace))).await;
        let status = refusal(same)?;
        let causes = status.details.as_ref().map(|details| details.causes.clone()).unwrap_or_default();
        ensure!((status.code, status.reason.as_str()) == (409, "Conflict"), "{status:?}");
        let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        ensure!(fields == [".spec.volumeClaimTemplates"], "{status:?}");
        ensure!(
            causes[0].reason == "FieldManagerConflict" && causes[0].message.contains("conflict with \"first\""),
            "{status:?}"
        );

        let mut other = set(&namespace);
        other["spec"]["template"]["spec"]["containers"][0]["image"] = json!("registry.example/set:2");
        let unforced = sets.patch("set", &PatchParams::apply("second"), &Patch::Apply(other)).await;
        let causes = refusal(unforced)?.details.map(|details| details.causes).unwrap_or_default();
        let fields: Vec<String> = causes.into_iter().map(|cause| cause.field).collect();
        ensure!(fields.contains(&".spec.template.spec.containers[name=\"main\"].image".to_owned()), "{fields:?}");

        let forced = PatchParams::apply("second").force();
        let answer = sets.patch("set", &forced, &Patch::Apply(set(&namespace))).await?;
        ensure!(answer.metadata.generation == made.metadata.generation, "{answer:?}");
        Ok(())
    })
    .await
}
