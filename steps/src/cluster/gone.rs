//! Deleting what is ours, and waiting until it is gone.
//!
//! - Proof of ownership is the annotation **and** the UID in the journal; a deletion carries that UID as its precondition.
//! - What is gone already, or stands there under another UID, is done.
//! - Finalizers are waited for and named, never taken away (C7).

use std::time::Duration;

use cairn_engine::StepError;
use kube::api::{DeleteParams, DynamicObject, Preconditions, PropagationPolicy};

use super::errors::{Asked, step_error};
use super::{Cluster, Made, is_ours, place};
use crate::names;
use crate::render::Kind;

/// The first wait before it is looked again whether something is gone; doubled each time, up to the longest.
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// The longest such wait.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// What became of a wish to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It was there, and its deletion has begun.
    Begun,
    /// It is not there.
    Absent,
    /// What stands there is not what this workflow made; it is left alone.
    NotOurs,
}

impl Cluster {
    /// Deletes an object that this workflow made; what it owns goes with it.
    ///
    /// # Errors
    /// [`StepError`], by the table of [`super::errors`].
    pub async fn delete_ours(&self, made: &Made, workflow: &str) -> Result<Deletion, StepError> {
        let Some(kind) = made.kind() else {
            return Err(StepError::permanent(format!(
                "{}/{} is of a kind that this build does not know",
                made.kind, made.name
            )));
        };
        let namespace = made.namespace.as_deref();
        let object = match self.read(kind, namespace, &made.name).await? {
            None => return Ok(Deletion::Absent),
            Some(object) => object,
        };
        if object.metadata.uid.as_deref() != Some(&made.uid) || !is_ours(&object, workflow) {
            return Ok(Deletion::NotOurs);
        }
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(Deletion::Begun);
        }
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions { uid: Some(made.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.api(kind, namespace).delete(&made.name, &params).await {
            Ok(_) => Ok(Deletion::Begun),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Deletion::Absent),
            Err(error) => {
                let refused =
                    step_error(Asked::Write, &format!("delete {}", place(kind, namespace, &made.name)), &error);
                match error {
                    kube::Error::Api(status) if status.code == 409 => self.after_conflict(made, refused).await,
                    _ => Err(refused),
                }
            }
        }
    }

    /// A conflict may be our condition, which another object does not meet, or a change at the same time, or whatever an
    /// admission rule calls a conflict: only what stands there now says which.
    async fn after_conflict(&self, made: &Made, refused: StepError) -> Result<Deletion, StepError> {
        let Some(kind) = made.kind() else { return Err(refused) };
        match self.read(kind, made.namespace.as_deref(), &made.name).await? {
            None => Ok(Deletion::Absent),
            Some(object) if object.metadata.uid.as_deref() == Some(&made.uid) => Err(refused),
            Some(_) => Ok(Deletion::NotOurs),
        }
    }

