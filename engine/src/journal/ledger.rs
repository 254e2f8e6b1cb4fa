//! What an append must meet, and what it changes: the same for every store.
//!
//! - [`Ledger::plan`] admits or refuses, in the order of the batch; what is refused leaves nothing.
//! - [`Ledger::follow`] makes the same changes from a commit that was made before: to catch up, or to rebuild.
//! - The states of active workflows are kept, so that an append needs no read; any of them can be folded again.

use std::{collections::HashMap, ops::ControlFlow};

use crate::{
    entry::{Commit, Entry},
    fact::{Fact, Output, Probe},
    ids::{CommitNumber, FencingToken, Hash, Sequence, Timestamp, WorkflowId},
    journal::{
        chain::{self, BadPlace},
        codec::{self, Header},
        index, kept,
        keys::{self, Changes, Order, Overlay, Read},
    },
    state::{Phase, WorkflowState, fold},
    store::{Append, Refusal, StoreError},
};

/// Where a journal is.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) token: FencingToken,
    pub(crate) head: (CommitNumber, Hash),
    /// When the last commit was made: none is earlier than the one before it (I18).
    pub(crate) time: Timestamp,
    states: HashMap<WorkflowId, WorkflowState>,
}

/// What a batch of appends comes to.
pub(crate) struct Plan {
    pub(crate) answers: Vec<Result<Vec<Entry>, Refusal>>,
    /// None if all were refused.
    pub(crate) commit: Option<Planned>,
}

/// A commit that is still to be made durable.
pub(crate) struct Planned {
    pub(crate) header: Header,
    /// As the log frames it.
    pub(crate) payload: Vec<u8>,
    /// As the index takes it.
    pub(crate) changes: Changes,
}

impl Ledger {
    /// The ledger of a journal with this head, which has this token and this time.
    pub(crate) fn at(token: FencingToken, head: (CommitNumber, Hash), time: Timestamp) -> Self {
        Self { token, head, time, states: HashMap::new() }
    }

    /// The commit that begins an opening: empty, with the next token.
    pub(crate) fn open(&mut self, now: Timestamp) -> Planned {
        self.token = self.token.next();
        self.seal(now.max(self.time), Changes::new(), &[], &[])
    }

    /// Admits or refuses each append. The ledger is then where it will be once the commit is durable: if that fails,
    /// it must not be used any more.
    pub(crate) fn plan(&mut self, read: &dyn Read, appends: Vec<Append>, now: Timestamp) -> Result<Plan, StoreError> {
        let now = now.max(self.time);
        let mut batch = Overlay::new(read);
        let mut encoded = Vec::new();
        let mut hashes = Vec::new();
        let mut answers = Vec::with_capacity(appends.len());
        for append in appends {
            answers.push(match self.admit(&batch, append, now)? {
                Ok(admitted) => {
                    batch.absorb(admitted.changes);
                    encoded.push(admitted.bytes);
                    hashes.extend(admitted.entries.iter().map(|entry| entry.hash));
                    Ok(admitted.entries)
                }
                Err(refusal) => Err(refusal),
            });
        }
        let changes = batch.into_changes();
        let commit = (!encoded.is_empty()).then(|| self.seal(now, changes, &encoded, &hashes));
        Ok(Plan { answers, commit })
    }

    /// Brings `space` to where it is after `commit`, which was decoded from `payload`.
    pub(crate) fn follow(
        &mut self,
        space: &mut Overlay<'_>,
        commit: &Commit,
        payload: &[u8],
    ) -> Result<Result<(), BadPlace>, StoreError> {
        let (header, appends) = codec::split_commit(payload).expect("it was decoded before");
        let mut places = Vec::with_capacity(appends.len());
        for append in appends {
            let place = codec::append_place(append).expect("it was decoded before");
            let kept = codec::encode_kept_append(header.token, header.time, append);
            space.put(keys::append(place.0, place.1), kept::one(&kept));
            places.push(place);
        }
        if let Err(bad) = self.derive(space, commit)? {
            return Ok(Err(bad));
        }
        space.put(keys::commit(header.number), kept::one(&codec::encode_kept_commit(&header, &places)));
        Ok(Ok(()))
    }

