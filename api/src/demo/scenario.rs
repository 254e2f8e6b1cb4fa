//! `cairn demo --scenario NAME`: a creation that cannot work out, and how it says so.
//!
//! Each puts one thing into the sandbox that real clusters have on their worse days, shortens the grace that it would last, and says
//! that it did. What follows is the engine's own doing: it finds out by itself, says cause, evidence and way out, and leaves nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use cairn_engine::{Outcome, WorkflowState};
use cairn_steps::render::Kind;
use cairn_steps::sandbox::{Fault, FaultAction, FaultId, PodTrouble, Sandbox};
use clap::ValueEnum;
use kube::api::{Api, DynamicObject, PostParams};
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
    /// The storage class makes no disk
    ClaimClass,
    /// The namespace is somebody else's
    ForeignNamespace,
    /// A finalizer holds the namespace that is to be taken back
    NamespaceFinalizer,
}

/// What a scenario shows.
struct Shown {
    /// What is the matter with this cluster.
    story: &'static str,
    /// The graces, shortened.
    settings: &'static str,
    /// The step at which the creation fails.
    step: &'static str,
    /// What its error must say: cause and way out.
    says: [&'static str; 2],
}

impl Scenario {
    fn shown(self) -> Shown {
        match self {
            Self::ImagePull => Shown {
                story: "the registry refuses connections (image_grace: 3 s instead of 2 min)",
                settings: "[rollout]\nimage_grace = \"3s\"\n",
                step: "rollout_completed",
                says: ["connection refused", "see that the registry answers"],
            },
            Self::NoGpuNode => Shown {
                story: "the one node has 8 GPUs, and 16 are asked for (schedule_grace: 3 s instead of 5 min)",
                settings: "[rollout]\nschedule_grace = \"3s\"\n",
                step: "rollout_completed",
                says: ["Insufficient nvidia.com/gpu", "gpu_count"],
            },
            Self::Quota => Shown {
                story: "the namespace gets a ResourceQuota that has no room for the pods (no grace: a quota does not pass by itself)",
                settings: "",
                step: "rollout_completed",
                says: ["exceeded quota", "ResourceQuota"],
            },
            Self::ClaimClass => Shown {
                story: "the storage class goes away before the disks are made (volume_grace: 3 s instead of 2 min)",
                settings: "[rollout]\nvolume_grace = \"3s\"\n",
                step: "rollout_completed",
                says: ["gets no volume", "storage class"],
            },
            Self::ForeignNamespace => Shown {
                story: "the namespace demo--search is there already, and somebody else's (no grace: it stays so)",
                settings: "",
                step: "namespace_created",
                says: ["was not made here", "choose another `namespace`"],
            },
            Self::NamespaceFinalizer => Shown {
                story: "the image's name cannot be read, and then a finalizer holds the namespace (each attempt to take it back waits 3 s instead of 45 s); after the first one somebody takes the finalizer away",
                settings: "[rollout]\nnamespace_grace = \"3s\"\n",
                step: "rollout_completed",
                says: ["InvalidImageName", "elastic.image"],
            },
        }
    }

    /// What is the matter with this cluster, for the screen.
    pub(super) fn story(self) -> &'static str {
        self.shown().story
    }

    /// What is asked for besides the defaults.
    pub(super) fn request(self) -> Value {
        match self {
            Self::NoGpuNode => json!({ "gpu_count": 16 }),
            _ => json!({}),
        }
    }

    /// Writes the shortened graces where the engine reads its settings.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub(super) fn write_settings(self, data: &Path) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(data).with_context(|| format!("data: {} cannot be used", data.display()))?;
        let path = data.join("scenario.toml");
        std::fs::write(&path, self.shown().settings)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(path)
    }

    /// Puts the trouble into the cluster. What is given back can be taken away again while the creation runs.
    ///
    /// # Errors
    /// If the sandbox refuses it.
    pub(super) async fn prepare(self, sandbox: &Sandbox) -> anyhow::Result<Option<FaultId>> {
        let faults = sandbox.faults();
        let pods = |trouble, message: &str| {
            let action = FaultAction::Pods { trouble, message: Some(message.to_owned()) };
            faults.add(Fault::new(action).name("elasticsearch-"))
        };
        match self {
            Self::ImagePull => {
                let said = "failed to do request: Head \"https://docker.elastic.co/v2/\": dial tcp 203.0.113.7:443: connect: connection refused";
                pods(PodTrouble::ErrImagePull, said);
            }
            Self::NoGpuNode => {}
            Self::Quota => {
                let said = "forbidden: exceeded quota: tenant-quota, requested: limits.memory=2Gi, used: limits.memory=1Gi, limited: limits.memory=2Gi";
                // Kibana's pod is refused as well.
                faults.add(Fault::new(FaultAction::Pods {
                    trouble: PodTrouble::FailedCreate,
                    message: Some(said.to_owned()),
                }));
            }
            Self::ClaimClass => {
                faults.add(Fault::new(FaultAction::Claims {
                    message: "storageclass.storage.k8s.io \"standard\" not found".to_owned(),
                }));
            }
            Self::ForeignNamespace => {
                let theirs = json!({"apiVersion": "v1", "kind": "Namespace",
                    "metadata": {"name": "demo--search", "labels": {"team": "somebody-else"}}});
                let theirs: DynamicObject = serde_json::from_value(theirs)?;
                let namespaces: Api<DynamicObject> = Api::all_with(sandbox.client(), &Kind::Namespace.api_resource());
                namespaces.create(&PostParams::default(), &theirs).await.context("the namespace")?;
            }
            Self::NamespaceFinalizer => {
                pods(PodTrouble::InvalidImageName, "couldn't parse image name: invalid reference format");
                return Ok(Some(
                    faults.add(Fault::new(FaultAction::HoldNamespace { finalizer: "example.com/backup".to_owned() })),
                ));
            }
        }
        Ok(None)
    }

    /// Whether it failed where and as it was to.
    ///
    /// # Errors
    /// What happened instead.
    pub(super) fn check(self, state: &WorkflowState) -> anyhow::Result<()> {
        let shown = self.shown();
        ensure!(state.outcome() == Some(Outcome::Failed), "it was to fail, and did not: {:?}", state.phase());
        let (step, failure) = state.failure().context("it failed without saying why")?;
        ensure!(step.as_str() == shown.step, "it failed at {step} instead of {}", shown.step);
        for words in shown.says {
            ensure!(failure.message.contains(words), "its error does not say \"{words}\": {}", failure.message);
        }
        Ok(())
    }
}
