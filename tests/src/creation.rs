//! One creation, or a change or deletion of what it has made, asked of the real program by a client that was not told to give
//! up: it asks again with the same key.

use anyhow::{Context as _, ensure};
use cairn_engine::{Outcome, WorkflowId};
use cairn_steps::report::{DELETE_STATUSES, FAILED, STATUSES, UPDATE_STATUSES};
use http::Method;
use serde_json::{Value, json};

use crate::{
    client::{Answer, Client},
    oracle::Told,
    program::Cairn,
    site::{Site, statuses},
};

/// What it asks for: three nodes, with a GPU each, so that no step is skipped but the pull.
#[must_use]
pub fn request() -> Value {
    json!({ "user": "acme", "service_name": "search", "replicas": 2, "gpu_count": 1 })
}

/// Submits as a client that wants an answer does: with a key, which makes asking again safe. `wait` is what follows the
/// path, such as `?wait=60s`.
///
/// # Errors
/// If there is no answer.
pub async fn submit(client: &Client, wait: &str) -> anyhow::Result<Answer> {
    client.post_with(&format!("/clusters{wait}"), &request(), &[("idempotency-key", "first")]).await
}

/// What is done to a cluster that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// Everything that can change changes.
    Change,
    /// It is deleted, with its data.
    Delete,
}

impl Later {
    /// Asks for it, as [`submit`] asks for the creation.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn submit(self, client: &Client, wait: &str) -> anyhow::Result<Answer> {
        let (method, body) = match self {
            Self::Change => {
                let change = json!({ "replicas": 3, "cpu_limit": "3", "disk_size": "30Gi" });
                (Method::PATCH, Some(change.to_string().into_bytes()))
            }
            Self::Delete => (Method::DELETE, None),
        };
        client.send(method, &format!("/clusters/acme/search{wait}"), &[("idempotency-key", "second")], body).await
    }

    /// After all kills: it ends as it should, and everything about it and the creation `before` it is in order.
    ///
    /// # Errors
    /// Whatever is not.
    pub async fn ends(self, site: &Site, cairn: &Cairn, mut told: Vec<Told>, before: WorkflowId) -> anyhow::Result<()> {
        let answer = self.submit(&cairn.client, "?wait=60s").await?.expect(200)?;
        let reports = cairn.client.get("/deployment/reports/acme/search").await?.expect(200)?.json()?;
        let more = match self {
            Self::Change => UPDATE_STATUSES,
            Self::Delete => DELETE_STATUSES,
        };
        let all: Vec<&str> = STATUSES.into_iter().chain(more).collect();
        ensure!(statuses(&reports) == all, "{:?}", statuses(&reports));
        let workflow = workflow_of(&answer)?;
        for workflow in [before, workflow] {
            told.extend([accepted(workflow), Told::Ended { workflow, outcome: Outcome::Succeeded }]);
        }
        site.judge(&cairn.client, told).await?;
        Ok(())
    }
}

/// The workflow that this answer is about.
///
/// # Errors
/// If it names none.
pub fn workflow_of(answer: &Answer) -> anyhow::Result<WorkflowId> {
    let body = answer.json()?;
    let id = ["id", "workflow_id"].into_iter().find_map(|field| body[field].as_str());
    Ok(id.with_context(|| format!("no workflow in {body}"))?.parse()?)
}

/// What a client was told that was given this workflow.
#[must_use]
pub fn accepted(workflow: WorkflowId) -> Told {
    Told::Accepted { workflow, tenant: "acme".to_owned(), service: "search".to_owned(), input: None }
}

/// After all kills: the creation ends as it should, and everything about it is in order.
///
/// # Errors
/// Whatever is not.
pub async fn ends(site: &Site, cairn: &Cairn, mut told: Vec<Told>, failing: bool) -> anyhow::Result<()> {
    let answer = submit(&cairn.client, "?wait=60s").await?;
    let reports = cairn.client.get("/deployment/reports/acme/search").await?.expect(200)?.json()?;
    let (outcome, status) = if failing { (Outcome::Failed, 500) } else { (Outcome::Succeeded, answer.status) };
    // 201 where nobody knew of it before, 200 where the first answer was only lost.
    ensure!(answer.status == status && (failing || status == 201 || status == 200), "{answer:?}");
    let statuses = statuses(&reports);
    if failing {
        ensure!(statuses.last().is_some_and(|last| last == FAILED), "{statuses:?}");
    } else {
        ensure!(statuses == STATUSES, "{statuses:?}");
    }
    let workflow = workflow_of(&answer)?;
    told.extend([accepted(workflow), Told::Ended { workflow, outcome }]);
    site.judge(&cairn.client, told).await?;
    Ok(())
}
