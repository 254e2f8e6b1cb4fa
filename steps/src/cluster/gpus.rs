//! GPUs: how many the nodes offer, and how many of them nobody has asked for yet (C6).
//!
//! Of use before something is begun, and for nothing else: a moment later another pod may have them. Whether a pod gets its GPUs
//! is the scheduler's to say.

use cairn_engine::StepError;
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use kube::Api;
use kube::api::ListParams;

use super::errors::{Asked, step_error};
use super::{Cluster, LIST_MAX, PAGES_MAX, endless};
use crate::names::GPU;
use crate::quantity::Quantity;
use crate::request::Request;

/// Pods that have a node, and have not ended: they hold what they asked for.
const HOLDING: &str = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";

/// The GPUs of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpus {
    /// How many nodes there are, with GPUs and without.
    pub nodes: usize,
    /// Those with GPUs.
    with_some: Vec<NodeGpus>,
    /// Why nobody knows which are free: pods may not be listed, say.
    unknown: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct NodeGpus {
    name: String,
    has: u64,
    held: u64,
    /// Pods are not sent there any more.
    cordoned: bool,
}

impl NodeGpus {
    fn free(&self) -> u64 {
        if self.cordoned { 0 } else { self.has.saturating_sub(self.held) }
    }
}

impl Gpus {
    /// How many nodes have GPUs.
    #[must_use]
    pub fn nodes_with_some(&self) -> usize {
        self.with_some.len()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.with_some.iter().map(|node| node.has).sum()
    }

    /// The most that one node has.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.with_some.iter().map(|node| node.has).max().unwrap_or(0)
    }

    /// How many are free now; `Err` says why nobody knows.
    pub fn free(&self) -> Result<u64, &str> {
        match &self.unknown {
            Some(why) => Err(why),
            None => Ok(self.with_some.iter().map(NodeGpus::free).sum()),
        }
    }

    /// How many pods that ask for so many each would find a node now.
    fn room_for(&self, each: u64) -> u64 {
        self.with_some.iter().filter_map(|node| node.free().checked_div(each)).sum()
    }

    /// Whether a node has as many as this request asks for, whoever holds them now; a warning where one could still be added.
    fn offered_to(&self, request: &Request) -> Result<Option<String>, StepError> {
        let (most, wanted) = (self.most(), u64::from(request.gpu_count));
        match most {
            0 => Err(StepError::permanent(format!("no node of the cluster has GPUs ({GPU}): set gpu_count to 0"))),
            _ if most < wanted => Ok(Some(format!(
                "no node has {wanted} GPUs, the most that one has is {most}: unless one is added, the pods will not be scheduled"
            ))),
            _ => Ok(None),
        }
    }

    fn warning(&self, request: &Request) -> Option<String> {
        let (each, nodes) = (u64::from(request.gpu_count), u64::from(request.replicas));
        if each == 0 || self.with_some.is_empty() {
            return None;
        }
        let free = match self.free() {
            Ok(free) => free,
            Err(why) => return Some(format!("whether enough GPUs are free now, nobody knows: {why}")),
        };
        let room = self.room_for(each);
        (room < nodes).then(|| {
            format!(
                "{free} of {} GPUs are free now, which is room for {room} of {nodes} nodes with {each} each: the others wait \
                 until some are, or until the rollout's time is over",
                self.all()
            )
        })
    }
}

impl Cluster {
    /// The GPUs of this cluster; what the pods of namespace `but` hold counts as free, where they are about to be replaced.
    ///
    /// # Errors
    /// [`StepError`], by the table of [`super::errors`], if the nodes cannot be listed.
    pub async fn gpus(&self, but: Option<&str>) -> Result<Gpus, StepError> {
        let mut gpus = self.gpus_of_nodes().await.map_err(|error| unlisted(&error))?;
        self.ask_for_held(&mut gpus, but).await;
        Ok(gpus)
    }

    /// Whether the cluster knows GPUs at all, if this request asks for some, and what there is to warn of. Whether enough are free
    /// just now is the scheduler's to say (C6).
    ///
    /// # Errors
    /// [`StepError`]: permanent if no node has any, else by the table of [`super::errors`].
    pub(crate) async fn gpus_for(&self, request: &Request) -> Result<Option<String>, StepError> {
        Ok(self.offer(request).await?.1)
    }

