//! Entries as bytes, and back.
//!
//! - One version byte before everything; a decoder for every version ever written stays (`v1`, …).
//! - An append shares workflow, first sequence and previous hash among its entries; token and time are its commit's.
//! - A fact's bytes are kept as they were hashed, so that nothing is encoded again to check a hash.
//! - Every decode has a limit: hostile lengths cost no memory.

mod v1;

use crate::{
    entry::{Commit, Entry},
    fact::Fact,
    ids::{CommitNumber, FencingToken, Hash, Sequence, Timestamp, WorkflowId},
    journal::chain::{self, BadPlace},
};

/// The format version that is written.
pub(crate) const VERSION: u8 = 1;

/// The most bytes of one fact: two JSON values at their limit, and room for words.
pub(crate) const FACT_BYTES_MAX: usize = 1024 * 1024;

/// Most facts are shorter.
const FACT_BYTES_USUAL: usize = 512;

/// The most bytes of one commit.
pub(crate) const COMMIT_BYTES_MAX: usize = 256 * 1024 * 1024;

const CONFIG: bincode::config::Configuration = bincode::config::standard();

/// Bytes that are no entry, append or commit of a known version.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("format version {0} is not known here: use a newer cairn")]
    UnknownVersion(u8),
    #[error("the bytes do not decode: {0}")]
    Malformed(String),
    #[error("the fact has {bytes} bytes, an entry takes at most {FACT_BYTES_MAX}")]
    TooLong { bytes: usize },
}

/// What heads a commit. The hash of the commit before is known from that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) number: CommitNumber,
    pub(crate) token: FencingToken,
    pub(crate) time: Timestamp,
    pub(crate) hash: Hash,
}

impl From<&Commit> for Header {
    fn from(commit: &Commit) -> Self {
        Self { number: commit.number, token: commit.token, time: commit.time, hash: commit.hash }
    }
}

impl From<v1::Header> for Header {
    fn from(stored: v1::Header) -> Self {
        Self {
            number: CommitNumber(stored.number),
            token: FencingToken(stored.token),
            time: Timestamp::from_micros(stored.time),
            hash: Hash(stored.hash),
        }
    }
}

impl From<&Header> for v1::Header {
    fn from(live: &Header) -> Self {
        Self { number: live.number.0, token: live.token.0, time: live.time.as_micros(), hash: live.hash.0 }
    }
}

/// A fact's bytes: what its entry's hash covers, and what is stored.
pub(crate) fn encode_fact(fact: &Fact) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(FACT_BYTES_USUAL);
    encode_into(&mut bytes, v1::Fact::from(fact));
    if bytes.len() > FACT_BYTES_MAX {
        return Err(CodecError::TooLong { bytes: bytes.len() });
    }
    Ok(bytes)
}

fn decode_fact(bytes: &[u8]) -> Result<Fact, CodecError> {
    let (fact, read) = decode::<v1::Fact<'_>, FACT_BYTES_MAX>(bytes)?;
    nothing_after(bytes, read)?;
    Ok(fact.into())
}

/// An append's bytes: `facts` are encoded facts, `previous` the hash of the entry before the first.
pub(crate) fn encode_append(workflow: WorkflowId, first: Sequence, previous: Hash, facts: &[Vec<u8>]) -> Vec<u8> {
    let append = v1::Append {
        workflow: *workflow.as_bytes(),
        first: first.0,
        previous: (first.0 > 1).then_some(previous.0),
        facts: facts.iter().map(|fact| v1::Slice(fact)).collect(),
    };
    let mut bytes = Vec::with_capacity(64 + facts.iter().map(|fact| fact.len() + 4).sum::<usize>());
    encode_into(&mut bytes, append);
    bytes
}

/// The entries of an append, their hashes computed. Whether they are the right ones the commit's hash tells.
pub(crate) fn decode_append(bytes: &[u8], token: FencingToken, time: Timestamp) -> Result<Vec<Entry>, CodecError> {
    let (append, read) = decode::<v1::Append<'_>, COMMIT_BYTES_MAX>(bytes)?;
    nothing_after(bytes, read)?;
    if append.previous.is_none() != (append.first == 1) || append.first == 0 {
        return Err(CodecError::Malformed("an append without a place in its workflow".to_owned()));
    }
    let workflow = WorkflowId::from_bytes(append.workflow);
    let mut previous = append.previous.map(Hash).unwrap_or_default();
    let mut sequence = Sequence(append.first);
    let mut entries = Vec::with_capacity(append.facts.len());
    for fact in &append.facts {
        let hash = chain::entry_hash(workflow, sequence, token, time, previous, VERSION, fact.0);
        let fact = decode_fact(fact.0)?;
        entries.push(Entry { workflow, sequence, token, time, previous, fact, hash });
        previous = hash;
        sequence = sequence
            .0
            .checked_add(1)
            .map(Sequence)
            .ok_or_else(|| CodecError::Malformed("a sequence without a successor".to_owned()))?;
    }
    Ok(entries)
}

/// Whose append it is, and its first sequence.
pub(crate) fn append_place(bytes: &[u8]) -> Result<(WorkflowId, Sequence), CodecError> {
    let ((workflow, first), _) = decode::<([u8; 16], u64), COMMIT_BYTES_MAX>(bytes)?;
    Ok((WorkflowId::from_bytes(workflow), Sequence(first)))
}

/// A commit's bytes, as the log frames them.
pub(crate) fn encode_commit<'a>(header: &Header, appends: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let appends: Vec<_> = appends.into_iter().map(v1::Slice).collect();
    let mut bytes = Vec::with_capacity(64 + appends.iter().map(|append| append.0.len() + 4).sum::<usize>());
    bytes.push(VERSION);
    encode_into(&mut bytes, v1::Header::from(header));
    encode_into(&mut bytes, appends);
    bytes
}

