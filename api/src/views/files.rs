//! Files that no reader ever sees by halves: written beside, renamed, and made durable alone or many at a time.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use cairn_engine::Timestamp;

/// Up to so many files are synced one by one, which lets everybody else's alone; more of them as all of their file system.
const ONE_BY_ONE_MAX: usize = 64;

/// Puts `bytes` at `path`, durably, whole or not at all.
///
/// # Errors
/// If the disk does not take it; what was there before is then still there.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let write = |file: &mut File| {
        file.write_all(bytes)?;
        file.sync_all()
    };
    place(&beside(path), path, write)?;
    sync(path.parent().unwrap_or(Path::new(".")), File::sync_all)
}

/// Files that are written, and not sure to survive a power cut until [`Files::sync`].
pub(crate) struct Files {
    root: PathBuf,
    /// The directories in which files are unsynced, and so many of these files.
    dirs: BTreeSet<PathBuf>,
    unsynced: BTreeSet<PathBuf>,
    /// There are more than these.
    many: bool,
}

impl Files {
    /// Files below `root`.
    pub(crate) fn below(root: &Path) -> Self {
        Self { root: root.to_owned(), dirs: BTreeSet::new(), unsynced: BTreeSet::new(), many: false }
    }

    /// What was written so far is nobody's to sync any more.
    pub(crate) fn forget(&mut self) {
        self.dirs.clear();
        self.unsynced.clear();
        self.many = false;
    }

    /// Puts `bytes` at `path`, whole or not at all; with `modified` as the time of its last change.
    ///
    /// # Errors
    /// If the disk does not take it; what was there before is then still there.
    pub(crate) fn put(&mut self, path: &Path, bytes: &[u8], modified: Timestamp) -> io::Result<()> {
        self.write(path, |file| {
            file.write_all(bytes)?;
            file.set_modified(system_time(modified))
        })
    }

    /// The same with what `write` writes.
    ///
    /// # Errors
    /// As [`Files::put`].
    pub(crate) fn write(&mut self, path: &Path, write: impl Fn(&mut File) -> io::Result<()>) -> io::Result<()> {
        // In the small directory above: to make a name costs with the size of its directory. Hidden, so that no pattern of a
        // user's command matches it; the next one overwrites it.
        match place(&self.root.join(".new"), path, &write) {
            // Its directory is a file system of its own.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => place(&beside(path), path, &write)?,
            other => other?,
        }
        self.note(path);
        Ok(())
    }

    /// Removes the file at `path`, if there is one.
    ///
    /// # Errors
    /// If it is there and stays.
    pub(crate) fn remove(&mut self, path: &Path) -> io::Result<()> {
        remove(path)?;
        self.note(path);
        Ok(())
    }

    /// The file at `path` is there, or gone, and is to be synced with the others.
    pub(crate) fn note(&mut self, path: &Path) {
        if let Some(dir) = path.parent()
            && !self.dirs.contains(dir)
        {
            self.dirs.insert(dir.to_owned());
        }
        if !self.many {
            self.unsynced.insert(path.to_owned());
            self.many = self.unsynced.len() > ONE_BY_ONE_MAX;
        }
    }

    /// Makes durable all that was written and removed.
    ///
    /// # Errors
    /// If the disk does not take it: nothing of it is sure then.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.many {
            for dir in &self.dirs {
                sync(dir, |dir| rustix::fs::syncfs(dir).map_err(io::Error::from))?;
            }
        } else {
            for path in self.unsynced.iter().chain(&self.dirs) {
                sync(path, File::sync_all)?;
            }
        }
        self.forget();
        Ok(())
    }
}

/// Syncs what is at `path`, if it is still there: somebody may have deleted the views, which the next start makes anew.
fn sync(path: &Path, sync: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    match File::open(path).and_then(|file| sync(&file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        synced => synced.map_err(|error| at("sync", path, &error)),
    }
}

/// Writes a file at `beside`, and renames it to `path`.
fn place(beside: &Path, path: &Path, write: impl Fn(&mut File) -> io::Result<()>) -> io::Result<()> {
    let place = || -> io::Result<()> {
        let mut file = match File::create(beside) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_parents(beside, path)?;
                File::create(beside)?
            }
            Err(error) => return Err(error),
        };
        write(&mut file)?;
        match fs::rename(beside, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_parents(beside, path)?;
                fs::rename(beside, path)
            }
            renamed => renamed,
        }
    };
    place().map_err(|error| at("write", path, &error))
}

fn make_parents(beside: &Path, path: &Path) -> io::Result<()> {
    [beside, path].into_iter().filter_map(Path::parent).try_for_each(fs::create_dir_all)
}

/// A name of its own in the same directory, hidden.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// Removes the file at `path`, if there is one.
///
/// # Errors
/// If it is there and stays.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at("remove", path, &error)),
    }
}

/// Removes every `.json` in `dir`, if there is such a directory.
///
/// # Errors
/// If one of them stays.
pub(crate) fn remove_json(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at("read", dir, &error)),
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            remove(&path)?;
        }
    }
    Ok(())
}

/// The error with what was tried on which file.
pub(crate) fn at(action: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {action} {}: {error}", path.display()))
}

fn system_time(time: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(0))
}
