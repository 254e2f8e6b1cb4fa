//! The objects of the sandbox, their versions, and the history that watches read.
//!
//! - Each change takes the next resource version and one place in the history, so the place of a version is
//!   found by subtraction and a watch that asks for a version older than the history gets 410.
//! - Each change is in the change log before its caller goes on. While the log takes none, nothing is changed, and the
//!   caller whose change it did not take is told so.
//! - Each change tells the controllers which objects may now be wrong.
//!
//! Rules (what may be written) are not here but in `api.rs`.

use super::clock::Clock;
use super::controllers::scheduler::Usage;
use super::effects::Effects;
use super::faults::Faults;
use super::json::{flag, has, items, set, text};
use super::kinds::Kind;
use super::log::{ChangeLog, Stored};
use super::status::Refusal;
use super::work::Work;
use super::{SandboxError, SandboxOptions};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// Changes that watches can still read: those who ask for older ones get 410 and list again.
const HISTORY_MAX: usize = 8192;

/// Which object: one per kind, namespace (empty for a kind without) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn new(kind: Kind, namespace: &str, name: &str) -> Key {
        Key { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(super) fn of(kind: Kind, object: &Value) -> Key {
        Key::new(kind, text(object, "/metadata/namespace"), text(object, "/metadata/name"))
    }
}

/// One change: what was there before, what after. Without an `after` it was deleted.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Key,
    pub(super) before: Option<Arc<Value>>,
    pub(super) after: Option<Arc<Value>>,
    /// The object as a DELETED event shows it: its last state, with the version of its deletion.
    pub(super) deleted: Option<Arc<Value>>,
}

/// All there is.
#[derive(Debug)]
pub(super) struct State {
    objects: BTreeMap<Key, Arc<Value>>,
    by_uid: HashMap<String, Key>,
    dependents: HashMap<String, BTreeSet<Key>>,
    version: u64,
    history: VecDeque<Change>,
    log: Option<ChangeLog>,
    /// Why changes cannot be kept at the moment.
    broken: Option<String>,
    pub(super) clock: Clock,
    pub(super) options: SandboxOptions,
    pub(super) faults: Faults,
    pub(super) work: Work,
    pub(super) usage: Usage,
    pub(super) effects: Effects,
    /// Pods that no node takes as it is: looked at again when something is freed.
    pub(super) unscheduled: BTreeSet<Key>,
    pub(super) addresses_given: u32,
    versions: watch::Sender<u64>,
    wake: Arc<Notify>,
}

