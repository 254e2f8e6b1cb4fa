//! Trouble that can be switched on and off while the sandbox runs: what a real cluster does on its worse days.
//!
//! - A fault is a rule (which calls, which of them, how many times) and an action. The rules are tried in the order in which
//!   they were added: latencies add up, the first other action that fires decides.
//! - Pods and namespaces have troubles of their own: they hold as long as the fault is there, and end with it.
//! - The same over HTTP, for people and for tests that run the program: `GET`, `POST` and `DELETE /sandbox/faults`.

use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// One rule and what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which calls, pods or namespaces it is for.
    #[serde(default)]
    pub when: FaultMatch,
    /// What happens to them.
    pub action: FaultAction,
}

/// Which calls a fault is for. What is not said matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultMatch {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `apply` (a server-side apply; `patch` takes it too), `delete`,
    /// `deletecollection`; or `read` and `write` for all of one sort.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// The plural (`statefulsets`), the kind (`StatefulSet`), or the plural with a subresource (`statefulsets/scale`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The namespace; of a namespace itself: its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The object's name; of pods: how it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many matching calls are let through first.
    pub skip: u64,
    /// How many times it fires; without it, as long as it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultAction {
    /// The call waits first.
    Latency {
        /// For so many milliseconds.
        millis: u64,
    },
    /// The call is not executed and answered with this code.
    Status {
        /// 429, 500, 503…
        code: u16,
        /// Seconds, as header and in the Status.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
    /// The connection is lost before the call is executed.
    DropBefore,
    /// The call is executed, and the connection lost instead of the answer.
    DropAfter,
    /// The call is not executed, and never answered.
    HangBefore,
    /// The call is executed, and never answered.
    HangAfter,
    /// A watch ends with a lost connection.
    WatchBreak {
        /// Once it has delivered so many events.
        #[serde(default)]
        after_events: u64,
    },
    /// Watches and lists are answered that their version is too old (410).
    Gone,
    /// The right to do it is taken away: 403 as role based access control answers it, and reviews of that right say so.
    Forbid,
    /// Pods never become ready.
    Pods {
        /// In which way.
        trouble: PodTrouble,
        /// The words of the scheduler, the registry or the quota, instead of the sandbox's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// Claims that are not bound yet get no volume, and an event `ProvisioningFailed` says why.
    Claims {
        /// The words of what provisions volumes.
        message: String,
    },
    /// A namespace that is being deleted never goes: something in it has this finalizer.
    HoldNamespace {
        /// The finalizer that its conditions name.
        finalizer: String,
    },
}

/// Why a pod does not become ready (C8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodTrouble {
    /// The image could not be pulled, just now.
    ErrImagePull,
    /// The image could not be pulled, and it waits before it tries again.
    ImagePullBackOff,
    /// The image's name cannot be read.
    InvalidImageName,
    /// A Secret or ConfigMap that a container needs is missing.
    CreateContainerConfigError,
    /// The container ends with exit code 1, again and again.
    CrashLoopBackOff,
    /// The container is killed for its memory, again and again.
    #[serde(rename = "OOMKilled")]
    OomKilled,
    /// No node takes it.
    Unschedulable,
    /// The set cannot make it at all.
    FailedCreate,
    /// It runs, and its readiness probe fails.
    NotReady,
}

impl Fault {
    /// A fault with this action for every call.
    pub fn new(action: FaultAction) -> Fault {
        Fault { when: FaultMatch::default(), action }
    }

    /// Every call takes that much longer.
    pub fn latency(latency: Duration) -> Fault {
        Fault::new(FaultAction::Latency { millis: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX) })
    }

    /// Calls are answered with this code.
    pub fn status(code: u16) -> Fault {
        Fault::new(FaultAction::Status { code, retry_after: None })
    }

    /// The right to make these calls is taken away.
    pub fn forbid() -> Fault {
        Fault::new(FaultAction::Forbid)
    }

    /// Pods never become ready, in this way.
    pub fn pods(trouble: PodTrouble) -> Fault {
        Fault::new(FaultAction::Pods { trouble, message: None })
    }

    /// Only calls with this verb ([`FaultMatch::verb`]).
    #[must_use]
    pub fn verb(mut self, verb: impl Into<String>) -> Fault {
        self.when.verb = Some(verb.into());
        self
    }

    /// Only calls on this resource ([`FaultMatch::resource`]).
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Fault {
        self.when.resource = Some(resource.into());
        self
    }

    /// Only in this namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Fault {
        self.when.namespace = Some(namespace.into());
        self
    }

    /// Only what has this name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Fault {
        self.when.name = Some(name.into());
        self
    }

    /// Only from the matching call after so many others.
    #[must_use]
    pub fn skip(mut self, calls: u64) -> Fault {
        self.when.skip = calls;
        self
    }

    /// Only so many times.
    #[must_use]
    pub fn times(mut self, times: u64) -> Fault {
        self.when.times = Some(times);
        self
    }
}

