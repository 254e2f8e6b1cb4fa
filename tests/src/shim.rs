//! Below the program: a library that is preloaded into it, counts its storage operations under one directory, records
//! them, and kills it at the one that is asked for. Its source is `tests/shim/storage.c`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, ensure};

use crate::program::workspace;

/// Where within an operation the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Nothing of it is done.
    Before,
    /// Half of what it writes is written.
    Half,
    /// All of it is done, and the process does not hear of it.
    After,
}

/// A storage operation: which, counted from 1, and where in it the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Which.
    pub operation: usize,
    /// Where in it.
    pub cut: Cut,
}

/// What the library is told.
#[derive(Clone, Debug)]
pub struct Shim {
    /// The directory that is watched.
    pub directory: PathBuf,
    /// The file that gets the records, outside of it.
    pub record: PathBuf,
    /// The records hold what was written, too.
    pub with_data: bool,
    /// Where the process dies.
    pub at: Option<Point>,
}

impl Shim {
    /// The environment in which a program is watched.
    ///
    /// # Errors
    /// If the library cannot be built, or the directory not be found.
    pub fn environment(&self) -> anyhow::Result<Vec<(String, String)>> {
        let text = |path: &Path| path.to_str().map(str::to_owned).context("temporary directories have plain names");
        // Descriptors are known by the names that the system gives them, which have no links in them.
        let parent = self.directory.parent().context("it lies in a directory")?.canonicalize()?;
        let directory = parent.join(self.directory.file_name().context("it has a name")?);
        let mut environment = vec![
            ("LD_PRELOAD".to_owned(), text(library()?)?),
            ("SHIM_DIR".to_owned(), text(&directory)?),
            ("SHIM_RECORD".to_owned(), text(&self.record)?),
        ];
        if self.with_data {
            environment.push(("SHIM_DATA".to_owned(), "1".to_owned()));
        }
        if let Some(Point { operation, cut }) = self.at {
            let side = match cut {
                Cut::Before => "before",
                Cut::Half => "half",
                Cut::After => "after",
            };
            environment.push(("SHIM_AT".to_owned(), format!("{operation}:{side}")));
        }
        Ok(environment)
    }

    /// What was recorded so far; nothing if nothing was done.
    ///
    /// # Errors
    /// If the record cannot be read.
    pub fn records(&self) -> anyhow::Result<Vec<Record>> {
        match fs::read(&self.record) {
            Ok(bytes) => records(&bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).context("the record of the storage operations"),
        }
    }
}

/// A storage operation that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `create`, `write`, `truncate`, `allocate`, `sync`, `sync_data`, `sync_range`, `times`, `rename`, `link`,
    /// `unlink`, `mkdir` or `rmdir`.
    pub kind: String,
    /// The system did it.
    pub done: bool,
    /// From which byte on.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// On which file, within the directory.
    pub path: String,
    /// The new name, where there is one.
    pub to: String,
    /// What was written, where that is recorded and not all zeros.
    pub data: Vec<u8>,
}

impl Record {
    /// Whether half of it can be done.
    #[must_use]
    pub fn can_be_halved(&self) -> bool {
        self.kind == "write" && self.length > 1
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, path, to, .. } = self;
        write!(f, "{kind} {path}")?;
        if to.is_empty() { Ok(()) } else { write!(f, " to {to}") }
    }
}

fn records(mut bytes: &[u8]) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').context("a record's line has an end")?;
        let line = std::str::from_utf8(&bytes[..end])?;
        bytes = &bytes[end + 1..];
        let (kind, numbers) = line.split_once(' ').context("a kind, and numbers")?;
        let numbers: Vec<u64> =
            numbers.split(' ').map(str::parse).collect::<Result<_, _>>().context(line.to_owned())?;
        let [done, offset, length, data, first, second] = numbers[..] else {
            anyhow::bail!("a record has six numbers: {line}")
        };
        let mut take = |length: u64| -> anyhow::Result<&[u8]> {
            let (taken, rest) = bytes.split_at_checked(length.try_into()?).context("the record is cut off")?;
            bytes = rest;
            Ok(taken)
        };
        let path = String::from_utf8(take(first)?.to_vec())?;
        let to = String::from_utf8(take(second)?.to_vec())?;
        let data = take(data)?.to_vec();
        records.push(Record { kind: kind.to_owned(), done: done == 1, offset, length, path, to, data });
    }
    Ok(records)
}

/// The library, built once from its source by the compiler that links Rust's programs, too.
fn library() -> anyhow::Result<&'static Path> {
    static LIBRARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = LIBRARY.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn build() -> anyhow::Result<PathBuf> {
    let source = workspace().join("tests/shim/storage.c");
    let test = std::env::current_exe()?;
    let directory = test.parent().context("a test lies in a directory")?;
    let (library, own) =
        (directory.join("libstorage-shim.so"), directory.join(format!("libstorage-shim.{}", std::process::id())));
    let built = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    if built(&library).is_some_and(|built_at| Some(built_at) > built(&source)) {
        return Ok(library);
    }
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let ended = Command::new(compiler)
        .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread", "-o"])
        .args([&own, &source])
        .status()
        .context("there is no C compiler: install Debian's packages gcc and libc6-dev, or name one in CC")?;
    ensure!(ended.success(), "{} does not compile: {ended}", source.display());
    // Tests run side by side: whoever comes last has made the same.
    fs::rename(&own, &library)?;
    Ok(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(shim: &Shim, script: &str) -> std::process::ExitStatus {
        let environment = shim.environment().expect("it is built");
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(&shim.directory).envs(environment);
        command.status().expect("there is a shell")
    }

    fn shim(directory: &tempfile::TempDir, at: Option<Point>) -> Shim {
        let watched = directory.path().join("data");
        fs::create_dir_all(&watched).expect("it can be made");
        Shim { directory: watched, record: directory.path().join("record"), with_data: true, at }
    }

    #[test]
    fn what_a_program_does_in_the_directory_is_recorded_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let shim = shim(&directory, None);
        let script = "echo hello > a; echo more >> a; mkdir d; mv a d/b; cat d/b > /dev/null; echo out > ../c; rm d/b";
        assert!(run(&shim, script).success());
        let records = shim.records().expect("it reads");
        let told: Vec<String> = records.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["create a", "write a", "write a", "mkdir d", "rename a to d/b", "unlink d/b"]);
        assert_eq!((records[2].offset, records[2].length, records[2].data.as_slice()), (6, 5, &b"more\n"[..]));
        assert!(records.iter().all(|record| record.done));
    }

    #[test]
    fn a_program_dies_before_within_and_after_the_operation_that_is_named() {
        let left = |operation: usize, cut: Cut| {
            let directory = tempfile::tempdir().expect("a directory");
            let shim = shim(&directory, Some(Point { operation, cut }));
            let status = run(&shim, "echo hello > a; echo more >> a; echo end > b");
            assert!(!status.success());
            let records = shim.records().expect("it reads").len();
            (records, fs::read_to_string(shim.directory.join("a")).ok(), shim.directory.join("b").exists())
        };
        assert_eq!(left(1, Cut::Before), (0, None, false));
        assert_eq!(left(1, Cut::Half), (0, None, false));
        assert_eq!(left(1, Cut::After), (1, Some(String::new()), false));
        assert_eq!(left(2, Cut::Half), (2, Some("hel".to_owned()), false));
        assert_eq!(left(3, Cut::Before), (2, Some("hello\n".to_owned()), false));
        assert_eq!(left(3, Cut::After), (3, Some("hello\nmore\n".to_owned()), false));
    }
}
