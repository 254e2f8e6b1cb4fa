//! The shell commands that users of the system before have in their scripts, unchanged, on the views of this one.
//!
//! `server/` is the directory of the views; the log is moved, since tests run at the same time.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, ensure};
use cairn_steps::report::STATUSES;
use cairn_tests::{
    program::{Cairn, CairnOptions, Process},
    site::Site,
};
use serde_json::{Value, json};
use tokio::process::Command;

struct Scripts {
    site: Site,
    cairn: Cairn,
}

impl Scripts {
    /// A site whose views are in `server/` and whose log is `deployment.log`, with one cluster of acme's and one of
    /// globex's, both called `search`.
    async fn new() -> anyhow::Result<Self> {
        let site = Site::new().await?;
        let (views, log) = (site.path("server"), site.path("deployment.log"));
        let arguments = ["--views", &views.display().to_string(), "--log", &log.display().to_string()];
        let arguments = arguments.map(str::to_owned).to_vec();
        let cairn = site.cairn(CairnOptions { arguments, ..CairnOptions::default() }).await?;
        for user in ["acme", "globex"] {
            let body = json!({ "user": user, "service_name": "search" });
            cairn.client.post("/clusters?wait=60s", &body).await?.expect(201)?;
        }
        let scripts = Self { site, cairn };
        // Views follow the journal: what was answered just now is in them a moment later.
        scripts.log_says("globex search completed").await?;
        scripts.records_are_there().await?;
        Ok(scripts)
    }

    /// Returns once both clusters are in the records: these are written again a little later, the more there are the later.
    async fn records_are_there(&self) -> anyhow::Result<()> {
        let there = "[ $(cat server/tenant_data/*_search.json | grep -c '\"created\"') = 2 ] \
            && [ $(grep -c '\"created\"' server/deployments.json) = 2 ]";
        let all = async {
            while !shell(&self.directory(), there).output().await?.status.success() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), all).await.context("the records lack a cluster")?
    }

    fn directory(&self) -> std::path::PathBuf {
        let path = self.site.path("server");
        path.parent().expect("it lies in the site").to_owned()
    }

    /// What `script` prints, with this user and service in its variables.
    async fn run(&self, script: &str) -> anyhow::Result<String> {
        let output = shell(&self.directory(), script).output().await?;
        ensure!(output.status.success(), "{script}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    async fn log_says(&self, words: &str) -> anyhow::Result<()> {
        let mut tail = Process::start(shell(&self.directory(), "exec tail -n +1 -F deployment.log"))?;
        tail.said(|line| line.contains(words).then_some(())).await?;
        tail.kill().await
    }
}

