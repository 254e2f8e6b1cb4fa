//! What a person sees of the demo: a line a step, the step in hand with a moving sign, and where to go from there.

use std::{io::IsTerminal as _, time::Duration};

use cairn_engine::{Attempt, Effect, Entry, Fact, Outcome, Probe, StepName, Timestamp, WorkflowState};
use cairn_steps::report::{Report, STATUSES};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::{
    command::RunningSandbox,
    config::Settings,
    driven::{Accepted, EngineProcess},
    out::out,
};

/// The longest of the ten names.
const NAME_CHARS: usize = 20;
/// Messages longer than this are cut.
const MESSAGE_CHARS: usize = 68;

pub(crate) struct Screen {
    /// The step in hand. On anything but a terminal it is not shown: lines that stay are enough.
    bar: ProgressBar,
    colours: bool,
    compensating_since: Option<Timestamp>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let bar = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        bar.set_style(
            ProgressStyle::with_template("  {spinner:.cyan} {msg:<26} {elapsed:.dim}")
                .expect("a template without a typo"),
        );
        Self { bar, colours: terminal, compensating_since: None }
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| {
            out!("{text}");
        });
    }

    fn sign(&self, sign: &str, colour: u8) -> String {
        if self.colours { format!("\x1b[{colour}m{sign}\x1b[0m") } else { sign.to_owned() }
    }

    pub(crate) fn introduce(&self, settings: &Settings, sandbox: &RunningSandbox, engine: &EngineProcess) {
        out!(
            "cairn demo: one Elasticsearch cluster, in ten journaled steps\n\n  \
             journal  {}\n  cluster  http://{} (a sandbox, in this process)\n  engine   {} (process {})\n",
            settings.data.display(),
            sandbox.address,
            engine.url(),
            engine.id()
        );
    }

    /// What is the matter with the cluster of a scenario.
    pub(crate) fn scenario(&self, story: &str) {
        out!("  what is wrong here: {story}\n");
    }

    /// Somebody has seen to what held the namespace; `why` is what the engine said of it, in full.
    pub(crate) fn released(&self, why: &str) {
        self.line(&format!("      {why}"));
        self.line(&format!(
            "  {} somebody takes the finalizer away; the engine would have gone on trying, and then parked",
            self.sign("⚒", 36)
        ));
    }

    /// Why it failed, in full: the lines above are cut.
    pub(crate) fn told(&self, report: &Report) {
        out!("what the `failed` report says:\n  {}", report.message);
        let lines = |evidence: &Value| {
            for line in evidence.as_array().into_iter().flatten() {
                out!("  evidence: {}", line.as_str().unwrap_or_default());
            }
        };
        lines(&report.result["evidence"]);
        for held in report.result["held_up"].as_array().into_iter().flatten() {
            let text = |field: &str| held[field].as_str().unwrap_or_default().to_owned();
            out!("  the rollback of {} was held up: {}", text("step"), text("error"));
            lines(&held["evidence"]);
        }
        out!();
    }

    /// A change of the cluster that was created before.
    pub(crate) fn changing(&self, accepted: &Accepted, wanted: &Value) {
        out!("changing {}/{}, workflow {}: {wanted}\n", accepted.user, accepted.service, accepted.id);
    }

    /// The change is taken back, and the cluster goes on.
    pub(crate) fn changed_back(&self, record: &Value) {
        out!("the cluster is as it was before the change. The record:\n{}\n", pretty(record));
    }

    pub(crate) fn accepted(&self, accepted: &Accepted) {
        out!("creating {}/{}, workflow {}\n", accepted.user, accepted.service, accepted.id);
    }

    /// One entry of the journal, if it is one that a person wants to see.
    pub(crate) fn entry(&mut self, entry: &Entry, state: &WorkflowState) {
        match &entry.fact {
            Fact::AttemptStarted { step, attempt } => {
                let again = if *attempt > Attempt(1) { format!(" (attempt {attempt})") } else { String::new() };
                self.begin(&format!("{} {step}{again}", number(step)));
            }
            Fact::AttemptSucceeded { step, output, .. } => {
                let started = state.place(step).and_then(|place| state.progress()[place].started);
                let sign = if output.skipped { self.sign("–", 90) } else { self.sign("✔", 32) };
                self.step(&sign, step, &output.message, started, entry.time);
            }
            Fact::AttemptFailed { step, error, retry_at, .. } => {
                let started = state.place(step).and_then(|place| state.progress()[place].started);
                let message =
                    if retry_at.is_some() { format!("again soon: {}", error.message) } else { error.message.clone() };
                self.step(&self.sign("✘", 31), step, &message, started, entry.time);
            }
            Fact::Probed { step, answer, .. } => {
                let seen = match answer {
                    Probe::Applied { .. } => "looked: it was done before the crash",
                    Probe::NotApplied => "looked: nothing of it is there",
                    Probe::Partly { .. } => "looked: it is there, at least in part",
                    Probe::Foreign { .. } => "looked: somebody else's",
                };
                self.step(&self.sign("?", 33), step, seen, None, entry.time);
            }
            Fact::CompensationStarted { step, .. } => {
                self.compensating_since = Some(entry.time);
                self.begin(&format!("{} {step}, taking back", number(step)));
            }
            Fact::CompensationSucceeded { step, message, .. } => {
                let since = self.compensating_since.take();
                self.step(&self.sign("↩", 33), step, message, since, entry.time);
            }
            Fact::CompensationFailed { step, error, .. } => {
                self.step(&self.sign("✘", 31), step, &format!("taking back: {}", error.message), None, entry.time);
            }
            Fact::Finished { outcome, .. } => self.finished(*outcome, state, entry.time),
            Fact::Submitted(_)
            | Fact::ProbeFailed { .. }
            | Fact::ResidueCheckFailed { .. }
            | Fact::CancelRequested { .. }
            | Fact::Paused { .. }
            | Fact::Resumed { .. }
            | Fact::RetryRequested { .. }
            | Fact::Parked { .. } => {}
        }
    }

    fn begin(&self, what: &str) {
        self.bar.reset_elapsed();
        self.bar.set_message(what.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(80));
    }

    fn step(&self, sign: &str, step: &StepName, message: &str, since: Option<Timestamp>, until: Timestamp) {
        let duration = since.map(|since| millis(until.since(since))).unwrap_or_default();
        let message = shortened(message);
        self.line(&format!(
            "  {sign} {} {step:<NAME_CHARS$} {message:<MESSAGE_CHARS$} {duration:>9}",
            number(step),
            step = step.as_str()
        ));
    }

    fn finished(&self, outcome: Outcome, state: &WorkflowState, time: Timestamp) {
        self.bar.finish_and_clear();
        let total = millis(time.since(state.submitted_at()));
        let word = match outcome {
            Outcome::Succeeded if state.submitted().effect == Effect::Update => "changed",
            Outcome::Succeeded => "created",
            Outcome::Failed => "failed and rolled back",
            Outcome::Cancelled => "cancelled and rolled back",
        };
        out!("\n{word} in {total}, {} journal entries", state.sequence());
    }

    pub(crate) fn crashed(&self, process: u32, step: &str) {
        self.bar.disable_steady_tick();
        self.line(&format!(
            "  {} engine process {process} is gone: SIGKILL, {step} was started and nobody knows how far it came",
            self.sign("⚡", 31)
        ));
    }

    pub(crate) fn resumed(&self, process: u32) {
        self.line(&format!("  {} engine process {process} has read the journal, and goes on\n", self.sign("⟳", 36)));
    }

    pub(crate) fn created(&self, record: &Value, reports: usize) {
        out!("{reports} reports, the last one completed. The record:\n{}\n", pretty(record));
    }

    pub(crate) fn rolled_back(&self, record: &Value) {
        out!(
            "residue check: nothing left, neither by the journal nor in the cluster. The record:\n{}\n",
            pretty(record)
        );
    }

    /// Where to go from here.
    pub(crate) fn way_on(
        &self,
        settings: &Settings,
        sandbox: &RunningSandbox,
        engine: &EngineProcess,
        accepted: &Accepted,
        ends: bool,
    ) {
        let (url, user, service, id) = (engine.url(), &accepted.user, &accepted.service, &accepted.id);
        let data = settings.data.display();
        if ends {
            out!("Start it again, then go on with:");
            out!("  cairn dev --data {data} --port {}", engine.port());
        } else {
            out!("Go on with:");
        }
        out!("  curl -s {url}/workflows/{id}");
        out!("  curl -s {url}/deployment/reports/{user}/{service}");
        out!("  curl -s '{url}/workflows/{id}/journal?format=ndjson'");
        out!("  curl -s '{url}/clusters?wait=60s' -d '{{\"user\":\"acme\",\"service_name\":\"logs\"}}'");
        out!("  kubectl --kubeconfig {} get sts,deploy,pvc,svc,ns -A", sandbox.kubeconfig.display());
        out!("  ls {}/deployment_reports", settings.views.display());
        out!("The journal lies in {data}:");
        out!("  cairn-journal verify --data {data}");
        out!("  cairn-journal history {id} --data {data}");
    }

    pub(crate) fn serving_on(&self) {
        out!("\nserving on until Ctrl-C");
    }
}

/// The step's number in the list of ten, as wide as the widest.
fn number(step: &StepName) -> String {
    let place = STATUSES.iter().position(|name| *name == step.as_str());
    place.map_or_else(|| "  ".to_owned(), |place| format!("{:>2}", place + 1))
}

fn shortened(message: &str) -> String {
    if message.chars().count() <= MESSAGE_CHARS {
        return message.to_owned();
    }
    let mut cut: String = message.chars().take(MESSAGE_CHARS - 1).collect();
    cut.push('…');
    cut
}

fn millis(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..10_000 => format!("{millis} ms"),
        millis => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}
