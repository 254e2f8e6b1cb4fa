//! What cairn may have to do in a cluster: one table, from which the ClusterRole of `deploy/`, the questions of
//! `cairn doctor` and the test that holds both against what the steps really use are made.
//!
//! - A right stands here because a request of a step needs it, and goes when none needs it any more.
//! - None names an object: a cluster's namespace, and so what lies in it, is not known before it is asked for.
//!
//! Documents about the server (its version, its kinds) are everybody's who may log in (`system:discovery`).

use std::fmt;

/// The name of the role, and of all that is made for it.
pub const ROLE: &str = "cairn";

/// Some rights that one part of the work needs.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The API group; empty for the core.
    pub group: &'static str,
    /// The plurals, with the subresource where one is meant.
    pub resources: &'static [&'static str],
    /// What has to be allowed.
    pub verbs: &'static [&'static str],
    /// What for.
    pub purpose: &'static str,
    /// What is lost without it; `None` if nothing works then.
    pub without: Option<&'static str>,
}

/// One right: one verb on one resource.
#[derive(Debug, Clone, Copy)]
pub struct Right {
    /// `patch`
    pub verb: &'static str,
    /// `apps`, empty for the core.
    pub group: &'static str,
    /// `statefulsets`, `pods/log`
    pub resource: &'static str,
    /// The rule that it is of.
    pub rule: &'static Rule,
}

impl Right {
    /// The plural and the subresource apart; the latter may be empty.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &'static str) {
        self.resource.split_once('/').unwrap_or((self.resource, ""))
    }
}

impl fmt::Display for Right {
    /// As `kubectl auth can-i` takes it: `patch statefulsets.apps`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plural, subresource) = self.parts();
        write!(f, "{} {plural}", self.verb)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if subresource.is_empty() { Ok(()) } else { write!(f, "/{subresource}") }
    }
}

const KEEPS: Option<&str> = Some(
    "what others have put into a cluster's namespace is not seen among these, and goes with it when it is deleted",
);
const STRANGERS: &str = "see what others have put into a namespace, before it is deleted";

/// Every right.
pub const RULES: [Rule; 18] = [
    Rule {
        group: "",
        resources: &["namespaces"],
        verbs: &["create", "delete", "get"],
        purpose: "make, find and delete the namespace that each cluster has of its own",
        without: None,
    },
    Rule {
        group: "",
        resources: &["configmaps", "persistentvolumeclaims", "services"],
        verbs: &["create", "delete", "get", "list", "patch"],
        purpose: "apply what a cluster is made of, find what is left of it, and delete it",
        without: None,
    },
    Rule {
        group: "",
        resources: &["secrets"],
        verbs: &["create", "delete", "get"],
        purpose: "make a cluster's passwords and certificates once, find them again, and delete them",
        without: None,
    },
    Rule {
        group: "apps",
        resources: &["deployments", "statefulsets"],
        verbs: &["create", "delete", "get", "list", "patch", "watch"],
        purpose: "apply Elasticsearch and Kibana, follow their rollout, and delete them",
        without: None,
    },
    Rule {
        group: "policy",
        resources: &["poddisruptionbudgets"],
        verbs: &["create", "delete", "get", "list", "patch"],
        purpose: "keep enough nodes of a cluster while the machines below it are drained",
        without: None,
    },
    Rule {
        group: "",
        resources: &["pods"],
        verbs: &["list", "watch"],
        purpose: "follow a rollout, see why a pod does not start, and count the GPUs that are free",
        without: None,
    },
    Rule {
        group: "",
        resources: &["pods"],
        verbs: &["delete"],
        purpose: "replace a node of an older revision that keeps a corrected one from starting",
        without: Some("a change that corrects nodes which never started may not reach all of them"),
    },
    Rule {
        group: "",
        resources: &["events"],
        verbs: &["list"],
        purpose: "say why a pod does not start",
        without: Some("a rollout that fails says less of why"),
    },
    Rule {
        group: "",
        resources: &["pods/log"],
        verbs: &["get"],
        purpose: "quote the last lines of a container that crashes",
        without: Some("a rollout that fails says less of why"),
    },
    Rule {
        group: "storage.k8s.io",
        resources: &["storageclasses"],
        verbs: &["list"],
        purpose: "see that disks can be made, before anything is",
        without: None,
    },
    Rule {
        group: "",
        resources: &["nodes"],
        verbs: &["list"],
        purpose: "see that there are GPUs, before they are asked for",
        without: Some("that no node has the GPUs is only seen when the pods are not scheduled"),
    },
    Rule {
        group: "authorization.k8s.io",
        resources: &["selfsubjectaccessreviews"],
        verbs: &["create"],
        purpose: "let `cairn doctor` ask what it may do",
        without: Some("`cairn doctor` cannot tell which rights are missing"),
    },
    Rule {
        group: "",
        resources: &[
            "limitranges",
            "podtemplates",
            "replicationcontrollers",
            "resourcequotas",
            "secrets",
            "serviceaccounts",
        ],
        verbs: &["list"],
        purpose: STRANGERS,
        without: KEEPS,
    },
    Rule {
        group: "apps",
        resources: &["controllerrevisions", "daemonsets", "replicasets"],
        verbs: &["list"],
        purpose: STRANGERS,
        without: KEEPS,
    },
    Rule { group: "batch", resources: &["cronjobs", "jobs"], verbs: &["list"], purpose: STRANGERS, without: KEEPS },
    Rule {
        group: "networking.k8s.io",
        resources: &["ingresses", "networkpolicies"],
        verbs: &["list"],
        purpose: STRANGERS,
        without: KEEPS,
    },
    Rule {
        group: "rbac.authorization.k8s.io",
        resources: &["rolebindings", "roles"],
        verbs: &["list"],
        purpose: STRANGERS,
        without: KEEPS,
    },
    Rule {
        group: "autoscaling",
        resources: &["horizontalpodautoscalers"],
        verbs: &["list"],
        purpose: STRANGERS,
        without: KEEPS,
    },
];

/// Every single right, in the order of the table.
pub fn rights() -> impl Iterator<Item = Right> {
    static TABLE: [Rule; RULES.len()] = RULES;
    TABLE.iter().flat_map(|rule| {
        let each = move |resource: &&'static str| {
            let resource = *resource;
            rule.verbs.iter().map(move |verb| Right { verb, group: rule.group, resource, rule })
        };
        rule.resources.iter().flat_map(each)
    })
}

/// The rules of the ClusterRole, as YAML: a comment and a rule for each part of the work.
#[must_use]
pub fn role_rules() -> String {
    let list = |items: &[&str]| {
        let quoted: Vec<String> = items.iter().map(|item| format!("\"{item}\"")).collect();
        format!("[{}]", quoted.join(", "))
    };
    let mut text = "rules:\n".to_owned();
    for rule in &RULES {
        text.push_str(&format!(
            "  # {}\n  - apiGroups: [\"{}\"]\n    resources: {}\n    verbs: {}\n",
            rule.purpose,
            rule.group,
            list(rule.resources),
            list(rule.verbs)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_right_stands_in_the_table_twice() {
        let all: Vec<String> = rights().map(|right| right.to_string()).collect();
        let once: BTreeSet<&String> = all.iter().collect();
        assert_eq!(all.len(), once.len(), "{all:?}");
    }

    #[test]
    fn a_right_reads_as_kubectl_takes_it() {
        let all: Vec<String> = rights().map(|right| right.to_string()).collect();
        for wanted in ["delete namespaces", "patch statefulsets.apps", "get pods/log"] {
            assert!(all.iter().any(|right| right == wanted), "{wanted} in {all:?}");
        }
    }
}
