//! One workflow of a journal, named by its id or by the beginning of it.

use std::collections::BTreeMap;

use cairn_engine::{Commit, Entry, Fact, WorkflowId};

use crate::{error::ToolError, show::clean};

/// So many of the workflows that a beginning fits are listed.
const LISTED_MAX: usize = 20;

/// A workflow, as far as it could be read.
pub(crate) struct Found {
    /// Its entries, in order; at least one.
    pub(crate) entries: Vec<Entry>,
    /// Why reading ended before the journal did.
    pub(crate) broken: Option<ToolError>,
}

/// The workflow whose id begins with `text`.
///
/// # Errors
/// [`ToolError::Use`] if `text` is no beginning of an id, or fits no workflow or several; whatever reading ended with,
/// if nothing was found before.
pub(crate) fn find(commits: impl Iterator<Item = Result<Commit, ToolError>>, text: &str) -> Result<Found, ToolError> {
    let prefix = Prefix::parse(text)?;
    let mut search = Search { prefix, fits: BTreeMap::new(), entries: Vec::new() };
    let mut broken = None;
    for commit in commits {
        match commit {
            Ok(commit) => commit.entries.into_iter().for_each(|entry| search.see(entry)),
            Err(error) => {
                broken = Some(error);
                break;
            }
        }
    }
    match (search.fits.len(), broken) {
        (0, Some(error)) => Err(error),
        (0, None) => Err(ToolError::Use(format!(
            "no workflow begins with {text}: `cairn-journal list` shows those that are there"
        ))),
        (1, broken) => Ok(Found { entries: search.entries, broken }),
        (several, _) => {
            let listed: String =
                search.fits.iter().take(LISTED_MAX).map(|(id, whose)| format!("\n  {id}  {whose}")).collect();
            let more = several.saturating_sub(LISTED_MAX);
            let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
            Err(ToolError::Use(format!("{several} workflows begin with {text}, give more of the id:{listed}{more}")))
        }
    }
}

/// The first hexadecimal digits of an id.
struct Prefix(String);

impl Prefix {
    fn parse(text: &str) -> Result<Self, ToolError> {
        let digits: String = text.chars().filter(|character| *character != '-').collect::<String>().to_lowercase();
        if digits.is_empty() || digits.len() > 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ToolError::Use(format!(
                "`{}` is no workflow id, nor the beginning of one: `cairn-journal list` shows them",
                clean(text)
            )));
        }
        Ok(Self(digits))
    }

    fn fits(&self, id: WorkflowId) -> bool {
        let mut digits = id.as_bytes().iter().flat_map(|byte| [byte >> 4, byte & 15]);
        self.0.bytes().all(|digit| digits.next().is_some_and(|other| hex(digit) == other))
    }
}

const fn hex(digit: u8) -> u8 {
    if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 }
}

struct Search {
    prefix: Prefix,
    /// The workflows that fit, and whose they are.
    fits: BTreeMap<WorkflowId, String>,
    /// The entries of the one that fits; of several none is kept.
    entries: Vec<Entry>,
}

impl Search {
    fn see(&mut self, entry: Entry) {
        if !self.prefix.fits(entry.workflow) {
            return;
        }
        if let Fact::Submitted(submitted) = &entry.fact {
            let whose = format!("{}/{}", clean(submitted.tenant.as_str()), clean(submitted.service.as_str()));
            self.fits.insert(entry.workflow, whose);
        }
        if self.fits.len() > 1 {
            self.entries = Vec::new();
        } else {
            self.entries.push(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn look(text: &str) -> Result<Found, ToolError> {
        find(samples::journal().into_iter().map(Ok), text)
    }

    #[test]
    fn the_beginning_of_an_id_finds_its_workflow_with_or_without_hyphens() {
        for text in ["0197f302", "0197f302-7c", "0197F3027C"] {
            let found = look(text).expect("one fits");
            assert!(found.entries.iter().all(|entry| entry.workflow == samples::id(2)));
            assert_eq!(found.entries.len(), 11);
        }
    }

    #[test]
    fn a_beginning_that_fits_several_lists_them() {
        let error = look("0197f3").err().expect("four fit");
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.starts_with("4 workflows begin with 0197f3"), "{text}");
        assert!(text.contains(&format!("\n  {}  acme/logs", samples::id(2))), "{text}");
    }

    #[test]
    fn what_fits_nothing_and_what_is_no_id_is_wrong_use() {
        for text in ["ff", "", "-", "search", &"0".repeat(33)] {
            assert_eq!(look(text).err().expect("nothing fits").exit_code(), 2, "{text}");
        }
    }

    #[test]
    fn what_was_read_before_a_bad_place_is_found() {
        let bad = ToolError::Bad { place: "commit 9".to_owned(), detail: "torn".to_owned() };
        let commits = samples::journal();
        let found = find(commits.into_iter().take(4).map(Ok).chain([Err(bad)]), "0197f301").expect("it begins before");
        assert_eq!(found.entries.len(), 4);
        assert!(found.broken.is_some());
    }
}
