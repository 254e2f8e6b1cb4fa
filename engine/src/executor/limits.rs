//! Whose turn it is: attempts in flight, in all and per tenant, taken in turn among tenants.
//!
//! Pure bookkeeping. A tenant with ten thousand workflows waits behind itself, not in front of one with a single one.

use std::collections::{HashMap, VecDeque};

use crate::ids::{Tenant, WorkflowId};

/// How much may be under way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attempts in flight in all. One that only waits (for a rollout, say) does not count.
    pub in_flight: usize,
    /// Attempts in flight for one tenant.
    pub in_flight_per_tenant: usize,
    /// Submissions that may wait for the journal; one more is refused.
    pub queue: usize,
    /// Workflows that are not finished: each takes some memory, also while it waits. One more submission is refused.
    pub active: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: 64, in_flight_per_tenant: 16, queue: 16_384, active: 200_000 }
    }
}

/// Who waits for a slot, and who has one.
pub(crate) struct Turns {
    limits: Limits,
    in_flight: usize,
    tenants: HashMap<Tenant, TenantTurns>,
    /// The tenants that have somebody waiting and may have one more in flight, each once.
    rotation: VecDeque<Tenant>,
}

#[derive(Default)]
struct TenantTurns {
    in_flight: usize,
    waiting: VecDeque<WorkflowId>,
    in_rotation: bool,
}

impl Turns {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, in_flight: 0, tenants: HashMap::new(), rotation: VecDeque::new() }
    }

    /// `workflow` waits for a slot.
    pub(crate) fn wait(&mut self, tenant: &Tenant, workflow: WorkflowId) {
        self.tenants.entry(tenant.clone()).or_default().waiting.push_back(workflow);
        self.rotate(tenant);
    }

    /// The next one to get a slot, if there is one.
    pub(crate) fn next(&mut self) -> Option<WorkflowId> {
        if self.in_flight >= self.limits.in_flight {
            return None;
        }
        let tenant = self.rotation.pop_front()?;
        let turns = self.tenants.get_mut(&tenant).expect("who is in rotation is known");
        turns.in_rotation = false;
        let workflow = turns.waiting.pop_front().expect("who is in rotation has somebody waiting");
        turns.in_flight += 1;
        self.in_flight += 1;
        self.rotate(&tenant);
        Some(workflow)
    }

    /// A slot of `tenant`'s is free again.
    pub(crate) fn free(&mut self, tenant: &Tenant) {
        let Some(turns) = self.tenants.get_mut(tenant) else { return };
        turns.in_flight -= 1;
        self.in_flight -= 1;
        if turns.in_flight == 0 && turns.waiting.is_empty() {
            self.tenants.remove(tenant);
        } else {
            self.rotate(tenant);
        }
    }

    /// `workflow` does not wait any more.
    pub(crate) fn leave(&mut self, tenant: &Tenant, workflow: WorkflowId) {
        let Some(turns) = self.tenants.get_mut(tenant) else { return };
        turns.waiting.retain(|waiting| *waiting != workflow);
        if turns.waiting.is_empty() && turns.in_rotation {
            turns.in_rotation = false;
            self.rotation.retain(|waiting| waiting != tenant);
        }
        if turns.waiting.is_empty() && turns.in_flight == 0 {
            self.tenants.remove(tenant);
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn rotate(&mut self, tenant: &Tenant) {
        let Some(turns) = self.tenants.get_mut(tenant) else { return };
        if !turns.in_rotation && !turns.waiting.is_empty() && turns.in_flight < self.limits.in_flight_per_tenant {
            turns.in_rotation = true;
            self.rotation.push_back(tenant.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: std::ops::Range<u128>) -> Vec<WorkflowId> {
        numbers.map(|number| WorkflowId::from_bytes(number.to_be_bytes())).collect()
    }

    fn turns(in_flight: usize, in_flight_per_tenant: usize) -> Turns {
        Turns::new(Limits { in_flight, in_flight_per_tenant, queue: 1, active: 1 })
    }

    /// I25
    #[test]
    fn one_with_thousands_waiting_delays_another_by_one_turn() {
        let (busy, quiet) = (Tenant::new("busy"), Tenant::new("quiet"));
        let mut turns = turns(1, 1);
        for workflow in ids(0..10_000) {
            turns.wait(&busy, workflow);
        }
        assert!(turns.next().is_some());
        let single = ids(10_000..10_001)[0];
        turns.wait(&quiet, single);
        assert_eq!(turns.next(), None, "one slot, and it is taken");
        turns.free(&busy);
        assert_eq!(turns.next(), Some(single));
    }

    #[test]
    fn nobody_has_more_in_flight_than_allowed() {
        let tenant = Tenant::new("acme");
        let mut turns = turns(8, 2);
        for workflow in ids(0..5) {
            turns.wait(&tenant, workflow);
        }
        assert!(turns.next().is_some() && turns.next().is_some());
        assert_eq!(turns.next(), None);
        turns.free(&tenant);
        assert!(turns.next().is_some());
        assert_eq!(turns.in_flight(), 2);
    }

    #[test]
    fn one_that_leaves_gets_no_slot_and_leaves_nothing_behind() {
        let tenant = Tenant::new("acme");
        let mut turns = turns(1, 1);
        let workflow = ids(0..1)[0];
        turns.wait(&tenant, workflow);
        turns.leave(&tenant, workflow);
        assert_eq!(turns.next(), None);
        assert!(turns.tenants.is_empty() && turns.rotation.is_empty());
    }
}
