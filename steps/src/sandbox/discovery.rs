//! Documents about the server: its version, its groups and resources, and as much of OpenAPI as `kubectl apply` asks for.
//!
//! Aggregated discovery and protobuf are not spoken: clients fall back to the plain lists when they get those. OpenAPI v2
//! is absent; of v3 there is what tells a client that the server validates fields.

use super::kinds::{Info, Kind};
use super::status::Refusal;
use serde_json::{Value, json};

/// The version that the sandbox behaves like (C15 was seen on 1.36; the types are 1.33's).
pub(super) const VERSION: &str = "v1.33.0";
const GROUPS: [&str; 5] = ["apps", "authorization.k8s.io", "discovery.k8s.io", "policy", "storage.k8s.io"];

/// The document at that path.
///
/// # Errors
/// 404 for a path without one.
pub(super) fn document(path: &str) -> Result<Value, Refusal> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [] => Ok(
            json!({"paths": ["/api", "/api/v1", "/apis", "/openapi/v3", "/version", "/sandbox/accesses", "/sandbox/effects", "/sandbox/faults"]}),
        ),
        ["version"] => Ok(json!({
            "major": "1", "minor": "33", "gitVersion": VERSION, "gitCommit": "sandbox", "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
        })),
        ["healthz" | "livez" | "readyz"] => Ok(json!("ok")),
        ["api"] => Ok(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["apis"] => {
            let groups: Vec<Value> = GROUPS.into_iter().map(group).collect();
            Ok(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] if GROUPS.contains(name) => Ok(group(name)),
        ["api", "v1"] => Ok(resources("")),
        ["apis", name, "v1"] if GROUPS.contains(name) => Ok(resources(name)),
        ["openapi", "v3"] => {
            let mut paths = json!({"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1"}});
            for name in GROUPS {
                paths[format!("apis/{name}/v1")] = json!({"serverRelativeURL": format!("/openapi/v3/apis/{name}/v1")});
            }
            Ok(json!({"paths": paths}))
        }
        ["openapi", "v3", "api", "v1"] => Ok(openapi("")),
        ["openapi", "v3", "apis", name, "v1"] if GROUPS.contains(name) => Ok(openapi(name)),
        _ => Err(Refusal::no_such_path()),
    }
}

fn group(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": [version], "preferredVersion": version})
}

fn resources(group: &str) -> Value {
    let version = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
    let mut list = Vec::new();
    if group == "authorization.k8s.io" {
        list.push(
            json!({"name": "selfsubjectaccessreviews", "singularName": "selfsubjectaccessreview", "namespaced": false,
            "kind": "SelfSubjectAccessReview", "verbs": ["create"]}),
        );
    }
    for info in of_group(group) {
        let mut resource = json!({
            "name": info.plural, "singularName": info.singular, "namespaced": info.namespaced, "kind": info.kind,
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            "shortNames": info.short,
        });
        if info.in_all {
            resource["categories"] = json!(["all"]);
        }
        list.push(resource);
        for subresource in info.subresources {
            let mut resource = json!({"name": format!("{}/{subresource}", info.plural), "singularName": "",
                "namespaced": info.namespaced, "kind": info.kind, "verbs": ["get", "patch", "update"]});
            if *subresource == "scale" {
                resource["group"] = json!("autoscaling");
                resource["version"] = json!("v1");
                resource["kind"] = json!("Scale");
            }
            list.push(resource);
        }
    }
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": list})
}

fn of_group(group: &str) -> impl Iterator<Item = &'static Info> {
    Kind::ALL.into_iter().map(Kind::info).filter(move |info| info.group == group)
}

fn openapi(group: &str) -> Value {
    let base = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
    let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation", "force"]
        .into_iter()
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    let mut paths = json!({});
    for info in of_group(group) {
        let scope = if info.namespaced { "/namespaces/{namespace}" } else { "" };
        let identity = json!({"group": info.group, "version": "v1", "kind": info.kind});
        paths[format!("{base}{scope}/{}/{{name}}", info.plural)] = json!({"patch": {
            "operationId": format!("patch{}", info.kind), "parameters": parameters,
            "x-kubernetes-action": "patch", "x-kubernetes-group-version-kind": identity,
            "responses": {"200": {"description": "OK"}},
        }});
    }
    json!({"openapi": "3.0.0", "info": {"title": "sandbox", "version": VERSION}, "paths": paths, "components": {"schemas": {}}})
}
