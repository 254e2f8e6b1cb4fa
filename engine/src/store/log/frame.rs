//! A frame: length, CRC-32C, payload. One commit each.
//!
//! - The checksum covers the length too: a damaged length is not believed.
//! - What a frame is written over is zero, so that a write which power loss has torn shows: a sector of it is still zero.

use crate::journal::codec;

/// Length and checksum.
pub(super) const HEAD_BYTES: usize = 8;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What stands at a place of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A frame with this payload.
    Frame(&'a [u8]),
    /// Nothing, to the end of the segment.
    End,
    /// Something that is no frame.
    Bad,
}

pub(super) fn encode(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a commit is bounded well below 4 GiB").to_le_bytes();
    let mut frame = Vec::with_capacity(HEAD_BYTES + payload.len());
    frame.extend(length);
    frame.extend(checksum(&length, payload).to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// What stands at `offset` of a segment that holds `bytes`.
pub(super) fn at(bytes: &[u8], offset: usize) -> Found<'_> {
    let rest = bytes.get(offset..).unwrap_or_default();
    match parse(rest) {
        Some(payload) => Found::Frame(payload),
        None if last_written(rest).is_none() => Found::End,
        None => Found::Bad,
    }
}

fn parse(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (found, rest) = rest.split_first_chunk::<4>()?;
    let payload_bytes = u32::from_le_bytes(*length) as usize;
    if payload_bytes == 0 {
        return None;
    }
    let payload = rest.get(..payload_bytes)?;
    (checksum(length, payload) == u32::from_le_bytes(*found)).then_some(payload)
}

fn checksum(length: &[u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(length), payload)
}

/// Where the last byte is that is not zero.
pub(super) fn last_written(bytes: &[u8]) -> Option<usize> {
    // By the block first: most of a young segment is zero.
    let blocks = bytes.rchunks(4096);
    let mut end = bytes.len();
    for block in blocks {
        if block.iter().any(|byte| *byte != 0) {
            let start = end - block.len();
            return block.iter().rposition(|byte| *byte != 0).map(|at| start + at);
        }
        end -= block.len();
    }
    None
}

/// Whether what stands at `offset` can be a write that power loss has torn: nothing follows it, and a sector of it was
/// never written. What was written whole and is wrong now was damaged.
pub(super) fn is_torn(bytes: &[u8], offset: usize) -> bool {
    let Some(last) = last_written(&bytes[offset..]).map(|last| offset + last) else { return false };
    let claimed = bytes[offset..].first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    let claimed_end = offset + HEAD_BYTES + claimed;
    let known = claimed > 0 && claimed_end <= bytes.len();
    if (known && last >= claimed_end) || follows(bytes, offset + 1) {
        return false;
    }
    let end = if known { claimed_end } else { last + 1 };
    let mut from = offset;
    while from < end {
        let to = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        if bytes[from..to].iter().all(|byte| *byte == 0) {
            return true;
        }
        from = to;
    }
    false
}

/// Whether there is a whole frame anywhere from `offset` on.
fn follows(bytes: &[u8], offset: usize) -> bool {
    let end = last_written(bytes).map_or(0, |last| last + 1);
    (offset..end.saturating_sub(HEAD_BYTES)).any(|at| {
        // The header is cheap to decode, and hardly anything else decodes as one.
        codec::decode_header(&bytes[at + HEAD_BYTES..]).is_ok() && parse(&bytes[at..]).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(frames: &[&[u8]]) -> Vec<u8> {
        let mut bytes: Vec<u8> = frames.iter().flat_map(|payload| encode(payload)).collect();
        bytes.resize(4 * 1024, 0);
        bytes
    }

    #[test]
    fn frames_are_read_back_until_the_end() {
        let bytes = segment(&[b"one", b"two"]);
        assert_eq!(
            (at(&bytes, 0), at(&bytes, 11), at(&bytes, 22)),
            (Found::Frame(b"one"), Found::Frame(b"two"), Found::End)
        );
        assert_eq!(at(&bytes, bytes.len()), Found::End);
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed_and_is_no_torn_write() {
        let payload = vec![0x5a; 1000];
        let whole = segment(&[&payload]);
        for bit in 0..(HEAD_BYTES + payload.len()) * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(at(&bytes, 0), Found::Bad, "bit {bit}");
            // A length that names more than was written looks like the rest is missing: the other copy tells.
            assert!(!is_torn(&bytes, 0) || bit / 8 < 4, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_that_lacks_any_of_its_sectors_is_torn_unless_something_follows() {
        let payload = vec![0x5a; 3000];
        for missing in 0..6 {
            let mut bytes = segment(&[b"before", &payload]);
            let start = (missing * SECTOR_BYTES).max(14);
            bytes[start..((missing + 1) * SECTOR_BYTES).min(14 + 3008)].fill(0);
            assert_eq!(at(&bytes, 14), Found::Bad);
            assert!(is_torn(&bytes, 14), "sector {missing}");
            let later = 14 + HEAD_BYTES + payload.len();
            bytes[later..later + 11].copy_from_slice(&encode(b"end"));
            assert!(missing == 0 || !is_torn(&bytes, 14), "sector {missing}");
        }
    }
}
