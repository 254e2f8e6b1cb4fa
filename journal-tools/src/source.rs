//! Where a journal is read from, and the one reader that every subcommand folds over.
//!
//! - What is read is checked as it is read: numbers, tokens, hashes, and that each fact may stand where it stands.
//!   Nothing is shown that was not appended.
//! - A data directory is read in place, without its lock, and nothing in it changes.

use std::{
    fs::File,
    io::{BufReader, stdin},
    path::{Path, PathBuf},
};

use cairn_engine::{
    Commit, WorkflowState,
    store::{BadPlace, ReadAhead, Verified, Verifier},
};

use crate::{cli::SourceArguments, error::ToolError, lines::Lines, progress::Progress, server};

/// The data directory of `cairn dev`, where nothing else is named.
const DATA_DEFAULT: &str = "cairn-data";
/// The environment variable that names another.
const DATA_VARIABLE: &str = "CAIRN_DATA";

/// The file that every journal begins with.
const FIRST_SEGMENT: &str = "000001.log";

/// Where a journal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In an engine's data directory.
    Data(PathBuf),
    /// In an export.
    Export(PathBuf),
    /// With an engine that answers here.
    Server(String),
}

impl Source {
    /// What the command line names, or the default.
    ///
    /// # Errors
    /// [`ToolError::Use`] if nothing is named, and there is no default directory.
    pub(crate) fn of(arguments: &SourceArguments) -> Result<Self, ToolError> {
        match arguments {
            SourceArguments { export: Some(path), .. } => Ok(Self::Export(path.clone())),
            SourceArguments { server: Some(url), .. } => Ok(Self::Server(url.clone())),
            SourceArguments { data, .. } => data_directory(data.as_deref()).map(Self::Data),
        }
    }

    /// Its commits, in order, each checked. The first error is the last item.
    ///
    /// # Errors
    /// [`ToolError`] if there is nothing that could be read.
    pub(crate) fn commits(&self) -> Result<Commits, ToolError> {
        let reader: Box<dyn Reader> = match self {
            Self::Data(directory) => Box::new(Log::open(directory)?),
            Self::Export(path) if path == Path::new("-") => {
                Box::new(Lines::new(BufReader::new(stdin()), "standard input"))
            }
            Self::Export(path) => Box::new(export_reader(path)?),
            Self::Server(url) => Box::new(Lines::new(BufReader::new(server::journal(url)?), url.clone())),
        };
        Ok(Commits::new(reader))
    }
}

/// An engine's data directory: the one named, that of the environment, or the default.
///
/// # Errors
/// [`ToolError::Use`] if nothing is named, and there is no default directory.
pub(crate) fn data_directory(named: Option<&Path>) -> Result<PathBuf, ToolError> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    if let Some(variable) = std::env::var_os(DATA_VARIABLE).filter(|variable| !variable.is_empty()) {
        return Ok(variable.into());
    }
    let default = PathBuf::from(DATA_DEFAULT);
    if default.is_dir() {
        return Ok(default);
    }
    Err(ToolError::Use(format!(
        "no journal is named, and there is no ./{DATA_DEFAULT} here: give --data DIR, --export FILE or --server URL"
    )))
}

/// That `directory` holds a journal.
///
/// # Errors
/// [`ToolError::Use`] if it does not; [`ToolError::Bad`] if its beginning is missing.
pub(crate) fn check_directory(directory: &Path) -> Result<(), ToolError> {
    let shown = directory.display();
    if !directory.is_dir() {
        return Err(ToolError::Use(format!("there is no directory {shown}: give an engine's data directory")));
    }
    if directory.join(FIRST_SEGMENT).is_file() {
        return Err(ToolError::Use(format!("{shown} is a part of a data directory: give the directory that it is in")));
    }
    let log = directory.join("log");
    if log.join(FIRST_SEGMENT).exists() {
        return Ok(());
    }
    let is_segment = |name: &std::ffi::OsStr| Path::new(name).extension().is_some_and(|extension| extension == "log");
    let mut files = std::fs::read_dir(&log).into_iter().flatten().flatten();
    if files.any(|file| is_segment(&file.file_name())) {
        return Err(ToolError::Bad {
            place: format!("commit 1, log/{FIRST_SEGMENT}"),
            detail: "the segment is missing".to_owned(),
        });
    }
    Err(ToolError::Use(format!("{shown} has no journal (no log/{FIRST_SEGMENT}): give an engine's data directory")))
}

