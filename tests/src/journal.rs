//! Journals without an engine: workflows of two steps, written to a store as an engine would, quick to make.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use cairn_engine::{
    Amounts, Attempt, CommitNumber, Effect, ErrorClass, Fact, Failure, Hash, Json, OnFailure, Outcome, Output, Probe,
    Sequence, StepName, Submitted, Timestamp, WorkflowId,
    store::{Append, DurableOptions, Store},
};

use crate::site::Numbers;

/// When everything in them happens.
const NOW: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// A journal in `dir` with segments of 4 KiB, so that a small one has many, and no demands on the disk.
#[must_use]
pub fn small(dir: &std::path::Path) -> DurableOptions {
    let (segment_bytes, disk_floor_bytes, ballast_bytes) = (4 * 1024, 0, 0);
    DurableOptions { segment_bytes, disk_floor_bytes, ballast_bytes, now: NOW, ..DurableOptions::new(dir) }
}

/// What one workflow still has to gain, append by append.
struct Ahead {
    workflow: WorkflowId,
    sequence: Sequence,
    appends: Vec<Vec<Fact>>,
}

/// Writes `workflows` workflows, some at the same time, some that fail, with small outputs and large ones. Calls `told`
/// with the head after each commit that was acknowledged; the same seed writes the same.
///
/// # Errors
/// If the store refuses or fails, or `told` does.
pub fn write(
    store: &dyn Store,
    numbers: &mut Numbers,
    workflows: usize,
    mut told: impl FnMut((CommitNumber, Hash)) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut left = workflows;
    let mut ahead: Vec<Ahead> = Vec::new();
    while left > 0 || !ahead.is_empty() {
        while left > 0 && ahead.len() < 4 {
            ahead.push(Ahead::new(store.head().0, numbers, left)?);
            left -= 1;
        }
        let together = usize::try_from(1 + numbers.below(ahead.len() as u64))?;
        let mut appends = Vec::new();
        for next in &mut ahead[..together] {
            let facts = next.appends.remove(0);
            let expected = next.sequence;
            next.sequence = Sequence(expected.0 + facts.len() as u64);
            appends.push(Append {
                workflow: next.workflow,
                expected,
                token: store.token(),
                facts,
                quota: Amounts::new(),
            });
        }
        let answers = store.commit(appends, NOW).context("the store fails")?;
        ensure!(answers.iter().all(Result::is_ok), "{answers:?}");
        told(store.head())?;
        ahead.rotate_left(together);
        ahead.retain(|next| !next.appends.is_empty());
    }
    Ok(())
}

impl Ahead {
    fn new(after: CommitNumber, numbers: &mut Numbers, left: usize) -> anyhow::Result<Self> {
        let mut id = [0x70; 16];
        id[..8].copy_from_slice(&after.0.to_be_bytes());
        id[8..].copy_from_slice(&(left as u64).to_be_bytes());
        let mut appends = vec![vec![Fact::Submitted(submitted(&format!("s{}-{left}", after.0))?)]];
        if numbers.below(3) == 0 {
            appends.extend(failure());
        } else {
            // Most outputs fit a sector, some take a page or two.
            let bytes = if numbers.below(5) == 0 { numbers.below(6_000) } else { numbers.below(300) };
            appends.extend(success(usize::try_from(bytes)?)?);
        }
        Ok(Self { workflow: WorkflowId::from_bytes(id), sequence: Sequence(0), appends })
    }
}

fn submitted(service: &str) -> anyhow::Result<Submitted> {
    Ok(Submitted {
        definition: "create".into(),
        version: 1,
        fingerprint: Hash([7; 32]),
        steps: vec!["one".into(), "two".into()],
        effect: Effect::Create,
        tenant: "acme".into(),
        service: service.into(),
        input: Json::of(&BTreeMap::from([("replicas", 1)]))?,
        key: Some(format!("key-{service}").as_str().into()),
        body_hash: Hash([8; 32]),
        who: "alice".into(),
        holds: [("clusters".into(), 1)].into(),
        on_failure: OnFailure::Rollback,
    })
}

fn started(step: &str) -> Fact {
    Fact::AttemptStarted { step: step.into(), attempt: Attempt(1) }
}

fn succeeded(step: &str, bytes: usize) -> anyhow::Result<Fact> {
    let output = Output::new(format!("{step} is done"), &"x".repeat(bytes))?;
    Ok(Fact::AttemptSucceeded { step: step.into(), attempt: Attempt(1), output })
}

fn finished(outcome: Outcome) -> Fact {
    Fact::Finished { outcome, residue: Vec::new() }
}

fn success(bytes: usize) -> anyhow::Result<Vec<Vec<Fact>>> {
    Ok(vec![
        vec![started("one")],
        vec![succeeded("one", bytes)?, started("two")],
        vec![succeeded("two", bytes / 2)?, finished(Outcome::Succeeded)],
    ])
}

fn failure() -> Vec<Vec<Fact>> {
    let (step, attempt) = (StepName::new("one"), Attempt(1));
    let error =
        Failure { class: ErrorClass::Permanent, message: "not today".to_owned(), evidence: vec!["event".to_owned()] };
    let failed = Fact::AttemptFailed { step: step.clone(), attempt, error, retry_at: None };
    let probed = Fact::Probed { step: step.clone(), attempt, answer: Probe::NotApplied, retry_at: None };
    let begun = Fact::CompensationStarted { step: step.clone(), attempt };
    let gone = Fact::CompensationSucceeded { step, attempt, message: "gone".to_owned() };
    vec![vec![started("one")], vec![failed, probed, begun], vec![gone, finished(Outcome::Failed)]]
}

#[cfg(test)]
mod tests {
    use cairn_engine::store::{MemoryStore, verify};

    use super::*;

    #[test]
    fn what_is_written_is_a_good_journal_and_the_same_for_the_same_seed() {
        let written = |seed| {
            let store = MemoryStore::new();
            let mut acknowledged = 0;
            let mut told = |head: (CommitNumber, _)| {
                acknowledged = head.0.0;
                Ok(())
            };
            write(&store, &mut Numbers::of(seed), 20, &mut told).expect("it is admitted");
            let commits = store.commits(CommitNumber(0), usize::MAX).expect("it reads");
            assert_eq!(acknowledged, commits.len() as u64);
            commits
        };
        let commits = written(1);
        assert_eq!(written(1), commits);
        assert_ne!(written(2), commits);
        let verified = verify(commits.into_iter().map(Ok)).expect("it is good");
        assert_eq!((verified.workflows, verified.active), (20, 0));
    }
}