    /// The same, and where that warns of nothing, whether enough are free now.
    ///
    /// # Errors
    /// As [`Cluster::gpus_for`].
    pub(crate) async fn gpus_free_for(&self, request: &Request) -> Result<Option<String>, StepError> {
        match self.offer(request).await? {
            (Some(mut gpus), None) => {
                self.ask_for_held(&mut gpus, None).await;
                Ok(gpus.warning(request))
            }
            (_, warning) => Ok(warning),
        }
    }

    /// What the nodes have, if that is known and asked for at all; and what there is to warn of.
    async fn offer(&self, request: &Request) -> Result<(Option<Gpus>, Option<String>), StepError> {
        if request.gpu_count == 0 {
            return Ok((None, None));
        }
        match self.gpus_of_nodes().await {
            Ok(gpus) => {
                let warning = gpus.offered_to(request)?;
                Ok((Some(gpus), warning))
            }
            // Nodes belong to the operator: without the right to see them, the scheduler will tell.
            Err(kube::Error::Api(status)) if status.code == 403 => Ok((
                None,
                Some("the engine may not see the nodes, so nobody knows yet whether they have GPUs".to_owned()),
            )),
            Err(error) => Err(unlisted(&error)),
        }
    }

    /// What the nodes have; which of it pods hold is not asked.
    async fn gpus_of_nodes(&self) -> Result<Gpus, kube::Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        let nodes = api.list(&ListParams::default()).await?.items;
        let with_some = |node: &Node| {
            let has = gpus_of(node);
            (has > 0).then(|| NodeGpus {
                name: node.metadata.name.clone().unwrap_or_default(),
                has,
                held: 0,
                cordoned: node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true),
            })
        };
        Ok(Gpus { nodes: nodes.len(), with_some: nodes.iter().filter_map(with_some).collect(), unknown: None })
    }

    async fn ask_for_held(&self, gpus: &mut Gpus, but: Option<&str>) {
        // All pods of a large cluster are many: they are looked at only where it is about something.
        if !gpus.with_some.is_empty()
            && let Err(error) = self.count_held(&mut gpus.with_some, but).await
        {
            gpus.unknown = Some(error.failure.message);
        }
    }

    /// What to say to somebody who asks for GPUs of which too few are free now; `but` as in [`Cluster::gpus`].
    pub async fn too_few_gpus(&self, request: &Request, but: Option<&str>) -> Option<String> {
        if request.gpu_count == 0 {
            return None;
        }
        match self.gpus(but).await {
            Ok(gpus) => gpus.warning(request),
            Err(error) => Some(error.failure.message),
        }
    }

    async fn count_held(&self, nodes: &mut [NodeGpus], but: Option<&str>) -> Result<(), StepError> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let mut params = ListParams::default().fields(HOLDING).limit(LIST_MAX);
        let doing = "list the pods of all namespaces";
        // Each is a later part of one snapshot of the server, and the last one says so.
        for _ in 0..PAGES_MAX {
            let page = api.list(&params).await;
            let page = page.map_err(|error| step_error(Asked::Read, doing, &error))?;
            for pod in page.items.iter().filter(|pod| but.is_none() || pod.metadata.namespace.as_deref() != but) {
                let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                if let Some(node) = nodes.iter_mut().find(|node| Some(node.name.as_str()) == on) {
                    node.held = node.held.saturating_add(held_by(pod));
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(()),
            }
        }
        Err(endless(doing))
    }
}

fn unlisted(error: &kube::Error) -> StepError {
    step_error(Asked::Read, "list the nodes", error)
}

/// How many GPUs a node offers.
fn gpus_of(node: &Node) -> u64 {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let gpus = allocatable.and_then(|allocatable| allocatable.get(GPU));
    gpus.and_then(|amount| amount.0.parse::<Quantity>().ok()).map_or(0, |amount| amount.as_bytes())
}

