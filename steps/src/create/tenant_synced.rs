//! Step 9, `tenant_synced`: puts endpoints and versions into the tenant's record.
//!
//! The record changes in the very batch that journals this step's success, and goes with the workflow's failure: there is
//! nothing outside the journal to write, to look for, or to take back.

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};
use serde::Serialize;

use super::plan::{elastic, endpoints};
use crate::elastic::Elastic;
use crate::names;
use crate::request::Request;

/// The step's name, and the status of its report.
pub(super) const NAME: &str = "tenant_synced";

pub(super) struct TenantSynced;

/// What the record shows from here on.
#[derive(Serialize)]
struct Recorded {
    endpoints: Endpoints,
    versions: Versions,
    images: Images,
    /// The Secret with password and authority: its name, never a value.
    credentials: String,
}

#[derive(Serialize)]
struct Endpoints {
    elasticsearch: String,
    kibana: String,
}

#[derive(Serialize)]
struct Versions {
    elasticsearch: String,
    kibana: String,
}

/// Where the images came from.
#[derive(Serialize)]
struct Images {
    elasticsearch: String,
    kibana: String,
}

#[async_trait]
impl Step for TenantSynced {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let request: Request = cx.input()?;
        let (elasticsearch, kibana) = endpoints(request.namespace.as_str());
        let recorded = recorded(&elastic(cx), Endpoints { elasticsearch, kibana }, &request);
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

fn recorded(elastic: &Elastic, endpoints: Endpoints, request: &Request) -> Recorded {
    let version = || elastic.version().to_owned();
    Recorded {
        endpoints,
        versions: Versions { elasticsearch: version(), kibana: version() },
        images: Images {
            elasticsearch: elastic.elasticsearch_image().to_owned(),
            kibana: elastic.kibana_image().to_owned(),
        },
        credentials: format!("Secret/{} in namespace {}", names::SECRET, request.namespace),
    }
}
