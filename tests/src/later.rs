//! What comes after a creation: changes and deletions, submitted as the API submits them.

use anyhow::{Context as _, bail};
use cairn_engine::{
    Amounts, Hash, IdempotencyKey, NewSubmission, OnFailure, ResourceName, SubmitError, WorkflowId,
    store::{Refusal, Store as _},
};
use cairn_steps::{
    delete,
    input::{Input, Origin},
    request::Request,
    update,
};
use serde_json::Value;

use crate::{
    oracle::Told,
    world::{Running, World},
};

/// What is asked for once a cluster is there.
#[derive(Clone, Debug)]
pub enum Later {
    /// A change with this body.
    Change(Value),
    /// A deletion.
    Deletion {
        /// Which leaves the disks.
        keep_data: bool,
    },
}

impl World {
    /// Submits a change or a deletion of this service; `None` if nobody knows whether it was accepted. The same again is the
    /// same workflow.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn submit_later(
        &mut self,
        running: &Running,
        (tenant, service): (&str, &str),
        later: &Later,
    ) -> anyhow::Result<Option<WorkflowId>> {
        let key = IdempotencyKey::new(&format!("{tenant}/{service}/{later:?}"));
        if let Some(found) = self.store().submission(&tenant.into(), &key)? {
            self.told(Told::Accepted {
                workflow: found.workflow,
                tenant: tenant.to_owned(),
                service: service.to_owned(),
                input: None,
            });
            return Ok(Some(found.workflow));
        }
        let record = self.store().service(&tenant.into(), &service.into())?.context("there is such a service")?;
        let last = cairn_engine::fold(&self.store().workflow(record.workflow)?)?.context("it was made")?;
        let mut origin = Origin::after(&last)?;
        if !record.live {
            origin = origin.of_kept_data();
        }
        let in_force = Request::journaled(record.input.as_bytes()).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        let (definition, input, holds, on_failure) = match later {
            Later::Change(body) => {
                let request = in_force.changed_by(body.to_string().as_bytes());
                let request = request.map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
                let holds = holds(&request);
                let input = Input::change(in_force, request, origin);
                (update::NAME, input, holds, OnFailure::Rollback)
            }
            Later::Deletion { keep_data } => {
                let mut kept = record.holds.clone();
                kept.retain(|resource, _| *keep_data && resource.as_str() == "disk_bytes");
                let input = Input::deletion(in_force, origin, last.id(), *keep_data);
                (delete::NAME, input, kept, OnFailure::Keep)
            }
        };
        let input = input.to_json()?;
        let submission = NewSubmission {
            definition: definition.into(),
            tenant: tenant.into(),
            service: service.into(),
            input: input.clone(),
            key: Some(key),
            body_hash: Hash::default(),
            who: "tester".into(),
            holds,
            quota: self.quota(),
            on_failure,
        };
        let workflow = match running.engine.submit(submission).await {
            Ok(state) => state.id(),
            Err(SubmitError::Refused(Refusal::KeyUsed { workflow, same_body: true })) => workflow,
            Err(SubmitError::Stopped { .. }) => return Ok(None),
            Err(error) => bail!("refused: {error}"),
        };
        self.told(Told::Accepted {
            workflow,
            tenant: tenant.to_owned(),
            service: service.to_owned(),
            input: Some(input),
        });
        Ok(Some(workflow))
    }
}

fn holds(request: &Request) -> Amounts {
    request.holds().into_iter().map(|(name, amount)| (ResourceName::new(name), amount)).collect()
}