    /// Brings the derived keys of `space` to where they are after `commit`.
    pub(crate) fn derive(
        &mut self,
        space: &mut Overlay<'_>,
        commit: &Commit,
    ) -> Result<Result<(), BadPlace>, StoreError> {
        for entry in &commit.entries {
            let bad = |detail: String| BadPlace {
                entry: Some((entry.workflow, entry.sequence)),
                ..BadPlace::commit(commit.number, detail)
            };
            let known = match self.states.remove(&entry.workflow) {
                None if entry.sequence > Sequence(1) => read_state(space, entry.workflow, entry.sequence)?,
                known => known,
            };
            let folded = match known {
                None => WorkflowState::begin(entry),
                Some(mut state) => state.fold(entry).map(|()| state),
            };
            let state = match folded {
                Ok(state) => state,
                Err(illegal) => return Ok(Err(bad(illegal.to_string()))),
            };
            index::derive(space, &state, &entry.fact, entry.time)?;
            self.keep(state);
        }
        self.token = commit.token;
        self.head = (commit.number, commit.hash);
        self.time = commit.time;
        Ok(Ok(()))
    }

    fn seal(&mut self, now: Timestamp, mut changes: Changes, appends: &[Encoded], hashes: &[Hash]) -> Planned {
        let number = self.head.0.next();
        let hash = chain::commit_hash(number, self.token, now, self.head.1, hashes);
        let header = Header { number, token: self.token, time: now, hash };
        let places: Vec<_> = appends.iter().map(|append| (append.workflow, append.first)).collect();
        changes.insert(keys::commit(number), Some(kept::one(&codec::encode_kept_commit(&header, &places))));
        let payload = codec::encode_commit(&header, appends.iter().map(|append| &*append.bytes));
        self.head = (number, hash);
        self.time = now;
        Planned { header, payload, changes }
    }

    fn admit(
        &mut self,
        batch: &Overlay<'_>,
        append: Append,
        now: Timestamp,
    ) -> Result<Result<Admitted, Refusal>, StoreError> {
        let Append { workflow, expected, token, facts, quota } = append;
        if token != self.token {
            return Ok(Err(Refusal::Fenced { token, current: self.token }));
        }
        let illegal = |detail: String| Refusal::Illegal { workflow, detail };
        if facts.is_empty() {
            return Ok(Err(illegal("an append holds at least one fact".to_owned())));
        }
        let known = match self.states.remove(&workflow) {
            None => read_state(batch, workflow, Sequence(u64::MAX))?,
            known => known,
        };
        let actual = known.as_ref().map(WorkflowState::sequence).unwrap_or_default();
        if actual != expected {
            known.into_iter().for_each(|state| self.keep(state));
            return Ok(Err(Refusal::Sequence { workflow, expected, actual }));
        }
        if known.is_none() {
            let Some(Fact::Submitted(submitted)) = facts.first() else {
                return Ok(Err(illegal("a workflow begins with `submitted`".to_owned())));
            };
            if let Err(refusal) = index::admit(batch, submitted, &quota)? {
                return Ok(Err(refusal));
            }
        }
        let mut gaining = Gaining { workflow, token, now, state: known, bytes: Vec::new(), entries: Vec::new() };
        let mut own = Overlay::new(batch);
        for fact in facts {
            if let Err(detail) = gaining.fact(&mut own, without_null_records(fact))? {
                // What was folded before the illegal fact must be forgotten with it: the state is read anew when needed.
                gaining.state.filter(|_| gaining.entries.is_empty()).into_iter().for_each(|state| self.keep(state));
                return Ok(Err(illegal(detail)));
            }
        }
        let Gaining { state, bytes, entries, .. } = gaining;
        let first = expected.next();
        let previous = entries.first().map(|entry| entry.previous).unwrap_or_default();
        let bytes = Encoded { workflow, first, bytes: codec::encode_append(workflow, first, previous, &bytes) };
        let mut changes = own.into_changes();
        // Here already, so that what is later in the batch can read the workflow back.
        let kept = codec::encode_kept_append(token, now, &bytes.bytes);
        changes.insert(keys::append(workflow, first), Some(kept::one(&kept)));
        state.into_iter().for_each(|state| self.keep(state));
        Ok(Ok(Admitted { entries, bytes, changes }))
    }

