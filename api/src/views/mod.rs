//! The views of the journal on the disk: report files, deployment log, record files.
//!
//! - Each equals the projection of the journal; deleted, it comes back equal at the next start.
//! - Files are replaced whole; the log only grows, and a line is in it once.
//! - Nothing is synced by itself: the journal has it all. The cursor moves seldom, and only after everything that it stands
//!   for was synced, all at once: a crash repeats writes, and each of them is idempotent.
//! - A cursor that is not of this journal (an older backup was put back, say) is believed in nothing: all is made anew.
//!
//! ```text
//! VIEWS/deployment_reports/{user}_{service}_{µs}.json   one a report
//! VIEWS/deployment.log                                  a line a report (`--log` moves it)
//! VIEWS/deployments.json                                every DeploymentStatus
//! VIEWS/tenant_data/{user}_{service}.json               each TenantContainer there is
//! VIEWS/.cursor                                         the last commit that is in all of them
//! ```

mod files;
mod log;
mod records;
mod reports;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use cairn_engine::{CommitNumber, Entry, Fact, Hash, Projection, WorkflowState, catch_up, store::Store};
use cairn_steps::report::Report;
use serde::{Deserialize, Serialize};

use self::{files::Files, log::DeploymentLog, records::Records};

const CURSOR: &str = ".cursor";
/// Commits that changed no view are counted up to here before the cursor moves: after a crash they are looked at again.
const UNCHANGED_MAX: u64 = 1024;

/// All views of one journal.
pub(crate) struct Views {
    dir: PathBuf,
    log: DeploymentLog,
    /// The cursor's file was there once. If it is not any more, somebody has deleted the views.
    cursor_written: bool,
    files: Files,
    records: Records,
    /// Anything is written that the cursor does not stand for.
    changed: bool,
    /// The last commit that is shown: its number and hash.
    shown: (CommitNumber, Hash),
    /// Where the cursor stands on the disk.
    stands_at: CommitNumber,
}

/// Where the views stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    /// The last commit that is in all of them.
    commit: CommitNumber,
    /// Its hash: another journal, or another course of this one, has another.
    hash: Hash,
    /// How long the log was then: what lies behind that is looked at before it is written again.
    log_bytes: u64,
    /// Which log that is: one that was moved is begun anew.
    log: String,
}

impl Cursor {
    /// Whether `store` has the commit at which it stands.
    fn is_of(&self, store: &dyn Store) -> io::Result<bool> {
        let Some(before) = self.commit.0.checked_sub(1) else { return Ok(true) };
        let found = store.commits(CommitNumber(before), 1).map_err(io::Error::other)?;
        Ok(found.first().is_some_and(|commit| (commit.number, commit.hash) == (self.commit, self.hash)))
    }
}

impl Views {
    /// The views in `dir`, with the deployment log at `log`.
    pub(crate) fn new(dir: &Path, log: &Path) -> Self {
        // A log among the views is ours alone; one elsewhere may hold what others have written.
        let ours = log.starts_with(dir);
        Self {
            dir: dir.to_owned(),
            log: DeploymentLog::new(log.to_owned(), ours),
            cursor_written: false,
            files: Files::below(dir),
            records: Records::unknown(),
            changed: false,
            shown: Default::default(),
            stands_at: CommitNumber::default(),
        }
    }

    /// Throws the views away and makes them anew from `store`.
    ///
    /// # Errors
    /// If they cannot be written, or the journal not be read.
    pub(crate) fn rebuild(&mut self, store: &dyn Store) -> io::Result<CommitNumber> {
        self.clear()?;
        catch_up(store, self)
    }

    /// Removes every file but the log. The cursor goes last: after a crash it is still known what was to be done.
    fn clear(&self) -> io::Result<()> {
        for dir in [reports::dir(&self.dir), records::tenant_dir(&self.dir)] {
            files::remove_json(&dir)?;
        }
        for file in [records::deployments(&self.dir), self.dir.join(CURSOR)] {
            files::remove(&file)?;
        }
        Ok(())
    }

    /// Everything up to the cursor is written.
    fn move_cursor(&mut self, cursor: Cursor) -> io::Result<()> {
        let path = self.dir.join(CURSOR);
        self.stands_at = cursor.commit;
        if self.cursor_written && !path.try_exists()? {
            // Left away until the next start, which then makes all of them anew.
            tracing::warn!(views = %self.dir.display(), "somebody has deleted the views: they are made anew at the next start");
            return Ok(());
        }
        files::replace(&path, &serde_json::to_vec(&cursor).expect("numbers and a name"))?;
        self.cursor_written = true;
        Ok(())
    }
}

