//! `cairn prove`: its points, once and in pairs, and what it says of itself. In CI a sample of them; with `tests/run proof` all, and
//! creations that fail at each of the ten steps.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cairn_tests::{
    extent::{is_proof, recorded},
    program::{Process, cairn},
    site::seed,
};

/// Far longer than all of its points take.
const TIME_MAX: Duration = Duration::from_secs(4 * 60 * 60);

/// Has these tried: all in a proof, else so many of them. Returns how many were come to.
async fn proved(arguments: &[&str], in_ci: usize) -> anyhow::Result<usize> {
    let (seed, sample) = (seed().to_string(), in_ci.to_string());
    let mut all = vec!["prove", "--seed", &seed];
    all.extend(arguments);
    if !is_proof() {
        all.extend(["--points", &sample]);
    }
    let proved = Process::start(cairn(&all))?.ended_within(TIME_MAX).await?;
    println!("{}", proved.output);
    ensure!(proved.status.success(), "it ended with {}:\n{}", proved.status, proved.output);
    for words in ["violations 0;", &format!("seed {seed}")] {
        ensure!(proved.output.contains(words), "{words} is not in:\n{}", proved.output);
    }
    let after = |words: &str| -> anyhow::Result<usize> {
        let rest = proved.output.rsplit_once(words).with_context(|| format!("it does not say {words:?}"))?.1;
        Ok(rest.split_once(',').context("a number and more")?.0.parse()?)
    };
    Ok(after("\npoints ")? - after(", not come to ")?)
}

/// I1, I9, I14: the program judges itself here, independently of the oracle of these tests.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_append_or_call_and_with_any_answer_lost_every_creation_completes_or_leaves_nothing()
-> anyhow::Result<()> {
    recorded("prove", proved(&["--every-step"], 60).await?)
}

/// The same, and killed again at one of the first calls of its recovery.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_and_again_while_it_recovers_every_creation_completes_or_leaves_nothing()
-> anyhow::Result<()> {
    recorded("prove-pairs", proved(&["--pairs"], 40).await?)
}
