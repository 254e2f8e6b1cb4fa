//! The judge of a world: the oracle that judges every suite, and what only this cluster can tell.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use cairn_engine::{
    Commit, CommitNumber, Effect, Fact, Outcome, StepName, Submitted, WorkflowId,
    store::{Store as _, verify},
};
use cairn_tests::oracle::{Evidence, check_engine};

use crate::{
    clients::quota,
    cluster::{Object, What},
    steps::{ATTEMPTS_OF_FEW, Input, PARTS, Uids, Wanted, part_of},
    world::World,
};

/// How many workflows a journal has.
pub(crate) fn workflows(journal: &[Commit]) -> usize {
    histories(journal).len()
}

/// What has happened to the objects of one mark, and what must be there of them.
#[derive(Default)]
struct Marked {
    there: There,
    /// None if an end by force has left it open.
    version: Option<u64>,
    made_by: Option<WorkflowId>,
    place: (String, String),
}

#[derive(Debug, Default, PartialEq, Eq)]
enum There {
    #[default]
    Nothing,
    /// These, by name and UID.
    All(BTreeMap<String, String>),
    /// These names.
    Listed(BTreeSet<String>),
    /// Nobody could look.
    Unknown,
}

/// I9, I14, I15: once all has ended, everything of a service is there, or nothing is.
pub(crate) fn at_rest(world: &World) -> anyhow::Result<()> {
    let journal = world.kept.commits(CommitNumber(0), usize::MAX)?;
    let objects = world.cluster.objects();
    let mut expected: BTreeMap<String, Marked> = BTreeMap::new();
    for history in histories(&journal).values() {
        let Wanted { mark, version } = history.request()?;
        let marked = expected.entry(mark).or_default();
        let Some((outcome, residue)) = history.end() else {
            // Said by who has waited for it. What is there of it is anybody's guess.
            marked.there = There::Unknown;
            continue;
        };
        match (history.submitted.effect, outcome) {
            (Effect::Create, outcome) => {
                marked.made_by = Some(history.id);
                marked.place = (history.submitted.tenant.to_string(), history.submitted.service.to_string());
                marked.version = Some(version);
                marked.there = match outcome {
                    Outcome::Succeeded => There::All(history.made()?),
                    _ if residue.is_empty() => There::Nothing,
                    _ if residue.iter().any(|line| line.starts_with("unknown")) => There::Unknown,
                    _ => There::Listed(residue.iter().cloned().collect()),
                };
            }
            (Effect::Update, Outcome::Succeeded) => marked.version = Some(version),
            (Effect::Update, _) if !residue.is_empty() => marked.version = None,
            (Effect::Delete, Outcome::Succeeded) => marked.there = There::Nothing,
            (Effect::Update | Effect::Delete, _) => {}
        }
    }
    for (mark, marked) in &expected {
        if let Some(how) = differs(mark, marked, &objects) {
            let made_by = marked.made_by.map(|id| id.to_string()).unwrap_or_default();
            world.notes.broken(format!("I14: of {made_by}, {:?} should be there: {how}", marked.there));
        }
    }
    for (name, object) in &objects {
        if object.mark.as_ref().is_some_and(|mark| !expected.contains_key(mark)) {
            world.notes.broken(format!("I14: {name} is there, and no workflow's: {object:?}"));
        }
    }
    foreign(world, &objects);
    Ok(())
}

fn differs(mark: &str, marked: &Marked, objects: &BTreeMap<String, Object>) -> Option<String> {
    let ours: BTreeMap<&String, &Object> =
        objects.iter().filter(|(_, object)| object.mark.as_deref() == Some(mark)).collect();
    let (tenant, service) = &marked.place;
    let is_so = match &marked.there {
        There::Nothing => ours.is_empty(),
        There::Unknown => true,
        There::Listed(names) => ours.keys().copied().eq(names),
        There::All(uids) => {
            let space = part_of(tenant, service, PARTS[0]);
            let version = ours.get(&space).map(|object| object.version);
            ours.iter().map(|(name, object)| (*name, &object.uid)).eq(uids)
                && ours.len() == PARTS.len()
                && marked.version.is_none_or(|wanted| version == Some(wanted))
        }
    };
    (!is_so).then(|| format!("{ours:?}"))
}

