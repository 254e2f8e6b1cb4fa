//! Faults as the engine meets them: late, refused, lost before and after, and pods in every kind of trouble (C8, C13).

use super::super::{Fault, FaultAction, PodTrouble};
use super::*;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus};
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_refused_call_is_not_executed_and_says_when_to_come_back() {
    let sandbox = with_namespace("a").await;
    let maps = api::<ConfigMap>(&sandbox);
    let status = FaultAction::Status { code: 429, retry_after: Some(7) };
    sandbox.faults().add(Fault::new(status).verb("apply").resource("ConfigMap").times(1));
    let status = refusal(apply(&maps, json!({"metadata": {"name": "m"}})).await.expect_err("refused"));
    assert_eq!((status.code, status.reason.as_str()), (429, "TooManyRequests"));
    assert_eq!(status.details.expect("details").retry_after_seconds, 7);
    assert!(maps.get_opt("m").await.expect("asked").is_none());
    apply(&maps, json!({"metadata": {"name": "m"}})).await.expect("the fault is spent");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_its_write_and_a_lost_call_does_not() {
    let sandbox = with_namespace("a").await;
    let maps = api::<ConfigMap>(&sandbox);
    for (action, is_there) in [(FaultAction::DropBefore, false), (FaultAction::DropAfter, true)] {
        let fault = sandbox.faults().add(Fault::new(action).verb("write").times(1));
        let error = apply(&maps, json!({"metadata": {"name": "m"}})).await.expect_err("lost");
        assert!(matches!(error, kube::Error::Service(_)), "{error:?}");
        assert_eq!(maps.get_opt("m").await.expect("asked").is_some(), is_there);
        assert!(sandbox.faults().remove(fault));
    }
    assert_eq!(sandbox.effects().iter().filter(|effect| effect.resource == "configmaps").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_never_answered_and_counts_once_it_was_executed() {
    let sandbox = with_namespace("a").await;
    let maps = api::<ConfigMap>(&sandbox);
    for (count, (action, is_there)) in (1..).zip([(FaultAction::HangBefore, false), (FaultAction::HangAfter, true)]) {
        let mut hung = sandbox.faults().hung();
        sandbox.faults().add(Fault::new(action).verb("write").times(1));
        tokio::select! {
            answer = apply(&maps, json!({"metadata": {"name": "m"}})) => panic!("it was answered: {answer:?}"),
            seen = hung.wait_for(|hung| *hung == count) => drop(seen.expect("the sandbox is there")),
        }
        assert_eq!(maps.get_opt("m").await.expect("asked").is_some(), is_there);
    }
}

#[tokio::test(start_paused = true)]
async fn latency_delays_a_call_by_the_clock() {
    let sandbox = with_namespace("a").await;
    sandbox.faults().add(Fault::latency(Duration::from_secs(90)));
    let start = tokio::time::Instant::now();
    Api::<Namespace>::all(sandbox.client()).get("a").await.expect("late");
    assert_eq!(start.elapsed().as_secs(), 90);
}

/// The status of the one container of `es-0`, some time after it was applied with that fault.
async fn in_trouble(fault: Fault) -> (Sandbox, Option<ContainerStatus>) {
    let sandbox = with_namespace("a").await;
    sandbox.faults().add(fault.namespace("a"));
    apply(&api::<StatefulSet>(&sandbox), stateful_set(1, "es:1", "Parallel")).await.expect("applied");
    settle().await;
    let pod = api::<Pod>(&sandbox).get_opt("es-0").await.expect("asked");
    let status = pod.and_then(|pod| pod.status).and_then(|status| status.container_statuses);
    (sandbox, status.and_then(|statuses| statuses.into_iter().next()))
}

#[tokio::test(start_paused = true)]
async fn pods_wait_for_the_reason_that_was_chosen_and_recover_when_the_fault_is_gone() {
    for (trouble, reason) in [
        (PodTrouble::ErrImagePull, "ErrImagePull"),
        (PodTrouble::ImagePullBackOff, "ImagePullBackOff"),
        (PodTrouble::InvalidImageName, "InvalidImageName"),
        (PodTrouble::CreateContainerConfigError, "CreateContainerConfigError"),
        (PodTrouble::CrashLoopBackOff, "CrashLoopBackOff"),
        (PodTrouble::OomKilled, "CrashLoopBackOff"),
    ] {
        let (sandbox, status) = in_trouble(Fault::pods(trouble)).await;
        let status = status.expect(reason);
        assert_eq!(
            status.state.and_then(|state| state.waiting).and_then(|waiting| waiting.reason).as_deref(),
            Some(reason)
        );
        sandbox.faults().clear();
        until(&api::<StatefulSet>(&sandbox), "es", set_is_rolled_out).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_out_of_memory_shows_its_end_and_its_restarts() {
    let (_sandbox, status) = in_trouble(Fault::pods(PodTrouble::OomKilled)).await;
    let status = status.expect("a status");
    let ended = status.last_state.and_then(|state| state.terminated).expect("ended");
    assert_eq!((ended.reason.as_deref(), ended.exit_code), (Some("OOMKilled"), 137));
    assert!(status.restart_count >= 3);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_no_node_takes_carries_the_schedulers_words() {
    let message = "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: }.";
    let action = FaultAction::Pods { trouble: PodTrouble::Unschedulable, message: Some(message.to_owned()) };
    let (sandbox, status) = in_trouble(Fault::new(action)).await;
    assert!(status.is_none());
    let pod = api::<Pod>(&sandbox).get("es-0").await.expect("there");
    let conditions = pod.status.expect("a status").conditions.expect("conditions");
    assert_eq!(
        (conditions[0].reason.as_deref(), conditions[0].message.as_deref()),
        (Some("Unschedulable"), Some(message))
    );
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_wants_more_gpus_than_there_are_waits_until_there_are() {
    let sandbox = with_namespace("a").await;
    let pods = api::<Pod>(&sandbox);
    let pod = |name: &str, gpus: i32| {
        json!({"metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "image": "x", "resources": {"limits": {"nvidia.com/gpu": gpus}}}]}})
    };
    apply(&pods, pod("one", 6)).await.expect("applied");
    apply(&pods, pod("two", 6)).await.expect("applied");
    settle().await;
    let conditions = pods.get("two").await.expect("there").status.expect("a status").conditions.expect("conditions");
    let message = conditions[0].message.as_deref().expect("words");
    assert!(message.starts_with("0/1 nodes are available: 1 Insufficient nvidia.com/gpu."), "{message}");
    pods.delete("one", &Default::default()).await.expect("deleted");
    until(&pods, "two", kube::runtime::conditions::is_pod_running()).await;
}

#[tokio::test(start_paused = true)]
async fn a_set_that_cannot_make_its_pods_tells_it_in_an_event() {
    let (sandbox, _) = in_trouble(Fault::pods(PodTrouble::FailedCreate)).await;
    assert!(pod_names(&sandbox).await.is_empty());
    let told = events(&sandbox, "FailedCreate").await;
    assert!(
        told[0].starts_with("create Pod es-0 in StatefulSet es failed error: pods \"es-0\" is forbidden"),
        "{told:?}"
    );
    sandbox.faults().clear();
    until(&api::<StatefulSet>(&sandbox), "es", set_is_rolled_out).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_probe_fails_runs_and_is_not_ready() {
    let (_sandbox, status) = in_trouble(Fault::pods(PodTrouble::NotReady)).await;
    let status = status.expect("a status");
    assert!(!status.ready && status.state.and_then(|state| state.running).is_some());
}