/// What heads the commit whose bytes these are.
pub(crate) fn decode_header(payload: &[u8]) -> Result<Header, CodecError> {
    header(payload).map(|(header, _)| header)
}

fn header(payload: &[u8]) -> Result<(Header, &[u8]), CodecError> {
    let rest = versioned(payload)?;
    let (header, read) = decode::<v1::Header, 1024>(rest)?;
    Ok((header.into(), &rest[read..]))
}

/// The appends of a commit, as bytes.
pub(crate) fn split_commit(payload: &[u8]) -> Result<(Header, Vec<&[u8]>), CodecError> {
    let (header, rest) = header(payload)?;
    let (appends, read) = decode::<Vec<v1::Slice<'_>>, COMMIT_BYTES_MAX>(rest)?;
    nothing_after(rest, read)?;
    Ok((header, appends.into_iter().map(|append| append.0).collect()))
}

/// An append as the index keeps it: with its commit's token and time, to be read alone.
pub(crate) fn encode_kept_append(token: FencingToken, time: Timestamp, append: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(append.len() + 16);
    bytes.push(VERSION);
    encode_into(&mut bytes, (token.0, time.as_micros()));
    bytes.extend_from_slice(append);
    bytes
}

/// The bytes of an append that the index kept.
pub(crate) fn kept_append(kept: &[u8]) -> Result<(FencingToken, Timestamp, &[u8]), CodecError> {
    let rest = versioned(kept)?;
    let ((token, time), read) = decode::<(u64, i64), 64>(rest)?;
    Ok((FencingToken(token), Timestamp::from_micros(time), &rest[read..]))
}

/// A commit as the index keeps it: its header, and where its appends are.
pub(crate) fn encode_kept_commit(header: &Header, appends: &[(WorkflowId, Sequence)]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    encode_into(&mut bytes, v1::Header::from(header));
    let places: Vec<_> = appends.iter().map(|(workflow, first)| (workflow.as_bytes(), first.0)).collect();
    encode_into(&mut bytes, places);
    bytes
}

/// Reads what [`encode_kept_commit`] has written.
pub(crate) fn decode_kept_commit(kept: &[u8]) -> Result<(Header, Vec<(WorkflowId, Sequence)>), CodecError> {
    let (header, rest) = header(kept)?;
    let (places, read) = decode::<Vec<([u8; 16], u64)>, COMMIT_BYTES_MAX>(rest)?;
    nothing_after(rest, read)?;
    Ok((header, places.into_iter().map(|(id, first)| (WorkflowId::from_bytes(id), Sequence(first))).collect()))
}

/// A commit, checked against its hash; `previous` is the hash of the commit before.
///
/// # Errors
/// [`BadPlace`] if the bytes do not decode, or are not those that were hashed.
pub(crate) fn decode_commit(payload: &[u8], previous: Hash) -> Result<Commit, BadPlace> {
    let (header, appends) = split_commit(payload).map_err(|error| BadPlace::somewhere(error.to_string()))?;
    let Header { number, token, time, hash } = header;
    let mut entries = Vec::new();
    for append in appends {
        let gained = decode_append(append, token, time).map_err(|error| BadPlace::commit(number, error.to_string()))?;
        entries.extend(gained);
    }
    let commit = Commit { number, token, time, previous, hash, entries };
    chain::check_commit_hash(&commit)?;
    Ok(commit)
}

/// Most records of the index are shorter.
const RECORD_BYTES_USUAL: usize = 256;

/// A small record of the index: it may change its layout with the version byte, because it can be made again.
pub(crate) fn encode_record(version: u8, record: impl serde::Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECORD_BYTES_USUAL);
    bytes.push(version);
    encode_into(&mut bytes, record);
    bytes
}

/// Reads what [`encode_record`] has written under the same version.
pub(crate) fn decode_record<'de, T: serde::Deserialize<'de>>(version: u8, bytes: &'de [u8]) -> Result<T, CodecError> {
    match bytes.split_first() {
        Some((found, rest)) if *found == version => {
            let (record, read) = decode::<T, COMMIT_BYTES_MAX>(rest)?;
            nothing_after(rest, read)?;
            Ok(record)
        }
        Some((found, _)) => Err(CodecError::UnknownVersion(*found)),
        None => Err(CodecError::Malformed("nothing is there".to_owned())),
    }
}

fn versioned(bytes: &[u8]) -> Result<&[u8], CodecError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((found, _)) => Err(CodecError::UnknownVersion(*found)),
        None => Err(CodecError::Malformed("nothing is there".to_owned())),
    }
}

fn encode_into(bytes: &mut Vec<u8>, value: impl serde::Serialize) {
    bincode::serde::encode_into_std_write(value, bytes, CONFIG).expect("memory takes it, and no type here refuses");
}

fn decode<'de, T: serde::Deserialize<'de>, const LIMIT: usize>(bytes: &'de [u8]) -> Result<(T, usize), CodecError> {
    bincode::serde::borrow_decode_from_slice(bytes, CONFIG.with_limit::<LIMIT>())
        .map_err(|error| CodecError::Malformed(error.to_string()))
}

fn nothing_after(bytes: &[u8], read: usize) -> Result<(), CodecError> {
    if read == bytes.len() {
        return Ok(());
    }
    Err(CodecError::Malformed(format!("{} bytes too many", bytes.len() - read)))
}

#[cfg(test)]
mod tests;
