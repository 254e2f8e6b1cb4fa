//! Step 2, `namespace_created`: makes the namespace with its marks.
//!
//! Created and not applied: of two that want the same namespace one gets it, and the other hears of it (C7). Its deletion,
//! if it is ours, takes with it all that later steps made, and waits until it is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use cairn_engine::{Json, Output, Probe, Step, StepContext, StepError, StepName};
use kube::api::DynamicObject;
use serde::Serialize;

use super::plan::{Objects, Plan, made_by_this_step};
use crate::cluster::gone::Deletion;
use crate::cluster::{Cluster, Found, made};
use crate::render::{Kind, Object, Through};

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "namespace_created";

pub(super) struct NamespaceCreated {
    pub(super) cluster: Cluster,
    /// How long one attempt of the compensation waits for the namespace to be gone.
    pub(super) gone_within: Duration,
}

/// The namespace as it was made (S12).
#[derive(Serialize)]
struct Created {
    namespace: String,
    uid: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    #[serde(flatten)]
    made: Objects,
}

#[async_trait]
impl Step for NamespaceCreated {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let plan = Plan::of(cx)?;
        let object = namespace(&plan);
        let answer = self.cluster.make_namespace(&object, &plan.workflow).await?;
        output(&object, &answer)
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let plan = Plan::of(cx)?;
        let object = namespace(&plan);
        // The annotation is the only witness: a crash took the answer, and with it the UID.
        Ok(match self.cluster.find(Kind::Namespace, None, &object.name, &plan.workflow).await? {
            Found::Nothing => Probe::NotApplied,
            Found::Foreign(whose) => Probe::Foreign {
                detail: format!(
                    "namespace {} {whose}: choose another `namespace`, or delete that one first",
                    object.name
                ),
            },
            Found::Ours(found) if found.metadata.deletion_timestamp.is_some() => {
                let mut objects = Objects::default();
                objects.push(made(&object, &found)?);
                Probe::Partly { made: Json::of(&objects)? }
            }
            Found::Ours(found) => Probe::Applied { output: output(&object, &found)? },
        })
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        let plan = Plan::of(cx)?;
        let mut messages = Vec::new();
        for one in made_by_this_step(cx) {
            if plan.was_there(&one) {
                messages.push(format!("namespace {} was there, with the data that is kept in it, and stays", one.name));
                continue;
            }
            let unseen = self.cluster.refuse_strangers(&one, &plan.workflow).await?;
            match self.cluster.delete_ours(&one, &plan.workflow).await? {
                Deletion::Begun => {
                    cx.wait(self.cluster.wait_gone(&one, self.gone_within)).await??;
                    let mut message = format!("deleted namespace {} and all that was in it", one.name);
                    if !unseen.is_empty() {
                        message.push_str(&format!("; whether others had {} there may not be seen", unseen.join(", ")));
                    }
                    messages.push(message);
                }
                Deletion::Absent => messages.push(format!("namespace {} was gone", one.name)),
                Deletion::NotOurs => {
                    messages
                        .push(format!("namespace {} was gone, and another one of that name was left alone", one.name));
                }
            }
        }
        if messages.is_empty() {
            return Ok("nothing was made".to_owned());
        }
        Ok(messages.join("; "))
    }
}

fn namespace(plan: &Plan) -> Object {
    let objects = plan.objects(Through::NamespaceCreated, &[Kind::Namespace]);
    objects.into_iter().next().expect("every render has the namespace")
}

fn output(object: &Object, answer: &DynamicObject) -> Result<Output, StepError> {
    let one = made(object, answer)?;
    let uid = one.uid.clone();
    let mut objects = Objects::default();
    objects.push(one);
    let created = Created {
        namespace: object.name.clone(),
        uid,
        labels: answer.metadata.labels.clone().unwrap_or_default(),
        annotations: answer.metadata.annotations.clone().unwrap_or_default(),
        made: objects,
    };
    Ok(Output::new(format!("namespace {} is there", object.name), &created)?)
}
