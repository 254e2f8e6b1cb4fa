//! Label and field selectors.

use super::json::entries;
use super::status::Refusal;
use serde_json::Value;

/// What a list or watch asks for.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    labels: Vec<Label>,
    fields: Vec<(String, String, bool)>,
}

#[derive(Clone, Debug)]
enum Label {
    Present(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

impl Selector {
    /// # Errors
    /// 400 for a selector that cannot be read.
    pub(super) fn parse(labels: &str, fields: &str) -> Result<Selector, Refusal> {
        let mut selector = Selector::default();
        for part in split_outside_parentheses(labels) {
            let bad = || Refusal::bad_request(format!("unable to parse requirement: {part}"));
            selector.labels.push(parse_label(part).ok_or_else(bad)?);
        }
        for part in fields.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value, equal) = if let Some((name, value)) = part.split_once("!=") {
                (name, value, false)
            } else if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (name, value, true)
            } else {
                return Err(Refusal::bad_request(format!("invalid field selector: {part}")));
            };
            let pointer = format!("/{}", name.trim().replace('.', "/"));
            selector.fields.push((pointer, value.trim().to_owned(), equal));
        }
        Ok(selector)
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let label = |name: &str| object["metadata"]["labels"].get(name).and_then(Value::as_str);
        let labels = self.labels.iter().all(|wanted| match wanted {
            Label::Present(name) => label(name).is_some(),
            Label::Absent(name) => label(name).is_none(),
            Label::In(name, values) => label(name).is_some_and(|found| values.iter().any(|value| value == found)),
            Label::NotIn(name, values) => label(name).is_none_or(|found| values.iter().all(|value| value != found)),
        });
        labels
            && self.fields.iter().all(|(pointer, value, equal)| {
                let found = match object.pointer(pointer) {
                    Some(Value::String(found)) => found.clone(),
                    Some(Value::Bool(found)) => found.to_string(),
                    Some(Value::Number(found)) => found.to_string(),
                    _ => String::new(),
                };
                (found == *value) == *equal
            })
    }
}

fn parse_label(part: &str) -> Option<Label> {
    let part = part.trim();
    let values = |text: &str| -> Option<Vec<String>> {
        let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    if let Some(name) = part.strip_prefix('!') {
        return Some(Label::Absent(name.trim().to_owned()));
    }
    if let Some((name, list)) = part.split_once(" notin ") {
        return Some(Label::NotIn(name.trim().to_owned(), values(list)?));
    }
    if let Some((name, list)) = part.split_once(" in ") {
        return Some(Label::In(name.trim().to_owned(), values(list)?));
    }
    if let Some((name, value)) = part.split_once("!=") {
        return Some(Label::NotIn(name.trim().to_owned(), vec![value.trim().to_owned()]));
    }
    if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some(Label::In(name.trim().to_owned(), vec![value.trim().to_owned()]));
    }
    (!part.is_empty() && !part.contains(' ')).then(|| Label::Present(part.to_owned()))
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0_u32, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// Whether a `LabelSelector` of an object's spec takes an object with these labels. An empty one takes all.
pub(super) fn label_selector_matches(selector: &Value, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let equal = entries(selector, "/matchLabels").all(|(name, value)| labels.get(name) == Some(value));
    equal
        && super::json::items(selector, "/matchExpressions").iter().all(|expression| {
            let found = expression["key"].as_str().and_then(|name| labels.get(name));
            let listed = || super::json::items(expression, "/values").iter().any(|value| Some(value) == found);
            match expression["operator"].as_str() {
                Some("In") => listed(),
                Some("NotIn") => !listed(),
                Some("Exists") => found.is_some(),
                Some("DoesNotExist") => found.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_take_what_kubectl_would_be_shown() {
        let object =
            json!({"metadata": {"name": "a", "labels": {"app": "es", "tier": "x"}}, "spec": {"nodeName": "n"}});
        let takes = |labels: &str, fields: &str| Selector::parse(labels, fields).expect(labels).matches(&object);
        assert!(takes("app=es,tier in (x, y)", "metadata.name=a"));
        assert!(takes("app,!other,tier!=z,app notin (b,c)", "spec.nodeName!=m,metadata.namespace="));
        assert!(!takes("app==kibana", ""));
        assert!(!takes("", "metadata.name=b"));
        assert!(Selector::parse("a b", "").is_err());
        assert!(Selector::parse("", "metadata.name").is_err());
    }
}
