//! The oracle judged: it accepts a good world, and finds each fault that is planted in it.

use cairn_engine::{
    Attempt, CommitNumber, DefinitionName, Effect, ErrorClass, Failure, FencingToken, Hash, OnFailure, Output, Probe,
    Sequence, Timestamp,
};
use cairn_steps::{report::STATUSES, request::Request};
use serde_json::json;

use super::*;

/// A journal with a commit for each fact; `token` of each is given.
fn journal(facts: Vec<(u64, Fact)>) -> Vec<Commit> {
    let workflow = WorkflowId::from_bytes([7; 16]);
    let mut previous = Hash::default();
    facts
        .into_iter()
        .enumerate()
        .map(|(place, (token, fact))| {
            let number = place as u64 + 1;
            let time = Timestamp::from_micros(1_000_000 * i64::try_from(number).expect("small"));
            let hash = Hash([u8::try_from(number).expect("few"); 32]);
            let token = FencingToken(token);
            let entry = Entry { workflow, sequence: Sequence(number), token, time, previous, fact, hash };
            let commit = Commit { number: CommitNumber(number), token, time, previous, hash, entries: vec![entry] };
            previous = hash;
            commit
        })
        .collect()
}

fn submitted() -> Fact {
    let request = Request::parse(br#"{"user":"acme","service_name":"search"}"#).expect("the least there is");
    Fact::Submitted(Submitted {
        definition: DefinitionName::new("create"),
        version: 1,
        fingerprint: Hash::default(),
        steps: STATUSES.iter().map(|step| (*step).into()).collect(),
        effect: Effect::Create,
        tenant: "acme".into(),
        service: "search".into(),
        input: Json::parse(&request.to_json()).expect("small"),
        key: None,
        body_hash: Hash::default(),
        who: "somebody".into(),
        holds: [("clusters".into(), 1)].into(),
        on_failure: OnFailure::Rollback,
    })
}

fn started(step: &str) -> Fact {
    Fact::AttemptStarted { step: step.into(), attempt: Attempt(1) }
}

fn succeeded(step: &str) -> Fact {
    let output = Output::new("done", &json!({})).expect("small");
    Fact::AttemptSucceeded { step: step.into(), attempt: Attempt(1), output }
}

fn failed(step: &str, class: ErrorClass) -> Fact {
    let error = Failure { class, message: "no".to_owned(), evidence: Vec::new() };
    Fact::AttemptFailed { step: step.into(), attempt: Attempt(1), error, retry_at: None }
}

fn compensated(step: &str) -> [Fact; 2] {
    let message = "taken back".to_owned();
    [
        Fact::CompensationStarted { step: step.into(), attempt: Attempt(1) },
        Fact::CompensationSucceeded { step: step.into(), attempt: Attempt(1), message },
    ]
}

fn finished(outcome: Outcome) -> Fact {
    Fact::Finished { outcome, residue: Vec::new() }
}

fn success() -> Vec<(u64, Fact)> {
    let steps = STATUSES.iter().flat_map(|step| [started(step), succeeded(step)]);
    let all = std::iter::once(submitted()).chain(steps).chain([finished(Outcome::Succeeded)]);
    all.map(|fact| (1, fact)).collect()
}

fn failure() -> Vec<(u64, Fact)> {
    let probed = Fact::Probed {
        step: "namespace_created".into(),
        attempt: Attempt(1),
        answer: Probe::NotApplied,
        retry_at: None,
    };
    let mut facts = vec![submitted(), started("starting"), succeeded("starting"), started("namespace_created")];
    facts.extend([failed("namespace_created", ErrorClass::Permanent), probed]);
    facts.extend(compensated("namespace_created"));
    facts.extend(compensated("starting"));
    facts.push(finished(Outcome::Failed));
    facts.into_iter().map(|fact| (1, fact)).collect()
}

fn broken(facts: Vec<(u64, Fact)>) -> Vec<&'static str> {
    let evidence = Evidence { commits: journal(facts), at_rest: true, ..Evidence::default() };
    let mut found: Vec<_> = check(&evidence).iter().map(|violation| violation.invariant).collect();
    found.dedup();
    found
}

#[test]
fn a_success_and_a_rollback_break_nothing() {
    assert_eq!(broken(success()), [""; 0]);
    assert_eq!(broken(failure()), [""; 0]);
}

#[test]
fn a_step_that_runs_again_after_it_succeeded_is_found() {
    let mut facts = success();
    facts.insert(3, (1, started("starting")));
    assert!(broken(facts).contains(&"I7"));
}

#[test]
fn a_step_that_is_left_out_is_found() {
    let mut facts = success();
    facts.drain(3..5);
    let found = broken(facts);
    assert!(found.contains(&"I8") && found.contains(&"I9"), "{found:?}");
}

