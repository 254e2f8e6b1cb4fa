//! What must hold of a creation once it has ended, whatever was done to it: told by its client, the reports, the cluster
//! and what the cluster noted of each write.
//!
//! It knows nothing of steps and their order: what a creation makes is what an undisturbed one has made.

use std::collections::{BTreeMap, BTreeSet};

use cairn_engine::Outcome;
use cairn_steps::{
    names::WORKFLOW_ANNOTATION,
    report::{FAILED, STATUSES},
    sandbox::{Effect, Sandbox},
};
use serde_json::Value;

/// How a creation ended, as a client and the cluster tell it.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// As its client was told.
    pub(super) outcome: Outcome,
    /// Its workflow.
    pub(super) workflow: String,
    /// The statuses of its reports, in order.
    pub(super) reports: Vec<String>,
    /// Its namespace.
    pub(super) namespace: String,
}

/// Kind and name of an object.
pub(super) type Name = (String, String);

/// Everything that is broken, a line each; none is how it has to be. `whole` is what a creation makes.
pub(super) fn violations(end: &End, failing: bool, whole: &BTreeSet<Name>, sandbox: &Sandbox) -> Vec<String> {
    let mut found = Vec::new();
    let there = made(end, sandbox);
    let names = |names: &mut dyn Iterator<Item = &Name>| {
        names.map(|(kind, name)| format!("{kind}/{name}")).collect::<Vec<_>>().join(", ")
    };
    match end.outcome {
        Outcome::Succeeded if failing => found.push("it succeeded, and was to fail".to_owned()),
        Outcome::Succeeded => {
            if end.reports != STATUSES {
                found.push(format!("these are not the ten reports: {}", end.reports.join(", ")));
            }
            if there != *whole {
                let (lacks, more) = (names(&mut whole.difference(&there)), names(&mut there.difference(whole)));
                found.push(format!("it is not whole: lacking [{lacks}], more than that [{more}]"));
            }
        }
        Outcome::Failed | Outcome::Cancelled => {
            if !failing {
                found.push("it was taken back, and had to succeed".to_owned());
            }
            if end.reports.last().is_none_or(|last| last != FAILED) {
                found.push(format!("its last report is not `{FAILED}`: {}", end.reports.join(", ")));
            }
            if !there.is_empty() {
                found.push(format!("it was taken back, and left {}", names(&mut there.iter())));
            }
        }
    }
    let mut makings: BTreeMap<Name, usize> = BTreeMap::new();
    for effect in sandbox.effects().iter().filter(|effect| is_making(effect, end)) {
        *makings.entry((effect.kind.clone(), effect.name.clone())).or_default() += 1;
    }
    for ((kind, name), times) in makings.into_iter().filter(|(_, times)| *times > 1) {
        found.push(format!("{kind}/{name} was made {times} times"));
    }
    found
}

