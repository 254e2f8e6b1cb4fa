//! The hashes that chain a workflow's entries, and the commits of the whole journal.
//!
//! - An entry's hash covers its place, token, time, the hash before it and its fact: nothing of it changes unseen.
//! - A commit's hash covers its place, token, time, the hash before it and its entries' hashes: no entry, workflow or
//!   tail is lost unseen.
//! - Every part that is hashed has a fixed length or its length before it, so that no two things hash alike.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry as Place},
    fmt,
};

use crate::{
    entry::{Commit, Entry},
    ids::{CommitNumber, FencingToken, Hash, Sequence, Timestamp, WorkflowId},
    journal::codec,
    state::{Phase, WorkflowState},
};

/// The first place where a journal is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPlace {
    /// Which commit, if that can be told.
    pub commit: Option<CommitNumber>,
    /// Which entry of it, if it is about one.
    pub entry: Option<(WorkflowId, Sequence)>,
    /// Which file, and at which byte, if it was read from one.
    pub file: Option<(String, u64)>,
    /// What is wrong there.
    pub detail: String,
}

impl BadPlace {
    pub(crate) fn somewhere(detail: impl Into<String>) -> Self {
        Self { commit: None, entry: None, file: None, detail: detail.into() }
    }

    pub(crate) fn commit(number: CommitNumber, detail: impl Into<String>) -> Self {
        Self { commit: Some(number), ..Self::somewhere(detail) }
    }

    fn entry(number: CommitNumber, entry: &Entry, detail: impl Into<String>) -> Self {
        Self { entry: Some((entry.workflow, entry.sequence)), ..Self::commit(number, detail) }
    }

    pub(crate) fn in_file(mut self, file: impl Into<String>, offset: u64) -> Self {
        self.file = Some((file.into(), offset));
        self
    }

    /// In this commit, where nothing else is known.
    pub(crate) fn or_commit(mut self, number: CommitNumber) -> Self {
        self.commit.get_or_insert(number);
        self
    }

    /// Where, without what.
    #[must_use]
    pub fn place(&self) -> String {
        let mut parts = Vec::new();
        if let Some(number) = self.commit {
            parts.push(format!("commit {number}"));
        }
        if let Some((workflow, sequence)) = self.entry {
            parts.push(format!("entry {sequence} of workflow {workflow}"));
        }
        if let Some((file, offset)) = &self.file {
            parts.push(format!("{file} at byte {offset}"));
        }
        parts.join(", ")
    }
}

impl fmt::Display for BadPlace {
    /// `commit 12, entry 3 of workflow 0197…: its hash is wrong`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place();
        if place.is_empty() { f.write_str(&self.detail) } else { write!(f, "{place}: {}", self.detail) }
    }
}

impl std::error::Error for BadPlace {}

/// The hash of an entry whose fact has these bytes in this format version.
pub(crate) fn entry_hash(
    workflow: WorkflowId,
    sequence: Sequence,
    token: FencingToken,
    time: Timestamp,
    previous: Hash,
    version: u8,
    fact: &[u8],
) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"cairn entry\0");
    hasher.update(workflow.as_bytes());
    hasher.update(&sequence.0.to_be_bytes());
    hasher.update(&token.0.to_be_bytes());
    hasher.update(&time.as_micros().to_be_bytes());
    hasher.update(&previous.0);
    hasher.update(&[version]);
    hasher.update(&(fact.len() as u64).to_be_bytes());
    hasher.update(fact);
    Hash(*hasher.finalize().as_bytes())
}

/// The hash of a commit that holds entries with these hashes.
pub(crate) fn commit_hash(
    number: CommitNumber,
    token: FencingToken,
    time: Timestamp,
    previous: Hash,
    entries: &[Hash],
) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"cairn commit\0");
    hasher.update(&number.0.to_be_bytes());
    hasher.update(&token.0.to_be_bytes());
    hasher.update(&time.as_micros().to_be_bytes());
    hasher.update(&previous.0);
    hasher.update(&(entries.len() as u64).to_be_bytes());
    for hash in entries {
        hasher.update(&hash.0);
    }
    Hash(*hasher.finalize().as_bytes())
}

pub(crate) fn check_commit_hash(commit: &Commit) -> Result<(), BadPlace> {
    let Commit { number, token, time, previous, hash, ref entries } = *commit;
    let entries: Vec<Hash> = entries.iter().map(|entry| entry.hash).collect();
    if commit_hash(number, token, time, previous, &entries) == hash {
        return Ok(());
    }
    Err(BadPlace::commit(number, "its hash does not match what it holds, or it does not follow the commit before"))
}

/// What a good journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many commits.
    pub commits: u64,
    /// How many entries.
    pub entries: u64,
    /// How many workflows.
    pub workflows: u64,
    /// How many of those are not finished.
    pub active: u64,
    /// The last commit: its number and hash.
    pub head: (CommitNumber, Hash),
    /// The last opening.
    pub token: FencingToken,
}

/// Checks a journal commit by commit, in order.
#[derive(Debug, Default)]
pub struct Verifier {
    verified: Verified,
    active: BTreeMap<WorkflowId, WorkflowState>,
    finished: BTreeSet<WorkflowId>,
}

