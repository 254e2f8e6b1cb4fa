//! One life of an engine's process: how much goes wrong in it, and how it ends.
//!
//! Whatever ends a process ends it between two steps of this one thread: from then on its disk and its cluster do nothing for
//! it any more.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_tests::site::Numbers;
use tokio::{sync::Notify, time::Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// How a life ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// Killed, whatever it does.
    Killed { after: Duration },
    /// Killed within a commit, which is on the disk afterwards, or is not.
    KilledAtCommit { number: u64, kept: bool },
    /// A commit fails: it is on the disk, or is not, and the engine is told that nobody knows.
    WriteFails { number: u64, kept: bool },
    /// Killed at a call to the cluster, which is done, or is not.
    KilledAtCall { number: u64, done: bool },
    /// Asked to end, with so much time for what is in hand.
    Asked { after: Duration, grace: Duration },
    /// Not by anything that goes wrong.
    Calm,
}

/// What goes wrong in a life.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) ending: Ending,
    /// Of a hundred calls to the cluster so many go wrong.
    pub(crate) calls: u64,
    /// Nobody reaches the cluster.
    pub(crate) outage: Range<Duration>,
    /// From here on nothing goes wrong any more.
    pub(crate) fair_after: Duration,
}

impl Trouble {
    /// Some of everything.
    pub(crate) fn drawn(numbers: &mut Numbers) -> Self {
        // Some lives are over as soon as they begin, and some last for hours.
        let longest = numbers.one_of(&[0, 10, 120, 1_800, 7_200]);
        let after = Duration::from_secs(numbers.below(longest + 1));
        let few = numbers.one_of(&[1, 3, 30, 300]);
        let number = 1 + numbers.below(few);
        let kept = numbers.happens(50);
        let ending = match numbers.below(5) {
            0 => Ending::Killed { after },
            1 => Ending::KilledAtCommit { number, kept },
            2 => Ending::WriteFails { number, kept },
            3 => Ending::KilledAtCall { number, done: kept },
            _ => Ending::Asked { after, grace: Duration::from_secs(numbers.one_of(&[0, 1, 60])) },
        };
        let outage = if numbers.happens(10) {
            let begins = MINUTE * u32::try_from(numbers.below(30)).unwrap_or(0);
            begins..begins + MINUTE * numbers.one_of(&[1, 5, 20, 60])
        } else {
            Duration::ZERO..Duration::ZERO
        };
        Self { ending, calls: numbers.one_of(&[0, 1, 5, 5, 20, 50]), outage, fair_after: Duration::MAX }
    }

    /// A while of this and that, and then nothing any more.
    pub(crate) fn ending_calm() -> Self {
        Self { ending: Ending::Calm, calls: 20, outage: Duration::ZERO..Duration::ZERO, fair_after: 20 * MINUTE }
    }

    /// When a life that is not ended otherwise is killed.
    pub(crate) fn longest(&self) -> Duration {
        match self.ending {
            Ending::Killed { after } | Ending::Asked { after, .. } => after,
            Ending::KilledAtCommit { .. } | Ending::WriteFails { .. } | Ending::KilledAtCall { .. } => 60 * MINUTE,
            Ending::Calm => Duration::MAX,
        }
    }
}

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// It is on the disk.
    Done,
    /// It is on the disk, and nobody learns of it.
    Kept,
    /// It is not on the disk.
    Lost,
    /// The process is over.
    Over,
    /// An earlier one has failed: this must not be tried.
    AfterFailure,
}

/// What becomes of a call to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It leaves.
    Leaves,
    /// It is the last: done, or not.
    Last { done: bool },
    /// The process is over.
    Over,
}

/// One life.
pub(crate) struct Life {
    pub(crate) trouble: Trouble,
    began: Instant,
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Default)]
struct State {
    commits: u64,
    calls: u64,
    over: bool,
    failed: bool,
}

impl Life {
    /// One that begins now.
    pub(crate) fn new(trouble: Trouble) -> Self {
        Self { trouble, began: Instant::now(), state: Mutex::default(), ended: Notify::new() }
    }

    /// How long it has lasted.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// What becomes of the commit that is made now.
    pub(crate) fn next_commit(&self) -> Write {
        let mut state = self.state();
        if state.over {
            return if state.failed { Write::AfterFailure } else { Write::Over };
        }
        state.commits += 1;
        match self.trouble.ending {
            Ending::KilledAtCommit { number, kept } | Ending::WriteFails { number, kept }
                if number == state.commits =>
            {
                state.failed = matches!(self.trouble.ending, Ending::WriteFails { .. });
                self.over(&mut state);
                if kept { Write::Kept } else { Write::Lost }
            }
            _ => Write::Done,
        }
    }

    /// What becomes of the call that is made now.
    pub(crate) fn next_call(&self) -> Reach {
        let mut state = self.state();
        if state.over {
            return Reach::Over;
        }
        state.calls += 1;
        match self.trouble.ending {
            Ending::KilledAtCall { number, done } if number == state.calls => {
                self.over(&mut state);
                Reach::Last { done }
            }
            _ => Reach::Leaves,
        }
    }

    /// Ends it here.
    pub(crate) fn end(&self) {
        self.over(&mut self.state());
    }

    /// Returns once it is over.
    pub(crate) async fn ended(&self) {
        if !self.is_over() {
            self.ended.notified().await;
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state().over
    }

    /// Its disk has failed, and the engine knows.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().failed
    }

    fn over(&self, state: &mut State) {
        state.over = true;
        self.ended.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
