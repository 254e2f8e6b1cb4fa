//! Files that are named like segments and follow the log's last one, but are no part of it: copies that somebody left.
//!
//! - A name alone proves nothing: a header must say that it is this segment, or the file must follow right after one.
//! - One that stands where a segment may have been overwritten looks the same. So they are moved aside only where
//!   the other copy is known to have everything; else nothing starts, and the file is named.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::store::StoreError;

use super::segment::{self, FORMAT, HEADER_BYTES, Header, HeaderError};

/// The files behind the end of the log, the first one first.
pub(super) struct Strays(Vec<Stray>);

struct Stray {
    segment: u64,
    path: PathBuf,
    detail: String,
}

impl Strays {
    /// Takes them out of `found`, which is ordered by number.
    pub(super) fn among(found: &mut Vec<(u64, PathBuf)>) -> Result<Self, StoreError> {
        let mut strays = Vec::new();
        while let Some((segment, path)) = found.last() {
            let before = found.len().checked_sub(2).map_or(0, |at| found[at].0);
            let Some(detail) = why(*segment, path, before)? else { break };
            strays.push(Stray { segment: *segment, path: path.clone(), detail });
            found.pop();
        }
        strays.reverse();
        Ok(Self(strays))
    }

    /// # Errors
    /// [`StoreError::Damaged`] with the first of them, unless there is none or it is `certain` that nothing is lost.
    pub(super) fn refuse_unless(&self, certain: bool) -> Result<(), StoreError> {
        match self.0.first().filter(|_| !certain) {
            None => Ok(()),
            Some(Stray { segment, detail, .. }) => Err(StoreError::Damaged {
                place: format!("log/{}", segment::file_name(*segment)),
                detail: format!("{detail}: if somebody put it there, move it elsewhere and start again"),
            }),
        }
    }

    /// Moves them aside, and says from where to where.
    pub(super) fn set_aside(self, dir: &Path) -> Result<Vec<String>, StoreError> {
        let mut moved = Vec::new();
        for Stray { segment, path, detail } in self.0 {
            let aside = (1..)
                .map(|number| path.with_extension(format!("stray-{number}")))
                .find(|aside| !aside.exists())
                .expect("numbers do not end");
            let renamed = fs::rename(&path, &aside).and_then(|()| segment::sync_dir(dir));
            renamed.map_err(|source| StoreError::Io { action: "set aside", path, source })?;
            let name = aside.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            moved.push(format!("log/{}, {detail}: it lies in log/{name} now", segment::file_name(segment)));
        }
        Ok(moved)
    }
}

/// Why this file is no part of the log, if it is none. `before` is the number of the file before it, or 0.
fn why(segment: u64, path: &Path, before: u64) -> Result<Option<String>, StoreError> {
    // A log begins with its first segment, whatever has become of that.
    if segment == 1 {
        return Ok(None);
    }
    let mut bytes = [0; HEADER_BYTES];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut bytes, 0));
    let header = read.map_err(|_| HeaderError::Damaged).and_then(|()| Header::decode(&bytes));
    match header {
        Ok(header) if header.segment == segment => Ok(None),
        Ok(header) => Ok(Some(format!("it holds segment {}", header.segment))),
        Err(HeaderError::Newer(found)) => Err(StoreError::NewerFormat { path: path.to_owned(), found, known: FORMAT }),
        Err(HeaderError::Damaged) if before + 1 == segment => Ok(None),
        Err(HeaderError::Damaged) => Ok(Some("it follows no segment, and its header is none".to_owned())),
    }
}
