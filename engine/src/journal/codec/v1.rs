//! Format version 1, frozen: how each fact is laid out in bincode.
//!
//! - Nothing here is ever changed, reordered or removed. A new fact is a new last variant; a new layout is a `v2`.
//! - No serde attribute that changes a layout: bincode decodes what such attributes skip to wrong values, in silence. The
//!   bounds change none: they only let texts and bytes be borrowed from what is decoded.
//! - The live types of `fact.rs` may change as they like: the two conversions here are where the compiler asks.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    fact::{self, Amounts},
    ids::{Attempt, Hash, IdempotencyKey, Json, StepName, Timestamp},
};

/// A text of the buffer that is decoded, not copied.
type Text<'a> = &'a str;

/// Bytes of the buffer that is decoded, not copied, and as one piece: serde would else take each of them for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice<'a>(pub(super) &'a [u8]);

/// What heads a commit.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    pub(super) token: u64,
    pub(super) time: i64,
    pub(super) hash: [u8; 32],
}

/// What one workflow gained in a commit; token and time are the commit's. Only the hash before its first entry is
/// kept: the others follow from it, and the commit's hash covers them all.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(super) struct Append<'a> {
    pub(super) workflow: [u8; 16],
    pub(super) first: u64,
    pub(super) previous: Option<[u8; 32]>,
    #[serde(borrow)]
    pub(super) facts: Vec<Slice<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) enum Fact<'a> {
    Submitted(Submitted<'a>),
    AttemptStarted { step: Text<'a>, attempt: u32 },
    AttemptSucceeded { step: Text<'a>, attempt: u32, output: Output<'a> },
    AttemptFailed { step: Text<'a>, attempt: u32, error: Failure<'a>, retry_at: Option<i64> },
    Probed { step: Text<'a>, attempt: u32, answer: Probe<'a>, retry_at: Option<i64> },
    ProbeFailed { step: Text<'a>, attempt: u32, error: Failure<'a>, retry_at: Option<i64> },
    CompensationStarted { step: Text<'a>, attempt: u32 },
    CompensationSucceeded { step: Text<'a>, attempt: u32, message: Text<'a> },
    CompensationFailed { step: Text<'a>, attempt: u32, error: Failure<'a>, retry_at: Option<i64> },
    ResidueCheckFailed { attempt: u32, error: Failure<'a>, retry_at: Option<i64> },
    CancelRequested { who: Text<'a>, force: bool },
    Paused { who: Text<'a> },
    Resumed { who: Text<'a> },
    RetryRequested { who: Text<'a> },
    Parked { reason: ParkReason<'a> },
    Finished { outcome: Outcome, residue: Vec<Text<'a>> },
}

#[derive(Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct Submitted<'a> {
    definition: Text<'a>,
    version: u32,
    fingerprint: [u8; 32],
    steps: Vec<Text<'a>>,
    effect: Effect,
    tenant: Text<'a>,
    service: Text<'a>,
    input: Slice<'a>,
    key: Option<Text<'a>>,
    body_hash: [u8; 32],
    who: Text<'a>,
    holds: Vec<(Text<'a>, u64)>,
    on_failure: OnFailure,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Effect {
    Create,
    Update,
    Delete,
}

#[derive(Serialize, Deserialize)]
pub(super) enum OnFailure {
    Rollback,
    Keep,
}

#[derive(Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct Output<'a> {
    message: Text<'a>,
    skipped: bool,
    result: Slice<'a>,
    record: Option<Slice<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) enum Probe<'a> {
    Applied { output: Output<'a> },
    NotApplied,
    Partly { made: Slice<'a> },
    Foreign { detail: Text<'a> },
}

#[derive(Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) struct Failure<'a> {
    class: ErrorClass,
    message: Text<'a>,
    evidence: Vec<Text<'a>>,
}

#[derive(Serialize, Deserialize)]
pub(super) enum ErrorClass {
    Transient,
    Permanent,
    Unknown,
}

#[derive(Serialize, Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(super) enum ParkReason<'a> {
    Kept,
    ProbeFailing,
    CompensationFailing,
    Residue { left: Vec<Text<'a>> },
    UnknownDefinition { detail: Text<'a> },
    Unrecoverable { detail: Text<'a> },
}

#[derive(Serialize, Deserialize)]
pub(super) enum Outcome {
    Succeeded,
    Failed,
    Cancelled,
}

impl Serialize for Slice<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

struct BytesVisitor;

impl<'de> serde::de::Visitor<'de> for BytesVisitor {
    type Value = &'de [u8];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_borrowed_bytes<E: serde::de::Error>(self, bytes: &'de [u8]) -> Result<&'de [u8], E> {
        Ok(bytes)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Slice<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(BytesVisitor).map(Self)
    }
}

fn texts(texts: &[String]) -> Vec<Text<'_>> {
    texts.iter().map(String::as_str).collect()
}

fn owned(texts: Vec<Text<'_>>) -> Vec<String> {
    texts.into_iter().map(str::to_owned).collect()
}

fn json(json: &Json) -> Slice<'_> {
    Slice(json.as_bytes())
}

impl From<Slice<'_>> for Json {
    fn from(bytes: Slice<'_>) -> Self {
        Self::from_journal(bytes.0)
    }
}

fn moment(micros: Option<i64>) -> Option<Timestamp> {
    micros.map(Timestamp::from_micros)
}

fn micros(moment: Option<Timestamp>) -> Option<i64> {
    moment.map(Timestamp::as_micros)
}

impl<'a> From<&'a fact::Fact> for Fact<'a> {
    fn from(live: &'a fact::Fact) -> Self {
        use fact::Fact as Live;
        match live {
            Live::Submitted(submitted) => Self::Submitted(submitted.into()),
            Live::AttemptStarted { step, attempt } => Self::AttemptStarted { step: step.as_str(), attempt: attempt.0 },
            Live::AttemptSucceeded { step, attempt, output } => {
                Self::AttemptSucceeded { step: step.as_str(), attempt: attempt.0, output: output.into() }
            }
            Live::AttemptFailed { step, attempt, error, retry_at } => Self::AttemptFailed {
                step: step.as_str(),
                attempt: attempt.0,
                error: error.into(),
                retry_at: micros(*retry_at),
            },
            Live::Probed { step, attempt, answer, retry_at } => Self::Probed {
                step: step.as_str(),
                attempt: attempt.0,
                answer: answer.into(),
                retry_at: micros(*retry_at),
            },
            Live::ProbeFailed { step, attempt, error, retry_at } => Self::ProbeFailed {
                step: step.as_str(),
                attempt: attempt.0,
                error: error.into(),
                retry_at: micros(*retry_at),
            },
            Live::CompensationStarted { step, attempt } => {
                Self::CompensationStarted { step: step.as_str(), attempt: attempt.0 }
            }
            Live::CompensationSucceeded { step, attempt, message } => {
                Self::CompensationSucceeded { step: step.as_str(), attempt: attempt.0, message: message.as_str() }
            }
            Live::CompensationFailed { step, attempt, error, retry_at } => Self::CompensationFailed {
                step: step.as_str(),
                attempt: attempt.0,
                error: error.into(),
                retry_at: micros(*retry_at),
            },
            Live::ResidueCheckFailed { attempt, error, retry_at } => {
                Self::ResidueCheckFailed { attempt: attempt.0, error: error.into(), retry_at: micros(*retry_at) }
            }
            Live::CancelRequested { who, force } => Self::CancelRequested { who: who.as_str(), force: *force },
            Live::Paused { who } => Self::Paused { who: who.as_str() },
            Live::Resumed { who } => Self::Resumed { who: who.as_str() },
            Live::RetryRequested { who } => Self::RetryRequested { who: who.as_str() },
            Live::Parked { reason } => Self::Parked { reason: reason.into() },
            Live::Finished { outcome, residue } => {
                Self::Finished { outcome: (*outcome).into(), residue: texts(residue) }
            }
        }
    }
}

impl From<Fact<'_>> for fact::Fact {
    fn from(stored: Fact<'_>) -> Self {
        match stored {
            Fact::Submitted(submitted) => Self::Submitted(submitted.into()),
            Fact::AttemptStarted { step, attempt } => {
                Self::AttemptStarted { step: step.into(), attempt: Attempt(attempt) }
            }
            Fact::AttemptSucceeded { step, attempt, output } => {
                Self::AttemptSucceeded { step: step.into(), attempt: Attempt(attempt), output: output.into() }
            }
            Fact::AttemptFailed { step, attempt, error, retry_at } => Self::AttemptFailed {
                step: step.into(),
                attempt: Attempt(attempt),
                error: error.into(),
                retry_at: moment(retry_at),
            },
            Fact::Probed { step, attempt, answer, retry_at } => Self::Probed {
                step: step.into(),
                attempt: Attempt(attempt),
                answer: answer.into(),
                retry_at: moment(retry_at),
            },
            Fact::ProbeFailed { step, attempt, error, retry_at } => Self::ProbeFailed {
                step: step.into(),
                attempt: Attempt(attempt),
                error: error.into(),
                retry_at: moment(retry_at),
            },
            Fact::CompensationStarted { step, attempt } => {
                Self::CompensationStarted { step: step.into(), attempt: Attempt(attempt) }
            }
            Fact::CompensationSucceeded { step, attempt, message } => Self::CompensationSucceeded {
                step: step.into(),
                attempt: Attempt(attempt),
                message: message.to_owned(),
            },
            Fact::CompensationFailed { step, attempt, error, retry_at } => Self::CompensationFailed {
                step: step.into(),
                attempt: Attempt(attempt),
                error: error.into(),
                retry_at: moment(retry_at),
            },
            Fact::ResidueCheckFailed { attempt, error, retry_at } => {
                Self::ResidueCheckFailed { attempt: Attempt(attempt), error: error.into(), retry_at: moment(retry_at) }
            }
            Fact::CancelRequested { who, force } => Self::CancelRequested { who: who.into(), force },
            Fact::Paused { who } => Self::Paused { who: who.into() },
            Fact::Resumed { who } => Self::Resumed { who: who.into() },
            Fact::RetryRequested { who } => Self::RetryRequested { who: who.into() },
            Fact::Parked { reason } => Self::Parked { reason: reason.into() },
            Fact::Finished { outcome, residue } => Self::Finished { outcome: outcome.into(), residue: owned(residue) },
        }
    }
}

impl<'a> From<&'a fact::Submitted> for Submitted<'a> {
    fn from(live: &'a fact::Submitted) -> Self {
        Self {
            definition: live.definition.as_str(),
            version: live.version,
            fingerprint: live.fingerprint.0,
            steps: live.steps.iter().map(|step| step.as_str()).collect(),
            effect: match live.effect {
                fact::Effect::Create => Effect::Create,
                fact::Effect::Update => Effect::Update,
                fact::Effect::Delete => Effect::Delete,
            },
            tenant: live.tenant.as_str(),
            service: live.service.as_str(),
            input: json(&live.input),
            key: live.key.as_ref().map(|key| key.as_str()),
            body_hash: live.body_hash.0,
            who: live.who.as_str(),
            holds: live.holds.iter().map(|(resource, amount)| (resource.as_str(), *amount)).collect(),
            on_failure: match live.on_failure {
                fact::OnFailure::Rollback => OnFailure::Rollback,
                fact::OnFailure::Keep => OnFailure::Keep,
            },
        }
    }
}

impl From<Submitted<'_>> for fact::Submitted {
    fn from(stored: Submitted<'_>) -> Self {
        let holds: Amounts = stored.holds.into_iter().map(|(resource, amount)| (resource.into(), amount)).collect();
        Self {
            definition: stored.definition.into(),
            version: stored.version,
            fingerprint: Hash(stored.fingerprint),
            steps: stored.steps.into_iter().map(StepName::new).collect(),
            effect: match stored.effect {
                Effect::Create => fact::Effect::Create,
                Effect::Update => fact::Effect::Update,
                Effect::Delete => fact::Effect::Delete,
            },
            tenant: stored.tenant.into(),
            service: stored.service.into(),
            input: stored.input.into(),
            key: stored.key.map(IdempotencyKey::new),
            body_hash: Hash(stored.body_hash),
            who: stored.who.into(),
            holds,
            on_failure: match stored.on_failure {
                OnFailure::Rollback => fact::OnFailure::Rollback,
                OnFailure::Keep => fact::OnFailure::Keep,
            },
        }
    }
}

impl<'a> From<&'a fact::Output> for Output<'a> {
    fn from(live: &'a fact::Output) -> Self {
        // A record of `null` is none: in JSON, and so in an export, the two look the same.
        let record = live.record.as_ref().filter(|record| record.as_bytes() != b"null");
        Self {
            message: live.message.as_str(),
            skipped: live.skipped,
            result: json(&live.result),
            record: record.map(json),
        }
    }
}

impl From<Output<'_>> for fact::Output {
    fn from(stored: Output<'_>) -> Self {
        Self {
            message: stored.message.to_owned(),
            skipped: stored.skipped,
            result: stored.result.into(),
            record: stored.record.map(Json::from),
        }
    }
}

impl<'a> From<&'a fact::Probe> for Probe<'a> {
    fn from(live: &'a fact::Probe) -> Self {
        match live {
            fact::Probe::Applied { output } => Self::Applied { output: output.into() },
            fact::Probe::NotApplied => Self::NotApplied,
            fact::Probe::Partly { made } => Self::Partly { made: json(made) },
            fact::Probe::Foreign { detail } => Self::Foreign { detail: detail.as_str() },
        }
    }
}

