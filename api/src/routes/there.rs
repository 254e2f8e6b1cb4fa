//! What is there of a service, for whoever works on it next: its record, its last workflow, and where it comes from.
//!
//! True as long as the service's own lock is held.

use cairn_engine::{
    Amounts, Effect, Engine, Json, Phase, ResourceName, Service, Tenant, WorkflowId, WorkflowState,
    store::{ServiceRecord, ServiceStatus},
};
use cairn_steps::{
    elastic::Elastic,
    input::{Input, Origin},
    request::{FieldError, Request},
};

use crate::problem::Problem;

/// What of its quota a deletion keeps charged for data that stays.
const DISK: &str = "disk_bytes";

/// What is there of a service.
pub(super) struct There {
    pub(super) record: ServiceRecord,
    /// The workflow that last worked on it, or does so now.
    pub(super) last: WorkflowState,
}

/// A deletion that can be submitted.
pub(super) struct Deletion {
    pub(super) input: Input,
    pub(super) journaled: Json,
    /// What stays charged for data that is kept.
    pub(super) keeps: Amounts,
}

impl There {
    /// Of this service; `None` if there never was one.
    pub(super) async fn of(engine: &Engine, tenant: &Tenant, service: &Service) -> Result<Option<Self>, Problem> {
        let Some(record) = engine.look(|store| store.service(tenant, service))? else { return Ok(None) };
        let last = engine.state(record.workflow).await?.ok_or_else(|| unreadable(record.workflow))?;
        Ok(Some(Self { record, last }))
    }

    /// Whether there is nothing that could be deleted.
    pub(super) fn is_nothing(&self) -> bool {
        !self.record.live && self.record.holds.is_empty()
    }

    /// Whether all that is there is data that a deletion has kept.
    pub(super) fn is_data_alone(&self) -> bool {
        !self.record.live && !self.record.busy && !self.record.holds.is_empty()
    }

    /// Whether it waits for a person, and a deletion may end it as it stands. Another deletion is not ended: it goes on.
    pub(super) fn may_be_ended(&self) -> bool {
        self.is_parked() && self.last.submitted().effect != Effect::Delete
    }

    fn is_parked(&self) -> bool {
        matches!(self.last.phase(), Phase::Parked { .. })
    }

    /// The answer while another workflow works on the service.
    pub(super) fn busy(&self) -> Problem {
        Problem::busy(&self.record, self.last.submitted().effect, self.is_parked())
    }

    /// The request in force.
    pub(super) fn request(&self) -> Result<Request, Problem> {
        Request::journaled(self.record.input.as_bytes()).map_err(|_| unreadable(self.record.workflow))
    }

    /// Where it comes from, whole; and the workflow whose journal has what it was rendered with.
    pub(super) async fn origin(&self, engine: &Engine) -> Result<(Origin, WorkflowId), Problem> {
        let after = |state: &WorkflowState| Origin::after(state).map_err(|_| unreadable(state.id()));
        let origin = after(&self.last)?;
        let Some(rendered_by) = origin.rendered_by else { return Ok((origin, self.last.id())) };
        let whole = engine.state(rendered_by).await?.ok_or_else(|| unreadable(rendered_by))?;
        Ok((origin.rendered_as(after(&whole)?), rendered_by))
    }

    /// The deletion of all of it, or of all but its data.
    ///
    /// # Errors
    /// [`Problem`] if there is nothing to delete, or nothing to keep; nothing is changed by asking.
    pub(super) async fn deletion(&self, engine: &Engine, keep_data: bool) -> Result<Deletion, Problem> {
        let keeps = if keep_data { self.data_to_keep()? } else { Amounts::new() };
        let (mut origin, rendered_by) = self.origin(engine).await?;
        if !self.record.live {
            origin = origin.of_kept_data();
        }
        let input = Input::deletion(self.request()?, origin, rendered_by, keep_data);
        let journaled = input.to_json().map_err(|error| Problem::unjournalable(&input.request, &error))?;
        Ok(Deletion { input, journaled, keeps })
    }

    /// What stays charged for the data of this service.
    fn data_to_keep(&self) -> Result<Amounts, Problem> {
        let wrong = |why: &str| Err(Problem::invalid(&[FieldError::new("keep_data", why)]));
        if !self.record.live {
            return wrong("was asked for before: nothing but the data is left; leave it away to delete that too");
        }
        if !self.was_completed() {
            return wrong(
                "can be asked for where a cluster was completed: this one has no data that another could go on with",
            );
        }
        let disk = ResourceName::new(DISK);
        let bytes = self.record.holds.get(&disk).copied().unwrap_or(0);
        Ok([(disk, bytes)].into())
    }

    /// Whether what is there has the data of a cluster that was completed.
    fn was_completed(&self) -> bool {
        let created = self.record.status == ServiceStatus::Created;
        let input = || self.last.submitted().input.read::<Input>().ok();
        match self.last.submitted().effect {
            // However far one that goes on with kept data came, the data is of one that was completed.
            Effect::Create => created || input().is_some_and(|input| input.origin.is_some()),
            // Only what was completed is changed, and a change takes no data away.
            Effect::Update => true,
            // One that was to keep the data and was ended by force has left all of it, or what somebody else has left.
            Effect::Delete => created || input().is_some_and(|input| input.keep_data),
        }
    }

    /// The creation of another cluster over the data that was kept.
    async fn creation(&self, engine: &Engine, request: &Request, installs: &Elastic) -> Result<Input, Problem> {
        let (origin, _) = self.origin(engine).await?;
        let errors = misfits(request, &self.request()?, &origin);
        if !errors.is_empty() {
            return Err(Problem::invalid(&errors));
        }
        if installs.is_older_than(&origin.elastic) {
            return Err(Problem::newer_data(&self.record, origin.elastic.version(), installs.version()));
        }
        Ok(Input::over_kept_data(request.clone(), origin))
    }
}

/// What a creation is submitted with: data that a deletion has kept, if there is any.
///
/// # Errors
/// [`Problem`] if the request does not fit the data, with every field that does not.
pub(super) async fn creation(engine: &Engine, request: &Request, installs: &Elastic) -> Result<Input, Problem> {
    let (tenant, service) = (Tenant::new(request.user.as_str()), Service::new(request.service_name.as_str()));
    match There::of(engine, &tenant, &service).await?.filter(There::is_data_alone) {
        Some(there) => there.creation(engine, request, installs).await,
        None => Ok(Input::creation(request.clone())),
    }
}

/// Every field in which this request does not fit the data that was kept. The disks that are there count, and not what was last
/// asked for, which a change that was ended by force never came to.
fn misfits(request: &Request, last: &Request, origin: &Origin) -> Vec<FieldError> {
    let (replicas, disk_size) = match &origin.kept {
        Some(kept) => (kept.replicas, &kept.disk_size),
        None => (last.replicas, &last.disk_size),
    };
    let fields = [
        ("namespace", request.namespace == last.namespace, last.namespace.to_string()),
        ("replicas", request.replicas == replicas, replicas.to_string()),
        ("disk_size", request.disk_size == *disk_size, disk_size.to_string()),
    ];
    let misfit = |(field, _, kept): (&str, bool, String)| {
        FieldError::new(
            field,
            format!(
                "has to be `{kept}`, as that of the data that was kept: create it so and change it then, or DELETE the data"
            ),
        )
    };
    fields.into_iter().filter(|(_, fits, _)| !fits).map(misfit).collect()
}

fn unreadable(workflow: WorkflowId) -> Problem {
    tracing::error!(%workflow, "what a workflow of a service has in the journal cannot be read by this build");
    Problem::internal()
}