    /// Waits until this very object is gone, for at most `limit`.
    ///
    /// # Errors
    /// [`StepError`] (transient) with what still holds it, if it is there at the end; else by the table.
    pub async fn wait_gone(&self, made: &Made, limit: Duration) -> Result<(), StepError> {
        let Some(kind) = made.kind() else { return Ok(()) };
        let until = tokio::time::Instant::now() + limit;
        let mut pause = FIRST_LOOK;
        loop {
            let object = self.read(kind, made.namespace.as_deref(), &made.name).await?;
            let Some(object) = object.filter(|object| object.metadata.uid.as_deref() == Some(&made.uid)) else {
                return Ok(());
            };
            if tokio::time::Instant::now() + pause > until {
                let at = place(kind, made.namespace.as_deref(), &made.name);
                let holders = conditions(&object);
                let mut message = format!("{at} is being deleted and not gone yet");
                if !holders.is_empty() {
                    message.push_str(&format!(": {}", holders.join("; ")));
                }
                if holders.iter().any(|holder| holder.contains("inalizer")) {
                    message.push_str("; whoever put a finalizer there has to do its work, or to take it away: here that is never done");
                }
                return Err(StepError::transient(message).with_evidence(holders));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    /// Waits until all of these very objects are gone, for at most `limit`.
    ///
    /// # Errors
    /// As [`Cluster::wait_gone`].
    pub async fn wait_all_gone(&self, all: &[Made], limit: Duration) -> Result<(), StepError> {
        let until = tokio::time::Instant::now() + limit;
        for made in all {
            self.wait_gone(made, until.saturating_duration_since(tokio::time::Instant::now())).await?;
        }
        Ok(())
    }

    /// What a rollback has left: everything in this namespace, and the namespace itself, that bears this mark and is none of
    /// `kept`. What is merely on its way out is not left yet: a claim goes only after the pod that uses it.
    ///
    /// # Errors
    /// [`StepError`] (transient) as long as all of it is being deleted; else by the table of [`super::errors`].
    pub async fn left(&self, namespace: &str, mark: &str, kept: &[Made]) -> Result<Vec<String>, StepError> {
        let mut marked = self.marked(namespace, mark).await?;
        marked.retain(|marked| !kept.contains(&marked.made));
        let all_leave = marked.iter().all(|marked| marked.leaves);
        let objects: Vec<String> = marked.into_iter().map(|marked| marked.text).collect();
        if all_leave && !objects.is_empty() {
            return Err(StepError::transient(format!("not gone yet: {}", objects.join(", "))));
        }
        Ok(objects)
    }

    /// Everything in this namespace, and the namespace itself, that bears this mark.
    ///
    /// # Errors
    /// [`StepError`], by the table of [`super::errors`].
    pub async fn marked(&self, namespace: &str, mark: &str) -> Result<Vec<Marked>, StepError> {
        let mut marked = Vec::new();
        if let Some(object) = self.read(Kind::Namespace, None, namespace).await?
            && is_ours(&object, mark)
        {
            marked.push(Marked::of(Kind::Namespace, None, object));
        }
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Namespace) {
            let objects = match kind {
                // By its name: the right to list Secrets is the right to read everybody's.
                Kind::Secret => self.read(kind, Some(namespace), names::SECRET).await?.into_iter().collect(),
                _ => self.list(kind, namespace).await?,
            };
            for object in objects {
                if is_ours(&object, mark) {
                    marked.push(Marked::of(kind, Some(namespace), object));
                }
            }
        }
        Ok(marked)
    }
}

/// An object that bears a mark.
#[derive(Debug, Clone)]
pub struct Marked {
    /// Which.
    pub made: Made,
    /// It is being deleted.
    pub leaves: bool,
    /// Where it is, and what still holds it if it is being deleted, for people.
    pub text: String,
    /// The whole of it.
    pub object: DynamicObject,
}

impl Marked {
    fn of(kind: Kind, namespace: Option<&str>, object: DynamicObject) -> Self {
        let name = object.metadata.name.clone().unwrap_or_default();
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let text = format!("{}{}", place(kind, namespace, &name), leaving(&object));
        let leaves = object.metadata.deletion_timestamp.is_some();
        let made = Made { kind: kind.to_string(), name, namespace: namespace.map(str::to_owned), uid };
        Self { made, leaves, text, object }
    }
}

fn leaving(object: &DynamicObject) -> String {
    if object.metadata.deletion_timestamp.is_none() {
        return String::new();
    }
    let holders = conditions(object);
    if holders.is_empty() { " (being deleted)".to_owned() } else { format!(" (being deleted: {})", holders.join("; ")) }
}

/// What keeps an object that is being deleted: its finalizers, and the conditions of a namespace that say what remains.
#[must_use]
pub fn conditions(object: &DynamicObject) -> Vec<String> {
    let mut holders: Vec<String> = Vec::new();
    let finalizers = object.metadata.finalizers.iter().flatten();
    holders.extend(finalizers.map(|finalizer| format!("finalizer {finalizer}")));
    let conditions = object.data["status"]["conditions"].as_array().into_iter().flatten();
    for condition in conditions.filter(|condition| condition["status"] == "True") {
        let kind = condition["type"].as_str().unwrap_or_default();
        if kind.starts_with("Namespace") {
            holders.push(format!("{kind}: {}", condition["message"].as_str().unwrap_or_default()));
        }
    }
    holders
}
