//! The sandbox cluster: a stand-in for a Kubernetes API server and its controllers, for `cairn demo`, `cairn dev` and tests.
//!
//! ```text
//! request ─▶ service (faults, body) ─▶ api / watch ─▶ store ─▶ change log
//!                                                      │  ▲
//!                                     what may be wrong ▼  │ changes
//!                                                     controllers
//! ```
//!
//! - One tower service: tests hand it to `kube::Client` in process, people get it behind a loopback port ([`Sandbox::serve`]).
//! - The unchanged `kube` client and a stock `kubectl` find what they need: discovery, tables, server-side apply with field
//!   ownership, watches with bookmarks and 410, refusals in the API server's words (C1–C8, C13, C15).
//! - Every delay is tokio's: with a paused clock, an hour of a cluster takes no time, and nothing polls.
//! - With a data directory its objects outlive the process, a killed one too.
//! - Faults are switched on and off at run time ([`Faults`]); what clients did is in [`Sandbox::effects`].
//!
//! It deliberately does not run anything, check who anybody is, or speak protobuf. It stands in for the API, not for
//! Kubernetes: what passes here should be shown on a real cluster too.

mod access;
mod admission;
mod api;
mod apply;
mod clock;
mod controllers;
mod defaults;
mod delete;
mod discovery;
mod effects;
mod faults;
mod fields;
mod json;
mod kinds;
mod log;
mod names;
mod pages;
mod patch;
mod quantities;
mod quota;
mod read;
mod request;
mod scale;
mod selectors;
mod service;
mod status;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod validate;
mod validate_pod;
mod watch;
mod work;

pub use access::Access;
pub use effects::Effect;
pub use faults::{ActiveFault, Fault, FaultAction, FaultId, FaultMatch, Faults, PodTrouble};
pub use service::{ConnectionLost, SandboxBody, SandboxService};

use serde_json::Value;
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::State;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// How a sandbox is opened. The defaults are those of `cairn dev`.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// The program's data directory: the objects are kept in `sandbox/` below it. None: in memory only.
    pub data: Option<PathBuf>,
    /// From a pod's arrival on its node until it is ready.
    pub pod_ready_after: Duration,
    /// From a pod's deletion until it is gone, whatever its grace period allows.
    pub pod_stop_after: Duration,
    /// From a namespace's deletion until its content is deleted (a real one takes five seconds, C15).
    pub namespace_delete_after: Duration,
    /// A namespace's controller looks again only at its own times, and not at once when the last of its content has gone: after
    /// as long as above where it had something new to tell, else after half the grace of the pods that it found (C15).
    pub namespaces_are_slow: bool,
    /// For each of the two stages of a claim's growth (C5, C15).
    pub claim_grow_after: Duration,
    /// What the one node offers.
    pub node: NodeSize,
}

/// What a node offers to pods.
#[derive(Clone, Debug)]
pub struct NodeSize {
    /// CPUs, as a quantity.
    pub cpu: String,
    /// Memory, as a quantity.
    pub memory: String,
    /// GPUs (`nvidia.com/gpu`); with 0 the node does not know the resource.
    pub gpu: u32,
    /// How many pods it takes.
    pub pods: u32,
}

impl Default for SandboxOptions {
    fn default() -> SandboxOptions {
        SandboxOptions {
            data: None,
            pod_ready_after: Duration::from_secs(1),
            pod_stop_after: Duration::from_millis(100),
            namespace_delete_after: Duration::from_millis(200),
            namespaces_are_slow: false,
            claim_grow_after: Duration::from_millis(100),
            node: NodeSize::default(),
        }
    }
}

impl SandboxOptions {
    /// As slow as a real control plane is (C15): for tests whose clock is not the wall's.
    #[must_use]
    pub fn as_slow_as_real() -> SandboxOptions {
        SandboxOptions {
            pod_ready_after: Duration::from_secs(20),
            pod_stop_after: Duration::from_secs(12),
            namespace_delete_after: Duration::from_secs(5),
            namespaces_are_slow: true,
            claim_grow_after: Duration::from_secs(5),
            ..SandboxOptions::default()
        }
    }
}

