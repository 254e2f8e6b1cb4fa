//! What others have put into a namespace of ours: its deletion would take that with it (I15).
//!
//! - Looked for among every kind that the server can list and delete, those of extensions included, and to the last page.
//! - A kind that may not be listed is named, and is no failure: an operator may well keep the right to read Secrets to himself.
//! - What Kubernetes and its extensions put into every namespace is nobody's work: [`EVERYWHERE`], what belongs to another
//!   object, and what the operator of this cluster names ([`Tolerated`]).
//!
//! Whose an object is, is read from its metadata: nobody here needs to see what is in a Secret.

use std::str::FromStr;

use cairn_engine::StepError;
use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResourceList, ObjectMeta};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};

use super::errors::{Asked, step_error};
use super::{Cluster, Found, LIST_MAX, Made, marked_by};
use crate::names;
use crate::render::Kind;

/// What a namespace has from its beginning, or gets without anybody asking, as kind and name.
const EVERYWHERE: [(&str, &str); 10] = [
    ("ServiceAccount", "default"),
    ("ConfigMap", "kube-root-ca.crt"),
    ("ConfigMap", "istio-ca-root-cert"),
    // OpenShift.
    ("ConfigMap", "openshift-service-ca.crt"),
    ("ServiceAccount", "builder"),
    ("ServiceAccount", "deployer"),
    ("ServiceAccount", "pipeline"),
    ("RoleBinding", "system:deployers"),
    ("RoleBinding", "system:image-builders"),
    ("RoleBinding", "system:image-pullers"),
];

/// Kinds that only say something about others' objects. `Endpoints` has a Service's name, and no owner.
const ABOUT_OTHERS: [&str; 3] = ["Event", "Endpoints", "EndpointSlice"];

/// The annotation of a Secret that holds a ServiceAccount's token.
const TOKEN_OF: &str = "kubernetes.io/service-account.name";

/// How many of others' objects are named.
const NAMED_MAX: usize = 20;

/// How many kinds are listed at the same time: a cluster with extensions has hundreds, and an attempt a minute.
const AT_ONCE: usize = 8;

/// Objects that this cluster puts into its namespaces by itself: `ConfigMap/registry-*`, or `managed-by=kyverno`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tolerated {
    /// Those of this kind whose names are, or (with `*` at the end) begin with, this.
    Named {
        /// `ConfigMap`
        kind: String,
        /// `registry-*`
        name: String,
    },
    /// Those whose label `app.kubernetes.io/managed-by` is this.
    ManagedBy(String),
}

/// The text names neither a kind with a name nor a manager.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names nothing to tolerate: write Kind/name, Kind/begins-with-*, or managed-by=NAME")]
pub struct BadTolerated(String);

impl FromStr for Tolerated {
    type Err = BadTolerated;

    fn from_str(text: &str) -> Result<Self, BadTolerated> {
        match (text.strip_prefix("managed-by="), text.split_once('/')) {
            (Some(manager), _) if !manager.is_empty() => Ok(Self::ManagedBy(manager.to_owned())),
            (None, Some((kind, name))) if !kind.is_empty() && !matches!(name, "" | "*") => {
                Ok(Self::Named { kind: kind.to_owned(), name: name.to_owned() })
            }
            _ => Err(BadTolerated(text.to_owned())),
        }
    }
}

impl Tolerated {
    fn takes(&self, kind: &str, metadata: &ObjectMeta) -> bool {
        match self {
            Self::Named { kind: wanted, name } => {
                let found = metadata.name.as_deref().unwrap_or_default();
                let fits = name.strip_suffix('*').map_or(found == name, |begin| found.starts_with(begin));
                kind == wanted && fits
            }
            Self::ManagedBy(manager) => {
                let labels = metadata.labels.as_ref();
                labels.and_then(|labels| labels.get(names::MANAGED_BY_LABEL.0)).is_some_and(|found| found == manager)
            }
        }
    }
}

/// What others have in a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strangers {
    /// `Ingress/shop`: what would go with the namespace.
    pub found: Vec<String>,
    /// `secrets`: the kinds that may not be listed.
    pub unseen: Vec<String>,
}

impl Cluster {
    /// What stands in this namespace and was neither made by this workflow nor follows from what it made.
    ///
    /// # Errors
    /// [`StepError`], by the table of [`super::errors`].
    pub async fn strangers(&self, namespace: &str, workflow: &str) -> Result<Strangers, StepError> {
        let mut strangers = Strangers::default();
        let kinds = self.deletable_kinds().await?;
        let listed = kinds.into_iter().map(|kind| async move {
            let listed = self.metadata_of_all(&kind, namespace).await;
            (kind, listed)
        });
        // In the order of the kinds, so that the same namespace gives the same answer.
        let mut listed = futures::stream::iter(listed).buffered(AT_ONCE);
        while let Some((kind, objects)) = listed.next().await {
            let Some(objects) = objects? else {
                strangers.unseen.push(kind.plural);
                continue;
            };
            let foreign = objects.iter().filter(|object| !marked_by(object, workflow));
            let foreign = foreign.filter(|object| !self.is_machinery(&kind.kind, object));
            strangers
                .found
                .extend(foreign.map(|object| format!("{}/{}", kind.kind, object.name.as_deref().unwrap_or_default())));
        }
        Ok(strangers)
    }

