//! Opening the log: its frames are read, and what is not there any more is put back from the other copy.
//!
//! - A segment with a flaw is written anew, beside, with the same frames byte for byte, and takes the old one's place.
//! - Of a long log the sealed segments are passed over ([`super::sealed`]), and read in the same way once the journal is open.

use std::{
    borrow::Cow,
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    ids::{CommitNumber, Hash},
    journal::{
        chain::BadPlace,
        codec::{self, Header as Commit},
    },
    store::StoreError,
};

use super::{
    CommitLog, begin,
    frame::{self, Found},
    sealed::{Peeked, Sealed, passed},
    segment::{self, FORMAT, HEADER_BYTES, Header, HeaderError, Prepared},
    stray::Strays,
};

/// The copy that heals the log, as far as it can be read.
pub(in crate::store) trait OtherCopy {
    /// The bytes of this commit as they were framed, if this copy has it.
    fn payload(&self, number: CommitNumber) -> Option<Vec<u8>>;

    /// The hash of this commit, if this copy has it: without its entries, which the hash covers.
    fn hash(&self, number: CommitNumber) -> Option<Hash>;

    /// Whether it was brought to rest: then it has every commit that was acknowledged, as it was.
    fn is_complete(&self) -> bool;

    /// Whether whatever it wrote is still there: it was brought to rest, or all of it was written since the system has
    /// started. What a power failure takes is never the log's; this copy is not synced.
    fn lost_nothing(&self) -> bool;
}

/// So many of the last commits are looked at closely: that they follow each other, and, where the other copy was not
/// brought to rest and may have lost some of what it wrote, that it has the same.
pub(super) const COMPARED_COMMITS: u64 = 20_000;

/// What was never acknowledged, and is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Of which file.
    pub file: String,
    /// From which byte on.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// The log, and what opening it came to.
pub(in crate::store) struct Recovered {
    pub(in crate::store) log: CommitLog,
    /// The last commit; none in a new log.
    pub(in crate::store) head: Option<Commit>,
    /// Each segment: its number, the number of its first commit, and the hash before that.
    pub(in crate::store) segments: Vec<(u64, CommitNumber, Hash)>,
    /// The hash of the last commit of the other copy, as the log has it.
    pub(in crate::store) known: Option<Hash>,
    /// The first commit of which the other copy has other bytes.
    pub(in crate::store) contradicted: Option<CommitNumber>,
    /// Where frames or headers were put back from the other copy.
    pub(in crate::store) healed: Vec<String>,
    pub(in crate::store) cut: Option<Cut>,
    /// What was passed over, and is still to be read.
    pub(in crate::store) passed: Vec<Sealed>,
}

/// How a log is read when it is opened.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Extent {
    /// How long a segment is made.
    pub(in crate::store) segment_bytes: u64,
    /// So much of its end is read before anything else; 0 for the least that tells where it ends.
    pub(in crate::store) read_bytes: u64,
}

/// Opens the log in `dir`, which exists. `known` is the last commit of the other copy.
pub(in crate::store) fn recover(
    dir: &Path,
    Extent { segment_bytes, read_bytes }: Extent,
    other: Option<&dyn OtherCopy>,
    known: CommitNumber,
) -> Result<Recovered, StoreError> {
    segment::remove_unfinished(dir)?;
    let mut found = segment::list(dir)?;
    let strays = Strays::among(&mut found)?;
    // Before anything is changed: what only a complete copy can tell apart from a loss needs one.
    strays.refuse_unless(other.is_some_and(OtherCopy::is_complete))?;
    let last = found.last().map_or(1, |(segment, _)| *segment);
    let mut peeked = Vec::new();
    for segment in 1..=last {
        peeked.push(peek(dir, segment)?);
    }
    let mut walk = Walk::new(dir, segment_bytes, other, known);
    let passed = other.map(|other| passed(&peeked, read_bytes, other, known)).unwrap_or_default();
    for sealed in &passed {
        walk.segments.push(sealed.begin);
        (walk.next, walk.previous) = sealed.end;
    }
    let first_read = passed.len() as u64 + 1;
    let is_new = found.is_empty() && other.is_none_or(|other| other.payload(CommitNumber(1)).is_none());
    let mut end = HEADER_BYTES as u64;
    for segment in (first_read..=last).filter(|_| !is_new) {
        let at = usize::try_from(segment - 1).expect("as many as there are files");
        // A number that lies behind is that of a file which is not what its name says.
        let bound = peeked[at + 1..].iter().filter_map(|peeked| peeked.first).find(|first| *first >= walk.next);
        end = walk.segment(segment, bound, segment == last)?;
    }
    // The log without them must be all that the other copy knows, and that is complete.
    strays.refuse_unless(walk.next == known.next())?;
    walk.healed.extend(strays.set_aside(dir)?);
    if is_new {
        let log = begin(dir, segment_bytes)?;
        return Ok(walk.done(log, passed));
    }
    let path = dir.join(segment::file_name(last));
    let file = OpenOptions::new().read(true).write(true).open(&path);
    let file = file.map_err(|source| StoreError::Io { action: "open", path: path.clone(), source })?;
    let length = file.metadata().map_err(|source| StoreError::Io { action: "read", path: path.clone(), source })?;
    let log = CommitLog {
        dir: dir.to_owned(),
        segment_bytes,
        segment: last,
        path,
        file,
        offset: end,
        end: length.len(),
        next: None,
    };
    Ok(walk.done(log, passed))
}