/// Everything that must hold once all is deleted.
pub(crate) fn after_all(world: &World) -> anyhow::Result<()> {
    let journal = world.kept.commits(CommitNumber(0), usize::MAX)?;
    let broken = |what: String| world.notes.broken(what);
    let objects = world.cluster.objects();
    if objects != world.foreign {
        broken(format!("I14: all was deleted, and there is {objects:?}"));
    }
    foreign(world, &objects);
    let records = world.kept.services(None)?;
    let mut usage = BTreeMap::new();
    for record in &records {
        usage.insert(record.tenant.clone(), world.kept.usage(&record.tenant)?);
    }
    for (tenant, used) in usage.iter().filter(|(_, used)| !used.is_empty()) {
        broken(format!("I22: all was deleted, and {tenant} is charged {used:?}"));
    }
    for (name, log) in world.cluster.log() {
        let made = log.iter().filter(|change| change.what == What::Made);
        let mut marks = BTreeSet::new();
        for change in made {
            if !marks.insert(&change.object.mark) {
                broken(format!("I9: {name} was made again by {}", change.workflow));
            }
        }
    }
    let histories = histories(&journal);
    let keys: BTreeSet<_> = histories.values().filter_map(|history| history.submitted.key.clone()).collect();
    for key in world.clients.refused().iter().filter(|key| keys.contains(key)) {
        broken(format!("I26: {key} was refused, and is in the journal"));
    }
    for history in histories.values() {
        attempts(history, &mut |what| broken(what));
    }
    count(world, &journal);
    match verify(journal.iter().cloned().map(Ok)) {
        Ok(verified) if (verified.workflows, verified.active) == (histories.len() as u64, 0) => {}
        Ok(verified) => broken(format!("I27: {} workflows, and verify counts {verified:?}", histories.len())),
        Err(bad) => broken(format!("I27: {bad}")),
    }
    let evidence = Evidence {
        told: world.clients.told(),
        commits: journal,
        records: Some(records),
        usage,
        quota: quota(),
        at_rest: true,
        ..Evidence::default()
    };
    for violation in check_engine(&evidence) {
        broken(violation.to_string());
    }
    Ok(())
}

/// I15: what is somebody else's is as it was.
fn foreign(world: &World, objects: &BTreeMap<String, Object>) {
    for (name, object) in &world.foreign {
        if objects.get(name) != Some(object) {
            world.notes.broken(format!("I15: {name} was somebody else's, and is {:?}", objects.get(name)));
        }
    }
}

/// I12: no step is attempted more often than its policy says, but where a person wants it.
fn attempts(history: &History<'_>, broken: &mut dyn FnMut(String)) {
    let few = ["checked", "changed"];
    let mut since: BTreeMap<&StepName, u32> = BTreeMap::new();
    for fact in &history.facts {
        match fact {
            Fact::AttemptStarted { step, .. } => {
                let count = since.entry(step).or_default();
                *count += 1;
                if few.contains(&step.as_str()) && *count > ATTEMPTS_OF_FEW {
                    broken(format!("I12: {} attempts {step} for the {count}th time", history.id));
                }
            }
            // What was attempted before does not count any more.
            Fact::RetryRequested { .. } => since.clear(),
            _ => {}
        }
    }
}

/// How often what is in the journal.
fn count(world: &World, journal: &[Commit]) {
    for entry in journal.iter().flat_map(|commit| &commit.entries) {
        match &entry.fact {
            Fact::Probed { .. } => world.notes.count("probes"),
            Fact::Parked { .. } => world.notes.count("parked"),
            Fact::CompensationSucceeded { .. } => world.notes.count("compensations"),
            Fact::Finished { outcome: Outcome::Succeeded, .. } => world.notes.count("succeeded"),
            Fact::Finished { outcome: Outcome::Failed, .. } => world.notes.count("failed"),
            Fact::Finished { outcome: Outcome::Cancelled, .. } => world.notes.count("ended cancelled"),
            _ => {}
        }
    }
}

/// A workflow's journal.
struct History<'a> {
    id: WorkflowId,
    submitted: &'a Submitted,
    facts: Vec<&'a Fact>,
}

/// By number of their first commit: in the order of their submission.
fn histories(journal: &[Commit]) -> BTreeMap<usize, History<'_>> {
    let mut places: BTreeMap<WorkflowId, usize> = BTreeMap::new();
    let mut histories: BTreeMap<usize, History<'_>> = BTreeMap::new();
    for entry in journal.iter().flat_map(|commit| &commit.entries) {
        let next = places.len();
        let place = *places.entry(entry.workflow).or_insert(next);
        if let Fact::Submitted(submitted) = &entry.fact {
            histories.insert(place, History { id: entry.workflow, submitted, facts: Vec::new() });
        }
        if let Some(history) = histories.get_mut(&place) {
            history.facts.push(&entry.fact);
        }
    }
    histories
}

impl History<'_> {
    fn request(&self) -> anyhow::Result<Wanted> {
        let input: Input = self.submitted.input.read().with_context(|| self.id.to_string())?;
        Ok(input.request)
    }

    fn end(&self) -> Option<(Outcome, &[String])> {
        self.facts.iter().rev().find_map(|fact| match fact {
            Fact::Finished { outcome, residue } => Some((*outcome, residue.as_slice())),
            _ => None,
        })
    }

    /// What its steps say they have made.
    fn made(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut made = BTreeMap::new();
        for fact in &self.facts {
            if let Fact::AttemptSucceeded { output, .. } = fact
                && !output.skipped
            {
                made.extend(output.result.read::<Uids>()?.0);
            }
        }
        Ok(made)
    }
}
