//! A world: a disk, a cluster and clients, engines that live on them one after another until there were workflows enough, and
//! then one that nothing happens to.
//!
//! - Everything runs on one thread and on a clock that jumps ahead whenever everybody waits. Whatever is drawn comes from the
//!   world's seed: the same seed gives the same world.
//! - A life is a runtime of its own. Dropped, it leaves what a killed process leaves.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use cairn_engine::{
    Chance, Commit, CommitNumber, Engine, EngineOptions, Limits, PausedClock, Phase, Timestamp, fold,
    store::{MemoryStore, Store as _},
};
use cairn_tests::site::Numbers;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    clients::{Clients, SERVICES, TENANTS},
    cluster::{Change, Cluster, Object, Way},
    disk::{Disk, Hands},
    judge,
    life::{Ending, Life, Trouble},
    notes::{Notes, Written},
    steps::{PARTS, definitions, part_of},
};

/// When every world begins.
const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
/// After so many lives there were workflows enough: a thousand times what it takes.
const LIVES_MAX: u32 = 10_000;
/// How often people look after what waits for them.
const ROUND: Duration = Duration::from_secs(120);
/// After so many rounds they do not try again what is parked, but cancel it.
const TRIES: u32 = 30;
/// After so many everything has ended: a day.
const ROUNDS_MAX: u32 = 720;
/// So often everything is deleted that is still there.
const DELETIONS_MAX: u32 = 3;

/// What has become of a world.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// How many workflows there were.
    pub(crate) workflows: usize,
    pub(crate) journal: Vec<Commit>,
    pub(crate) log: BTreeMap<String, Vec<Change>>,
    pub(crate) notes: Written,
}

/// Runs the world of this seed until there were so many workflows and all have ended, and judges it.
///
/// # Errors
/// If an engine does not open, nothing is accepted any more, or anything cannot be read.
pub(crate) fn run(seed: u64, workflows: usize) -> anyhow::Result<Ran> {
    let mut world = World::new(seed, workflows);
    let mut lives = 0;
    while world.clients.accepted() < world.wanted {
        let accepted = world.clients.accepted();
        ensure!(lives < LIVES_MAX, "in {LIVES_MAX} lives only {accepted} of {workflows} submissions were accepted");
        world.trouble()?;
        lives += 1;
    }
    world.calm()?;
    let journal = world.kept.commits(CommitNumber(0), usize::MAX)?;
    let notes = world.notes.all();
    Ok(Ran { workflows: judge::workflows(&journal), journal, log: world.cluster.log(), notes })
}

/// What outlives engines.
pub(crate) struct World {
    numbers: Numbers,
    wanted: usize,
    pub(crate) kept: MemoryStore,
    hands: Arc<Hands>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) foreign: BTreeMap<String, Object>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) notes: Arc<Notes>,
    chance: Arc<Seeded>,
    /// How long it has been there.
    age: Duration,
}

/// Chance that comes from a seed.
struct Seeded(Mutex<Numbers>);

impl Chance for Seeded {
    fn bits(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bits()
    }
}

impl World {
    fn new(seed: u64, wanted: usize) -> Self {
        let mut numbers = Numbers::of(seed);
        let mut own = || Numbers::of(numbers.bits());
        let (notes, cluster) = (Arc::<Notes>::default(), Arc::new(Cluster::new(own())));
        let (clients, chance) = (Clients::new(own(), Arc::clone(&notes)), Seeded(Mutex::new(own())));
        // At some names something of somebody else's stands in the way.
        for tenant in TENANTS {
            if numbers.happens(20) {
                let (service, part) = (numbers.one_of(&SERVICES), numbers.one_of(&PARTS));
                cluster.add_foreign(part_of(tenant, service, part));
            }
        }
        Self {
            numbers,
            wanted,
            kept: MemoryStore::opened_at(START),
            hands: Arc::default(),
            foreign: cluster.objects(),
            cluster,
            clients: Arc::new(clients),
            notes,
            chance: Arc::new(chance),
            age: Duration::ZERO,
        }
    }

    /// A life in which things go wrong, and the time until the next begins.
    fn trouble(&mut self) -> anyhow::Result<()> {
        let trouble = Trouble::drawn(&mut self.numbers);
        let down = self.numbers.one_of(&[0, 0, 5, 600, 86_400]);
        self.live(trouble, async |world, engine, life| {
            world.endure(engine, life).await?;
            ensure!(engine.health().unrecoverable.is_empty(), "I33: {:?}", engine.health().unrecoverable);
            Ok(())
        })?;
        self.age += Duration::from_secs(self.numbers.below(down + 1));
        Ok(())
    }

