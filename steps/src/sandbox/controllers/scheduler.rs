//! The scheduler: which node takes a pod, or in the scheduler's words why none does (C8).
//!
//! Looked at: readiness of claims, cordons, taints, node selectors, and what is left of every resource. Not looked at:
//! affinities, spreading, priorities; the manifests that are tried here only prefer.

use super::super::defaults::class_of;
use super::super::json::{entries, flag, items, set, text};
use super::super::kinds::Kind;
use super::super::quantities::milli;
use super::super::quota::pod_total;
use super::super::store::{Key, State};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The claim's annotation that tells its provisioner where the first pod is.
pub(super) const SELECTED_NODE: &str = "/metadata/annotations/volume.kubernetes.io~1selected-node";

/// What is taken on each node, kept as pods come and go.
#[derive(Debug, Default)]
pub(in super::super) struct Usage {
    nodes: HashMap<String, BTreeMap<String, i128>>,
}

impl Usage {
    pub(in super::super) fn pod_changed(&mut self, before: Option<&Value>, after: Option<&Value>) {
        for (pod, sign) in [(before, -1), (after, 1)] {
            let Some(pod) = pod.filter(|pod| takes_room(pod)) else { continue };
            let node = self.nodes.entry(text(pod, "/spec/nodeName").to_owned()).or_default();
            for (resource, amount) in requests(pod) {
                *node.entry(resource).or_default() += sign * amount;
            }
        }
    }

    fn used(&self, node: &str, resource: &str) -> i128 {
        self.nodes.get(node).and_then(|node| node.get(resource)).copied().unwrap_or_default()
    }
}

fn takes_room(pod: &Value) -> bool {
    !text(pod, "/spec/nodeName").is_empty() && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

fn requests(pod: &Value) -> Vec<(String, i128)> {
    let mut names: BTreeSet<&String> = BTreeSet::new();
    for container in items(pod, "/spec/containers").iter().chain(items(pod, "/spec/initContainers")) {
        names.extend(entries(container, "/resources/requests").map(|(name, _)| name));
    }
    let total = |name: &String| pod_total(pod, &format!("/resources/requests/{}", name.replace('/', "~1")));
    let mut requests: Vec<(String, i128)> = names.into_iter().map(|name| (name.clone(), total(name))).collect();
    requests.push(("pods".to_owned(), 1000));
    requests
}

/// The node for this pod.
///
/// # Errors
/// Why there is none, as the scheduler words it.
pub(super) fn place(state: &State, pod: &Value) -> Result<String, String> {
    let namespace = text(pod, "/metadata/namespace");
    for claim in claim_names(pod) {
        let found = state.get(&Key::new(Kind::PersistentVolumeClaim, namespace, &claim));
        let Some(found) = found else {
            return Err(no_node(state, &format!("persistentvolumeclaim \"{claim}\" not found")));
        };
        let waits = class_of(state, found).is_some_and(|(_, waits)| waits);
        if text(found, "/status/phase") != "Bound" && !waits {
            return Err(no_node(state, "pod has unbound immediate PersistentVolumeClaims"));
        }
    }
    let wanted = requests(pod);
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(i128, String)> = None;
    for (key, node) in state.list(Kind::Node, None) {
        let against = objections(state, pod, &key.name, node, &wanted);
        if against.is_empty() {
            let pods = state.usage.used(&key.name, "pods");
            if best.as_ref().is_none_or(|(fewest, _)| pods < *fewest) {
                best = Some((pods, key.name.clone()));
            }
        }
        for reason in against {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    if let Some((_, node)) = best {
        return Ok(node);
    }
    let count = nodes(state);
    let reasons: Vec<String> = reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    Err(format!(
        "0/{count} nodes are available: {}. preemption: 0/{count} nodes are available: {count} No preemption victims found for incoming pod.",
        reasons.join(", ")
    ))
}

/// Tells the claims that wait for their first pod where it will be.
pub(super) fn choose_node_for_claims(state: &mut State, pod: &Value, node: &str) {
    for claim in claim_names(pod) {
        let key = Key::new(Kind::PersistentVolumeClaim, text(pod, "/metadata/namespace"), &claim);
        let Some(found) = state.get(&key).cloned() else { continue };
        if text(&found, "/status/phase") != "Bound" && found.pointer(SELECTED_NODE).is_none() {
            let mut found = (*found).clone();
            set(&mut found, SELECTED_NODE, node);
            state.put(Kind::PersistentVolumeClaim, found);
        }
    }
}

pub(super) fn claim_names(pod: &Value) -> Vec<String> {
    let volumes = items(pod, "/spec/volumes").iter();
    let names = volumes.map(|volume| text(volume, "/persistentVolumeClaim/claimName").to_owned());
    names.filter(|name| !name.is_empty()).collect()
}

fn no_node(state: &State, why: &str) -> String {
    let count = nodes(state);
    format!(
        "0/{count} nodes are available: {why}. preemption: 0/{count} nodes are available: {count} Preemption is not helpful for scheduling."
    )
}

fn nodes(state: &State) -> usize {
    state.list(Kind::Node, None).count()
}

fn objections(state: &State, pod: &Value, name: &str, node: &Value, wanted: &[(String, i128)]) -> Vec<String> {
    if flag(node, "/spec/unschedulable") {
        return vec!["node(s) were unschedulable".to_owned()];
    }
    for taint in items(node, "/spec/taints") {
        let blocks = matches!(text(taint, "/effect"), "NoSchedule" | "NoExecute");
        if blocks && !items(pod, "/spec/tolerations").iter().any(|toleration| tolerates(toleration, taint)) {
            return vec![format!(
                "node(s) had untolerated taint {{{}: {}}}",
                text(taint, "/key"),
                text(taint, "/value")
            )];
        }
    }
    let labels = &node["metadata"]["labels"];
    if !entries(pod, "/spec/nodeSelector").all(|(label, value)| labels.get(label) == Some(value)) {
        return vec!["node(s) didn't match Pod's node affinity/selector".to_owned()];
    }
    let lacks = |(resource, amount): &&(String, i128)| {
        let allocatable = milli(node.pointer(&format!("/status/allocatable/{}", resource.replace('/', "~1"))));
        *amount > 0 && state.usage.used(name, resource) + amount > allocatable
    };
    let reason = |resource: &str| {
        if resource == "pods" { "Too many pods".to_owned() } else { format!("Insufficient {resource}") }
    };
    wanted.iter().filter(lacks).map(|(resource, _)| reason(resource)).collect()
}

fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let effect = text(toleration, "/effect");
    let key = text(toleration, "/key");
    let exists = text(toleration, "/operator") == "Exists";
    (effect.is_empty() || effect == text(taint, "/effect"))
        && (key == text(taint, "/key") || key.is_empty() && exists)
        && (exists || text(toleration, "/value") == text(taint, "/value"))
}
