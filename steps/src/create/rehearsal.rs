//! What a creation would do, for whoever wants to know beforehand. Looks as its first step looks, and changes nothing.

use cairn_engine::ErrorClass;

use super::plan::Plan;
use crate::cluster::Cluster;
use crate::cluster::rehearse::{Action, Rehearsed};
use crate::elastic::Elastic;
use crate::input::{Input, Origin};
use crate::overlay::Overlay;
use crate::render::{Kind, Object, Through};

/// The mark of a cluster that will never be.
const NOBODYS: &str = "00000000-0000-0000-0000-000000000000";

/// What a creation would do.
#[derive(Debug)]
pub struct Rehearsal {
    /// What it would send.
    pub objects: Vec<Object>,
    /// What the cluster says to each of them, in the same order.
    pub verdicts: Vec<Rehearsed>,
    /// What it would go on with of what an earlier deletion has kept: `PersistentVolumeClaim/elasticsearch-data-elasticsearch-0`.
    pub takes_over: Vec<String>,
    /// What its first step would stop at, with the way out.
    pub refusals: Vec<String>,
    /// What there is to warn of, beside what the request alone says.
    pub warnings: Vec<String>,
}

/// Looks what this creation would find, and what the cluster says to all that it would send.
pub async fn rehearse(cluster: &Cluster, input: Input, elastic: Elastic, overlay: Option<Overlay>) -> Rehearsal {
    let origin = input.origin.clone();
    let plan = Plan::of_one_to_be(input, NOBODYS, elastic, overlay);
    let objects = plan.objects(Through::RolloutCompleted, &Kind::ALL);
    let mark = origin.as_ref().map(|origin| origin.mark.as_str());
    let mut verdicts = cluster.rehearse(&objects, mark).await;
    let (takes_over, mut warnings) = origin.map_or_else(Default::default, |origin| over(&origin, &mut verdicts));
    let mut refusals = Vec::new();
    match cluster.gpus_free_for(&plan.request).await {
        Ok(warning) => warnings.extend(warning),
        Err(error) if error.failure.class == ErrorClass::Permanent => refusals.push(error.failure.message),
        Err(error) => warnings.push(error.failure.message),
    }
    Rehearsal { objects, verdicts, takes_over, refusals, warnings }
}

/// What of the kept data is there to go on with; and, as warnings, what is not there any more.
fn over(origin: &Origin, verdicts: &mut [Rehearsed]) -> (Vec<String>, Vec<String>) {
    let (mut there, mut gone) = (Vec::new(), Vec::new());
    for made in &origin.made {
        let name = format!("{}/{}", made.kind, made.name);
        let Some(one) = verdicts.iter_mut().find(|one| one.object == name && one.namespace == made.namespace) else {
            continue;
        };
        match one.action {
            Action::Create => gone.push(format!(
                "{name} was kept by the deletion and is gone: what was on it is lost, and nodes without their disks find no \
                 cluster to join; DELETE what is left of the data, and create the service anew"
            )),
            _ => {
                one.message.get_or_insert_with(|| "kept by an earlier deletion, and used again".to_owned());
                there.push(name);
            }
        }
    }
    (there, gone)
}
