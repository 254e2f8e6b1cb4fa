//! On data directories: in place, also while an engine has them open, damaged, and rebuilt.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use cairn_engine::store::{DurableOptions, DurableStore, Store};

use crate::{
    common::{Ended, Run, cairn_journal},
    samples,
};

/// A data directory with the sample journal in it, over several segments; and the store, open.
fn opened() -> (tempfile::TempDir, DurableStore) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = open(dir.path());
    samples::fill(&store);
    (dir, store)
}

/// The same, closed.
fn closed() -> tempfile::TempDir {
    let (dir, store) = opened();
    store.close().expect("it closes");
    dir
}

fn open(dir: &Path) -> DurableStore {
    let options = DurableOptions {
        segment_bytes: 1_024,
        disk_floor_bytes: 0,
        ballast_bytes: 0,
        now: samples::at(0),
        ..DurableOptions::new(dir)
    };
    DurableStore::open(&options).expect("it opens").0
}

fn on(dir: &Path, command: &[&str]) -> Ended {
    let dir = dir.display().to_string();
    cairn_journal(&[command, &["--data", &dir]].concat())
}

/// Every file of a directory: its content, and when it was last changed.
fn content(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, i64, i64)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("it is there") {
        let entry = entry.expect("it can be read");
        let (path, metadata) = (entry.path(), entry.metadata().expect("it is there"));
        if metadata.is_dir() {
            files.extend(content(&path));
            files.insert(path, (Vec::new(), metadata.mtime(), metadata.mtime_nsec()));
        } else {
            let bytes = fs::read(&path).expect("it is there");
            files.insert(path, (bytes, metadata.mtime(), metadata.mtime_nsec()));
        }
    }
    files
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<PathBuf> = fs::read_dir(dir.join("log"))
        .expect("it is there")
        .map(|entry| entry.expect("it can be read").path())
        .collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.sort();
    segments
}

fn readers() -> Vec<Vec<&'static str>> {
    vec![
        vec!["verify"],
        vec!["verify", "--json"],
        vec!["verify", "--log-only"],
        vec!["replay", "--all"],
        vec!["replay", "0197f302"],
        vec!["history", "0197f302"],
        vec!["list"],
        vec!["export"],
        vec!["stats"],
    ]
}

#[test]
fn a_directory_and_its_export_give_the_same_answers() {
    let dir = closed();
    assert!(segments(dir.path()).len() > 2, "several segments");
    let export = dir.path().join("journal.ndjson").display().to_string();
    assert_eq!(on(dir.path(), &["export", "--output", &export]).code, 0);
    for command in readers() {
        let from_directory = on(dir.path(), &command);
        assert_eq!(from_directory.code, 0, "{command:?}: {}", from_directory.stderr);
        assert_eq!(from_directory.stderr.is_empty(), command[0] != "export", "{command:?}: {}", from_directory.stderr);
        if command[0] != "verify" {
            let from_export = cairn_journal(&[&command[..], &["--export", &export]].concat());
            assert_eq!(from_directory.stdout, from_export.stdout, "{command:?}");
        }
    }
    let verdict = on(dir.path(), &["verify"]).stdout;
    assert!(
        verdict.starts_with("ok: 23 commits, 28 entries, 4 workflows (2 active, 2 finished), head 23:"),
        "{verdict}"
    );
    assert!(verdict.ends_with("\nindex: agrees with the log\n"), "{verdict}");
}

#[test]
fn nothing_that_is_read_is_changed_whether_an_engine_runs_or_not() {
    let (dir, store) = opened();
    for state in ["open", "closed"] {
        if state == "closed" {
            store.close().expect("it closes");
        }
        // Sled writes to its own files when it likes: while it is open, the log alone is the tools' business.
        let watched = if state == "open" { dir.path().join("log") } else { dir.path().to_owned() };
        for command in readers() {
            let before = content(&watched);
            let run = on(dir.path(), &command);
            assert_eq!(run.code, 0, "{command:?} while {state}: {}", run.stderr);
            assert!(content(&watched) == before, "{command:?} while {state} changed something");
        }
    }
}