impl From<Probe<'_>> for fact::Probe {
    fn from(stored: Probe<'_>) -> Self {
        match stored {
            Probe::Applied { output } => Self::Applied { output: output.into() },
            Probe::NotApplied => Self::NotApplied,
            Probe::Partly { made } => Self::Partly { made: made.into() },
            Probe::Foreign { detail } => Self::Foreign { detail: detail.to_owned() },
        }
    }
}

impl<'a> From<&'a fact::Failure> for Failure<'a> {
    fn from(live: &'a fact::Failure) -> Self {
        let class = match live.class {
            fact::ErrorClass::Transient => ErrorClass::Transient,
            fact::ErrorClass::Permanent => ErrorClass::Permanent,
            fact::ErrorClass::Unknown => ErrorClass::Unknown,
        };
        Self { class, message: live.message.as_str(), evidence: texts(&live.evidence) }
    }
}

impl From<Failure<'_>> for fact::Failure {
    fn from(stored: Failure<'_>) -> Self {
        let class = match stored.class {
            ErrorClass::Transient => fact::ErrorClass::Transient,
            ErrorClass::Permanent => fact::ErrorClass::Permanent,
            ErrorClass::Unknown => fact::ErrorClass::Unknown,
        };
        Self { class, message: stored.message.to_owned(), evidence: owned(stored.evidence) }
    }
}

