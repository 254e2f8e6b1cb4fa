//! `elasticsearch.yml`: what the tenant's file sets, and over it what this program sets.
//!
//! - `discovery.type: single-node` is never used: a cluster that was formed so can never grow (C10), and replicas can be
//!   changed later. One node bootstraps itself by the same list as three.
//! - The bootstrap list is there while the cluster forms and gone afterwards: a node that comes back to an empty disk must
//!   join, and not found a second cluster. It is not part of the digest, so that its going restarts nobody.
//! - Security is on, among the nodes and for clients, with the certificates of the cluster's Secret: Elasticsearch would
//!   otherwise make its own, which nobody could know. One certificate serves all nodes, so they look at who has signed it, and
//!   not at the name.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Kind, Object, Part, Plan, Through, pod};
use crate::credentials;
use crate::names;

/// The key of the file in the ConfigMap.
pub(super) const FILE: &str = "elasticsearch.yml";

/// Where the certificates are, below the directory of the configuration.
pub(super) const CERTIFICATES: &str = "certificates";

/// The most nodes that form a cluster together: three decide, however many join them.
const BOOTSTRAP_NODES_MAX: u32 = 3;

pub(super) fn render(plan: &Plan<'_>) -> Object {
    let mut text = settled(plan);
    if plan.through < Through::Formed {
        let nodes: Vec<String> = (0..plan.request.replicas.min(BOOTSTRAP_NODES_MAX)).map(names::node).collect();
        line(&mut text, "cluster.initial_master_nodes", &json!(nodes));
    }
    let map = ConfigMap {
        metadata: plan.metadata(Part::Elasticsearch, names::CONFIG_MAP),
        data: Some([(FILE.to_owned(), text)].into()),
        ..ConfigMap::default()
    };
    plan.object(Kind::ConfigMap, names::CONFIG_MAP, &map)
}

/// The digest of the configuration that a running node depends on: it stands on the pod template.
pub(super) fn digest(plan: &Plan<'_>) -> String {
    crate::settings::hex(&Sha256::digest(settled(plan)))
}

fn settled(plan: &Plan<'_>) -> String {
    let ours = [
        ("cluster.name", json!(plan.instance())),
        ("node.name", json!("${POD_NAME}")),
        ("network.host", json!("0.0.0.0")),
        ("discovery.seed_hosts", json!([names::HEADLESS_SERVICE])),
        // Without it a node needs a raised vm.max_map_count of its host, which only a privileged container could set (C10).
        ("node.store.allow_mmap", json!(false)),
        ("readiness.port", json!(pod::READINESS_PORT)),
        ("xpack.security.enabled", json!(true)),
        ("xpack.security.enrollment.enabled", json!(false)),
        ("xpack.security.transport.ssl.verification_mode", json!("certificate")),
    ];
    // The allow-list of `settings` has none of our keys; ours come second all the same, and win.
    let mut all: BTreeMap<&str, Value> = plan
        .settings
        .into_iter()
        .flat_map(|settings| settings.iter())
        .map(|(key, value)| (key, value.clone()))
        .collect();
    all.extend(ours);
    let mut text = String::new();
    for (key, value) in &all {
        line(&mut text, key, value);
    }
    for layer in ["http", "transport"] {
        let [certificate, key] = credentials::NODE.map(|file| json!(format!("{CERTIFICATES}/{file}")));
        let authorities = json!([format!("{CERTIFICATES}/{}", credentials::CA_CERTIFICATE)]);
        let ssl = [
            ("enabled", json!(true)),
            ("certificate", certificate),
            ("key", key),
            ("certificate_authorities", authorities),
        ];
        for (name, value) in ssl {
            line(&mut text, &format!("xpack.security.{layer}.ssl.{name}"), &value);
        }
    }
    text
}

/// JSON is YAML: a value written so needs no quoting rules of our own.
fn line(text: &mut String, key: &str, value: &Value) {
    let _ = writeln!(text, "{key}: {value}");
}
