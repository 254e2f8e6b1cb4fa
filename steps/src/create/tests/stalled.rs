//! Rollouts whose watches stall. Once a first list had arrived, nobody noticed that no news came any more: the mirror stayed as
//! it was, every rollout reached its deadline, and clusters that were ready were rolled back.

use std::time::Duration;

use cairn_engine::{ErrorClass, Output, StepError};
use serde_json::json;
use tokio::time::Instant;

use super::bench::Bench;
use crate::sandbox::{Fault, FaultAction, PodTrouble};

async fn before_the_rollout() -> Bench {
    let mut bench = Bench::new(json!({"replicas": 2}));
    bench.up_to("rollout_completed").await;
    bench
}

/// The rollout's result, and how long it took.
async fn rollout(bench: &Bench) -> (Result<Output, StepError>, Duration) {
    let started = Instant::now();
    (bench.run("rollout_completed").await, started.elapsed())
}

#[tokio::test(start_paused = true)]
async fn ready_pods_behind_a_broken_watch_are_found_by_asking() {
    let bench = before_the_rollout().await;
    // The first lists arrive, and then nothing.
    bench.sandbox.faults().add(Fault::status(500).verb("watch"));
    let (result, took) = rollout(&bench).await;
    assert_eq!(result.expect("rolled out").message, "ready: elasticsearch 2/2, kibana 1/1");
    assert!(took < Duration::from_secs(61), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn ready_pods_behind_a_silent_watch_are_found_at_the_deadline() {
    let bench = before_the_rollout().await;
    bench.sandbox.faults().add(Fault::latency(Duration::from_secs(3600)).verb("watch"));
    let (result, took) = rollout(&bench).await;
    assert_eq!(result.expect("rolled out").message, "ready: elasticsearch 2/2, kibana 1/1");
    assert_eq!(took.as_secs(), 600);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_at_which_nobody_can_be_asked_is_not_the_end() {
    let bench = before_the_rollout().await;
    bench.sandbox.faults().add(Fault::status(500).verb("watch"));
    // The first one is before the apply.
    bench.sandbox.faults().add(Fault::status(503).verb("get").resource("deployments").skip(1));
    let (result, took) = rollout(&bench).await;
    let error = result.expect_err("nobody knows");
    assert_eq!(error.failure.class, ErrorClass::Transient, "{error}");
    assert_eq!(took.as_secs(), 600);
}

#[tokio::test(start_paused = true)]
async fn trouble_that_has_passed_behind_a_broken_watch_fails_nothing() {
    for trouble in [PodTrouble::CreateContainerConfigError, PodTrouble::Unschedulable] {
        let bench = before_the_rollout().await;
        let troubled = bench.sandbox.faults().add(Fault::pods(trouble));
        let ends = async {
            tokio::time::sleep(Duration::from_secs(10)).await;
            bench.sandbox.faults().add(Fault::new(FaultAction::WatchBreak { after_events: 0 }).verb("watch"));
            bench.sandbox.faults().add(Fault::status(500).verb("watch"));
            tokio::time::sleep(Duration::from_secs(10)).await;
            bench.sandbox.faults().remove(troubled);
        };
        let ((result, took), ()) = tokio::join!(rollout(&bench), ends);
        let output = result.unwrap_or_else(|error| panic!("{trouble:?}: {error} after {took:?}"));
        assert_eq!(output.message, "ready: elasticsearch 2/2, kibana 1/1", "{trouble:?}");
    }
}
