//! Taking away what a test has made, whatever became of it.

use std::ops::ControlFlow;

use anyhow::bail;
use cairn_steps::render::Kind;
use k8s_openapi::api::{
    core::v1::{PersistentVolume, Pod},
    storage::v1::StorageClass,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::json;

use super::{FINALIZER, Site};

impl Site {
    /// Takes away everything, and waits until it is gone.
    pub(super) async fn tidy(&self) -> anyhow::Result<()> {
        let (namespaces, tasks) = {
            let mut made = self.made();
            (std::mem::take(&mut made.namespaces), std::mem::take(&mut made.tasks))
        };
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        // First all of them, then the waiting: who is stopped by a signal has little time.
        let mut left = Vec::new();
        for namespace in &namespaces {
            if let Err(error) = self.begin_deletion(namespace).await {
                left.push(format!("namespace {namespace}: {error:#}"));
            }
        }
        let (volumes, classes) = {
            let mut made = self.made();
            (std::mem::take(&mut made.volumes), std::mem::take(&mut made.classes))
        };
        for name in &classes {
            let deleted = Api::<StorageClass>::all(self.client.clone()).delete(name, &DeleteParams::default()).await;
            left.extend(refused(deleted.map(|_| ())).map(|why| format!("StorageClass {name}: {why}")));
        }
        for namespace in &namespaces {
            let what = format!("namespace {namespace} is gone");
            let gone = self.eventually(&what, async || self.look_gone(namespace).await).await;
            left.extend(gone.err().map(|error| format!("{error:#}")));
        }
        for name in &volumes {
            let deleted =
                Api::<PersistentVolume>::all(self.client.clone()).delete(name, &DeleteParams::default()).await;
            left.extend(refused(deleted.map(|_| ())).map(|why| format!("PersistentVolume {name}: {why}")));
        }
        if left.is_empty() {
            return Ok(());
        }
        bail!("left behind, for you to take away: {}", left.join("; "))
    }

    async fn look_gone(&self, namespace: &str) -> anyhow::Result<ControlFlow<(), String>> {
        let Some(found) = self.objects(Kind::Namespace, "").get_opt(namespace).await? else {
            return Ok(ControlFlow::Break(()));
        };
        // A test may have been stopped in the middle of its own deletion of pods: again, without grace.
        self.begin_deletion(namespace).await?;
        Ok(ControlFlow::Continue(found.data["status"]["conditions"].to_string()))
    }

    /// Deletes the namespace, with nothing in it that it would wait for: neither our finalizer, nor the grace of pods.
    async fn begin_deletion(&self, namespace: &str) -> anyhow::Result<()> {
        let spaces = self.objects(Kind::Namespace, "");
        let Some(found) = spaces.get_opt(namespace).await? else { return Ok(()) };
        release(&spaces, &found).await?;
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Namespace) {
            let objects = self.objects(kind, namespace);
            for object in objects.list(&ListParams::default()).await? {
                release(&objects, &object).await?;
                if matches!(kind, Kind::StatefulSet | Kind::Deployment) {
                    let deleted = objects.delete(&object.name_any(), &DeleteParams::background()).await;
                    refused(deleted.map(|_| ())).map_or(Ok(()), |why| Err(anyhow::anyhow!(why)))?;
                }
            }
        }
        if found.metadata.deletion_timestamp.is_none() {
            let deleted = spaces.delete(namespace, &DeleteParams::default()).await;
            refused(deleted.map(|_| ())).map_or(Ok(()), |why| Err(anyhow::anyhow!(why)))?;
        }
        let pods: Api<Pod> = self.pods(namespace);
        pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await?;
        Ok(())
    }

    /// Takes our finalizer from an object of this namespace, or from the namespace itself.
    pub(crate) async fn release(&self, kind: Kind, namespace: &str, name: &str) -> anyhow::Result<()> {
        let objects = self.objects(kind, namespace);
        match objects.get_opt(name).await? {
            Some(found) => release(&objects, &found).await,
            None => Ok(()),
        }
    }

    /// Puts our finalizer on it.
    pub(crate) async fn hold(&self, kind: Kind, namespace: &str, name: &str) -> anyhow::Result<()> {
        let objects = self.objects(kind, namespace);
        let mut finalizers = objects.get(name).await?.finalizers().to_vec();
        finalizers.push(FINALIZER.to_owned());
        let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
        objects.patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

async fn release(objects: &Api<DynamicObject>, found: &DynamicObject) -> anyhow::Result<()> {
    if !found.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(());
    }
    let others: Vec<&String> = found.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
    let patch = Patch::Merge(json!({"metadata": {"finalizers": others}}));
    match objects.patch(&found.name_any(), &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(|_| ())?),
    }
}

/// Why a deletion was refused; what is gone already is no refusal.
fn refused(deleted: kube::Result<()>) -> Option<String> {
    match deleted {
        Ok(()) => None,
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(error) => Some(error.to_string()),
    }
}
