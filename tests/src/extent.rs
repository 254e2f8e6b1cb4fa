//! How far the sweeps go: a sample that CI bears, or with `CAIRN_PROOF=1` (`tests/run proof`) every point there is; and the
//! least that each has to run, as `tests/counts.toml` records it.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

use crate::{program::workspace, site::Numbers};

/// Whether every point is wanted.
#[must_use]
pub fn is_proof() -> bool {
    std::env::var_os("CAIRN_PROOF").is_some_and(|value| value == "1")
}

/// `in_ci` or, where everything is wanted, `in_proof`.
#[must_use]
pub fn count(in_ci: usize, in_proof: usize) -> usize {
    if is_proof() { in_proof } else { in_ci }
}

/// All of `points`, or `in_ci` of them, spread evenly; which ones the seed tells.
#[must_use]
pub fn sample<T>(points: Vec<T>, in_ci: usize, numbers: &mut Numbers) -> Vec<T> {
    let all = points.len();
    if is_proof() || all <= in_ci {
        return points;
    }
    let shift = usize::try_from(numbers.below(all as u64)).unwrap_or(0);
    // One of each of so many parts: the part that a point is in changes with it.
    let part = |at: usize| (at + shift) % all * in_ci / all;
    let ends = |at: usize| part(at) != part((at + 1) % all);
    points.into_iter().enumerate().filter(|(at, _)| ends(*at)).map(|(_, point)| point).collect()
}

/// Says what a sweep ran, and that it was no less than is recorded for it.
///
/// # Errors
/// If it was less: a sweep that has lost points proves less than it says.
pub fn recorded(sweep: &str, ran: usize) -> anyhow::Result<()> {
    let file = workspace().join("tests/counts.toml");
    let counts: BTreeMap<String, BTreeMap<String, usize>> = toml::from_str(&std::fs::read_to_string(&file)?)?;
    let extent = if is_proof() { "proof" } else { "ci" };
    let least = counts.get(extent).and_then(|counts| counts.get(sweep));
    let least = least.with_context(|| format!("tests/counts.toml has no `{sweep}` in [{extent}]: it ran {ran}"))?;
    ensure!(ran >= *least, "{sweep} ran {ran}, and tests/counts.toml records {least} in [{extent}]");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_evenly_over_all() {
        for (all, wanted) in [(100, 10), (17, 5), (9, 9), (3, 10), (1000, 333)] {
            for seed in 0..20 {
                let found = sample((0..all).collect(), wanted, &mut Numbers::of(seed));
                assert_eq!(found.len(), wanted.min(all), "{all} {wanted} {seed}");
                let widest = found.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
                assert!(widest <= 2 * all.div_ceil(wanted), "{found:?}");
            }
        }
    }
}
