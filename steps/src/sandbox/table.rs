//! Tables: what `kubectl get` shows (READY, STATUS, AGE…), rendered by the server as it asks for them.

use super::json::{condition, entries, items, number, text};
use super::kinds::Kind;
use super::request::ApiRequest;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Its head, whether it is shown only with `-o wide`, and what stands in it.
type Column = (&'static str, bool, fn(&Value) -> Value);

/// The columns besides NAME and AGE.
fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Namespace => &[("Status", false, |object| field(object, "/status/phase"))],
        Kind::Node => &[
            ("Status", false, node_status),
            ("Roles", false, |_| json!("<none>")),
            ("Version", false, |node| field(node, "/status/nodeInfo/kubeletVersion")),
            ("Internal-IP", true, |node| field(node, "/status/addresses/0/address")),
        ],
        Kind::PersistentVolume => &[
            ("Capacity", false, |volume| field(volume, "/spec/capacity/storage")),
            ("Access Modes", false, |volume| access_modes(volume, "/spec/accessModes")),
            ("Reclaim Policy", false, |volume| field(volume, "/spec/persistentVolumeReclaimPolicy")),
            ("Status", false, |volume| field(volume, "/status/phase")),
            ("Claim", false, |volume| {
                json!(format!("{}/{}", text(volume, "/spec/claimRef/namespace"), text(volume, "/spec/claimRef/name")))
            }),
            ("StorageClass", false, |volume| field(volume, "/spec/storageClassName")),
        ],
        Kind::Endpoints => {
            &[("Endpoints", false, |endpoints| told_addresses(endpoints, "/subsets/0/addresses", "/ip"))]
        }
        Kind::EndpointSlice => &[
            ("AddressType", false, |slice| field(slice, "/addressType")),
            ("Endpoints", false, |slice| told_addresses(slice, "/endpoints", "/addresses/0")),
        ],
        Kind::StorageClass => &[
            ("Provisioner", false, |class| field(class, "/provisioner")),
            ("ReclaimPolicy", false, |class| field(class, "/reclaimPolicy")),
            ("VolumeBindingMode", false, |class| field(class, "/volumeBindingMode")),
            ("AllowVolumeExpansion", false, |class| json!(super::json::flag(class, "/allowVolumeExpansion"))),
        ],
        Kind::ConfigMap => &[("Data", false, data_count)],
        Kind::ControllerRevision => &[("Revision", false, |revision| json!(number(revision, "/revision")))],
        Kind::Secret => &[("Type", false, |secret| field(secret, "/type")), ("Data", false, data_count)],
        Kind::Event => &[
            ("Type", false, |event| field(event, "/type")),
            ("Reason", false, |event| field(event, "/reason")),
            ("Object", false, |event| {
                json!(format!(
                    "{}/{}",
                    text(event, "/involvedObject/kind").to_lowercase(),
                    text(event, "/involvedObject/name")
                ))
            }),
            ("Message", false, |event| field(event, "/message")),
        ],
        Kind::PersistentVolumeClaim => {
            &[
                ("Status", false, |claim| {
                    if terminating(claim) { json!("Terminating") } else { field(claim, "/status/phase") }
                }),
                ("Volume", false, |claim| field(claim, "/spec/volumeName")),
                ("Capacity", false, |claim| field(claim, "/status/capacity/storage")),
                ("Access Modes", false, |claim| access_modes(claim, "/status/accessModes")),
                ("StorageClass", false, |claim| field(claim, "/spec/storageClassName")),
                ("VolumeMode", true, |claim| field(claim, "/spec/volumeMode")),
            ]
        }
        Kind::Pod => &[
            ("Ready", false, pod_ready),
            ("Status", false, pod_status),
            ("Restarts", false, pod_restarts),
            ("IP", true, |pod| field(pod, "/status/podIP")),
            ("Node", true, |pod| field(pod, "/spec/nodeName")),
        ],
        Kind::ResourceQuota => &[("Used", false, quota_used)],
        Kind::Service => &[
            ("Type", false, |service| field(service, "/spec/type")),
            ("Cluster-IP", false, |service| field(service, "/spec/clusterIP")),
            ("External-IP", false, |_| json!("<none>")),
            ("Port(s)", false, service_ports),
            ("Selector", true, |service| pairs(service, "/spec/selector")),
        ],
        Kind::ServiceAccount => &[("Secrets", false, |account| json!(items(account, "/secrets").len()))],
        Kind::Deployment => &[
            ("Ready", false, ready_of_wanted),
            ("Up-to-date", false, |object| json!(number(object, "/status/updatedReplicas"))),
            ("Available", false, |object| json!(number(object, "/status/availableReplicas"))),
            ("Containers", true, containers),
            ("Images", true, images),
            ("Selector", true, |object| pairs(object, "/spec/selector/matchLabels")),
        ],
        Kind::ReplicaSet => &[
            ("Desired", false, |object| json!(number(object, "/spec/replicas"))),
            ("Current", false, |object| json!(number(object, "/status/replicas"))),
            ("Ready", false, |object| json!(number(object, "/status/readyReplicas"))),
            ("Containers", true, containers),
            ("Images", true, images),
        ],
        Kind::StatefulSet => {
            &[("Ready", false, ready_of_wanted), ("Containers", true, containers), ("Images", true, images)]
        }
        Kind::PodDisruptionBudget => &[
            ("Min Available", false, |budget| bound(budget, "/spec/minAvailable")),
            ("Max Unavailable", false, |budget| bound(budget, "/spec/maxUnavailable")),
            ("Allowed Disruptions", false, |budget| json!(number(budget, "/status/disruptionsAllowed"))),
        ],
    }
}

