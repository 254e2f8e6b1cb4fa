//! One watch per kind for all workflows: what the cluster's workloads and pods are like right now.
//!
//! - However many workflows wait, the server sees three watches: everything that bears our label, in all namespaces.
//! - Whoever waits is woken by what happens in its own namespace, not by the other thousands.
//! - A watch that breaks begins again by itself with a new list; until then what is known is old, and never wrong about the
//!   past. Whoever decides on it looks at generations and UIDs, not at arrival.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::names;

/// The three mirrors, and the tasks that keep them.
pub(super) struct Watched {
    pub(super) sets: Arc<Mirror<StatefulSet>>,
    pub(super) deployments: Arc<Mirror<Deployment>>,
    pub(super) pods: Arc<Mirror<Pod>>,
    bells: Arc<Bells>,
    /// Dropped with the last clone of the cluster, and the tasks with it.
    _tasks: JoinSet<()>,
}

impl Watched {
    /// Begins to watch.
    pub(super) fn start(client: &Client) -> Self {
        let bells = Arc::new(Bells::default());
        let mut tasks = JoinSet::new();
        Self {
            sets: mirror(client, &bells, &mut tasks),
            deployments: mirror(client, &bells, &mut tasks),
            pods: mirror(client, &bells, &mut tasks),
            bells,
            _tasks: tasks,
        }
    }

    /// What rings when something happens in this namespace.
    pub(super) fn bell(&self, namespace: &str) -> Arc<Notify> {
        self.bells.of(namespace)
    }

    /// Whether one of the watches has broken and not shown anything since: what it holds may be old.
    pub(super) fn is_broken(&self) -> bool {
        self.sets.is_broken() || self.deployments.is_broken() || self.pods.is_broken()
    }

    /// Why nothing is known yet, if a watch cannot even begin.
    pub(super) fn blind(&self) -> Option<String> {
        self.sets.blind().or_else(|| self.deployments.blind()).or_else(|| self.pods.blind())
    }
}

/// What the cluster has of one kind, by namespace and name.
pub(super) struct Mirror<K> {
    held: Mutex<Held<K>>,
}

struct Held<K> {
    objects: HashMap<String, BTreeMap<String, Arc<K>>>,
    /// What a list that is under way has brought so far.
    arriving: HashMap<String, BTreeMap<String, Arc<K>>>,
    synced: bool,
    error: Option<String>,
}

impl<K> Default for Mirror<K> {
    fn default() -> Self {
        let held = Held { objects: HashMap::new(), arriving: HashMap::new(), synced: false, error: None };
        Self { held: Mutex::new(held) }
    }
}

impl<K> Mirror<K> {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.lock().objects.get(namespace)?.get(name).cloned()
    }

    pub(super) fn all(&self, namespace: &str) -> Vec<Arc<K>> {
        self.lock().objects.get(namespace).map(|objects| objects.values().cloned().collect()).unwrap_or_default()
    }

    /// Whether a first list has arrived.
    pub(super) fn is_synced(&self) -> bool {
        self.lock().synced
    }

    fn is_broken(&self) -> bool {
        self.lock().error.is_some()
    }

    fn blind(&self) -> Option<String> {
        let held = self.lock();
        if held.synced { None } else { held.error.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Held<K>> {
        // Nothing that holds the lock can panic half-way through a change.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: kube::ResourceExt> Mirror<K> {
    /// Takes in what the watch says, and tells in which namespace something changed; `None` for all of them.
    fn take(&self, event: Event<K>) -> Option<String> {
        let mut held = self.lock();
        // That a list is about to be asked for says nothing yet.
        if !matches!(event, Event::Init) {
            held.error = None;
        }
        match event {
            Event::Apply(object) => {
                let (namespace, name) = key(&object);
                held.objects.entry(namespace.clone()).or_default().insert(name, Arc::new(object));
                Some(namespace)
            }
            Event::Delete(object) => {
                let (namespace, name) = key(&object);
                if let Some(objects) = held.objects.get_mut(&namespace) {
                    objects.remove(&name);
                    if objects.is_empty() {
                        held.objects.remove(&namespace);
                    }
                }
                Some(namespace)
            }
            Event::Init => {
                held.arriving = HashMap::new();
                Some(String::new())
            }
            Event::InitApply(object) => {
                let (namespace, name) = key(&object);
                held.arriving.entry(namespace).or_default().insert(name, Arc::new(object));
                Some(String::new())
            }
            Event::InitDone => {
                held.objects = std::mem::take(&mut held.arriving);
                held.synced = true;
                None
            }
        }
    }
}

fn key<K: kube::ResourceExt>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// A bell for each namespace in which somebody waits.
#[derive(Default)]
struct Bells {
    by_namespace: Mutex<HashMap<String, Weak<Notify>>>,
}

impl Bells {
    fn of(&self, namespace: &str) -> Arc<Notify> {
        let mut bells = self.lock();
        if let Some(bell) = bells.get(namespace).and_then(Weak::upgrade) {
            return bell;
        }
        // Whoever has stopped waiting leaves an entry behind: they go when there are twice as many as there need be.
        if bells.len() >= 2 * bells.values().filter(|bell| bell.strong_count() > 0).count() + 16 {
            bells.retain(|_, bell| bell.strong_count() > 0);
        }
        let bell = Arc::new(Notify::new());
        bells.insert(namespace.to_owned(), Arc::downgrade(&bell));
        bell
    }

    fn ring(&self, namespace: &str) {
        if let Some(bell) = self.lock().get(namespace).and_then(Weak::upgrade) {
            bell.notify_waiters();
        }
    }

    fn ring_all(&self) {
        let bells: Vec<Arc<Notify>> = self.lock().values().filter_map(Weak::upgrade).collect();
        for bell in bells {
            bell.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<Notify>>> {
        self.by_namespace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mirror<K>(client: &Client, bells: &Arc<Bells>, tasks: &mut JoinSet<()>) -> Arc<Mirror<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let mirror = Arc::new(Mirror::default());
    let label = format!("{}={}", names::MANAGED_BY_LABEL.0, names::MANAGED_BY_LABEL.1);
    let (api, kept, bells) = (Api::<K>::all(client.clone()), Arc::clone(&mirror), Arc::clone(bells));
    tasks.spawn(async move {
        // The stream never ends by itself: it ends with the task.
        let events = watcher::watcher(api, watcher::Config::default().labels(&label)).default_backoff();
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => match kept.take(lean(event)) {
                    Some(namespace) => bells.ring(&namespace),
                    None => bells.ring_all(),
                },
                Err(error) => {
                    tracing::warn!(%error, "a watch of the cluster broke; it begins again");
                    kept.lock().error = Some(error.to_string());
                }
            }
        }
    });
    mirror
}

/// Without what nobody reads: it is half of what a pod weighs.
fn lean<K: kube::ResourceExt>(event: Event<K>) -> Event<K> {
    event.modify(|object| object.managed_fields_mut().clear())
}
