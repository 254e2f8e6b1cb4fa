//! What the cluster tells, held against the journal: no effect before its entry, none after the end, none on what is
//! somebody else's, and at the end everything or nothing.

use std::collections::BTreeMap;

use cairn_engine::{Effect, Fact, Outcome, ParkReason, Phase, Stage, WorkflowId, WorkflowState};
use cairn_steps::{
    elastic::Elastic,
    names::WORKFLOW_ANNOTATION,
    render::{Marks, Through, render},
    request::Request,
};
use serde_json::Value;

use super::{Evidence, Findings, History, Write};
use crate::life::{Call, Event};

/// How far the cluster's clock may stand from the journal's: they are one clock, read through two counters.
const SKEW_MICROS: i64 = 100_000;

/// I3, I16: each write leaves while the journal, as it is on the disk, shows an attempt or a compensation in hand.
pub(super) fn order(histories: &[History<'_>], tape: &[Event], found: &mut Findings) {
    let mut states: BTreeMap<WorkflowId, WorkflowState> = BTreeMap::new();
    for event in tape {
        match event {
            Event::Committed(commit) => {
                for entry in &commit.entries {
                    match states.get_mut(&entry.workflow) {
                        // An illegal entry is reported where the journal itself is judged.
                        Some(state) => drop(state.fold(entry)),
                        None => drop(WorkflowState::begin(entry).map(|state| states.insert(entry.workflow, state))),
                    }
                }
            }
            Event::Called(call) if call.is_write() => {
                let Some(id) = owner(call, histories, &states) else { continue };
                match states.get(&id) {
                    None => found.add("I3", format!("{} {} left before {id} was submitted", call.method, call.path)),
                    Some(state) => judge(call, state, found),
                }
            }
            Event::Called(_) | Event::Ended(_) => {}
        }
    }
}

fn judge(call: &Call, state: &WorkflowState, found: &mut Findings) {
    match state.phase() {
        Phase::Running { .. } | Phase::Compensating { stage: Stage::Running { .. }, .. } => {}
        Phase::Finished { .. } => {
            found.add("I16", format!("{} {} left after {} had finished", call.method, call.path, state.id()));
        }
        other => {
            found.add("I3", format!("{} {} left while {} was {other:?}", call.method, call.path, state.id()));
        }
    }
}

/// Whose call it is: by its namespace, or, without one, that of the only workflow there is. Of the workflows of one namespace it
/// is the newest that was submitted by then: one follows the other.
fn owner(call: &Call, histories: &[History<'_>], states: &BTreeMap<WorkflowId, WorkflowState>) -> Option<WorkflowId> {
    // The questions of the first step ("may I?") are writes by their method only.
    if call.path.contains("/selfsubject") {
        return None;
    }
    match call.namespace() {
        Some(namespace) => {
            let of_it = || histories.iter().filter(|history| history.namespace().as_deref() == Some(namespace));
            let submitted = of_it().rev().find(|history| states.contains_key(&history.id));
            submitted.or_else(|| of_it().next()).map(|history| history.id)
        }
        None => match histories {
            [only] => Some(only.id),
            _ => None,
        },
    }
}

/// I3, I16 by the clock, for worlds without a tape: at the time of each write an attempt or compensation was in hand.
pub(super) fn times(histories: &[History<'_>], writes: &[Write], found: &mut Findings) {
    for write in writes {
        let (Some(at), Some(workflow)) = (write.at_micros, &write.workflow) else { continue };
        let mut of_it = histories.iter().filter(|history| history.mark() == *workflow).peekable();
        if of_it.peek().is_some() && !of_it.any(|history| in_hand_around(history, at)) {
            found.add("I3", format!("{} of {} by {workflow} with nothing in hand", write.verb, write.object()));
        }
    }
}

fn in_hand_around(history: &History<'_>, at: i64) -> bool {
    let mut state: Option<WorkflowState> = None;
    let mut in_hand = false;
    for entry in &history.entries {
        let time = entry.time.as_micros();
        if time > at.saturating_add(SKEW_MICROS) {
            break;
        }
        let folded = match &mut state {
            Some(state) => state.fold(entry).is_ok(),
            None => WorkflowState::begin(entry).map(|begun| state = Some(begun)).is_ok(),
        };
        let now = folded
            && state.as_ref().is_some_and(|state| {
                matches!(
                    state.phase(),
                    Phase::Running { .. } | Phase::Compensating { stage: Stage::Running { .. }, .. }
                )
            });
        // Everything up to `at - skew` is overwritten by what follows; what lies within the skew may count.
        in_hand = if time < at.saturating_sub(SKEW_MICROS) { now } else { in_hand || now };
    }
    in_hand
}

/// I9, I15: each object is made once; nothing is written to what bears no workflow's mark.
pub(super) fn writes(histories: &[History<'_>], writes: &[Write], found: &mut Findings) {
    let mut made: BTreeMap<(String, Option<&str>), usize> = BTreeMap::new();
    for write in writes {
        let known = |mark: &str| histories.iter().any(|history| history.mark() == mark);
        match write.workflow.as_deref() {
            Some(mark) if known(mark) => {}
            other => {
                found.add("I15", format!("{} of {}, which is of {other:?}", write.verb, write.object()));
                continue;
            }
        }
        if write.made_it {
            *made.entry((write.object(), write.workflow.as_deref())).or_default() += 1;
        }
    }
    for ((object, workflow), times) in made {
        // Over kept data a cluster is made anew, under the mark of that data; also where such a creation fails.
        let is_creation = |history: &&History<'_>| {
            history.submitted.effect == Effect::Create && Some(history.mark().as_str()) == workflow
        };
        if times > histories.iter().filter(is_creation).count().max(1) {
            found.add("I9", format!("{object} was made {times} times by {workflow:?}"));
        }
    }
}

/// I9, I14: at the end everything is there as rendered, or nothing is, or what a deletion was to keep. Of the workflows that worked
/// on one cluster, one after the other, it is the last that says what has to be there.
pub(super) fn ends(histories: &[History<'_>], evidence: &Evidence, found: &mut Findings) {
    let mut last: BTreeMap<String, &History<'_>> = BTreeMap::new();
    for history in histories {
        last.insert(history.mark(), history);
    }
    for history in last.values() {
        end(history, evidence, found);
    }
}

fn end(history: &History<'_>, evidence: &Evidence, found: &mut Findings) {
    let (id, mark_of_it) = (history.id, history.mark());
    let mine: Vec<&Value> = evidence.objects.iter().filter(|object| mark(object) == Some(&mark_of_it)).collect();
    let names = || mine.iter().map(|object| name(object)).collect::<Vec<_>>().join(", ");
    let effect = history.submitted.effect;
    match (history.outcome(), history.entries.last().map(|entry| &entry.fact)) {
        (Some((Outcome::Succeeded, _)), _) if effect == Effect::Delete => {
            if history.keeps_data() {
                only_data(history, &mine, evidence, found);
            } else if !mine.is_empty() {
                found.add("I14", format!("{id} succeeded, and of what it deleted is left {}", names()));
            }
        }
        (Some((Outcome::Succeeded, _)), _) => whole(history, history.submitted.input.value(), &mine, evidence, found),
        // Taken back: as it was before.
        (Some((_, residue)), _) if effect != Effect::Create && residue.is_empty() => {
            let input = history.submitted.input.value();
            let before = input.get("before").unwrap_or(&input["request"]).clone();
            whole(history, before, &mine, evidence, found);
        }
        (Some((_, residue)), _) if effect == Effect::Create && history.keeps_data() && residue.is_empty() => {
            only_data(history, &mine, evidence, found);
        }
        (Some((outcome, residue)), _) => {
            if !residue.is_empty() && !history.was_forced() {
                found.add("I14", format!("{id} {outcome:?} and left {residue:?}"));
            }
            if effect == Effect::Create && residue.is_empty() != mine.is_empty() {
                found.add("I14", format!("{id} {outcome:?}, says it left {residue:?}, and left {}", names()));
            }
        }
        (None, Some(Fact::Parked { reason: ParkReason::Residue { left } })) => {
            if left.is_empty() != mine.is_empty() {
                found.add("I14", format!("{id} is parked with {left:?}, and left {}", names()));
            }
        }
        (None, _) => {}
    }
}

/// The disks, what opens them and where they lie, and nothing else.
fn only_data(history: &History<'_>, mine: &[&Value], evidence: &Evidence, found: &mut Findings) {
    let id = history.id;
    let is_data =
        |object: &&&Value| ["Namespace", "Secret", "PersistentVolumeClaim"].iter().any(|kind| object["kind"] == **kind);
    for more in mine.iter().filter(|object| !is_data(object)) {
        found.add("I14", format!("{id} keeps the data, and {} is left as well", name(more)));
    }
    let Ok(request) = Request::journaled(history.submitted.input.as_bytes()) else { return };
    let claims = mine.iter().filter(|object| object["kind"] == "PersistentVolumeClaim").count();
    if !evidence.objects.is_empty() && claims != usize::try_from(request.replicas).unwrap_or(usize::MAX) {
        found.add("I14", format!("{id} keeps the data of {} nodes, and {claims} claims are there", request.replicas));
    }
}

/// Everything of this request is there, made once.
fn whole(history: &History<'_>, request: Value, mine: &[&Value], evidence: &Evidence, found: &mut Findings) {
    let id = history.id;
    if evidence.objects.is_empty() {
        return;
    }
    let Ok(request) = Request::journaled(request.to_string().as_bytes()) else {
        found.add("I1", format!("{id}: its request cannot be read"));
        return;
    };
    let marks = Marks { workflow: history.mark() };
    for wanted in render(&request, &Elastic::default(), Through::RolloutCompleted, None, &marks) {
        let same = |object: &&&Value| {
            object["kind"].as_str() == Some(&wanted.kind.to_string())
                && object["metadata"]["name"].as_str() == Some(&wanted.name)
                && object["metadata"]["namespace"].as_str() == wanted.namespace.as_deref()
        };
        let there: Vec<_> = mine.iter().filter(same).collect();
        let [object] = there[..] else {
            found.add("I9", format!("{id} succeeded, and {wanted} is there {} times", there.len()));
            continue;
        };
        let memory = "/spec/template/spec/containers/0/resources/limits";
        let limits = (wanted.body.pointer(memory), object.pointer(memory));
        if wanted.kind.to_string() == "StatefulSet" && limits.0 != limits.1 {
            found.add("I9", format!("{id}: {wanted} has not the limits {limits:?}"));
        }
        let replicas = &wanted.body["spec"]["replicas"];
        if !replicas.is_null() && object["spec"]["replicas"] != *replicas {
            found.add("I9", format!("{id}: {wanted} has not {replicas} replicas: {}", object["spec"]["replicas"]));
        }
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        let makers = evidence.writes.iter().filter(|write| write.made_it && write.uid == uid).count();
        if !evidence.writes.is_empty() && makers != 1 {
            found.add("I9", format!("{id}: {wanted} with UID {uid} was made by {makers} writes"));
        }
    }
}

/// I15: what was there before, and is not ours, is there as it was.
pub(super) fn foreign(evidence: &Evidence, found: &mut Findings) {
    for before in &evidence.foreign {
        let after = evidence.objects.iter().find(|object| object["metadata"]["uid"] == before["metadata"]["uid"]);
        match after {
            None => found.add("I15", format!("{} is gone", name(before))),
            Some(after) if after != before => {
                found.add("I15", format!("{} has changed: {before} to {after}", name(before)))
            }
            Some(_) => {}
        }
    }
}

fn mark(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][WORKFLOW_ANNOTATION].as_str()
}

fn name(object: &Value) -> String {
    let part = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let metadata = &object["metadata"];
    format!("{} {}/{}", part(&object["kind"]), part(&metadata["namespace"]), part(&metadata["name"]))
}
