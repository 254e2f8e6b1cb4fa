//! `cairn prove`: the claim, tried out on this machine. Creations are killed at every append and at every call to their
//! cluster, and have every answer lost; each must end with ten reports, or with nothing left.
//!
//! - The engine is this very program, in a process of its own, on the disk of the temporary directory; kills are SIGKILL.
//! - An undisturbed creation is counted first: its appends and calls are the points. What a creation makes is what that
//!   one has made.
//! - With `--pairs` each is killed twice: at a call, and at one of the first calls of the recovery from that.
//! - Points run in worlds of [`POINTS_PER_WORLD`], so that the journals stay short and each is verified at its end.

mod judge;
mod points;
mod world;

use std::{
    collections::{BTreeSet, VecDeque},
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use cairn_engine::Outcome;
use futures::{StreamExt as _, stream::FuturesUnordered};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use rand::{SeedableRng as _, rngs::SmallRng, seq::SliceRandom as _};

use self::{
    judge::Name,
    points::{Creation, Point, Trouble},
    world::{Tried, World},
};
use crate::{
    config::{ProveArgs, StepChoice},
    out::out,
    shutdown::Signals,
    telemetry::{self, LogFormat},
};

/// Creations in one journal and one cluster.
const POINTS_PER_WORLD: usize = 24;
/// More violations than that say no more.
const TOLD_MAX: usize = 10;

/// Tries all points, and tells what came of them.
///
/// # Errors
/// If they cannot be tried; violations are none, but make the exit code 1.
pub(crate) async fn run(args: ProveArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new().context("signals cannot be received")?;
    telemetry::start(LogFormat::Human, "error")?;
    let directory = tempfile::Builder::new().prefix("cairn-prove-").tempdir().context("no temporary directory")?;
    let mut proof = Proof::new(&args, directory.path());
    let swept = tokio::select! {
        swept = proof.sweep(&args) => Some(swept),
        () = signals.end() => None,
    };
    proof.bar.finish_and_clear();
    let violations = proof.conclude();
    let is_interrupted = swept.is_none();
    let swept = swept.unwrap_or_else(|| Err(anyhow::anyhow!("interrupted: what was tried so far proves little")));
    if violations > 0 || (swept.is_err() && !is_interrupted) {
        out!("the journals and the logs of the engines are in {}", directory.keep().display());
    }
    swept.map(|()| if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A group of points in one world.
struct Batch {
    creation: Creation,
    whole: Arc<BTreeSet<Name>>,
    points: Vec<Point>,
    directory: PathBuf,
}

/// What came of a point, with what it was.
type Told = (Creation, Point, anyhow::Result<Tried>);

/// A line of the table.
struct Row {
    creation: Creation,
    trouble: Trouble,
    points: usize,
    missed: usize,
    resumed: usize,
    rolled_back: usize,
    violations: Vec<String>,
}

struct Proof {
    directory: PathBuf,
    seed: u64,
    jobs: usize,
    bar: ProgressBar,
    rows: Vec<Row>,
    /// What is wrong with a journal as a whole.
    journals: Vec<String>,
    worlds: usize,
    began: Instant,
}

impl Proof {
    fn new(args: &ProveArgs, directory: &Path) -> Self {
        let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, usize::from);
        let bar = if std::io::stdout().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.set_style(
            ProgressStyle::with_template("  {bar:32.cyan/dim} {pos}/{len} points  {elapsed}, some {eta} left  {msg}")
                .expect("a template without a typo"),
        );
        Self {
            directory: directory.to_owned(),
            seed: args.seed.unwrap_or_else(rand::random),
            jobs,
            bar,
            rows: Vec::new(),
            journals: Vec::new(),
            worlds: 0,
            began: Instant::now(),
        }
    }

    async fn sweep(&mut self, args: &ProveArgs) -> anyhow::Result<()> {
        out!("cairn prove: every creation either completes or leaves nothing\n");
        let failing: Vec<StepChoice> = if args.every_step {
            StepChoice::all().collect()
        } else {
            StepChoice::all().next_back().into_iter().collect()
        };
        let creations = std::iter::once(None).chain(failing.into_iter().map(Some));
        let creations: Vec<Creation> = creations.map(|failing| Creation { failing }).collect();
        let mut all = Vec::new();
        for creation in &creations {
            let mut world = World::new(&self.next_directory(), *creation).await?;
            let clean = world.clean().await?;
            world.close().await?;
            out!("  {creation}: {} appends, {} calls to the cluster", clean.appends, clean.calls);
            let whole = Arc::new(clean.whole);
            let points = if args.pairs { Point::pairs(clean.calls) } else { Point::all(clean.appends, clean.calls) };
            all.extend(points.into_iter().map(|point| (*creation, Arc::clone(&whole), point)));
        }
        let of = all.len();
        let chosen = args.points.map_or(of, |points| points.get().min(of));
        // Points of all kinds come up all the time, and the longest do not wait for the end.
        all.shuffle(&mut SmallRng::seed_from_u64(self.seed));
        all.truncate(chosen);
        out!(
            "  {chosen} of {of} points, seed {}, {} at a time, in {}\n",
            self.seed,
            self.jobs,
            self.directory.display()
        );
        self.bar.set_length(u64::try_from(chosen)?);
        self.bar.enable_steady_tick(Duration::from_millis(200));
        let batches = self.batches(&creations, all);
        for trouble in creations.iter().flat_map(|creation| Trouble::ALL.map(|trouble| (*creation, trouble))) {
            self.rows.push(Row::new(trouble));
        }
        self.try_out(batches).await
    }

    /// The points of each creation in worlds of their own.
    fn batches(&mut self, creations: &[Creation], all: Vec<(Creation, Arc<BTreeSet<Name>>, Point)>) -> VecDeque<Batch> {
        let mut batches = Vec::new();
        for creation in creations {
            let of_it: Vec<_> = all.iter().filter(|(of, ..)| of == creation).collect();
            for points in of_it.chunks(POINTS_PER_WORLD) {
                let [(_, whole, _), ..] = points else { continue };
                batches.push(Batch {
                    creation: *creation,
                    whole: Arc::clone(whole),
                    points: points.iter().map(|(_, _, point)| *point).collect(),
                    directory: self.next_directory(),
                });
            }
        }
        batches.into()
    }

    async fn try_out(&mut self, batches: VecDeque<Batch>) -> anyhow::Result<()> {
        let waiting = Arc::new(Mutex::new(batches));
        let (told, mut heard) = tokio::sync::mpsc::channel::<Told>(64);
        let mut lanes: FuturesUnordered<_> = (0..self.jobs).map(|_| lane(Arc::clone(&waiting), told.clone())).collect();
        drop(told);
        loop {
            tokio::select! {
                Some(told) = heard.recv() => self.take_in(told),
                Some(ended) = lanes.next() => self.journals.extend(ended?),
                else => return Ok(()),
            }
        }
    }

    fn take_in(&mut self, (creation, point, tried): Told) {
        let row = self.rows.iter_mut().find(|row| row.creation == creation && row.trouble == point.trouble);
        let row = row.expect("there is a row for every kind of point");
        row.take_in(creation, point, tried);
        let violations: usize = self.rows.iter().map(|row| row.violations.len()).sum();
        self.bar.set_message(format!("{violations} violations"));
        self.bar.inc(1);
        if !std::io::stdout().is_terminal() && self.bar.position().is_multiple_of(50) {
            out!("  {} of {} points, {violations} violations", self.bar.position(), self.bar.length().unwrap_or(0));
        }
    }

    /// Tells the table and what is broken; returns how much is.
    fn conclude(&self) -> usize {
        let mut creation = None;
        for row in self.rows.iter().filter(|row| row.points > 0) {
            if creation != Some(row.creation) {
                out!("  {}", row.creation);
                creation = Some(row.creation);
            }
            row.tell();
        }
        let sum = |of: fn(&Row) -> usize| self.rows.iter().map(of).sum::<usize>();
        let told = self.rows.iter().flat_map(|row| &row.violations).chain(&self.journals);
        let violations = told.clone().count();
        out!(
            "\npoints {}, resumed {}, rolled back {}, not come to {}, violations {violations}; {}, seed {}",
            sum(|row| row.points),
            sum(|row| row.resumed),
            sum(|row| row.rolled_back),
            sum(|row| row.missed),
            HumanDuration(self.began.elapsed()),
            self.seed
        );
        for violation in told.take(TOLD_MAX) {
            out!("  ✘ {violation}");
        }
        if violations > TOLD_MAX {
            out!("  and {} more", violations - TOLD_MAX);
        }
        violations
    }

    fn next_directory(&mut self) -> PathBuf {
        self.worlds += 1;
        self.directory.join(format!("world-{}", self.worlds))
    }
}

impl Row {
    fn new((creation, trouble): (Creation, Trouble)) -> Self {
        Self { creation, trouble, points: 0, missed: 0, resumed: 0, rolled_back: 0, violations: Vec::new() }
    }

    fn take_in(&mut self, creation: Creation, point: Point, tried: anyhow::Result<Tried>) {
        self.points += 1;
        match tried {
            Ok(tried) => {
                match tried.outcome {
                    _ if !tried.reached => self.missed += 1,
                    Outcome::Succeeded => self.resumed += 1,
                    Outcome::Failed | Outcome::Cancelled => self.rolled_back += 1,
                }
                if !tried.violations.is_empty() {
                    self.violations.push(format!("{creation}, {point}: {}", tried.violations.join("; ")));
                }
            }
            Err(error) => {
                self.violations.push(format!("{creation}, {point}: {}", telemetry::chain(error.as_ref())));
            }
        }
    }

    fn tell(&self) {
        let Self { points, missed, resumed, rolled_back, violations, .. } = self;
        out!(
            "    {:<36} {points:>4} points {resumed:>4} resumed {rolled_back:>4} rolled back {missed:>4} not come to {:>3} violations",
            self.trouble.title(),
            violations.len()
        );
    }
}

/// Tries one batch after the other; returns what is wrong with their journals.
async fn lane(
    waiting: Arc<Mutex<VecDeque<Batch>>>,
    told: tokio::sync::mpsc::Sender<Told>,
) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(batch) = next else { return Ok(found) };
        let mut world = World::new(&batch.directory, batch.creation).await?;
        let mut broken = false;
        for point in batch.points {
            let tried = world.try_out(point, &batch.whole).await;
            broken |= tried.as_ref().map_or(true, |tried| !tried.violations.is_empty());
            // Nobody hears it once the proof was interrupted.
            let _ = told.send((batch.creation, point, tried)).await;
        }
        if let Err(error) = world.close().await {
            broken = true;
            found.push(format!("{}: {}", batch.directory.display(), telemetry::chain(error.as_ref())));
        }
        if !broken {
            // What is in order is of no interest, and takes room.
            let _ = std::fs::remove_dir_all(&batch.directory);
        }
    }
}
