//! Verbs used = verbs granted: what the steps were seen to ask of a cluster is what the table of rights, and with it the
//! ClusterRole of `deploy/`, grants; nothing less, or something fails at a tenant's, and nothing more.
//!
//! The sandbox notes each request as role based access control sees it: group, resource, subresource, verb.

mod deploy;
mod doctor;
mod plan;

use std::{collections::BTreeSet, time::Duration};

use cairn_steps::{
    cluster::Cluster,
    create,
    elastic::Elastic,
    input::Input,
    names::STATEFUL_SET,
    report::STATUSES,
    request::Request,
    rights::rights,
    sandbox::{Access, Fault, PodTrouble, Sandbox},
    update,
};
use cairn_tests::{
    later::Later,
    life::{Cut, Operation, Side},
    world::{World, request},
};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

/// What a creation asks of its cluster, with this step failing and this trouble about.
fn used_by_creation(failing: Option<&'static str>, trouble: Option<Fault>) -> anyhow::Result<BTreeSet<Access>> {
    World::run(|mut world| async move {
        if let Some(fault) = trouble {
            world.sandbox.faults().add(fault);
        }
        let running = world.open(None, failing).await?;
        let Some(workflow) = world.submit(&running, &request("acme", "search")).await? else {
            anyhow::bail!("this life does not end by itself")
        };
        world.settle(&running, workflow).await?;
        Ok(world.sandbox.accesses())
    })
}

/// The same when its engine is killed in the middle, and another one goes on.
fn used_by_recovery() -> anyhow::Result<BTreeSet<Access>> {
    World::run(|mut world| async move {
        let killed = world.open(Some(Cut { at: Operation::Call(12), side: Side::After }), None).await?;
        let submitted = world.submit(&killed, &request("acme", "search")).await?;
        if let Some(workflow) = submitted {
            world.settle(&killed, workflow).await?;
        }
        killed.kill();
        let running = world.open(None, None).await?;
        if let Some(workflow) = world.submit(&running, &request("acme", "search")).await? {
            world.settle(&running, workflow).await?;
        }
        Ok(world.sandbox.accesses())
    })
}

/// What the cluster's further life asks of it, with this step failing.
fn used_by_life(later: &[Later], failing: Option<&'static str>) -> anyhow::Result<BTreeSet<Access>> {
    World::run(|mut world| async move {
        let running = world.open(None, failing).await?;
        let Some(workflow) = world.submit(&running, &request("acme", "search")).await? else {
            anyhow::bail!("this life does not end by itself")
        };
        world.settle(&running, workflow).await?;
        for later in later {
            if let Some(workflow) = world.submit_later(&running, ("acme", "search"), later).await? {
                world.settle(&running, workflow).await?;
            }
        }
        Ok(world.sandbox.accesses())
    })
}

/// What `cairn doctor` and a plan ask of it.
fn used_by_looking() -> anyhow::Result<BTreeSet<Access>> {
    World::run(|world| async move {
        let cluster = Cluster::new(world.sandbox.client());
        cluster.examine().await;
        let mut body = request("acme", "search");
        body["gpu_count"] = json!(1);
        let request = Request::parse(body.to_string().as_bytes());
        let request = request.map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        create::rehearse(&cluster, Input::creation(request), Elastic::default(), None).await;
        Ok(world.sandbox.accesses())
    })
}

/// The same when somebody corrects the template while no node gets ready: the older ones are replaced.
fn used_by_repair() -> anyhow::Result<BTreeSet<Access>> {
    World::run(|mut world| async move {
        let unready = world.sandbox.faults().add(Fault::pods(PodTrouble::NotReady).name("elasticsearch-"));
        let running = world.open(None, None).await?;
        let Some(workflow) = world.submit(&running, &request("acme", "search")).await? else {
            anyhow::bail!("this life does not end by itself")
        };
        // By then the nodes are there, and wait for each other.
        tokio::time::sleep(Duration::from_secs(30)).await;
        let sets: Api<StatefulSet> = Api::namespaced(world.sandbox.client(), "acme--search");
        let corrected = json!({"spec": {"template": {"metadata": {"annotations": {"corrected": "yes"}}}}});
        sets.patch(STATEFUL_SET, &PatchParams::default(), &Patch::Merge(&corrected)).await?;
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.sandbox.faults().remove(unready);
        world.settle(&running, workflow).await?;
        Ok(world.sandbox.accesses())
    })
}

