//! `verify`: is this journal what was appended? Exit code 1, and the first bad place, if not.

use std::{io::Write, path::Path, process::ExitCode, str::FromStr};

use cairn_engine::{
    CommitNumber, Hash,
    store::{self, StoreError, Verified},
};
use serde::Serialize;

use crate::{
    cli::SourceArguments,
    error::ToolError,
    show::{clean, count},
    source::{Commits, Source},
};

/// Checks the whole journal: exit code 1, and the first bad place, if it is not what was appended.
///
/// Checked are the chain of commits, the chain of each workflow's entries, sequences, fencing tokens, that each fact
/// may stand where it stands, and, in a data directory that no engine holds, the index against the log.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn-journal verify --data ./cairn-data
  cairn-journal verify --data ./cairn-data --log-only     several times as fast
  cairn-journal verify --export journal.ndjson            needs nothing but the file
  cairn-journal verify --server http://127.0.0.1:8080
  cairn-journal verify --head 42:9f3c…                    the journal still holds what an earlier verify saw

A lost end leaves a journal that is good in itself. Keep the head that `verify` prints, and give it back as --head:
then a lost end, and a journal that was made anew, show too.")]
pub(crate) struct Arguments {
    /// A head that was printed before, NUMBER:HASH: that commit must be there, with that hash.
    #[arg(long, value_name = "NUMBER:HASH")]
    head: Option<Head>,
    /// In a data directory the log alone: what is derived from it is not compared, which takes most of the time.
    #[arg(long)]
    log_only: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: SourceArguments,
}

/// A commit that somebody has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    number: CommitNumber,
    hash: Hash,
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (number, hash) = text.split_once(':')?;
            let hash = serde_json::from_value(serde_json::Value::String(hash.to_owned())).ok()?;
            Some(Self { number: CommitNumber(number.parse().ok()?), hash })
        };
        parse().ok_or_else(|| "a head is a number, a colon and 64 hexadecimal digits, as `verify` prints it".to_owned())
    }
}

/// What was found.
#[derive(Debug, Serialize)]
struct Verdict {
    ok: bool,
    commits: u64,
    entries: u64,
    workflows: u64,
    active: u64,
    finished: u64,
    head: Place,
    /// What was found about the index, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bad: Option<Bad>,
}

#[derive(Debug, Serialize)]
struct Place {
    number: CommitNumber,
    hash: Hash,
}

#[derive(Debug, Serialize)]
struct Bad {
    place: String,
    detail: String,
}

/// Runs it.
///
/// # Errors
/// [`ToolError`] if something could not be read, or the verdict not be written; a bad journal is none.
pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<ExitCode, ToolError> {
    let source = Source::of(&arguments.source)?;
    let mut commits = source.commits()?;
    let log = check(&mut commits, arguments.head).and_then(|()| not_empty(&source, &commits.verified()));
    let (found, index) = match (log, &source) {
        (Ok(()), Source::Data(_)) if arguments.log_only => (Ok(()), Some("not checked, as asked for".to_owned())),
        (Ok(()), Source::Data(directory)) => split(check_index(directory)),
        (log, _) => (log, None),
    };
    let (bad, unchecked) = match found {
        Ok(()) => (None, None),
        Err(ToolError::Bad { place, detail }) => (Some(Bad { place, detail }), None),
        // What could be checked was good, and is worth to be told.
        Err(other) if commits.verified().commits > 0 => (None, Some(other)),
        Err(other) => return Err(other),
    };
    let code = if bad.is_none() { ExitCode::SUCCESS } else { ExitCode::from(1) };
    let verdict = Verdict {
        ok: bad.is_none() && unchecked.is_none(),
        index,
        note: commits.note(),
        bad,
        ..Verdict::of(&commits.verified())
    };
    match verdict.show(arguments.json, out) {
        // Whoever stops reading still gets the exit code.
        Err(error) if !error.is_broken_pipe() => return Err(error),
        _ => {}
    }
    unchecked.map_or(Ok(code), Err)
}

/// That there is a journal at all. Every journal begins with the commit of its first opening; in a data directory that
/// may still be to come.
fn not_empty(source: &Source, verified: &Verified) -> Result<(), ToolError> {
    let (place, detail) = match source {
        Source::Export(path) if path == Path::new("-") => ("standard input".to_owned(), "no commit came in"),
        Source::Export(path) => (path.display().to_string(), "there is no commit in it"),
        Source::Server(url) => (url.clone(), "it sent no commit"),
        Source::Data(_) => return Ok(()),
    };
    if verified.commits > 0 {
        return Ok(());
    }
    Err(ToolError::Bad {
        place,
        detail: format!("{detail}, and every journal has one: it is no export, or was cut off"),
    })
}

