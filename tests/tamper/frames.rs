//! Segments of the commit log as `docs/journal.md` describes them, taken apart and put together again: written from that
//! page alone, and sharing no code with the engine.

use std::ops::Range;

pub(crate) const HEADER_BYTES: usize = 72;
const HEAD_BYTES: usize = 8;
const END: u8 = 0xe5;

/// A segment: its header, the content of its frames, and how long its file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) header: Vec<u8>,
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) bytes: usize,
}

impl Segment {
    /// A good segment, taken apart.
    pub(crate) fn of(file: &[u8]) -> Self {
        let mut frames = Vec::new();
        let mut at = HEADER_BYTES;
        while let Some(length) = length_at(file, at) {
            frames.push(file[at + HEAD_BYTES..at + HEAD_BYTES + length].to_vec());
            at += HEAD_BYTES + length + 1;
        }
        Self { header: file[..HEADER_BYTES].to_vec(), frames, bytes: file.len() }
    }

    /// Its file, which is longer if that is needed.
    pub(crate) fn file(&self) -> Vec<u8> {
        let mut file = self.header.clone();
        self.frames.iter().for_each(|frame| file.extend(framed(frame)));
        file.resize(self.bytes.max(file.len()), 0);
        file
    }

    /// Where each frame stands in the file.
    pub(crate) fn places(&self) -> Vec<Range<usize>> {
        let mut at = HEADER_BYTES;
        let place = |frame: &Vec<u8>| {
            let start = at;
            at += HEAD_BYTES + frame.len() + 1;
            start..at
        };
        self.frames.iter().map(place).collect()
    }
}

/// A frame around this content, with its checksum.
pub(crate) fn framed(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("frames are small here").to_le_bytes();
    let sum = crc32c::crc32c_append(crc32c::crc32c(&length), content).to_le_bytes();
    [&length, &sum, content, &[END]].concat()
}

fn length_at(file: &[u8], at: usize) -> Option<usize> {
    let length = u32::from_le_bytes(*file.get(at..)?.first_chunk()?);
    (length > 0).then_some(length as usize)
}
