//! Why a subcommand could not do what it was asked, and the exit code that says so.

use std::io;

use cairn_engine::store::StoreError;

/// Why a subcommand could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// The journal is not what was appended.
    #[error("the journal is bad at {place}: {detail}")]
    Bad {
        /// The first bad place.
        place: String,
        /// What is wrong there.
        detail: String,
    },
    /// What was asked for is not there, or cannot be asked for. The text says what to do.
    #[error("{0}")]
    Use(String),
    /// A file or connection does not do what is asked of it.
    #[error("cannot {action} {what}")]
    Io {
        /// What was tried, such as "read".
        action: &'static str,
        /// On what.
        what: String,
        /// The system's answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The engine's store does not open, or does not do what is asked of it.
    #[error(transparent)]
    Store(StoreError),
    /// The result could not be written.
    #[error("cannot write the result")]
    Output(#[from] io::Error),
}

impl ToolError {
    /// A file or connection that does not do what is asked of it.
    pub(crate) fn io(
        action: &'static str,
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Io { action, what: what.into(), source: source.into() }
    }

    /// The program's exit code: 1 for a bad journal, 2 for everything else that went wrong.
    pub(crate) fn exit_code(&self) -> u8 {
        if matches!(self, Self::Bad { .. }) { 1 } else { 2 }
    }

    /// Whoever read the result has seen enough, as `head` does.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The message and its causes, on one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Some errors quote their cause: it is not told twice.
            if !text.ends_with(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        text
    }
}

impl From<StoreError> for ToolError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged { place, detail } => Self::Bad { place, detail },
            // Its own text is for an engine that starts; here is none.
            StoreError::Io { action, path, source } => Self::io(action, path.display().to_string(), source),
            other => Self::Store(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = ToolError::io("read", "journal.ndjson", io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(error.chain(), "cannot read journal.ndjson: entity not found");
    }

    #[test]
    fn only_a_bad_journal_is_exit_code_one() {
        let damaged = StoreError::Damaged { place: "commit 2".to_owned(), detail: "its hash is another".to_owned() };
        assert_eq!(ToolError::from(damaged).exit_code(), 1);
        assert_eq!(ToolError::Use("no such workflow".to_owned()).exit_code(), 2);
    }
}
