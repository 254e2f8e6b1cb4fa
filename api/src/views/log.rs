//! The deployment log: one line a report, appended and synced as it happens.
//!
//! - A line: time, user, service, status, message, in that order, so that `grep "{user}.*{service}"` finds it.
//! - The cursor keeps the log's length. What lies behind it was written just before a crash: the same lines are not
//!   written again, and half a line is cut off.
//! - A log elsewhere (`--log`) may hold what others wrote: it is never shortened but for half a line.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
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
}

impl DeploymentLog {
    pub(crate) fn new(path: PathBuf, ours: bool) -> Self {
        Self { path, ours, there: HashMap::new(), pending: String::new() }
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
        self.look(from, begun_anew).map_err(|error| files::at("open", &self.path, &error))
    }

    fn look(&mut self, from: u64, begun_anew: bool) -> io::Result<()> {
        let mut file = self.file()?;
        if begun_anew && self.ours {
            file.set_len(0)?;
        }
        let length = file.metadata()?.len();
        // Shorter than the cursor knows: rotated away, and begun again by somebody.
        let from = from.min(length);
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
        Ok(())
    }

    /// Notes the line of this report for the next [`DeploymentLog::flush`].
    pub(crate) fn add(&mut self, report: &Report) {
        let line = line(report);
        if let Some(count) = self.there.get_mut(&line)
            && *count > 0
        {
            *count -= 1;
            return;
        }
        self.pending.push_str(&line);
        self.pending.push('\n');
    }

    /// Writes what was noted, and returns the log's length then.
    ///
    /// # Errors
    /// If the disk does not take it; the lines are then not forgotten.
    pub(crate) fn flush(&mut self) -> io::Result<u64> {
        self.write().map_err(|error| files::at("write", &self.path, &error))
    }

    fn write(&mut self) -> io::Result<u64> {
        // Opened anew each time: a log that was rotated away goes on under its own name.
        let mut file = self.file()?;
        if !self.pending.is_empty() {
            file.write_all(self.pending.as_bytes())?;
            file.sync_data()?;
            self.pending.clear();
        }
        Ok(file.metadata()?.len())
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
fn line(report: &Report) -> String {
    let message: String = report.message.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    format!("{} {} {} {} {message}", report.timestamp, report.user, report.service_name, report.status)
}
