//! A frame: length, CRC-32C, payload, and a last byte that is not zero. One commit each.
//!
//! - The checksum covers the length too: a damaged length is not believed.
//! - What a frame is written over is zero, so that a write which was cut short shows: its end, or a sector of it, is
//!   still zero. What is wrong and was written whole was damaged, and is never taken for a write that was cut short.

use crate::{ids::CommitNumber, journal::codec};

/// Length and checksum.
pub(super) const HEAD_BYTES: usize = 8;

/// The last byte: where it is missing, the write did not get that far.
const END: u8 = 0xe5;

/// What a frame has beside its payload.
pub(super) const OVERHEAD_BYTES: usize = HEAD_BYTES + 1;

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
    let mut frame = Vec::with_capacity(OVERHEAD_BYTES + payload.len());
    frame.extend(length);
    frame.extend(checksum(&length, payload).to_le_bytes());
    frame.extend_from_slice(payload);
    frame.push(END);
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
    let (payload, end) = rest.get(..payload_bytes + 1)?.split_at(payload_bytes);
    (end == [END] && checksum(length, payload) == u32::from_le_bytes(*found)).then_some(payload)
}

fn checksum(length: &[u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(length), payload)
}

static ZEROS: [u8; 4096] = [0; 4096];

/// Where the last byte is that is not zero.
pub(super) fn last_written(bytes: &[u8]) -> Option<usize> {
    // By the block first: most of a young segment is zero.
    let blocks = bytes.rchunks(ZEROS.len());
    let mut end = bytes.len();
    for block in blocks {
        // Compared as memory: byte by byte this is most of the time that a start takes.
        if *block != ZEROS[..block.len()] {
            let start = end - block.len();
            return block.iter().rposition(|byte| *byte != 0).map(|at| start + at);
        }
        end -= block.len();
    }
    None
}

/// Whether what stands at `offset` can be a write that was cut short: nothing follows it, and its end or a sector of it
/// was never written.
pub(super) fn is_torn(bytes: &[u8], offset: usize) -> bool {
    let written = &bytes[offset..];
    let Some(last) = last_written(written) else { return false };
    if commits_after(bytes, offset + 1).next().is_some() || is_whole_but_for_its_length(&written[..=last]) {
        return false;
    }
    // What is left of a head of which a cut has zeroed the length. A file that ends here has one.
    if last < HEAD_BYTES && written.starts_with(&[0; 4]) {
        return true;
    }
    let claimed = written.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    let claimed_end = claimed.saturating_add(OVERHEAD_BYTES);
    let plausible = claimed > 0 && claimed_end <= written.len();
    if !plausible || last + 1 != claimed_end {
        // A length of which a sector took a part says nothing.
        if has_lost_its_length(bytes, offset) {
            return true;
        }
        // Where something was written behind it, it was written whole once.
        if plausible {
            return last + 1 < claimed_end;
        }
    }
    // What a sector took of the head was looked at already.
    let (mut from, end) = (offset + HEAD_BYTES, offset + last + 1);
    while from < end {
        let to = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        if last_written(&bytes[from..to]).is_none() {
            return true;
        }
        from = to;
    }
    false
}

/// Whether a sector that was never written took the length, or enough of it that what is left says too little: what stands
/// in that sector is zero.
fn has_lost_its_length(bytes: &[u8], offset: usize) -> bool {
    let border = (offset / SECTOR_BYTES + 1) * SECTOR_BYTES;
    let is_lost = |from: usize, to: usize| bytes.get(from..to).is_some_and(|lost| last_written(lost).is_none());
    let has_lost_its_beginning = border <= offset + HEAD_BYTES && is_lost(offset, border);
    // Three bytes of it say all: no commit is larger.
    let has_lost_its_rest = border < offset + 3 && is_lost(border, border + SECTOR_BYTES);
    has_lost_its_beginning || has_lost_its_rest
}

/// The payload of a last frame that lacks nothing but what a lost sector took of its length: its checksum tells.
pub(super) fn without_its_length(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let written = bytes.get(offset..)?;
    let whole = &written[..=last_written(written)?];
    (has_lost_its_length(bytes, offset) && is_whole_but_for_its_length(whole))
        .then(|| &whole[HEAD_BYTES..whole.len() - 1])
}

