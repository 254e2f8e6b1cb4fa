//! Files that no reader ever sees by halves: written beside, synced, renamed, and the directory synced.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    time::{Duration, SystemTime},
};

use cairn_engine::Timestamp;

/// Puts `bytes` at `path`, whole or not at all; with `modified` as the time of its last change.
///
/// # Errors
/// If the disk does not take it; what was there before is then still there.
pub(crate) fn replace(path: &Path, bytes: &[u8], modified: Option<Timestamp>) -> io::Result<()> {
    put(path, bytes, modified)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// The same, but the name is not yet sure to survive a power cut: that takes a [`sync_dir`], one for many files.
///
/// # Errors
/// If the disk does not take it; what was there before is then still there.
pub(crate) fn put(path: &Path, bytes: &[u8], modified: Option<Timestamp>) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A name of its own, hidden: no pattern of a user's command matches it, and the next try overwrites it.
    let beside = dir.join(format!(".{name}.new"));
    let write = || -> io::Result<()> {
        let mut file = match File::create(&beside) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(dir)?;
                File::create(&beside)?
            }
            Err(error) => return Err(error),
        };
        file.write_all(bytes)?;
        if let Some(modified) = modified {
            file.set_modified(system_time(modified))?;
        }
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|error| at("write", path, &error))
}

/// Makes the names in `dir` durable.
///
/// # Errors
/// If the disk does not take it.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| at("sync", dir, &error))
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
