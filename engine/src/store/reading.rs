//! What a store answers, read from its key space.

use std::ops::ControlFlow;

use crate::{
    entry::Commit,
    ids::{CommitNumber, Hash, Sequence, WorkflowId},
    journal::{
        codec::{self, Header},
        index,
        keys::{self, Order, Read},
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

pub(super) fn services(read: &dyn Read, tenant: Option<&crate::ids::Tenant>) -> Result<Vec<ServiceRecord>, StoreError> {
    let mut values = Vec::new();
    read.scan(&keys::services(tenant), Order::Ascending, &mut |_, value| {
        values.push(index::read_service(value));
        ControlFlow::Continue(())
    })?;
    values.into_iter().collect()
}

/// At most `max` commits after number `after`, rebuilt from their appends and checked against their hashes.
pub(super) fn commits(read: &dyn Read, after: CommitNumber, max: usize) -> Result<Vec<Commit>, StoreError> {
    let Some(mut previous) = hash_of(read, after)? else { return Ok(Vec::new()) };
    let mut kept = Vec::new();
    if max > 0 {
        read.scan(&keys::commits_after(after), Order::Ascending, &mut |_, value| {
            kept.push(value.to_vec());
            if kept.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
    }
    let mut commits = Vec::with_capacity(kept.len());
    for value in kept {
        let (_, payload) = rebuild(read, &value)?;
        let commit = codec::decode_commit(&payload, previous).map_err(|bad| StoreError::Index(bad.to_string()))?;
        previous = commit.hash;
        commits.push(commit);
    }
    Ok(commits)
}

/// The hash of a commit; all zeros for number 0, `None` if there is no such commit.
pub(super) fn hash_of(read: &dyn Read, number: CommitNumber) -> Result<Option<Hash>, StoreError> {
    if number == CommitNumber(0) {
        return Ok(Some(Hash::default()));
    }
    Ok(header(read, number)?.map(|header| header.hash))
}

/// What heads a commit.
pub(super) fn header(read: &dyn Read, number: CommitNumber) -> Result<Option<Header>, StoreError> {
    let Some(value) = read.get(&keys::commit(number))? else { return Ok(None) };
    codec::decode_kept_commit(&value)
        .map(|(header, _)| Some(header))
        .map_err(|error| StoreError::Index(format!("commit {number}: {error}")))
}

/// The last commit.
pub(super) fn head(read: &dyn Read) -> Result<Option<Header>, StoreError> {
    let mut last = None;
    read.scan(&keys::all_commits(), Order::Descending, &mut |_, value| {
        last = Some(codec::decode_kept_commit(value).map(|(header, _)| header));
        ControlFlow::Break(())
    })?;
    last.transpose().map_err(|error| StoreError::Index(format!("the last commit: {error}")))
}

/// The bytes of a commit as the log framed them.
pub(super) fn payload(read: &dyn Read, number: CommitNumber) -> Result<Option<Vec<u8>>, StoreError> {
    match read.get(&keys::commit(number))? {
        Some(value) => rebuild(read, &value).map(|(_, payload)| Some(payload)),
        None => Ok(None),
    }
}

fn rebuild(read: &dyn Read, value: &[u8]) -> Result<(Header, Vec<u8>), StoreError> {
    let (header, places) = codec::decode_kept_commit(value).map_err(|error| StoreError::Index(error.to_string()))?;
    let mut appends = Vec::with_capacity(places.len());
    for (workflow, first) in places {
        appends.push(append(read, header.number, workflow, first)?);
    }
    Ok((header, codec::encode_commit(&header, appends.iter().map(Vec::as_slice))))
}

fn append(read: &dyn Read, number: CommitNumber, workflow: WorkflowId, first: Sequence) -> Result<Vec<u8>, StoreError> {
    let bad = |detail: String| StoreError::Index(format!("commit {number}, workflow {workflow}: {detail}"));
    let kept = read.get(&keys::append(workflow, first))?.ok_or_else(|| bad("its entries are missing".to_owned()))?;
    let (_, _, append) = codec::kept_append(&kept).map_err(|error| bad(error.to_string()))?;
    Ok(append.to_vec())
}
