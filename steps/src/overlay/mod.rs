//! Overlays: a kustomize directory of the operator's, laid over the objects of every cluster.
//!
//! - The directory is checked before any program is called ([`check`]): nothing remote, no plugin, no way out of its tree but
//!   to the built-in base (`../../base`, which is `steps/k8s/base`).
//! - It is built once, over that base, by the `kustomize` or `kubectl kustomize` on the PATH ([`build`]). What it changed there
//!   ([`delta`]) is then laid over what `render` makes for a request: so `render` stays pure, and nothing of a request is lost.
//! - What a request says, what marks an object as ours, and what holds a cluster together is not an overlay's to change.
//! - A creation's first step takes the overlay down with its output: a resume uses the same, whatever the directory has then (I11).

mod build;
mod check;
mod delta;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::delta::Edit;
use crate::names;
use crate::render::{Kind, Marks, Object, Through};
use crate::request::Request;

/// The most bytes of an overlay in a journal: a step's output has other things to hold.
const BYTES_MAX: usize = 64 * 1024;

/// What an overlay changes of the objects of a cluster, and what it adds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overlay {
    /// The SHA-256 of the directory's files, with their names.
    pub sha256: String,
    /// By object.
    patches: Vec<Patch>,
    /// Objects of its own, without namespace and marks.
    additions: Vec<Value>,
}

/// What is changed of one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Patch {
    kind: String,
    name: String,
    edits: Vec<Edit>,
}

/// Why an overlay cannot be used. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// A file or directory cannot be read.
    #[error("overlay: {path} cannot be read")]
    Unreadable {
        /// Which.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The directory has, or names, something that is not built.
    #[error("overlay: {place}: {why}")]
    Refused {
        /// The file, within the directory.
        place: String,
        /// What it is, and what to do instead.
        why: String,
    },
    /// There is no program that builds it.
    #[error("overlay: neither `kustomize` nor `kubectl` is on the PATH: install one of them, or leave --overlay out")]
    NoProgram,
    /// The program does not build it.
    #[error("overlay: {program} does not build it: {said}")]
    Build {
        /// Which program.
        program: String,
        /// The end of what it said.
        said: String,
    },
    /// What was built changes what it may not.
    #[error("overlay: {object}: {why}")]
    Protected {
        /// `StatefulSet/elasticsearch`
        object: String,
        /// What may not be changed, and where it is said instead.
        why: String,
    },
    /// It is larger than a journal takes.
    #[error("overlay: what it changes takes {bytes} bytes, and {most} are the most: leave out what is not needed")]
    TooLarge {
        /// How many.
        bytes: usize,
        /// How many there may be.
        most: usize,
    },
}

impl Overlay {
    /// Checks and builds the overlay in this directory. Blocks while a program runs.
    ///
    /// # Errors
    /// [`OverlayError`], each with the way out.
    pub fn load(directory: &Path) -> Result<Self, OverlayError> {
        let tree = check::tree(directory)?;
        let built = build::build(&tree)?;
        let base = build::base();
        let (patches, additions) = delta::between(&base, &built)?;
        let overlay = Self { sha256: tree.sha256(), patches, additions };
        let bytes = serde_json::to_vec(&overlay).map_or(usize::MAX, |bytes| bytes.len());
        if bytes > BYTES_MAX {
            return Err(OverlayError::TooLarge { bytes, most: BYTES_MAX });
        }
        Ok(overlay)
    }

    /// How many objects it changes, and how many it adds.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.patches.len(), self.additions.len())
    }

    /// Which it is, without what it changes.
    #[must_use]
    pub fn name_only(&self) -> Self {
        Self { sha256: self.sha256.clone(), patches: Vec::new(), additions: Vec::new() }
    }

    /// Lays it over these objects, which were rendered `through` this stage for this request.
    pub fn apply(&self, objects: &mut Vec<Object>, request: &Request, through: Through, marks: &Marks) {
        for object in objects.iter_mut() {
            let (kind, name) = (object.kind.to_string(), shared_name(object.kind, &object.name));
            for patch in self.patches.iter().filter(|patch| patch.kind == kind && patch.name == name) {
                patch.edits.iter().for_each(|edit| edit.apply(&mut object.body));
            }
        }
        if through < Through::K8sApplied {
            return;
        }
        let mut added: Vec<Object> =
            self.additions.iter().filter_map(|body| self.marked(body, request, marks)).collect();
        // With the others of its kind: the order of the objects is the order in which they are applied.
        added.sort_by_key(|object| object.kind);
        for object in added {
            let place = objects.iter().position(|other| other.kind > object.kind).unwrap_or(objects.len());
            objects.insert(place, object);
        }
    }

    /// An object of the overlay's own, with the marks of this workflow: it is ours, and goes with the rest.
    fn marked(&self, body: &Value, request: &Request, marks: &Marks) -> Option<Object> {
        let kind = Kind::ALL.into_iter().find(|kind| body["kind"] == kind.to_string())?;
        let name = body["metadata"]["name"].as_str()?.to_owned();
        let mut body = body.clone();
        body["metadata"]["namespace"] = request.namespace.as_str().into();
        let labels = [
            (names::INSTANCE_LABEL, names::instance(&request.user, &request.service_name)),
            (names::PART_OF_LABEL.0, names::PART_OF_LABEL.1.to_owned()),
            (names::MANAGED_BY_LABEL.0, names::MANAGED_BY_LABEL.1.to_owned()),
        ];
        let annotations = [
            (names::WORKFLOW_ANNOTATION, marks.workflow.clone()),
            (names::TENANT_ANNOTATION, request.user.to_string()),
            (names::SERVICE_ANNOTATION, request.service_name.to_string()),
        ];
        for (name, value) in labels {
            body["metadata"]["labels"][name] = value.into();
        }
        for (name, value) in annotations {
            body["metadata"]["annotations"][name] = value.into();
        }
        Some(Object { kind, name, namespace: Some(request.namespace.to_string()), body })
    }
}

/// The name by which an overlay knows an object: a namespace has another in every cluster, claims are all alike.
fn shared_name(kind: Kind, name: &str) -> &str {
    match kind {
        Kind::Namespace => "namespace",
        Kind::PersistentVolumeClaim => "claim",
        _ => name,
    }
}

#[cfg(test)]
pub(crate) mod tests;
