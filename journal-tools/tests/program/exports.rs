//! On an export, a pipe and a server.

use std::fs;

use crate::{
    common::{Run, cairn_journal},
    http, samples,
};

/// A directory with an export of the sample journal in it.
fn exported() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("journal.ndjson");
    fs::write(&path, samples::export(&samples::journal()).join("\n") + "\n").expect("it is written");
    (dir, path.display().to_string())
}

/// What `export` says of the sample journal.
fn head_line() -> String {
    let commits = samples::journal();
    let last = commits.last().expect("there are commits");
    format!("head {}:{}\n", last.number, last.hash)
}

#[test]
fn an_export_a_pipe_and_a_server_give_the_same_answers() {
    let (_dir, path) = exported();
    let text = fs::read(&path).expect("it is there");
    let id = samples::id(2).to_string();
    for command in [
        vec!["verify"],
        vec!["verify", "--json"],
        vec!["replay", &id],
        vec!["replay", &id, "--at", "5"],
        vec!["history", &id],
        vec!["history", &id, "--json"],
        vec!["list"],
        vec!["list", "--json"],
        vec!["stats"],
        vec!["stats", "acme", "logs", "--json"],
        vec!["export"],
        vec!["export", "--format", "json"],
    ] {
        let from_file = cairn_journal(&[&command[..], &["--export", &path]].concat());
        let told = if command[0] == "export" { head_line() } else { String::new() };
        assert_eq!((from_file.code, from_file.stderr), (0, told), "{command:?}");
        let from_pipe = Run::new(&[&command[..], &["--export", "-"]].concat()).stdin(text.clone()).finish();
        assert_eq!(from_pipe.stdout, from_file.stdout, "{command:?}");
        let server = http::answering(http::chunked("200 OK", &text));
        let from_server = cairn_journal(&[&command[..], &["--server", &server]].concat());
        assert_eq!(from_server.stdout, from_file.stdout, "{command:?}: {}", from_server.stderr);
    }
}

#[test]
fn an_export_of_an_export_is_the_same_export_in_both_forms() {
    let (dir, path) = exported();
    let array = dir.path().join("journal.json").display().to_string();
    let again = dir.path().join("again.ndjson").display().to_string();
    assert_eq!(cairn_journal(&["export", "--export", &path, "--format", "json", "--output", &array]).code, 0);
    assert_eq!(cairn_journal(&["export", "--export", &array, "--output", &again]).code, 0);
    assert_eq!(fs::read(&again).expect("it is there"), fs::read(&path).expect("it is there"));
    let parsed: Vec<serde_json::Value> =
        serde_json::from_slice(&fs::read(&array).expect("it is there")).expect("one JSON array");
    assert_eq!(parsed.len(), samples::journal().len());
    let left: Vec<_> = fs::read_dir(dir.path()).expect("it is there").collect();
    assert_eq!(left.len(), 3, "nothing half-written stays: {left:?}");
}

#[test]
fn a_bad_export_is_exit_code_one_everywhere_and_leaves_no_export_behind() {
    let (dir, path) = exported();
    let mut lines = samples::export(&samples::journal());
    lines.remove(6);
    fs::write(&path, lines.join("\n")).expect("it is written");
    let place = format!("commit 8, line 7 of {path}");
    let verdict = cairn_journal(&["verify", "--export", &path]);
    assert_eq!(verdict.code, 1);
    assert!(verdict.stdout.starts_with(&format!("bad: {place}: it follows commit 6")), "{}", verdict.stdout);
    let output = dir.path().join("out.ndjson").display().to_string();
    for command in [&["list"][..], &["stats"], &["history", "0197f301"], &["export", "--output", &output]] {
        let run = cairn_journal(&[command, &["--export", &path]].concat());
        assert_eq!(run.code, 1, "{command:?}");
        assert!(run.stderr.contains(&place), "{command:?}: {}", run.stderr);
    }
    // What came before the bad place is shown.
    assert!(cairn_journal(&["history", "0197f301", "--export", &path]).stdout.contains("attempt_failed"));
    assert!(!fs::exists(&output).expect("it can be asked"));
    assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 1);
}