/// Whether these bytes are a frame whose length was damaged: the checksum is right for the length that it has.
fn is_whole_but_for_its_length(written: &[u8]) -> bool {
    let Some((head, rest)) = written.split_first_chunk::<HEAD_BYTES>() else { return false };
    let Some((&END, payload)) = rest.split_last() else { return false };
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    checksum(&length, payload).to_le_bytes() == head[4..]
}

/// The commits of all whole frames that begin anywhere from `offset` on.
pub(super) fn commits_after(bytes: &[u8], offset: usize) -> impl Iterator<Item = CommitNumber> {
    let end = last_written(bytes).map_or(0, |last| last + 1);
    (offset..end.saturating_sub(HEAD_BYTES)).filter_map(|at| {
        // The header is cheap to decode, and hardly anything else decodes as one.
        let header = codec::decode_header(&bytes[at + HEAD_BYTES..]).ok()?;
        parse(&bytes[at..]).map(|_| header.number)
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

    /// A cut zeroes the torn frame from behind its head, and then the head: wherever the power fails in between, it is torn still.
    #[test]
    fn what_is_left_of_a_cut_that_was_cut_short_is_torn() {
        let frame = encode(&[7; 200]);
        let torn = frame.len() / 2;
        for zeroed in HEAD_BYTES..torn {
            let mut bytes = vec![0; 4096];
            bytes[..torn].copy_from_slice(&frame[..torn]);
            bytes[HEAD_BYTES..=zeroed].fill(0);
            assert!(is_torn(&bytes, 0), "{zeroed} bytes of it are zero");
        }
        for zeroed in 0..HEAD_BYTES {
            let mut bytes = vec![0; 4096];
            bytes[zeroed..HEAD_BYTES].copy_from_slice(&frame[zeroed..HEAD_BYTES]);
            assert!(at(&bytes, 0) == Found::End || is_torn(&bytes, 0), "{zeroed} bytes of its head are zero");
        }
    }

    /// The sector with the first byte of the length was never written: the rest claims a length that is too small.
    #[test]
    fn a_length_that_lost_its_first_byte_with_a_sector_is_known_from_the_checksum_and_else_the_frame_is_torn() {
        let payload = vec![7; 900];
        let offset = SECTOR_BYTES - 1;
        let mut bytes = vec![0; 4096];
        bytes[offset..][..payload.len() + OVERHEAD_BYTES].copy_from_slice(&encode(&payload));
        bytes[..SECTOR_BYTES].fill(0);
        assert_eq!(at(&bytes, offset), Found::Bad);
        assert_eq!(without_its_length(&bytes, offset), Some(payload.as_slice()));
        bytes[SECTOR_BYTES + 100..2 * SECTOR_BYTES].fill(0);
        assert_eq!(without_its_length(&bytes, offset), None);
        assert!(is_torn(&bytes, offset));
    }

    /// Wherever a frame stands, and whichever of its sectors were written: what is there is all of it, nothing, or torn.
    #[test]
    fn whatever_sectors_of_a_frame_are_lost_it_is_torn() {
        for length in (300..2_300).step_by(93).chain([512, 0x0500, 0x0534, 0x05ff]) {
            let payload: Vec<u8> = (0..length).map(|at| 1 + (at * 31 % 255) as u8).collect();
            let frame = encode(&payload);
            for offset in SECTOR_BYTES - OVERHEAD_BYTES..SECTOR_BYTES + 2 {
                let first = offset / SECTOR_BYTES;
                let sectors = (offset + frame.len()).div_ceil(SECTOR_BYTES) - first;
                for kept in 0..1_u32 << sectors {
                    let mut bytes = vec![0; 4096];
                    for sector in (0..sectors).filter(|sector| kept & 1 << sector != 0) {
                        let from = ((first + sector) * SECTOR_BYTES).max(offset);
                        let to = ((first + sector + 1) * SECTOR_BYTES).min(offset + frame.len());
                        bytes[from..to].copy_from_slice(&frame[from - offset..to - offset]);
                    }
                    let is_known = match at(&bytes, offset) {
                        Found::Frame(found) => found == payload,
                        Found::End => kept.count_ones() < 2,
                        Found::Bad => is_torn(&bytes, offset) || without_its_length(&bytes, offset) == Some(&payload),
                    };
                    assert!(is_known, "{length} bytes at {offset}, sectors {kept:b} of {sectors}");
                }
            }
        }
    }

    #[test]
    fn frames_are_read_back_until_the_end() {
        let bytes = segment(&[b"one", b"two"]);
        let found = [0, 12, 24, bytes.len()].map(|offset| at(&bytes, offset));
        assert_eq!(found, [Found::Frame(b"one"), Found::Frame(b"two"), Found::End, Found::End]);
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed_and_is_no_torn_write() {
        // Also where its last bytes are zero, or those of its length at the border of a sector.
        for payload in [vec![0x5a; 1000], [vec![0x5a; 300], vec![0; 3]].concat(), vec![0x5a; 512]] {
            for offset in [0].into_iter().chain(SECTOR_BYTES - OVERHEAD_BYTES..SECTOR_BYTES) {
                let mut bytes = vec![0; 4096];
                bytes[offset..][..OVERHEAD_BYTES + payload.len()].copy_from_slice(&encode(&payload));
                for bit in offset * 8..(offset + OVERHEAD_BYTES + payload.len()) * 8 {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(at(&bytes, offset), Found::Bad, "bit {bit} of a frame at {offset}");
                    assert!(!is_torn(&bytes, offset), "bit {bit} of a frame at {offset}");
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }
        }
    }

    /// What was written behind it tells that the first was written whole, and so acknowledged: it is no torn write, although
    /// the sector in which it ends and the second begins is gone.
    #[test]
    fn a_frame_behind_which_another_was_written_is_not_torn_whatever_sector_is_lost() {
        for offset in SECTOR_BYTES - 200..SECTOR_BYTES - 2 {
            for length in [180, 300, 400] {
                let mut bytes = vec![0; 4096];
                let frames = [encode(&vec![0x5a; length]), encode(&[0x5a; 1300])].concat();
                bytes[offset..][..frames.len()].copy_from_slice(&frames);
                bytes[SECTOR_BYTES..2 * SECTOR_BYTES].fill(0);
                let is_before_it = offset + OVERHEAD_BYTES + length <= SECTOR_BYTES;
                assert_eq!(at(&bytes, offset) == Found::Bad, !is_before_it);
                assert!(is_before_it || !is_torn(&bytes, offset), "{length} bytes at {offset}");
            }
        }
    }

    #[test]
    fn a_frame_that_ends_too_early_is_torn() {
        for payload in [vec![0x5a; 900], [vec![0x5a; 40], vec![0; 3]].concat()] {
            let whole = segment(&[b"before", &payload]);
            let (start, end) = (6 + OVERHEAD_BYTES, 6 + 2 * OVERHEAD_BYTES + payload.len());
            for written in start + 1..end {
                let mut bytes = whole.clone();
                bytes[written..].fill(0);
                assert_eq!(
                    at(&bytes, start),
                    if last_written(&bytes[start..]).is_some() { Found::Bad } else { Found::End }
                );
                assert!(is_torn(&bytes, start) || at(&bytes, start) == Found::End, "{written} of {end}");
            }
        }
    }

    #[test]
    fn a_frame_that_lacks_any_of_its_sectors_is_torn_unless_something_follows() {
        let payload = vec![0x5a; 3000];
        let (start, end) = (6 + OVERHEAD_BYTES, 6 + 2 * OVERHEAD_BYTES + payload.len());
        for missing in 0..6 {
            let mut bytes = segment(&[b"before", &payload]);
            bytes[(missing * SECTOR_BYTES).max(start)..((missing + 1) * SECTOR_BYTES).min(end)].fill(0);
            assert_eq!(at(&bytes, start), Found::Bad);
            assert!(is_torn(&bytes, start), "sector {missing}");
            bytes[end..end + 3 + OVERHEAD_BYTES].copy_from_slice(&encode(b"end"));
            assert!(missing == 0 || !is_torn(&bytes, start), "sector {missing}");
        }
    }
}
