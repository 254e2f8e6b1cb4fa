//! What a cluster lacks, looked for before anything is made in it. Reads only.
//!
//! What is found wrong is never an error of the looking: each is a [`Finding`] with its way out.

use futures::StreamExt as _;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde::Serialize;

use super::Cluster;
use super::errors::{Asked, step_error};
use crate::names;
use crate::rights::{Right, rights};

/// The API groups that objects of a cluster, or questions about it, are of; all in version `v1`.
const GROUPS: [&str; 4] = ["apps", "policy", "storage.k8s.io", "authorization.k8s.io"];
/// The oldest server that the objects are known to be right for.
const OLDEST_MINOR: u32 = 30;
/// How many questions are asked at the same time.
const AT_ONCE: usize = 8;
/// The annotation of the class that claims get which name none.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Work goes on, but less well, or not for every request.
    Doubtful,
    /// Nothing can be made like this.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What sort of thing: `right`, `api`, `storage`…
    pub check: &'static str,
    /// Which one: `delete namespaces`.
    pub subject: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
    /// What to do about it; nothing where it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// It is as it should be.
    pub fn good(check: &'static str, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check, subject: subject.into(), verdict: Verdict::Good, detail: detail.into(), remedy: None }
    }

    /// It is not, and that is the way out.
    pub fn bad(
        verdict: Verdict,
        check: &'static str,
        subject: impl Into<String>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { check, subject: subject.into(), verdict, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

impl Cluster {
    /// Everything that is missing, doubtful or good in this cluster. One that cannot be reached is one finding.
    pub async fn examine(&self) -> Vec<Finding> {
        let mut findings = self.examine_but_gpus().await;
        if !is_unreachable(&findings) {
            findings.push(self.examine_gpus().await);
        }
        findings
    }

    /// The same without a look at the nodes and their pods, for whoever looks at those more closely.
    pub async fn examine_but_gpus(&self) -> Vec<Finding> {
        let mut findings = vec![self.examine_server().await];
        if is_unreachable(&findings) {
            return findings;
        }
        findings.extend(self.examine_apis().await);
        findings.extend(self.examine_rights().await);
        findings.extend(self.examine_storage().await);
        findings
    }

    async fn examine_server(&self) -> Finding {
        let version = match self.client.apiserver_version().await {
            Ok(version) => version,
            Err(error) => {
                let failed = step_error(Asked::Read, "ask the cluster for its version", &error);
                let remedy = "see that the kubeconfig names the right server, that it can be reached from here, and that its credentials are valid";
                return Finding::bad(Verdict::Missing, "server", "reachable", failed.failure.message, remedy);
            }
        };
        let digits: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
        let detail = format!("Kubernetes {}", version.git_version);
        match (version.major.as_str(), digits.parse::<u32>()) {
            ("1", Ok(minor)) if minor < OLDEST_MINOR => Finding::bad(
                Verdict::Doubtful,
                "server",
                "version",
                detail,
                format!("the objects are tried from 1.{OLDEST_MINOR} on: upgrade the cluster"),
            ),
            _ => Finding::good("server", "version", detail),
        }
    }

    async fn examine_apis(&self) -> Vec<Finding> {
        let groups = match self.client.list_api_groups().await {
            Ok(groups) => groups.groups,
            Err(error) => {
                let failed = step_error(Asked::Read, "ask the cluster for its APIs", &error);
                let remedy = "the role system:discovery is everybody's who may log in: bind it again";
                return vec![Finding::bad(Verdict::Missing, "api", "groups", failed.failure.message, remedy)];
            }
        };
        let served = |name: &str| {
            groups.iter().any(|group| group.name == name && group.versions.iter().any(|one| one.version == "v1"))
        };
        let finding = |name: &str| {
            let subject = format!("{name}/v1");
            if served(name) {
                return Finding::good("api", subject, "served");
            }
            Finding::bad(Verdict::Missing, "api", subject, "not served", "switch it on in the API server")
        };
        GROUPS.into_iter().map(finding).collect()
    }

    /// Asks for each right of the table by itself: what is missing is named, and nothing else.
    async fn examine_rights(&self) -> Vec<Finding> {
        let questions = rights().map(|right| async move { (right, self.may(&right).await) });
        let answers: Vec<(Right, Result<bool, String>)> =
            futures::stream::iter(questions).buffered(AT_ONCE).collect().await;
        let finding = |(right, answer): (Right, Result<bool, String>)| {
            let worst = if right.rule.without.is_some() { Verdict::Doubtful } else { Verdict::Missing };
            let purpose = right.rule.purpose;
            match answer {
                Ok(true) => Finding::good("right", right.to_string(), purpose),
                Ok(false) => {
                    let lost = right.rule.without.map(|lost| format!("; without it {lost}")).unwrap_or_default();
                    let detail = format!("not granted, and needed to {purpose}{lost}");
                    let remedy = "grant it: the ClusterRole of deploy/ has it, and `cairn doctor --role` prints that";
                    Finding::bad(worst, "right", right.to_string(), detail, remedy)
                }
                Err(why) => {
                    let remedy = "grant create selfsubjectaccessreviews.authorization.k8s.io, and ask again";
                    Finding::bad(Verdict::Doubtful, "right", right.to_string(), why, remedy)
                }
            }
        };
        answers.into_iter().map(finding).collect()
    }

    /// Whether this right is granted, in every namespace.
    async fn may(&self, right: &Right) -> Result<bool, String> {
        let (resource, subresource) = right.parts();
        let asked = ResourceAttributes {
            verb: Some(right.verb.to_owned()),
            group: Some(right.group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource: Some(subresource.to_owned()).filter(|subresource| !subresource.is_empty()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(asked), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..Default::default() };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &review).await {
            Ok(answer) => Ok(answer.status.is_some_and(|status| status.allowed)),
            Err(error) => {
                Err(step_error(Asked::Read, &format!("ask for the right to {right}"), &error).failure.message)
            }
        }
    }

    async fn examine_storage(&self) -> Vec<Finding> {
        let api: Api<StorageClass> = Api::all(self.client.clone());
        let classes = match api.list(&ListParams::default()).await {
            Ok(classes) => classes.items,
            Err(error) => {
                let failed = step_error(Asked::Read, "list the storage classes", &error);
                let remedy = "grant list storageclasses.storage.k8s.io";
                return vec![Finding::bad(
                    Verdict::Missing,
                    "storage",
                    "default class",
                    failed.failure.message,
                    remedy,
                )];
            }
        };
        let is_default = |class: &&StorageClass| {
            let annotations = class.metadata.annotations.as_ref();
            annotations.and_then(|annotations| annotations.get(DEFAULT_CLASS)).is_some_and(|value| value == "true")
        };
        let names = |classes: &[&StorageClass]| {
            let names: Vec<&str> = classes.iter().filter_map(|class| class.metadata.name.as_deref()).collect();
            names.join(", ")
        };
        let defaults: Vec<&StorageClass> = classes.iter().filter(is_default).collect();
        let Some(class) = defaults.first() else {
            let all: Vec<&StorageClass> = classes.iter().collect();
            let detail = match all.as_slice() {
                [] => "the cluster has no StorageClass at all".to_owned(),
                all => format!("none of the classes is the default one: {}", names(all)),
            };
            let remedy = format!("mark one: kubectl annotate storageclass NAME {DEFAULT_CLASS}=true");
            return vec![Finding::bad(Verdict::Missing, "storage", "default class", detail, remedy)];
        };
        let name = class.metadata.name.clone().unwrap_or_default();
        let mut findings = vec![match defaults.len() {
            1 => Finding::good("storage", "default class", &name),
            _ => {
                let remedy = "leave the annotation on one of them: which of several is used, the cluster decides";
                Finding::bad(Verdict::Doubtful, "storage", "default class", names(&defaults), remedy)
            }
        }];
        findings.push(if class.allow_volume_expansion == Some(true) {
            Finding::good("storage", "expansion", format!("{name} lets disks grow"))
        } else {
            let remedy = format!("if its provisioner can do it, set allowVolumeExpansion: true on StorageClass {name}");
            let detail = format!("{name} does not let disks grow: disk_size is for ever");
            Finding::bad(Verdict::Doubtful, "storage", "expansion", detail, remedy)
        });
        findings
    }

    async fn examine_gpus(&self) -> Finding {
        let bad = |detail: String, remedy: &str| Finding::bad(Verdict::Doubtful, "gpu", names::GPU, detail, remedy);
        let gpus = match self.gpus(None).await {
            Ok(gpus) => gpus,
            Err(error) => return bad(error.failure.message, "grant list nodes"),
        };
        if gpus.all() == 0 {
            return bad(
                "no node has GPUs: requests with gpu_count above 0 will fail".to_owned(),
                "install the device plugin on nodes that have some, or leave gpu_count at 0",
            );
        }
        let (all, with_some, nodes, most) = (gpus.all(), gpus.nodes_with_some(), gpus.nodes, gpus.most());
        let detail = format!("{all} on {with_some} of {nodes} nodes, {most} at most on one");
        match gpus.free() {
            Ok(0) => bad(format!("{detail}; 0 of {all} free now"), "add nodes that have some, or free those in use"),
            Ok(free) => Finding::good("gpu", names::GPU, format!("{detail}; {free} of {all} free now")),
            Err(why) => bad(format!("{detail}; how many are free, nobody knows: {why}"), "grant list pods"),
        }
    }
}

/// Whether nothing but the server itself was looked at.
fn is_unreachable(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.check == "server" && finding.verdict == Verdict::Missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{Fault, Sandbox, SandboxOptions};

    async fn wrong(sandbox: &Sandbox) -> Vec<Finding> {
        let mut findings = Cluster::new(sandbox.client()).examine().await;
        findings.retain(|finding| finding.verdict != Verdict::Good);
        findings
    }

    fn sandbox() -> Sandbox {
        Sandbox::open(SandboxOptions::default()).expect("in memory")
    }

    #[tokio::test(start_paused = true)]
    async fn a_sandbox_lacks_nothing_and_is_not_changed_by_the_looking() {
        let sandbox = sandbox();
        assert_eq!(wrong(&sandbox).await, []);
        assert_eq!(sandbox.effects(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn with_one_right_taken_away_exactly_that_one_is_named() {
        for right in rights() {
            let sandbox = sandbox();
            sandbox.faults().add(Fault::forbid().verb(right.verb).resource(right.resource));
            let named: Vec<String> =
                wrong(&sandbox).await.into_iter().filter(|one| one.check == "right").map(|one| one.subject).collect();
            assert_eq!(named, [right.to_string()]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_without_which_work_goes_on_is_doubtful_and_not_missing() {
        let sandbox = sandbox();
        sandbox.faults().add(Fault::forbid().verb("list").resource("nodes"));
        let wrong = wrong(&sandbox).await;
        assert!(wrong.iter().all(|finding| finding.verdict == Verdict::Doubtful), "{wrong:?}");
        assert!(wrong.iter().any(|finding| finding.check == "gpu"), "{wrong:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_does_not_answer_is_one_finding() {
        let sandbox = sandbox();
        sandbox.faults().add(Fault::status(503));
        let wrong = wrong(&sandbox).await;
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert_eq!((wrong[0].check, wrong[0].verdict), ("server", Verdict::Missing));
    }
}
