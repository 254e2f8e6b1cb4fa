//! The one judge: every invariant that can be told from what clients were told, the journal, the cluster and the records.
//!
//! - It shares no code with what it judges where that would hide a bug: the order of steps, the probes, the rollback
//!   and the quota are scanned here from the facts alone.
//! - What is not in the evidence is not judged: an empty tape breaks nothing.
//!
//! The numbers are those of the page of invariants (`I3`: no effect before its entry, and so on).

mod cluster;
mod journal;
mod records;
mod views;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use cairn_engine::{
    Amounts, Commit, Effect, Entry, Fact, Json, Outcome, Submitted, Tenant, WorkflowId, store::ServiceRecord,
};
use serde_json::Value;

pub use self::views::Views;
use crate::life::Event;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number, such as `I3`.
    pub invariant: &'static str,
    /// What breaks it.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// What a client was told, and so must be so.
#[derive(Clone, Debug)]
pub enum Told {
    /// This submission was accepted.
    Accepted {
        /// As this workflow.
        workflow: WorkflowId,
        /// Whose.
        tenant: String,
        /// For what.
        service: String,
        /// The request, where the client knows it as it is journaled.
        input: Option<Json>,
    },
    /// This workflow ended so.
    Ended {
        /// Which.
        workflow: WorkflowId,
        /// How.
        outcome: Outcome,
    },
}

/// A write that took effect on the cluster.
#[derive(Clone, Debug)]
pub struct Write {
    /// `create`, `update`, `patch`, `apply` or `delete`.
    pub verb: String,
    /// The object's kind.
    pub kind: String,
    /// Its namespace; empty where it has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The workflow whose annotation it bears.
    pub workflow: Option<String>,
    /// This write made it.
    pub made_it: bool,
    /// When, by a clock that can be compared with the journal's; none where it cannot.
    pub at_micros: Option<i64>,
}

impl Write {
    fn object(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// All that is known about a world.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What clients were told.
    pub told: Vec<Told>,
    /// The journal, from its first commit.
    pub commits: Vec<Commit>,
    /// What happened in which order, where the engine ran in this process.
    pub tape: Vec<Event>,
    /// Every write that took effect on the cluster, in order.
    pub writes: Vec<Write>,
    /// Every object that is in the cluster.
    pub objects: Vec<Value>,
    /// What was in the cluster before, and is nobody's business.
    pub foreign: Vec<Value>,
    /// The records of all services, where they are known.
    pub records: Option<Vec<ServiceRecord>>,
    /// What each tenant is charged, where it is known.
    pub usage: BTreeMap<Tenant, Amounts>,
    /// The most that any tenant may hold.
    pub quota: Amounts,
    /// The views on the disk, where there are any, once they have caught up.
    pub views: Option<Views>,
    /// Trouble is over and everything had the time to end.
    pub at_rest: bool,
}

/// One workflow's journal.
pub(crate) struct History<'a> {
    id: WorkflowId,
    submitted: &'a Submitted,
    entries: Vec<&'a Entry>,
}

impl History<'_> {
    fn outcome(&self) -> Option<(Outcome, &[String])> {
        self.entries.iter().rev().find_map(|entry| match &entry.fact {
            Fact::Finished { outcome, residue } => Some((*outcome, residue.as_slice())),
            _ => None,
        })
    }

    fn was_forced(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry.fact, Fact::CancelRequested { force: true, .. }))
    }

    fn is_parked(&self) -> bool {
        self.entries.last().is_some_and(|entry| matches!(entry.fact, Fact::Parked { .. }))
    }

    /// The request's namespace.
    fn namespace(&self) -> Option<String> {
        let input = self.submitted.input.value();
        let request = input.get("request").unwrap_or(&input);
        request.get("namespace")?.as_str().map(str::to_owned)
    }

    /// What the objects that it works on bear: the id of the workflow that first made them, which may be its own.
    fn mark(&self) -> String {
        let input = self.submitted.input.value();
        input["origin"]["mark"].as_str().map_or_else(|| self.id.to_string(), str::to_owned)
    }

    /// The data is to stay, or did before it.
    fn keeps_data(&self) -> bool {
        let input = self.submitted.input.value();
        match self.submitted.effect {
            Effect::Create => input.get("origin").is_some(),
            Effect::Delete => input["keep_data"] == true,
            Effect::Update => false,
        }
    }
}

/// Everything that is broken in this world.
#[must_use]
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Findings::default();
    let histories = histories(&evidence.commits, &mut found);
    engine(&histories, evidence, &mut found);
    cluster::ends(&histories, evidence, &mut found);
    cluster::order(&histories, &evidence.tape, &mut found);
    cluster::times(&histories, &evidence.writes, &mut found);
    cluster::writes(&histories, &evidence.writes, &mut found);
    cluster::foreign(evidence, &mut found);
    views::views(&histories, evidence, &mut found);
    found.0
}

/// What of it the journal, the clients and the records tell: for worlds whose steps and cluster are not Cairn's.
#[must_use]
pub fn check_engine(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Findings::default();
    engine(&histories(&evidence.commits, &mut found), evidence, &mut found);
    found.0
}

fn engine(histories: &[History<'_>], evidence: &Evidence, found: &mut Findings) {
    journal::chain(&evidence.commits, found);
    journal::told(&evidence.told, histories, found);
    journal::keys(histories, found);
    for history in histories {
        journal::history(history, evidence.at_rest, found);
    }
    records::quota(evidence, found);
    records::records(histories, evidence, found);
}

/// What [`check`] finds, as a text for a test's failure; empty if there is nothing.
#[must_use]
pub fn verdict(evidence: &Evidence) -> String {
    check(evidence).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[derive(Default)]
pub(crate) struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, invariant: &'static str, detail: impl Into<String>) {
        self.0.push(Violation { invariant, detail: detail.into() });
    }
}

fn histories<'a>(commits: &'a [Commit], found: &mut Findings) -> Vec<History<'a>> {
    let mut histories: Vec<History<'a>> = Vec::new();
    let mut places: BTreeMap<WorkflowId, usize> = BTreeMap::new();
    let mut headless = BTreeSet::new();
    for entry in commits.iter().flat_map(|commit| &commit.entries) {
        match (&entry.fact, places.get(&entry.workflow)) {
            (_, Some(place)) => histories[*place].entries.push(entry),
            (Fact::Submitted(submitted), None) => {
                places.insert(entry.workflow, histories.len());
                histories.push(History { id: entry.workflow, submitted, entries: vec![entry] });
            }
            (fact, None) => {
                if headless.insert(entry.workflow) {
                    found.add("I4", format!("workflow {} begins with {}", entry.workflow, fact.name()));
                }
            }
        }
    }
    histories
}

#[cfg(test)]
mod tests;
