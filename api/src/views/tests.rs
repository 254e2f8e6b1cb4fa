//! The views equal the projection of the journal, whatever happened to them.

use std::{collections::BTreeMap, fs};

use cairn_engine::{
    Attempt, Effect, ErrorClass, Failure, Hash, Json, OnFailure, Outcome, Output, Probe, Sequence, Submitted,
    Timestamp, WorkflowId,
    store::{Append, MemoryStore},
};
use cairn_steps::{report::STATUSES, request::Request};
use serde_json::{Value, json};

use super::*;

fn submitted() -> Fact {
    let request = Request::parse(br#"{"user":"acme","service_name":"search"}"#).expect("the least there is");
    Fact::Submitted(Submitted {
        definition: "create".into(),
        version: 1,
        fingerprint: Hash::default(),
        steps: STATUSES.iter().map(|step| (*step).into()).collect(),
        effect: Effect::Create,
        tenant: "acme".into(),
        service: "search".into(),
        input: Json::parse(&request.to_json()).expect("small"),
        key: None,
        body_hash: Hash::default(),
        who: "local".into(),
        holds: BTreeMap::new(),
        on_failure: OnFailure::Rollback,
    })
}

fn succeeded(step: &str) -> Vec<Fact> {
    let output = Output::new(format!("did\n{step}"), &json!({ "step": step })).expect("small");
    let attempt = Attempt(1);
    vec![
        Fact::AttemptStarted { step: step.into(), attempt },
        Fact::AttemptSucceeded { step: step.into(), attempt, output },
    ]
}

fn creation() -> Vec<Fact> {
    let finished = Fact::Finished { outcome: Outcome::Succeeded, residue: Vec::new() };
    let steps = STATUSES.iter().flat_map(|step| succeeded(step));
    [submitted()].into_iter().chain(steps).chain([finished]).collect()
}

fn rollback() -> Vec<Fact> {
    let (step, attempt) = (cairn_engine::StepName::new("starting"), Attempt(1));
    let error = Failure { class: ErrorClass::Permanent, message: "no".to_owned(), evidence: Vec::new() };
    vec![
        submitted(),
        Fact::AttemptStarted { step: step.clone(), attempt },
        Fact::AttemptFailed { step: step.clone(), attempt, error, retry_at: None },
        Fact::Probed { step: step.clone(), attempt, answer: Probe::NotApplied, retry_at: None },
        Fact::CompensationStarted { step: step.clone(), attempt },
        Fact::CompensationSucceeded { step, attempt, message: "nothing was made".to_owned() },
        Fact::Finished { outcome: Outcome::Failed, residue: Vec::new() },
    ]
}

/// A store with one workflow of these facts, a commit each, a second apart.
fn journal(facts: Vec<Fact>) -> MemoryStore {
    journal_of(WorkflowId::from_bytes([7; 16]), facts)
}

/// The same for this workflow: fewer facts make the same journal at an earlier time.
fn journal_of(workflow: WorkflowId, facts: Vec<Fact>) -> MemoryStore {
    let store = MemoryStore::new();
    for (sequence, fact) in (0_u64..).zip(facts) {
        let append = Append {
            workflow,
            expected: Sequence(sequence),
            token: store.token(),
            facts: vec![fact],
            quota: BTreeMap::new(),
        };
        let now = Timestamp::from_micros(i64::try_from(sequence).expect("few") * 1_000_000);
        for answer in store.commit(vec![append], now).expect("memory takes it") {
            answer.expect("legal");
        }
    }
    store
}

fn views(dir: &Path) -> Views {
    Views::new(dir, &dir.join("deployment.log"))
}

/// Every file below `dir` with its content, but for the cursor.
fn content(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(content(&path));
        } else if !path.ends_with(CURSOR) {
            let text = fs::read_to_string(&path).expect("text");
            found.insert(path, text);
        }
    }
    found
}

#[test]
fn a_creation_leaves_ten_files_ten_lines_and_two_records() {
    let dir = tempfile::tempdir().expect("a directory");
    catch_up(&journal(creation()), &mut views(dir.path())).expect("written");
    let mut files: Vec<_> = fs::read_dir(reports::dir(dir.path()))
        .expect("there")
        .map(|entry| entry.expect("readable"))
        .map(|entry| (entry.metadata().expect("there").modified().expect("a time"), entry.path()))
        .collect();
    files.sort();
    let texts: Vec<String> = files.iter().map(|(_, path)| fs::read_to_string(path).expect("text")).collect();
    assert_eq!(texts.len(), STATUSES.len());
    for (text, status) in texts.iter().zip(STATUSES) {
        assert!(text.contains(&format!("\"status\": \"{status}\"")), "{status} in its turn, in {text}");
    }
    assert!(files[0].1.ends_with("acme_search_2000000.json"), "{}", files[0].1.display());

    let log = fs::read_to_string(dir.path().join("deployment.log")).expect("there");
    assert_eq!(log.lines().count(), STATUSES.len());
    assert_eq!(log.lines().next(), Some("1970-01-01T00:00:02.000000Z acme search starting did starting"));

    let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).expect("there")).expect("JSON") };
    assert_eq!(read(&dir.path().join("deployments.json"))[0]["status"], "created");
    assert_eq!(read(&dir.path().join("tenant_data/acme_search.json"))["status"], "created");
}

#[test]
fn a_rollback_takes_the_tenant_container_away_and_leaves_the_failure() {
    let dir = tempfile::tempdir().expect("a directory");
    catch_up(&journal(rollback()), &mut views(dir.path())).expect("written");
    assert!(!dir.path().join("tenant_data/acme_search.json").exists());
    let deployments = fs::read_to_string(dir.path().join("deployments.json")).expect("there");
    assert!(deployments.contains("\"status\": \"failed\""), "{deployments}");
    assert_eq!(fs::read_dir(reports::dir(dir.path())).expect("there").count(), 1);
}

