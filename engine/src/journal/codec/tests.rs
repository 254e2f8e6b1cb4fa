//! What was ever written decodes, for ever, to what it meant; and what is no commit never does.
//!
//! `tests/samples/v1` holds a line a commit: its bytes, and the same as JSON. With `CAIRN_WRITE_SAMPLES` set, a sample
//! that is missing is written; one that is there is never changed.

use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf};

use proptest::prelude::*;

use super::*;
use crate::{
    fact::{Effect, ErrorClass, Failure, OnFailure, Outcome, Output, ParkReason, Probe, Submitted},
    ids::{Attempt, Json},
};

fn samples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/samples/v1")
}

fn json(text: &str) -> Json {
    Json::parse(text.as_bytes()).expect("it is JSON")
}

/// Every fact, in every shape that its layout tells apart.
fn facts() -> Vec<Fact> {
    let (step, attempt) = (|| "k8s_applied".into(), Attempt(2));
    let output = |record| Output {
        message: "applied 5 objects — done".to_owned(),
        skipped: false,
        result: json(r#"{"z":1.50,"objects":["StatefulSet/elasticsearch"],"n":12345678901234567890123}"#),
        record,
    };
    let failure = |class| Failure {
        class,
        message: "storage class fast does not exist".to_owned(),
        evidence: vec!["event one".to_owned(), String::new()],
    };
    let later = Some(Timestamp::from_micros(1_767_225_600_000_001));
    let who = || "alice@example.com".into();
    let submitted = Submitted {
        definition: "create".into(),
        version: 3,
        fingerprint: Hash([0xab; 32]),
        steps: vec!["starting".into(), "k8s_applied".into()],
        effect: Effect::Create,
        tenant: "acme".into(),
        service: "search".into(),
        input: json(r#"{"user":"acme","service_name":"search"}"#),
        key: Some("9f1c".into()),
        body_hash: Hash([0xcd; 32]),
        who: who(),
        holds: BTreeMap::from([("clusters".into(), 1), ("memory_bytes".into(), u64::MAX)]),
        on_failure: OnFailure::Rollback,
    };
    let mut facts = vec![
        Fact::Submitted(submitted.clone()),
        Fact::AttemptStarted { step: step(), attempt },
        Fact::AttemptSucceeded { step: step(), attempt, output: output(None) },
        Fact::AttemptSucceeded { step: step(), attempt, output: output(Some(json(r#"{"endpoint":"es:9200"}"#))) },
        Fact::AttemptSucceeded { step: step(), attempt, output: Output::skipped("no URL") },
        Fact::CompensationStarted { step: step(), attempt },
        Fact::CompensationSucceeded { step: step(), attempt, message: "deleted 5 objects".to_owned() },
        Fact::CancelRequested { who: who(), force: false },
        Fact::CancelRequested { who: who(), force: true },
        Fact::Paused { who: who() },
        Fact::Resumed { who: who() },
        Fact::RetryRequested { who: who() },
    ];
    for (effect, on_failure) in [(Effect::Update, OnFailure::Keep), (Effect::Delete, OnFailure::Rollback)] {
        let other = Submitted { effect, on_failure, key: None, holds: BTreeMap::new(), ..submitted.clone() };
        facts.push(Fact::Submitted(other));
    }
    for class in [ErrorClass::Transient, ErrorClass::Permanent, ErrorClass::Unknown] {
        let (error, retry_at) = (failure(class), later.filter(|_| class != ErrorClass::Permanent));
        facts.push(Fact::AttemptFailed { step: step(), attempt, error: error.clone(), retry_at });
        facts.push(Fact::ProbeFailed { step: step(), attempt, error: error.clone(), retry_at });
        facts.push(Fact::CompensationFailed { step: step(), attempt, error: error.clone(), retry_at });
        facts.push(Fact::ResidueCheckFailed { attempt, error, retry_at });
    }
    for answer in [
        Probe::Applied { output: output(None) },
        Probe::NotApplied,
        Probe::Partly { made: json(r#"["uid"]"#) },
        Probe::Foreign { detail: "it is another team's".to_owned() },
    ] {
        facts.push(Fact::Probed { step: step(), attempt, answer, retry_at: later });
    }
    for reason in [
        ParkReason::Kept,
        ParkReason::ProbeFailing,
        ParkReason::CompensationFailing,
        ParkReason::Residue { left: vec!["PersistentVolumeClaim/data-0".to_owned()] },
        ParkReason::UnknownDefinition { detail: "create 9".to_owned() },
        ParkReason::Unrecoverable { detail: "entry 4".to_owned() },
    ] {
        facts.push(Fact::Parked { reason });
    }
    for outcome in [Outcome::Succeeded, Outcome::Failed, Outcome::Cancelled] {
        facts.push(Fact::Finished { outcome, residue: vec!["Namespace/acme--search".to_owned()] });
    }
    facts
}

/// One commit a fact, and a last one that holds all in two appends. They need not be a legal workflow.
fn commits() -> Vec<Vec<u8>> {
    let workflow = WorkflowId::from_bytes([0x01; 16]);
    let (token, time) = (FencingToken(7), Timestamp::from_micros(1_767_225_600_000_000));
    let facts: Vec<Vec<u8>> = facts().iter().map(|fact| encode_fact(fact).expect("it fits")).collect();
    let mut previous = Hash::default();
    let mut payloads = Vec::new();
    let mut seal = |appends: &[Vec<u8>]| {
        let number = CommitNumber(payloads.len() as u64 + 1);
        let entries = appends.iter().flat_map(|append| decode_append(append, token, time).expect("encoded just now"));
        let hashes: Vec<Hash> = entries.map(|entry| entry.hash).collect();
        let hash = chain::commit_hash(number, token, time, previous, &hashes);
        let header = Header { number, token, time, hash };
        payloads.push(encode_commit(&header, appends.iter().map(Vec::as_slice)));
        previous = hash;
    };
    seal(&[]);
    for (sequence, fact) in (1..).zip(&facts) {
        seal(&[encode_append(workflow, Sequence(sequence), Hash([sequence as u8; 32]), std::slice::from_ref(fact))]);
    }
    let (one, two) = facts.split_at(facts.len() / 2);
    seal(&[
        encode_append(workflow, Sequence(1), Hash::default(), one),
        encode_append(WorkflowId::from_bytes([0x02; 16]), Sequence(300), Hash([5; 32]), two),
    ]);
    payloads
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes it");
        text
    })
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("it is hex")).collect()
}

#[test]
fn the_stored_samples_of_version_one_decode_to_what_they_meant_and_encode_to_the_same_bytes() {
    let (bytes, meant) = (samples().join("commits.hex"), samples().join("commits.ndjson"));
    if !bytes.exists() && std::env::var_os("CAIRN_WRITE_SAMPLES").is_some() {
        let payloads = commits();
        let mut lines = (String::new(), String::new());
        let mut previous = Hash::default();
        for payload in &payloads {
            let commit = decode_commit(payload, previous).expect("encoded just now");
            previous = commit.hash;
            lines.0 += &format!("{}\n", to_hex(payload));
            lines.1 += &format!("{}\n", serde_json::to_string(&commit).expect("it is JSON"));
        }
        fs::create_dir_all(samples()).expect("it can be made");
        fs::write(&bytes, lines.0).expect("it takes a write");
        fs::write(&meant, lines.1).expect("it takes a write");
    }
    let bytes = fs::read_to_string(bytes).expect("the samples are in the repository");
    let meant = fs::read_to_string(meant).expect("the samples are in the repository");
    let mut previous = Hash::default();
    let mut read = 0;
    for (bytes, meant) in bytes.lines().zip(meant.lines()) {
        let payload = from_hex(bytes);
        let commit = decode_commit(&payload, previous).expect("it was written once");
        let expected: Commit = serde_json::from_str(meant).expect("it is a commit");
        assert_eq!(commit, expected);
        for entry in &expected.entries {
            let fact = encode_fact(&entry.fact).expect("it fits");
            let Entry { workflow, sequence, token, time, previous, hash, .. } = *entry;
            assert_eq!(chain::entry_hash(workflow, sequence, token, time, previous, 1, &fact), hash);
        }
        previous = commit.hash;
        read += 1;
    }
    assert_eq!(read, meant.lines().count());
    // Every fact that there is now is among them.
    let all = commits();
    assert!(all.iter().map(|payload| to_hex(payload)).eq(bytes.lines()), "a new fact needs a new sample");
}

#[test]
fn every_flipped_bit_of_a_commit_is_noticed() {
    let payload = commits().pop().expect("there is one");
    let previous = commits().len();
    let hash = decode_header(&commits()[previous - 2]).expect("it is a header").hash;
    decode_commit(&payload, hash).expect("it is good");
    for bit in (0..payload.len() * 8).step_by(3) {
        let mut bad = payload.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_commit(&bad, hash).is_err(), "bit {bit}");
    }
    for length in 0..payload.len() {
        assert!(decode_commit(&payload[..length], hash).is_err(), "cut to {length}");
    }
}

#[test]
fn a_version_that_is_not_known_is_told() {
    let mut payload = commits().remove(0);
    payload[0] = 9;
    assert_eq!(
        decode_header(&payload).expect_err("it is newer").to_string(),
        "format version 9 is not known here: use a newer cairn"
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_commit(&bytes, Hash::default());
        let mut versioned = vec![VERSION];
        versioned.extend(&bytes);
        let _ = decode_commit(&versioned, Hash::default());
        let _ = decode_append(&bytes, FencingToken(1), Timestamp::default());
        let _ = decode_kept_commit(&versioned);
        let _ = decode_fact(&bytes);
    }
}