fn export_reader(path: &Path) -> Result<Lines<BufReader<File>>, ToolError> {
    let name = path.display().to_string();
    if path.is_dir() {
        return Err(ToolError::Use(format!("{name} is a directory: for a data directory give --data")));
    }
    let file = File::open(path).map_err(|error| ToolError::io("read", name.clone(), error))?;
    Ok(Lines::new(BufReader::new(file), name))
}

/// Commits as they are stored, unchecked.
pub(crate) trait Reader: Iterator<Item = Result<Commit, ToolError>> {
    /// Where the last commit stands, beyond its number.
    fn place(&self) -> Option<String>;

    /// Whether each commit's hashes were computed from the bytes that it was read from.
    fn has_checked_hashes(&self) -> bool {
        false
    }

    /// What there is to say of the end, once it is reached.
    fn note(&self) -> Option<&'static str> {
        None
    }
}

/// The commit log of a data directory.
struct Log(ReadAhead);

impl Log {
    fn open(directory: &Path) -> Result<Self, ToolError> {
        check_directory(directory)?;
        Ok(Self(ReadAhead::open(directory)?))
    }
}

impl Iterator for Log {
    type Item = Result<Commit, ToolError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|commit| commit.map_err(|bad| bad_place(&bad, None)))
    }
}

impl Reader for Log {
    fn place(&self) -> Option<String> {
        let (file, offset) = self.0.place();
        Some(format!("{file} at byte {offset}"))
    }

    fn has_checked_hashes(&self) -> bool {
        true
    }

    fn note(&self) -> Option<&'static str> {
        self.0
            .ends_torn()
            .then_some("the last frame of the log is not whole: it was never acknowledged, or is being written")
    }
}

/// Commits, each checked. Ends after the first error.
pub(crate) struct Commits {
    reader: Progress<Box<dyn Reader>>,
    verifier: Verifier,
    over: bool,
}

impl Commits {
    pub(crate) fn new(reader: Box<dyn Reader>) -> Self {
        Self { reader: Progress::new(reader), verifier: Verifier::default(), over: false }
    }

    /// What was read so far.
    pub(crate) fn verified(&self) -> Verified {
        self.verifier.verified()
    }

    /// The states of the workflows that are not finished, after what was read so far.
    pub(crate) fn active(&self) -> impl Iterator<Item = &WorkflowState> {
        self.verifier.active()
    }

    /// What there is to say of the end, once it is reached.
    pub(crate) fn note(&self) -> Option<&'static str> {
        self.reader.inner().note()
    }

    fn check(&mut self, commit: Result<Commit, ToolError>) -> Result<Commit, ToolError> {
        let commit = commit?;
        let reader = self.reader.inner();
        let checked = match reader.has_checked_hashes() {
            true => self.verifier.check_read(&commit),
            false => self.verifier.check(&commit),
        };
        checked.map_err(|bad| bad_place(&bad, reader.place()))?;
        Ok(commit)
    }
}

fn bad_place(bad: &BadPlace, more: Option<String>) -> ToolError {
    let place = [Some(bad.place()), more].into_iter().flatten().collect::<Vec<_>>().join(", ");
    ToolError::Bad { place, detail: bad.detail.clone() }
}

impl Iterator for Commits {
    type Item = Result<Commit, ToolError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.reader.next();
        let checked = next.map(|commit| self.check(commit));
        self.over = !matches!(checked, Some(Ok(_)));
        checked
    }
}
