//! What a store answers, read from its key space.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
};

use crate::{
    entry::Commit,
    ids::{CommitNumber, Hash, Sequence, Tenant, WorkflowId},
    journal::{
        codec::{self, Header},
        index, kept,
        keys::{self, Key, Order, Range, Read},
    },
    store::{ListQuery, Listed, ServiceRecord, StoreError},
};

pub(super) fn active(read: &dyn Read) -> Result<Vec<WorkflowId>, StoreError> {
    let mut active = Vec::new();
    read.scan(&keys::all_active(), Order::Ascending, &mut |key, _| {
        active.extend(keys::listed_workflow(key));
        ControlFlow::Continue(())
    })?;
    Ok(active)
}

pub(super) fn list(read: &dyn Read, query: &ListQuery) -> Result<Vec<Listed>, StoreError> {
    let prefix = keys::listing(query.tenant.as_ref(), query.service.as_ref());
    let (from, mut to) = keys::all_with(prefix.clone());
    if let Some(before) = query.before {
        to = prefix;
        to.extend_from_slice(before.as_bytes());
    }
    let mut found = Vec::new();
    if query.limit > 0 {
        read.scan(&(from, to), Order::Descending, &mut |key, _| {
            found.extend(keys::listed_workflow(key));
            if found.len() < query.limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
    }
    found
        .into_iter()
        .map(|workflow| {
            index::get(read, &keys::listed(workflow))?
                .ok_or_else(|| StoreError::Index(format!("workflow {workflow} is in a list only")))
        })
        .collect()
}

pub(super) fn each_service(
    read: &dyn Read,
    tenant: Option<&Tenant>,
    each: &mut dyn FnMut(ServiceRecord) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut bad = Ok(());
    read.scan(&keys::services(tenant), Order::Ascending, &mut |_, value| match index::read_service(value) {
        Ok(record) => each(record),
        Err(error) => {
            bad = Err(error);
            ControlFlow::Break(())
        }
    })?;
    bad
}

/// At most `max` commits after number `after`, rebuilt from their appends and checked against their hashes.
pub(super) fn commits(read: &dyn Read, after: CommitNumber, max: usize) -> Result<Vec<Commit>, StoreError> {
    let (mut from, mut previous) = (keys::commit(after.next()), Hash::default());
    if after > CommitNumber(0) {
        let Some((key, (header, _))) = kept_commit(read, after)? else { return Ok(Vec::new()) };
        // What follows may share a value with this one.
        (from, previous) = (key, header.hash);
    }
    let mut kept = Vec::new();
    let mut bad = Ok(());
    if max > 0 {
        read.scan(&keys::commits_from(from), Order::Ascending, &mut |_, value| {
            match commits_in(value) {
                Ok(found) => kept.extend(found.into_iter().filter(|(header, _)| header.number > after)),
                Err(error) => bad = Err(error),
            }
            if kept.len() < max && bad.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
    }
    bad?;
    kept.truncate(max);
    let mut commits = Vec::with_capacity(kept.len());
    let mut parts = Parts::default();
    for (header, places) in kept {
        let payload = rebuild(read, &header, &places, &mut parts)?;
        let commit = codec::decode_commit(&payload, previous).map_err(|bad| StoreError::Index(bad.to_string()))?;
        previous = commit.hash;
        commits.push(commit);
    }
    Ok(commits)
}

/// The last commit.
pub(super) fn head(read: &dyn Read) -> Result<Option<Header>, StoreError> {
    let mut last = None;
    read.scan(&keys::all_commits(), Order::Descending, &mut |_, value| {
        last = Some(commits_in(value));
        ControlFlow::Break(())
    })?;
    Ok(last.transpose()?.and_then(|kept| kept.last().map(|(header, _)| *header)))
}

/// What heads a commit.
pub(super) fn header(read: &dyn Read, number: CommitNumber) -> Result<Option<Header>, StoreError> {
    Ok(kept_commit(read, number)?.map(|(_, (header, _))| header))
}

/// Commits as the log framed them, of which many that follow each other are asked for: what they share is read once.
pub(super) struct Payloads<'a> {
    read: &'a dyn Read,
    /// The commits of the value that was looked at last.
    commits: Vec<Kept>,
    /// The appends of the workflows that were looked at last.
    appends: HashMap<WorkflowId, BTreeMap<Sequence, Vec<u8>>>,
    appends_bytes: usize,
}

/// The most that is remembered of appends: what is in flight at once, many times over.
const REMEMBERED_BYTES_MAX: usize = 32 << 20;

impl<'a> Payloads<'a> {
    pub(super) fn of(read: &'a dyn Read) -> Self {
        Self { read, commits: Vec::new(), appends: HashMap::new(), appends_bytes: 0 }
    }

    /// The bytes of this commit, if it is there.
    pub(super) fn get(&mut self, number: CommitNumber) -> Result<Option<Vec<u8>>, StoreError> {
        // Before the commit is looked at: one needs all of its own.
        if self.appends_bytes > REMEMBERED_BYTES_MAX {
            self.appends = HashMap::new();
            self.appends_bytes = 0;
        }
        if !self.commits.iter().any(|(header, _)| header.number == number) {
            let kept = kept_at(self.read, keys::commit(number), &keys::commits_up_to(number))?;
            self.commits = kept.map(|(_, value)| commits_in(&value)).transpose()?.unwrap_or_default();
        }
        let Some(at) = self.commits.iter().position(|(header, _)| header.number == number) else { return Ok(None) };
        let places = std::mem::take(&mut self.commits[at].1);
        let payload = self.rebuild(at, &places);
        self.commits[at].1 = places;
        payload.map(Some)
    }

    fn rebuild(&mut self, at: usize, places: &[(WorkflowId, Sequence)]) -> Result<Vec<u8>, StoreError> {
        for (workflow, first) in places {
            if !self.appends.get(workflow).is_some_and(|appends| appends.contains_key(first)) {
                self.remember(*workflow)?;
            }
        }
        let header = &self.commits[at].0;
        let mut appends = Vec::with_capacity(places.len());
        for (workflow, first) in places {
            let append = self.appends.get(workflow).and_then(|appends| appends.get(first));
            let missing =
                || StoreError::Index(format!("commit {}, workflow {workflow}: its entries are missing", header.number));
            appends.push(append.ok_or_else(missing)?.as_slice());
        }
        Ok(codec::encode_commit(header, appends))
    }

    fn remember(&mut self, workflow: WorkflowId) -> Result<(), StoreError> {
        let mut appends = BTreeMap::new();
        let (mut bytes, mut bad) = (0, Ok(()));
        self.read.scan(&keys::appends(workflow), Order::Ascending, &mut |_, value| {
            bad = appends_in(value, |first, append| {
                bytes += append.len();
                appends.insert(first, append.to_vec());
            });
            if bad.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        bad.map_err(|error| StoreError::Index(format!("workflow {workflow}: {error}")))?;
        self.appends_bytes += bytes;
        self.appends.insert(workflow, appends);
        Ok(())
    }
}

/// Calls `each` with the first sequence and the bytes of every append in a value.
fn appends_in(value: &[u8], mut each: impl FnMut(Sequence, &[u8])) -> Result<(), codec::CodecError> {
    for part in kept::parts(value)?.iter() {
        let (_, _, append) = codec::kept_append(part)?;
        each(codec::append_place(append)?.1, append);
    }
    Ok(())
}

/// A commit as the index keeps it: its header, and where its appends are.
type Kept = (Header, Vec<(WorkflowId, Sequence)>);

/// The commits that a value holds.
pub(super) fn commits_in(value: &[u8]) -> Result<Vec<Kept>, StoreError> {
    let bad = |error: codec::CodecError| StoreError::Index(format!("a kept commit: {error}"));
    kept::parts(value).map_err(bad)?.iter().map(|part| codec::decode_kept_commit(part).map_err(bad)).collect()
}

/// A commit, and the key that it is kept at.
fn kept_commit(read: &dyn Read, number: CommitNumber) -> Result<Option<(Key, Kept)>, StoreError> {
    let kept = kept_at(read, keys::commit(number), &keys::commits_up_to(number))?;
    let Some((key, value)) = kept else { return Ok(None) };
    Ok(commits_in(&value)?.into_iter().find(|(header, _)| header.number == number).map(|found| (key, found)))
}

/// Where what was put under this key is kept, and the value there: its own, or the last of `up_to`, which ends with it.
fn kept_at(read: &dyn Read, key: Key, up_to: &Range) -> Result<Option<(Key, Vec<u8>)>, StoreError> {
    // What is new is not gathered yet: it is found at once, and nothing before it is looked at.
    if let Some(value) = read.get(&key)? {
        return Ok(Some((key, value)));
    }
    let mut last = None;
    read.scan(up_to, Order::Descending, &mut |key, value| {
        last = Some((key.to_vec(), value.to_vec()));
        ControlFlow::Break(())
    })?;
    Ok(last)
}

/// The appends of values that were read for another append: what is kept together is mostly asked for together.
type Parts = HashMap<(WorkflowId, Sequence), Vec<u8>>;

fn rebuild(
    read: &dyn Read,
    header: &Header,
    places: &[(WorkflowId, Sequence)],
    parts: &mut Parts,
) -> Result<Vec<u8>, StoreError> {
    let mut appends = Vec::with_capacity(places.len());
    for place in places {
        let append = match parts.remove(place) {
            Some(append) => append,
            None => append(read, header.number, *place, parts)?,
        };
        appends.push(append);
    }
    Ok(codec::encode_commit(header, appends.iter().map(Vec::as_slice)))
}

/// This append; those that are kept with it and follow it go to `parts`.
fn append(
    read: &dyn Read,
    number: CommitNumber,
    (workflow, first): (WorkflowId, Sequence),
    parts: &mut Parts,
) -> Result<Vec<u8>, StoreError> {
    let bad = |detail: &str| StoreError::Index(format!("commit {number}, workflow {workflow}: {detail}"));
    let kept = kept_at(read, keys::append(workflow, first), &keys::appends_up_to(workflow, first))?;
    let (_, value) = kept.ok_or_else(|| bad("its entries are missing"))?;
    let mut wanted = None;
    let found = appends_in(&value, |sequence, append| {
        if sequence == first {
            wanted = Some(append.to_vec());
        } else if sequence > first {
            parts.insert((workflow, sequence), append.to_vec());
        }
    });
    found.map_err(|error| bad(&error.to_string()))?;
    wanted.ok_or_else(|| bad("its entries are missing"))
}
