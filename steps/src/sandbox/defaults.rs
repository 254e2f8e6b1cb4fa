//! What the API server fills in before it keeps an object, and the canonical form of quantities.
//!
//! Only defaults that a client can notice: those that `kubectl` shows, that a rollout depends on (C1), or that
//! make an atomic list differ from what was applied (C15). Doing it twice changes nothing.

use super::json::{flag, has, set, set_default, text};
use super::kinds::Kind;
use super::quantities::Quantity;
use super::store::State;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

pub(super) const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Fills in what does not depend on other objects.
pub(super) fn fill(kind: Kind, object: &mut Value) {
    match kind {
        Kind::Namespace => namespace(object),
        Kind::Pod => {
            pod(object);
            request_limits(object);
            set_default(object, "/status/phase", "Pending");
        }
        Kind::PersistentVolumeClaim => claim(object),
        Kind::Service => service(object),
        Kind::StatefulSet => stateful_set(object),
        Kind::Deployment => deployment(object),
        Kind::ReplicaSet => {
            set_default(object, "/spec/replicas", 1);
            template(object);
        }
        Kind::Secret => secret(object),
        Kind::PersistentVolume => {
            set_default(object, "/spec/persistentVolumeReclaimPolicy", "Retain");
            set_default(object, "/spec/volumeMode", "Filesystem");
            set_default(object, "/status/phase", "Pending");
            canonical_map(object.pointer_mut("/spec/capacity"));
        }
        Kind::ResourceQuota => canonical_map(object.pointer_mut("/spec/hard")),
        Kind::StorageClass => {
            set_default(object, "/reclaimPolicy", "Delete");
            set_default(object, "/volumeBindingMode", "Immediate");
        }
        Kind::Event => {
            set_default(object, "/type", "Normal");
            set_default(object, "/count", 1);
        }
        _ => {}
    }
}

/// What a new object gets from the objects around it.
pub(super) fn fill_from_cluster(kind: Kind, object: &mut Value, state: &mut State) {
    match kind {
        Kind::PersistentVolumeClaim => {
            if !has(object, "/spec/storageClassName")
                && let Some(class) = default_class(state)
            {
                set(object, "/spec/storageClassName", class);
            }
            add_finalizer(object, "kubernetes.io/pvc-protection");
        }
        Kind::PersistentVolume => add_finalizer(object, "kubernetes.io/pv-protection"),
        Kind::Service => service_address(object, state),
        Kind::Pod => {
            set_default(object, "/spec/serviceAccountName", "default");
            set_default(object, "/spec/serviceAccount", "default");
        }
        _ => {}
    }
}

pub(super) fn add_finalizer(object: &mut Value, finalizer: &str) {
    let list = super::json::place(object, "/metadata/finalizers");
    match list.as_array_mut() {
        Some(list) if list.iter().any(|found| found == finalizer) => {}
        Some(list) => list.push(json!(finalizer)),
        None => *list = json!([finalizer]),
    }
}

fn default_class(state: &State) -> Option<String> {
    let is_default = |class: &Value| class["metadata"]["annotations"][DEFAULT_CLASS] == "true";
    let found = state.list(Kind::StorageClass, None).find(|(_, class)| is_default(class));
    found.map(|(key, _)| key.name.clone())
}

fn namespace(object: &mut Value) {
    let name = text(object, "/metadata/name").to_owned();
    set(object, "/metadata/labels/kubernetes.io~1metadata.name", name);
    set_default(object, "/spec/finalizers", json!(["kubernetes"]));
    set_default(object, "/status/phase", "Active");
}

