//! What the pods of both parts share: ports, security, probes, resources.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ContainerPort, PodSecurityContext, ResourceRequirements, SeccompProfile, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

pub(super) const HTTP_PORT: i32 = 9200;
pub(super) const TRANSPORT_PORT: i32 = 9300;
/// Opens once a node has a master, and needs no password (C10).
pub(super) const READINESS_PORT: i32 = 8080;
pub(super) const KIBANA_PORT: i32 = 5601;

/// The user of the images of both parts.
const USER: i64 = 1000;

pub(super) fn port(name: &str, port: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// What the Pod Security Standard *restricted* asks for: the pods start wherever that is enforced.
pub(super) fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

pub(super) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

/// Requests and limits of these goods. Every container has both: a quota refuses a pod where one has not (C6).
pub(super) fn resources(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> ResourceRequirements {
    let goods = |goods: &[(&str, &str)]| -> BTreeMap<String, Quantity> {
        goods.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect()
    };
    ResourceRequirements { requests: Some(goods(requests)), limits: Some(goods(limits)), claims: None }
}
