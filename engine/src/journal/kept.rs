//! How the index keeps what was appended: several appends, or several commits, to a value.
//!
//! - A store puts each append and each commit as a value of its own. Before they go to sled, those of one workflow that
//!   follow each other are gathered into one value under the first one's key, and so are commits: a workflow that is over
//!   within one batch is one key. Whoever looks for one reads the value at its key, or at the last key before it.
//! - What was gathered is compressed: names and words repeat from step to step.
//! - Only what is put in the same batch is gathered: nothing that was put before changes.

use std::{borrow::Cow, cell::RefCell, io::Read as _};

use zstd::{
    bulk::Compressor,
    zstd_safe::{DCtx, ResetDirective},
};

use crate::journal::{
    codec::{self, CodecError},
    keys::{self, Changes, Key},
};

/// So much is gathered into one value, unless one alone is larger: it stays below a piece of the index.
const GATHERED_BYTES_MAX: usize = 14 * 1024;
/// Less than that is not worth compressing.
const COMPRESSED_FROM_BYTES: usize = 256;
/// The most that a value may be when it is decompressed.
const VALUE_BYTES_MAX: usize = codec::COMMIT_BYTES_MAX;
/// The fastest: what makes a value small is that workflows repeat themselves, and level 1 sees that.
const LEVEL: i32 = 1;

/// A value's first byte.
const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;

/// A value that holds this alone.
pub(crate) fn one(part: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(part.len() + 5);
    value.push(PLAIN);
    value.extend(length(part));
    value.extend_from_slice(part);
    value
}

/// The parts of a value, in the order in which they were put.
pub(crate) fn parts(value: &[u8]) -> Result<Parts<'_>, CodecError> {
    let bytes = match value.split_first() {
        Some((&PLAIN, parts)) => Cow::Borrowed(parts),
        Some((&COMPRESSED, packed)) => Cow::Owned(unpack(packed)?),
        _ => return Err(malformed("a kept value of an unknown kind")),
    };
    let mut places = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes[at..].first_chunk().ok_or_else(|| malformed("a kept part without a length"))?;
        let from = at + length.len();
        at = from.saturating_add(u32::from_be_bytes(*length) as usize);
        if at > bytes.len() {
            return Err(malformed("a kept part that lacks its end"));
        }
        places.push((from, at));
    }
    Ok(Parts { bytes, places })
}

/// What a value holds.
pub(crate) struct Parts<'a> {
    bytes: Cow<'a, [u8]>,
    places: Vec<(usize, usize)>,
}

impl Parts<'_> {
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.places.iter().map(|(from, to)| &self.bytes[*from..*to])
    }
}

/// The keys and values that the appends and commits among `changes` become.
pub(crate) fn gathered(changes: &Changes) -> Vec<(Key, Vec<u8>)> {
    let mut gathered: Vec<(Key, Vec<u8>)> = Vec::new();
    for (key, value) in changes {
        let Some(value) = value.as_ref().filter(|_| keys::is_put_once(key)) else { continue };
        match gathered.last_mut() {
            Some((first, before))
                if keys::are_gathered(first, key) && before.len() + value.len() <= GATHERED_BYTES_MAX =>
            {
                // Both are plain: a store puts nothing else.
                before.extend_from_slice(&value[1..]);
            }
            _ => gathered.push((key.clone(), value.clone())),
        }
    }
    let mut compressor = Compressor::new(LEVEL).ok();
    for (_, value) in &mut gathered {
        if let Some(packed) = compressor.as_mut().and_then(|compressor| packed(compressor, value)) {
            *value = packed;
        }
    }
    gathered
}

/// The same value, compressed; `None` where that does not make it smaller.
fn packed(compressor: &mut Compressor<'_>, value: &[u8]) -> Option<Vec<u8>> {
    if value.len() < COMPRESSED_FROM_BYTES {
        return None;
    }
    let packed = compressor.compress(&value[1..]).ok().filter(|packed| packed.len() + 5 < value.len())?;
    let mut bytes = Vec::with_capacity(packed.len() + 5);
    bytes.push(COMPRESSED);
    bytes.extend(length(&value[1..]));
    bytes.extend(packed);
    Some(bytes)
}

