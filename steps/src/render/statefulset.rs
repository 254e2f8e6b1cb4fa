//! The StatefulSet of the Elasticsearch nodes.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Affinity, ConfigMapVolumeSource, Container, EnvVar, EnvVarSource, ObjectFieldSelector, PodAffinityTerm,
    PodAntiAffinity, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, TCPSocketAction, Toleration, Volume,
    VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Kind, Object, Part, Plan, Through, claims, configmap, pod, secret};
use crate::credentials;
use crate::names;
use crate::vectors::{VectorSizing, heap_bytes};

/// How long a node may take to hand over its shards and close (C10).
const GRACE_SECONDS: i64 = 180;

/// Where the image has Elasticsearch.
const HOME: &str = "/usr/share/elasticsearch";

/// What a node needs of the Secret as files.
const SECRET_FILES: [&str; 4] =
    [credentials::CA_CERTIFICATE, credentials::NODE[0], credentials::NODE[1], credentials::SERVICE_TOKENS];

pub(super) fn render(plan: &Plan<'_>) -> Object {
    let mut metadata = plan.metadata(Part::Elasticsearch, names::STATEFUL_SET);
    if plan.through >= Through::ResourcesConfigured {
        metadata.annotations.get_or_insert_default().extend(index_limits(plan));
    }
    let set = StatefulSet {
        metadata,
        spec: Some(StatefulSetSpec {
            replicas: plan.replicas(plan.request.replicas),
            service_name: Some(names::HEADLESS_SERVICE.to_owned()),
            // One after the other, the first would wait for the second to form a cluster with, and the second for the first (C10).
            pod_management_policy: Some("Parallel".to_owned()),
            selector: LabelSelector {
                match_labels: Some(plan.selector(Part::Elasticsearch)),
                ..LabelSelector::default()
            },
            template: template(plan),
            volume_claim_templates: Some(vec![claims::claim_template(plan)]),
            ..StatefulSetSpec::default()
        }),
        status: None,
    };
    plan.object(Kind::StatefulSet, names::STATEFUL_SET, &set)
}

/// What the cluster is meant for, on the set and not on its pods: to know it needs no restart (S23).
fn index_limits(plan: &Plan<'_>) -> [(String, String); 5] {
    let sizing = VectorSizing::of(plan.request);
    [
        (names::DIMENSION_ANNOTATION, plan.request.dimension.to_string()),
        (names::VECTOR_COUNT_ANNOTATION, plan.request.vector_count.to_string()),
        (names::VECTOR_DISK_ANNOTATION, sizing.disk_bytes.to_string()),
        (names::VECTOR_MEMORY_ANNOTATION, sizing.memory_int8_bytes.to_string()),
        (names::REPLICAS_ANNOTATION, plan.request.replicas.to_string()),
    ]
    .map(super::owned)
}

fn template(plan: &Plan<'_>) -> PodTemplateSpec {
    let digest = (names::CONFIG_ANNOTATION.to_owned(), configmap::digest(plan));
    PodTemplateSpec {
        // Not our marks: a workflow's id on the pods would restart them with every update.
        metadata: Some(ObjectMeta {
            labels: Some(plan.labels(Part::Elasticsearch)),
            annotations: Some([digest].into()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container(plan)],
            affinity: Some(apart(plan)),
            security_context: Some(pod::pod_security()),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            tolerations: (gpus(plan) > 0).then(|| vec![gpu_toleration()]),
            volumes: Some(vec![config_volume(), secret::volume(&SECRET_FILES)]),
            ..PodSpec::default()
        }),
    }
}

fn config_volume() -> Volume {
    let source = ConfigMapVolumeSource { name: names::CONFIG_MAP.to_owned(), ..ConfigMapVolumeSource::default() };
    Volume { name: "config".to_owned(), config_map: Some(source), ..Volume::default() }
}