/// Every right that was seen to be used.
fn used() -> anyhow::Result<BTreeSet<Access>> {
    let mut used = used_by_creation(None, None)?;
    for step in STATUSES {
        used.extend(used_by_creation(Some(step), None)?);
    }
    for trouble in [PodTrouble::CrashLoopBackOff, PodTrouble::Unschedulable, PodTrouble::FailedCreate] {
        used.extend(used_by_creation(None, Some(Fault::pods(trouble)))?);
    }
    used.extend(used_by_recovery()?);
    used.extend(used_by_repair()?);
    let change = || Later::Change(json!({ "replicas": 3, "mem_limit": "4Gi", "disk_size": "30Gi" }));
    used.extend(used_by_life(&[change(), Later::Deletion { keep_data: false }], None)?);
    let keeping = [Later::Deletion { keep_data: true }, Later::Deletion { keep_data: false }];
    used.extend(used_by_life(&keeping, None)?);
    for step in update::STEPS {
        used.extend(used_by_life(&[change()], Some(step))?);
    }
    used.extend(used_by_looking()?);
    Ok(used)
}

fn granted() -> BTreeSet<Access> {
    let each = |right: cairn_steps::rights::Right| Access {
        group: right.group.to_owned(),
        resource: right.resource.to_owned(),
        verb: right.verb.to_owned(),
    };
    rights().map(each).collect()
}

/// Group and plural of everything that this cluster serves, with the subresources.
async fn served(sandbox: &Sandbox) -> anyhow::Result<BTreeSet<(String, String)>> {
    let client = sandbox.client();
    let mut lists = vec![(String::new(), client.list_core_api_resources("v1").await?)];
    for group in client.list_api_groups().await?.groups {
        for version in group.versions {
            lists.push((group.name.clone(), client.list_api_group_resources(&version.group_version).await?));
        }
    }
    let each = |(group, list): (String, k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList)| {
        list.resources.into_iter().map(move |resource| (group.clone(), resource.name))
    };
    Ok(lists.into_iter().flat_map(each).collect())
}

#[test]
fn what_the_steps_use_is_granted_and_what_is_granted_is_used() -> anyhow::Result<()> {
    let (used, granted) = (used()?, granted());
    let lacking: Vec<&Access> = used.difference(&granted).collect();
    assert!(lacking.is_empty(), "used and not granted: add it to RULES in steps/src/rights.rs: {lacking:#?}");
    let served = World::run(|world| async move { served(&world.sandbox).await })?;
    let (here, elsewhere): (Vec<&Access>, Vec<&Access>) =
        granted.difference(&used).partition(|access| served.contains(&(access.group.clone(), access.resource.clone())));
    assert!(here.is_empty(), "granted and not used: take it out of RULES in steps/src/rights.rs: {here:#?}");
    // Kinds that only a real cluster has are looked at, and never touched.
    assert!(elsewhere.iter().all(|access| access.verb == "list"), "{elsewhere:#?}");
    Ok(())
}

#[test]
fn with_a_right_taken_away_a_creation_says_which_and_leaves_nothing() -> anyhow::Result<()> {
    World::run(|mut world| async move {
        world.sandbox.faults().add(Fault::forbid().verb("patch").resource("statefulsets"));
        let running = world.open(None, None).await?;
        let Some(workflow) = world.submit(&running, &request("acme", "search")).await? else {
            anyhow::bail!("this life does not end by itself")
        };
        let state = world.settle(&running, workflow).await?;
        let failure = state.as_ref().and_then(|state| state.failure()).map(|(_, failure)| failure.message.clone());
        let message = failure.unwrap_or_default();
        assert!(message.contains("cannot patch resource \"statefulsets\" in API group \"apps\""), "{message}");
        let broken = cairn_tests::oracle::check(&world.evidence(true)?);
        assert!(broken.is_empty(), "{broken:?}");
        Ok(())
    })
}
