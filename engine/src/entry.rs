//! An entry: a fact's envelope, with its place in the workflow's chain of hashes.
//!
//! Entries live in appends (what one workflow gained at once), appends in commits (what one sync made durable).

use serde::{Deserialize, Serialize};

use crate::{
    fact::Fact,
    ids::{CommitNumber, FencingToken, Hash, Sequence, Timestamp, WorkflowId},
};

/// One place in a workflow's journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose.
    pub workflow: WorkflowId,
    /// Which place: 1, 2, 3, no gap.
    pub sequence: Sequence,
    /// Which opening of the store wrote it.
    pub token: FencingToken,
    /// When, UTC. For people; order is by sequence.
    pub time: Timestamp,
    /// The hash of the entry before; all zeros for the first.
    pub previous: Hash,
    /// What happened.
    pub fact: Fact,
    /// BLAKE3 over all of the above.
    pub hash: Hash,
}

/// What one sync made durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Which: 1, 2, 3, no gap.
    pub number: CommitNumber,
    /// Which opening of the store wrote it. The first commit of each opening has no entries.
    pub token: FencingToken,
    /// When, UTC.
    pub time: Timestamp,
    /// The hash of the commit before; all zeros for the first.
    pub previous: Hash,
    /// BLAKE3 over number, token, time, previous hash and the hashes of the entries.
    pub hash: Hash,
    /// Its entries, in the order in which they were appended.
    pub entries: Vec<Entry>,
}
