//! Where the suite runs: a sandbox behind a port of its own, or the cluster that `CAIRN_TEST_KUBECONFIG` names.
//!
//! - Both are reached through a kubeconfig, by the same client, so that a test cannot tell them apart.
//! - A test leaves nothing: its namespaces, volumes and classes have names that nobody else has, and go when it ends, also
//!   when it fails or is stopped by a signal. What a killed run has left is named by the next one.
//! - Nothing is timed: whatever is waited for has a generous end, and the message says what was there instead.

mod tidy;
mod volumes;

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    ops::ControlFlow,
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use cairn_steps::{
    cluster::Cluster,
    render::Kind,
    sandbox::{Sandbox, SandboxOptions},
};
use futures::FutureExt as _;
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{DynamicObject, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::Instant,
};

/// The tenant of every test: its namespaces begin with this.
pub(crate) const TENANT: &str = "step-suite";
/// The finalizer that tests put on objects; it goes with the test.
pub(crate) const FINALIZER: &str = "cairn.dev/test-hold";
/// The annotation of the class that claims without one get.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// How long something may take on a real cluster, which may have images to pull, and 180 s of grace to wait for twice.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// The same on a sandbox.
const SANDBOX_PATIENCE: Duration = Duration::from_secs(90);
/// Older namespaces of tests belong to no run that is still going on.
const LEFTOVER_AGE: jiff::SignedDuration = jiff::SignedDuration::from_hours(2);

/// The cluster that a test runs on.
pub(crate) struct Site {
    /// What the steps work with.
    pub(crate) cluster: Cluster,
    /// What the test itself looks and meddles with.
    pub(crate) client: Client,
    /// How long anything may take.
    pub(crate) patience: Duration,
    config: Config,
    is_real: bool,
    made: Arc<Mutex<Made>>,
}

/// What goes at the end.
#[derive(Default)]
struct Made {
    namespaces: BTreeSet<String>,
    volumes: BTreeSet<String>,
    classes: BTreeSet<String>,
    tasks: Vec<JoinHandle<()>>,
}

fn locked(made: &Mutex<Made>) -> MutexGuard<'_, Made> {
    made.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test on the cluster, and takes away what it has made.
