//! A segment of the commit log: a file of zeros with a header, filled frame by frame.
//!
//! - Made beside, filled with zeros, synced, renamed, its directory synced: it is there whole or not at all.
//! - Preallocated: a sync of a frame moves no file length (140 µs instead of 270 µs measured, `invariants.md`).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    ids::{CommitNumber, Hash},
    store::StoreError,
};

/// The format that is written, and the newest that is known.
pub(crate) const FORMAT: u16 = 1;

pub(super) const HEADER_BYTES: usize = 72;

const MAGIC: &[u8; 8] = b"CAIRNLOG";
const SUMMED_BYTES: usize = 68;

/// What heads a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) segment: u64,
    /// The number of its first commit.
    pub(super) first: CommitNumber,
    /// The hash of the commit before.
    pub(super) previous: Hash,
    /// How long the file was made: a shorter one was truncated.
    pub(super) bytes: u64,
}

/// Why bytes are no header of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Damaged,
    Newer(u16),
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.segment.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[28..60].copy_from_slice(&self.previous.0);
        bytes[60..SUMMED_BYTES].copy_from_slice(&self.bytes.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..SUMMED_BYTES]);
        bytes[SUMMED_BYTES..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>().ok_or(HeaderError::Damaged)?;
        let sum = u32::from_le_bytes(*bytes.last_chunk().expect("four of 72"));
        if &bytes[..8] != MAGIC {
            return Err(HeaderError::Damaged);
        }
        let summed = |format: u16| {
            let rest = crc32c::crc32c_append(crc32c::crc32c(MAGIC), &format.to_le_bytes());
            crc32c::crc32c_append(rest, &bytes[10..SUMMED_BYTES]) == sum
        };
        let format = u16::from_le_bytes([bytes[8], bytes[9]]);
        // A newer layout may have its sum anywhere. Where ours would be right but for the format, that was damaged.
        if format > FORMAT && !summed(FORMAT) {
            return Err(HeaderError::Newer(format));
        }
        if format != FORMAT || !summed(format) {
            return Err(HeaderError::Damaged);
        }
        let number = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("eight of 72"));
        let previous = Hash(*bytes[28..].first_chunk().expect("32 of 72"));
        Ok(Self { segment: number(12), first: CommitNumber(number(20)), previous, bytes: number(60) })
    }
}

pub(super) fn file_name(segment: u64) -> String {
    format!("{segment:06}.log")
}

/// The segments in `dir`, by number.
pub(super) fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let failed = |source| StoreError::Io { action: "list", path: dir.to_owned(), source };
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name
            .strip_suffix(".log")
            .and_then(|digits| digits.parse().ok())
            .filter(|number| file_name(*number) == name);
        if let Some(number) = number.filter(|number| *number > 0) {
            segments.push((number, path));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Removes what an interrupted creation has left.
pub(super) fn remove_unfinished(dir: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io { action: "clean up", path: dir.to_owned(), source };
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(&path).map_err(failed)?;
        }
    }
    Ok(())
}

/// A file of zeros, on disk, that is no segment yet.
#[derive(Debug)]
pub(super) struct Prepared {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Prepared {
    /// Makes it, under a temporary name.
    pub(super) fn make(dir: &Path, name: &str, bytes: u64) -> Result<Self, StoreError> {
        let path = dir.join(format!("{name}.tmp"));
        let zeros = vec![0; 256 * 1024];
        let made = (|| {
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
            let mut left = bytes;
            while left > 0 {
                let now = left.min(zeros.len() as u64);
                file.write_all(&zeros[..usize::try_from(now).expect("at most the buffer's length")])?;
                left -= now;
            }
            file.sync_all()?;
            Ok(file)
        })();
        match made {
            Ok(file) => Ok(Self { file, path, bytes }),
            Err(source) => {
                // What it took is given back: on a full disk somebody else needs it.
                let _ = fs::remove_file(&path);
                Err(StoreError::Io { action: "prepare the log segment", path, source })
            }
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it this segment, with these frames, in place of one that may be there.
    pub(super) fn finish(
        self,
        dir: &Path,
        (segment, first, previous): (u64, CommitNumber, Hash),
        frames: &[u8],
    ) -> Result<(File, PathBuf), StoreError> {
        let path = dir.join(file_name(segment));
        let header = Header { segment, first, previous, bytes: self.bytes };
        let finished = (|| {
            self.file.write_all_at(&header.encode(), 0)?;
            self.file.write_all_at(frames, HEADER_BYTES as u64)?;
            self.file.sync_all()?;
            fs::rename(&self.path, &path)?;
            sync_dir(dir)
        })();
        match finished {
            Ok(()) => Ok((self.file, path)),
            Err(source) => Err(StoreError::Io { action: "begin the log segment", path, source }),
        }
    }
}

/// Makes names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back_and_any_flipped_bit_is_noticed() {
        let header = Header { segment: 3, first: CommitNumber(77), previous: Hash([9; 32]), bytes: 4096 };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes), Err(HeaderError::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_known_by_its_number_wherever_its_sum_is() {
        let header = Header { segment: 3, first: CommitNumber(77), previous: Hash([9; 32]), bytes: 4096 };
        let mut bytes = header.encode();
        bytes[8..10].copy_from_slice(&(FORMAT + 1).to_le_bytes());
        bytes[10..].fill(0x5a);
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Newer(FORMAT + 1)));
        // With the same sum as ours, at our place.
        let sum = crc32c::crc32c(&bytes[..SUMMED_BYTES]).to_le_bytes();
        bytes[SUMMED_BYTES..].copy_from_slice(&sum);
        assert_eq!(Header::decode(&bytes), Err(HeaderError::Newer(FORMAT + 1)));
    }
}
