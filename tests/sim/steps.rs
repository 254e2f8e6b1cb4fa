//! Three definitions over the simulated cluster: one makes a service's objects, one changes them, one removes them.
//!
//! The steps keep the rules that those of Cairn keep: a refusal after something was done counts as unknown, what a probe has
//! found is known from then on, and a compensation takes back what bears the mark.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use cairn_engine::{
    Definition, Effect, ErrorClass, Json, Output, Probe, Registry, Residue, RetryPolicy, Step, StepContext, StepError,
    StepName,
};
use serde::{Deserialize, Serialize};

use crate::cluster::{Answer, Object, Request, Way};

pub(crate) const CREATE: &str = "create";
pub(crate) const CHANGE: &str = "change";
pub(crate) const DELETE: &str = "delete";

/// What a service consists of; the first has its version.
pub(crate) const PARTS: [&str; 4] = ["space", "left", "right", "door"];

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// What all objects bear.
    pub(crate) mark: String,
    pub(crate) version: u64,
}

/// As it is journaled.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Input {
    pub(crate) request: Wanted,
    /// What a change goes back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<Wanted>,
}

/// What a step has made: the UIDs, by name.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Uids(pub(crate) BTreeMap<String, String>);

/// What can be done, on this way to the cluster.
pub(crate) fn definitions(way: &Way) -> Registry {
    let step = |name, does| Arc::new(Simulated { name, does, way: way.clone() }) as Arc<dyn Step>;
    let residue = |effect| Arc::new(Left { effect, way: way.clone() }) as Arc<dyn Residue>;
    let making = vec![
        step("checked", Does::Look),
        step("space_made", Does::Make { parts: &PARTS[..1], waits: false }),
        step("parts_made", Does::Make { parts: &PARTS[1..3], waits: false }),
        step("opened", Does::Make { parts: &PARTS[3..], waits: true }),
        step("looked_over", Does::LookOver),
    ];
    let changing = vec![step("changed", Does::Change), step("looked_over", Does::LookOver)];
    let removing = vec![step("checked", Does::Look), step("removed", Does::Remove)];
    Registry::new([
        Definition::new(CREATE, 1, Effect::Create, making, residue(Effect::Create)),
        Definition::new(CHANGE, 1, Effect::Update, changing, residue(Effect::Update)),
        Definition::new(DELETE, 1, Effect::Delete, removing, residue(Effect::Delete)).irreversible(&["removed"]),
    ])
}

/// The name of a part of this service.
pub(crate) fn part_of(tenant: &str, service: &str, part: &str) -> String {
    format!("{tenant}/{service}/{part}")
}

struct Simulated {
    name: &'static str,
    does: Does,
    way: Way,
}

#[derive(Clone, Copy)]
enum Does {
    /// Reads, and does nothing.
    Look,
    /// Makes these parts.
    Make { parts: &'static [&'static str], waits: bool },
    /// Gives the service another version.
    Change,
    /// Removes all parts.
    Remove,
    /// Reads everything back.
    LookOver,
}

#[async_trait]
impl Step for Simulated {
    fn name(&self) -> StepName {
        self.name.into()
    }

    fn policy(&self) -> RetryPolicy {
        match self.does {
            // Soon at its end, so that this is met as well.
            Does::Look | Does::Change => RetryPolicy { attempts_max: ATTEMPTS_OF_FEW, ..RetryPolicy::default() },
            Does::Make { waits: true, .. } => {
                RetryPolicy { attempt_timeout: Duration::from_secs(600), ..RetryPolicy::default() }
            }
            Does::Make { .. } | Does::Remove | Does::LookOver => RetryPolicy::default(),
        }
    }

    async fn run(&self, cx: &StepContext) -> Result<Output, StepError> {
        match self.does {
            Does::Look => {
                self.find(cx, &PARTS).await?;
                Ok(Output::skipped("there is nothing to do"))
            }
            Does::Make { parts, waits } => self.make(cx, parts, waits).await,
            Does::Change => {
                let Input { request, .. } = cx.input()?;
                let found = self.find(cx, &PARTS[..1]).await?;
                let Some((name, object)) = ours(&found, &request.mark).next() else {
                    return Err(StepError::permanent("there is nothing to change"));
                };
                self.set(cx, name, object, request.version).await?;
                Ok(Output::new("changed", &request)?)
            }
            Does::Remove => {
                self.remove(cx, &PARTS).await?;
                Ok(Output::new("removed", &Uids::default())?)
            }
            Does::LookOver => {
                let Input { request, .. } = cx.input()?;
                let found = self.find(cx, &PARTS).await?;
                let there = ours(&found, &request.mark).count();
                if there < PARTS.len() {
                    return Err(StepError::permanent(format!("only {there} parts are there")));
                }
                Ok(Output::new("all is there", &Uids::default())?)
            }
        }
    }