/// The name of a fault that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultId(pub u64);

/// A fault that is switched on, and how often it has fired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveFault {
    /// Its name.
    pub id: FaultId,
    /// How many calls matched it.
    pub seen: u64,
    /// How many times it fired.
    pub fired: u64,
    /// The fault itself.
    #[serde(flatten)]
    pub fault: Fault,
}

/// The faults of one sandbox. Cloned cheaply; all clones are the same faults.
#[derive(Clone, Debug)]
pub struct Faults {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    active: Mutex<Vec<ActiveFault>>,
    changes: watch::Sender<u64>,
    hung: watch::Sender<u64>,
    wake: Arc<Notify>,
}

/// What a fault may be for: one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    pub(super) verb: &'a str,
    pub(super) is_apply: bool,
    /// Empty: a document about the server.
    pub(super) resource: &'a str,
    pub(super) kind: &'a str,
    pub(super) subresource: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl Faults {
    pub(super) fn new(wake: Arc<Notify>) -> Faults {
        let (changes, hung) = (watch::Sender::new(0), watch::Sender::new(0));
        Faults { inner: Arc::new(Inner { active: Mutex::default(), changes, hung, wake }) }
    }

    /// Switches a fault on. Watches that are open, pods and namespaces feel it at once.
    pub fn add(&self, fault: Fault) -> FaultId {
        let id = {
            let mut active = self.lock();
            let id = FaultId(*self.inner.changes.borrow() + 1);
            active.push(ActiveFault { id, seen: 0, fired: 0, fault });
            self.inner.changes.send_replace(id.0);
            id
        };
        self.inner.wake.notify_one();
        id
    }

    /// Switches a fault off; false if there is none of that name.
    pub fn remove(&self, id: FaultId) -> bool {
        let before = self.list().len();
        self.lock().retain(|fault| fault.id != id);
        self.changed();
        self.list().len() < before
    }

    /// Switches all faults off.
    pub fn clear(&self) {
        self.lock().clear();
        self.changed();
    }

    /// The faults that are on, and how often each has fired.
    pub fn list(&self) -> Vec<ActiveFault> {
        self.lock().clone()
    }

    /// How many calls were left hanging so far; one that is executed first counts once it was.
    pub fn hung(&self) -> watch::Receiver<u64> {
        self.inner.hung.subscribe()
    }

    /// Leaves the call that asks for it hanging: it does not return.
    pub(super) async fn hang(&self) -> Infallible {
        self.inner.hung.send_modify(|count| *count += 1);
        std::future::pending().await
    }

    fn changed(&self) {
        self.inner.changes.send_modify(|count| *count += 1);
        self.inner.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ActiveFault>> {
        self.inner.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// What happens to this call: how long it waits, and what else.
    pub(super) fn on_call(&self, call: Call<'_>) -> (Duration, Option<FaultAction>) {
        let mut wait = Duration::ZERO;
        for fault in self.lock().iter_mut() {
            let is_for_calls = match &fault.fault.action {
                FaultAction::Pods { .. }
                | FaultAction::Claims { .. }
                | FaultAction::HoldNamespace { .. }
                | FaultAction::WatchBreak { .. }
                | FaultAction::Forbid => false,
                FaultAction::Gone => call.verb == "list",
                _ => true,
            };
            if !is_for_calls || !fault.fires(call) {
                continue;
            }
            match &fault.fault.action {
                FaultAction::Latency { millis } => wait += Duration::from_millis(*millis),
                action => return (wait, Some(action.clone())),
            }
        }
        (wait, None)
    }

    /// Whether a watch that has delivered so many events ends now.
    pub(super) fn on_watch(&self, call: Call<'_>, delivered: u64) -> Option<FaultAction> {
        for fault in self.lock().iter_mut() {
            let ends = match fault.fault.action {
                FaultAction::WatchBreak { after_events } => delivered >= after_events,
                FaultAction::Gone => true,
                _ => false,
            };
            if ends && fault.fires(call) {
                return Some(fault.fault.action.clone());
            }
        }
        None
    }

    /// Whether the right to make this call is taken away.
    pub(super) fn forbid(&self, call: Call<'_>) -> bool {
        let mut active = self.lock();
        active.iter_mut().any(|fault| fault.fault.action == FaultAction::Forbid && fault.fires(call))
    }

    /// The same for somebody who only asks.
    pub(super) fn would_forbid(&self, call: Call<'_>) -> bool {
        let mut active = self.lock().clone();
        active.iter_mut().any(|fault| fault.fault.action == FaultAction::Forbid && fault.fires(call))
    }

    /// What keeps this pod from becoming ready, and in whose words.
    pub(super) fn of_pod(&self, namespace: &str, name: &str) -> Option<(PodTrouble, Option<String>)> {
        let active = self.lock();
        active.iter().find_map(|fault| {
            let FaultAction::Pods { trouble, message } = &fault.fault.action else { return None };
            let when = &fault.fault.when;
            let taken = when.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
                && when.name.as_deref().is_none_or(|prefix| name.starts_with(prefix));
            taken.then(|| (*trouble, message.clone()))
        })
    }

    /// Why this claim gets no volume.
    pub(super) fn of_claim(&self, namespace: &str, name: &str) -> Option<String> {
        let active = self.lock();
        active.iter().find_map(|fault| {
            let FaultAction::Claims { message } = &fault.fault.action else { return None };
            let when = &fault.fault.when;
            let taken = when.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
                && when.name.as_deref().is_none_or(|prefix| name.starts_with(prefix));
            taken.then(|| message.clone())
        })
    }

    /// The finalizer that holds this namespace.
    pub(super) fn of_namespace(&self, name: &str) -> Option<String> {
        let active = self.lock();
        active.iter().find_map(|fault| {
            let FaultAction::HoldNamespace { finalizer } = &fault.fault.action else { return None };
            let when = &fault.fault.when;
            let wanted = when.namespace.as_deref().or(when.name.as_deref());
            wanted.is_none_or(|wanted| wanted == name).then(|| finalizer.clone())
        })
    }
}

impl ActiveFault {
    fn fires(&mut self, call: Call<'_>) -> bool {
        if !self.fault.when.matches(call) {
            return false;
        }
        self.seen += 1;
        let fires = self.seen > self.fault.when.skip && self.fault.when.times.is_none_or(|times| self.fired < times);
        self.fired += u64::from(fires);
        fires
    }
}

impl FaultMatch {
    fn matches(&self, call: Call<'_>) -> bool {
        let reads = matches!(call.verb, "get" | "list" | "watch");
        let verb = self.verb.as_deref().is_none_or(|wanted| match wanted {
            "read" => reads,
            "write" => !reads,
            "apply" => call.is_apply,
            wanted => wanted == call.verb,
        });
        let resource = self.resource.as_deref().is_none_or(|wanted| match wanted.split_once('/') {
            Some((resource, subresource)) => resource == call.resource && subresource == call.subresource,
            None => wanted == call.resource || wanted == call.kind,
        });
        let own_name = call.resource == "namespaces" && self.namespace.as_deref() == Some(call.name);
        let namespace = own_name || self.namespace.as_deref().is_none_or(|wanted| wanted == call.namespace);
        verb && resource && namespace && self.name.as_deref().is_none_or(|wanted| wanted == call.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Call<'_> = Call {
        verb: "patch",
        is_apply: true,
        resource: "statefulsets",
        kind: "StatefulSet",
        subresource: "",
        namespace: "a",
        name: "es",
    };

    #[test]
    fn a_fault_fires_from_the_call_it_is_told_and_as_often_as_it_is_told() {
        let faults = Faults::new(Arc::default());
        faults.add(Fault::status(503).verb("apply").resource("StatefulSet").skip(1).times(2));
        faults.add(Fault::latency(Duration::from_secs(1)).namespace("a"));
        let fired: Vec<bool> = (0..4).map(|_| faults.on_call(CALL).1.is_some()).collect();
        assert_eq!(fired, [false, true, true, false]);
        assert_eq!(faults.on_call(CALL).0, Duration::from_secs(1));
        assert_eq!(
            faults.on_call(Call { namespace: "b", verb: "get", is_apply: false, ..CALL }),
            (Duration::ZERO, None)
        );
        assert_eq!(faults.list()[0].fired, 2);
    }

    #[test]
    fn a_fault_reads_as_people_write_it() {
        let text = r#"{"when": {"verb": "create", "resource": "namespaces", "times": 1}, "action": {"status": {"code": 429, "retry_after": 2}}}"#;
        let fault: Fault = serde_json::from_str(text).expect("reads");
        assert_eq!(fault.action, FaultAction::Status { code: 429, retry_after: Some(2) });
        let fault: Fault = serde_json::from_str(r#"{"action": "drop_after"}"#).expect("reads");
        assert_eq!(fault, Fault::new(FaultAction::DropAfter));
        let fault: Fault = serde_json::from_str(r#"{"action": {"pods": {"trouble": "OOMKilled"}}}"#).expect("reads");
        assert_eq!(fault, Fault::pods(PodTrouble::OomKilled));
        assert!(serde_json::from_str::<Fault>(r#"{"action": "drop_after", "wen": {}}"#).is_err());
    }
}
