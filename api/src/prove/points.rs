//! What is done to a creation, and where: each a point of a sweep.

use std::fmt;

use cairn_steps::sandbox::{Fault, FaultAction};

use crate::config::StepChoice;

/// Which creation is disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Creation {
    /// The step that fails for good once its work is done; none: it succeeds.
    pub(super) failing: Option<StepChoice>,
}

impl fmt::Display for Creation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failing {
            None => f.write_str("a creation that succeeds"),
            Some(step) => write!(f, "a creation that fails at {}", step.as_str()),
        }
    }
}

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The engine's process is killed with SIGKILL at an append to its journal.
    KilledAtAppend,
    /// It is killed at a call to the cluster.
    KilledAtCall,
    /// The connection of a call to the cluster is lost; the engine lives on.
    Lost,
    /// It is killed at a call to the cluster, and the one after it at one of the first calls that it makes.
    KilledAgain,
}

/// So many calls of an engine that recovers are points: with the first few it asks what it was about, and then goes on as any
/// engine does.
const RECOVERING_CALLS: u64 = 8;

impl Trouble {
    /// All, in the order in which they are told.
    pub(super) const ALL: [Self; 4] = [Self::KilledAtAppend, Self::KilledAtCall, Self::Lost, Self::KilledAgain];

    /// What a sweep of it is called.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::KilledAtAppend => "killed before and after each append",
            Self::KilledAtCall => "killed before and after each call",
            Self::Lost => "each call lost, and each answer",
            Self::KilledAgain => "killed at each call, and recovering",
        }
    }
}

/// On which side of its effect. After its answer, an engine is killed before its next append or call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

impl Side {
    const BOTH: [Self; 2] = [Self::Before, Self::After];
}

/// A call of an engine that recovers, at which it is killed as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Again {
    /// The how many-th of its calls, from 1.
    pub(super) number: u64,
    pub(super) side: Side,
}

/// One point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) trouble: Trouble,
    /// The how many-th append or call, from 1.
    pub(super) number: u64,
    pub(super) side: Side,
    /// Where it is killed for the second time.
    pub(super) again: Option<Again>,
}

impl Point {
    /// All points of a creation that makes so many appends and calls, at which it is disturbed once.
    pub(super) fn all(appends: u64, calls: u64) -> Vec<Self> {
        let of = |trouble: Trouble| {
            let last = if trouble == Trouble::KilledAtAppend { appends } else { calls };
            (1..=last).flat_map(move |number| Side::BOTH.map(|side| Self { trouble, number, side, again: None }))
        };
        [Trouble::KilledAtAppend, Trouble::KilledAtCall, Trouble::Lost].into_iter().flat_map(of).collect()
    }

    /// All points of a creation that makes so many calls, at which it is killed twice.
    pub(super) fn pairs(calls: u64) -> Vec<Self> {
        let sides = |last: u64| (1..=last).flat_map(|number| Side::BOTH.map(|side| (number, side)));
        let twice = |(number, side)| {
            sides(RECOVERING_CALLS).map(move |(second, second_side)| Self {
                trouble: Trouble::KilledAgain,
                number,
                side,
                again: Some(Again { number: second, side: second_side }),
            })
        };
        sides(calls).flat_map(twice).collect()
    }

    /// How the engine is told to kill itself, if that is who does it.
    pub(super) fn kill_at(self) -> Option<String> {
        let side = match self.side {
            Side::Before => "before",
            Side::After => "after",
        };
        (self.trouble == Trouble::KilledAtAppend).then(|| format!("append:{}:{side}", self.number))
    }

    /// What the cluster does at it, if that is who does it.
    pub(super) fn fault(self) -> Option<Fault> {
        let action = match (self.trouble, self.side) {
            (Trouble::KilledAtAppend, _) => return None,
            (Trouble::KilledAtCall | Trouble::KilledAgain, side) => return Some(unanswered(self.number, side)),
            (Trouble::Lost, Side::Before) => FaultAction::DropBefore,
            (Trouble::Lost, Side::After) => FaultAction::DropAfter,
        };
        Some(Fault::new(action).skip(self.number - 1).times(1))
    }
}

impl Again {
    /// What the cluster does at it.
    pub(super) fn fault(self) -> Fault {
        unanswered(self.number, self.side)
    }
}

/// Whoever waits for the answer is killed waiting.
fn unanswered(number: u64, side: Side) -> Fault {
    let action = match side {
        Side::Before => FaultAction::HangBefore,
        Side::After => FaultAction::HangAfter,
    };
    Fault::new(action).skip(number - 1).times(1)
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.number;
        match (self.trouble, self.side) {
            (Trouble::KilledAtAppend, Side::Before) => write!(f, "killed before append {number} was written"),
            (Trouble::KilledAtAppend, Side::After) => write!(f, "killed after append {number} was durable"),
            (Trouble::KilledAtCall | Trouble::KilledAgain, Side::Before) => {
                write!(f, "killed before call {number} was executed")
            }
            (Trouble::KilledAtCall | Trouble::KilledAgain, Side::After) => {
                write!(f, "killed after call {number} was executed")
            }
            (Trouble::Lost, Side::Before) => write!(f, "call {number} lost"),
            (Trouble::Lost, Side::After) => write!(f, "answer to call {number} lost"),
        }?;
        match self.again {
            None => Ok(()),
            Some(Again { number, side: Side::Before }) => write!(f, ", and before call {number} of its recovery was"),
            Some(Again { number, side: Side::After }) => write!(f, ", and after call {number} of its recovery was"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_append_and_every_call_is_a_point_on_both_sides() {
        let points = Point::all(3, 5);
        assert_eq!(points.len(), 2 * (3 + 5 + 5));
        assert_eq!(points[1].kill_at().as_deref(), Some("append:1:after"));
        let call = points.iter().find(|point| point.trouble == Trouble::Lost && point.number == 5).expect("the last");
        assert_eq!(call.fault(), Some(Fault::new(FaultAction::DropBefore).skip(4).times(1)));
        assert_eq!((call.kill_at(), points[0].fault()), (None, None));
    }

    #[test]
    fn every_call_is_paired_with_the_first_of_its_recovery_on_both_sides() {
        let pairs = Point::pairs(5);
        assert_eq!(pairs.len(), 5 * 2 * 8 * 2);
        let last = pairs.last().expect("the last");
        assert_eq!(last.fault(), Some(Fault::new(FaultAction::HangAfter).skip(4).times(1)));
        assert_eq!(last.again.map(Again::fault), Some(Fault::new(FaultAction::HangAfter).skip(7).times(1)));
        assert_eq!(last.to_string(), "killed after call 5 was executed, and after call 8 of its recovery was");
    }
}