/// The objects as a table. The objects themselves go along as the client asks: their metadata, all of them, or nothing.
fn told_addresses(object: &Value, list: &str, address: &str) -> Value {
    let told: Vec<&str> = items(object, list).iter().map(|item| text(item, address)).collect();
    if told.is_empty() { json!("<none>") } else { json!(told.join(",")) }
}

pub(super) fn render<'a>(
    kind: Kind,
    objects: impl Iterator<Item = &'a Value>,
    version: &str,
    now: Timestamp,
    request: &ApiRequest,
) -> Value {
    let told = |name: &str, format: &str, is_wide: bool| json!({"name": name, "type": "string", "format": format, "description": name, "priority": i32::from(is_wide)});
    let (always, wide): (Vec<&Column>, Vec<&Column>) = columns(kind).iter().partition(|(_, is_wide, _)| !is_wide);
    // Events begin with their age and are not shown by name, all else ends with it; wide columns come after.
    let is_event = kind == Kind::Event;
    let (first, last) = if is_event { ("Last Seen", "Name") } else { ("Name", "Age") };
    let mut columns_told = vec![told(first, if is_event { "" } else { "name" }, false)];
    columns_told.extend(always.iter().map(|(name, _, _)| told(name, "", false)));
    columns_told.push(told(last, if is_event { "name" } else { "" }, is_event));
    columns_told.extend(wide.iter().map(|(name, _, _)| told(name, "", true)));
    let rows: Vec<Value> = objects
        .map(|object| {
            let name = field(object, "/metadata/name");
            let age = |pointer| json!(age(object, pointer, now));
            let mut cells = Vec::new();
            cells.push(if is_event { age("/lastTimestamp") } else { name.clone() });
            cells.extend(always.iter().map(|(_, _, cell)| cell(object)));
            cells.push(if is_event { name } else { age("/metadata/creationTimestamp") });
            cells.extend(wide.iter().map(|(_, _, cell)| cell(object)));
            let mut row = json!({"cells": cells});
            match request.option("includeObject") {
                "None" => {}
                "Object" => row["object"] = object.clone(),
                _ => {
                    row["object"] = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]});
                }
            }
            row
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": version},
        "columnDefinitions": columns_told, "rows": rows,
    })
}

