//! A cluster on its worse days, in process: each call of a creation, in turn, goes wrong in each way, and the engine lives
//! on. It ends as if nothing had been, with no effect twice; what must hold is the oracle's to say.

mod somebody;

use anyhow::{Context as _, bail, ensure};
use cairn_engine::Outcome;
use cairn_steps::sandbox::{Fault, FaultAction, FaultMatch};
use cairn_tests::{
    oracle::verdict,
    world::{World, request},
};

/// The ways in which one call can go wrong that another attempt cures.
fn ways() -> Vec<(&'static str, FaultAction)> {
    let status = |code, retry_after| FaultAction::Status { code, retry_after };
    vec![
        ("lost before", FaultAction::DropBefore),
        ("lost after it was applied", FaultAction::DropAfter),
        ("429 with Retry-After", status(429, Some(3))),
        ("429", status(429, None)),
        ("500", status(500, None)),
        ("503", status(503, None)),
        ("504", status(504, None)),
    ]
}

/// One creation with these faults; returns how it ended, and how many calls it made.
fn creation(faults: &[Fault], failing: Option<&str>) -> anyhow::Result<(Outcome, u64)> {
    World::run(async |mut world: World| {
        world.add_foreign().await?;
        for fault in faults {
            world.sandbox.faults().add(fault.clone());
        }
        let running = world.open(None, failing).await?;
        let workflow = world.submit(&running, &request("acme", "search")).await?.context("the journal is well")?;
        let state = world.settle(&running, workflow).await?.context("nobody ends this life")?;
        let (_, calls) = running.life.counts();
        world.rest().await;
        let verdict = verdict(&world.evidence(true)?);
        ensure!(verdict.is_empty(), "violations:\n{verdict}");
        let idle = world.sandbox.faults().list().into_iter().find(|fault| fault.fired == 0);
        ensure!(idle.is_none(), "this fault met no call: {idle:?}");
        let outcome = state.outcome().with_context(|| format!("parked: {:?}", state.phase()))?;
        Ok((outcome, calls))
    })
}

fn at_call(call: u64, times: u64, action: &FaultAction) -> Fault {
    let when = FaultMatch { skip: call - 1, times: Some(times), ..FaultMatch::default() };
    Fault { when, action: action.clone() }
}

/// Each call in turn goes wrong `times` times in a row, in each way.
fn sweep(failing: Option<&str>, times: u64) -> anyhow::Result<()> {
    let (end, calls) = creation(&[], failing).context("the clean run")?;
    let mut faults = Vec::new();
    let mut points = 0;
    for call in 1..=calls {
        for (name, action) in ways() {
            points += 1;
            match creation(&[at_call(call, times, &action)], failing) {
                Ok((outcome, _)) if outcome == end => {}
                Ok((outcome, _)) => faults.push(format!("call {call}, {name}: ended {outcome:?}")),
                Err(error) => faults.push(format!("call {call}, {name}: {error:#}")),
            }
        }
    }
    println!("{failing:?} failing, {times} in a row: points swept {points}, violations {}", faults.len());
    if !faults.is_empty() {
        bail!("{}", faults.iter().take(5).cloned().collect::<Vec<_>>().join("\n\n"));
    }
    Ok(())
}

#[test]
fn whichever_call_goes_wrong_a_creation_succeeds() -> anyhow::Result<()> {
    sweep(None, 1)
}

#[test]
fn whichever_call_goes_wrong_in_a_rollback_nothing_is_left() -> anyhow::Result<()> {
    sweep(Some("gpu_configured"), 1)
}

#[test]
fn three_calls_in_a_row_that_go_wrong_spoil_nothing() -> anyhow::Result<()> {
    sweep(None, 3)
}
