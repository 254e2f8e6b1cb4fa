//! Reading the log in place: no lock, no change, also while an engine appends to it.
//!
//! - It ends before a frame that is being written. Asked again after its end, it looks whether there is more.
//! - What it returns is checked: frame, hashes, order. Whether facts are legal, [`super::super::Verifier`] tells.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    entry::Commit,
    ids::{CommitNumber, Hash},
    journal::{chain::BadPlace, codec},
    store::StoreError,
};

use super::{
    frame::{self, Found},
    recover::dir_of,
    segment::{self, FORMAT, HEADER_BYTES, Header, HeaderError},
};

/// How often a frame that looks wrong is read again: its writer may be in the middle of it.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(4);

/// The commits of a log, read in place.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    segment: u64,
    bytes: Vec<u8>,
    offset: usize,
    next: CommitNumber,
    previous: Hash,
    /// Commits up to this one are not decoded.
    after: CommitNumber,
    torn: bool,
    failed: bool,
}

impl LogReader {
    /// The commits in the data directory `data`, from the first on.
    ///
    /// # Errors
    /// [`StoreError::Io`] if there is no log that can be read, [`StoreError::NewerFormat`] if a newer cairn wrote it.
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        Self::open_segment(&dir_of(data), (1, CommitNumber(1), Hash::default()))
    }

    /// The commits of the log in `dir`, from this segment on: its number, its first commit, the hash before that.
    pub(in crate::store) fn open_segment(
        dir: &Path,
        (segment, next, previous): (u64, CommitNumber, Hash),
    ) -> Result<Self, StoreError> {
        let path = dir.join(segment::file_name(segment));
        let bytes = fs::read(&path).map_err(|source| StoreError::Io { action: "read", path: path.clone(), source })?;
        // Whatever else is wrong with the header is the first thing that is told.
        if let Err(HeaderError::Newer(found)) = Header::decode(&bytes) {
            return Err(StoreError::NewerFormat { path, found, known: FORMAT });
        }
        let dir = dir.to_owned();
        Ok(Self { dir, segment, bytes, offset: 0, next, previous, after: CommitNumber(0), torn: false, failed: false })
    }

    /// Whether what stands at the end is a frame that was never wholly written: no commit that was acknowledged.
    #[must_use]
    pub fn ends_torn(&self) -> bool {
        self.torn
    }

    /// Where the next commit is expected: which file, at which byte.
    #[must_use]
    pub fn place(&self) -> (String, u64) {
        (format!("log/{}", segment::file_name(self.segment)), self.offset.max(HEADER_BYTES) as u64)
    }

    /// Lets commits up to `after` be passed over: their frames are checked, and not their hashes.
    pub(super) fn pass_over(&mut self, after: CommitNumber) {
        self.after = after;
    }

    /// The number of the next commit, and the hash before it.
    pub(super) fn expected(&self) -> (CommitNumber, Hash) {
        (self.next, self.previous)
    }

    /// Goes on behind this byte of a segment, where this commit comes after this hash.
    pub(super) fn go_on_from(&mut self, segment: u64, offset: usize, (next, previous): (CommitNumber, Hash)) {
        (self.segment, self.offset, self.next, self.previous) = (segment, offset, next, previous);
        // Read when it is needed.
        self.bytes = Vec::new();
    }

    /// The next commit and its bytes. After an error there is none.
    pub(super) fn logged(&mut self) -> Option<Result<(Commit, Vec<u8>), BadPlace>> {
        if self.failed {
            return None;
        }
        let logged = self.commit();
        self.failed = logged.is_err();
        logged.transpose()
    }

    fn commit(&mut self) -> Result<Option<(Commit, Vec<u8>)>, BadPlace> {
        loop {
            let before = self.previous;
            let Some((number, payload)) = self.step()? else { return Ok(None) };
            if number <= self.after {
                continue;
            }
            let offset = (self.offset - frame::OVERHEAD_BYTES - payload.len()) as u64;
            let decoded = codec::decode_commit(&payload, before);
            let (file, _) = self.place();
            let commit = decoded.map_err(|bad| bad.or_commit(number).in_file(file, offset))?;
            return Ok(Some((commit, payload)));
        }
    }

    fn step(&mut self) -> Result<Option<(CommitNumber, Vec<u8>)>, BadPlace> {
        loop {
            if self.bytes.is_empty() {
                self.bytes = self.read(self.segment)?;
            }
            if self.offset == 0 {
                self.check_header()?;
            }
            match frame::at(&self.bytes, self.offset) {
                Found::Frame(payload) => return self.take(payload.to_vec()).map(Some),
                Found::End | Found::Bad => {
                    // Its writer may have gone on since it was read. The order matters: a segment that has a
                    // successor is complete.
                    let has_successor = self.path(self.segment + 1).exists();
                    self.look_again()?;
                    match frame::at(&self.bytes, self.offset) {
                        Found::Frame(payload) => {
                            let payload = payload.to_vec();
                            return self.take(payload).map(Some);
                        }
                        Found::End if has_successor => self.enter(self.segment + 1)?,
                        Found::End => return self.end(),
                        Found::Bad if !has_successor && frame::is_torn(&self.bytes, self.offset) => {
                            self.torn = true;
                            return Ok(None);
                        }
                        Found::Bad => return Err(self.bad("its checksum does not match")),
                    }
                }
            }
        }
    }

    fn end<T>(&mut self) -> Result<Option<T>, BadPlace> {
        self.torn = false;
        if Header::decode(&self.bytes).is_ok_and(|header| header.bytes > self.bytes.len() as u64) {
            return Err(self.bad("the segment is cut off here"));
        }
        // A later segment without this one's successor: that one is missing.
        let later = segment::list(&self.dir).map_err(|error| self.bad(error.to_string()))?;
        match later.last() {
            Some((last, _)) if *last > self.segment + 1 => {
                let missing = segment::file_name(self.segment + 1);
                Err(BadPlace::commit(self.next, "the segment is missing").in_file(format!("log/{missing}"), 0))
            }
            _ => Ok(None),
        }
    }

    fn look_again(&mut self) -> Result<(), BadPlace> {
        // A frame is written from its beginning on: where that is still zero, there is nothing new to read.
        if frame::at(&self.bytes, self.offset) == Found::End && !self.has_begun() {
            return Ok(());
        }
        for look in 0..LOOKS {
            if look > 0 {
                std::thread::sleep(BETWEEN_LOOKS);
            }
            self.bytes = self.read(self.segment)?;
            if frame::at(&self.bytes, self.offset) != Found::Bad {
                break;
            }
        }
        Ok(())
    }

    /// Whether anything stands at the offset on disk by now.
    fn has_begun(&self) -> bool {
        let mut head = [0; 8];
        let read = File::open(self.path(self.segment)).and_then(|file| file.read_at(&mut head, self.offset as u64));
        // What cannot be read is told when it is read whole.
        read.is_err() || head != [0; 8]
    }

    fn enter(&mut self, segment: u64) -> Result<(), BadPlace> {
        self.bytes = self.read(segment)?;
        (self.segment, self.offset) = (segment, 0);
        Ok(())
    }

    fn check_header(&mut self) -> Result<(), BadPlace> {
        match Header::decode(&self.bytes) {
            Ok(header)
                if (header.segment, header.first, header.previous) == (self.segment, self.next, self.previous) =>
            {
                self.offset = HEADER_BYTES;
                Ok(())
            }
            Ok(header) if header.segment != self.segment => Err(self.bad("it is another segment")),
            Ok(header) if header.first != self.next => {
                Err(self.bad(format!("it begins with commit {}: those between are missing", header.first)))
            }
            Ok(_) => Err(self.bad("it does not follow the segment before")),
            Err(HeaderError::Damaged) => Err(self.bad("the header of the segment is damaged")),
            Err(HeaderError::Newer(found)) => Err(self.bad(format!("it has format {found}: use a newer cairn"))),
        }
    }

    fn take(&mut self, payload: Vec<u8>) -> Result<(CommitNumber, Vec<u8>), BadPlace> {
        let header = codec::decode_header(&payload).map_err(|error| self.bad(error.to_string()))?;
        if header.number != self.next {
            return Err(self.bad(format!("commit {} stands here", header.number)));
        }
        self.offset += frame::OVERHEAD_BYTES + payload.len();
        (self.next, self.previous) = (header.number.next(), header.hash);
        Ok((header.number, payload))
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(segment::file_name(segment))
    }

    fn read(&self, segment: u64) -> Result<Vec<u8>, BadPlace> {
        let path = self.path(segment);
        fs::read(&path).map_err(|error| self.bad(format!("cannot read {}: {error}", path.display())))
    }

    fn bad(&self, detail: impl Into<String>) -> BadPlace {
        let (file, _) = self.place();
        BadPlace::commit(self.next, detail).in_file(file, self.offset as u64)
    }
}

impl Iterator for LogReader {
    type Item = Result<Commit, BadPlace>;

    /// The next commit. After `None` it may be asked again: more may have been appended. After an error there is none.
    fn next(&mut self) -> Option<Self::Item> {
        self.logged().map(|logged| logged.map(|(commit, _)| commit))
    }
}
