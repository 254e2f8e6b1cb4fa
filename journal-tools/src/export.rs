//! `export`: the whole journal as text, a commit a line, which can be verified alone.

use std::{
    fs::File,
    io::{BufWriter, Write, stderr},
    path::{Path, PathBuf},
};

use cairn_engine::Commit;

use crate::{
    cli::{Format, SourceArguments},
    error::ToolError,
    source::Source,
};

/// Writes the whole journal as text: one JSON commit a line, each with its entries and all hashes.
///
/// What is written is checked as it is read: an export that ends with exit code 0 is a good journal. Its head is told on
/// standard error: `verify --head` then finds an export that has lost its end.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cairn-journal export --output journal.ndjson
  cairn-journal export --server http://127.0.0.1:8080 | gzip > journal.ndjson.gz
  cairn-journal export --format json | jq '.[-1].hash'
  gunzip -c journal.ndjson.gz | cairn-journal verify --export -")]
pub(crate) struct Arguments {
    /// A commit a line, or one array.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Where to; standard output if not given. An existing file is replaced once the export is whole.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    source: SourceArguments,
}

/// Runs it.
///
/// # Errors
/// [`ToolError`] if the journal cannot be read to its end, or the result not written.
pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), ToolError> {
    let mut commits = Source::of(&arguments.source)?.commits()?;
    match &arguments.output {
        None => export(&mut commits, arguments.format, out).and_then(|()| Ok(out.flush()?)),
        Some(path) => to_file(path, |out| export(&mut commits, arguments.format, out)),
    }?;
    let (number, hash) = commits.verified().head;
    // The export is whole, and has its own exit code: nobody has to see this.
    let _ = writeln!(stderr(), "head {number}:{hash}");
    Ok(())
}

fn export(
    commits: impl Iterator<Item = Result<Commit, ToolError>>,
    format: Format,
    out: &mut dyn Write,
) -> Result<(), ToolError> {
    if format == Format::Json {
        out.write_all(b"[\n")?;
    }
    let mut first = true;
    for commit in commits {
        let commit = commit?;
        if format == Format::Json && !first {
            out.write_all(b",\n")?;
        }
        first = false;
        serde_json::to_writer(&mut *out, &commit).map_err(std::io::Error::from)?;
        if format == Format::Ndjson {
            out.write_all(b"\n")?;
        }
    }
    if format == Format::Json {
        out.write_all(if first { b"]\n" } else { b"\n]\n" })?;
    }
    Ok(())
}

/// Writes beside `path`, then renames: nobody finds half an export under that name.
fn to_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<(), ToolError>) -> Result<(), ToolError> {
    let failed = |action: &'static str| move |error| ToolError::io(action, path.display().to_string(), error);
    if path.metadata().is_ok_and(|there| !there.is_file()) {
        // A device or a pipe is written to, not replaced.
        let mut out = BufWriter::new(File::options().write(true).open(path).map_err(failed("open"))?);
        write(&mut out)?;
        return out.flush().map_err(failed("write"));
    }
    let mut name = path
        .file_name()
        .ok_or_else(|| ToolError::Use(format!("--output {}: that is no file", path.display())))?
        .to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(name);
    let written = File::create_new(&partial).map_err(failed("create")).and_then(|file| {
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        let file = out.into_inner().map_err(|error| failed("write")(error.into_error()))?;
        file.sync_all().map_err(failed("sync"))?;
        std::fs::rename(&partial, path).map_err(failed("replace"))
    });
    if written.is_err() {
        // It is ours, and of no use; that it cannot be removed is the smaller error of the two.
        let _ = std::fs::remove_file(&partial);
    }
    written
}
