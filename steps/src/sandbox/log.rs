//! The sandbox's objects on disk: one file of changes, a line each.
//!
//! - A change is written to the file before its caller is answered. It is not synced: the sandbox must outlive a killed process, not a
//!   power cut, and the page cache does that.
//! - A write that fails (a full disk) leaves whole lines behind; what it did not keep waits, and goes first when there is room again.
//! - Read at open, folded, and begun anew with one line an object; the new file takes the old one's place by rename.
//! - A last line without its end is a write that was cut: its caller was never answered, so it is dropped.
//! - One process at a time: the lock is on a file of its own, which no rename replaces. It names its holder.

use super::SandboxError;
use super::json::text;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read as _, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const OBJECTS: &str = "objects.jsonl";
const LOCK: &str = "lock";
/// A file that has grown by so many bytes since it was folded, and to thrice what it was, is folded again.
const FOLD_AFTER: u64 = 64 * 1024 * 1024;
/// How long another's lock is waited for: a process that is killed keeps it until the system has taken it apart.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stored {
    Put {
        version: u64,
        object: Arc<Value>,
    },
    Delete {
        version: u64,
        kind: String,
        namespace: String,
        name: String,
    },
    /// The first line of a folded file: deletions count versions too.
    Version(u64),
}

/// What a file of changes comes to.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) version: u64,
    pub(super) objects: Vec<Arc<Value>>,
}

#[derive(Debug)]
pub(super) struct ChangeLog {
    file: File,
    path: PathBuf,
    folded: u64,
    grown: u64,
    /// How long the file is up to its last whole line.
    whole: u64,
    /// Lines that could not be written yet.
    waiting: Vec<u8>,
    /// Whether a failed write may have left part of a line after the last whole one.
    torn: bool,
    /// Held as long as the log is open.
    _lock: File,
}

impl ChangeLog {
    /// # Errors
    /// [`SandboxError::Directory`]: it cannot be made, read or written. [`SandboxError::Locked`]: another sandbox has it, and kept it
    /// for two seconds. [`SandboxError::Full`]: the disk has no room for it. [`SandboxError::Damaged`]: a line that is not the last one is no change.
    pub(super) fn open(directory: &Path) -> Result<(ChangeLog, Contents), SandboxError> {
        let failed = |source| SandboxError::Directory { path: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let lock = lock(directory, LOCK_WAIT)?;
        let path = directory.join(OBJECTS);
        let contents = read(&path)?;
        let folded = write_folded(&path, contents.version, contents.objects.iter());
        let (file, folded) = folded.map_err(|source| cannot_fold(directory, &contents, source))?;
        let log =
            ChangeLog { file, path, folded, grown: 0, whole: folded, waiting: Vec::new(), torn: false, _lock: lock };
        Ok((log, contents))
    }

    /// # Errors
    /// The change is not on disk. It waits, with those after it, and goes with the next one or with [`ChangeLog::flush`].
    pub(super) fn append(&mut self, change: &Stored) -> io::Result<()> {
        serde_json::to_writer(&mut self.waiting, change)?;
        self.waiting.push(b'\n');
        self.flush()
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if self.torn {
            self.cut()?;
        }
        // One write a line where all is well: a kill leaves whole lines and at most one cut one.
        if let Err(error) = self.file.write_all(&self.waiting) {
            self.torn = true;
            // If this fails too, it is done before the next write.
            let _ = self.cut();
            return Err(error);
        }
        let bytes = self.waiting.len() as u64;
        self.grown += bytes;
        self.whole += bytes;
        // A large burst does not stay in memory.
        self.waiting = Vec::new();
        Ok(())
    }

    /// Takes away what a failed write has left: a line must never follow a part of one.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.whole)?;
        self.torn = false;
        Ok(())
    }

    pub(super) fn wants_folding(&self) -> bool {
        self.waiting.is_empty() && self.grown > FOLD_AFTER && self.grown > 2 * self.folded
    }

    /// Begins anew with what is there.
    ///
    /// # Errors
    /// The file is as it was, and goes on; folding is wanted again once it has grown as much again.
    pub(super) fn fold<'a>(&mut self, version: u64, objects: impl Iterator<Item = &'a Arc<Value>>) -> io::Result<()> {
        self.grown = 0;
        (self.file, self.folded) = write_folded(&self.path, version, objects)?;
        self.whole = self.folded;
        // All that waited is among the objects.
        self.waiting.clear();
        self.torn = false;
        Ok(())
    }

    /// Puts another file in the place of the log's, as if the disk had become another one.
    #[cfg(test)]
    pub(super) fn exchange_file(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }
}