#[test]
fn a_running_engines_log_is_read_as_it_grows_and_the_index_is_left_alone() {
    let (dir, store) = opened();
    let run = on(dir.path(), &["verify"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("index: not checked, an engine (pid "), "{}", run.stdout);
    let append = cairn_engine::store::Append {
        workflow: samples::id(4),
        expected: cairn_engine::Sequence(2),
        token: store.token(),
        facts: vec![cairn_engine::Fact::Paused { who: "local".into() }],
        quota: [].into(),
    };
    store.commit(vec![append], samples::at(50_000)).expect("it is written").remove(0).expect("it may follow");
    assert!(on(dir.path(), &["history", "0197f304"]).stdout.contains("paused"));
}

#[test]
fn a_damaged_byte_of_the_log_is_found_with_its_file_and_place() {
    let dir = closed();
    let segment = segments(dir.path()).swap_remove(1);
    let file = fs::File::options().read(true).write(true).open(&segment).expect("it is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 100).expect("it is that long");
    file.write_all_at(&[byte[0] ^ 4], 100).expect("it is written");
    let run = on(dir.path(), &["verify"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let name = segment.file_name().expect("it has a name").display().to_string();
    assert!(run.stdout.contains(&format!("log/{name} at byte 72: its checksum does not match")), "{}", run.stdout);
    assert!(run.stdout.contains("\ngood before it: "), "{}", run.stdout);
    assert_eq!(on(dir.path(), &["list"]).code, 1);
    // What the other copy still has is put back.
    let run = on(dir.path(), &["rebuild"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(on(dir.path(), &["verify"]).code, 0);
}

#[test]
fn a_missing_segment_is_found() {
    for missing in [0, 1] {
        let dir = closed();
        fs::remove_file(&segments(dir.path())[missing]).expect("it is removed");
        let run = on(dir.path(), &["list"]);
        assert_eq!(run.code, 1, "{}", run.stderr);
        assert!(run.stderr.contains(&format!("log/00000{}.log", missing + 1)), "{}", run.stderr);
    }
}

#[test]
fn an_end_that_the_log_has_lost_is_known_from_the_index() {
    let dir = closed();
    let segments = segments(dir.path());
    fs::remove_file(segments.last().expect("there are several")).expect("it is removed");
    assert_eq!(on(dir.path(), &["list"]).code, 0, "the log alone is good");
    let run = on(dir.path(), &["verify"]);
    assert_eq!(run.code, 1, "{}", run.stdout);
    assert!(run.stdout.contains("the log ends before it, and the index has"), "{}", run.stdout);
}

#[test]
fn a_backup_of_the_log_alone_is_a_good_journal() {
    let (dir, store) = opened();
    let backup = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(backup.path().join("log")).expect("it is made");
    for segment in segments(dir.path()) {
        let name = segment.file_name().expect("it has a name");
        fs::copy(&segment, backup.path().join("log").join(name)).expect("it is copied");
    }
    drop(store);
    let run = on(backup.path(), &["verify"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("index: there is none, as in a backup"), "{}", run.stdout);
}

#[test]
fn an_index_that_is_anothers_is_found_and_rebuild_makes_it_again() {
    let dir = closed();
    let other = tempfile::tempdir().expect("a temporary directory");
    open(other.path()).close().expect("it closes");
    fs::remove_dir_all(dir.path().join("journal")).expect("it is removed");
    fs::rename(other.path().join("journal"), dir.path().join("journal")).expect("it is moved");
    // One commit, the opening, at the same time: it is the same in both, and the others are to come.
    let run = on(dir.path(), &["verify"]);
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(run.stdout.contains("index: agrees with the log, and lacks its last 22 commits"), "{}", run.stdout);

    let other = tempfile::tempdir().expect("a temporary directory");
    let options = DurableOptions { now: samples::at(1), ballast_bytes: 0, ..DurableOptions::new(other.path()) };
    DurableStore::open(&options).expect("it opens").0.close().expect("it closes");
    fs::remove_dir_all(dir.path().join("journal")).expect("it is removed");
    fs::rename(other.path().join("journal"), dir.path().join("journal")).expect("it is moved");
    let run = on(dir.path(), &["verify"]);
    assert_eq!(run.code, 1, "{}", run.stdout);
    assert!(run.stdout.contains("the log is good, and `cairn-journal rebuild` makes the index"), "{}", run.stdout);
    let run = on(dir.path(), &["verify", "--log-only"]);
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(run.stdout.ends_with("index: not checked, as asked for\n"), "{}", run.stdout);

    let run = on(dir.path(), &["rebuild"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("rebuilt from the log, head "), "{}", run.stdout);
    let verdict = on(dir.path(), &["verify"]);
    assert_eq!(verdict.code, 0, "{}", verdict.stdout);
    assert!(verdict.stdout.ends_with("index: agrees with the log\n"), "{}", verdict.stdout);
}

#[test]
fn rebuild_is_refused_while_an_engine_has_the_journal_open() {
    let (dir, _store) = opened();
    let run = on(dir.path(), &["rebuild"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("rebuild needs the engine stopped, and one (pid "), "{}", run.stderr);
}

#[test]
fn a_directory_without_a_journal_is_wrong_use_and_nothing_is_made_in_it() {
    let empty = tempfile::tempdir().expect("a temporary directory");
    let dir = closed();
    for command in readers().into_iter().chain([vec!["rebuild"]]) {
        for (path, told) in [
            (empty.path().join("nowhere"), "there is no directory"),
            (empty.path().to_owned(), "has no journal"),
            (dir.path().join("log"), "give the directory that it is in"),
        ] {
            let run = on(&path, &command);
            assert_eq!(run.code, 2, "{command:?}: {}", run.stderr);
            assert!(run.stderr.contains(told), "{command:?}: {}", run.stderr);
        }
    }
    assert_eq!(fs::read_dir(empty.path()).expect("it is there").count(), 0);
}

#[test]
fn without_a_name_the_environments_directory_is_read_then_cairn_data() {
    let dir = closed();
    let parent = tempfile::tempdir().expect("a temporary directory");
    let named = Run::new(&["list"]).environment("CAIRN_DATA", dir.path()).dir(parent.path()).finish();
    assert_eq!(named.code, 0, "{}", named.stderr);
    fs::rename(dir.path(), parent.path().join("cairn-data")).expect("it is moved");
    let default = Run::new(&["list"]).dir(parent.path()).finish();
    assert_eq!(default.stdout, named.stdout, "{}", default.stderr);
}