    /// Runs an engine on a runtime of its own, for as long as `part` takes.
    fn live(
        &mut self,
        trouble: Trouble,
        part: impl AsyncFnOnce(&Self, &Engine, &Arc<Life>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.notes.count("lives");
        // Its clock may stand anywhere within a day of the right time.
        let skew = self.numbers.one_of(&[0, 0, 0, 1, 2]) * self.numbers.below(86_400_000_000);
        let skew = i64::try_from(skew)?;
        let limits = Limits {
            in_flight: self.numbers.one_of(&[1, 4, 64]),
            in_flight_per_tenant: self.numbers.one_of(&[1, 2, 16]),
            queue: 1_024,
            ..Limits::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let (lived, result) = runtime.block_on(async {
            let life = Arc::new(Life::new(trouble));
            let now = START.after(self.age).as_micros() + if skew % 2 == 0 { skew } else { -skew };
            let engine = self.open(&life, Timestamp::from_micros(now), limits).await;
            let result = match engine {
                Ok(engine) => part(self, &engine, &life).await,
                Err(error) => Err(error),
            };
            (life.age(), result)
        });
        // Whatever is still in hand is dropped where it stands.
        runtime.shutdown_background();
        self.age += lived;
        result
    }

    async fn open(&self, life: &Arc<Life>, now: Timestamp, limits: Limits) -> anyhow::Result<Engine> {
        let (hands, notes) = (Arc::clone(&self.hands), Arc::clone(&self.notes));
        let disk = Disk { kept: self.kept.reopen_at(now), hands, life: Arc::clone(life), notes };
        let (somebody, at_once) = mpsc::unbounded_channel();
        let way = Way {
            somebody,
            cluster: Arc::clone(&self.cluster),
            hands: Arc::clone(&self.hands),
            life: Arc::clone(life),
            notes: Arc::clone(&self.notes),
        };
        let options = EngineOptions {
            store: Arc::new(disk),
            definitions: definitions(&way),
            clock: Arc::new(PausedClock::starting_at(now)),
            chance: Arc::clone(&self.chance) as Arc<dyn Chance>,
            limits,
        };
        let engine = Engine::open(options).await.context("the engine does not open")?;
        tokio::spawn(Arc::clone(&self.clients).interfere(engine.clone(), at_once));
        Ok(engine)
    }

    /// Clients want this and that, until this life ends.
    async fn endure(&self, engine: &Engine, life: &Life) -> anyhow::Result<()> {
        self.clients.ask_again(engine);
        let end = Instant::now() + life.trouble.longest();
        while self.clients.accepted() < self.wanted {
            let next = Instant::now() + self.clients.pause();
            tokio::select! {
                biased;
                () = life.ended() => break,
                () = sleep_until(next.min(end)) => {}
            }
            if Instant::now() >= end {
                break;
            }
            self.clients.act(engine, &self.kept)?;
        }
        match life.trouble.ending {
            _ if life.has_failed() => self.stops_itself(engine).await,
            Ending::Asked { grace, .. } => {
                self.notes.count("lives that were asked to end");
                engine.shutdown(grace).await?;
                self.nothing_in_flight("asked to end");
            }
            _ => self.notes.count("lives that were killed"),
        }
        life.end();
        Ok(())
    }

    /// I5: an engine that has heard of a failed write stops, with all that it has in hand.
    async fn stops_itself(&self, engine: &Engine) {
        self.notes.count("lives that a failed write ended");
        if timeout(ROUND, engine.stopped()).await.is_err() {
            self.notes.broken("I5: a write has failed, and the engine goes on".to_owned());
        }
        sleep(Duration::from_secs(1)).await;
        self.nothing_in_flight("stopped");
        // Its store cannot be closed any more.
        let _ = engine.shutdown(Duration::ZERO).await;
    }

    fn nothing_in_flight(&self, how: &str) {
        let in_flight = self.cluster.in_flight();
        if !in_flight.is_empty() {
            self.notes.broken(format!("I5: the engine was {how}, and calls are on their way for {in_flight:?}"));
        }
    }

    /// A life in which less and less goes wrong: all must end, and then all is deleted.
    fn calm(&mut self) -> anyhow::Result<()> {
        self.live(Trouble::ending_calm(), async |world, engine, life| {
            // Nothing restarts this engine: what it loses now it has lost for good.
            while life.age() < life.trouble.fair_after {
                sleep(world.clients.pause()).await;
                world.clients.act(engine, &world.kept)?;
            }
            world.settle(engine).await?;
            judge::at_rest(world)?;
            for _ in 0..DELETIONS_MAX {
                if !world.clients.delete_all(engine, &world.kept)? {
                    break;
                }
                world.settle(engine).await?;
            }
            ensure!(engine.health().unrecoverable.is_empty(), "I33: {:?}", engine.health().unrecoverable);
            engine.shutdown(ROUND).await?;
            Ok(())
        })?;
        judge::after_all(self)
    }

    /// People look after whatever waits for them, until everything has ended (I17).
    async fn settle(&self, engine: &Engine) -> anyhow::Result<()> {
        for round in 0..ROUNDS_MAX {
            self.clients.ask_again(engine);
            sleep(ROUND).await;
            let active = self.kept.active()?;
            if active.is_empty() && self.clients.know() {
                return Ok(());
            }
            for workflow in active {
                let Some(state) = fold(&self.kept.workflow(workflow)?)? else { continue };
                // What does not go on any more says so itself, at the end.
                if matches!(state.phase(), Phase::Parked { .. }) && round > TRIES {
                    drop(engine.cancel(workflow, "somebody".into(), false).await);
                }
                if matches!(state.phase(), Phase::Parked { .. }) {
                    drop(engine.retry(workflow, "somebody".into()).await);
                } else if state.is_paused() {
                    drop(engine.resume(workflow, "somebody".into()).await);
                }
            }
        }
        for workflow in self.kept.active()? {
            let state = fold(&self.kept.workflow(workflow)?)?;
            let phase = state.map(|state| format!("{:?}", state.phase())).unwrap_or_default();
            self.notes.broken(format!("I17: {workflow} has not ended after a day of calm: {phase}"));
        }
        Ok(())
    }
}
