//! The effect log: every write that took effect, in order. Tests judge by it what an engine did to its cluster.
//!
//! - Only clients' writes: what the controllers do follows from them.
//! - A write that changed nothing (the same apply again) took no effect.
//! - Kept beside the objects, so that it outlives the engine under test.

use super::SandboxError;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// How many are kept; older ones are forgotten first.
const EFFECTS_MAX: usize = 200_000;
const EFFECTS: &str = "effects.jsonl";

/// A client's write that took effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// `create`, `update`, `patch`, `apply` or `delete`.
    pub verb: String,
    /// The resource, as in the path: `statefulsets`.
    pub resource: String,
    /// `status` or `scale`, where the write went there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subresource: Option<String>,
    /// The kind: `StatefulSet`.
    pub kind: String,
    /// Empty for a kind without namespaces.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object's UID.
    pub uid: String,
    /// The field manager, as the client named it.
    pub manager: String,
    /// The object's annotation `cairn.dev/workflow`, after the write (of a deletion: before).
    pub workflow: Option<String>,
    /// The object's resource version before; none if this write made it.
    pub version_before: Option<u64>,
    /// The resource version of this write.
    pub version_after: u64,
    /// When, by the sandbox's clock.
    pub at: jiff::Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Effects {
    kept: VecDeque<Effect>,
    file: Option<File>,
}

impl Effects {
    pub(super) fn open(directory: &Path) -> Result<Effects, SandboxError> {
        let failed = |source| SandboxError::Directory { path: directory.to_owned(), source };
        let path = directory.join(EFFECTS);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(failed(source)),
        };
        // A line cut by a kill is no JSON: its write was never answered.
        let mut kept: VecDeque<Effect> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        kept.drain(..kept.len().saturating_sub(EFFECTS_MAX));
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n").map_err(failed)?;
        }
        Ok(Effects { kept, file: Some(file) })
    }

    pub(super) fn push(&mut self, effect: Effect) {
        if let Some(file) = &mut self.file {
            let mut line = serde_json::to_vec(&effect).expect("strings and numbers encode");
            line.push(b'\n');
            if let Err(error) = file.write_all(&line) {
                tracing::error!(%error, "the sandbox cannot keep its effect log any more");
                self.file = None;
            }
        }
        self.kept.push_back(effect);
        if self.kept.len() > EFFECTS_MAX {
            self.kept.pop_front();
        }
    }

    pub(super) fn to_vec(&self) -> Vec<Effect> {
        self.kept.iter().cloned().collect()
    }
}
