//! What the routes share: the engine once it is open, the settings in force, the cluster.
//!
//! The listener is open before the engine is: until [`App::opened`] every route but the two of health answers 503.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use cairn_engine::{Clock, Engine, Service, SystemClock, Tenant, Timestamp, WorkflowId};
use cairn_steps::{elastic::Elastic, gitlab::GitLab, overlay::Overlay};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use crate::{auth::Caller, cluster::ClusterCheck, config::Rules, problem::Problem};

/// So long a creation waits for views that are too far behind, before it is refused.
const VIEWS_WAIT_MAX: Duration = Duration::from_secs(2);

/// What the routes share.
pub(crate) struct App {
    engine: OnceLock<Engine>,
    rules: RwLock<Arc<Rules>>,
    /// What pulls settings for the steps, and says beforehand what may be pulled.
    pub(crate) gitlab: GitLab,
    /// What creations install.
    pub(crate) elastic: Elastic,
    /// Whether the cluster can be reached.
    pub(crate) cluster: ClusterCheck,
    /// What is laid over the objects of every cluster.
    pub(crate) overlay: Option<Arc<Overlay>>,
    /// Whether vectors that do not fit are refused, instead of warned of.
    pub(crate) strict_sizing: bool,
    /// How far behind the journal the views may be.
    pub(crate) views_behind: Duration,
    /// For whoever makes a submission out of what is there.
    pub(crate) services: ServiceLocks,
    /// Set when the program is about to end: whoever waits for something answers now.
    pub(crate) stopping: CancellationToken,
}

impl App {
    /// An app without an engine yet.
    pub(crate) fn new(rules: Rules, elastic: Elastic, cluster: ClusterCheck) -> Self {
        Self {
            overlay: None,
            strict_sizing: false,
            views_behind: Duration::MAX,
            engine: OnceLock::new(),
            gitlab: GitLab::new(rules.gitlab.clone()),
            rules: RwLock::new(Arc::new(rules)),
            elastic,
            cluster,
            services: ServiceLocks::default(),
            stopping: CancellationToken::new(),
        }
    }

    /// The same, with this laid over the objects of every cluster.
    pub(crate) fn with_overlay(self, overlay: Option<Arc<Overlay>>) -> Self {
        Self { overlay, ..self }
    }

    /// The same, refusing vectors that do not fit, or only warning of them.
    pub(crate) fn sizing_strictly(self, strict_sizing: bool) -> Self {
        Self { strict_sizing, ..self }
    }

    /// The same, with views that may be so far behind the journal.
    pub(crate) fn with_views_behind(self, views_behind: Duration) -> Self {
        Self { views_behind, ..self }
    }

    /// Recovery is done: the routes are open. Only the first call counts.
    pub(crate) fn opened(&self, engine: Engine) {
        // An error would mean a second engine, which nobody makes.
        let _ = self.engine.set(engine);
    }

    /// The engine.
    ///
    /// # Errors
    /// [`Problem`] until recovery is done.
    pub(crate) fn engine(&self) -> Result<&Engine, Problem> {
        self.engine.get().ok_or_else(Problem::recovering)
    }

    /// The engine, for what concerns this workflow, if this caller may see it.
    ///
    /// # Errors
    /// [`Problem`]: the same whether it is not there or another tenant's.
    pub(crate) async fn engine_for(&self, caller: &Caller, workflow: WorkflowId) -> Result<&Engine, Problem> {
        let engine = self.engine()?;
        if caller.must_be_operator().is_ok() {
            // Whether it is there at all, the route finds out.
            return Ok(engine);
        }
        let state = engine.state(workflow).await?;
        match state.is_some_and(|state| caller.sees(&state.submitted().tenant)) {
            true => Ok(engine),
            false => Err(Problem::no_such_workflow(workflow)),
        }
    }

    /// Returns once the views are not too far behind the journal for another creation.
    ///
    /// # Errors
    /// [`Problem`] if that takes longer than a client should be kept waiting.
    pub(crate) async fn views_in_time(&self, engine: &Engine) -> Result<(), Problem> {
        let in_time = engine.views_in_time(self.views_behind);
        tokio::time::timeout(VIEWS_WAIT_MAX, in_time).await.map_err(|_| Problem::views_behind(self.views_behind))
    }

    /// The rules in force now.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From here on these rules are in force.
    pub(crate) fn set_rules(&self, rules: Rules) {
        self.gitlab.set_rules(rules.gitlab.clone());
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// The time now, for answers only: what counts is in the journal.
    #[expect(clippy::unused_self, reason = "the routes ask the app for all that they need")]
    pub(crate) fn now(&self) -> Timestamp {
        SystemClock.now()
    }
}

/// A lock for each service that somebody is just making a submission for. As large as its use.
#[derive(Default)]
pub(crate) struct ServiceLocks {
    locks: Mutex<Locks>,
}

type Locks = HashMap<(Tenant, Service), Arc<tokio::sync::Mutex<()>>>;

/// As long as this is held, nobody else makes a submission for the service.
pub(crate) struct ServiceLock<'a> {
    locks: &'a ServiceLocks,
    service: (Tenant, Service),
    held: Option<OwnedMutexGuard<()>>,
}

impl ServiceLocks {
    /// Waits until nobody else makes a submission for this service.
    pub(crate) async fn lock(&self, tenant: &Tenant, service: &Service) -> ServiceLock<'_> {
        let service = (tenant.clone(), service.clone());
        let lock = Arc::clone(self.all().entry(service.clone()).or_default());
        // Made before it is waited for: who stops waiting leaves nothing behind either.
        let mut place = ServiceLock { locks: self, service, held: None };
        place.held = Some(lock.lock_owned().await);
        place
    }

    fn all(&self) -> MutexGuard<'_, Locks> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ServiceLock<'_> {
    fn drop(&mut self) {
        self.held = None;
        let mut all = self.locks.all();
        // One that nobody else holds or waits for has its only reference here.
        if all.get(&self.service).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            all.remove(&self.service);
        }
    }
}
