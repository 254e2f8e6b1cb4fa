//! Comparing the two copies of a journal, and what is derived with what a rebuild makes, without changing either.
//!
//! Sled writes when it opens: it is opened as a copy, in a temporary directory that is gone afterwards.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    ops::ControlFlow,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{
    journal::{
        keys::{self, Map, Order, Overlay, Read},
        ledger::Ledger,
    },
    store::{
        StoreError,
        durable::{damaged, index_dir},
        log::{Logged, OtherCopy, ReadAhead},
        reading,
        sled::{Indexed, Unusable},
    },
};

/// More differences than that say no more.
const DIFFERENCES_MAX: usize = 100;

/// How the index compares with the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexCheck {
    /// How many commits are in both.
    pub commits: u64,
    /// How many of the log's commits the index lacks: the next start gives it those.
    pub behind: u64,
    /// How many commits the index has after the log's last: the log has lost its end, the next start puts it back.
    pub ahead: u64,
    /// What differs, a line each; at most 100. Empty if the index is what a rebuild would make.
    pub differences: Vec<String>,
}

/// Compares the index in the data directory `data` with the log there: every commit byte for byte, and every derived
/// key with what a rebuild makes of the entries. It needs the room of the index in the system's temporary directory.
///
/// # Errors
/// [`StoreError::Locked`] while an engine has the journal open, [`StoreError::Damaged`] where the log is bad,
/// [`StoreError::Io`] if either cannot be read.
pub fn check_index(data: &Path) -> Result<IndexCheck, StoreError> {
    let lock = locked(data)?;
    let mut check = IndexCheck::default();
    let copy = Copied::of(&index_dir(data))?;
    // From here on an engine may start: what it appends is in the log only, and counts as not yet in the copy.
    drop(lock);
    let index = match Indexed::open(&copy.0) {
        Ok(index) => index,
        Err(Unusable { refused: Some(source), .. }) => {
            return Err(StoreError::Io { action: "open a copy of the index in", path: copy.0.clone(), source });
        }
        Err(Unusable { why, .. }) => {
            check.differences.push(format!("the index cannot be opened: {why}"));
            return Ok(check);
        }
    };
    let reached = reading::head(&index)?.map(|header| header.number).unwrap_or_default();
    let mut ledger = Ledger::default();
    let mut rebuilt = Map::default();
    let lender = index.lender();
    let mut log = ReadAhead::open_with_payloads(data)?;
    while let Some(logged) = log.logged() {
        let Logged { commit, payload, .. } = logged.map_err(damaged)?;
        let number = commit.number;
        if number > reached {
            check.behind += 1;
            continue;
        }
        check.commits += 1;
        if lender.payload(number).as_deref() != Some(&payload) {
            check.differs(format!("commit {number} is another in the index than in the log"));
        }
        let mut space = Overlay::new(&rebuilt);
        ledger.derive(&mut space, &commit)?.map_err(damaged)?;
        let changes = space.into_changes();
        rebuilt.apply(changes);
    }
    if check.commits < reached.0 {
        check.ahead = reached.0 - check.commits;
        check.differs(format!("the index has commits up to {reached}, the log up to {}", check.commits));
    }
    check.compare(&index, rebuilt)?;
    Ok(check)
}

impl IndexCheck {
    fn differs(&mut self, what: String) {
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(what);
        }
    }

    /// Compares what is stored with what a rebuild has made, key by key: of millions, no second copy is kept.
    fn compare(&mut self, index: &Indexed, mut rebuilt: Map) -> Result<(), StoreError> {
        let (mut changed, mut foreign) = (BTreeMap::new(), Vec::new());
        for prefix in keys::DERIVED {
            index.scan(&keys::all_with(vec![prefix]), Order::Ascending, &mut |key, value| {
                match rebuilt.0.remove(key) {
                    None if foreign.len() < DIFFERENCES_MAX => foreign.push(key.to_vec()),
                    Some(expected) if expected != value && changed.len() < DIFFERENCES_MAX => {
                        changed.insert(key.to_vec(), "has another value");
                    }
                    None | Some(_) => {}
                }
                ControlFlow::Continue(())
            })?;
        }
        changed.extend(rebuilt.0.into_keys().take(DIFFERENCES_MAX).map(|key| (key, "is missing")));
        for (key, what) in changed {
            self.differs(format!("key {} {what}", shown(&key)));
        }
        for key in foreign {
            self.differs(format!("key {} should not be there", shown(&key)));
        }
        Ok(())
    }
}

fn shown(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

/// Keeps an engine from starting meanwhile, without leaving a trace.
fn locked(data: &Path) -> Result<Option<File>, StoreError> {
    let path = data.join("lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Io { action: "open", path, source }),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            let holder = fs::read_to_string(&path).ok().map(|holder| holder.trim().to_owned());
            Err(StoreError::Locked { path: data.to_owned(), holder })
        }
        Err(TryLockError::Error(source)) => Err(StoreError::Io { action: "lock", path, source }),
    }
}

/// A copy of a directory that is gone when this is.
struct Copied(PathBuf);

impl Copied {
    fn of(dir: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Io { action: "copy", path: dir.to_owned(), source };
        let name = format!("cairn-check-{}", uuid::Uuid::now_v7());
        let copied = Self(std::env::temp_dir().join(name));
        // Nobody else's eyes: a request may hold what is nobody else's business.
        DirBuilder::new().mode(0o700).create(&copied.0).map_err(failed)?;
        if dir.exists() {
            copy(dir, &copied.0).map_err(failed)?;
        }
        Ok(copied)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clean up: it is a temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            // The content alone: sled writes to the copy, and what it was made of may be read-only, as a backup is.
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
            io::copy(&mut File::open(entry.path())?, &mut file)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_copy_of_what_is_read_only_can_be_written_to_and_by_nobody_else() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("blobs")).expect("it is made");
        for name in ["db", "blobs/1"] {
            let path = dir.path().join(name);
            fs::write(&path, name).expect("it takes a write");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("it is ours");
        }
        fs::set_permissions(dir.path().join("blobs"), fs::Permissions::from_mode(0o555)).expect("it is ours");
        let copied = Copied::of(dir.path()).expect("it can be copied");
        for name in ["db", "blobs/1"] {
            let path = copied.0.join(name);
            assert_eq!(fs::read(&path).expect("it is there"), name.as_bytes());
            assert_eq!(path.metadata().expect("it is there").permissions().mode() & 0o777, 0o600, "{name}");
        }
        let blobs = copied.0.join("blobs").metadata().expect("it is there").permissions();
        assert_eq!(blobs.mode() & 0o700, 0o700);
        fs::set_permissions(dir.path().join("blobs"), fs::Permissions::from_mode(0o755)).expect("it is ours");
    }

    #[test]
    fn an_index_that_cannot_be_read_is_not_checked_and_no_bad_one() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // A name that leads nowhere cannot be copied.
        fs::create_dir(dir.path().join("journal")).expect("it is made");
        std::os::unix::fs::symlink("nowhere", dir.path().join("journal/db")).expect("it is made");
        assert!(matches!(check_index(dir.path()), Err(StoreError::Io { action: "copy", .. })));
    }
}
