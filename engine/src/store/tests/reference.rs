//! What a store must answer, told plainly: from the list of all that was admitted, read anew each time, without an index.
//!
//! Which facts may follow which is not told here: `state_space` tries all of that.

use std::collections::BTreeMap;

use crate::{
    entry::Entry,
    fact::{Amounts, Effect, Fact, Outcome, Submitted},
    ids::{Hash, Service, Tenant, WorkflowId},
    store::{Append, Refusal},
};

/// A workflow, as far as others meet it.
#[derive(Clone, Debug)]
struct Known {
    workflow: WorkflowId,
    submitted: Submitted,
    entries: u64,
    /// How it ended, and whether nothing was left; none while it is active.
    end: Option<(Outcome, bool)>,
}

/// What a service is after some of its workflows.
#[derive(Clone, Debug, Default)]
struct Is {
    live: bool,
    busy: bool,
    holds: Amounts,
    last: Option<WorkflowId>,
}

/// All that was admitted, in order.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    known: Vec<Known>,
}

impl Reference {
    /// Sees that a store has answered an append as it must, and takes in what it admitted.
    pub(crate) fn hear(&mut self, append: &Append, answer: &Result<Vec<Entry>, Refusal>) {
        let (Err(found) | Ok(found)) = answer.as_ref().map(|_| None).map_err(|refusal| Some(refusal.clone()));
        // A fact that may not follow is the last thing that is looked at.
        let told = found.filter(|refusal| !matches!(refusal, Refusal::Illegal { .. }));
        assert_eq!(told, self.refusal(append), "{append:?}\n{self:#?}");
        for entry in answer.iter().flatten() {
            self.take_in(entry);
        }
    }

    fn take_in(&mut self, entry: &Entry) {
        if let Fact::Submitted(submitted) = &entry.fact {
            let (workflow, submitted) = (entry.workflow, submitted.clone());
            self.known.push(Known { workflow, submitted, entries: 0, end: None });
        }
        let known = self.known.iter_mut().find(|known| known.workflow == entry.workflow).expect("it was submitted");
        known.entries += 1;
        if let Fact::Finished { outcome, residue } = &entry.fact {
            known.end = Some((*outcome, residue.is_empty()));
        }
    }

    fn refusal(&self, append: &Append) -> Option<Refusal> {
        let Append { workflow, expected, facts, quota, .. } = append;
        let known = self.known.iter().find(|known| known.workflow == *workflow);
        let actual = crate::ids::Sequence(known.map_or(0, |known| known.entries));
        if *expected != actual {
            return Some(Refusal::Sequence { workflow: *workflow, expected: *expected, actual });
        }
        match (known, facts.first()) {
            (None, Some(Fact::Submitted(submitted))) => self.submission_refused(submitted, quota),
            _ => None,
        }
    }

    fn submission_refused(&self, submitted: &Submitted, limits: &Amounts) -> Option<Refusal> {
        let Submitted { tenant, service, effect, key, body_hash, holds, .. } = submitted;
        if let Some(key) = key
            && let Some((workflow, hash)) = self.submission(tenant, &key.to_string())
        {
            return Some(Refusal::KeyUsed { workflow, same_body: hash == *body_hash });
        }
        let is = self.is(tenant, service);
        if let Some(workflow) = is.last.filter(|_| is.busy || is.live && *effect == Effect::Create) {
            return Some(Refusal::ServiceTaken { tenant: tenant.clone(), service: service.clone(), workflow });
        }
        let is_there = match effect {
            Effect::Create => true,
            Effect::Update => is.live,
            Effect::Delete => is.live || !is.holds.is_empty(),
        };
        if !is_there {
            return Some(Refusal::NoSuchService { tenant: tenant.clone(), service: service.clone() });
        }
        if *effect == Effect::Delete {
            return None;
        }
        let used = self.used(tenant);
        let used = |resource| used.get(resource).copied().unwrap_or(0);
        holds.iter().find_map(|(resource, wanted)| {
            let asked = wanted.saturating_sub(is.holds.get(resource).copied().unwrap_or(0));
            let (used, limit) = (used(resource), limits.get(resource).copied().unwrap_or(u64::MAX));
            (asked > 0 && used + asked > limit).then(|| Refusal::Quota {
                tenant: tenant.clone(),
                resource: resource.clone(),
                used,
                asked,
                limit,
            })
        })
    }

    /// What was first submitted under a key, for ever.
    pub(crate) fn submission(&self, tenant: &Tenant, key: &str) -> Option<(WorkflowId, Hash)> {
        let is_it = |known: &&Known| {
            known.submitted.tenant == *tenant && known.submitted.key.as_ref().is_some_and(|it| it.to_string() == key)
        };
        self.known.iter().find(is_it).map(|known| (known.workflow, known.submitted.body_hash))
    }

    /// The workflows that have not ended, by their ids.
    pub(crate) fn active(&self) -> Vec<WorkflowId> {
        let mut active: Vec<_> = self.known.iter().filter(|known| known.end.is_none()).collect();
        active.sort_by_key(|known| known.workflow);
        active.into_iter().map(|known| known.workflow).collect()
    }

    /// What a tenant's services hold together.
    pub(crate) fn used(&self, tenant: &Tenant) -> Amounts {
        let mut used = Amounts::new();
        for (_, is) in self.services().into_iter().filter(|((of, _), _)| of == tenant) {
            for (resource, amount) in is.holds {
                *used.entry(resource).or_insert(0) += amount;
            }
        }
        used.retain(|_, amount| *amount > 0);
        used
    }

    /// Each service: whether it lives, whether somebody works on it, and what it holds.
    pub(crate) fn told(&self) -> BTreeMap<(Tenant, Service), (bool, bool, Amounts)> {
        self.services().into_iter().map(|(name, is)| (name, (is.live, is.busy, is.holds))).collect()
    }

    fn services(&self) -> BTreeMap<(Tenant, Service), Is> {
        let names = self.known.iter().map(|known| (known.submitted.tenant.clone(), known.submitted.service.clone()));
        names.map(|name| (name.clone(), self.is(&name.0, &name.1))).collect()
    }

    fn is(&self, tenant: &Tenant, service: &Service) -> Is {
        let of_it = |known: &&Known| known.submitted.tenant == *tenant && known.submitted.service == *service;
        self.known.iter().filter(of_it).fold(Is::default(), |before, known| known.makes_of(before))
    }
}

impl Known {
    /// What the service is with this workflow, which found it so.
    fn makes_of(&self, before: Is) -> Is {
        let asked = &self.submitted.holds;
        // While it is under way, and where it was left half done, the most that either takes is held.
        let half_done =
            || if self.submitted.effect == Effect::Delete { before.holds.clone() } else { most(&before.holds, asked) };
        let (live, holds) = match (self.submitted.effect, self.end) {
            (Effect::Create | Effect::Update, Some((Outcome::Succeeded, _))) => (true, asked.clone()),
            (Effect::Delete, Some((Outcome::Succeeded, _))) => (false, asked.clone()),
            (_, Some((_, true))) => (before.live, before.holds.clone()),
            (Effect::Delete, None | Some(_)) => (before.live, half_done()),
            (Effect::Create | Effect::Update, None | Some(_)) => (true, half_done()),
        };
        Is { live, busy: self.end.is_none(), holds, last: Some(self.workflow) }
    }
}

fn most(one: &Amounts, other: &Amounts) -> Amounts {
    let names = one.keys().chain(other.keys());
    let of = |amounts: &Amounts, name| amounts.get(name).copied().unwrap_or(0);
    names.map(|name| (name.clone(), of(one, name).max(of(other, name)))).collect()
}