fn stateful_set(object: &mut Value) {
    set_default(object, "/spec/podManagementPolicy", "OrderedReady");
    set_default(object, "/spec/updateStrategy/type", "RollingUpdate");
    if text(object, "/spec/updateStrategy/type") == "RollingUpdate" {
        set_default(object, "/spec/updateStrategy/rollingUpdate/partition", 0);
    }
    set_default(object, "/spec/revisionHistoryLimit", 10);
    set_default(object, "/spec/replicas", 1);
    set_default(object, "/spec/persistentVolumeClaimRetentionPolicy/whenDeleted", "Retain");
    set_default(object, "/spec/persistentVolumeClaimRetentionPolicy/whenScaled", "Retain");
    template(object);
    if let Some(templates) = object.pointer_mut("/spec/volumeClaimTemplates").and_then(Value::as_array_mut) {
        for claim_template in templates {
            set(claim_template, "/apiVersion", "v1");
            set(claim_template, "/kind", "PersistentVolumeClaim");
            claim(claim_template);
        }
    }
}

fn deployment(object: &mut Value) {
    set_default(object, "/spec/replicas", 1);
    set_default(object, "/spec/revisionHistoryLimit", 10);
    set_default(object, "/spec/progressDeadlineSeconds", 600);
    set_default(object, "/spec/strategy/type", "RollingUpdate");
    if text(object, "/spec/strategy/type") == "RollingUpdate" {
        set_default(object, "/spec/strategy/rollingUpdate/maxSurge", "25%");
        set_default(object, "/spec/strategy/rollingUpdate/maxUnavailable", "25%");
    }
    template(object);
}

fn claim(object: &mut Value) {
    set_default(object, "/spec/volumeMode", "Filesystem");
    set_default(object, "/status/phase", "Pending");
    canonical_map(object.pointer_mut("/spec/resources/requests"));
    canonical_map(object.pointer_mut("/spec/resources/limits"));
}

/// `stringData` is for writing only: it is kept encoded, under `data`.
fn secret(object: &mut Value) {
    set_default(object, "/type", "Opaque");
    let Some(Value::Object(plain)) = super::json::unset(object, "/stringData") else { return };
    for (name, value) in plain {
        let bytes = ByteString(value.as_str().unwrap_or_default().as_bytes().to_vec());
        let pointer = format!("/data/{}", name.replace('~', "~0").replace('/', "~1"));
        set(object, &pointer, json!(bytes));
    }
}

fn service(object: &mut Value) {
    set_default(object, "/spec/type", "ClusterIP");
    set_default(object, "/spec/sessionAffinity", "None");
    set_default(object, "/spec/internalTrafficPolicy", "Cluster");
    set_default(object, "/status/loadBalancer", json!({}));
    if let Some(ports) = object.pointer_mut("/spec/ports").and_then(Value::as_array_mut) {
        for port in ports {
            set_default(port, "/protocol", "TCP");
            let number = port["port"].clone();
            set_default(port, "/targetPort", number);
        }
    }
}

fn service_address(object: &mut Value, state: &mut State) {
    if text(object, "/spec/type") == "ExternalName" {
        return;
    }
    if text(object, "/spec/clusterIP").is_empty() {
        state.addresses_given += 1;
        let [_, _, high, low] = state.addresses_given.to_be_bytes();
        set(object, "/spec/clusterIP", format!("10.96.{high}.{low}"));
    }
    let address = text(object, "/spec/clusterIP").to_owned();
    set_default(object, "/spec/clusterIPs", json!([address]));
    set_default(object, "/spec/ipFamilies", json!(["IPv4"]));
    set_default(object, "/spec/ipFamilyPolicy", "SingleStack");
}

fn template(object: &mut Value) {
    if let Some(template) = object.pointer_mut("/spec/template") {
        pod(template);
    }
}

/// Of a pod, and of a template of one: both have their `spec` at the same place.
fn pod(object: &mut Value) {
    if !has(object, "/spec") {
        return;
    }
    set_default(object, "/spec/restartPolicy", "Always");
    set_default(object, "/spec/dnsPolicy", "ClusterFirst");
    set_default(object, "/spec/schedulerName", "default-scheduler");
    set_default(object, "/spec/securityContext", json!({}));
    set_default(object, "/spec/terminationGracePeriodSeconds", 30);
    for list in ["/spec/initContainers", "/spec/containers"] {
        for container in object.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            fill_container(container);
        }
    }
    for volume in object.pointer_mut("/spec/volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        for source in ["/configMap", "/secret", "/projected", "/downwardAPI"] {
            if has(volume, source) {
                set_default(volume, &format!("{source}/defaultMode"), 420);
            }
        }
        if volume.as_object().is_some_and(|fields| fields.len() == 1) {
            set(volume, "/emptyDir", json!({}));
        }
    }
}