    /// Looks, before this namespace is deleted, for what others have put there: it must not go with it (I15). Gives back the
    /// kinds that may not be seen.
    ///
    /// # Errors
    /// [`StepError`]: permanent, naming them, if there are any; else by the table of [`super::errors`].
    pub async fn refuse_strangers(&self, namespace: &Made, workflow: &str) -> Result<Vec<String>, StepError> {
        let found = self.find(Kind::Namespace, None, &namespace.name, workflow).await?;
        let still_ours = matches!(found, Found::Ours(found)
            if found.metadata.uid.as_deref() == Some(&namespace.uid) && found.metadata.deletion_timestamp.is_none());
        if !still_ours {
            return Ok(Vec::new());
        }
        let strangers = self.strangers(&namespace.name, workflow).await?;
        if strangers.found.is_empty() {
            return Ok(strangers.unseen);
        }
        let mut named: Vec<String> = strangers.found.iter().take(NAMED_MAX).cloned().collect();
        if strangers.found.len() > NAMED_MAX {
            named.push(format!("{} more", strangers.found.len() - NAMED_MAX));
        }
        Err(StepError::permanent(format!(
            "namespace {} cannot be deleted: others have put {} there; move them away, then retry",
            namespace.name,
            named.join(", ")
        )))
    }

    /// Every kind of object that a namespace's deletion deletes, each in the version that its group prefers.
    async fn deletable_kinds(&self) -> Result<Vec<ApiResource>, StepError> {
        let failed = |error| step_error(Asked::Read, "ask the cluster for its kinds", &error);
        let mut kinds = Vec::new();
        let core = self.client.list_core_api_resources("v1").await.map_err(failed)?;
        take_deletable("", "v1", core, &mut kinds);
        for group in self.client.list_api_groups().await.map_err(failed)?.groups {
            let preferred = group.preferred_version.map(|version| version.version);
            let mut versions = group.versions;
            versions.sort_by_key(|version| Some(&version.version) != preferred.as_ref());
            for version in versions {
                let list = self.client.list_api_group_resources(&version.group_version).await.map_err(failed)?;
                take_deletable(&group.name, &version.version, list, &mut kinds);
            }
        }
        Ok(kinds)
    }

    /// The metadata of all of this kind in this namespace; `None` if they may not be listed.
    async fn metadata_of_all(&self, kind: &ApiResource, namespace: &str) -> Result<Option<Vec<ObjectMeta>>, StepError> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, kind);
        let mut params = ListParams::default().limit(LIST_MAX);
        let mut all = Vec::new();
        // Ends with the last page: each is a later part of one snapshot of the server.
        loop {
            match api.list_metadata(&params).await {
                Ok(page) => {
                    all.extend(page.items.into_iter().map(|object| object.metadata));
                    match page.metadata.continue_.filter(|token| !token.is_empty()) {
                        Some(token) => params.continue_token = Some(token),
                        None => return Ok(Some(all)),
                    }
                }
                // An extension that has just been taken out, or that cannot be listed although it says so.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => return Ok(Some(all)),
                // Not allowed to us; or an extension's server that gives no metadata alone, as some do not.
                Err(kube::Error::Api(status)) if matches!(status.code, 403 | 406) => return Ok(None),
                Err(error) => {
                    let doing = format!("list {} in namespace {namespace}", kind.plural);
                    return Err(step_error(Asked::Read, &doing, &error));
                }
            }
        }
    }

    fn is_machinery(&self, kind: &str, metadata: &ObjectMeta) -> bool {
        let owned = metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
        let name = metadata.name.as_deref().unwrap_or_default();
        let account = metadata.annotations.as_ref().and_then(|annotations| annotations.get(TOKEN_OF));
        let name_of_account = account.map(String::as_str).filter(|_| kind == "Secret");
        owned
            || EVERYWHERE.contains(&(kind, name))
            || name_of_account.is_some_and(|account| EVERYWHERE.contains(&("ServiceAccount", account)))
            || self.tolerated.iter().any(|tolerated| tolerated.takes(kind, metadata))
    }
}

/// Adds the kinds of this list that lie in namespaces and can be listed and deleted, unless a better version of them is there.
fn take_deletable(group: &str, version: &str, list: APIResourceList, kinds: &mut Vec<ApiResource>) {
    for resource in list.resources {
        let can = |verb: &str| resource.verbs.iter().any(|known| known == verb);
        let is_part = resource.name.contains('/');
        let known = kinds.iter().any(|kind| kind.group == group && kind.plural == resource.name);
        let deletable = resource.namespaced && can("list") && (can("delete") || can("deletecollection"));
        if is_part || known || !deletable || ABOUT_OTHERS.contains(&resource.kind.as_str()) {
            continue;
        }
        kinds.push(ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
            kind: resource.kind,
            plural: resource.name,
        });
    }
}

#[cfg(test)]
mod tests;
