//! `cairn doctor`: what the cluster and this machine lack, said before anything is made.
//!
//! Nothing is changed by it, on the disk or in the cluster, and it can run beside an engine.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use cairn_engine::store::DurableOptions;
use cairn_steps::{
    addresses,
    cluster::doctor::{Finding, Verdict},
    gitlab::AllowedHost,
    rights,
};
use rustix::fs::{Access, access};
use serde_json::json;
use tokio::net::{TcpStream, lookup_host};

use crate::{
    cluster, command,
    config::{DoctorArgs, Settings},
    telemetry,
};

/// The time that a GitLab host has to take a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Looks at everything, prints what was found, and gives 1 if something is missing.
///
/// # Errors
/// If the settings are wrong.
pub(crate) async fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    if args.role {
        print!("{}", role());
        return Ok(ExitCode::SUCCESS);
    }
    let settings = command::settings(&args.shared)?;
    let mut findings = match cluster::configured(&settings.cluster(&args.at)).await {
        Ok(cluster) => cluster.examine().await,
        Err(error) => {
            let detail = telemetry::chain(error.as_ref());
            let remedy = "name a kubeconfig that is right: --kubeconfig FILE";
            vec![Finding::bad(Verdict::Missing, "server", "configuration", detail, remedy)]
        }
    };
    findings.extend(examine_disk(&settings.data));
    findings.push(examine_quota(&settings));
    findings.extend(examine_overlay(&settings).await);
    for host in &settings.rules.gitlab.hosts {
        findings.push(examine_host(host, settings.rules.gitlab.allow_http).await);
    }
    if args.json {
        print_json(&findings)
    } else {
        print_table(&findings)
    }
    let missing = findings.iter().any(|finding| finding.verdict == Verdict::Missing);
    Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The ClusterRole with every right that the steps need.
fn role() -> String {
    let rules = rights::role_rules();
    let name = rights::ROLE;
    format!("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: {name}\n{rules}")
}

/// Whether the data directory can be used, and how much room it has. What is not there yet is judged by its parent.
fn examine_disk(data: &Path) -> Vec<Finding> {
    let shown = data.display().to_string();
    let parent = nearest(data);
    if !parent.is_dir() {
        let detail = format!("{} is no directory", parent.display());
        return vec![Finding::bad(Verdict::Missing, "data", shown, detail, "choose another one with --data DIR")];
    }
    let mut findings = vec![match access(&parent, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if parent == data => Finding::good("data", &shown, "can be written"),
        Ok(()) => Finding::good("data", &shown, format!("can be made in {}", parent.display())),
        Err(error) => {
            let detail = format!("{} cannot be written: {}", parent.display(), std::io::Error::from(error));
            let remedy = "give it to the user that cairn runs as, or choose another one with --data DIR";
            Finding::bad(Verdict::Missing, "data", &shown, detail, remedy)
        }
    }];
    let Ok(disk) = rustix::fs::statvfs(&parent) else { return findings };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let options = DurableOptions::new(data);
    let mib = |bytes: u64| bytes >> 20;
    let detail = format!("{} MiB are free", mib(free));
    findings.push(if free < options.disk_floor_bytes {
        let remedy = format!("make {} MiB free: below that no submission is taken", mib(options.disk_floor_bytes));
        Finding::bad(Verdict::Missing, "disk", shown, detail, remedy)
    } else if free < options.disk_floor_bytes + 2 * options.ballast_bytes {
        let remedy = format!("make some room: below {} MiB no submission is taken", mib(options.disk_floor_bytes));
        Finding::bad(Verdict::Doubtful, "disk", shown, detail, remedy)
    } else {
        Finding::good("disk", shown, detail)
    });
    findings
}

/// The path itself, or what there is of it.
fn nearest(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = absolute
        .ancestors()
        .find(|place| !matches!(place.symlink_metadata(), Err(error) if error.kind() == ErrorKind::NotFound));
    match found {
        Some(place) if place == absolute => path.to_owned(),
        Some(place) => place.to_owned(),
        None => absolute,
    }
}

