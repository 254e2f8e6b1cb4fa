//! Each call of each step in turn: lost before, lost after it was applied, answered with each status. The step is then probed
//! and run again as the engine would, and ends with the effect that it has without any trouble.

use std::collections::BTreeSet;

use cairn_engine::{ErrorClass, Probe};
use serde_json::{Value, json};

use super::bench::Bench;
use crate::sandbox::{Fault, FaultAction};

/// More calls than any step has: the sweep ends at the first call that is not met.
const CALLS_MAX: u64 = 200;

/// What goes wrong, and whether trying again is of use.
fn troubles() -> Vec<(FaultAction, bool)> {
    let status = |code| FaultAction::Status { code, retry_after: None };
    vec![
        (FaultAction::DropBefore, true),
        (FaultAction::DropAfter, true),
        (status(429), true),
        (status(500), true),
        (status(503), true),
        (status(504), true),
        (status(403), false),
    ]
}

/// What is in the cluster, without what differs from one run to the next.
fn world(bench: &Bench) -> BTreeSet<String> {
    let mut ours = bench.things();
    // What controllers make of it, and when, is theirs: a ReplicaSet bears our mark as well.
    ours.retain(|object| {
        object["metadata"]["annotations"]["cairn.dev/workflow"].is_string()
            && object["metadata"]["ownerReferences"].is_null()
    });
    let lines = ours.into_iter().map(|mut object| {
        // Called after the claim's UID.
        if let Some(spec) = object["spec"].as_object_mut() {
            spec.remove("volumeName");
        }
        // Made at random.
        if object["kind"] == "Secret" {
            object["data"].as_object_mut().expect("values").values_mut().for_each(|value| *value = Value::Null);
        }
        format!("{}/{} {} {}", object["kind"], object["metadata"]["name"], object["spec"], object["data"])
    });
    lines.collect()
}

async fn sweep(step: &'static str, action: &FaultAction, again: bool) -> u64 {
    let request = || json!({"replicas": 2, "gpu_count": 1});
    let mut clean = Bench::new(request());
    clean.up_to(step).await;
    clean.begun(step);
    clean.run(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
    for call in 0..CALLS_MAX {
        let mut bench = Bench::new(request());
        bench.up_to(step).await;
        bench.begun(step);
        // Watches begin again by themselves, and the rollout does not hear of it.
        let fault = bench.sandbox.faults().add(Fault::new(action.clone()).skip(call).times(1));
        let result = bench.run(step).await;
        let fired = bench.sandbox.faults().list().iter().all(|active| active.fired > 0);
        bench.sandbox.faults().remove(fault);
        let at = format!("{step}, call {call}, {action:?}");
        match result {
            Ok(_) if !fired => return call,
            Ok(_) => {}
            Err(error) if !again => {
                assert_eq!(error.failure.class, ErrorClass::Permanent, "{at}: {error}");
                continue;
            }
            Err(error) => {
                assert_ne!(error.failure.class, ErrorClass::Permanent, "{at}: {error}");
                let applied = match error.failure.class {
                    ErrorClass::Unknown => matches!(bench.probe(step).await.expect("an answer"), Probe::Applied { .. }),
                    ErrorClass::Transient | ErrorClass::Permanent => false,
                };
                if !applied {
                    bench.run(step).await.unwrap_or_else(|error| panic!("{at}, again: {error}"));
                }
            }
        }
        let different: Vec<String> = world(&bench).symmetric_difference(&world(&clean)).cloned().collect();
        assert_eq!(different, Vec::<String>::new(), "{at}");
        let mut uids: Vec<String> = bench.effects();
        uids.retain(|effect| effect.starts_with("create") || effect.starts_with("apply"));
        let names: BTreeSet<&str> = uids.iter().filter_map(|effect| effect.split(' ').nth(1)).collect();
        let objects: BTreeSet<(&str, &str)> =
            uids.iter().filter_map(|effect| Some((effect.split(' ').nth(1)?, effect.split(' ').nth(2)?))).collect();
        assert_eq!(names.len(), objects.len(), "{at}: one object a name, one UID");
    }
    panic!("{step} never ends")
}

async fn sweep_all(step: &'static str, least: u64) {
    let mut swept = 0;
    for (action, again) in troubles() {
        swept += sweep(step, &action, again).await;
    }
    println!("{step}: {swept} calls went wrong, each in a run of its own");
    assert!(swept >= least, "only {swept} calls were swept");
}

macro_rules! whichever_call_goes_wrong_the_step_ends_with_its_one_effect {
    ($($step:ident: $calls:expr;)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $step() {
                sweep_all(stringify!($step), $calls * troubles().len() as u64).await;
            }
        )*
    };
}

// The calls of a clean run. Fewer than before is a failure: then the sweep does not sweep.
whichever_call_goes_wrong_the_step_ends_with_its_one_effect! {
    starting: 4;
    namespace_created: 1;
    gitlab_pulled: 0;
    k8s_applied: 16;
    resources_configured: 4;
    disk_configured: 6;
    gpu_configured: 2;
    rollout_completed: 9;
    tenant_synced: 0;
    completed: 11;
}