    async fn probe(&self, cx: &StepContext) -> Result<Probe, StepError> {
        let Input { request, .. } = cx.input()?;
        match self.does {
            // Reading is done as soon as it is done again.
            Does::Look | Does::LookOver => Ok(Probe::NotApplied),
            Does::Make { parts, waits } => {
                let found = self.find(cx, parts).await?;
                let uids = Uids(
                    ours(&found, &request.mark).map(|(name, object)| (name.clone(), object.uid.clone())).collect(),
                );
                if found.len() > uids.0.len() {
                    return Ok(Probe::Foreign { detail: "what stands there is somebody else's".to_owned() });
                }
                Ok(match uids.0.len() {
                    0 => Probe::NotApplied,
                    // Whether it has waited long enough nobody can see.
                    all if all == parts.len() && !waits => Probe::Applied { output: Output::new("made", &uids)? },
                    _ => Probe::Partly { made: Json::of(&uids)? },
                })
            }
            Does::Change => {
                let found = self.find(cx, &PARTS[..1]).await?;
                let is_changed = ours(&found, &request.mark).any(|(_, object)| object.version == request.version);
                Ok(if is_changed {
                    Probe::Applied { output: Output::new("changed", &request)? }
                } else {
                    Probe::NotApplied
                })
            }
            Does::Remove => {
                let found = self.find(cx, &PARTS).await?;
                Ok(match ours(&found, &request.mark).count() {
                    0 => Probe::Applied { output: Output::new("removed", &Uids::default())? },
                    all if all == PARTS.len() => Probe::NotApplied,
                    _ => Probe::Partly { made: Json::of(&Uids::default())? },
                })
            }
        }
    }

    async fn compensate(&self, cx: &StepContext) -> Result<String, StepError> {
        match self.does {
            Does::Look | Does::LookOver | Does::Remove => Ok("there was nothing to take back".to_owned()),
            Does::Make { parts, .. } => {
                self.remove(cx, parts).await?;
                Ok(format!("took back {}", parts.len()))
            }
            Does::Change => {
                let Input { request, before } = cx.input()?;
                let found = self.find(cx, &PARTS[..1]).await?;
                let changed = ours(&found, &request.mark).find(|(_, object)| object.version == request.version);
                if let (Some((name, object)), Some(before)) = (changed, before) {
                    self.set(cx, name, object, before.version).await?;
                }
                Ok("as it was before".to_owned())
            }
        }
    }
}

/// So often a step may be attempted that soon gives up.
pub(crate) const ATTEMPTS_OF_FEW: u32 = 3;

impl Simulated {
    async fn make(&self, cx: &StepContext, parts: &[&str], waits: bool) -> Result<Output, StepError> {
        let Input { request: Wanted { mark, version }, .. } = cx.input()?;
        let made: Result<Vec<Uids>, _> = cx.made().iter().map(|made| made.read()).collect();
        let made = made.map_err(|error| StepError::permanent(format!("what was made cannot be read: {error}")))?;
        let known: BTreeSet<&String> = made.iter().flat_map(|made| made.0.keys()).collect();
        let mut uids = Uids::default();
        for name in names(cx, parts) {
            let known = known.contains(&name);
            let request = Request::Make { name: name.clone(), mark: mark.clone(), version, known };
            match self.way.ask(cx, self.name, request).await {
                Ok(Answer::Made(uid)) => drop(uids.0.insert(name, uid)),
                Ok(_) => return Err(StepError::permanent(format!("{name} is somebody else's"))),
                Err(error) => return Err(after(!uids.0.is_empty(), error)),
            }
        }
        if waits {
            let long = Duration::from_secs(1 + version * 7 % 200);
            cx.wait(tokio::time::sleep(long)).await.map_err(|error| after(true, error))?;
        }
        Ok(Output::new("made", &uids)?)
    }

    async fn find(&self, cx: &StepContext, parts: &[&str]) -> Result<BTreeMap<String, Object>, StepError> {
        match self.way.ask(cx, self.name, Request::Find { names: names(cx, parts) }).await? {
            Answer::Found(found) => Ok(found),
            _ => Ok(BTreeMap::new()),
        }
    }

    async fn set(&self, cx: &StepContext, name: &str, object: &Object, version: u64) -> Result<(), StepError> {
        let request = Request::Set { name: name.to_owned(), uid: object.uid.clone(), version };
        match self.way.ask(cx, self.name, request).await? {
            Answer::Done => Ok(()),
            _ => Err(StepError::permanent(format!("{name} has gone"))),
        }
    }

    /// Removes what is ours of these.
    async fn remove(&self, cx: &StepContext, parts: &[&str]) -> Result<(), StepError> {
        let Input { request, .. } = cx.input()?;
        let found = self.find(cx, parts).await?;
        let mut begun = false;
        for (name, object) in ours(&found, &request.mark) {
            let request = Request::Remove { name: name.clone(), uid: object.uid.clone() };
            self.way.ask(cx, self.name, request).await.map_err(|error| after(begun, error))?;
            begun = true;
        }
        Ok(())
    }
}

/// The error of an attempt that may have done something before it.
fn after(begun: bool, mut error: StepError) -> StepError {
    if begun && error.failure.class == ErrorClass::Transient {
        error.failure.class = ErrorClass::Unknown;
    }
    error
}

fn names(cx: &StepContext, parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| part_of(cx.tenant().as_str(), cx.service().as_str(), part)).collect()
}

fn ours<'a>(found: &'a BTreeMap<String, Object>, mark: &'a str) -> impl Iterator<Item = (&'a String, &'a Object)> {
    found.iter().filter(move |(_, object)| object.mark.as_deref() == Some(mark))
}

/// What a workflow has left behind.
struct Left {
    effect: Effect,
    way: Way,
}

#[async_trait]
impl Residue for Left {
    async fn look(&self, cx: &StepContext) -> Result<Vec<String>, StepError> {
        let Input { request, .. } = cx.input()?;
        let Answer::Found(found) = self.way.ask(cx, "residue", Request::List { mark: request.mark }).await? else {
            return Ok(Vec::new());
        };
        let is_left = |object: &Object| match self.effect {
            Effect::Create => true,
            Effect::Update => object.version == request.version,
            Effect::Delete => false,
        };
        Ok(found.into_iter().filter(|(_, object)| is_left(object)).map(|(name, _)| name).collect())
    }
}
