//! I19: every view equals the projection of the journal, one file and one line a report.

use std::collections::BTreeMap;

use cairn_engine::{Effect, Outcome};
use cairn_steps::report;
use serde_json::Value;

use super::{Evidence, Findings, History};

/// The views of a journal, as they lie on the disk.
#[derive(Clone, Debug, Default)]
pub struct Views {
    /// Every report file.
    pub reports: Vec<Value>,
    /// The lines of the deployment log.
    pub log: Vec<String>,
    /// Every file of `tenant_data`, by its name.
    pub tenant_data: BTreeMap<String, Value>,
    /// `deployments.json`.
    pub deployments: Value,
}

pub(super) fn views(histories: &[History<'_>], evidence: &Evidence, found: &mut Findings) {
    let Some(views) = &evidence.views else { return };
    let mut files: Vec<String> = views.reports.iter().map(Value::to_string).collect();
    let mut lines: Vec<&str> = views.log.iter().map(String::as_str).collect();
    for history in histories {
        let entries: Vec<_> = history.entries.iter().copied().cloned().collect();
        for report in report::reports(&entries).unwrap_or_default() {
            let id = format!("{} of {}", report.status, history.id);
            let text = serde_json::to_value(&report).map(|report| report.to_string()).unwrap_or_default();
            match files.iter().position(|file| *file == text) {
                Some(place) => drop(files.swap_remove(place)),
                None => found.add("I19", format!("the report {id} has no file that equals it")),
            }
            let start = format!("{} {} {} {} ", report.timestamp, report.user, report.service_name, report.status);
            match lines.iter().position(|line| line.starts_with(&start)) {
                Some(place) => drop(lines.swap_remove(place)),
                None => found.add("I19", format!("the report {id} has no line in the log")),
            }
        }
    }
    for file in files {
        found.add("I19", format!("a file is no report of the journal, or there twice: {file}"));
    }
    for line in lines {
        found.add("I19", format!("a line of the log is no report of the journal, or there twice: {line}"));
    }
    records(histories, views, found);
}

fn records(histories: &[History<'_>], views: &Views, found: &mut Findings) {
    let mut last = BTreeMap::new();
    for history in histories {
        last.insert((history.submitted.tenant.as_str(), history.submitted.service.as_str()), history);
    }
    let deployments = views.deployments.as_array().map(Vec::as_slice).unwrap_or_default();
    for ((tenant, service), history) in last {
        let Some((outcome, _)) = history.outcome() else { continue };
        let container = views.tenant_data.get(&format!("{tenant}_{service}.json"));
        let (status, stays) = match (history.submitted.effect, outcome) {
            (Effect::Create | Effect::Update, Outcome::Succeeded) => ("created", true),
            (Effect::Create, Outcome::Failed | Outcome::Cancelled) => ("failed", false),
            (Effect::Delete, Outcome::Succeeded) => ("deleted", false),
            // What it goes back to stands in the journal of another workflow: the records are judged for that.
            (Effect::Update | Effect::Delete, _) => continue,
        };
        if container.is_some() != stays || container.is_some_and(|container| container["status"] != status) {
            found
                .add("I19", format!("{tenant}/{service} ended {outcome:?}, and its container's file is {container:?}"));
        }
        let is_it = |record: &&Value| record["user"] == tenant && record["service_name"] == service;
        let record = deployments.iter().find(is_it);
        if record.is_none_or(|record| record["status"] != status) {
            found.add("I19", format!("{tenant}/{service} ended {outcome:?}, and deployments.json says {record:?}"));
        }
    }
}