fn field(object: &Value, pointer: &str) -> Value {
    json!(text(object, pointer))
}

fn terminating(object: &Value) -> bool {
    super::json::has(object, "/metadata/deletionTimestamp")
}

/// The time since then, as kubectl writes it: two units at most.
fn age(object: &Value, pointer: &str, now: Timestamp) -> String {
    let Ok(then) = text(object, pointer).parse::<Timestamp>() else { return "<unknown>".to_owned() };
    let seconds = now.duration_since(then).as_secs().max(0);
    match (seconds / 86400, seconds / 3600, seconds / 60) {
        (0, 0, 0..=1) => format!("{seconds}s"),
        (0, 0, minutes @ 2..=9) => format!("{minutes}m{}s", seconds % 60),
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours @ 1..=7, minutes) => format!("{hours}h{}m", minutes % 60),
        (0, hours, _) => format!("{hours}h"),
        (days, _, _) => format!("{days}d"),
    }
}

fn ready_of_wanted(object: &Value) -> Value {
    json!(format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas")))
}

fn pod_ready(pod: &Value) -> Value {
    let statuses = items(pod, "/status/containerStatuses");
    let ready = statuses.iter().filter(|status| super::json::flag(status, "/ready")).count();
    json!(format!("{ready}/{}", items(pod, "/spec/containers").len()))
}

fn pod_status(pod: &Value) -> Value {
    if terminating(pod) {
        return json!("Terminating");
    }
    let waiting = items(pod, "/status/containerStatuses").iter().map(|status| text(status, "/state/waiting/reason"));
    let reason = waiting.into_iter().find(|reason| !reason.is_empty());
    json!(reason.unwrap_or_else(|| text(pod, "/status/phase")))
}

fn pod_restarts(pod: &Value) -> Value {
    let restarts: i64 =
        items(pod, "/status/containerStatuses").iter().map(|status| number(status, "/restartCount")).sum();
    json!(restarts.to_string())
}

fn node_status(node: &Value) -> Value {
    let ready = condition(node, "Ready").is_some_and(|ready| ready["status"] == "True");
    let status = if ready { "Ready" } else { "NotReady" };
    json!(if super::json::flag(node, "/spec/unschedulable") {
        format!("{status},SchedulingDisabled")
    } else {
        status.to_owned()
    })
}

fn service_ports(service: &Value) -> Value {
    let ports: Vec<String> = items(service, "/spec/ports")
        .iter()
        .map(|port| format!("{}/{}", number(port, "/port"), text(port, "/protocol")))
        .collect();
    json!(if ports.is_empty() { "<none>".to_owned() } else { ports.join(",") })
}

fn access_modes(object: &Value, pointer: &str) -> Value {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        _ => "RWOP",
    };
    let modes: Vec<&str> = items(object, pointer).iter().map(short).collect();
    json!(modes.join(","))
}

fn data_count(object: &Value) -> Value {
    json!(entries(object, "/data").count())
}

fn quota_used(quota: &Value) -> Value {
    let used: Vec<String> = entries(quota, "/status/hard")
        .map(|(name, hard)| {
            let used = quota["status"]["used"][name].as_str().unwrap_or("0");
            format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
        })
        .collect();
    json!(used.join(", "))
}

fn bound(budget: &Value, pointer: &str) -> Value {
    match budget.pointer(pointer) {
        Some(Value::String(share)) => json!(share),
        Some(value) => json!(value.to_string()),
        None => json!("N/A"),
    }
}

fn pairs(object: &Value, pointer: &str) -> Value {
    let pairs: Vec<String> = entries(object, pointer)
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    json!(if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") })
}

fn containers(object: &Value) -> Value {
    let names: Vec<&str> =
        items(object, "/spec/template/spec/containers").iter().map(|found| text(found, "/name")).collect();
    json!(names.join(","))
}

fn images(object: &Value) -> Value {
    let names: Vec<&str> =
        items(object, "/spec/template/spec/containers").iter().map(|found| text(found, "/image")).collect();
    json!(names.join(","))
}