/// What reading a sealed segment came to.
#[derive(Debug, Default)]
pub(in crate::store) struct Checked {
    /// Where frames were put back from the other copy.
    pub(in crate::store) healed: Vec<String>,
    /// The first commit of which the other copy has other bytes.
    pub(in crate::store) contradicted: Option<CommitNumber>,
}

/// Reads a segment that a start has passed over as that would have, also while the log is appended to. `known` is what it
/// was for [`recover`].
///
/// # Errors
/// [`StoreError::Damaged`] where neither copy has what it should hold, [`StoreError::Io`] if it cannot be read.
pub(in crate::store) fn check(
    dir: &Path,
    segment_bytes: u64,
    other: &dyn OtherCopy,
    known: CommitNumber,
    sealed: &Sealed,
) -> Result<Checked, StoreError> {
    let (segment, next, previous) = sealed.begin;
    let mut walk = Walk { next, previous, ..Walk::new(dir, segment_bytes, Some(other), known) };
    walk.segment(segment, Some(sealed.end.0), false)?;
    if (walk.next, walk.previous) != sealed.end {
        let place = format!("log/{}", segment::file_name(segment));
        return Err(walk.damaged(&place, "what follows does not follow it"));
    }
    Ok(Checked { healed: walk.healed, contradicted: walk.contradicted })
}

/// What the header of a segment says, or else its first frame.
fn peek(dir: &Path, segment: u64) -> Result<Peeked, StoreError> {
    let path = dir.join(segment::file_name(segment));
    let mut bytes = [0; HEADER_BYTES];
    let read = File::open(&path).and_then(|file| {
        file.read_exact_at(&mut bytes, 0)?;
        file.metadata()
    });
    // A missing or short file has no header; one that cannot be read is told when it is read whole.
    let Ok(metadata) = read else { return Ok(Peeked::default()) };
    match Header::decode(&bytes) {
        Ok(header) if header.segment == segment => {
            let is_whole = header.bytes <= metadata.len();
            Ok(Peeked { first: Some(header.first), header: Some(header).filter(|_| is_whole) })
        }
        Err(HeaderError::Newer(found)) => Err(StoreError::NewerFormat { path, found, known: FORMAT }),
        // Another segment's content says nothing of this one's.
        Ok(_) => Ok(Peeked::default()),
        Err(HeaderError::Damaged) => {
            let bytes = fs::read(&path).map_err(|source| StoreError::Io { action: "read", path, source })?;
            let first = match frame::at(&bytes, HEADER_BYTES) {
                Found::Frame(payload) => codec::decode_header(payload).ok().map(|commit| commit.number),
                Found::End | Found::Bad => None,
            };
            Ok(Peeked { first, header: None })
        }
    }
}

struct Walk<'a> {
    dir: &'a Path,
    segment_bytes: u64,
    other: Option<&'a dyn OtherCopy>,
    next: CommitNumber,
    head: Option<Commit>,
    previous: Hash,
    known: (CommitNumber, Option<Hash>),
    contradicted: Option<CommitNumber>,
    segments: Vec<(u64, CommitNumber, Hash)>,
    healed: Vec<String>,
    cut: Option<Cut>,
}

impl<'a> Walk<'a> {
    fn new(dir: &'a Path, segment_bytes: u64, other: Option<&'a dyn OtherCopy>, known: CommitNumber) -> Self {
        Self {
            dir,
            segment_bytes,
            other,
            next: CommitNumber(1),
            head: None,
            previous: Hash::default(),
            known: (known, None),
            contradicted: None,
            segments: Vec::new(),
            healed: Vec::new(),
            cut: None,
        }
    }

