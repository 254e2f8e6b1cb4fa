//! The fields of a JSON object, taken one by one, with every error collected on the way.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::{FieldError, OnFailure};
use crate::quantity::Quantity;

/// The fields there are, in the order of the contract.
pub(super) const KNOWN: [&str; 14] = [
    "user",
    "service_name",
    "namespace",
    "replicas",
    "cpu_request",
    "cpu_limit",
    "mem_request",
    "mem_limit",
    "disk_size",
    "gpu_count",
    "dimension",
    "vector_count",
    "gitlab_url",
    "on_failure",
];

/// Unknown fields that are named one by one. A body full of them must not become an answer full of them.
pub(super) const UNKNOWN_NAMED_MAX: usize = 20;

/// Characters of a user's text that are quoted in a message.
const QUOTED_CHARS_MAX: usize = 64;

pub(super) struct Fields {
    values: BTreeMap<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Vec<FieldError>> {
        let entries = match serde_json::from_slice::<Object>(body) {
            Ok(Object(entries)) => entries,
            Err(error) => return Err(vec![FieldError::new("body", refusal(&error))]),
        };
        let mut fields = Self { values: BTreeMap::new(), errors: Vec::new() };
        let mut unknown = 0_usize;
        for (name, value) in entries {
            if !KNOWN.contains(&name.as_str()) {
                unknown += 1;
                if unknown <= UNKNOWN_NAMED_MAX {
                    fields.errors.push(FieldError::new(quoted(&name), unknown_field(&name, "the fields are", &KNOWN)));
                }
            } else if fields.values.insert(name.clone(), value).is_some() {
                fields.wrong(&name, "is given twice: give it once");
            }
        }
        if unknown > UNKNOWN_NAMED_MAX {
            fields.wrong(
                "body",
                format!("has {unknown} unknown fields, of which the first {UNKNOWN_NAMED_MAX} are named"),
            );
        }
        Ok(fields)
    }

    pub(super) fn wrong(&mut self, field: &str, message: impl Into<String>) {
        self.errors.push(FieldError::new(field, message));
    }

    /// Every error there is, ordered as the contract orders the fields, unknown ones last.
    pub(super) fn finish(mut self) -> Result<(), Vec<FieldError>> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let place = |error: &FieldError| KNOWN.iter().position(|known| *known == error.field).unwrap_or(KNOWN.len());
        self.errors.sort_by_key(place);
        Err(self.errors)
    }

    /// A text that must be there.
    pub(super) fn required<T, E: Display>(
        &mut self,
        field: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if !self.values.contains_key(field) {
            self.wrong(field, "is missing");
            return None;
        }
        let text = self.text(field)?;
        read(&text).map_err(|error| self.wrong(field, error.to_string())).ok()
    }

    /// A text that may be absent or `null`.
    pub(super) fn optional<T, E: Display>(
        &mut self,
        field: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if self.values.get(field).is_none_or(Value::is_null) {
            return None;
        }
        let text = self.text(field)?;
        read(&text).map_err(|error| self.wrong(field, error.to_string())).ok()
    }

    pub(super) fn quantity(&mut self, field: &str, default: &str) -> Option<Quantity> {
        let text = if self.values.contains_key(field) { self.text(field)? } else { default.to_owned() };
        text.parse().map_err(|error: crate::quantity::QuantityError| self.wrong(field, error.to_string())).ok()
    }

    pub(super) fn whole(&mut self, field: &str, default: u64, range: RangeInclusive<u64>) -> Option<u64> {
        let Some(value) = self.values.remove(field) else {
            return Some(default);
        };
        let (least, most) = (range.start(), range.end());
        let Value::Number(number) = &value else {
            self.wrong(field, format!("must be a whole number from {least} to {most}, not {}", kind(&value)));
            return None;
        };
        match number.as_u64() {
            Some(number) if range.contains(&number) => Some(number),
            _ => {
                self.wrong(field, format!("is {number}, and must be a whole number from {least} to {most}"));
                None
            }
        }
    }

    pub(super) fn on_failure(&mut self, field: &str) -> Option<OnFailure> {
        if !self.values.contains_key(field) {
            return Some(OnFailure::default());
        }
        match self.text(field)?.as_str() {
            "rollback" => Some(OnFailure::Rollback),
            "keep" => Some(OnFailure::Keep),
            other => {
                self.wrong(field, format!("is `{}`, and must be `rollback` or `keep`", quoted(other)));
                None
            }
        }
    }

    /// Checks that a request is at most its limit, where both could be read.
    pub(super) fn at_most(
        &mut self,
        field: &str,
        request: Option<&Quantity>,
        limit_field: &str,
        limit: Option<&Quantity>,
    ) {
        if let (Some(request), Some(limit)) = (request, limit)
            && request > limit
        {
            self.wrong(field, format!("`{request}` is more than `{limit_field}`, which is `{limit}`"));
        }
    }

    fn text(&mut self, field: &str) -> Option<String> {
        match self.values.remove(field)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong(field, format!("must be a string, not {}", kind(&other)));
                None
            }
        }
    }
}

/// A JSON object with its entries as they came, repeated ones included: `serde_json` alone would quietly keep the last.
pub(super) struct Object(pub(super) Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

pub(super) fn refusal(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => "must be a JSON object with the fields of a request".to_owned(),
        _ => format!("is not JSON: {error}"),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

pub(super) fn quoted(text: &str) -> String {
    if text.chars().count() <= QUOTED_CHARS_MAX {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    short.push('…');
    short
}

/// What is wrong with a field that is none of `known`, which are `what`.
pub(super) fn unknown_field(name: &str, what: &str, known: &[&str]) -> String {
    let near = known.iter().map(|known| (distance(name, known), known)).min();
    match near {
        Some((distance, known)) if distance <= 1 + known.len() / 4 => {
            format!("is unknown: did you mean `{known}`?")
        }
        _ => format!("is unknown: {what} {}", known.join(", ")),
    }
}

/// How many letters must be added, removed or changed to make one text of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    // No known field is longer than 12 letters, so that whatever is much longer is far from all of them.
    if a.len() > QUOTED_CHARS_MAX {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(!from.eq_ignore_ascii_case(to));
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