fn container(plan: &Plan<'_>) -> Container {
    let pod_name = EnvVarSource {
        field_ref: Some(ObjectFieldSelector { field_path: "metadata.name".to_owned(), api_version: None }),
        ..EnvVarSource::default()
    };
    let mut env = vec![
        EnvVar { name: "POD_NAME".to_owned(), value_from: Some(pod_name), value: None },
        // The password of the user `elastic` from the first start on; later ones take no notice of it.
        secret::env("ELASTIC_PASSWORD", credentials::ELASTIC_PASSWORD),
    ];
    if plan.through >= Through::ResourcesConfigured {
        let heap = heap_bytes(plan.request.mem_limit.as_bytes()) >> 20;
        env.push(EnvVar {
            name: "ES_JAVA_OPTS".to_owned(),
            value: Some(format!("-Xms{heap}m -Xmx{heap}m")),
            value_from: None,
        });
    }
    Container {
        name: names::ELASTICSEARCH_CONTAINER.to_owned(),
        image: Some(plan.elastic.elasticsearch_image().to_owned()),
        env: Some(env),
        ports: Some(vec![
            pod::port("http", pod::HTTP_PORT),
            pod::port("transport", pod::TRANSPORT_PORT),
            pod::port("readiness", pod::READINESS_PORT),
        ]),
        readiness_probe: Some(Probe {
            tcp_socket: Some(TCPSocketAction { port: IntOrString::String("readiness".to_owned()), host: None }),
            initial_delay_seconds: Some(10),
            period_seconds: Some(5),
            timeout_seconds: Some(5),
            failure_threshold: Some(3),
            ..Probe::default()
        }),
        resources: resources(plan),
        security_context: Some(pod::container_security()),
        volume_mounts: Some(vec![
            VolumeMount {
                name: names::CLAIM_TEMPLATE.to_owned(),
                mount_path: format!("{HOME}/data"),
                ..VolumeMount::default()
            },
            VolumeMount {
                name: "config".to_owned(),
                mount_path: format!("{HOME}/config/{}", configmap::FILE),
                // The one file and not the directory, in which the image has others.
                sub_path: Some(configmap::FILE.to_owned()),
                read_only: Some(true),
                ..VolumeMount::default()
            },
            secret::mount(&format!("{HOME}/config/{}", configmap::CERTIFICATES)),
            secret::mount_file(&format!("{HOME}/config")),
        ]),
        ..Container::default()
    }
}

fn resources(plan: &Plan<'_>) -> Option<ResourceRequirements> {
    if plan.through < Through::ResourcesConfigured {
        return None;
    }
    let request = plan.request;
    let count = gpus(plan).to_string();
    let mut requests = vec![("cpu", request.cpu_request.as_str()), ("memory", request.mem_request.as_str())];
    let mut limits = vec![("cpu", request.cpu_limit.as_str()), ("memory", request.mem_limit.as_str())];
    // None is no key at all, and an extended resource's request equals its limit (C6).
    if gpus(plan) > 0 {
        requests.push((names::GPU, &count));
        limits.push((names::GPU, &count));
    }
    Some(pod::resources(&requests, &limits))
}

fn gpus(plan: &Plan<'_>) -> u32 {
    if plan.through >= Through::GpuConfigured { plan.request.gpu_count } else { 0 }
}

/// Nodes with GPUs are usually kept for those who ask for them (C6).
fn gpu_toleration() -> Toleration {
    Toleration {
        key: Some(names::GPU.to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoSchedule".to_owned()),
        ..Toleration::default()
    }
}

/// Preferably each on a host of its own; not necessarily, so that a small cluster starts too (C10).
fn apart(plan: &Plan<'_>) -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: PodAffinityTerm {
                    topology_key: "kubernetes.io/hostname".to_owned(),
                    label_selector: Some(LabelSelector {
                        match_labels: Some(plan.selector(Part::Elasticsearch)),
                        ..LabelSelector::default()
                    }),
                    ..PodAffinityTerm::default()
                },
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}