/// How many GPUs a pod holds: its containers together, or the init container that takes more, since that runs before them.
fn held_by(pod: &Pod) -> u64 {
    let Some(spec) = &pod.spec else { return 0 };
    let of = |container: &Container| {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        let gpus = limits.and_then(|limits| limits.get(GPU));
        gpus.and_then(|amount| amount.0.parse::<Quantity>().ok()).map_or(0, |amount| amount.as_bytes())
    };
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    let together = spec.containers.iter().map(of).fold(0, u64::saturating_add);
    together.max(inits.iter().map(of).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kube::client::Body;
    use serde_json::json;
    use tower::{ServiceExt as _, service_fn};

    use super::*;
    use crate::sandbox::{Sandbox, SandboxOptions};

    fn node(name: &str, has: u64, held: u64, cordoned: bool) -> NodeGpus {
        NodeGpus { name: name.to_owned(), has, held, cordoned }
    }

    fn request(replicas: u32, gpus: u32) -> Request {
        let body =
            json!({ "user": "acme", "service_name": "search", "replicas": replicas, "gpu_count": gpus }).to_string();
        Request::parse(body.as_bytes()).expect("good")
    }

    /// It was compared with the most that one node has, whoever held them.
    #[test]
    fn gpus_are_free_node_by_node_and_not_in_sum() {
        let with_some = vec![node("a", 8, 6, false), node("b", 8, 5, false), node("c", 8, 0, true)];
        let gpus = Gpus { nodes: 4, with_some, unknown: None };
        assert_eq!((gpus.free(), gpus.most()), (Ok(5), 8));
        assert_eq!(gpus.warning(&request(2, 2)), None);
        let said = gpus.warning(&request(2, 3)).expect("too few");
        assert!(said.starts_with("5 of 24 GPUs are free now, which is room for 1 of 2 nodes with 3 each"), "{said}");
        assert_eq!(gpus.warning(&request(100, 0)), None);
    }

    /// All nodes of a large cluster are many: a plan listed them once for what they have, and again for what of it is free.
    #[tokio::test]
    async fn what_the_nodes_have_and_what_of_it_is_free_takes_one_list_of_the_nodes() {
        let sandbox = Sandbox::open(SandboxOptions::default()).expect("in memory");
        let listed = Arc::new(AtomicUsize::new(0));
        let (server, lists) = (sandbox.service(), Arc::clone(&listed));
        let counted = service_fn(move |request: http::Request<Body>| {
            lists.fetch_add(usize::from(request.uri().path() == "/api/v1/nodes"), Ordering::SeqCst);
            server.clone().oneshot(request)
        });
        let cluster = Cluster::new(kube::Client::new(counted, "default"));
        assert_eq!(cluster.gpus_free_for(&request(1, 1)).await.expect("there are some"), None);
        assert_eq!(listed.load(Ordering::SeqCst), 1);
        let warning = cluster.gpus_free_for(&request(1, 64)).await.expect("there are some");
        assert!(warning.is_some_and(|warning| warning.starts_with("no node has 64 GPUs")));
    }

    #[test]
    fn where_pods_may_not_be_seen_that_is_said_and_no_number_is_made_up() {
        let why = Some("cannot list the pods".to_owned());
        let gpus = Gpus { nodes: 1, with_some: vec![node("a", 8, 0, false)], unknown: why };
        assert_eq!(gpus.free(), Err("cannot list the pods"));
        assert!(gpus.warning(&request(1, 1)).is_some_and(|said| said.contains("nobody knows")));
    }

    #[test]
    fn a_pod_holds_what_its_containers_hold_together_or_what_an_init_container_takes() {
        let container =
            |gpus: u32| json!({ "name": "c", "resources": { "limits": { "nvidia.com/gpu": gpus.to_string() } } });
        let pod = |inits: &[u32], containers: &[u32]| -> Pod {
            let list = |counts: &[u32]| counts.iter().map(|count| container(*count)).collect::<Vec<_>>();
            let spec = json!({ "initContainers": list(inits), "containers": list(containers) });
            serde_json::from_value(json!({ "spec": spec })).expect("a pod")
        };
        assert_eq!(held_by(&pod(&[], &[1, 2])), 3);
        assert_eq!(held_by(&pod(&[4, 1], &[1, 2])), 4);
        assert_eq!(held_by(&pod(&[], &[])), 0);
    }
}