fn fill_container(container: &mut Value) {
    set_default(container, "/terminationMessagePath", "/dev/termination-log");
    set_default(container, "/terminationMessagePolicy", "File");
    set_default(container, "/resources", json!({}));
    let image = text(container, "/image");
    let tag = image.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    let always = !image.contains('@') && matches!(tag, None | Some("latest"));
    set_default(container, "/imagePullPolicy", if always { "Always" } else { "IfNotPresent" });
    for port in container.pointer_mut("/ports").and_then(Value::as_array_mut).into_iter().flatten() {
        set_default(port, "/protocol", "TCP");
    }
    for variable in container.pointer_mut("/env").and_then(Value::as_array_mut).into_iter().flatten() {
        if has(variable, "/valueFrom/fieldRef") {
            set_default(variable, "/valueFrom/fieldRef/apiVersion", "v1");
        }
    }
    for probe in ["/readinessProbe", "/livenessProbe", "/startupProbe"] {
        if !has(container, probe) {
            continue;
        }
        for (field, value) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            set_default(container, &format!("{probe}/{field}"), value);
        }
        if has(container, &format!("{probe}/httpGet")) {
            set_default(container, &format!("{probe}/httpGet/scheme"), "HTTP");
            set_default(container, &format!("{probe}/httpGet/path"), "/");
        }
    }
    canonical_map(container.pointer_mut("/resources/limits"));
    canonical_map(container.pointer_mut("/resources/requests"));
}

/// Only of pods themselves, not of templates: so a limit that is taken out of a template leaves nothing behind there.
fn request_limits(pod: &mut Value) {
    for list in ["/spec/initContainers", "/spec/containers"] {
        for container in pod.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let limits = container.pointer("/resources/limits").and_then(Value::as_object).cloned().unwrap_or_default();
            for (resource, limit) in limits {
                set_default(container, &format!("/resources/requests/{}", resource.replace('/', "~1")), limit);
            }
        }
    }
}

/// Quantities are kept in their canonical form: who compares text will notice here as on a real server.
fn canonical_map(map: Option<&mut Value>) {
    for value in map.and_then(Value::as_object_mut).into_iter().flat_map(|map| map.values_mut()) {
        if let Some(quantity) = value.as_str().and_then(Quantity::parse) {
            *value = json!(quantity.canonical());
        }
    }
}

/// Whether claims of that class can grow, and whether they wait for a pod before they are bound.
pub(super) fn class_of(state: &State, claim: &Value) -> Option<(bool, bool)> {
    let name = text(claim, "/spec/storageClassName");
    let class = state.get(&super::store::Key::new(Kind::StorageClass, "", name))?;
    Some((flag(class, "/allowVolumeExpansion"), text(class, "/volumeBindingMode") == "WaitForFirstConsumer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling_twice_is_filling_once() {
        let mut object = json!({"metadata": {"name": "a"}, "spec": {"template": {"spec": {
            "containers": [{"name": "c", "image": "r/x:1", "resources": {"limits": {"cpu": "0.5"}},
                "readinessProbe": {"httpGet": {"port": 1}}}],
            "volumes": [{"name": "v"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {"resources": {"requests": {"storage": "10240Mi"}}}}]}});
        fill(Kind::StatefulSet, &mut object);
        let once = object.clone();
        fill(Kind::StatefulSet, &mut object);
        assert_eq!(object, once);
        assert_eq!(
            object["spec"]["template"]["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "500m"}})
        );
        assert_eq!(object["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"], "10Gi");
        assert_eq!(
            object["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
        );
    }
}
