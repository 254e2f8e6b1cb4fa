//! The fuzzer: kept inputs, mutated. It has no eye for coverage, as libFuzzer has, which needs a nightly compiler; the
//! corpus and the words below lead it to where the rules are.
//!
//! - Each execution must end without a panic and within a second, and may take no more than 64 MiB.
//! - A fault names the input, as a Rust byte string, and the seed; an input that found one joins the corpus.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use cairn_tests::{
    extent::{count, recorded},
    program::workspace,
    site::{Numbers, seed},
};

const TIME_MAX: Duration = Duration::from_secs(1);
const MEMORY_KIB_MAX: u64 = 64 * 1024;
/// The peak of the memory is looked at after so many executions.
const LOOK_EVERY: u64 = 512;
const INPUT_BYTES_MAX: usize = 4 * 1024;

/// What rules are about, and what breaks parsers.
const WORDS: [&[u8]; 34] = [
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"0.1",
    b"18446744073709551616",
    b"Gi",
    b"m",
    b"Ki",
    b"E",
    b"--",
    b"..",
    b"/",
    b"\\u0000",
    b"\xff\xfe",
    b"\xe2\x80\xae",
    b"&a",
    b"*a",
    b"<<: ",
    b"!!binary ",
    b"\n- ",
    b"\n  ",
    b"? ",
    b"%YAML 1.1\n",
    b"9223372036854775807",
    b"kube-system",
    b"\r\n",
];

/// The kept inputs of this target.
pub(crate) fn corpus(target: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let directory = workspace().join("tests/fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&directory)?.collect::<Result<Vec<_>, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    let inputs = files.iter().map(|file| fs::read(file.path())).collect::<Result<Vec<_>, _>>()?;
    ensure!(!inputs.is_empty(), "{} is empty", directory.display());
    Ok(inputs)
}

/// One of `inputs`, changed a little or a lot.
fn mutated(inputs: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut below = |bound: usize| usize::try_from(numbers.below(bound.max(1) as u64)).unwrap_or(0);
    let mut input = inputs[below(inputs.len())].clone();
    for _ in 0..=below(6) {
        let at = below(input.len() + 1);
        let to = (at + below(16)).min(input.len());
        match below(8) {
            0 if at < input.len() => input[at] ^= 1 << below(8),
            1 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'9', b' '][below(8)],
            2 => drop(input.drain(at..to)),
            3 => {
                let piece = input[at..to].to_vec();
                let place = below(input.len() + 1);
                input.splice(place..place, piece);
            }
            4 | 5 => drop(input.splice(at..to.min(at + below(4)), WORDS[below(WORDS.len())].iter().copied())),
            6 => {
                let other = &inputs[below(inputs.len())];
                let from = below(other.len() + 1);
                input.truncate(at);
                input.extend(&other[from..]);
            }
            _ => {
                // Deep, or long.
                let piece = [b"[".as_slice(), b"{\"a\":", b"9", b"a", b"- ", b"&a [*a,"][below(6)];
                let many: Vec<u8> = piece.iter().copied().cycle().take(piece.len() * below(400)).collect();
                input.splice(at..at, many);
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// The most memory that this process has had since it was last asked, and what it has now, in KiB.
fn memory() -> Option<(u64, u64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok())
    };
    let found = (field("VmHWM:")?, field("VmRSS:")?);
    // 5: the peak begins anew.
    fs::write("/proc/self/clear_refs", "5").ok()?;
    Some(found)
}

/// Executes `target` with the corpus as it is, and then with what is made of it, on all cores.
///
/// # Errors
/// The first inputs that it panics on, takes too long for, or needs too much memory for.
pub(crate) fn fuzz(
    name: &str,
    inputs: &[Vec<u8>],
    in_ci: usize,
    target: impl Fn(&Path, &[u8]) + Sync,
) -> anyhow::Result<()> {
    let (seed, executions) = (seed(), count(in_ci, 1_000_000) as u64);
    let (next, faults) = (AtomicU64::new(0), Mutex::new(Vec::<String>::new()));
    let scratch = tempfile::tempdir_in(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "/tmp" })?;
    let before = memory();
    let fault = |text: String| faults.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    // What panics is told below, with its input.
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for thread in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            let (next, fault, target, place) = (&next, &fault, &target, scratch.path().join(thread.to_string()));
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= executions {
                        break;
                    }
                    let kept = usize::try_from(number).ok().and_then(|at| inputs.get(at)).cloned();
                    let input = kept.unwrap_or_else(|| mutated(inputs, &mut Numbers::of(seed ^ (number << 20))));
                    let took = || {
                        let begun = Instant::now();
                        let ended = catch_unwind(AssertUnwindSafe(|| target(&place, &input)));
                        ended.map(|()| begun.elapsed())
                    };
                    match took() {
                        Err(_) => fault(format!("it panics on b\"{}\"", input.escape_ascii())),
                        // On a busy machine it may have waited for others: only what is slow each time is slow.
                        Ok(time) if time > TIME_MAX && (0..3).all(|_| took().is_ok_and(|time| time > TIME_MAX)) => {
                            fault(format!("it takes {time:?} for b\"{}\"", input.escape_ascii()));
                        }
                        Ok(_) => {}
                    }
                    if number % LOOK_EVERY == 0
                        && let (Some((peak, _)), Some((_, first))) = (memory(), before)
                        && peak > first + MEMORY_KIB_MAX
                    {
                        fault(format!("{peak} KiB at execution {number}, {first} before"));
                    }
                }
            });
        }
    });
    drop(std::panic::take_hook());
    let faults = faults.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{name}: executions {executions}, inputs kept {}, violations {}", inputs.len(), faults.len());
    ensure!(faults.is_empty(), "{}", faults.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("\n"));
    recorded(&format!("fuzz-{name}"), usize::try_from(executions).context("a count")?)
}