impl Projection for Views {
    fn name(&self) -> &'static str {
        "views"
    }

    fn cursor(&mut self, store: &dyn Store) -> io::Result<CommitNumber> {
        for dir in [self.dir.clone(), reports::dir(&self.dir), records::tenant_dir(&self.dir)] {
            fs::create_dir_all(&dir).map_err(|error| files::at("create", &dir, &error))?;
        }
        let mut cursor = read_cursor(&self.dir.join(CURSOR))?;
        if let Some(found) = &cursor
            && !found.is_of(store)?
        {
            let (views, commit) = (self.dir.display(), found.commit.0);
            tracing::warn!(%views, commit, "the views are of another journal, or of a later one than this: they are made anew");
            self.clear()?;
            cursor = None;
        }
        self.cursor_written = cursor.is_some();
        // A log that is not there, or not the one, comes back with all its lines.
        let cursor = cursor.filter(|cursor| cursor.log == self.log.name() && self.log.path().exists());
        let begun_anew = cursor.is_none();
        let cursor = cursor.unwrap_or_default();
        self.log.open(cursor.log_bytes, begun_anew)?;
        // What was written after the cursor moved for the last time is not known.
        self.files.forget();
        self.records = Records::unknown();
        // Once it has shown what there is, its cursor says so, even where none of it was new.
        self.changed = true;
        self.shown = (cursor.commit, cursor.hash);
        self.stands_at = cursor.commit;
        Ok(cursor.commit)
    }

    fn project(&mut self, entry: &Entry, state: &WorkflowState) -> io::Result<()> {
        if let Some(report) = Report::of(entry, state) {
            reports::write(&mut self.files, &self.dir, &report)?;
            self.log.add(&report);
            self.changed = true;
        }
        if changes_records(&entry.fact) {
            self.records.touch(&state.submitted().tenant, &state.submitted().service);
            self.changed = true;
        }
        Ok(())
    }

    fn show(&mut self, last: (CommitNumber, Hash), store: &dyn Store) -> io::Result<Option<Duration>> {
        self.shown = last;
        self.records.write_due(&mut self.files, &self.dir, store)?;
        self.log.flush()?;
        Ok(self.records.waits())
    }

    fn commit(&mut self, store: &dyn Store, is_last: bool) -> io::Result<()> {
        self.records.write_touched(&mut self.files, &self.dir, store)?;
        // The cursor does not stand for it: it is written at every start.
        if is_last && self.records.has_changed() {
            self.records.write_all(&mut self.files, &self.dir, store)?;
        }
        // Most commits change nothing here, and the disk has better things to do than to hear of them.
        let (commit, hash) = self.shown;
        if self.changed || commit.0 - self.stands_at.0 >= UNCHANGED_MAX {
            self.files.sync()?;
            let log_bytes = self.log.sync()?;
            self.move_cursor(Cursor { commit, hash, log_bytes, log: self.log.name() })?;
            self.changed = false;
        }
        Ok(())
    }
}

/// Whether this fact can change what is known of its service.
fn changes_records(fact: &Fact) -> bool {
    match fact {
        Fact::Submitted(_)
        | Fact::AttemptFailed { .. }
        | Fact::Probed { .. }
        | Fact::CancelRequested { .. }
        | Fact::RetryRequested { .. }
        | Fact::Parked { .. }
        | Fact::Finished { .. } => true,
        Fact::AttemptSucceeded { output, .. } => output.record.is_some(),
        Fact::CompensationStarted { .. } | Fact::CompensationSucceeded { .. } => true,
        Fact::AttemptStarted { .. }
        | Fact::ProbeFailed { .. }
        | Fact::CompensationFailed { .. }
        | Fact::ResidueCheckFailed { .. }
        | Fact::Paused { .. }
        | Fact::Resumed { .. } => false,
    }
}

/// The cursor, if there is a readable one: without it the views are begun anew, which is always right.
fn read_cursor(path: &Path) -> io::Result<Option<Cursor>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(files::at("read", path, &error)),
    }
}

#[cfg(test)]
mod tests;