#[test]
fn wrong_use_is_exit_code_two_and_says_what_to_do() {
    let (dir, path) = exported();
    let empty = dir.path().display().to_string();
    for (command, told) in [
        (&["history", "ffff", "--export", &path][..], "no workflow begins with ffff"),
        (&["history", "search", "--export", &path], "is no workflow id"),
        (&["history", "0197f3", "--export", &path], "4 workflows begin with 0197f3"),
        (&["replay", "0197f304", "--at", "9", "--export", &path], "the workflow has 2 entries, no entry 9"),
        (&["replay", "0197f304", "--at", "0", "--export", &path], "--at"),
        (&["list", "--export", "/nowhere/at/all"], "cannot read /nowhere/at/all"),
        (&["list", "--export", &empty], "is a directory"),
        (&["list", "--status", "done", "--export", &path], "possible values: pending"),
        (&["list", "--server", "https://127.0.0.1"], "curl -sSf https://127.0.0.1/journal"),
        (&["list", "--server", "http://127.0.0.1:9", "--export", &path], "cannot be used with"),
        (&["verify", "--head", "nine", "--export", &path], "64 hexadecimal digits"),
        (&["list"], "give --"),
        (&["tell"], "tell"),
    ] {
        let run = Run::new(command).dir(dir.path()).finish();
        assert_eq!(run.code, 2, "{command:?}: {}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains(told), "{command:?}: {}", run.stderr);
    }
}

#[test]
fn a_server_that_says_no_or_breaks_off_is_told_from_a_bad_journal() {
    let text = samples::export(&samples::journal()).join("\n");
    let refused = http::answering(http::chunked("404 Not Found", b"no"));
    let run = cairn_journal(&["verify", "--server", &refused]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("answered 404"), "{}", run.stderr);
    let mut cut = http::chunked("200 OK", text.as_bytes());
    cut.truncate(cut.len() - 40);
    let broken = http::answering(cut);
    let run = cairn_journal(&["verify", "--server", &broken]);
    assert_eq!(run.code, 2, "{}", run.stdout);
    assert!(run.stderr.contains("cannot read"), "{}", run.stderr);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let (_dir, path) = exported();
    for command in [&["export"][..], &["list"], &["verify"], &["history", "0197f301"], &["stats"]] {
        let run = Run::new(&[command, &["--export", &path]].concat()).closed_stdout().finish();
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{command:?}");
    }
}

#[test]
fn a_head_that_was_noted_is_found_again() {
    let (_dir, path) = exported();
    let told = cairn_journal(&["verify", "--export", &path]).stdout;
    let head = told.trim_end().rsplit(' ').next().expect("it ends with the head").to_owned();
    assert_eq!(cairn_journal(&["verify", "--export", &path, "--head", &head]).code, 0);
    let mut lines = samples::export(&samples::journal());
    lines.pop();
    fs::write(&path, lines.join("\n")).expect("it is written");
    assert_eq!(cairn_journal(&["verify", "--export", &path]).code, 0, "a lost end alone does not show");
    let run = cairn_journal(&["verify", "--export", &path, "--head", &head]);
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("the journal ends before it"), "{}", run.stdout);
}

#[test]
fn what_holds_no_commit_is_no_good_export() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("journal.ndjson").display().to_string();
    for text in ["", "[\n]\n"] {
        fs::write(&path, text).expect("it is written");
        let run = cairn_journal(&["verify", "--export", &path]);
        assert_eq!(run.code, 1, "{}", run.stdout);
        assert!(run.stdout.starts_with(&format!("bad: {path}: there is no commit in it")), "{}", run.stdout);
        let run = Run::new(&["verify", "--json", "--export", "-"]).stdin(text.into()).finish();
        assert_eq!(run.code, 1, "{}", run.stdout);
        assert!(run.stdout.contains("\"ok\": false") && run.stdout.contains("no commit came in"), "{}", run.stdout);
    }
    let server = http::answering(http::chunked("200 OK", b""));
    assert_eq!(cairn_journal(&["verify", "--server", &server]).code, 1);
}

#[test]
fn the_head_that_an_export_tells_finds_its_lost_end() {
    let (dir, path) = exported();
    let output = dir.path().join("out.ndjson").display().to_string();
    let told = cairn_journal(&["export", "--export", &path, "--output", &output]).stderr;
    let head = told.strip_prefix("head ").expect("it is told").trim_end();
    assert_eq!(cairn_journal(&["verify", "--export", &output, "--head", head]).code, 0);
    fs::write(&output, "").expect("it is written");
    assert_eq!(cairn_journal(&["verify", "--export", &output, "--head", head]).code, 1);
}