fn shell(directory: &Path, script: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(directory).stdin(Stdio::null());
    command.env("user", "acme").env("service", "search");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_report_is_found_by_its_time_and_is_json() -> anyhow::Result<()> {
    let scripts = Scripts::new().await?;
    let newest = scripts.run("ls -t server/deployment_reports/${user}_${service}_*.json | head -1").await?;
    ensure!(newest.trim().starts_with("server/deployment_reports/acme_search_"), "{newest}");
    let newest = "cat \"$(ls -t server/deployment_reports/${user}_${service}_*.json | head -1)\" | jq .";
    let report: Value = serde_json::from_str(&scripts.run(newest).await?)?;
    ensure!(report["status"] == "completed" && report["user"] == "acme", "{report}");
    let oldest = scripts
        .run("jq -r .status \"$(ls -tr server/deployment_reports/${user}_${service}_*.json | head -1)\"")
        .await?;
    ensure!(oldest.trim() == "starting", "{oldest}");
    // Each in its own file, and the files sort as the reports came.
    let in_order = scripts.run("jq -r .status server/deployment_reports/${user}_${service}_*.json").await?;
    ensure!(in_order.lines().eq(STATUSES), "{in_order}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_report_is_cut_out_of_its_path() -> anyhow::Result<()> {
    let scripts = Scripts::new().await?;
    let times = scripts.run("ls server/deployment_reports/${user}_${service}_*.json | cut -d'_' -f4").await?;
    let times: Vec<u64> = times
        .lines()
        .map(|name| name.strip_suffix(".json").and_then(|time| time.parse().ok()).with_context(|| name.to_owned()))
        .collect::<anyhow::Result<_>>()?;
    ensure!(times.len() == 10 && times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_searched_by_user_and_service_and_followed_live() -> anyhow::Result<()> {
    let scripts = Scripts::new().await?;
    let lines = scripts.run("grep \"${user}.*${service}\" deployment.log").await?;
    ensure!(lines.lines().count() == 10, "{lines}");
    for (line, status) in lines.lines().zip(STATUSES) {
        let words: Vec<&str> = line.splitn(5, ' ').collect();
        ensure!(words[1..4] == ["acme", "search", status] && words[0].ends_with('Z') && !words[4].is_empty(), "{line}");
    }
    // Followed while a creation goes on: each line comes as it happens, not when a buffer is full.
    let follow = "tail -f deployment.log | grep --line-buffered \"${user}.*logs\"";
    let mut following = Process::start(shell(&scripts.directory(), follow))?;
    scripts
        .cairn
        .client
        .post("/clusters?wait=60s", &json!({ "user": "acme", "service_name": "logs" }))
        .await?
        .expect(201)?;
    following.said(|line| line.contains("completed").then_some(())).await?;
    following.kill().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counting_loop_gives_the_same_numbers_as_the_api() -> anyhow::Result<()> {
    let scripts = Scripts::new().await?;
    let counting = r#"
        for status in starting namespace_created gitlab_pulled k8s_applied resources_configured disk_configured gpu_configured rollout_completed tenant_synced completed; do
            count=$(grep -l "\"status\": \"$status\"" server/deployment_reports/${user}_${service}_*.json | wc -l)
            echo "$status: $count"
        done"#;
    let counted = scripts.run(counting).await?;
    let expected: String = STATUSES.iter().map(|status| format!("{status}: 1\n")).collect();
    ensure!(counted == expected, "{counted}");
    let all = scripts.run("grep -l '\"status\": \"starting\"' server/deployment_reports/*.json | wc -l").await?;
    ensure!(all.trim() == "2", "{all}");
    let stats = scripts.cairn.client.get("/deployment/reports/acme/search/stats").await?.expect(200)?.json()?;
    ensure!(STATUSES.iter().all(|status| stats[status] == 1), "{stats}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_are_files_where_scripts_look_for_them() -> anyhow::Result<()> {
    let scripts = Scripts::new().await?;
    let container: Value =
        serde_json::from_str(&scripts.run("jq . server/tenant_data/${user}_${service}.json").await?)?;
    ensure!(container["status"] == "created", "{container}");
    let deployments: Value = serde_json::from_str(&scripts.run("jq . server/deployments.json").await?)?;
    let text = deployments.to_string();
    ensure!(text.contains("\"acme\"") && text.contains("\"globex\"") && text.contains("\"created\""), "{deployments}");
    // Every view equals what the API says of the same thing.
    let told = scripts.cairn.client.get("/tenant/containers/acme/search").await?.expect(200)?.json()?;
    ensure!(told == container, "{told} and {container}");
    let files = scripts.run("jq -s . server/deployment_reports/${user}_${service}_*.json").await?;
    let told = scripts.cairn.client.get("/deployment/reports/acme/search").await?.expect(200)?.json()?;
    ensure!(told == serde_json::from_str::<Value>(&files)?, "{told} and {files}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn views_that_were_deleted_come_back_equal_and_a_line_cut_in_half_is_whole_again() -> anyhow::Result<()> {
    let Scripts { site, cairn } = Scripts::new().await?;
    let directory = site.path("server");
    let listing = "cd server && find . -type f -not -name '.*' | sort | xargs sha256sum && sha256sum ../deployment.log";
    let output = |script: &'static str| {
        let directory = directory.parent().expect("it lies in the site").to_owned();
        async move { anyhow::Ok(String::from_utf8(shell(&directory, script).output().await?.stdout)?) }
    };
    let before = output(listing).await?;
    ensure!(before.lines().count() >= 24, "{before}");
    cairn.process.kill().await?;
    // The views are lost, and the last line of the log was only half written.
    output("rm -rf server && truncate -s -7 deployment.log").await?;
    let arguments =
        ["--views", &directory.display().to_string(), "--log", &site.path("deployment.log").display().to_string()];
    let arguments = arguments.map(str::to_owned).to_vec();
    let cairn = site.cairn(CairnOptions { arguments, ..CairnOptions::default() }).await?;
    let whole_again = async {
        // Views follow by themselves; nobody tells when they are done.
        loop {
            let now = output(listing).await?;
            if now == before {
                return anyhow::Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let done = tokio::time::timeout(std::time::Duration::from_secs(30), whole_again).await;
    if done.is_err() {
        anyhow::bail!("before:\n{before}\nnow:\n{}", output(listing).await?);
    }
    drop(cairn);
    Ok(())
}