/// I19
#[test]
fn deleted_views_come_back_equal() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, dir) = (journal(creation()), dir.path().join("views"));
    catch_up(&store, &mut views(&dir)).expect("written");
    let before = content(&dir);
    fs::remove_dir_all(&dir).expect("removed");
    catch_up(&store, &mut views(&dir)).expect("written");
    assert_eq!(content(&dir), before);
    views(&dir).rebuild(&store).expect("written");
    assert_eq!(content(&dir), before);
}

/// I19
#[test]
fn killed_before_the_cursor_moved_no_line_is_written_twice_and_half_a_line_is_cut_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = journal(creation());
    catch_up(&store, &mut views(dir.path())).expect("written");
    let before = content(dir.path());
    // The cursor as it was before the last three reports; the lines are there, and half of one more.
    let log = dir.path().join("deployment.log");
    let text = fs::read_to_string(&log).expect("there");
    let known: usize = text.split_inclusive('\n').take(7).map(str::len).sum();
    let hash = store.commits(CommitNumber(15), 1).expect("readable")[0].hash;
    let cursor = Cursor { commit: CommitNumber(16), hash, log_bytes: known as u64, log: log.display().to_string() };
    fs::write(dir.path().join(CURSOR), serde_json::to_vec(&cursor).expect("plain")).expect("written");
    let torn: String = text.split_inclusive('\n').take(9).collect();
    fs::write(&log, format!("{torn}1970-01-01T00:0")).expect("written");
    catch_up(&store, &mut views(dir.path())).expect("written");
    assert_eq!(content(dir.path()), before);
}

/// I19: what stands in a log that was begun again was written after the cursor, whatever the length of the one before.
#[test]
fn killed_after_the_log_was_rotated_away_no_line_is_written_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = journal(creation());
    catch_up(&store, &mut views(dir.path())).expect("written");
    let log = dir.path().join("deployment.log");
    let text = fs::read_to_string(&log).expect("there");
    let after: String = text.split_inclusive('\n').skip(7).collect();
    let hash = store.commits(CommitNumber(15), 1).expect("readable")[0].hash;
    let log_bytes = text.len() as u64 - after.len() as u64;
    let cursor = Cursor { commit: CommitNumber(16), hash, log_bytes, log: log.display().to_string() };
    fs::write(dir.path().join(CURSOR), serde_json::to_vec(&cursor).expect("plain")).expect("written");
    fs::write(&log, &after).expect("written");
    assert!((after.len() as u64) < log_bytes);
    catch_up(&store, &mut views(dir.path())).expect("written");
    assert_eq!(fs::read_to_string(&log).expect("there"), after);
}

/// I19: the cursor was ahead of the journal then, nothing was written until the journal had passed it, and the reports
/// in between were missing for ever.
#[test]
fn after_an_older_backup_is_put_back_the_views_are_those_of_the_backup_and_miss_nothing_that_follows() {
    let workflow = WorkflowId::from_bytes([8; 16]);
    let older: Vec<Fact> = creation().into_iter().take(9).collect();
    for (earlier, now) in [
        (journal_of(workflow, creation()), journal_of(workflow, older)),
        // As long as the one before, but not the same.
        (journal(creation()), journal_of(workflow, creation())),
        (journal(creation()), journal(rollback())),
    ] {
        let (dir, fresh) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        catch_up(&earlier, &mut views(dir.path())).expect("written");
        catch_up(&now, &mut views(dir.path())).expect("written");
        catch_up(&now, &mut views(fresh.path())).expect("written");
        let names = |dir: &Path| -> BTreeMap<PathBuf, String> {
            let below = |path: PathBuf| path.strip_prefix(dir).expect("below it").to_owned();
            content(dir).into_iter().map(|(path, text)| (below(path), text)).collect()
        };
        assert_eq!(names(dir.path()), names(fresh.path()));
        assert_eq!(views(dir.path()).cursor(&now).expect("readable"), now.head().0);
    }
}

#[test]
fn a_log_elsewhere_keeps_what_others_wrote_and_gets_each_line_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (views_dir, log) = (dir.path().join("views"), dir.path().join("elsewhere.log"));
    fs::write(&log, "somebody else's line\n").expect("written");
    let store = journal(creation());
    catch_up(&store, &mut Views::new(&views_dir, &log)).expect("written");
    let before = fs::read_to_string(&log).expect("there");
    assert_eq!(before.lines().count(), STATUSES.len() + 1);
    Views::new(&views_dir, &log).rebuild(&store).expect("written");
    assert_eq!(fs::read_to_string(&log).expect("there"), before);
}

#[test]
fn two_reports_of_one_microsecond_get_files_of_their_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = journal(creation());
    let entries = store.workflow(
        store.list(&cairn_engine::store::ListQuery { limit: 1, ..Default::default() }).expect("readable")[0].workflow,
    );
    let mut all = cairn_steps::report::reports(&entries.expect("readable")).expect("legal");
    all[1].timestamp = all[0].timestamp;
    fs::create_dir_all(reports::dir(dir.path())).expect("made");
    let mut files = Files::below(dir.path());
    for report in [&all[0], &all[1], &all[0], &all[1]] {
        reports::write(&mut files, dir.path(), report).expect("written");
    }
    assert_eq!(fs::read_dir(reports::dir(dir.path())).expect("there").count(), 2);
}