/// Checks a whole journal, from its first commit on.
///
/// # Errors
/// The first [`BadPlace`]: a gap, a repeat, a swap, a foreign or changed entry, a token that goes back, a fact that may
/// not follow.
pub fn verify(commits: impl IntoIterator<Item = Result<Commit, BadPlace>>) -> Result<Verified, BadPlace> {
    let mut verifier = Verifier::default();
    for commit in commits {
        verifier.check(&commit?)?;
    }
    Ok(verifier.verified())
}

impl Verifier {
    /// What was checked so far.
    #[must_use]
    pub fn verified(&self) -> Verified {
        let active = self.active.len() as u64;
        Verified { active, workflows: active + self.finished.len() as u64, ..self.verified.clone() }
    }

    /// The state of a workflow that is not finished, after what was checked so far.
    #[must_use]
    pub fn state(&self, workflow: WorkflowId) -> Option<&WorkflowState> {
        self.active.get(&workflow)
    }

    /// The states of all workflows that are not finished, after what was checked so far.
    pub fn active(&self) -> impl Iterator<Item = &WorkflowState> {
        self.active.values()
    }

    /// Checks the next commit.
    ///
    /// # Errors
    /// [`BadPlace`] if it is not the next, or not what was committed. Nothing more may be checked then.
    pub fn check(&mut self, commit: &Commit) -> Result<(), BadPlace> {
        self.check_with(commit, Hashes::ToBeChecked)
    }

    /// The same for a commit that a log's reader has given: that has computed each hash from the bytes, and compared.
    ///
    /// # Errors
    /// As [`Verifier::check`].
    pub fn check_read(&mut self, commit: &Commit) -> Result<(), BadPlace> {
        self.check_with(commit, Hashes::Checked)
    }

    fn check_with(&mut self, commit: &Commit, hashes: Hashes) -> Result<(), BadPlace> {
        let bad = |detail: String| BadPlace::commit(commit.number, detail);
        let (last, last_hash) = self.verified.head;
        if commit.number.0 != last.0 + 1 {
            return Err(bad(match commit.number.0.cmp(&(last.0 + 1)) {
                std::cmp::Ordering::Greater => format!("it follows commit {last}: what was between is missing"),
                _ => format!("it follows commit {last}: it is repeated or out of order"),
            }));
        }
        if commit.previous != last_hash {
            return Err(bad(format!("it does not follow commit {last}: the previous hash is another")));
        }
        // An opening is a commit of its own, without entries; all that follows it bears its token.
        let token = self.verified.token;
        if commit.token != token && (commit.token != token.next() || !commit.entries.is_empty()) {
            return Err(bad(format!("its fencing token is {}, after {token}", commit.token)));
        }
        for entry in &commit.entries {
            self.check_entry(commit, entry, hashes)?;
        }
        if let Hashes::ToBeChecked = hashes {
            check_commit_hash(commit)?;
        }
        self.verified.head = (commit.number, commit.hash);
        self.verified.token = commit.token;
        self.verified.commits += 1;
        self.verified.entries += commit.entries.len() as u64;
        Ok(())
    }

    fn check_entry(&mut self, commit: &Commit, entry: &Entry, hashes: Hashes) -> Result<(), BadPlace> {
        let bad = |detail: String| BadPlace::entry(commit.number, entry, detail);
        if entry.token != commit.token || entry.time != commit.time {
            return Err(bad("its token or time is not its commit's".to_owned()));
        }
        if let Hashes::ToBeChecked = hashes {
            check_entry_hash(entry).map_err(bad)?;
        }
        let workflow = entry.workflow;
        let mut place = match self.active.entry(workflow) {
            Place::Occupied(place) => place,
            Place::Vacant(_) if self.finished.contains(&workflow) => {
                return Err(bad("its workflow is finished".to_owned()));
            }
            Place::Vacant(place) => {
                check_place(entry, Sequence::default(), Hash::default()).map_err(bad)?;
                let begun = WorkflowState::begin(entry).map_err(|illegal| bad(illegal.to_string()))?;
                place.insert(begun);
                return Ok(());
            }
        };
        let state = place.get_mut();
        check_place(entry, state.sequence(), state.hash()).map_err(bad)?;
        state.fold(entry).map_err(|illegal| bad(illegal.to_string()))?;
        if matches!(state.phase(), Phase::Finished { .. }) {
            place.remove();
            self.finished.insert(workflow);
        }
        Ok(())
    }
}

/// Whether the hashes of a commit and its entries are known to be those of what it holds.
#[derive(Clone, Copy)]
enum Hashes {
    Checked,
    ToBeChecked,
}

/// That an entry follows this one of its workflow.
fn check_place(entry: &Entry, last: Sequence, last_hash: Hash) -> Result<(), String> {
    if entry.sequence != last.next() {
        return Err(format!("it follows entry {last} of its workflow"));
    }
    if entry.previous != last_hash {
        return Err("it does not follow the entry before: the previous hash is another".to_owned());
    }
    Ok(())
}

fn check_entry_hash(entry: &Entry) -> Result<(), String> {
    let fact = codec::encode_fact(&entry.fact).map_err(|error| error.to_string())?;
    let Entry { workflow, sequence, token, time, previous, .. } = *entry;
    if entry_hash(workflow, sequence, token, time, previous, codec::VERSION, &fact) != entry.hash {
        return Err("its hash does not match what it holds".to_owned());
    }
    Ok(())
}
