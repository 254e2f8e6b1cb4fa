//! What goes into one commit.

use super::*;
use crate::{
    fact::{Effect, ErrorClass, Failure, Outcome, Output},
    ids::{Attempt, FencingToken, Json, Sequence, StepName},
    store::tests::samples::{id, submitted},
};

/// A request of a workflow of this number, with an input of so many bytes.
fn request(number: u64, bytes: usize) -> Request {
    let mut submission = submitted(Effect::Create, "alice", "search");
    submission.input = Json::of(&"x".repeat(bytes)).expect("it is short enough");
    let append = Append {
        workflow: id(number),
        expected: Sequence(0),
        token: FencingToken(1),
        facts: vec![Fact::Submitted(submission)],
        quota: crate::fact::Amounts::new(),
    };
    Request { append, reply: Box::new(|_| {}) }
}

fn numbers(group: &[Request]) -> Vec<u64> {
    let number = |request: &Request| (1..10_000).find(|number| id(*number) == request.append.workflow);
    group.iter().filter_map(number).collect()
}

#[test]
fn workflows_that_run_go_before_what_clients_ask_for_and_all_that_waits_goes_together() {
    let mut waiting = Waiting::default();
    waiting.clients.extend([request(1, 10), request(2, 10)]);
    assert!(!waiting.is_empty(), "a client waits");
    waiting.urgent.extend([request(3, 10), request(4, 10)]);
    assert_eq!(numbers(&waiting.group()), [3, 4, 1, 2]);
    assert!(waiting.is_empty() && waiting.group().is_empty());
}

#[test]
fn a_group_is_bounded_in_number_and_in_bytes_and_leaves_nothing_out() {
    let mut waiting = Waiting::default();
    waiting.clients.extend((1..=2_000).map(|number| request(number, 10)));
    let groups = [waiting.group(), waiting.group(), waiting.group()];
    assert_eq!(groups.each_ref().map(Vec::len), [1_024, 976, 0]);

    let large = 60_000;
    waiting.clients.extend((1..=100).map(|number| request(number, large)));
    let (first, second) = (waiting.group(), waiting.group());
    let bytes = |group: &[Request]| group.iter().map(|request| size(&request.append)).sum::<usize>();
    assert!(bytes(&first) <= 4 << 20 && bytes(&first) + bytes(&second[..1]) > 4 << 20, "as much as goes, and no more");
    assert_eq!([numbers(&first), numbers(&second)].concat(), (1..=100).collect::<Vec<u64>>());
}

#[test]
fn an_append_that_is_larger_than_a_group_may_be_goes_alone() {
    let mut huge = request(2, 250_000);
    huge.append.facts = vec![huge.append.facts[0].clone(); 18];
    let mut waiting = Waiting::default();
    waiting.clients.extend([request(1, 10), huge, request(3, 10)]);
    let groups = [waiting.group(), waiting.group(), waiting.group()];
    assert_eq!(groups.each_ref().map(|group| numbers(group)), [[1], [2], [3]]);
}

/// What weighs nothing would make groups of any size.
#[test]
fn every_text_that_a_fact_brings_weighs_what_it_is_long() {
    let text = |bytes: usize| "x".repeat(bytes);
    let json = |bytes: usize| Json::of(&text(bytes)).expect("it is short enough");
    let output = Output { message: text(1_000), skipped: false, result: json(1_000), record: Some(json(1_000)) };
    let error = Failure { class: ErrorClass::Transient, message: text(1_000), evidence: vec![text(1_000); 2] };
    let (step, attempt, retry_at) = (StepName::new("one"), Attempt(1), None);
    let probed = |answer| Fact::Probed { step: step.clone(), attempt, answer, retry_at };
    let left = vec![text(1_500); 2];
    let facts = [
        Fact::AttemptSucceeded { step: step.clone(), attempt, output: output.clone() },
        probed(Probe::Applied { output }),
        probed(Probe::Partly { made: json(3_000) }),
        Fact::AttemptFailed { step: step.clone(), attempt, error: error.clone(), retry_at },
        Fact::ProbeFailed { step: step.clone(), attempt, error: error.clone(), retry_at },
        Fact::CompensationFailed { step: step.clone(), attempt, error: error.clone(), retry_at },
        Fact::ResidueCheckFailed { attempt, error, retry_at },
        Fact::Parked { reason: ParkReason::Residue { left: left.clone() } },
        Fact::Finished { outcome: Outcome::Failed, residue: left },
    ];
    for fact in facts {
        let mut append = request(1, 10).append;
        append.facts = vec![fact.clone()];
        assert!((3_000..3_500).contains(&size(&append)), "{} for {fact:?}", size(&append));
    }
}

#[test]
fn what_stops_the_journal_is_told_with_its_causes() {
    let source = std::io::Error::other("no space left");
    let error = StoreError::Io { action: "write", path: "log/000001.log".into(), source };
    let told = error_text(&error);
    assert!(told.contains("log/000001.log") && told.contains("no space left"), "{told}");
}
