//! One file a report: `deployment_reports/{user}_{service}_{µs}.json`, pretty-printed, as old as its report.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use cairn_engine::{Timestamp, WorkflowId};
use cairn_steps::report::Report;
use serde::Deserialize;

use super::files::{self, Files};

/// Where report files are.
pub(crate) fn dir(views: &Path) -> PathBuf {
    views.join("deployment_reports")
}

/// What tells one report from another.
#[derive(Deserialize, PartialEq, Eq)]
struct Identity {
    workflow_id: WorkflowId,
    sequence: cairn_engine::Sequence,
}

/// Writes the file of this report; the same report again changes nothing.
///
/// # Errors
/// If the disk does not take it.
pub(crate) fn write(files: &mut Files, views: &Path, report: &Report) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(report).expect("reports are plain data");
    bytes.push(b'\n');
    let identity = Identity { workflow_id: report.workflow_id, sequence: report.sequence };
    let mut micros = report.timestamp.as_micros();
    loop {
        // Names have neither `_` nor `/` nor `.`: three parts, whoever takes them apart.
        let path = dir(views).join(format!("{}_{}_{micros}.json", report.user, report.service_name));
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(files::at("read", &path, &error)),
            Ok(found) if found == bytes => {
                // Whoever wrote it may not have come to syncing it.
                files.note(&path);
                return Ok(());
            }
            // Two reports of one microsecond, when a clock was set back: the later one makes way.
            Ok(found) => match serde_json::from_slice::<Identity>(&found) {
                Ok(other) if other != identity => {
                    micros += 1;
                    continue;
                }
                Ok(_) | Err(_) => {}
            },
        }
        return files.put(&path, &bytes, Timestamp::from_micros(micros));
    }
}
