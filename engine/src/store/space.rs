//! Room on the disk: a floor below which no new workflow begins, and a ballast file that gives those that run the room
//! to finish.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
};

/// How much is free, and what to do about it.
#[derive(Debug)]
pub(super) struct Space {
    dir: PathBuf,
    floor_bytes: u64,
    ballast_bytes: u64,
    has_ballast: bool,
}

impl Space {
    pub(super) fn new(dir: PathBuf, floor_bytes: u64, ballast_bytes: u64) -> Self {
        let has_ballast = dir.join("ballast").exists();
        Self { dir, floor_bytes, ballast_bytes, has_ballast }
    }

    /// Looks at the disk: gives the ballast up when `needed_bytes` are not free without it, takes it back when there is
    /// room again. Returns what is free if that is too little for a new workflow.
    pub(super) fn look(&mut self, needed_bytes: u64) -> Option<u64> {
        // A file system that does not say counts as roomy: a write that fails says so for itself.
        let free = self.free().unwrap_or(u64::MAX);
        if self.has_ballast && free < needed_bytes {
            match fs::remove_file(self.ballast()) {
                Ok(()) => {
                    tracing::warn!(
                        free_bytes = free,
                        "the disk is nearly full: gave up the ballast, what runs goes on"
                    );
                    self.has_ballast = false;
                }
                Err(error) => tracing::warn!(%error, "the disk is nearly full, and the ballast cannot be given up"),
            }
        } else if !self.has_ballast && free > self.floor_bytes.saturating_add(self.ballast_bytes.saturating_mul(2)) {
            match self.take_ballast() {
                Ok(()) => self.has_ballast = true,
                Err(error) => {
                    tracing::debug!(%error, "no ballast on this file system");
                    // Asked again only after a restart.
                    self.ballast_bytes = u64::MAX;
                }
            }
        }
        (free < self.floor_bytes).then_some(free)
    }

    pub(super) fn floor_bytes(&self) -> u64 {
        self.floor_bytes
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }

    fn take_ballast(&self) -> io::Result<()> {
        if self.ballast_bytes == 0 {
            return Ok(());
        }
        let file = File::create(self.ballast())?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.ballast_bytes)?;
        file.sync_all()
    }

    fn free(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ballast_is_given_up_when_room_is_needed_and_taken_back_when_there_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ballast = dir.path().join("ballast");
        let mut space = Space::new(dir.path().to_owned(), 0, 4096);
        assert_eq!((space.look(0), ballast.metadata().expect("it was taken").len()), (None, 4096));
        assert_eq!((space.look(u64::MAX), ballast.exists()), (None, false));
        assert_eq!((space.look(0), ballast.exists()), (None, true));
        let mut full = Space::new(dir.path().to_owned(), u64::MAX, 4096);
        assert!(full.look(0).is_some());
    }
}
