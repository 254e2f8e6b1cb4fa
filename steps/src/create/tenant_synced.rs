//! Step 9, `tenant_synced`: puts endpoints and versions into the tenant's record.
//!
//! The record changes in the very batch that journals this step's success, and goes with the workflow's failure: there is
//! nothing outside the journal to write, to look for, or to take back.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::plan::endpoints;
use crate::render::ELASTIC_VERSION;
use crate::request::Request;

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "tenant_synced";

pub(super) struct TenantSynced;

/// What the record shows from here on.
#[derive(Serialize)]
struct Recorded {
    endpoints: Endpoints,
    versions: Versions,
}

#[derive(Serialize)]
struct Endpoints {
    elasticsearch: String,
    kibana: String,
}

#[derive(Serialize)]
struct Versions {
    elasticsearch: &'static str,
    kibana: &'static str,
}

#[async_trait]
impl Step for TenantSynced {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let request: Request = cx.input()?;
        let (elasticsearch, kibana) = endpoints(request.namespace.as_str());
        let recorded = Recorded {
            endpoints: Endpoints { elasticsearch, kibana },
            versions: Versions { elasticsearch: ELASTIC_VERSION, kibana: ELASTIC_VERSION },
        };
        let message = format!("recorded the endpoints of {}/{}", request.user, request.service_name);
        Ok(Output::new(message, &recorded)?.with_record(&recorded)?)
    }

    async fn probe(&self, _: &StepContext) -> Result<Probe, StepError> {
        Ok(Probe::NotApplied)
    }

    async fn compensate(&self, _: &StepContext) -> Result<String, StepError> {
        Ok("the record goes with the end of the workflow".to_owned())
    }
}
