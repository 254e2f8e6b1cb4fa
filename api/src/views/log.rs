//! The deployment log: one line a report, appended as it happens, and synced before the cursor counts on it.
//!
//! - A line: time, user, service, status, message, in that order, so that `grep "{user}.*{service}"` finds it.
//! - The cursor keeps the log's length. What lies behind it was written just before a crash: the same lines are not
//!   written again, and half a line is cut off.
//! - A log elsewhere (`--log`) may hold what others wrote: it is never shortened but for half a line.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use cairn_steps::report::Report;

use super::files;

pub(crate) struct DeploymentLog {
    path: PathBuf,
    /// Nobody else writes it: begun anew, it begins empty.
    ours: bool,
    /// Lines behind the cursor that are there already, and how often.
    there: HashMap<String, usize>,
    pending: String,
    /// The file that was last written, and is not synced yet.
    unsynced: Option<File>,
}

impl DeploymentLog {
    pub(crate) fn new(path: PathBuf, ours: bool) -> Self {
        Self { path, ours, there: HashMap::new(), pending: String::new(), unsynced: None }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The same, as text.
    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Looks at what is there behind `from`, the length that the cursor knows.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub(crate) fn open(&mut self, from: u64, begun_anew: bool) -> io::Result<()> {
        self.pending.clear();
        self.there.clear();
        self.unsynced = None;
        self.look(from, begun_anew).map_err(|error| files::at("open", &self.path, &error))
    }

    fn look(&mut self, from: u64, begun_anew: bool) -> io::Result<()> {
        let mut file = self.file()?;
        if begun_anew && self.ours {
            file.set_len(0)?;
        }
        let length = file.metadata()?.len();
        // Shorter than the cursor knows: rotated away, and begun again. What is in it was written after the cursor.
        let from = if length < from { 0 } else { from };
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < tail.len() {
            file.set_len(from + whole as u64)?;
        }
        for line in String::from_utf8_lossy(&tail[..whole]).lines() {
            *self.there.entry(line.to_owned()).or_default() += 1;
        }
        // Whoever wrote what is there may not have come to syncing it.
        self.unsynced = Some(file);
        Ok(())
    }

    /// Notes the line of this report for the next [`DeploymentLog::flush`].
    pub(crate) fn add(&mut self, report: &Report) {
        let begin = self.pending.len();
        write_line(&mut self.pending, report);
        if !self.there.is_empty()
            && let Some(count) = self.there.get_mut(&self.pending[begin..])
        {
            *count -= 1;
            if *count == 0 {
                self.there.remove(&self.pending[begin..]);
            }
            self.pending.truncate(begin);
            return;
        }
        self.pending.push('\n');
    }

    /// Writes what was noted: readers see it from here on.
    ///
    /// # Errors
    /// If the disk does not take it; the lines are then not forgotten.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.write().map_err(|error| files::at("write", &self.path, &error))
    }

    fn write(&mut self) -> io::Result<()> {
        // Opened anew each time: a log that was rotated away goes on under its own name.
        let mut file = self.file()?;
        if let Some(before) = self.unsynced.take()
            && before.metadata()?.ino() != file.metadata()?.ino()
        {
            before.sync_data()?;
        }
        file.write_all(self.pending.as_bytes())?;
        self.pending.clear();
        self.unsynced = Some(file);
        Ok(())
    }

    /// Makes durable what was written, and returns the log's length.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub(crate) fn sync(&mut self) -> io::Result<u64> {
        let sync = || -> io::Result<u64> {
            if let Some(file) = &self.unsynced {
                file.sync_data()?;
            }
            Ok(self.file()?.metadata()?.len())
        };
        let length = sync().map_err(|error| files::at("sync", &self.path, &error))?;
        self.unsynced = None;
        Ok(length)
    }

    fn file(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).append(true).read(true);
        match options.open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(dir) = self.path.parent() {
                    fs::create_dir_all(dir)?;
                }
                options.open(&self.path)
            }
            opened => opened,
        }
    }
}

/// Time, user, service, status, message. Whatever the message holds, it stays one line.
fn write_line(line: &mut String, report: &Report) {
    let Report { timestamp, user, service_name, status, message, .. } = report;
    // Writing into a text cannot fail.
    let _ = write!(line, "{timestamp} {user} {service_name} {status} ");
    line.extend(message.chars().map(|char| if char.is_control() { ' ' } else { char }));
}