impl State {
    /// # Errors
    /// The directory cannot be written, is another sandbox's, or holds what is no change log.
    pub(super) fn open(
        options: SandboxOptions,
        faults: Faults,
        versions: watch::Sender<u64>,
        wake: Arc<Notify>,
    ) -> Result<State, SandboxError> {
        let directory = options.data.as_ref().map(|data| data.join("sandbox"));
        let mut state = State {
            objects: BTreeMap::new(),
            by_uid: HashMap::new(),
            dependents: HashMap::new(),
            version: 0,
            history: VecDeque::new(),
            log: None,
            broken: None,
            clock: Clock::start(),
            options,
            faults,
            work: Work::default(),
            usage: Usage::default(),
            effects: Effects::default(),
            unscheduled: BTreeSet::new(),
            addresses_given: 0,
            versions,
            wake,
        };
        let Some(directory) = directory else { return Ok(state) };
        let (log, stored) = ChangeLog::open(&directory)?;
        state.version = stored.version;
        for object in stored.objects {
            let Some(kind) = Kind::named(text(&object, "/kind")) else { continue };
            let key = Key::of(kind, &object);
            state.index(&key, None, Some(&object));
            state.objects.insert(key.clone(), object);
            state.work.push(key);
        }
        // Two addresses for each object that may hold one: none is given twice.
        state.addresses_given = u32::try_from(state.version).unwrap_or(u32::MAX / 2);
        state.effects = Effects::open(&directory)?;
        state.log = Some(log);
        state.versions.send_replace(state.version);
        Ok(state)
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    pub(super) fn contains(&self, kind: Kind, namespace: &str, name: &str) -> bool {
        self.objects.contains_key(&Key::new(kind, namespace, name))
    }

    pub(super) fn key_of_uid(&self, uid: &str) -> Option<&Key> {
        self.by_uid.get(uid)
    }

    /// The objects of a kind, of one namespace or of all, in the order of their names.
    pub(super) fn list<'a>(
        &'a self,
        kind: Kind,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + 'a {
        let from = Key::new(kind, namespace.unwrap_or_default(), "");
        self.objects
            .range(from..)
            .take_while(move |(key, _)| key.kind == kind && namespace.is_none_or(|wanted| key.namespace == wanted))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    /// The objects whose owner references name that UID.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Key> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// Of those, the ones of a kind, with their objects.
    pub(super) fn owned(&self, uid: &str, kind: Kind) -> Vec<Arc<Value>> {
        let keys = self.dependents.get(uid).into_iter().flatten().filter(|key| key.kind == kind);
        keys.filter_map(|key| self.objects.get(key).cloned()).collect()
    }

    /// Writes the object as it is to be, with the next resource version; gives back what was written.
    /// A controller's write that changes nothing is none.
    pub(super) fn put(&mut self, kind: Kind, mut object: Value) -> Arc<Value> {
        let key = Key::of(kind, &object);
        let before = self.objects.get(&key).cloned();
        if let Some(before) = &before {
            set(&mut object, "/metadata/resourceVersion", text(before, "/metadata/resourceVersion"));
            if **before == object {
                return before.clone();
            }
        }
        self.version += 1;
        set(&mut object, "/metadata/resourceVersion", self.version.to_string());
        let object = Arc::new(object);
        self.keep(&Stored::Put { version: self.version, object: object.clone() });
        self.objects.insert(key.clone(), object.clone());
        self.changed(Change { version: self.version, key, before, after: Some(object.clone()), deleted: None });
        object
    }

    /// Takes the object away at once, whatever holds it.
    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?;
        self.version += 1;
        let mut last = (*before).clone();
        set(&mut last, "/metadata/resourceVersion", self.version.to_string());
        let last = Arc::new(last);
        self.keep(&Stored::Delete {
            version: self.version,
            kind: key.kind.info().kind.to_owned(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        });
        self.changed(Change {
            version: self.version,
            key: key.clone(),
            before: Some(before),
            after: None,
            deleted: Some(last.clone()),
        });
        Some(last)
    }

    /// The changes after a version, oldest first; nothing where some of them are forgotten.
    pub(super) fn changes_after(&self, version: u64) -> Option<impl Iterator<Item = &Change>> {
        let oldest = self.version - self.history.len() as u64;
        let skip = usize::try_from(version.checked_sub(oldest)?).ok()?;
        Some(self.history.iter().skip(skip))
    }

    /// Looks at the object again, though nothing of it changed.
    pub(super) fn touch(&mut self, key: Key) {
        self.work.push(key);
        self.wake.notify_one();
    }

    pub(super) fn touch_all(&mut self, kind: Kind) {
        let keys: Vec<Key> = self.list(kind, None).map(|(key, _)| key.clone()).collect();
        keys.into_iter().for_each(|key| self.touch(key));
    }

    pub(super) fn touch_all_in(&mut self, kind: Kind, namespace: &str) {
        let keys: Vec<Key> = self.list(kind, Some(namespace)).map(|(key, _)| key.clone()).collect();
        keys.into_iter().for_each(|key| self.touch(key));
    }

    /// Everything that is there, into a new log: what the old one had in changes is folded.
    pub(super) fn close(&mut self) {
        if let Some(mut log) = self.log.take()
            && let Err(error) = log.fold(self.version, self.objects.values())
        {
            tracing::warn!(%error, "the sandbox could not fold its change log; it is read as it stands next time");
        }
    }

    fn keep(&mut self, change: &Stored) {
        let Some(log) = &mut self.log else { return };
        let kept = log.append(change);
        self.note(kept);
    }

    /// Whether changes can be kept: if not, those that wait are tried again.
    ///
    /// # Errors
    /// Why not. Nothing may be changed: it would be lost with the process.
    pub(super) fn keeps(&mut self) -> Result<(), Refusal> {
        if self.broken.is_some()
            && let Some(log) = &mut self.log
        {
            let kept = log.flush();
            self.note(kept);
        }
        match &self.broken {
            None => Ok(()),
            Some(why) => Err(Refusal::internal(format!("the sandbox cannot keep its objects: {why}"))),
        }
    }

    fn note(&mut self, kept: io::Result<()>) {
        match kept {
            Ok(()) => {
                if self.broken.take().is_some() {
                    tracing::info!("the sandbox keeps its objects again");
                }
            }
            Err(error) => {
                if self.broken.replace(error.to_string()).is_none() {
                    tracing::error!(%error, "the sandbox cannot keep its objects; it stands still and refuses writes until it can");
                }
            }
        }
    }

    /// Folds the log once it has grown large; called when the objects are as the log says.
    fn fold_log(&mut self) {
        let Some(log) = self.log.as_mut().filter(|log| log.wants_folding()) else { return };
        if let Err(error) = log.fold(self.version, self.objects.values()) {
            tracing::warn!(%error, "the sandbox cannot fold its change log; it grows on");
        }
    }

    /// Puts another file in the place of the log's, as if the disk had become another one.
    #[cfg(test)]
    pub(super) fn exchange_log_file(&mut self, file: std::fs::File) -> std::fs::File {
        self.log.as_mut().expect("kept on disk").exchange_file(file)
    }

    fn changed(&mut self, change: Change) {
        self.index(&change.key, change.before.as_deref(), change.after.as_ref());
        self.mark(&change);
        self.fold_log();
        self.history.push_back(change);
        if self.history.len() > HISTORY_MAX {
            self.history.pop_front();
        }
        self.versions.send_replace(self.version);
        self.wake.notify_one();
    }

    fn index(&mut self, key: &Key, before: Option<&Value>, after: Option<&Arc<Value>>) {
        if let Some(before) = before {
            for owner in items(before, "/metadata/ownerReferences") {
                if let Some(keys) = self.dependents.get_mut(text(owner, "/uid")) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.dependents.remove(text(owner, "/uid"));
                    }
                }
            }
            if after.is_none() {
                self.by_uid.remove(text(before, "/metadata/uid"));
                self.work.forget_object(text(before, "/metadata/uid"));
                self.unscheduled.remove(key);
            }
        }
        if let Some(after) = after {
            for owner in items(after, "/metadata/ownerReferences") {
                self.dependents.entry(text(owner, "/uid").to_owned()).or_default().insert(key.clone());
            }
            self.by_uid.insert(text(after, "/metadata/uid").to_owned(), key.clone());
        }
        if key.kind == Kind::Pod {
            self.usage.pod_changed(before, after.map(|after| &**after));
        }
    }

    /// Which objects may be wrong now that this one changed.
    fn mark(&mut self, change: &Change) {
        let key = &change.key;
        self.work.push(key.clone());
        let (before, after) = (change.before.as_deref(), change.after.as_deref());
        let Some(shown) = after.or(before) else { return };
        for owner in items(shown, "/metadata/ownerReferences") {
            if let Some(owner) = self.by_uid.get(text(owner, "/uid")) {
                self.work.push(owner.clone());
            }
        }
        if after.is_none() {
            for dependent in self.dependents(text(shown, "/metadata/uid")) {
                self.work.push(dependent);
            }
            let namespace = Key::new(Kind::Namespace, "", &key.namespace);
            if self.objects.get(&namespace).is_some_and(|found| has(found, "/metadata/deletionTimestamp")) {
                self.work.push(namespace);
            }
        }
        match key.kind {
            Kind::Pod => self.mark_around_pod(key, shown, after.is_none()),
            Kind::Node => self.mark_unscheduled(None),
            Kind::PersistentVolumeClaim => {
                self.mark_unscheduled(Some(&key.namespace));
                self.mark_quotas(&key.namespace);
                if after.is_none() {
                    self.work.push(Key::new(Kind::PersistentVolume, "", text(shown, "/spec/volumeName")));
                }
            }
            Kind::StorageClass => self.touch_all(Kind::PersistentVolumeClaim),
            Kind::Service => {
                self.mark_quotas(&key.namespace);
                if after.is_none() {
                    self.work.push(Key::new(Kind::Endpoints, &key.namespace, &key.name));
                }
            }
            Kind::ResourceQuota => {
                // A larger quota lets those go on that it had refused.
                self.touch_all_in(Kind::StatefulSet, &key.namespace);
                self.touch_all_in(Kind::ReplicaSet, &key.namespace);
            }
            _ => {}
        }
    }

    fn mark_around_pod(&mut self, key: &Key, pod: &Value, deleted: bool) {
        self.mark_quotas(&key.namespace);
        self.touch_all_in(Kind::PodDisruptionBudget, &key.namespace);
        self.touch_all_in(Kind::Service, &key.namespace);
        for volume in items(pod, "/spec/volumes") {
            let claim = text(volume, "/persistentVolumeClaim/claimName");
            if !claim.is_empty() {
                self.work.push(Key::new(Kind::PersistentVolumeClaim, &key.namespace, claim));
            }
        }
        if deleted {
            self.mark_unscheduled(None);
        }
    }

    fn mark_unscheduled(&mut self, namespace: Option<&str>) {
        let waiting = self.unscheduled.iter().filter(|key| namespace.is_none_or(|wanted| key.namespace == wanted));
        let waiting: Vec<Key> = waiting.cloned().collect();
        waiting.into_iter().for_each(|key| self.work.push(key));
    }

    fn mark_quotas(&mut self, namespace: &str) {
        self.touch_all_in(Kind::ResourceQuota, namespace);
    }
}

/// The reference of a controller to itself that what it makes carries.
pub(super) fn owner_reference(kind: Kind, owner: &Value) -> Value {
    json!({
        "apiVersion": kind.api_version(), "kind": kind.info().kind, "name": text(owner, "/metadata/name"),
        "uid": text(owner, "/metadata/uid"), "controller": true, "blockOwnerDeletion": true,
    })
}

/// Whether that object is controlled by the owner with that UID.
pub(super) fn controlled_by(object: &Value, uid: &str) -> bool {
    items(object, "/metadata/ownerReferences")
        .iter()
        .any(|owner| flag(owner, "/controller") && text(owner, "/uid") == uid)
}