    fn done(self, log: CommitLog, passed: Vec<Sealed>) -> Recovered {
        let Self { head, mut segments, known, contradicted, healed, cut, .. } = self;
        if segments.is_empty() {
            segments.push((log.segment, CommitNumber(1), Hash::default()));
        }
        Recovered { log, head, segments, known: known.1, contradicted, healed, cut, passed }
    }

    /// Reads one segment, heals it where that is needed, and returns where its last frame ends.
    fn segment(&mut self, segment: u64, bound: Option<CommitNumber>, is_last: bool) -> Result<u64, StoreError> {
        let name = segment::file_name(segment);
        let path = self.dir.join(&name);
        let place = |offset: usize| format!("log/{name} at byte {offset}");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(StoreError::Io { action: "read", path, source }),
        };
        let (first, previous) = (self.next, self.previous);
        let header = Header::decode(&bytes).ok();
        let mut flawed =
            !header.is_some_and(|found| (found.segment, found.first, found.previous) == (segment, first, previous));
        let is_ours = !flawed;
        if flawed {
            self.healed.push(format!("the header of {}", place(0)));
        }
        let may_be_truncated = header.is_none_or(|header| header.bytes > bytes.len() as u64);
        if !flawed && may_be_truncated {
            flawed = true;
            self.healed.push(format!("the end of {}", place(bytes.len())));
        }
        self.segments.push((segment, first, previous));
        let mut payloads: Vec<Cow<'_, [u8]>> = Vec::new();
        let mut offset = HEADER_BYTES;
        let mut torn = false;
        while bound.is_none_or(|bound| self.next < bound) {
            let found = frame::at(&bytes, offset);
            let is_next = self.is_next(&found, &bytes, offset, is_ours);
            let payload: Cow<'_, [u8]> = match (found, self.lent_unless(is_next)) {
                (Found::Frame(payload), None) if is_next => payload.into(),
                (_, Some(payload)) => {
                    flawed = true;
                    self.healed.push(format!("commit {}, {}", self.next, place(offset)));
                    payload.into()
                }
                (Found::End, None) if bound.is_none() => {
                    // Where a length would stand and is zero, no frame follows; where the file has none, one may have.
                    let may_lack = may_be_truncated && bytes.len() < offset + 4;
                    if may_lack && is_last && !self.other.is_some_and(|other| other.is_complete()) {
                        return Err(self.damaged(
                            &place(bytes.len()),
                            "the segment is cut off here, and the index may lack what is missing",
                        ));
                    }
                    break;
                }
                (Found::Bad, None) if is_last && let Some(payload) = self.mended(&bytes, offset) => {
                    flawed = true;
                    self.healed.push(format!("the length of commit {}, {}", self.next, place(offset)));
                    payload.to_vec().into()
                }
                // What the index knows of was acknowledged: that it lacks it now is a loss.
                (Found::Bad, None) if is_last && self.next > self.known.0 && frame::is_torn(&bytes, offset) => {
                    torn = true;
                    break;
                }
                // Where something was put in, the rest stands further back: what is left is known already.
                (_, None) if is_last && (flawed || found != Found::Bad) && self.is_over(&bytes, offset) => {
                    flawed = true;
                    self.healed.push(format!("what does not belong there, {}", place(offset)));
                    break;
                }
                (found, None) => {
                    let what = match found {
                        Found::End => "it is missing here",
                        Found::Frame(_) => "another commit stands here",
                        Found::Bad => "its checksum does not match",
                    };
                    let other = if self.other.is_some() { "the index lacks it too" } else { "the index is unreadable" };
                    return Err(self.damaged(&place(offset), &format!("{what}, and {other}")));
                }
            };
            let commit = codec::decode_header(&payload).expect("it was decoded when it was found to be the next");
            offset += frame::OVERHEAD_BYTES + payload.len();
            self.compare(&commit, &payload);
            (self.next, self.previous, self.head) = (commit.number.next(), commit.hash, Some(commit));
            payloads.push(payload);
        }
        // Readers go on until nothing follows, whatever the next segment says.
        if !flawed && bound.is_some() && frame::at(&bytes, offset) != Found::End {
            flawed = true;
            self.healed.push(format!("what does not belong there, {}", place(offset)));
        }
        if torn {
            self.cut(&path, &bytes, offset, flawed)?;
        }
        if flawed {
            let frames: Vec<u8> = payloads.iter().flat_map(|payload| frame::encode(payload)).collect();
            let needed = (HEADER_BYTES + frames.len()) as u64;
            let prepared = Prepared::make(self.dir, "healed", self.segment_bytes.max(needed))?;
            prepared.finish(self.dir, (segment, first, previous), &frames)?;
        }
        Ok(offset as u64)
    }

    fn compare(&mut self, commit: &Commit, payload: &[u8]) {
        let last = self.known.0;
        if commit.number == last {
            self.known.1 = Some(commit.hash);
        }
        let is_compared = self.is_compared(commit.number);
        if let Some(other) = self.other.filter(|other| is_compared && !other.is_complete())
            && other.payload(commit.number).as_deref() != Some(payload)
        {
            self.contradicted.get_or_insert(commit.number);
        }
    }

    /// Whether this is the next commit. A whole frame with the right number may still be another journal's: where the
    /// segment is not known to be ours, and among the last commits of the other copy, it must follow by its hash. What
    /// that copy lacks is looked at when it gets it.
    fn is_next(&self, found: &Found<'_>, bytes: &[u8], offset: usize, is_ours: bool) -> bool {
        let Found::Frame(payload) = found else { return false };
        if !codec::decode_header(payload).is_ok_and(|header| header.number == self.next) {
            return false;
        }
        // Without the other copy, too: nobody else would tell where the first break is.
        if is_ours && self.known.0 > CommitNumber(0) && !self.is_compared(self.next) {
            return true;
        }
        let Ok(commit) = codec::decode_commit(payload, self.previous) else { return false };
        // The first one follows nothing. Where the other copy has another one, what follows it here tells whose it is.
        let is_first = self.next == CommitNumber(1) && self.known.0 > self.next;
        let is_doubted = |known: Vec<u8>| {
            known != *payload && {
                let after = frame::at(bytes, offset + frame::OVERHEAD_BYTES + payload.len());
                !matches!(after, Found::Frame(next) if codec::decode_commit(next, commit.hash).is_ok())
            }
        };
        let known =
            self.other.filter(|other| is_first && other.is_complete()).and_then(|other| other.payload(self.next));
        !known.is_some_and(is_doubted)
    }

    /// The next commit, if its frame lacks nothing but a part of its length.
    fn mended<'b>(&self, bytes: &'b [u8], offset: usize) -> Option<&'b [u8]> {
        let payload = frame::without_its_length(bytes, offset)?;
        let commit = codec::decode_commit(payload, self.previous).ok()?;
        (commit.number == self.next).then_some(payload)
    }

    /// Whether all that there is was read: the other copy, which has everything, has no more, and neither has the rest.
    fn is_over(&self, bytes: &[u8], offset: usize) -> bool {
        let is_all = self.other.is_some_and(OtherCopy::is_complete) && self.next == self.known.0.next();
        is_all && frame::commits_after(bytes, offset).all(|number| number < self.next)
    }

    fn is_compared(&self, number: CommitNumber) -> bool {
        let last = self.known.0;
        number <= last && last.0 - number.0 < COMPARED_COMMITS
    }

    /// The next commit from the other copy, where it is needed, if that has it and it follows the commit before.
    fn lent_unless(&self, is_there: bool) -> Option<Vec<u8>> {
        let payload = self.other.filter(|_| !is_there)?.payload(self.next)?;
        let fits = codec::decode_commit(&payload, self.previous).is_ok_and(|commit| commit.number == self.next);
        fits.then_some(payload)
    }

    /// Takes away what was never wholly written, and so never acknowledged.
    fn cut(&mut self, path: &Path, bytes: &[u8], offset: usize, written_anew: bool) -> Result<(), StoreError> {
        let Some(last) = frame::last_written(&bytes[offset..]) else { return Ok(()) };
        let zeros = vec![0; last + 1];
        if !written_anew {
            let failed = |source| StoreError::Io { action: "cut the torn end of", path: path.to_owned(), source };
            let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
            // The head goes last: what is left of a cut that was itself cut short is known by it for what it is.
            let (head, rest) = zeros.split_at(zeros.len().min(frame::HEAD_BYTES));
            for (zeros, at) in [(rest, offset + head.len()), (head, offset)] {
                file.write_all_at(zeros, at as u64).and_then(|()| file.sync_all()).map_err(failed)?;
            }
        }
        let file = path.file_name().map(|name| format!("log/{}", name.to_string_lossy())).unwrap_or_default();
        self.cut = Some(Cut { file, offset: offset as u64, bytes: zeros.len() as u64 });
        Ok(())
    }

    fn damaged(&self, place: &str, detail: &str) -> StoreError {
        let place = format!("{}, {place}", BadPlace::commit(self.next, "").place());
        StoreError::Damaged { place, detail: detail.to_owned() }
    }
}

/// Where the segments of a data directory are.
pub(in crate::store) fn dir_of(data: &Path) -> PathBuf {
    data.join("log")
}
