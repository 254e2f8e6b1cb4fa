//! Reading a log with several threads: sealed segments are decoded ahead, each by itself, and come in their order.
//!
//! - Whoever decodes a segment believes its header, and who takes its commits sees whether they follow the ones before.
//! - What is not wholly good is thrown away and read again by [`LogReader`]: it alone says what is wrong, and where.

use std::{
    collections::VecDeque,
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use crate::{
    entry::Commit,
    ids::{CommitNumber, Hash},
    journal::{chain::BadPlace, codec},
    store::StoreError,
};

use super::{
    frame::{self, Found},
    reader::LogReader,
    recover::dir_of,
    segment::{self, HEADER_BYTES, Header},
};

/// Each has a segment or two in memory, decoded.
const THREADS_MAX: usize = 4;

/// The commits of a log, decoded ahead.
#[derive(Debug)]
pub struct ReadAhead {
    /// Reads what is not sealed, and what is not good.
    reader: LogReader,
    /// The sealed segments that are still to come.
    sealed: std::ops::Range<u64>,
    /// They take turns, the first one first.
    threads: VecDeque<Receiver<Option<Decoded>>>,
    taking: std::vec::IntoIter<Logged>,
    /// Where the last commit stood.
    place: (String, u64),
}

/// What is read of a log.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Wanted {
    /// Commits up to this one are passed over.
    pub(in crate::store) after: CommitNumber,
    /// The bytes of the others, too.
    pub(in crate::store) payloads: bool,
}

/// A commit, and how the log has it.
#[derive(Debug)]
pub(in crate::store) struct Logged {
    pub(in crate::store) commit: Commit,
    /// Where they are wanted; what stands at the log's end always has them.
    pub(in crate::store) payload: Vec<u8>,
    offset: u64,
}

/// A whole segment.
#[derive(Debug)]
struct Decoded {
    /// The number of its first commit, and the hash before that, as its header says.
    begin: (CommitNumber, Hash),
    /// The number of the commit that comes after it, and the hash before that.
    end: (CommitNumber, Hash),
    end_offset: usize,
    commits: Vec<Logged>,
}

impl ReadAhead {
    /// The commits in the data directory `data`, from the first on.
    ///
    /// # Errors
    /// As [`LogReader::open`].
    pub fn open(data: &Path) -> Result<Self, StoreError> {
        let all = Wanted { after: CommitNumber(0), payloads: false };
        Self::open_segment(&dir_of(data), (1, CommitNumber(1), Hash::default()), all)
    }

    /// The same, with the bytes of each.
    pub(in crate::store) fn open_with_payloads(data: &Path) -> Result<Self, StoreError> {
        let all = Wanted { after: CommitNumber(0), payloads: true };
        Self::open_segment(&dir_of(data), (1, CommitNumber(1), Hash::default()), all)
    }

    /// What is wanted of the log in `dir`, from this segment on: its number, its first commit, the hash before that.
    pub(in crate::store) fn open_segment(
        dir: &Path,
        begin: (u64, CommitNumber, Hash),
        wanted: Wanted,
    ) -> Result<Self, StoreError> {
        let mut reader = LogReader::open_segment(dir, begin)?;
        reader.pass_over(wanted.after);
        let place = reader.place();
        // A segment that has a successor is complete.
        let last = segment::list(dir)?.last().map_or(begin.0, |(last, _)| *last);
        let sealed = begin.0..last.max(begin.0);
        let threads =
            thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(sealed.clone().count());
        let threads = (0..threads).filter_map(|nth| {
            let (to, from) = sync_channel(0);
            let (dir, segments) = (dir.to_owned(), sealed.clone().skip(nth).step_by(threads));
            let decoding = thread::Builder::new().name("cairn-log-decode".to_owned());
            let started = decoding.spawn(move || decode_all(&dir, segments, wanted, &to));
            started.is_ok().then_some(from)
        });
        let threads: VecDeque<_> = threads.collect();
        Ok(Self { reader, sealed, threads, taking: Vec::new().into_iter(), place })
    }

    /// Whether what stands at the end is a frame that was never wholly written: no commit that was acknowledged.
    #[must_use]
    pub fn ends_torn(&self) -> bool {
        self.reader.ends_torn()
    }

    /// Where the next commit is expected, or the last one stood: which file, at which byte.
    #[must_use]
    pub fn place(&self) -> (String, u64) {
        self.place.clone()
    }

    /// The next commit and its bytes.
    pub(in crate::store) fn logged(&mut self) -> Option<Result<Logged, BadPlace>> {
        loop {
            if let Some(logged) = self.taking.next() {
                self.place.1 = logged.offset;
                return Some(Ok(logged));
            }
            if !self.take_segment() {
                self.place = self.reader.place();
                return self
                    .reader
                    .logged()
                    .map(|logged| logged.map(|(commit, payload)| Logged { commit, payload, offset: self.place.1 }));
            }
        }
    }

    /// Goes on with the next sealed segment, if it is good.
    fn take_segment(&mut self) -> bool {
        let Some(segment) = self.sealed.next() else { return false };
        let Some(thread) = self.threads.pop_front() else { return false };
        let decoded = thread.recv().ok().flatten();
        let Some(decoded) = decoded.filter(|decoded| decoded.begin == self.reader.expected()) else {
            self.threads = VecDeque::new();
            return false;
        };
        self.threads.push_back(thread);
        self.place = (format!("log/{}", segment::file_name(segment)), HEADER_BYTES as u64);
        self.taking = decoded.commits.into_iter();
        // What follows is read from here, whoever reads it.
        self.reader.go_on_from(segment, decoded.end_offset, decoded.end);
        true
    }
}

impl Iterator for ReadAhead {
    type Item = Result<Commit, BadPlace>;

    /// The next commit. After `None` it may be asked again: more may have been appended. After an error there is none.
    fn next(&mut self) -> Option<Self::Item> {
        self.logged().map(|logged| logged.map(|logged| logged.commit))
    }
}

fn decode_all(dir: &Path, segments: impl Iterator<Item = u64>, wanted: Wanted, to: &SyncSender<Option<Decoded>>) {
    for segment in segments {
        let decoded = decode(&dir.join(segment::file_name(segment)), segment, wanted);
        let is_good = decoded.is_some();
        // Nobody listens any more, or nobody wants what comes after what is not good.
        if to.send(decoded).is_err() || !is_good {
            return;
        }
    }
}

/// The commits of a segment, if all of it is as it should be.
fn decode(path: &Path, segment: u64, wanted: Wanted) -> Option<Decoded> {
    let bytes = std::fs::read(path).ok()?;
    let header = Header::decode(&bytes).ok().filter(|header| header.segment == segment)?;
    let begin = (header.first, header.previous);
    let (mut next, mut previous) = begin;
    let mut offset = HEADER_BYTES;
    let mut commits = Vec::new();
    loop {
        match frame::at(&bytes, offset) {
            Found::Frame(payload) => {
                let head = codec::decode_header(payload).ok().filter(|head| head.number == next)?;
                if next > wanted.after {
                    let commit = codec::decode_commit(payload, previous).ok()?;
                    let payload = if wanted.payloads { payload.to_vec() } else { Vec::new() };
                    commits.push(Logged { commit, payload, offset: offset as u64 });
                }
                (next, previous) = (next.next(), head.hash);
                offset += frame::OVERHEAD_BYTES + payload.len();
            }
            Found::End => return Some(Decoded { begin, end: (next, previous), end_offset: offset, commits }),
            Found::Bad => return None,
        }
    }
}
