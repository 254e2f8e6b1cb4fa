//! `cairn demo --scenario NAME`: a creation or a change that cannot work out, and how it says so.
//!
//! Each puts into the sandbox what real clusters have on their worse days, shortens the grace that it would last, and says that
//! it did. What follows is the engine's own doing: it finds out by itself, says cause, evidence and way out, and leaves nothing.
//! All of them are rows of one table, [`Scenario::row`].

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use cairn_engine::{Outcome, WorkflowState};
use cairn_steps::{
    render::Kind,
    report::Report,
    sandbox::{Fault, FaultAction, FaultId, PodTrouble, Sandbox},
};
use clap::ValueEnum;
use kube::{
    api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// The registry does not give the image out
    ImagePull,
    /// No node has as many GPUs as are asked for
    NoGpuNode,
    /// The namespace's quota refuses the pods
    Quota,
    /// A larger disk, of a storage class that lets none grow
    ClaimClass,
    /// The namespace is somebody else's
    ForeignNamespace,
    /// A finalizer holds the namespace that is to be taken back
    NamespaceFinalizer,
}

/// What is put into the cluster.
enum Trouble {
    /// Pods whose names begin so have this trouble, and these are the words of whoever knows.
    Pods(&'static str, PodTrouble, &'static str),
    /// This namespace is there, and another team's.
    ForeignNamespace(&'static str),
    /// The default storage class lets no disk grow.
    NoExpansion,
    /// This finalizer holds each namespace that is deleted, until the engine has told of it once.
    Finalizer(&'static str),
}

/// A scenario.
struct Row {
    /// What is the matter with this cluster.
    story: &'static str,
    /// The graces, shortened.
    settings: &'static str,
    troubles: &'static [Trouble],
    /// What is asked for besides the defaults.
    request: Value,
    /// What is asked of the cluster once it is created; without it, the creation is what fails.
    change: Option<Value>,
    /// The step at which it fails.
    step: &'static str,
    /// What its `failed` report must say: cause, evidence and way out.
    says: &'static [&'static str],
}

/// The default storage class of the sandbox.
const CLASS: &str = "standard";

impl Scenario {
    fn row(self) -> Row {
        let plain = Row {
            story: "",
            settings: "",
            troubles: &[],
            request: json!({}),
            change: None,
            step: "rollout_completed",
            says: &[],
        };
        match self {
            Self::ImagePull => Row {
                story: "the registry refuses connections (image_grace: 3 s instead of 2 min)",
                settings: "[rollout]\nimage_grace = \"3s\"\n",
                troubles: &[Trouble::Pods(
                    "elasticsearch-",
                    PodTrouble::ErrImagePull,
                    "failed to do request: Head \"https://docker.elastic.co/v2/\": dial tcp 203.0.113.7:443: connect: connection refused",
                )],
                says: &["connection refused", "see that the registry answers"],
                ..plain
            },
            Self::NoGpuNode => Row {
                story: "the one node has 8 GPUs, and 16 are asked for (schedule_grace: 3 s instead of 5 min)",
                settings: "[rollout]\nschedule_grace = \"3s\"\n",
                request: json!({ "gpu_count": 16 }),
                says: &["Insufficient nvidia.com/gpu", "gpu_count"],
                ..plain
            },
            Self::Quota => Row {
                story: "the namespace gets a ResourceQuota that has no room for the pods (no grace: a quota does not pass by itself)",
                // Kibana's pod is refused as well.
                troubles: &[Trouble::Pods(
                    "",
                    PodTrouble::FailedCreate,
                    "forbidden: exceeded quota: tenant-quota, requested: limits.memory=2Gi, used: limits.memory=1Gi, limited: limits.memory=2Gi",
                )],
                says: &["exceeded quota", "ResourceQuota"],
                ..plain
            },
            Self::ClaimClass => Row {
                story: "the storage class lets no disk grow, and once the cluster is there a larger disk is asked for (no grace: a class stays as it is)",
                troubles: &[Trouble::NoExpansion],
                change: Some(json!({ "disk_size": "20Gi" })),
                step: "update_started",
                says: &[
                    "elasticsearch-data-elasticsearch-0 cannot grow",
                    "StorageClass/standard has allowVolumeExpansion false",
                    "the operator sets allowVolumeExpansion",
                ],
                ..plain
            },
            Self::ForeignNamespace => Row {
                story: "the namespace demo--search is there already, and somebody else's (no grace: it stays so)",
                troubles: &[Trouble::ForeignNamespace("demo--search")],
                step: "namespace_created",
                says: &["was not made here", "choose another `namespace`"],
                ..plain
            },
            Self::NamespaceFinalizer => Row {
                story: "the image's name cannot be read, and then a finalizer holds the namespace (each attempt to take it back waits 3 s instead of 45 s); after the first one somebody takes the finalizer away",
                settings: "[rollout]\nnamespace_grace = \"3s\"\n",
                troubles: &[
                    Trouble::Pods(
                        "elasticsearch-",
                        PodTrouble::InvalidImageName,
                        "couldn't parse image name: invalid reference format",
                    ),
                    Trouble::Finalizer("example.com/backup"),
                ],
                says: &[
                    "InvalidImageName",
                    "elastic.image",
                    "finalizers remaining: example.com/backup",
                    "whoever put a finalizer there",
                ],
                ..plain
            },
        }
    }

