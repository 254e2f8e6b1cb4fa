//! A journal for the tests of this program: a creation that succeeds after a retry and a probe, one that is rolled
//! back, one that is parked, one that runs; and the same as an export.

use cairn_engine::{
    Attempt, Commit, CommitNumber, Effect, ErrorClass, Fact, Failure, Hash, Json, OnFailure, Outcome, Output,
    ParkReason, Probe, Sequence, Submitted, Timestamp, WorkflowId,
    store::{Append, MemoryStore, Store},
};

/// 2026-01-01T00:00:00Z.
const BEGIN: i64 = 1_767_225_600_000_000;

/// The id of its first, second… workflow.
pub(crate) fn id(number: u8) -> WorkflowId {
    let mut bytes = *b"\x01\x97\xf3\xa2\x7c\x1e\x7b\xd0\xa5\xf3\x2a\x4c\x9e\x6d\x1b\x70";
    bytes[3] = number;
    WorkflowId::from_bytes(bytes)
}

/// So long after its beginning.
pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_micros(BEGIN + millis * 1_000)
}

/// The journal's commits.
pub(crate) fn journal() -> Vec<Commit> {
    let store = MemoryStore::new();
    fill(&store);
    store.commits(CommitNumber(0), usize::MAX).expect("memory does not fail")
}

/// Appends the journal's workflows to an empty store.
pub(crate) fn fill(store: &dyn Store) {
    let mut sequences = std::collections::BTreeMap::new();
    for (millis, workflow, facts) in appends() {
        let expected = sequences.entry(workflow).or_insert(Sequence(0));
        let length = facts.len() as u64;
        let append =
            Append { workflow: id(workflow), expected: *expected, token: store.token(), facts, quota: [].into() };
        store.commit(vec![append], at(millis)).expect("it is written").remove(0).expect("it may follow");
        *expected = Sequence(expected.0 + length);
    }
}

/// These commits as an export has them, a line each.
pub(crate) fn export(commits: &[Commit]) -> Vec<String> {
    commits.iter().map(|commit| serde_json::to_string(commit).expect("a commit is JSON")).collect()
}

fn appends() -> Vec<(i64, u8, Vec<Fact>)> {
    [succeeding(), rolled_back(), parked(), running()].concat()
}

fn succeeding() -> Vec<(i64, u8, Vec<Fact>)> {
    let (one, two) = (Attempt(1), Attempt(2));
    let applied = Probe::Applied { output: output("settings at 4f1c2d are there") };
    vec![
        (0, 1, vec![submitted("search", OnFailure::Rollback)]),
        (2, 1, vec![started("starting", one)]),
        (43, 1, vec![succeeded("starting", one, "cluster answers"), started("namespace_created", one)]),
        (
            5_043,
            1,
            vec![Fact::AttemptFailed {
                step: "namespace_created".into(),
                attempt: one,
                error: failure(ErrorClass::Transient, "the cluster answered 503"),
                retry_at: Some(at(5_500)),
            }],
        ),
        (5_501, 1, vec![started("namespace_created", two)]),
        (5_540, 1, vec![succeeded("namespace_created", two, "namespace acme--search"), started("gitlab_pulled", one)]),
        (9_000, 1, vec![Fact::Probed { step: "gitlab_pulled".into(), attempt: one, answer: applied, retry_at: None }]),
        (9_001, 1, vec![succeeded("gitlab_pulled", one, "settings at 4f1c2d"), finished(Outcome::Succeeded)]),
    ]
}

fn rolled_back() -> Vec<(i64, u8, Vec<Fact>)> {
    let one = Attempt(1);
    vec![
        (20_000, 2, vec![submitted("logs", OnFailure::Rollback)]),
        (20_001, 2, vec![started("starting", one)]),
        (20_002, 2, vec![succeeded("starting", one, "cluster answers"), started("namespace_created", one)]),
        (
            20_100,
            2,
            vec![Fact::AttemptFailed {
                step: "namespace_created".into(),
                attempt: one,
                error: Failure {
                    evidence: vec!["namespace acme--logs: app.kubernetes.io/managed-by=\u{1b}[31mhelm".to_owned()],
                    ..failure(ErrorClass::Permanent, "namespace acme--logs belongs to helm")
                },
                retry_at: None,
            }],
        ),
        (
            20_110,
            2,
            vec![Fact::Probed {
                step: "namespace_created".into(),
                attempt: one,
                answer: Probe::NotApplied,
                retry_at: None,
            }],
        ),
        (20_120, 2, vec![Fact::CompensationStarted { step: "namespace_created".into(), attempt: one }]),
        (
            20_150,
            2,
            vec![
                Fact::CompensationSucceeded {
                    step: "namespace_created".into(),
                    attempt: one,
                    message: "nothing of ours".to_owned(),
                },
                Fact::CompensationStarted { step: "starting".into(), attempt: one },
            ],
        ),
        (
            20_160,
            2,
            vec![Fact::CompensationSucceeded {
                step: "starting".into(),
                attempt: one,
                message: "nothing to do".to_owned(),
            }],
        ),
        (20_200, 2, vec![finished(Outcome::Failed)]),
    ]
}

fn parked() -> Vec<(i64, u8, Vec<Fact>)> {
    let one = Attempt(1);
    vec![
        (30_000, 3, vec![submitted("traces", OnFailure::Keep)]),
        (30_001, 3, vec![started("starting", one)]),
        (
            30_050,
            3,
            vec![
                Fact::AttemptFailed {
                    step: "starting".into(),
                    attempt: one,
                    error: failure(ErrorClass::Permanent, "storage class fast is not there"),
                    retry_at: None,
                },
                Fact::Parked { reason: ParkReason::Kept },
            ],
        ),
    ]
}

fn running() -> Vec<(i64, u8, Vec<Fact>)> {
    vec![
        (40_000, 4, vec![submitted("metrics", OnFailure::Rollback)]),
        (40_001, 4, vec![started("starting", Attempt(1))]),
    ]
}

fn submitted(service: &str, on_failure: OnFailure) -> Fact {
    let input = format!(r#"{{"user":"acme","service_name":"{service}"}}"#);
    Fact::Submitted(Submitted {
        definition: "create".into(),
        version: 1,
        fingerprint: Hash([7; 32]),
        steps: ["starting", "namespace_created", "gitlab_pulled"].map(Into::into).to_vec(),
        effect: Effect::Create,
        tenant: "acme".into(),
        service: service.into(),
        input: Json::parse(input.as_bytes()).expect("it is JSON"),
        key: None,
        body_hash: Hash([8; 32]),
        who: "local".into(),
        holds: [].into(),
        on_failure,
    })
}

fn started(step: &str, attempt: Attempt) -> Fact {
    Fact::AttemptStarted { step: step.into(), attempt }
}

fn succeeded(step: &str, attempt: Attempt, message: &str) -> Fact {
    Fact::AttemptSucceeded { step: step.into(), attempt, output: output(message) }
}

fn finished(outcome: Outcome) -> Fact {
    Fact::Finished { outcome, residue: Vec::new() }
}

fn output(message: &str) -> Output {
    Output::new(message, &serde_json::json!({ "shown": message, "share": 1.50 })).expect("small")
}

fn failure(class: ErrorClass, message: &str) -> Failure {
    Failure { class, message: message.to_owned(), evidence: Vec::new() }
}
