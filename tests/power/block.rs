//! A real file system on a block device that forgets: ext4 on a device whose cache is lost with the power, and all that
//! was not flushed with it. Needs root, and nbdkit and nbdfuse from Debian's packages.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use cairn_engine::{
    CommitNumber,
    store::{DurableStore, Store as _, verify},
};
use cairn_tests::{
    extent::{count, recorded},
    journal::small,
    program::{DEADLINE, path_of},
    site::{Numbers, seed},
};

const DISK_BYTES: u64 = 256 << 20;

/// Why this cannot be tried here, if it cannot.
fn unavailable() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root can mount a block device".to_owned());
    }
    let missing = ["nbdkit", "nbdfuse", "mkfs.ext4", "losetup"].into_iter().find(|program| {
        !Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|found| found.success())
    });
    let missing = missing.map(|program| format!("there is no {program}: install nbdkit and libnbd-bin"));
    let fuse = Path::new("/dev/fuse");
    missing.or_else(|| (!fuse.exists()).then(|| "this kernel has no /dev/fuse".to_owned()))
}

fn run(program: &str, arguments: &[&Path]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        ensure!(Instant::now() < end, "{what} does not come");
        // Neither program says when it is ready.
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The disk while it has power: a server with a cache that only a flush empties, as a file, as a block device, mounted.
struct Powered {
    server: Child,
    bridge: Child,
    file: PathBuf,
    device: PathBuf,
    mount: PathBuf,
}

impl Powered {
    fn on(place: &Path) -> anyhow::Result<Self> {
        let (socket, file, mount) = (place.join("socket"), place.join("device"), place.join("mount"));
        let _ = fs::remove_file(&socket);
        let quiet = || Stdio::null();
        let server = Command::new("nbdkit")
            .args(["--foreground", "--exit-with-parent", "--filter=cache", "--unix"])
            .arg(&socket)
            .arg("file")
            .arg(place.join("disk"))
            .arg("cache=writeback")
            .stderr(quiet())
            .spawn()?;
        until("the socket of nbdkit", || socket.exists())?;
        File::create(&file)?;
        let bridge = Command::new("nbdfuse")
            .arg(&file)
            .arg(format!("nbd+unix:///?socket={}", socket.display()))
            .stderr(quiet())
            .spawn()?;
        until("the device", || file.metadata().is_ok_and(|metadata| metadata.len() == DISK_BYTES))?;
        let device = PathBuf::from(run("losetup", &[Path::new("--find"), Path::new("--show"), &file])?);
        fs::create_dir_all(&mount)?;
        run("mount", &[Path::new("-t"), Path::new("ext4"), &device, &mount])?;
        Ok(Self { server, bridge, file, device, mount })
    }

    /// The power fails: the server is gone with its cache.
    fn fails(mut self) -> anyhow::Result<()> {
        self.server.kill()?;
        self.server.wait()?;
        Ok(())
    }
}

impl Drop for Powered {
    fn drop(&mut self) {
        // After a power cut each of these has something to complain about, and all of them have to be tried.
        let _ = Command::new("umount").arg("--lazy").arg(&self.mount).stderr(Stdio::null()).status();
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).stderr(Stdio::null()).status();
        let _ = Command::new("umount").arg("--lazy").arg(&self.file).stderr(Stdio::null()).status();
        for process in [&mut self.bridge, &mut self.server] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// What the writer was told before the power failed: whole lines only.
fn acknowledged(file: &Path) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    Ok(whole.lines().map(str::to_owned).collect())
}

/// I1, I28, on a real file system: nothing that was acknowledged is lost with the power, round after round.
#[test]
fn on_a_real_file_system_a_power_cut_takes_nothing_that_was_acknowledged() -> anyhow::Result<()> {
    if let Some(reason) = unavailable() {
        ensure!(std::env::var_os("CI").is_none(), "this must run in CI: {reason}");
        println!("SKIPPED, power cuts on a real file system: {reason}");
        return Ok(());
    }
    let mut numbers = Numbers::of(seed());
    let place = tempfile::tempdir()?;
    File::create(place.path().join("disk"))?.set_len(DISK_BYTES)?;
    run("mkfs.ext4", &[Path::new("-q"), Path::new("-F"), &place.path().join("disk")])?;
    let told = place.path().join("acknowledged");
    let (mut cut_off, mut before) = (0, 0);
    let rounds = count(20, 200);
    for round in 1..=rounds {
        let powered = Powered::on(place.path())?;
        let data = powered.mount.join("data");
        let mut writer = Command::new(path_of("journal-writer"))
            .arg("--data")
            .arg(&data)
            .arg("--acknowledged")
            .arg(&told)
            .args(["--workflows", "100000", "--seed", &numbers.below(u64::MAX).to_string()])
            .stderr(Stdio::null())
            .spawn()?;
        until("the first commit of this round", || acknowledged(&told).is_ok_and(|told| told.len() > before))?;
        // A moment, not a wait for anything: that is what is tried here.
        std::thread::sleep(Duration::from_millis(numbers.below(400)));
        powered.fails()?;
        // Its next sync fails, which ends it; it may as well be waiting for something else.
        let _ = writer.kill();
        writer.wait()?;

        let powered = Powered::on(place.path()).with_context(|| format!("round {round}"))?;
        let (store, report) = DurableStore::open(&small(&powered.mount.join("data")))
            .with_context(|| format!("round {round}: the journal does not open"))?;
        let commits = store.commits(CommitNumber(0), usize::MAX)?;
        let told = acknowledged(&told)?;
        for line in &told {
            let is_it = |number: usize| commits.get(number - 1).map(|commit| format!("{number}:{}", commit.hash));
            let number = line.split_once(':').and_then(|(number, _)| number.parse().ok()).context("a number")?;
            ensure!(is_it(number).as_deref() == Some(line), "round {round}: commit {line} is lost: {report:?}");
        }
        verify(commits.iter().cloned().map(Ok))?;
        cut_off += usize::from(report.cut.is_some());
        before = told.len();
        store.close()?;
    }
    println!(
        "power cuts on ext4: rounds {rounds}, commits acknowledged {before}, torn ends cut {cut_off}, violations 0"
    );
    recorded("power-ext4", rounds)
}
