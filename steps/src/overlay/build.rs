//! Builds an overlay over the built-in base, in a directory of its own that is gone afterwards.
//!
//! The program gets no environment but the PATH, and a home without anything in it.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::OverlayError;
use super::check::Tree;
use crate::elastic::Elastic;
use crate::render::{Marks, Object, Through, render};
use crate::request::Request;

/// The built-in base, as it is kept in `steps/k8s/base`.
const BASE: [(&str, &str); 2] = [
    ("kustomization.yaml", include_str!("../../k8s/base/kustomization.yaml")),
    ("cluster.yaml", include_str!("../../k8s/base/cluster.yaml")),
];
/// The time that the program has.
const TIME_MAX: Duration = Duration::from_secs(60);
/// The most that it may say.
const OUTPUT_BYTES_MAX: u64 = 8 << 20;
/// How much of its complaint is quoted.
const QUOTED_CHARS_MAX: usize = 600;

/// The request that the base is rendered for. Overlays change no field that a request decides.
pub(super) const REQUEST: &str = r#"{"user": "user", "service_name": "service"}"#;

/// The objects of the base, as `render` makes them, but in no namespace.
pub(super) fn base() -> Vec<Object> {
    let request = Request::parse(REQUEST.as_bytes()).expect("a request with the defaults is good");
    let marks = Marks { workflow: "workflow".to_owned() };
    let mut objects = render(&request, &Elastic::default(), Through::RolloutCompleted, None, &marks);
    for object in &mut objects {
        // Where a cluster lies is said by each request; and a patch for the base would have to name it, too.
        if let Some(metadata) = object.body["metadata"].as_object_mut() {
            metadata.remove("namespace");
        }
    }
    objects
}

/// What the overlay makes of the base, object by object.
pub(super) fn build(tree: &Tree) -> Result<Vec<Value>, OverlayError> {
    let place = tempfile::Builder::new().prefix("cairn-overlay-").tempdir().map_err(unwritable)?;
    let (base, overlay) = (place.path().join("k8s/base"), place.path().join("k8s/overlays/this"));
    for (name, content) in BASE {
        write(&base.join(name), content.as_bytes())?;
    }
    for (name, content) in &tree.files {
        write(&overlay.join(name), content)?;
    }
    let text = run(&overlay, place.path())?;
    let program = "kustomize";
    let failed = |said: String| OverlayError::Build { program: program.to_owned(), said };
    let objects = serde_saphyr::from_multiple::<Value>(&text).map_err(|error| failed(error.to_string()))?;
    Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
}

fn write(path: &Path, content: &[u8]) -> Result<(), OverlayError> {
    let parent = path.parent().expect("it lies below the temporary directory");
    std::fs::create_dir_all(parent).map_err(unwritable)?;
    std::fs::write(path, content).map_err(unwritable)
}

fn unwritable(source: std::io::Error) -> OverlayError {
    OverlayError::Unreadable { path: std::env::temp_dir().display().to_string(), source }
}

/// The program that builds overlays, and how it is asked to.
fn program() -> Result<(PathBuf, &'static [&'static str]), OverlayError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let find =
        |name: &str| std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file());
    if let Some(kustomize) = find("kustomize") {
        return Ok((kustomize, &["build"]));
    }
    let kubectl = find("kubectl").ok_or(OverlayError::NoProgram)?;
    Ok((kubectl, &["kustomize"]))
}

fn run(overlay: &Path, home: &Path) -> Result<String, OverlayError> {
    let (program, arguments) = program()?;
    let failed = |said: &str| OverlayError::Build { program: program.display().to_string(), said: last(said.trim()) };
    let path: OsString = std::env::var_os("PATH").unwrap_or_default();
    let mut child = Command::new(&program)
        .args(arguments)
        .arg(overlay)
        .env_clear()
        .env("PATH", path)
        .env("HOME", home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&format!("it does not start: {error}")))?;
    // Both are read at the same time: a pipe that is full would stop it.
    let read = |stream: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            // What is no text is not used either.
            let _ = stream.map(|stream| stream.take(OUTPUT_BYTES_MAX).read_to_string(&mut text));
            text
        })
    };
    let output = read(child.stdout.take().map(|stream| Box::new(stream) as Box<dyn std::io::Read + Send>));
    let complaint = read(child.stderr.take().map(|stream| Box::new(stream) as Box<dyn std::io::Read + Send>));
    let begun = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < TIME_MAX => std::thread::sleep(Duration::from_millis(10)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(&format!("it has not ended within {} seconds", TIME_MAX.as_secs())));
            }
        }
    };
    let (output, complaint) = (output.join().unwrap_or_default(), complaint.join().unwrap_or_default());
    if status.success() { Ok(output) } else { Err(failed(&complaint)) }
}

/// The end of a text: where programs say what is wrong.
fn last(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(QUOTED_CHARS_MAX);
    text.chars().skip(skip).collect()
}