thread_local! {
    /// To make one takes thirty times as long as to unpack a value.
    static UNPACKING: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, CodecError> {
    let (length, packed) = packed.split_first_chunk().ok_or_else(|| malformed("a kept value without a length"))?;
    let bytes = u32::from_be_bytes(*length) as usize;
    if bytes > VALUE_BYTES_MAX {
        return Err(malformed("a kept value of an impossible length"));
    }
    // It grows as it is filled: a hostile length costs no memory.
    let mut unpacked = Vec::with_capacity(bytes.min(GATHERED_BYTES_MAX) + 1);
    let read = UNPACKING.with_borrow_mut(|context| {
        // What a value that did not unpack has left there.
        context.reset(ResetDirective::SessionOnly).expect("a session can always be ended");
        zstd::Decoder::with_context(packed, context).take(bytes as u64 + 1).read_to_end(&mut unpacked)
    });
    read.map_err(|error| malformed(&error.to_string()))?;
    if unpacked.len() != bytes {
        return Err(malformed("a kept value of another length"));
    }
    Ok(unpacked)
}

fn length(part: &[u8]) -> [u8; 4] {
    u32::try_from(part.len()).expect("a commit is bounded").to_be_bytes()
}

fn malformed(detail: &str) -> CodecError {
    CodecError::Malformed(detail.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{CommitNumber, Sequence, WorkflowId};

    fn shown(value: &[u8]) -> Vec<Vec<u8>> {
        parts(value).expect("it was made here").iter().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn what_follows_each_other_in_one_workflow_shares_a_value_and_commits_do() {
        let (one_id, other) = (WorkflowId::from_bytes([1; 16]), WorkflowId::from_bytes([2; 16]));
        let put = |key: Key, part: &str| (key, Some(one(part.as_bytes())));
        let changes = Changes::from([
            put(keys::append(one_id, Sequence(1)), "a"),
            put(keys::append(one_id, Sequence(3)), "b"),
            put(keys::append(other, Sequence(7)), "c"),
            put(keys::commit(CommitNumber(8)), "d"),
            put(keys::commit(CommitNumber(9)), "e"),
            (keys::active(other), Some(Vec::new())),
            (keys::active(one_id), None),
        ]);
        let gathered: Vec<_> = gathered(&changes).iter().map(|(key, value)| (key.clone(), shown(value))).collect();
        let parts = |parts: &[&str]| parts.iter().map(|part| part.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(
            gathered,
            [
                (keys::commit(CommitNumber(8)), parts(&["d", "e"])),
                (keys::append(one_id, Sequence(1)), parts(&["a", "b"])),
                (keys::append(other, Sequence(7)), parts(&["c"])),
            ]
        );
    }

    #[test]
    fn a_value_is_never_larger_than_a_piece_unless_one_part_is() {
        let id = WorkflowId::from_bytes([1; 16]);
        let changes: Changes =
            (1..100).map(|number| (keys::append(id, Sequence(number)), Some(one(&[7; 1000])))).collect();
        let gathered = gathered(&changes);
        assert!(gathered.len() > 4 && gathered.iter().all(|(_, value)| shown(value).len() <= 24));
        assert_eq!(gathered.iter().map(|(_, value)| shown(value).len()).sum::<usize>(), 99);
    }

    proptest! {
        /// I30: whatever bytes are there instead, reading them is an error or some parts, never a panic, and costs no
        /// more memory than they could stand for.
        #[test]
        fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parts(&bytes);
        }

        #[test]
        fn what_was_gathered_reads_as_it_was_put(
            lengths in prop::collection::vec((0usize..3000, any::<u8>()), 1..40),
        ) {
            let id = WorkflowId::from_bytes([1; 16]);
            let put: Vec<Vec<u8>> = lengths
                .iter()
                .map(|(length, seed)| (0..*length).map(|at| (at as u8).wrapping_mul(*seed)).collect())
                .collect();
            let changes: Changes =
                (1..).zip(&put).map(|(at, part)| (keys::append(id, Sequence(at)), Some(one(part)))).collect();
            let read: Vec<_> = gathered(&changes).iter().flat_map(|(_, value)| shown(value)).collect();
            prop_assert_eq!(read, put);
        }
    }
}
