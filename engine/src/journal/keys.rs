//! The one key space of a store: ordered keys, prefixed by what they are.
//!
//! - Numbers are big-endian and ids are UUIDv7, so that a range comes in the order of time.
//! - Texts end with two zero bytes, and a zero byte in one is escaped: no two keys are alike, and texts sort as they read.
//! - [`DERIVED`] can be made again from the rest.

use std::{collections::BTreeMap, ops::ControlFlow};

use crate::{
    ids::{CommitNumber, IdempotencyKey, Sequence, Service, Tenant, WorkflowId},
    store::StoreError,
};

const COMMIT: u8 = b'c';
const APPEND: u8 = b'e';
const ACTIVE: u8 = b'a';
const SUBMISSION: u8 = b'i';
const LISTED: u8 = b'l';
const USAGE: u8 = b'q';
const SERVICE: u8 = b's';
const BY_TENANT: u8 = b't';
const BY_SERVICE: u8 = b'u';
const BY_SERVICE_NAME: u8 = b'v';

/// The first bytes of the keys that are derived from the entries.
pub(crate) const DERIVED: [u8; 8] =
    [ACTIVE, SUBMISSION, LISTED, USAGE, SERVICE, BY_TENANT, BY_SERVICE, BY_SERVICE_NAME];

pub(crate) type Key = Vec<u8>;

/// Keys from the first on, before the second.
pub(crate) type Range = (Key, Key);

/// A commit's header and the places of its appends.
pub(crate) fn commit(number: CommitNumber) -> Key {
    key(COMMIT, &number.0.to_be_bytes())
}

/// What a workflow gained from this sequence on.
pub(crate) fn append(workflow: WorkflowId, first: Sequence) -> Key {
    let mut key = key(APPEND, workflow.as_bytes());
    key.extend(first.0.to_be_bytes());
    key
}

pub(crate) fn appends(workflow: WorkflowId) -> Range {
    all_with(key(APPEND, workflow.as_bytes()))
}

/// A workflow that is not finished.
pub(crate) fn active(workflow: WorkflowId) -> Key {
    key(ACTIVE, workflow.as_bytes())
}

/// What lists show of a workflow.
pub(crate) fn listed(workflow: WorkflowId) -> Key {
    key(LISTED, workflow.as_bytes())
}

/// The index of this name: its keys end with a workflow's id, and have no values.
pub(crate) fn listing(tenant: Option<&Tenant>, service: Option<&Service>) -> Key {
    let mut key = match (tenant, service) {
        (None, None) => vec![LISTED],
        (Some(_), None) => vec![BY_TENANT],
        (Some(_), Some(_)) => vec![BY_SERVICE],
        (None, Some(_)) => vec![BY_SERVICE_NAME],
    };
    for name in [tenant.map(Tenant::as_str), service.map(Service::as_str)].into_iter().flatten() {
        text(&mut key, name);
    }
    key
}

pub(crate) fn submission(tenant: &Tenant, name: &IdempotencyKey) -> Key {
    let mut key = vec![SUBMISSION];
    text(&mut key, tenant.as_str());
    text(&mut key, name.as_str());
    key
}

pub(crate) fn usage(tenant: &Tenant) -> Key {
    let mut key = vec![USAGE];
    text(&mut key, tenant.as_str());
    key
}

pub(crate) fn service(tenant: &Tenant, name: &Service) -> Key {
    let mut key = vec![SERVICE];
    text(&mut key, tenant.as_str());
    text(&mut key, name.as_str());
    key
}

pub(crate) fn services(tenant: Option<&Tenant>) -> Range {
    let mut prefix = vec![SERVICE];
    if let Some(tenant) = tenant {
        text(&mut prefix, tenant.as_str());
    }
    all_with(prefix)
}

pub(crate) fn all_active() -> Range {
    all_with(vec![ACTIVE])
}

/// Commits from the one under this key on.
pub(crate) fn commits_from(key: Key) -> Range {
    let (_, to) = all_with(vec![COMMIT]);
    (key, to)
}

pub(crate) fn all_commits() -> Range {
    all_with(vec![COMMIT])
}

/// All keys that begin like this.
pub(crate) fn all_with(prefix: Key) -> Range {
    let mut to = prefix.clone();
    while let Some(last) = to.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return (prefix, to);
        }
        to.pop();
    }
    unreachable!("every prefix begins with a letter");
}

/// Whether what is under `next` may share a value with what is under `first`, which is not after it: appends of one
/// workflow, or commits.
pub(crate) fn are_gathered(first: &[u8], next: &[u8]) -> bool {
    match first.first() {
        Some(&COMMIT) => next.first() == Some(&COMMIT),
        Some(&APPEND) => first.len() == next.len() && first[..1 + 16] == next[..1 + 16],
        _ => false,
    }
}