/// What bears the workflow's mark, or is in its namespace with anybody's.
pub(super) fn made(end: &End, sandbox: &Sandbox) -> BTreeSet<Name> {
    let is_its = |object: &Value| {
        let metadata = &object["metadata"];
        let mark = metadata["annotations"][WORKFLOW_ANNOTATION].as_str();
        mark == Some(&end.workflow) || (mark.is_some() && metadata["namespace"] == end.namespace.as_str())
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = |object: &Value| match &object["metadata"]["ownerReferences"][0] {
        // A namespace is named after its service, which each creation has its own of.
        Value::Null => text(&object["metadata"]["name"]).replace(&end.namespace, "NAMESPACE"),
        // The cluster has made it, under a name of its own.
        owner => format!("(of {}/{})", text(&owner["kind"]), text(&owner["name"])),
    };
    let objects = sandbox.objects();
    objects.iter().filter(|object| is_its(object)).map(|object| (text(&object["kind"]), name(object))).collect()
}

fn is_making(effect: &Effect, end: &End) -> bool {
    effect.version_before.is_none() && effect.workflow.as_deref() == Some(&end.workflow)
}

#[cfg(test)]
mod tests {
    use kube::api::{Api, DynamicObject, PostParams};
    use serde_json::json;

    use cairn_steps::{render::Kind, sandbox::SandboxOptions};

    use super::*;

    fn end(outcome: Outcome, reports: &[&str]) -> End {
        let reports = reports.iter().map(|report| (*report).to_owned()).collect();
        End { outcome, workflow: "w".to_owned(), reports, namespace: "prove--a".to_owned() }
    }

    /// A cluster with this in it, marked by `workflow`.
    async fn with(objects: &[(Kind, &str)], workflow: &str) -> Sandbox {
        let sandbox = Sandbox::open(SandboxOptions::default()).expect("a sandbox in memory");
        let namespace = json!({ "metadata": { "name": "prove--a" } });
        let namespaces: Api<DynamicObject> = Api::all_with(sandbox.client(), &Kind::Namespace.api_resource());
        let namespace = serde_json::from_value(namespace).expect("an object");
        namespaces.create(&PostParams::default(), &namespace).await.expect("made");
        for (kind, name) in objects {
            let annotations = json!({ WORKFLOW_ANNOTATION: workflow });
            let object = json!({ "metadata": { "name": name, "annotations": annotations } });
            let object: DynamicObject = serde_json::from_value(object).expect("an object");
            let api: Api<DynamicObject> = Api::namespaced_with(sandbox.client(), "prove--a", &kind.api_resource());
            api.create(&PostParams::default(), &object).await.expect("made");
        }
        sandbox
    }

    fn whole(objects: &[(Kind, &str)]) -> BTreeSet<Name> {
        objects.iter().map(|(kind, name)| (kind.to_string(), (*name).to_owned())).collect()
    }

    #[tokio::test]
    async fn what_is_whole_or_gone_is_in_order() {
        let objects = [(Kind::ConfigMap, "a"), (Kind::ConfigMap, "b")];
        let sandbox = with(&objects, "w").await;
        assert!(violations(&end(Outcome::Succeeded, &STATUSES), false, &whole(&objects), &sandbox).is_empty());
        let sandbox = with(&[], "w").await;
        assert!(violations(&end(Outcome::Failed, &[FAILED]), true, &whole(&objects), &sandbox).is_empty());
    }

    /// A judge that finds nothing proves nothing.
    #[tokio::test]
    async fn what_lacks_is_left_or_was_made_twice_is_found() {
        let objects = [(Kind::ConfigMap, "a"), (Kind::ConfigMap, "b")];
        let found = async |there: &[(Kind, &str)], workflow: &str, end: End, failing: bool| {
            violations(&end, failing, &whole(&objects), &with(there, workflow).await).join("; ")
        };
        let succeeded = || end(Outcome::Succeeded, &STATUSES);
        let failed = || end(Outcome::Failed, &[FAILED]);
        assert!(found(&objects[..1], "w", succeeded(), false).await.contains("lacking [ConfigMap/b]"));
        assert!(found(&objects, "w", end(Outcome::Succeeded, &STATUSES[..9]), false).await.contains("ten reports"));
        assert!(found(&objects, "w", succeeded(), true).await.contains("was to fail"));
        assert!(found(&[], "w", failed(), false).await.contains("had to succeed"));
        assert!(found(&objects[..1], "w", failed(), true).await.contains("left ConfigMap/a"));
        // In its namespace, though another workflow's.
        assert!(found(&objects[..1], "another", failed(), true).await.contains("left ConfigMap/a"));
        let sandbox = with(&objects, "w").await;
        let api: Api<DynamicObject> =
            Api::namespaced_with(sandbox.client(), "prove--a", &Kind::ConfigMap.api_resource());
        let again = api.get("a").await.expect("there");
        api.delete("a", &kube::api::DeleteParams::default()).await.expect("deleted");
        let again =
            DynamicObject { metadata: kube::api::ObjectMeta { resource_version: None, ..again.metadata }, ..again };
        api.create(&PostParams::default(), &again).await.expect("made again");
        let found = violations(&succeeded(), false, &whole(&objects), &sandbox).join("; ");
        assert!(found.contains("ConfigMap/a was made 2 times"), "{found}");
    }
}
