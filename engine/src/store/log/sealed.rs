//! Sealed segments: nothing is appended to them any more, and a start may pass them over.
//!
//! - A start is as long as the log's end, not as the log: of what lies before, it reads the headers.
//! - It passes over a segment only if the header is there, the file is as long as it was made, and both copies have the same
//!   commit, by its hash, at each of its borders: the hash covers everything before. Else the whole log is read.
//! - So a start finds a segment that is missing, cut short, swapped, of another journal or damaged in its header. What it
//!   does not find is damage within a frame of a sealed segment: they are read one by one once the journal is open.

use crate::ids::{CommitNumber, Hash};

use super::{
    recover::{COMPARED_COMMITS, OtherCopy},
    segment::Header,
};

/// What there is to see of a segment without reading it.
#[derive(Debug, Default)]
pub(super) struct Peeked {
    /// The number of its first commit, as its header says, or else its first frame.
    pub(super) first: Option<CommitNumber>,
    /// Its header, if the file is as long as that says.
    pub(super) header: Option<Header>,
}

/// A segment between two borders that both copies agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Sealed {
    /// Its number, the number of its first commit, and the hash of the commit before that.
    pub(in crate::store) begin: (u64, CommitNumber, Hash),
    /// The number of the first commit of the next segment, and the hash of the commit before that.
    pub(in crate::store) end: (CommitNumber, Hash),
}

/// The segments that need not be read before the last `read_bytes` of the log; none where anything is doubtful. `known` is
/// the last commit of `other`: the segment that has it is read. Where that copy may have lost some of what it wrote, all
/// commits are read that it is compared with.
pub(super) fn passed(peeked: &[Peeked], read_bytes: u64, other: &dyn OtherCopy, known: CommitNumber) -> Vec<Sealed> {
    let mut headers = Vec::with_capacity(peeked.len());
    for peeked in peeked {
        match peeked.header {
            Some(header) => headers.push(header),
            None => return Vec::new(),
        }
    }
    let Some(mut first_read) = headers.len().checked_sub(1) else { return Vec::new() };
    let needed = match other.lost_nothing() {
        true => known,
        false => CommitNumber(known.0.saturating_sub(COMPARED_COMMITS)),
    };
    // How much of the last segment is written is not known: it does not count.
    let mut bytes = 0_u64;
    while first_read > 0 && (bytes < read_bytes || headers[first_read].first > needed) {
        first_read -= 1;
        bytes = bytes.saturating_add(headers[first_read].bytes);
    }
    let begins = |at: usize| {
        let Header { first, previous, .. } = headers[at];
        (first, previous)
    };
    let agree = |at: usize| {
        let (first, previous) = begins(at);
        match at {
            0 => (first, previous) == (CommitNumber(1), Hash::default()),
            _ => first > begins(at - 1).0 && other.hash(CommitNumber(first.0 - 1)) == Some(previous),
        }
    };
    if !(0..=first_read).all(agree) {
        return Vec::new();
    }
    let sealed = |at: usize| {
        let (first, previous) = begins(at);
        Sealed { begin: (headers[at].segment, first, previous), end: begins(at + 1) }
    };
    (0..first_read).map(sealed).collect()
}