pub(crate) async fn on_the_cluster(test: impl AsyncFnOnce(&Site) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let site = Site::open().await?;
    let ended = tokio::select! {
        ended = AssertUnwindSafe(test(&site)).catch_unwind() => ended,
        () = stopped() => Ok(Err(anyhow!("stopped by a signal"))),
    };
    let tidied = site.tidy().await.with_context(|| format!("nothing may be left on {}", site.name()));
    match ended {
        Ok(Ok(())) => tidied,
        Ok(Err(error)) => {
            if let Err(left) = tidied {
                println!("besides: {left:#}");
            }
            Err(error.context(format!("on {}", site.name())))
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Says that a test, or a part of it, proves nothing here.
pub(crate) fn skipped(why: &str) {
    println!("skipped: {why}");
}

/// Text that nobody else has.
pub(crate) fn random_text() -> String {
    format!("{:012x}", random() & 0xffff_ffff_ffff)
}

/// A number that nobody else has.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

async fn stopped() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

impl Site {
    async fn open() -> anyhow::Result<Self> {
        // The steps' client and the test's own both need it, and either may be the first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        match std::env::var_os("CAIRN_TEST_KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from) {
            None => Self::on_a_sandbox().await,
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(&path)
                    .with_context(|| format!("CAIRN_TEST_KUBECONFIG: {} cannot be read", path.display()))?;
                let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .with_context(|| format!("CAIRN_TEST_KUBECONFIG: {} names no cluster", path.display()))?;
                let site = Self::new(config, true, PATIENCE)?;
                site.name_leftovers().await?;
                site.have_a_default_class().await?;
                Ok(site)
            }
        }
    }

    async fn on_a_sandbox() -> anyhow::Result<Self> {
        let options = SandboxOptions { pod_ready_after: Duration::from_millis(100), ..SandboxOptions::default() };
        let sandbox = Sandbox::open(options)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let kubeconfig = Kubeconfig::from_yaml(&Sandbox::kubeconfig(listener.local_addr()?))?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // Ends with the test's runtime.
        tokio::spawn(async move {
            if let Err(error) = sandbox.serve(listener, std::future::pending()).await {
                println!("the sandbox is not served any more: {error}");
            }
        });
        Self::new(config, false, SANDBOX_PATIENCE)
    }

    fn new(config: Config, is_real: bool, patience: Duration) -> anyhow::Result<Self> {
        Ok(Self {
            cluster: Cluster::connect(config.clone())?,
            client: Client::try_from(config.clone())?,
            patience,
            config,
            is_real,
            made: Arc::default(),
        })
    }

    /// What the cluster is called in messages.
    pub(crate) fn name(&self) -> String {
        if self.is_real { format!("the cluster at {}", self.config.cluster_url) } else { "the sandbox".to_owned() }
    }

    /// Whether a kubelet (or what stands in for one) may do with pods as it likes here.
    pub(crate) fn is_real(&self) -> bool {
        self.is_real
    }

    /// A service name that nobody has, and its namespace, which goes with the test whoever makes it.
    pub(crate) fn service(&self) -> (String, String) {
        let service = format!("t{}", random_text());
        let namespace = format!("{TENANT}--{service}");
        self.made().namespaces.insert(namespace.clone());
        (service, namespace)
    }

    /// A namespace that the test makes itself.
    pub(crate) async fn namespace(&self) -> anyhow::Result<String> {
        let (_, name) = self.service();
        self.make_namespace(&json!({"metadata": {"name": name}})).await?;
        Ok(name)
    }

    /// Makes this namespace.
    pub(crate) async fn make_namespace(&self, body: &Value) -> anyhow::Result<()> {
        let namespace: Namespace = serde_json::from_value(body.clone())?;
        Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await?;
        Ok(())
    }

    /// The objects of a kind that clusters are made of.
    pub(crate) fn objects(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        let resource = kind.api_resource();
        if kind == Kind::Namespace {
            return Api::all_with(self.client.clone(), &resource);
        }
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    /// The pods of a namespace.
    pub(crate) fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Puts somebody else's object into the cluster.
    pub(crate) async fn stranger(&self, body: &Value) -> anyhow::Result<DynamicObject> {
        let kind = Kind::ALL.into_iter().find(|kind| body["kind"] == kind.to_string()).context("a kind of ours")?;
        let object: DynamicObject = serde_json::from_value(body.clone())?;
        let namespace = body["metadata"]["namespace"].as_str().unwrap_or_default();
        let made = self.objects(kind, namespace).create(&PostParams::default(), &object).await;
        made.with_context(|| format!("cannot create {kind}/{}", object.name_any()))
    }

    /// Waits until `look` finds it; between two looks it says what is there instead.
    pub(crate) async fn eventually<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> anyhow::Result<ControlFlow<T, String>>,
    ) -> anyhow::Result<T> {
        let ends = Instant::now() + self.patience;
        let mut pause = Duration::from_millis(50);
        loop {
            let seen = match look().await {
                Ok(ControlFlow::Break(found)) => return Ok(found),
                Ok(ControlFlow::Continue(seen)) => seen,
                // The server, or the way to it, may be better the next time; what a look itself calls wrong stays wrong.
                Err(error) if error.chain().any(|cause| cause.is::<kube::Error>()) => format!("{error:#}"),
                Err(error) => return Err(error.context(what.to_owned())),
            };
            anyhow::ensure!(
                Instant::now() < ends,
                "not within {} s: {what}; there is: {seen}",
                self.patience.as_secs()
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Whether the namespace is gone.
    pub(crate) async fn is_gone(&self, namespace: &str) -> anyhow::Result<bool> {
        Ok(self.objects(Kind::Namespace, "").get_opt(namespace).await?.is_none())
    }

    /// Whether a node has GPUs.
    pub(crate) async fn has_gpus(&self) -> anyhow::Result<bool> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?;
        let gpus =
            |node: &Node| node.status.as_ref()?.allocatable.as_ref()?.get("nvidia.com/gpu").map(|gpus| gpus.0 != "0");
        Ok(nodes.iter().any(|node| gpus(node).unwrap_or(false)))
    }

    /// A class of storage of the test's own; nothing provisions it.
    pub(crate) async fn storage_class(&self, is_default: bool) -> anyhow::Result<String> {
        let name = format!("{TENANT}-{}", random_text());
        let class: StorageClass = serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": {DEFAULT_CLASS: is_default.to_string()}},
            "provisioner": "cairn.dev/by-hand", "reclaimPolicy": "Retain", "volumeBindingMode": "Immediate",
        }))?;
        self.made().classes.insert(name.clone());
        Api::all(self.client.clone()).create(&PostParams::default(), &class).await?;
        Ok(name)
    }

    /// A claim without a class gets the default one, and the first step refuses a cluster without it.
    async fn have_a_default_class(&self) -> anyhow::Result<()> {
        let classes = Api::<StorageClass>::all(self.client.clone()).list(&ListParams::default()).await?;
        // One of another test's may be gone in a moment.
        let lasting = |class: &StorageClass| {
            class.annotations().get(DEFAULT_CLASS).is_some_and(|value| value == "true")
                && !class.name_any().starts_with(TENANT)
        };
        if !classes.iter().any(lasting) {
            let name = self.storage_class(true).await?;
            println!("the cluster has no default StorageClass: {name} is it while this test runs");
        }
        Ok(())
    }

    async fn name_leftovers(&self) -> anyhow::Result<()> {
        let all = self.objects(Kind::Namespace, "").list(&ListParams::default()).await?;
        let now = jiff::Timestamp::now();
        let is_old = |metadata: &ObjectMeta| {
            metadata.creation_timestamp.as_ref().is_some_and(|time| now.duration_since(time.0) > LEFTOVER_AGE)
        };
        let left: Vec<String> = all
            .iter()
            .filter(|found| found.name_any().starts_with(&format!("{TENANT}--")) && is_old(&found.metadata))
            .map(kube::ResourceExt::name_any)
            .collect();
        if !left.is_empty() {
            println!(
                "left by an earlier run: namespaces {}; kubectl delete namespace takes them away",
                left.join(", ")
            );
        }
        Ok(())
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        locked(&self.made)
    }
}
