//! One creation, asked of the real program by a client that was not told to give up: it asks again with the same key.

use anyhow::{Context as _, ensure};
use cairn_engine::{Outcome, WorkflowId};
use cairn_steps::report::{FAILED, STATUSES};
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