/// The keys at which this commit may be kept: it is in the value of the last one.
pub(crate) fn commits_up_to(number: CommitNumber) -> Range {
    (vec![COMMIT], commit(number.next()))
}

/// The keys at which this append may be kept: it is in the value of the last one.
pub(crate) fn appends_up_to(workflow: WorkflowId, first: Sequence) -> Range {
    (key(APPEND, workflow.as_bytes()), append(workflow, first.next()))
}

/// Whether the value under such a key never changes: what was appended does not.
pub(crate) fn is_put_once(key: &[u8]) -> bool {
    matches!(key.first(), Some(&(COMMIT | APPEND)))
}

/// Whether the value under such a key is always a short one: names, ids, a few amounts.
pub(crate) fn is_short(key: &[u8]) -> bool {
    matches!(key.first(), Some(&(ACTIVE | SUBMISSION | LISTED | USAGE | BY_TENANT | BY_SERVICE | BY_SERVICE_NAME)))
}

/// The id that a listing's key ends with.
pub(crate) fn listed_workflow(key: &[u8]) -> Option<WorkflowId> {
    key.last_chunk::<16>().map(|bytes| WorkflowId::from_bytes(*bytes))
}

/// The number in a commit's key.
pub(crate) fn commit_number(key: &[u8]) -> Option<CommitNumber> {
    key.last_chunk::<8>().map(|bytes| CommitNumber(u64::from_be_bytes(*bytes)))
}

fn key(prefix: u8, rest: &[u8]) -> Key {
    let mut key = Vec::with_capacity(1 + rest.len() + 8);
    key.push(prefix);
    key.extend_from_slice(rest);
    key
}

fn text(key: &mut Key, text: &str) {
    for byte in text.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(u8::MAX);
        }
    }
    key.extend([0, 0]);
}

/// Which end of a range comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Ascending,
    Descending,
}

/// What a scan calls with each key and value.
pub(crate) type Each<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Reading a key space.
pub(crate) trait Read {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Calls `each` with what is in the range, in this order, until it breaks.
    fn scan(&self, range: &Range, order: Order, each: &mut Each<'_>) -> Result<(), StoreError>;
}

/// Keys to put, or with `None` to remove.
pub(crate) type Changes = BTreeMap<Key, Option<Vec<u8>>>;

/// A key space in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Map(pub(crate) BTreeMap<Key, Vec<u8>>);

impl Map {
    pub(crate) fn apply(&mut self, changes: Changes) {
        for (key, value) in changes {
            match value {
                Some(value) => self.0.insert(key, value),
                None => self.0.remove(&key),
            };
        }
    }
}

impl Read for Map {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, (from, to): &Range, order: Order, each: &mut Each<'_>) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let mut range = self.0.range(from.clone()..to.clone());
        while let Some((key, value)) = if order == Order::Ascending { range.next() } else { range.next_back() } {
            if each(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// A key space as it will be once `changes` are applied to it.
pub(crate) struct Overlay<'a> {
    base: &'a dyn Read,
    changes: Changes,
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(base: &'a dyn Read) -> Self {
        Self { base, changes: Changes::new() }
    }

    pub(crate) fn put(&mut self, key: Key, value: Vec<u8>) {
        self.changes.insert(key, Some(value));
    }

    pub(crate) fn remove(&mut self, key: Key) {
        self.changes.insert(key, None);
    }

    pub(crate) fn absorb(&mut self, changes: Changes) {
        self.changes.extend(changes);
    }

    pub(crate) fn into_changes(self) -> Changes {
        self.changes
    }
}

impl Read for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(key),
        }
    }

    /// Gathers the whole range first: only ranges of one workflow are scanned while changes wait.
    fn scan(&self, range: &Range, order: Order, each: &mut Each<'_>) -> Result<(), StoreError> {
        let mut found = Map::default();
        self.base.scan(range, order, &mut |key, value| {
            found.0.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        })?;
        let (from, to) = range.clone();
        found.apply(self.changes.range(from..to).map(|(key, value)| (key.clone(), value.clone())).collect());
        found.scan(range, order, each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_share_their_beginning_have_keys_apart_and_in_order() {
        let names = ["a", "a\0", "a\0b", "ab", "b"].map(Tenant::new);
        let keys: Vec<_> = names.iter().map(usage).collect();
        assert!(keys.is_sorted() && keys.windows(2).all(|pair| pair[0] != pair[1]));
        for (at, name) in names.iter().enumerate() {
            let (from, to) = services(Some(name));
            let within = |tenant: &Tenant| (&from..&to).contains(&&service(tenant, &"s".into()));
            assert!(names.iter().enumerate().all(|(other, tenant)| within(tenant) == (other == at)));
        }
    }
}