fn split<T>(result: Result<T, ToolError>) -> (Result<(), ToolError>, Option<T>) {
    match result {
        Ok(value) => (Ok(()), Some(value)),
        Err(error) => (Err(error), None),
    }
}

/// What is to be said of the index in this data directory, whose log is good.
fn check_index(directory: &Path) -> Result<String, ToolError> {
    if !directory.join("journal").exists() {
        return Ok("there is none, as in a backup: the next start makes it from the log".to_owned());
    }
    let check = match store::check_index(directory) {
        Err(StoreError::Locked { holder, .. }) => {
            let holder = holder.map(|holder| format!(" ({holder})")).unwrap_or_default();
            return Ok(format!("not checked, an engine{holder} has it open: only the log was checked"));
        }
        checked => checked?,
    };
    if check.ahead > 0 {
        return Err(ToolError::Bad {
            place: format!("commit {}", check.commits + 1),
            detail: format!(
                "the log ends before it, and the index has {} more: the next start puts them back",
                count(check.ahead, "commit", "commits")
            ),
        });
    }
    let Some((first, more)) = check.differences.split_first() else {
        return Ok(match check.behind {
            0 => "agrees with the log".to_owned(),
            behind => {
                let last = count(behind, "commit", "commits");
                format!("agrees with the log, and lacks its last {last}: the next start gives it those")
            }
        });
    };
    let more = match more.len() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Err(ToolError::Bad {
        place: "the index".to_owned(),
        detail: format!("{}{more}; the log is good, and `cairn-journal rebuild` makes the index from it", clean(first)),
    })
}

fn check(commits: &mut Commits, head: Option<Head>) -> Result<(), ToolError> {
    for commit in commits.by_ref() {
        let commit = commit?;
        if let Some(head) = head
            && commit.number == head.number
            && commit.hash != head.hash
        {
            let detail = format!("its hash is {}, not {} as it was seen before", commit.hash, head.hash);
            return Err(ToolError::Bad { place: format!("commit {}", head.number), detail });
        }
    }
    let last = commits.verified().head.0;
    match head {
        Some(head) if head.number > last => Err(ToolError::Bad {
            place: format!("commit {}", last.next()),
            detail: format!("the journal ends before it, and had {} before", count(head.number.0, "commit", "commits")),
        }),
        _ => Ok(()),
    }
}

impl Verdict {
    /// A good one.
    fn of(verified: &Verified) -> Self {
        let (number, hash) = verified.head;
        Self {
            ok: true,
            commits: verified.commits,
            entries: verified.entries,
            workflows: verified.workflows,
            active: verified.active,
            finished: verified.workflows - verified.active,
            head: Place { number, hash },
            index: None,
            note: None,
            bad: None,
        }
    }

    fn show(&self, json: bool, out: &mut dyn Write) -> Result<(), ToolError> {
        if json {
            serde_json::to_writer_pretty(&mut *out, self).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            match &self.bad {
                None if self.ok => writeln!(out, "ok: {}", self.summary())?,
                None => writeln!(out, "good as far as it could be checked: {}", self.summary())?,
                Some(Bad { place, detail }) => {
                    writeln!(out, "bad: {place}: {detail}")?;
                    writeln!(out, "good before it: {}", self.summary())?;
                }
            }
            if let Some(index) = &self.index {
                writeln!(out, "index: {index}")?;
            }
            if let Some(note) = self.note {
                writeln!(out, "note: {note}")?;
            }
        }
        Ok(out.flush()?)
    }

