//! The addresses behind a Service, twice as on a real cluster: an EndpointSlice that the Service owns, and the Endpoints of old
//! that nobody owns. Nothing listens there: they are for whoever has to tell them from what people have made.

use super::super::json::{entries, items, text};
use super::super::kinds::Kind;
use super::super::store::{Key, State, owner_reference};
use super::{is_ready, is_terminating, make};
use serde_json::{Value, json};
use std::sync::Arc;

const SERVICE: &str = "kubernetes.io/service-name";
const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");

pub(super) fn reconcile(state: &mut State, key: &Key, service: &Arc<Value>) {
    if is_terminating(service) || entries(service, "/spec/selector").next().is_none() {
        return;
    }
    let (ready, others) = addresses(state, key, service);
    write_slice(state, key, service, &ready, &others);
    write_endpoints(state, key, service, &ready, &others);
}

/// The pods that the Service selects and that have an address, those that are ready apart.
fn addresses(state: &State, key: &Key, service: &Value) -> (Vec<Arc<Value>>, Vec<Arc<Value>>) {
    let selected = |pod: &Value| {
        let labels = &pod["metadata"]["labels"];
        entries(service, "/spec/selector").all(|(name, value)| labels.get(name) == Some(value))
    };
    let pods = state.list(Kind::Pod, Some(&key.namespace)).map(|(_, pod)| pod.clone());
    let pods = pods.filter(|pod| selected(pod) && !text(pod, "/status/podIP").is_empty() && !is_terminating(pod));
    pods.partition(|pod| is_ready(pod))
}

fn target(pod: &Value) -> Value {
    json!({"kind": "Pod", "namespace": pod["metadata"]["namespace"], "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]})
}

fn ports(service: &Value) -> Vec<Value> {
    let ports = items(service, "/spec/ports").iter();
    ports.map(|port| json!({"name": text(port, "/name"), "port": port["port"], "protocol": port["protocol"]})).collect()
}

fn write_slice(state: &mut State, key: &Key, service: &Value, ready: &[Arc<Value>], others: &[Arc<Value>]) {
    let endpoint = |pod: &Arc<Value>, ready: bool| {
        json!({"addresses": [pod["status"]["podIP"]], "nodeName": pod["spec"]["nodeName"], "targetRef": target(pod),
            "conditions": {"ready": ready, "serving": ready, "terminating": false}})
    };
    let mut endpoints: Vec<Value> = ready.iter().map(|pod| endpoint(pod, true)).collect();
    endpoints.extend(others.iter().map(|pod| endpoint(pod, false)));
    let mut labels = service["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    labels.insert(SERVICE.to_owned(), json!(key.name));
    labels.insert("endpointslice.kubernetes.io/managed-by".to_owned(), json!("endpointslice-controller.k8s.io"));
    let slices = state.owned(text(service, "/metadata/uid"), Kind::EndpointSlice);
    let (ports, labels) = (json!(ports(service)), Value::Object(labels));
    if let Some(slice) = slices.first() {
        let mut slice = (**slice).clone();
        slice["endpoints"] = json!(endpoints);
        slice["ports"] = ports;
        slice["metadata"]["labels"] = labels;
        state.put(Kind::EndpointSlice, slice);
        return;
    }
    let slice = json!({
        "metadata": {"name": format!("{}-{}", key.name, super::super::names::random_suffix()), "namespace": key.namespace,
            "labels": labels, "ownerReferences": [owner_reference(Kind::Service, service)]},
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
    });
    // Refused only in a namespace that goes.
    let _ = make(state, Kind::EndpointSlice, slice);
}

fn write_endpoints(state: &mut State, key: &Key, service: &Value, ready: &[Arc<Value>], others: &[Arc<Value>]) {
    let of = |pods: &[Arc<Value>]| -> Vec<Value> {
        let address = |pod: &Arc<Value>| json!({"ip": pod["status"]["podIP"], "nodeName": pod["spec"]["nodeName"], "targetRef": target(pod)});
        pods.iter().map(address).collect()
    };
    let mut subset = json!({"ports": ports(service)});
    for (list, pods) in [("addresses", ready), ("notReadyAddresses", others)] {
        if !pods.is_empty() {
            subset[list] = json!(of(pods));
        }
    }
    let subsets = if ready.is_empty() && others.is_empty() { json!([]) } else { json!([subset]) };
    let found = state.get(&Key::new(Kind::Endpoints, &key.namespace, &key.name)).cloned();
    if let Some(found) = found {
        let mut endpoints = (*found).clone();
        endpoints["subsets"] = subsets;
        state.put(Kind::Endpoints, endpoints);
        return;
    }
    let mut labels = service["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    labels.insert(MANAGED_BY.0.to_owned(), json!(MANAGED_BY.1));
    let endpoints =
        json!({"metadata": {"name": key.name, "namespace": key.namespace, "labels": labels}, "subsets": subsets});
    // As above.
    let _ = make(state, Kind::Endpoints, endpoints);
}

/// Endpoints that were made here go with the Service of their name, though it does not own them.
pub(super) fn forget(state: &mut State, key: &Key, endpoints: &Value) {
    let ours = endpoints["metadata"]["labels"][MANAGED_BY.0] == MANAGED_BY.1;
    if ours && state.get(&Key::new(Kind::Service, &key.namespace, &key.name)).is_none() {
        state.remove(key);
    }
}