impl<'a> From<&'a fact::ParkReason> for ParkReason<'a> {
    fn from(live: &'a fact::ParkReason) -> Self {
        use fact::ParkReason as Live;
        match live {
            Live::Kept => Self::Kept,
            Live::ProbeFailing => Self::ProbeFailing,
            Live::CompensationFailing => Self::CompensationFailing,
            Live::Residue { left } => Self::Residue { left: texts(left) },
            Live::UnknownDefinition { detail } => Self::UnknownDefinition { detail: detail.as_str() },
            Live::Unrecoverable { detail } => Self::Unrecoverable { detail: detail.as_str() },
        }
    }
}

impl From<ParkReason<'_>> for fact::ParkReason {
    fn from(stored: ParkReason<'_>) -> Self {
        match stored {
            ParkReason::Kept => Self::Kept,
            ParkReason::ProbeFailing => Self::ProbeFailing,
            ParkReason::CompensationFailing => Self::CompensationFailing,
            ParkReason::Residue { left } => Self::Residue { left: owned(left) },
            ParkReason::UnknownDefinition { detail } => Self::UnknownDefinition { detail: detail.to_owned() },
            ParkReason::Unrecoverable { detail } => Self::Unrecoverable { detail: detail.to_owned() },
        }
    }
}

impl From<fact::Outcome> for Outcome {
    fn from(live: fact::Outcome) -> Self {
        match live {
            fact::Outcome::Succeeded => Self::Succeeded,
            fact::Outcome::Failed => Self::Failed,
            fact::Outcome::Cancelled => Self::Cancelled,
        }
    }
}

impl From<Outcome> for fact::Outcome {
    fn from(stored: Outcome) -> Self {
        match stored {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Failed => Self::Failed,
            Outcome::Cancelled => Self::Cancelled,
        }
    }
}