/// Blocks while it waits: nothing else goes on before a sandbox is open.
fn lock(directory: &Path, wait: Duration) -> Result<File, SandboxError> {
    let failed = |source| SandboxError::Directory { path: directory.to_owned(), source };
    let opened = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(directory.join(LOCK));
    let mut file = opened.map_err(failed)?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if since.elapsed() < wait => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who it is helps, but is not needed to say no.
                let _ = file.read_to_string(&mut holder);
                let holder = Some(holder.trim().to_owned()).filter(|holder| !holder.is_empty());
                return Err(SandboxError::Locked { path: directory.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
    // A full disk may have no room for the number: the lock holds without it.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "pid {}", std::process::id()));
    Ok(file)
}

fn cannot_fold(directory: &Path, contents: &Contents, source: io::Error) -> SandboxError {
    let path = directory.to_owned();
    if !matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return SandboxError::Directory { path, source };
    }
    let mut sink = Counter(0);
    // Counting takes no room, so it cannot fail.
    let _ = write_lines(&mut sink, contents.version, contents.objects.iter());
    SandboxError::Full { path, needed_bytes: sink.0, source }
}

/// How many bytes were written to it.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read(path: &Path) -> Result<Contents, SandboxError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::default()),
        Err(source) => return Err(SandboxError::Directory { path: path.to_owned(), source }),
    };
    let mut version = 0;
    let mut objects: BTreeMap<(String, String, String), Arc<Value>> = BTreeMap::new();
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    for (index, line) in lines.iter().enumerate() {
        if !line.ends_with(b"\n") {
            tracing::info!(line = index + 1, "the sandbox's last change was cut by a kill, and is dropped");
            break;
        }
        let change = serde_json::from_slice(line).map_err(|source| SandboxError::Damaged {
            path: path.to_owned(),
            line: index + 1,
            source,
        })?;
        match change {
            Stored::Version(at) => version = at,
            Stored::Put { version: at, object } => {
                version = version.max(at);
                let key =
                    ["/kind", "/metadata/namespace", "/metadata/name"].map(|pointer| text(&object, pointer).to_owned());
                objects.insert(key.into(), object);
            }
            Stored::Delete { version: at, kind, namespace, name } => {
                version = version.max(at);
                objects.remove(&(kind, namespace, name));
            }
        }
    }
    Ok(Contents { version, objects: objects.into_values().collect() })
}

