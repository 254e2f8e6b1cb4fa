//! A disk that is nearly full: submissions are refused and say why, what runs goes on, and when there is room again so
//! does everything, without a hand. Needs root, to mount a small file system.

use std::{os::unix::fs::MetadataExt as _, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use cairn_tests::{
    client::Client,
    program::{Cairn, CairnOptions, DEADLINE},
    site::{Site, verify},
};
use serde_json::json;

/// Room for the journal, its ballast and the floor for submissions, and some more.
const SIZE: &str = "size=480m";

/// A file system of its own, taken away again when it is dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(at: &'a Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(at)?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "none"]).arg(at).status()?;
        ensure!(mounted.success(), "mount ended with {mounted}");
        Ok(Self(at))
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // A process that is about to be killed may still have it open.
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_disk_nearly_full_submissions_wait_and_what_runs_goes_on() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a small disk");
        return Ok(());
    }
    let site = Site::new().await?;
    let mount = site.path("disk");
    let disk = Disk::mount(&mount)?;
    let data = mount.join("data");
    let cairn = Cairn::dev(&data, &site.options(CairnOptions::default())).await?;
    let cluster = Client::new(&site.sandbox.url);
    let hold = json!({ "action": { "pods": { "trouble": "NotReady" } } });
    cluster.post("/sandbox/faults", &hold).await?.expect(201)?;
    let body = json!({ "user": "acme", "service_name": "running" });
    let answer = cairn.client.post("/clusters", &body).await?.expect(202)?.json()?;
    let id = answer["id"].as_str().context("an id")?.to_owned();
    cairn.client.events(&id, 0, |event| event.data["fact"]["step"] == "rollout_completed").await?;

    let free = || -> anyhow::Result<u64> {
        let space = rustix::fs::statvfs(&mount)?;
        Ok(space.f_bavail * space.f_frsize)
    };
    let filler = mount.join("filler");
    let size = free()?.saturating_sub(200 << 20);
    std::fs::write(&filler, vec![b'x'; size.try_into()?])?;
    ensure!(std::fs::metadata(&filler)?.size() == size, "the filler is too small");
    let late = json!({ "user": "acme", "service_name": "late" });
    let refused = cairn.client.post("/clusters", &late).await?.expect(503)?;
    ensure!(refused.text.contains("disk-full") && !refused.header("retry-after").is_empty(), "{refused:?}");
    let listed = cairn.client.get("/workflows?service_name=late").await?.expect(200)?.json()?;
    ensure!(listed["workflows"] == json!([]), "{listed}");

    cluster.send(http::Method::DELETE, "/sandbox/faults", &[], None).await?.expect(200)?;
    cairn.client.workflow_when(&id, |workflow| workflow["status"] == "succeeded").await?;

    std::fs::remove_file(&filler)?;
    let accepted = async {
        loop {
            // How soon it looks at the disk again is its own affair.
            let answer = cairn.client.post("/clusters?wait=60s", &late).await?;
            if answer.status != 503 {
                return answer.expect(201);
            }
        }
    };
    tokio::time::timeout(DEADLINE, accepted).await.context("it stays refused")??;
    let ended = cairn.process.terminate().await?;
    ensure!(ended.status.success(), "{ended:?}");
    verify(&data).await?;
    drop(disk);
    Ok(())
}
