//! Step 3, `gitlab_pulled`: pulls the settings, if the request names any.
//!
//! The content is in the output: later steps, and a resume, use these bytes and never newer ones (I11).

use async_trait::async_trait;
use cairn_engine::{Output, Probe, Step, StepContext, StepError, StepName};

use crate::gitlab::GitLab;
use crate::request::Request;

/// The step's name, and the status of its report.
pub(crate) const NAME: &str = "gitlab_pulled";

pub(super) struct GitlabPulled {
    pub(super) gitlab: GitLab,
}

#[async_trait]
impl Step for GitlabPulled {
    fn name(&self) -> StepName {
        NAME.into()
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        let request: Request = cx.input()?;
        let Some(url) = &request.gitlab_url else {
            return Ok(Output::skipped("no gitlab_url was given"));
        };
        let pulled = self.gitlab.pull(url, request.user.as_str()).await?;
        let digest = &pulled.sha256[..12];
        let at = match (&pulled.reference, &pulled.commit) {
            (Some(reference), Some(commit)) => format!("{reference} at commit {}", &commit[..12]),
            _ => "no commit is known: this is no file of a GitLab project".to_owned(),
        };
        let (keys, bytes) = (pulled.keys.len(), pulled.bytes);
        let message = format!("pulled {keys} settings ({bytes} bytes, sha256 {digest}…; {at})");
        Ok(Output::new(message, &pulled)?)
    }

    async fn probe(&self, _: &StepContext) -> Result<Probe, StepError> {
        // A pull leaves nothing in the world; what it brought went with the crash.
        Ok(Probe::NotApplied)
    }

    async fn compensate(&self, _: &StepContext) -> Result<String, StepError> {
        Ok("nothing was made".to_owned())
    }
}