/// The folded file, open for appending, and how many bytes it has.
fn write_folded<'a>(
    path: &Path,
    version: u64,
    objects: impl Iterator<Item = &'a Arc<Value>>,
) -> io::Result<(File, u64)> {
    let beside = path.with_extension("new");
    let written = write_beside(&beside, version, objects).and_then(|written| {
        std::fs::rename(&beside, path)?;
        Ok(written)
    });
    if written.is_err() {
        // Half of a file is of no use, and its room is wanted.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn write_beside<'a>(
    beside: &Path,
    version: u64,
    objects: impl Iterator<Item = &'a Arc<Value>>,
) -> io::Result<(File, u64)> {
    let mut file = BufWriter::new(File::create(beside)?);
    write_lines(&mut file, version, objects)?;
    let size = file.into_inner().map_err(io::IntoInnerError::into_error)?.metadata()?.len();
    // Before the rename: after it, a log that goes on with the old file would write where nobody reads.
    Ok((OpenOptions::new().append(true).open(beside)?, size))
}

fn write_lines<'a>(to: &mut impl Write, version: u64, objects: impl Iterator<Item = &'a Arc<Value>>) -> io::Result<()> {
    serde_json::to_writer(&mut *to, &Stored::Version(version))?;
    to.write_all(b"\n")?;
    for object in objects {
        // Version 0: the object says its own, the first line the whole's.
        serde_json::to_writer(&mut *to, &Stored::Put { version: 0, object: object.clone() })?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_put_and_not_deleted_is_there_at_the_next_open_and_a_cut_last_line_is_dropped() {
        let directory = tempfile::tempdir().expect("a directory");
        let pod = |name: &str| Arc::new(json!({"kind": "Pod", "metadata": {"namespace": "a", "name": name}}));
        let (mut log, contents) = ChangeLog::open(directory.path()).expect("opens");
        assert_eq!((contents.version, contents.objects.len()), (0, 0));
        log.append(&Stored::Put { version: 1, object: pod("one") }).expect("written");
        log.append(&Stored::Put { version: 2, object: pod("two") }).expect("written");
        log.append(&Stored::Delete { version: 3, kind: "Pod".into(), namespace: "a".into(), name: "one".into() })
            .expect("written");
        log.file.write_all(b"{\"put\":{\"version\":4,").expect("written");
        drop(log);

        let (log, contents) = ChangeLog::open(directory.path()).expect("opens again");
        assert_eq!((contents.version, contents.objects), (3, vec![pod("two")]));
        drop(log);
        let (_log, contents) = ChangeLog::open(directory.path()).expect("opens what it folded");
        assert_eq!((contents.version, contents.objects.len()), (3, 1));
    }

    #[test]
    fn after_a_write_that_failed_halfway_no_line_is_torn_and_no_change_is_missing() {
        let directory = tempfile::tempdir().expect("a directory");
        let pod = |name: &str| Arc::new(json!({"kind": "Pod", "metadata": {"namespace": "a", "name": name}}));
        let (mut log, _) = ChangeLog::open(directory.path()).expect("opens");
        log.append(&Stored::Put { version: 1, object: pod("one") }).expect("written");
        // Half of a line is written, then the disk is full, and the half cannot even be taken away.
        log.file.write_all(b"{\"put\":{\"version\":2,").expect("written");
        let full = OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
        let file = log.exchange_file(full);
        for (version, name) in [(2, "three"), (3, "two")] {
            log.append(&Stored::Put { version, object: pod(name) }).expect_err("the disk is full");
            assert!(log.torn);
        }
        log.exchange_file(file);
        log.append(&Stored::Put { version: 4, object: pod("four") }).expect("there is room again");
        drop(log);
        let (_log, contents) = ChangeLog::open(directory.path()).expect("no line is damaged");
        assert_eq!((contents.version, contents.objects), (4, ["four", "one", "three", "two"].map(pod).to_vec()));
    }

    #[test]
    fn a_lock_that_is_let_go_while_another_waits_for_it_is_had() {
        let directory = tempfile::tempdir().expect("a directory");
        let held = lock(directory.path(), Duration::ZERO).expect("free");
        let path = directory.path().to_owned();
        let waiting = std::thread::spawn(move || lock(&path, Duration::from_secs(60)).map(drop));
        drop(held);
        waiting.join().expect("no panic").expect("it was let go");
    }

    #[test]
    fn a_directory_on_a_full_disk_is_refused_with_the_bytes_that_it_needs() {
        let directory = tempfile::tempdir().expect("a directory");
        let pod = Arc::new(json!({"kind": "Pod", "metadata": {"namespace": "a", "name": "one"}}));
        let (mut log, _) = ChangeLog::open(directory.path()).expect("opens");
        log.append(&Stored::Put { version: 1, object: pod }).expect("written");
        drop(log);
        // What is written to the file beside goes to a full disk.
        std::os::unix::fs::symlink("/dev/full", directory.path().join("objects.new")).expect("linked");
        let error = ChangeLog::open(directory.path()).expect_err("the disk is full");
        let (_log, contents) = ChangeLog::open(directory.path()).expect("nothing is lost");
        let needed = std::fs::metadata(directory.path().join(OBJECTS)).expect("folded").len();
        assert!(matches!(error, SandboxError::Full { needed_bytes, .. } if needed_bytes == needed), "{error}");
        assert_eq!(contents.objects.len(), 1);
    }

    #[test]
    fn a_fold_that_fails_leaves_the_log_as_it_was_and_no_half_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let pod = Arc::new(json!({"kind": "Pod", "metadata": {"namespace": "a", "name": "one"}}));
        let (mut log, _) = ChangeLog::open(directory.path()).expect("opens");
        let in_the_way = directory.path().join("in-the-way");
        std::fs::create_dir(&in_the_way).expect("made");
        let path = std::mem::replace(&mut log.path, in_the_way.clone());
        log.fold(0, std::iter::empty()).expect_err("no file takes a directory's place");
        assert!(!in_the_way.with_extension("new").exists());
        log.path = path;
        log.append(&Stored::Put { version: 1, object: pod.clone() }).expect("goes on");
        drop(log);
        let (_log, contents) = ChangeLog::open(directory.path()).expect("opens");
        assert_eq!(contents.objects, [pod]);
    }

    #[test]
    fn a_directory_that_is_open_is_refused_with_its_holder_and_a_damaged_line_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let (log, _) = ChangeLog::open(directory.path()).expect("opens");
        let refused = lock(directory.path(), Duration::ZERO).expect_err("it is open").to_string();
        assert!(refused.contains(&format!("(pid {})", std::process::id())), "{refused}");
        drop(log);
        std::fs::write(directory.path().join(OBJECTS), "{\"version\":1}\nnonsense\n{\"version\":2}\n")
            .expect("written");
        assert!(matches!(ChangeLog::open(directory.path()), Err(SandboxError::Damaged { line: 2, .. })));
    }
}
