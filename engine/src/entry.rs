//! An entry: a fact's envelope, with its place in the workflow's chain of hashes.
//!
//! Entries live in appends (what one workflow gained at once), appends in commits (what one sync made durable).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    fact::{Fact, Output, Probe},
    ids::{CommitNumber, FencingToken, Hash, Json, Sequence, Timestamp, WorkflowId},
};

/// One place in a workflow's journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose.
    pub workflow: WorkflowId,
    /// Which place: 1, 2, 3, no gap.
    pub sequence: Sequence,
    /// Which opening of the store wrote it.
    pub token: FencingToken,
    /// When, UTC. For people; order is by sequence.
    pub time: Timestamp,
    /// The hash of the entry before; all zeros for the first.
    pub previous: Hash,
    /// What happened.
    #[serde(deserialize_with = "exact_fact")]
    pub fact: Fact,
    /// BLAKE3 over all of the above.
    pub hash: Hash,
}

/// What one sync made durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Which: 1, 2, 3, no gap.
    pub number: CommitNumber,
    /// Which opening of the store wrote it. The first commit of each opening has no entries.
    pub token: FencingToken,
    /// When, UTC.
    pub time: Timestamp,
    /// The hash of the commit before; all zeros for the first.
    pub previous: Hash,
    /// BLAKE3 over number, token, time, previous hash and the hashes of the entries.
    pub hash: Hash,
    /// Its entries, in the order in which they were appended.
    pub entries: Vec<Entry>,
}

/// A fact from JSON, with every JSON value in it byte for byte as it is written there: its hash depends on it.
fn exact_fact<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Fact, D::Error> {
    let text = Box::<RawValue>::deserialize(deserializer)?;
    let mut fact: Fact = serde_json::from_str(text.get()).map_err(serde::de::Error::custom)?;
    let texts: FactTexts<'_> = serde_json::from_str(text.get()).map_err(serde::de::Error::custom)?;
    texts.put_back(&mut fact);
    Ok(fact)
}

/// The texts of the JSON values of a fact. `None` also stands for `null`, which has but one text.
#[derive(Deserialize)]
struct FactTexts<'a> {
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    output: Option<OutputTexts<'a>>,
    #[serde(borrow)]
    answer: Option<AnswerTexts<'a>>,
}

#[derive(Deserialize)]
struct OutputTexts<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct AnswerTexts<'a> {
    #[serde(borrow)]
    output: Option<OutputTexts<'a>>,
    #[serde(borrow)]
    made: Option<&'a RawValue>,
}

impl FactTexts<'_> {
    fn put_back(&self, fact: &mut Fact) {
        match fact {
            Fact::Submitted(submitted) => put_back(self.input, &mut submitted.input),
            Fact::AttemptSucceeded { output, .. } => OutputTexts::put_back(self.output.as_ref(), output),
            Fact::Probed { answer, .. } => {
                let Some(texts) = &self.answer else { return };
                match answer {
                    Probe::Applied { output } => OutputTexts::put_back(texts.output.as_ref(), output),
                    Probe::Partly { made } => put_back(texts.made, made),
                    Probe::NotApplied | Probe::Foreign { .. } => {}
                }
            }
            Fact::AttemptStarted { .. }
            | Fact::AttemptFailed { .. }
            | Fact::ProbeFailed { .. }
            | Fact::CompensationStarted { .. }
            | Fact::CompensationSucceeded { .. }
            | Fact::CompensationFailed { .. }
            | Fact::ResidueCheckFailed { .. }
            | Fact::CancelRequested { .. }
            | Fact::Paused { .. }
            | Fact::Resumed { .. }
            | Fact::RetryRequested { .. }
            | Fact::Parked { .. }
            | Fact::Finished { .. } => {}
        }
    }
}

impl OutputTexts<'_> {
    fn put_back(texts: Option<&Self>, output: &mut Output) {
        let Some(texts) = texts else { return };
        put_back(texts.result, &mut output.result);
        if let Some(record) = &mut output.record {
            put_back(texts.record, record);
        }
    }
}

fn put_back(text: Option<&RawValue>, json: &mut Json) {
    if let Some(text) = text {
        *json = Json::from_journal(text.get().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key order, a number's digits and an escape are the text's own: a parsed value would lose them.
    const TEXT: &str = r#"{"z":1.50,"a":[12345678901234567890123,"\u00e9"]}"#;

    fn there_and_back(fact: Fact) {
        let entry = Entry {
            workflow: WorkflowId::from_bytes([7; 16]),
            sequence: Sequence(2),
            token: FencingToken(1),
            time: Timestamp::from_micros(1),
            previous: Hash([1; 32]),
            fact,
            hash: Hash([2; 32]),
        };
        let text = serde_json::to_string(&entry).expect("an entry is JSON");
        assert_eq!(serde_json::from_str::<Entry>(&text).expect("its own text"), entry);
    }

    #[test]
    fn json_values_keep_their_text_through_an_export() {
        let json = Json::parse(TEXT.as_bytes()).expect("it is JSON");
        for record in [Some(json.clone()), None] {
            for result in [json.clone(), Json::null()] {
                let output = Output { message: "made".to_owned(), skipped: false, result, record: record.clone() };
                let (step, attempt) = ("k8s_applied".into(), crate::ids::Attempt(1));
                there_and_back(Fact::AttemptSucceeded { step, attempt, output: output.clone() });
                let answer = Probe::Applied { output };
                there_and_back(Fact::Probed { step: "k8s_applied".into(), attempt, answer, retry_at: None });
            }
        }
        let answer = Probe::Partly { made: json };
        there_and_back(Fact::Probed { step: "a".into(), attempt: crate::ids::Attempt(1), answer, retry_at: None });
    }
}
