//! The commit log: append-only segments of frames, the copy that acknowledged means durable in.
//!
//! - A commit is one write and one `fdatasync`; nothing is answered before it.
//! - Every frame is read, those of a long log's sealed segments once it is open: a damaged, missing or lost one is put back
//!   from the other copy, byte for byte.
//! - Only a last frame that was never wholly written is cut, and never in silence.
//! - A failed write or sync is never tried again: whoever sees one must stop.

mod ahead;
mod frame;
mod recover;
mod sealed;
mod stray;
mod segment;
mod reader;

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    thread::JoinHandle,
};

pub use ahead::ReadAhead;
pub(super) use ahead::{Logged, Wanted};
pub use reader::LogReader;
pub use recover::Cut;
pub(super) use recover::{Extent, OtherCopy, Recovered, check, recover};
pub(super) use sealed::Sealed;
pub(super) use segment::sync_dir;

use crate::{
    ids::{CommitNumber, Hash},
    store::StoreError,
};

use segment::{HEADER_BYTES, Prepared};

/// The log, open for appending.
#[derive(Debug)]
pub(super) struct CommitLog {
    dir: PathBuf,
    segment_bytes: u64,
    segment: u64,
    path: PathBuf,
    file: File,
    /// Where the next frame goes.
    offset: u64,
    /// How long the file is.
    end: u64,
    /// The segment after this one, made ahead so that no append waits for it.
    next: Option<JoinHandle<Result<Prepared, StoreError>>>,
}

impl CommitLog {
    /// Appends a commit, and returns once it is on disk. `previous` is the hash of the commit before.
    ///
    /// # Errors
    /// [`StoreError::Io`]: what is on disk is unknown, nothing may be appended any more.
    pub(super) fn append(&mut self, number: CommitNumber, previous: Hash, payload: &[u8]) -> Result<(), StoreError> {
        let frame = frame::encode(payload);
        if self.offset + frame.len() as u64 > self.end {
            self.rotate(number, previous, frame.len() as u64)?;
        }
        self.file.write_all_at(&frame, self.offset).map_err(|source| self.failed("write to", source))?;
        self.file.sync_data().map_err(|source| self.failed("sync", source))?;
        self.offset += frame.len() as u64;
        if self.next.is_none() && self.offset > self.end / 2 {
            self.prepare();
        }
        Ok(())
    }

    /// Waits for what is done beside, and leaves nothing unfinished.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        if let Some(next) = self.next.take() {
            // A segment that could not be made ahead is nobody's loss now.
            let _ = next.join();
        }
        segment::remove_unfinished(&self.dir)
    }

    /// Goes on in a new segment, which takes a frame of `frame_bytes`.
    fn rotate(&mut self, first: CommitNumber, previous: Hash, frame_bytes: u64) -> Result<(), StoreError> {
        let needed = HEADER_BYTES as u64 + frame_bytes;
        let ahead = self.next.take().and_then(|next| next.join().ok()?.ok()).filter(|ahead| ahead.bytes() >= needed);
        let prepared = match ahead {
            Some(prepared) => prepared,
            None => Prepared::make(&self.dir, "next", self.segment_bytes.max(needed))?,
        };
        self.end = prepared.bytes();
        self.segment += 1;
        self.offset = HEADER_BYTES as u64;
        (self.file, self.path) = prepared.finish(&self.dir, (self.segment, first, previous), &[])?;
        Ok(())
    }

    fn prepare(&mut self) {
        let (dir, bytes) = (self.dir.clone(), self.segment_bytes);
        let made = std::thread::Builder::new().name("cairn-log-segment".to_owned());
        // Where no thread can be had, the segment is made when it is needed.
        self.next = made.spawn(move || Prepared::make(&dir, "next", bytes)).ok();
    }

    fn failed(&self, action: &'static str, source: std::io::Error) -> StoreError {
        StoreError::Io { action, path: self.path.clone(), source }
    }
}

/// A log whose one segment is still to get its first frame.
fn begin(dir: &Path, segment_bytes: u64) -> Result<CommitLog, StoreError> {
    let prepared = Prepared::make(dir, "next", segment_bytes.max(HEADER_BYTES as u64))?;
    let end = prepared.bytes();
    let (file, path) = prepared.finish(dir, (1, CommitNumber(1), Hash::default()), &[])?;
    Ok(CommitLog {
        dir: dir.to_owned(),
        segment_bytes,
        segment: 1,
        path,
        file,
        offset: HEADER_BYTES as u64,
        end,
        next: None,
    })
}

/// The frames of a segment: each commit's number, and where its frame is.
#[cfg(test)]
pub(super) fn frames_of(segment: &[u8]) -> Vec<(CommitNumber, std::ops::Range<usize>)> {
    let mut frames = Vec::new();
    let mut offset = HEADER_BYTES;
    while let frame::Found::Frame(payload) = frame::at(segment, offset) {
        let number = crate::journal::codec::decode_header(payload).expect("it is a commit").number;
        let end = offset + frame::OVERHEAD_BYTES + payload.len();
        frames.push((number, offset..end));
        offset = end;
    }
    frames
}

/// The segments of the log in the data directory `data`.
#[cfg(test)]
pub(super) fn segments_of(data: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    segment::list(&recover::dir_of(data))
}
