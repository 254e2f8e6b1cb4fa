//! The Deployment of Kibana: one replica, of a fixed size, since a request says nothing about it.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar, HTTPGetAction, PodSpec, PodTemplateSpec, Probe};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{ELASTIC_VERSION, Kind, Object, Part, Plan, Through, pod};
use crate::names;

/// Replicas of Kibana.
const REPLICAS: u32 = 1;

pub(super) fn render(plan: &Plan<'_>) -> Object {
    let mut metadata = plan.metadata(Part::Kibana, names::KIBANA);
    if plan.through >= Through::ResourcesConfigured {
        let wanted = (names::REPLICAS_ANNOTATION, REPLICAS.to_string());
        metadata.annotations.get_or_insert_default().extend([super::owned(wanted)]);
    }
    let deployment = Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: plan.replicas(REPLICAS),
            selector: LabelSelector { match_labels: Some(plan.selector(Part::Kibana)), ..LabelSelector::default() },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(plan.labels(Part::Kibana)), ..ObjectMeta::default() }),
                spec: Some(PodSpec {
                    containers: vec![container()],
                    security_context: Some(pod::pod_security()),
                    automount_service_account_token: Some(false),
                    // A link to our own Service `kibana` would be read as Kibana's configuration.
                    enable_service_links: Some(false),
                    ..PodSpec::default()
                }),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    plan.object(Kind::Deployment, names::KIBANA, &deployment)
}

fn container() -> Container {
    let elasticsearch = format!("http://{}:{}", names::CLIENT_SERVICE, pod::HTTP_PORT);
    Container {
        name: names::KIBANA_CONTAINER.to_owned(),
        image: Some(format!("docker.elastic.co/kibana/kibana:{ELASTIC_VERSION}")),
        env: Some(vec![EnvVar {
            name: "ELASTICSEARCH_HOSTS".to_owned(),
            value: Some(elasticsearch),
            value_from: None,
        }]),
        ports: Some(vec![pod::port("http", pod::KIBANA_PORT)]),
        readiness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/api/status".to_owned()),
                port: IntOrString::String("http".to_owned()),
                ..HTTPGetAction::default()
            }),
            initial_delay_seconds: Some(10),
            period_seconds: Some(10),
            timeout_seconds: Some(5),
            ..Probe::default()
        }),
        resources: Some(pod::resources(&[("cpu", "250m"), ("memory", "1Gi")], &[("cpu", "1"), ("memory", "1Gi")])),
        security_context: Some(pod::container_security()),
        ..Container::default()
    }
}
