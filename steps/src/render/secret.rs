//! The Secret of the cluster's credentials: its shape. Its values are made at random, once, where it is created
//! ([`crate::credentials`]), and a render never has them.

use k8s_openapi::api::core::v1::{
    EnvVar, EnvVarSource, KeyToPath, Secret, SecretKeySelector, SecretVolumeSource, Volume, VolumeMount,
};

use super::{Kind, Object, Part, Plan};
use crate::credentials;
use crate::names;

/// The volume with what the pods read as files.
const VOLUME: &str = "credentials";
/// Who may read a file of it: its owner and the pod's group.
const FILE_MODE: i32 = 0o440;

pub(super) fn render(plan: &Plan<'_>) -> Object {
    let secret = Secret {
        metadata: plan.metadata(Part::Elasticsearch, names::SECRET),
        type_: Some("Opaque".to_owned()),
        // Another password in it would not be another password of the cluster.
        immutable: Some(true),
        ..Secret::default()
    };
    plan.object(Kind::Secret, names::SECRET, &secret)
}

/// A variable that has the value of this key.
pub(super) fn env(variable: &str, key: &str) -> EnvVar {
    let selector = SecretKeySelector { name: names::SECRET.to_owned(), key: key.to_owned(), optional: None };
    let source = EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: variable.to_owned(), value_from: Some(source), value: None }
}

/// The volume with these keys as files, and not with the others: Kibana has no use for the nodes' key.
pub(super) fn volume(keys: &[&str]) -> Volume {
    let items = keys.iter().map(|key| KeyToPath { key: (*key).to_owned(), path: (*key).to_owned(), mode: None });
    let secret = SecretVolumeSource {
        secret_name: Some(names::SECRET.to_owned()),
        items: Some(items.collect()),
        default_mode: Some(FILE_MODE),
        optional: None,
    };
    Volume { name: VOLUME.to_owned(), secret: Some(secret), ..Volume::default() }
}

/// The volume as a directory.
pub(super) fn mount(path: &str) -> VolumeMount {
    VolumeMount {
        name: VOLUME.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

/// One file of the volume, in a directory that has others.
pub(super) fn mount_file(directory: &str) -> VolumeMount {
    VolumeMount {
        sub_path: Some(credentials::SERVICE_TOKENS.to_owned()),
        ..mount(&format!("{directory}/{}", credentials::SERVICE_TOKENS))
    }
}