    fn summary(&self) -> String {
        format!(
            "{}, {}, {} ({} active, {} finished), head {}:{}",
            count(self.commits, "commit", "commits"),
            count(self.entries, "entry", "entries"),
            count(self.workflows, "workflow", "workflows"),
            self.active,
            self.finished,
            self.head.number,
            self.head.hash
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lines::Lines, samples};

    /// What a check of these lines finds: the place and what is wrong there.
    fn place(lines: &[String]) -> Option<String> {
        match check(&mut commits(lines.concat_lines()), None) {
            Ok(()) => None,
            Err(ToolError::Bad { place, .. }) => Some(place),
            Err(other) => panic!("{other}"),
        }
    }

    trait ConcatLines {
        fn concat_lines(&self) -> Vec<u8>;
    }

    impl ConcatLines for [String] {
        fn concat_lines(&self) -> Vec<u8> {
            self.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
        }
    }

    fn commits(text: impl AsRef<[u8]> + 'static) -> Commits {
        Commits::new(Box::new(Lines::new(std::io::Cursor::new(text), "x")))
    }

    #[test]
    fn a_good_export_is_good_and_so_is_every_beginning_of_it() {
        let lines = samples::export(&samples::journal());
        for length in 0..=lines.len() {
            assert_eq!(place(&lines[..length]), None, "of {length} lines");
        }
    }

    #[test]
    fn a_line_that_is_dropped_repeated_or_swapped_is_found_where_it_is() {
        let lines = samples::export(&samples::journal());
        for at in 0..lines.len() {
            let here = |line: usize| Some(format!("line {} of x", line + 1));
            let found = |lines: &[String]| place(lines).and_then(|place| Some(place.rsplit_once(", ")?.1.to_owned()));
            if at + 1 < lines.len() {
                let mut dropped = lines.clone();
                dropped.remove(at);
                assert_eq!(found(&dropped), here(at), "line {at} dropped");
                let mut swapped = lines.clone();
                swapped.swap(at, at + 1);
                assert_eq!(found(&swapped), here(at), "line {at} swapped");
            }
            let mut repeated = lines.clone();
            repeated.insert(at, lines[at].clone());
            assert_eq!(found(&repeated), here(at + 1), "line {at} repeated");
        }
    }

    #[test]
    fn a_flipped_bit_in_any_byte_is_found_in_its_line() {
        let lines = samples::export(&samples::journal());
        let mut flips = 0;
        for (at, line) in lines.iter().enumerate() {
            for byte in 0..line.len() {
                // Another bit in each byte: all eight take eight times as long, and find the same.
                let bit = (at + byte) % 8;
                let mut bytes = line.clone().into_bytes();
                bytes[byte] ^= 1 << bit;
                flips += 1;
                // Most flips show in the line alone, which is quick to try; the others need the lines before it.
                if Lines::new(bytes.as_slice(), "x").any(|commit| commit.is_err()) {
                    continue;
                }
                let text = [lines[..at].concat_lines(), bytes].concat();
                let Err(ToolError::Bad { place, .. }) = check(&mut commits(text), None) else {
                    panic!("bit {bit} of byte {byte} of line {} was flipped, and not found", at + 1)
                };
                assert!(place.ends_with(&format!("line {} of x", at + 1)), "{place}");
            }
        }
        assert!(flips > 12_000, "only {flips} flips");
    }

    #[test]
    fn a_line_that_is_cut_short_is_found() {
        let lines = samples::export(&samples::journal());
        let last = lines.last().expect("there are lines");
        for length in 1..last.len() {
            let mut cut = lines.clone();
            *cut.last_mut().expect("there are lines") = last[..length].to_owned();
            assert_eq!(place(&cut), Some(format!("line {} of x", lines.len())), "cut to {length}");
        }
    }

    #[test]
    fn a_lost_end_and_another_journal_show_against_the_head_that_was_seen() {
        let commits_all = samples::journal();
        let lines = samples::export(&commits_all);
        let seen = commits_all.last().expect("there are commits");
        let head: Head = format!("{}:{}", seen.number, seen.hash).parse().expect("a head");
        let whole = lines.join("\n");
        assert!(check(&mut commits(whole.clone()), Some(head)).is_ok());
        let cut = lines[..lines.len() - 1].join("\n");
        let error = check(&mut commits(cut), Some(head)).expect_err("its end is lost");
        assert!(matches!(error, ToolError::Bad { ref place, .. } if *place == format!("commit {}", seen.number)));
        let other = Head { hash: Hash([9; 32]), ..head };
        assert_eq!(check(&mut commits(whole), Some(other)).expect_err("it is another").exit_code(), 1);
        assert!("5".parse::<Head>().is_err() && "5:abc".parse::<Head>().is_err());
    }

    #[test]
    fn golden_verdicts() {
        let lines = samples::export(&samples::journal());
        let verdict = |lines: &[String]| {
            let mut commits = commits(lines.join("\n"));
            let bad = match check(&mut commits, None) {
                Err(ToolError::Bad { place, detail }) => Some(Bad { place, detail }),
                _ => None,
            };
            let mut text = Vec::new();
            let verdict = Verdict { ok: bad.is_none(), bad, ..Verdict::of(&commits.verified()) };
            verdict.show(false, &mut text).expect("memory takes it");
            verdict.show(true, &mut text).expect("memory takes it");
            String::from_utf8(text).expect("text")
        };
        let mut dropped = lines.clone();
        dropped.remove(5);
        insta::assert_snapshot!(format!("{}\n{}", verdict(&lines), verdict(&dropped)));
    }
}
