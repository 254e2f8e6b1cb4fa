//! What the program says of itself: structured logs on standard error, for people or as JSON.

use std::{error::Error, io::IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt};

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// What is logged if nobody says otherwise: the libraries only when something is wrong.
pub(crate) const DEFAULT_FILTER: &str =
    "info,kube_client=off,kube_runtime=warn,tower=warn,hyper=warn,hyper_util=warn,reqwest=warn,sled=warn";

/// Starts logging. Only the first call of a process counts.
///
/// # Errors
/// If `filter` cannot be read.
pub(crate) fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| anyhow::anyhow!("log_filter: `{filter}` is no filter such as `info,cairn=debug`: {error}"))?;
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second subscriber is refused, which is what a second call should come to.
    let _ = match format {
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    };
    Ok(())
}

/// An error with its causes in one line, without those that it quotes itself (kube's errors do that).
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let message = next.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer quotes {0}")]
    struct Quoting(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Plain(#[source] std::io::Error);

    #[test]
    fn a_cause_that_its_parent_quotes_is_not_said_twice() {
        assert_eq!(chain(&Quoting(std::io::Error::other("inner"))), "outer quotes inner");
        assert_eq!(chain(&Plain(std::io::Error::other("inner"))), "outer: inner");
    }
}
