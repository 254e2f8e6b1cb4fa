//! Volumes made by hand, where nobody provisions any: the suite needs a volume controller, and no storage.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
};
use serde_json::json;
use tokio::time::Instant;

use super::{Made, Site, TENANT, locked};

/// Until a claim that a pod waits for gets a volume by hand, where the cluster's own provisioner does nothing.
const PROVISIONER_GRACE: Duration = Duration::from_secs(20);

impl Site {
    /// Gives this claim a volume, which the volume controller then binds to it.
    pub(crate) async fn make_volume(&self, claim: &PersistentVolumeClaim) -> anyhow::Result<String> {
        make_volume(&self.client, claim, &self.made).await
    }

    /// From now on the claims of this namespace are bound by hand where nobody else does it: at once those of a class that
    /// a test has made, the others once a pod has waited for them a while.
    pub(crate) fn bind_claims(&self, namespace: &str) {
        if !self.is_real() {
            return;
        }
        let (client, namespace, made) = (self.client.clone(), namespace.to_owned(), self.made.clone());
        let task = tokio::spawn(async move {
            let mut waiting = HashMap::new();
            // Ends with the test.
            loop {
                if let Err(error) = bind_pending(&client, &namespace, &mut waiting, &made).await {
                    println!("claims of {namespace} cannot be bound by hand: {error:#}");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        self.made().tasks.push(task);
    }
}

async fn bind_pending(
    client: &Client,
    namespace: &str,
    waiting: &mut HashMap<String, Instant>,
    made: &Arc<Mutex<Made>>,
) -> anyhow::Result<()> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let claims = claims.list(&ListParams::default()).await?;
    let phase = |claim: &PersistentVolumeClaim| claim.status.as_ref().and_then(|status| status.phase.clone());
    let pending = claims.into_iter().filter(|claim| {
        claim.metadata.deletion_timestamp.is_none() && phase(claim).as_deref().unwrap_or("Pending") == "Pending"
    });
    let wanted: Vec<String> = pods.list(&ListParams::default()).await?.iter().flat_map(claims_of).collect();
    for claim in pending {
        let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone()).unwrap_or_default();
        let by_hand = class.is_empty() || class.starts_with(TENANT);
        let is_wanted = wanted.contains(&claim.name_any());
        let since = *waiting.entry(claim.name_any()).or_insert_with(Instant::now);
        if by_hand || (is_wanted && since.elapsed() > PROVISIONER_GRACE) {
            make_volume(client, &claim, made).await?;
        } else if !is_wanted {
            waiting.remove(&claim.name_any());
        }
    }
    Ok(())
}

fn claims_of(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone())).collect()
}

async fn make_volume(
    client: &Client,
    claim: &PersistentVolumeClaim,
    made: &Arc<Mutex<Made>>,
) -> anyhow::Result<String> {
    let namespace = claim.namespace().unwrap_or_default();
    let name = format!("{namespace}-{}", claim.name_any());
    let spec = claim.spec.clone().unwrap_or_default();
    let storage = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
    let volume: PersistentVolume = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "capacity": storage, "accessModes": spec.access_modes, "volumeMode": "Filesystem",
            "storageClassName": spec.storage_class_name, "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": format!("/tmp/{name}"), "type": "DirectoryOrCreate"},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace,
                "name": claim.name_any(), "uid": claim.metadata.uid},
        },
    }))?;
    locked(made).volumes.insert(name.clone());
    match Api::all(client.clone()).create(&PostParams::default(), &volume).await {
        Ok(_) => Ok(name),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(name),
        Err(error) => Err(error.into()),
    }
}
