//! Where a journal is read from, and the one reader that every subcommand folds over.
//!
//! - What is read is checked as it is read: numbers, tokens, hashes, and that each fact may stand where it stands.
//!   Nothing is shown that was not appended.

use std::{
    fs::File,
    io::{BufReader, stdin},
    path::{Path, PathBuf},
};

use cairn_engine::{
    Commit,
    store::{BadPlace, Verified, Verifier},
};

use crate::{cli::SourceArguments, error::ToolError, lines::Lines, progress::Progress, server};

/// Where a journal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
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
            SourceArguments { export: None, server: None } => {
                Err(ToolError::Use("no journal is named: give --export FILE or --server URL".to_owned()))
            }
        }
    }

    /// Its commits, in order, each checked. The first error is the last item.
    ///
    /// # Errors
    /// [`ToolError`] if there is nothing that could be read.
    pub(crate) fn commits(&self) -> Result<Commits, ToolError> {
        let reader: Box<dyn Reader> = match self {
            Self::Export(path) if path == Path::new("-") => {
                Box::new(Lines::new(BufReader::new(stdin()), "standard input"))
            }
            Self::Export(path) => Box::new(export_reader(path)?),
            Self::Server(url) => Box::new(Lines::new(BufReader::new(server::journal(url)?), url.clone())),
        };
        Ok(Commits::new(reader))
    }
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

    fn check(&mut self, commit: Result<Commit, ToolError>) -> Result<Commit, ToolError> {
        let commit = commit?;
        self.verifier.check(&commit).map_err(|bad| self.bad(&bad))?;
        Ok(commit)
    }

    fn bad(&self, bad: &BadPlace) -> ToolError {
        let mut place = bad.place();
        if let Some(more) = self.reader.inner().place() {
            place = format!("{place}, {more}");
        }
        ToolError::Bad { place, detail: bad.detail.clone() }
    }
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