#[test]
fn an_attempt_of_an_earlier_life_that_nobody_probed_is_found() {
    let mut facts = success();
    facts[2..].iter_mut().for_each(|(token, _)| *token = 2);
    assert!(broken(facts).contains(&"I10"));
}

#[test]
fn a_rollback_in_the_wrong_order_or_without_a_step_is_found() {
    let mut facts = failure();
    facts.swap(6, 8);
    facts.swap(7, 9);
    assert!(broken(facts).contains(&"I13"));
    let mut facts = failure();
    facts.drain(8..10);
    assert!(broken(facts).contains(&"I13"));
}

#[test]
fn a_compensation_of_what_nobody_knows_is_found() {
    let mut facts = failure();
    facts[4].1 = failed("namespace_created", ErrorClass::Unknown);
    facts.remove(5);
    assert!(broken(facts).contains(&"I10"));
}

#[test]
fn an_entry_after_the_end_and_a_workflow_that_does_not_end_are_found() {
    let mut facts = success();
    facts.push((1, started("starting")));
    assert!(broken(facts).contains(&"I16"));
    let mut facts = success();
    facts.pop();
    assert!(broken(facts).contains(&"I17"));
}

#[test]
fn a_token_that_goes_back_and_a_missing_commit_are_found() {
    let mut facts = success();
    facts[3].0 = 2;
    assert!(broken(facts).contains(&"I6"));
    let mut commits = journal(success());
    commits.remove(4);
    let found = check(&Evidence { commits, ..Evidence::default() });
    assert!(found.iter().any(|violation| violation.invariant == "I4"));
}

#[test]
fn an_acknowledged_submission_that_is_missing_is_found() {
    let told = Told::Accepted {
        workflow: WorkflowId::from_bytes([9; 16]),
        tenant: "acme".to_owned(),
        service: "search".to_owned(),
        input: None,
    };
    let evidence = Evidence { commits: journal(success()), told: vec![told], ..Evidence::default() };
    assert_eq!(check(&evidence)[0].invariant, "I1");
}

#[test]
fn what_a_rollback_left_and_what_a_success_lacks_is_found() {
    let workflow = WorkflowId::from_bytes([7; 16]).to_string();
    let namespace = json!({ "kind": "Namespace", "metadata": { "name": "acme--search", "uid": "1",
        "annotations": { "cairn.dev/workflow": workflow } } });
    let world = |facts| Evidence { commits: journal(facts), objects: vec![namespace.clone()], ..Evidence::default() };
    assert_eq!(check(&world(failure()))[0].invariant, "I14");
    let found = check(&world(success()));
    assert!(found.iter().all(|violation| violation.invariant == "I9") && found.len() > 5, "{found:?}");
}

#[test]
fn a_write_before_its_entry_or_after_the_end_is_found() {
    let call =
        |path: &str| Event::Called(crate::life::Call { life: 1, method: "PATCH".to_owned(), path: path.to_owned() });
    let path = "/api/v1/namespaces/acme--search";
    let commits = journal(failure());
    let tape: Vec<Event> = commits.iter().cloned().map(Event::Committed).collect();
    let with = |place: usize| {
        let mut tape = tape.clone();
        tape.insert(place, call(path));
        check(&Evidence { commits: commits.clone(), tape, ..Evidence::default() })
    };
    assert!(with(4).is_empty(), "while namespace_created runs");
    assert_eq!(with(0)[0].invariant, "I3");
    assert_eq!(with(3)[0].invariant, "I3");
    assert_eq!(with(commits.len())[0].invariant, "I16");
}

#[test]
fn a_write_to_what_is_somebody_elses_and_an_object_made_twice_are_found() {
    let workflow = WorkflowId::from_bytes([7; 16]).to_string();
    let write = |workflow: Option<&str>, uid: &str| Write {
        verb: "apply".to_owned(),
        kind: "Namespace".to_owned(),
        namespace: String::new(),
        name: "acme--search".to_owned(),
        uid: uid.to_owned(),
        workflow: workflow.map(str::to_owned),
        made_it: true,
        at_micros: None,
    };
    let judged = |writes| check(&Evidence { commits: journal(failure()), writes, ..Evidence::default() });
    assert_eq!(judged(vec![write(None, "1")])[0].invariant, "I15");
    assert_eq!(judged(vec![write(Some(&workflow), "1"), write(Some(&workflow), "2")])[0].invariant, "I9");
}

#[test]
fn a_quota_that_is_exceeded_or_freed_twice_is_found() {
    let quota: Amounts = [("clusters".into(), 0)].into();
    let evidence = Evidence { commits: journal(success()), quota, ..Evidence::default() };
    assert!(check(&evidence).iter().any(|violation| violation.invariant == "I22"));
    let usage = BTreeMap::from([("acme".into(), Amounts::new())]);
    let evidence = Evidence { commits: journal(success()), usage, ..Evidence::default() };
    assert_eq!(check(&evidence)[0].invariant, "I22");
}
