//! `cairn demo --exit`: it shows what it was asked to show, or says that it could not.

use anyhow::{Context as _, ensure};
use cairn_steps::report::STATUSES;
use cairn_tests::{
    program::{Process, cairn, run},
    site::verify,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};

/// Demos at the same time: most of each is waiting.
const AT_ONCE: usize = 4;

async fn demo(arguments: &[&str]) -> anyhow::Result<String> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let data_text = data.to_str().expect("temporary directories have plain names");
    let fixed = ["demo", "--exit", "--port", "0", "--pod-ready-after", "100ms", "--data", data_text];
    let shown = run(cairn(&[&fixed[..], arguments].concat())).await?;
    ensure!(shown.status.success(), "{arguments:?} ended with {}:\n{}", shown.status, shown.output);
    verify(&data).await?;
    Ok(shown.output)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_ten_steps_and_where_to_go_on() -> anyhow::Result<()> {
    let shown = demo(&[]).await?;
    for step in STATUSES {
        ensure!(shown.contains(step), "{step} is not in:\n{shown}");
    }
    for word in ["curl ", "cairn-journal verify"] {
        ensure!(shown.contains(word), "{word} is not in:\n{shown}");
    }
    // A shell may take a bare `?` for a pattern: zsh then answers "no matches found".
    for line in shown.lines().filter(|line| line.contains("curl ") && line.contains('?')) {
        ensure!(line.contains(" 'http://"), "{line}");
    }
    Ok(())
}

/// The demo itself checks that the error names cause and way out, and that nothing is left.
#[tokio::test(flavor = "multi_thread")]
async fn each_scenario_ends_with_its_cause_its_evidence_and_the_way_out() -> anyhow::Result<()> {
    let gone = "residue check: nothing left";
    let scenarios = [
        ("image-pull", gone),
        ("no-gpu-node", gone),
        ("quota", gone),
        ("claim-class", "the cluster is as it was before the change"),
        ("foreign-namespace", gone),
        ("namespace-finalizer", "held up: Namespace/demo--search"),
    ];
    let each = |(scenario, end): (&'static str, &'static str)| async move {
        let shown = demo(&["--scenario", scenario]).await?;
        for words in ["what is wrong here", "what the `failed` report says", end] {
            ensure!(shown.contains(words), "{scenario}: {words} is not in:\n{shown}");
        }
        anyhow::Ok(())
    };
    stream::iter(scenarios).map(each).buffer_unordered(AT_ONCE).try_collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn crashed_at_any_step_the_demo_resumes_and_completes() -> anyhow::Result<()> {
    let each = |step: &'static str| async move {
        let shown = demo(&["--crash-at", step]).await?;
        ensure!(shown.contains("SIGKILL") && shown.contains("completed"), "{step}:\n{shown}");
        anyhow::Ok(())
    };
    stream::iter(STATUSES).map(each).buffer_unordered(AT_ONCE).try_collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_at_any_step_the_demo_rolls_back_and_nothing_is_left() -> anyhow::Result<()> {
    let each = |step: &'static str| async move {
        let shown = demo(&["--fail-at", step]).await?;
        ensure!(shown.contains("nothing left"), "{step}:\n{shown}");
        anyhow::Ok(())
    };
    stream::iter(STATUSES).map(each).buffer_unordered(AT_ONCE).try_collect().await
}

/// What Ctrl-C at a terminal does: every process of the group gets the signal, not only the one in front.
#[tokio::test(flavor = "multi_thread")]
async fn interrupted_as_by_a_terminal_the_demo_ends_in_order_with_its_engine() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let data_text = data.to_str().expect("temporary directories have plain names");
    let mut command = cairn(&["demo", "--port", "0", "--pod-ready-after", "100ms", "--data", data_text]);
    command.process_group(0);
    let mut demo = Process::start(command)?;
    demo.said(|line| line.contains("serving on until").then_some(())).await?;
    demo.signal_group(rustix::process::Signal::INT)?;
    let ended = demo.ended().await.context("the demo ends")?;
    ensure!(ended.status.success(), "it ended with {}:\n{}", ended.status, ended.output);
    // An engine that ended in order takes its port file along.
    ensure!(!data.join("cairn.port").exists(), "the engine did not end in order:\n{}", ended.output);
    verify(&data).await
}
