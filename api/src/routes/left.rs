//! A service as one workflow has left it, for whoever asks again under the key of that workflow: by then others may have changed
//! it, deleted it, or made another one of its name.

use cairn_engine::{
    Effect, Engine, Json, Outcome, WorkflowId, WorkflowState,
    store::{ListQuery, Listed, ServiceRecord, ServiceStatus},
};

use crate::problem::Problem;

/// How many earlier workflows of the service are looked up at once.
const PAGE: usize = 100;

/// The record of the service as this workflow, which has succeeded, has left it.
///
/// # Errors
/// [`Problem`] if the journal cannot be read.
pub(super) async fn record_after(engine: &Engine, state: &WorkflowState) -> Result<ServiceRecord, Problem> {
    let submitted = state.submitted();
    // A creation took nothing over: its own state says it all.
    if submitted.effect != Effect::Create {
        let now = engine.look(|store| store.service(&submitted.tenant, &submitted.service))?;
        if let Some(record) = now.filter(|record| record.workflow == state.id() && !record.busy) {
            return Ok(record);
        }
    }
    let Before { created, record } = Before::of(engine, state).await?;
    let gone = submitted.effect == Effect::Delete;
    Ok(ServiceRecord {
        tenant: submitted.tenant.clone(),
        service: submitted.service.clone(),
        status: if gone { ServiceStatus::Deleted } else { ServiceStatus::Created },
        live: !gone,
        workflow: state.id(),
        busy: false,
        created: created.submitted_at(),
        updated: state.updated_at(),
        input: submitted.input.clone(),
        holds: submitted.holds.clone(),
        record: record.filter(|_| !gone),
        error: None,
    })
}

/// What a workflow took over from those before it.
struct Before {
    /// The creation that it goes back to.
    created: WorkflowState,
    /// What was last recorded of the cluster.
    record: Option<Json>,
}

impl Before {
    /// Goes back to the creation, newest first. It ends there at the latest: every service begins with one.
    async fn of(engine: &Engine, state: &WorkflowState) -> Result<Self, Problem> {
        let mut record = recorded(state);
        if state.submitted().effect == Effect::Create {
            return Ok(Self { created: state.clone(), record });
        }
        let mut before = state.id();
        loop {
            let page = earlier(engine, state, before).await?;
            before = page.last().ok_or_else(Problem::internal)?.workflow;
            for one in page {
                let succeeded = one.outcome == Some(Outcome::Succeeded);
                if one.effect != Effect::Create && (!succeeded || record.is_some()) {
                    continue;
                }
                let earlier = engine.state(one.workflow).await?.ok_or_else(Problem::internal)?;
                if succeeded {
                    record = record.or_else(|| recorded(&earlier));
                }
                if one.effect == Effect::Create {
                    return Ok(Self { created: earlier, record });
                }
            }
        }
    }
}

async fn earlier(engine: &Engine, state: &WorkflowState, before: WorkflowId) -> Result<Vec<Listed>, Problem> {
    let query = ListQuery {
        tenant: Some(state.submitted().tenant.clone()),
        service: Some(state.submitted().service.clone()),
        before: Some(before),
        limit: PAGE,
    };
    Ok(engine.read(move |store| store.list(&query)).await?)
}

/// What the steps of this workflow have recorded last.
fn recorded(state: &WorkflowState) -> Option<Json> {
    let outputs = state.progress().iter().rev().filter_map(|progress| progress.output.as_ref());
    outputs.filter_map(|output| output.record.clone()).next()
}
