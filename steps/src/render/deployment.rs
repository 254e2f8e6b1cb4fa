//! The Deployment of Kibana: one replica, of a fixed size, since a request says nothing about it.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar, HTTPGetAction, PodSpec, PodTemplateSpec, Probe};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Kind, Object, Part, Plan, Through, pod, secret};
use crate::credentials;
use crate::names;

/// Where Kibana finds the certificates.
const CERTIFICATES: &str = "/usr/share/kibana/config/certificates";

/// What Kibana needs of the Secret as files.
const SECRET_FILES: [&str; 3] = [credentials::CA_CERTIFICATE, credentials::KIBANA[0], credentials::KIBANA[1]];

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
                    containers: vec![container(plan)],
                    security_context: Some(pod::pod_security()),
                    automount_service_account_token: Some(false),
                    // A link to our own Service `kibana` would be read as Kibana's configuration.
                    enable_service_links: Some(false),
                    volumes: Some(vec![secret::volume(&SECRET_FILES)]),
                    ..PodSpec::default()
                }),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    };
    plan.object(Kind::Deployment, names::KIBANA, &deployment)
}

fn container(plan: &Plan<'_>) -> Container {
    let file = |name: &str| format!("{CERTIFICATES}/{name}");
    let variables = [
        ("ELASTICSEARCH_HOSTS", format!("https://{}:{}", names::CLIENT_SERVICE, pod::HTTP_PORT)),
        ("ELASTICSEARCH_SSL_CERTIFICATEAUTHORITIES", file(credentials::CA_CERTIFICATE)),
        ("SERVER_SSL_ENABLED", "true".to_owned()),
        ("SERVER_SSL_CERTIFICATE", file(credentials::KIBANA[0])),
        ("SERVER_SSL_KEY", file(credentials::KIBANA[1])),
    ];
    let mut env: Vec<EnvVar> =
        variables.map(|(name, value)| EnvVar { name: name.to_owned(), value: Some(value), value_from: None }).into();
    env.extend([
        secret::env("ELASTICSEARCH_SERVICEACCOUNTTOKEN", credentials::KIBANA_TOKEN),
        secret::env("XPACK_SECURITY_ENCRYPTIONKEY", credentials::KIBANA_ENCRYPTION_KEY),
        secret::env("XPACK_ENCRYPTEDSAVEDOBJECTS_ENCRYPTIONKEY", credentials::KIBANA_ENCRYPTION_KEY),
    ]);
    Container {
        name: names::KIBANA_CONTAINER.to_owned(),
        image: Some(plan.elastic.kibana_image().to_owned()),
        env: Some(env),
        ports: Some(vec![pod::port("http", pod::KIBANA_PORT)]),
        readiness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                // The page that needs no login.
                path: Some("/login".to_owned()),
                port: IntOrString::String("http".to_owned()),
                scheme: Some("HTTPS".to_owned()),
                ..HTTPGetAction::default()
            }),
            initial_delay_seconds: Some(10),
            period_seconds: Some(10),
            timeout_seconds: Some(5),
            ..Probe::default()
        }),
        resources: Some(pod::resources(&[("cpu", "250m"), ("memory", "1Gi")], &[("cpu", "1"), ("memory", "1Gi")])),
        security_context: Some(pod::container_security()),
        volume_mounts: Some(vec![secret::mount(CERTIFICATES)]),
        ..Container::default()
    }
}