    fn keep(&mut self, state: WorkflowState) {
        if !matches!(state.phase(), Phase::Finished { .. }) {
            self.states.insert(state.id(), state);
        }
    }
}

struct Admitted {
    entries: Vec<Entry>,
    bytes: Encoded,
    changes: Changes,
}

struct Encoded {
    workflow: WorkflowId,
    first: Sequence,
    bytes: Vec<u8>,
}

/// An append, while its facts are checked one after the other.
struct Gaining {
    workflow: WorkflowId,
    token: FencingToken,
    now: Timestamp,
    state: Option<WorkflowState>,
    bytes: Vec<Vec<u8>>,
    entries: Vec<Entry>,
}

impl Gaining {
    /// Takes one more fact, or says why it may not follow; the state is then as before.
    fn fact(&mut self, space: &mut Overlay<'_>, fact: Fact) -> Result<Result<(), String>, StoreError> {
        let bytes = match codec::encode_fact(&fact) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let Self { workflow, token, now: time, .. } = *self;
        let (sequence, previous) = self
            .state
            .as_ref()
            .map(|state| (state.sequence().next(), state.hash()))
            .unwrap_or((Sequence(1), Hash::default()));
        let hash = chain::entry_hash(workflow, sequence, token, time, previous, codec::VERSION, &bytes);
        let entry = Entry { workflow, sequence, token, time, previous, fact, hash };
        let folded = match &mut self.state {
            Some(state) => state.fold(&entry),
            None => WorkflowState::begin(&entry).map(|state| self.state = Some(state)),
        };
        if let Err(illegal) = folded {
            return Ok(Err(illegal.to_string()));
        }
        let state = self.state.as_ref().expect("it was folded or begun just now");
        index::derive(space, state, &entry.fact, time)?;
        self.bytes.push(bytes);
        self.entries.push(entry);
        Ok(Ok(()))
    }
}

/// The same fact, a record of `null` being none: JSON, and so an export, shows them alike.
fn without_null_records(mut fact: Fact) -> Fact {
    let clear = |output: &mut Output| output.record.take_if(|record| record.as_bytes() == b"null");
    match &mut fact {
        Fact::AttemptSucceeded { output, .. } | Fact::Probed { answer: Probe::Applied { output }, .. } => {
            clear(output);
        }
        _ => {}
    }
    fact
}

/// The state of a workflow before entry `end`; `None` if there is no such workflow.
fn read_state(read: &dyn Read, workflow: WorkflowId, end: Sequence) -> Result<Option<WorkflowState>, StoreError> {
    let mut entries = read_workflow(read, workflow)?;
    entries.retain(|entry| entry.sequence < end);
    fold(&entries).map_err(|illegal| damaged(workflow, illegal.to_string()))
}

/// All entries of a workflow, their chain checked.
pub(crate) fn read_workflow(read: &dyn Read, workflow: WorkflowId) -> Result<Vec<Entry>, StoreError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut bad = None;
    read.scan(&keys::appends(workflow), Order::Ascending, &mut |_, value| match gain(&mut entries, value) {
        Ok(()) => ControlFlow::Continue(()),
        Err(detail) => {
            bad = Some(detail);
            ControlFlow::Break(())
        }
    })?;
    match bad {
        Some(detail) => Err(damaged(workflow, detail)),
        None => Ok(entries),
    }
}

/// Adds the entries of a kept value, or says why they do not follow.
fn gain(entries: &mut Vec<Entry>, value: &[u8]) -> Result<(), String> {
    for part in kept::parts(value).map_err(|error| error.to_string())?.iter() {
        let gained =
            codec::kept_append(part).and_then(|(token, time, append)| codec::decode_append(append, token, time));
        let gained = gained.map_err(|error| error.to_string())?;
        let (last, hash) = entries.last().map(|entry| (entry.sequence, entry.hash)).unwrap_or_default();
        if gained.first().is_none_or(|entry| entry.sequence != last.next() || entry.previous != hash) {
            return Err(format!("what follows entry {last} does not belong there"));
        }
        entries.extend(gained);
    }
    Ok(())
}

fn damaged(workflow: WorkflowId, detail: String) -> StoreError {
    StoreError::Index(format!("workflow {workflow}: {detail}"))
}
