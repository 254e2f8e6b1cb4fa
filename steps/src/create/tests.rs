//! Every step on the sandbox: run twice, probed before and after, compensated twice, compensated without ever having run, with
//! each of its calls going wrong in turn, and among other people's objects.

mod adoption;
pub(crate) mod bench;
mod faults;
mod health;
mod overlay;
mod rollback;
mod secret;
mod stalled;
mod steps;
mod stuck;

use cairn_engine::{ErrorClass, Probe};
use serde_json::json;

use self::bench::{Bench, made};
use super::STEPS;

/// The steps that leave something in the cluster.
const EFFECTIVE: [&str; 6] = [
    "namespace_created",
    "k8s_applied",
    "resources_configured",
    "disk_configured",
    "gpu_configured",
    "rollout_completed",
];

fn full() -> serde_json::Value {
    json!({"replicas": 2, "gpu_count": 1})
}

#[tokio::test(start_paused = true)]
async fn a_creation_runs_through_and_leaves_what_was_asked_for() {
    let mut bench = Bench::new(full());
    bench.up_to("").await;
    let mut residue = bench.residue().await;
    residue.sort();
    assert_eq!(residue.len(), 11, "{residue:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_step_run_twice_has_one_effect() {
    for step in STEPS {
        let mut bench = Bench::new(full());
        bench.up_to(step).await;
        bench.begun(step);
        let first = bench.run(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        let effects = bench.effects();
        let second = bench.run(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        assert_eq!(second.result, first.result, "{step}");
        // The rollout takes the bootstrap list out at its end, and a second run does not put it back.
        assert_eq!(bench.effects(), effects, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_sees_nothing_before_and_everything_after() {
    for step in EFFECTIVE {
        let mut bench = Bench::new(full());
        bench.up_to(step).await;
        bench.begun(step);
        let before = bench.probe(step).await.expect("an answer");
        assert_eq!(before, Probe::NotApplied, "{step}");
        let output = bench.run(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        assert_eq!(bench.probe(step).await.expect("an answer"), Probe::Applied { output }, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_compensated_without_ever_having_run_changes_nothing() {
    for step in STEPS {
        let mut bench = Bench::new(full());
        bench.up_to(step).await;
        let effects = bench.effects();
        bench.compensate(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        assert_eq!(bench.effects(), effects, "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_from_any_step_leaves_nothing_and_may_be_repeated() {
    for step in STEPS {
        let mut bench = Bench::new(full());
        bench.up_to(step).await;
        bench.begun(step);
        let output = bench.run(step).await.unwrap_or_else(|error| panic!("{step}: {error}"));
        bench.succeeded(step, output);
        bench.roll_back_from(step).await;
        assert_eq!(bench.residue().await, Vec::<String>::new(), "{step}");
        let effects = bench.effects();
        bench.roll_back_from(step).await;
        assert_eq!(bench.effects(), effects, "{step}");
        assert_eq!(bench.things(), Vec::<serde_json::Value>::new(), "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_left_half_done_is_found_and_taken_back() {
    for (step, call) in [("namespace_created", "create"), ("k8s_applied", "apply"), ("disk_configured", "apply")] {
        let mut bench = Bench::new(full());
        bench.up_to(step).await;
        bench.begun(step);
        let lost = crate::sandbox::Fault::new(crate::sandbox::FaultAction::DropAfter).verb(call).times(1);
        bench.sandbox.faults().add(lost);
        let error = bench.run(step).await.expect_err("the answer is lost");
        assert_eq!(error.failure.class, ErrorClass::Unknown, "{step}: {error}");
        let answer = bench.probe(step).await.expect("an answer");
        assert!(matches!(answer, Probe::Applied { .. } | Probe::Partly { .. }), "{step}: {answer:?}");
        bench.probed(step, answer);
        bench.roll_back_from(step).await;
        assert_eq!(bench.residue().await, Vec::<String>::new(), "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_uids_in_the_journal_are_those_in_the_cluster() {
    let mut bench = Bench::new(full());
    bench.up_to("k8s_applied").await;
    bench.begun("k8s_applied");
    let output = bench.run("k8s_applied").await.expect("applied");
    assert_eq!(output.message, "applied 8 objects");
    let uids: Vec<String> =
        bench.sandbox.objects().iter().map(|object| object["metadata"]["uid"].to_string()).collect();
    for one in made(&output) {
        assert!(uids.contains(&format!("\"{}\"", one.uid)), "{one:?}");
    }
}