    /// What is the matter with this cluster, for the screen.
    pub(super) fn story(self) -> &'static str {
        self.row().story
    }

    /// What is asked for besides the defaults.
    pub(super) fn request(self) -> Value {
        self.row().request
    }

    /// What is asked of the cluster once it is created, if that is what cannot work out.
    pub(super) fn change(self) -> Option<Value> {
        self.row().change
    }

    /// Writes the shortened graces where the engine reads its settings.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub(super) fn write_settings(self, data: &Path) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(data).with_context(|| format!("data: {} cannot be used", data.display()))?;
        let path = data.join("scenario.toml");
        std::fs::write(&path, self.row().settings).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(path)
    }

    /// Puts the trouble into the cluster. What is given back can be taken away again while the creation runs.
    ///
    /// # Errors
    /// If the sandbox refuses it.
    pub(super) async fn prepare(self, sandbox: &Sandbox) -> anyhow::Result<Option<FaultId>> {
        let mut held = None;
        for trouble in self.row().troubles {
            held = trouble.put_into(sandbox).await?.or(held);
        }
        Ok(held)
    }

    /// Whether it failed where and as it was to, and its last report says so.
    ///
    /// # Errors
    /// What happened instead.
    pub(super) fn check(self, state: &WorkflowState) -> anyhow::Result<Report> {
        let row = self.row();
        ensure!(state.outcome() == Some(Outcome::Failed), "it was to fail, and did not: {:?}", state.phase());
        let (step, _) = state.failure().context("it failed without saying why")?;
        ensure!(step.as_str() == row.step, "it failed at {step} instead of {}", row.step);
        let report = Report::of_failure(state).context("it failed without a report")?;
        let said = format!("{} {}", report.message, report.result);
        for words in row.says {
            ensure!(said.contains(words), "its report does not say \"{words}\": {said}");
        }
        Ok(report)
    }
}

impl Trouble {
    /// What is given back can be taken away again.
    async fn put_into(&self, sandbox: &Sandbox) -> anyhow::Result<Option<FaultId>> {
        let faults = sandbox.faults();
        match *self {
            Self::Pods(name, trouble, message) => {
                let fault = Fault::new(FaultAction::Pods { trouble, message: Some(message.to_owned()) });
                faults.add(if name.is_empty() { fault } else { fault.name(name) });
            }
            Self::ForeignNamespace(name) => {
                let theirs = json!({"apiVersion": "v1", "kind": "Namespace",
                    "metadata": {"name": name, "labels": {"team": "somebody-else"}}});
                let theirs: DynamicObject = serde_json::from_value(theirs)?;
                let namespaces: Api<DynamicObject> = Api::all_with(sandbox.client(), &Kind::Namespace.api_resource());
                namespaces.create(&PostParams::default(), &theirs).await.context("the namespace")?;
            }
            Self::NoExpansion => {
                let kind = GroupVersionKind::gvk("storage.k8s.io", "v1", "StorageClass");
                let kind = ApiResource::from_gvk_with_plural(&kind, "storageclasses");
                let classes: Api<DynamicObject> = Api::all_with(sandbox.client(), &kind);
                let rigid = Patch::Merge(json!({ "allowVolumeExpansion": false }));
                classes.patch(CLASS, &PatchParams::default(), &rigid).await.context("the storage class")?;
            }
            Self::Finalizer(finalizer) => {
                let held = FaultAction::HoldNamespace { finalizer: finalizer.to_owned() };
                return Ok(Some(faults.add(Fault::new(held))));
            }
        }
        Ok(None)
    }
}