/// Whether the overlay can be built, if there is one.
async fn examine_overlay(settings: &Settings) -> Option<Finding> {
    let directory = settings.overlay.as_ref()?.display().to_string();
    Some(match settings.load_overlay().await {
        Ok(_) => Finding::good("overlay", directory, "can be built"),
        Err(error) => {
            let remedy = "change the directory, or leave --overlay out";
            Finding::bad(Verdict::Missing, "overlay", directory, error.to_string(), remedy)
        }
    })
}

fn examine_quota(settings: &Settings) -> Finding {
    if settings.rules.has_quota() {
        return Finding::good("quota", "default", "limits every tenant that has none of its own");
    }
    let remedy = "set [quota.default] in the file of --config";
    let detail = "a tenant without a quota of its own may take all that the cluster has";
    Finding::bad(Verdict::Doubtful, "quota", "default", detail, remedy)
}

/// Whether this host can be found and reached, and lies where it is allowed to lie.
async fn examine_host(host: &AllowedHost, allow_http: bool) -> Finding {
    let (name, port) = host.address(allow_http);
    let subject = format!("{name}:{port}");
    let bad = |detail: String, remedy: &str| Finding::bad(Verdict::Doubtful, "gitlab", &subject, detail, remedy);
    let found: Vec<_> = match lookup_host((name.trim_matches(['[', ']']), port)).await {
        Ok(found) => found.collect(),
        Err(error) => return bad(format!("its name has no address: {error}"), "see to the name, or to the resolver"),
    };
    if !host.is_private()
        && let Some(inside) = found.iter().find(|address| addresses::is_inside(address.ip()))
    {
        let remedy = "if that is meant, name it under gitlab.private_hosts (--gitlab-private-host)";
        return bad(format!("its address {} lies inside, and is not asked", inside.ip()), remedy);
    }
    match tokio::time::timeout(CONNECT_TIME_MAX, TcpStream::connect(found.as_slice())).await {
        Ok(Ok(_)) => Finding::good("gitlab", subject, "takes connections"),
        Ok(Err(error)) => bad(format!("takes no connection: {error}"), "open the way to it, or take it off the list"),
        Err(_) => bad(
            format!("takes no connection within {} seconds", CONNECT_TIME_MAX.as_secs()),
            "open the way to it, or take it off the list",
        ),
    }
}

fn count(findings: &[Finding], verdict: Verdict) -> usize {
    findings.iter().filter(|finding| finding.verdict == verdict).count()
}

fn print_json(findings: &[Finding]) {
    let (missing, doubtful) = (count(findings, Verdict::Missing), count(findings, Verdict::Doubtful));
    let all = json!({ "good": missing == 0, "missing": missing, "doubtful": doubtful, "findings": findings });
    println!("{all:#}");
}

/// What is wrong, each with its way out; what is good, in short: of the rights only how many.
fn print_table(findings: &[Finding]) {
    let rights: Vec<&Finding> = findings.iter().filter(|finding| finding.check == "right").collect();
    let granted = rights.iter().filter(|finding| finding.verdict == Verdict::Good).count();
    let mut counted = rights.is_empty();
    for finding in findings {
        if finding.check == "right" && !counted {
            counted = true;
            let mark = if granted == rights.len() { '✔' } else { ' ' };
            println!("{mark} {:<8} {granted} of {} are granted", "right", rights.len());
        }
        let mark = match finding.verdict {
            Verdict::Good if finding.check == "right" => continue,
            Verdict::Good => '✔',
            Verdict::Doubtful => '?',
            Verdict::Missing => '✘',
        };
        println!("{mark} {:<8} {}: {}", finding.check, finding.subject, finding.detail);
        if let Some(remedy) = &finding.remedy {
            println!("           → {remedy}");
        }
    }
    let (missing, doubtful) = (count(findings, Verdict::Missing), count(findings, Verdict::Doubtful));
    println!();
    match (missing, doubtful) {
        (0, 0) => println!("nothing is missing"),
        (0, doubtful) => println!("nothing is missing, {doubtful} doubtful"),
        (missing, doubtful) => println!("{missing} missing, {doubtful} doubtful: see to what is marked ✘ first"),
    }
}
