//! `cairn prove`: a sample of its points, and what it says of itself.

use anyhow::{Context as _, ensure};
use cairn_tests::{
    program::{cairn, run},
    site::seed,
};

/// I1, I9, I14: the program judges itself here, independently of the oracle of these tests.
#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_the_proof_finds_no_violation_and_tells_its_seed() -> anyhow::Result<()> {
    let seed = seed().to_string();
    let proved = run(cairn(&["prove", "--points", "40", "--seed", &seed])).await?;
    ensure!(proved.status.success(), "it ended with {}:\n{}", proved.status, proved.output);
    for words in ["40 of ", "points 40,", "violations 0;", &format!("seed {seed}")] {
        ensure!(proved.output.contains(words), "{words} is not in:\n{}", proved.output);
    }
    // Runs differ by a few calls. A sweep that comes to few of its points proves little.
    let missed = proved.output.split_once(", not come to ").and_then(|(_, rest)| rest.split_once(','));
    let missed: usize = missed.context("it does not say how many it missed")?.0.parse()?;
    ensure!(missed <= 10, "{missed} points were not come to:\n{}", proved.output);
    println!("{}", proved.output);
    Ok(())
}