impl Default for NodeSize {
    fn default() -> NodeSize {
        NodeSize { cpu: "1024".to_owned(), memory: "4Ti".to_owned(), gpu: 8, pods: 10_000 }
    }
}

/// Why a sandbox cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The directory cannot be used.
    #[error("cannot use {} for the sandbox's objects: make it a directory that can be written", path.display())]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("another sandbox{} has {} open: stop it, or choose another data directory", holder.as_ref().map(|holder| format!(" ({holder})")).unwrap_or_default(), path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who, as the lock file says.
        holder: Option<String>,
    },
    /// The disk has no room for the objects.
    #[error("no room on the disk for {needed_bytes} bytes of the sandbox's objects in {}: make that much free, and start it again", path.display())]
    Full {
        /// The directory.
        path: PathBuf,
        /// How much is written there at each start.
        needed_bytes: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The change log was changed by somebody else.
    #[error("line {line} of {} is no change of a sandbox: move the file away to begin with an empty cluster", path.display())]
    Damaged {
        /// The change log.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// A running sandbox cluster. Cloned cheaply; all clones, clients and services are the same cluster.
#[derive(Clone, Debug)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    faults: Faults,
    versions: tokio::sync::watch::Sender<u64>,
    wake: Arc<Notify>,
    accesses: Mutex<BTreeSet<Access>>,
    controllers: Mutex<Option<JoinHandle<()>>>,
}

impl Sandbox {
    /// Opens a sandbox and starts its controllers; needs a running tokio runtime. Blocks, for two seconds at most, while
    /// another process has the directory open.
    ///
    /// # Errors
    /// [`SandboxError::Directory`], [`SandboxError::Locked`], [`SandboxError::Full`], [`SandboxError::Damaged`]: each says what to do.
    pub fn open(options: SandboxOptions) -> Result<Sandbox, SandboxError> {
        let wake = Arc::new(Notify::new());
        let faults = Faults::new(wake.clone());
        let versions = tokio::sync::watch::Sender::new(0);
        let mut state = State::open(options, faults.clone(), versions.clone(), wake.clone())?;
        controllers::furnish(&mut state);
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            faults,
            versions,
            wake,
            accesses: Mutex::default(),
            controllers: Mutex::default(),
        });
        let running = controllers::start(&shared);
        *shared.controllers.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
        Ok(Sandbox { shared })
    }

    /// A client of this cluster, in process, without a socket.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.service(), "default")
    }

    /// The service behind [`Sandbox::client`].
    pub fn service(&self) -> SandboxService {
        SandboxService { shared: self.shared.clone() }
    }

    /// Serves HTTP/1.1 on the listener until `stop` is there.
    ///
    /// # Errors
    /// The listener fails.
    ///
    /// # Cancel safety
    /// Dropped, it accepts nothing more; calls in hand are still executed.
    pub async fn serve(
        &self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        service::serve(self.service(), listener, stop).await
    }

    /// A kubeconfig for a sandbox that is served at this address.
    pub fn kubeconfig(address: SocketAddr) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: sandbox\n  cluster:\n    server: http://{address}\n\
             contexts:\n- name: sandbox\n  context:\n    cluster: sandbox\n    user: sandbox\ncurrent-context: sandbox\n\
             users:\n- name: sandbox\n  user: {{}}\n"
        )
    }

    /// The faults of this cluster.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Every write of a client that took effect, oldest first (the newest 200,000).
    pub fn effects(&self) -> Vec<Effect> {
        self.shared.lock().effects.to_vec()
    }

    /// Every right that a request has needed since this sandbox was opened.
    pub fn accesses(&self) -> BTreeSet<Access> {
        self.shared.accesses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every object that is there.
    pub fn objects(&self) -> Vec<Value> {
        self.shared.lock().all().map(|(_, object)| (**object).clone()).collect()
    }

    /// Stops the controllers and folds the change log. Calls are answered as before, but nothing is kept any more and
    /// nothing happens by itself.
    pub async fn close(&self) {
        let running = self.shared.controllers.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            running.abort();
            // Aborted is what it should be.
            let _ = running.await;
        }
        self.shared.lock().close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything of it can panic; so a poisoned state is a good one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> jiff::Timestamp {
        self.lock().clock.now()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(running) = self.controllers.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            running.abort();
        }
    }
}
