//! When to end, and in which order: refuse submissions, start no attempt, let those in hand finish, close the store, exit.

use std::sync::Arc;

use cairn_engine::Engine;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use crate::{app::App, config::Settings};

/// The signals that the program obeys.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// End, in order.
    End,
    /// Read the rules again.
    Reread,
}

impl Signals {
    /// From here on these signals do not end the process by themselves.
    ///
    /// # Errors
    /// If the system does not allow that.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    ///
    /// # Cancel safety
    /// A signal that comes while nobody waits is kept.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.hangup.recv() => Asked::Reread,
        }
    }

    /// Returns once the program is to end; a hangup has no meaning where there are no rules.
    pub(crate) async fn end(&mut self) {
        while self.next().await != Asked::End {}
    }
}

/// Returns once standard input is closed: the process that started this one is gone, or wants it gone.
pub(crate) async fn parent_gone() {
    let (closed, gone) = oneshot::channel();
    // A thread of its own: a read of standard input cannot be taken back, and must not keep the runtime from ending.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = closed.send(());
    });
    let _ = gone.await;
}

/// Ends the engine in order. A second signal ends the process at once: what was in hand is then recovery's, as after a crash.
///
/// # Errors
/// If the store could not be closed.
pub(crate) async fn drain(
    app: &Arc<App>,
    engine: &Engine,
    settings: &Settings,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    tracing::info!("ending: no new submissions, attempts in hand have {:?}", settings.grace);
    app.stopping.cancel();
    tokio::select! {
        closed = engine.shutdown(settings.grace) => Ok(closed?),
        () = signals.end() => anyhow::bail!("ended at once by a second signal: what was in hand goes on at the next start"),
    }
}
