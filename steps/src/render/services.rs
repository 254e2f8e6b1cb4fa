//! The three Services: one through which the nodes find each other, one for clients, one for Kibana.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Kind, Object, Part, Plan, pod};
use crate::names;

pub(super) fn render(plan: &Plan<'_>) -> [Object; 3] {
    let http = port("http", pod::HTTP_PORT);
    let transport = port("transport", pod::TRANSPORT_PORT);
    let headless = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        // The nodes must find each other before any of them is ready, or none ever is (C10).
        publish_not_ready_addresses: Some(true),
        ..spec(plan, Part::Elasticsearch, vec![transport, http.clone()])
    };
    [
        service(plan, Part::Elasticsearch, names::HEADLESS_SERVICE, headless),
        service(plan, Part::Elasticsearch, names::CLIENT_SERVICE, spec(plan, Part::Elasticsearch, vec![http])),
        service(plan, Part::Kibana, names::KIBANA, spec(plan, Part::Kibana, vec![port("http", pod::KIBANA_PORT)])),
    ]
}

fn service(plan: &Plan<'_>, part: Part, name: &str, spec: ServiceSpec) -> Object {
    let service = Service { metadata: plan.metadata(part, name), spec: Some(spec), status: None };
    plan.object(Kind::Service, name, &service)
}

fn spec(plan: &Plan<'_>, part: Part, ports: Vec<ServicePort>) -> ServiceSpec {
    ServiceSpec { selector: Some(plan.selector(part)), ports: Some(ports), ..ServiceSpec::default() }
}

fn port(name: &str, port: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        // Named, and so is the protocol: a list of ports is merged by both, and what is left out gets a default that we would not own.
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    }
}
