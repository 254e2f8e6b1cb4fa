//! Settings for `elasticsearch.yml` that a tenant may bring: read from YAML, held against an allow-list of keys.
//!
//! - What is pulled is configuration, never code and never a manifest: only keys of [`ALLOWED`] pass, everything else is
//!   refused by name (C12).
//! - What this program sets itself (discovery, security, paths, network) cannot be set from outside.
//! - A value cannot read the environment of a node: `${…}` is refused.
//! - Reading is bounded: depth, nodes, aliases. An alias bomb is an error, not a lot of memory.

use std::collections::BTreeMap;

use serde_json::Value;

/// What the keys that may be set begin with. Node-level tuning only: index settings in `elasticsearch.yml` keep a node from starting.
pub const ALLOWED: [&str; 12] = [
    "action.",
    "cluster.indices.",
    "cluster.max_shards_per_node",
    "cluster.routing.",
    "http.compression",
    "http.max_content_length",
    "indices.",
    "ingest.",
    "logger.",
    "script.",
    "search.",
    "thread_pool.",
];

/// The most settings that one file may bring.
const SETTINGS_MAX: usize = 500;
/// How many refused keys a message names.
const REFUSED_NAMED_MAX: usize = 10;

/// Checked settings, by their full dotted key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings(BTreeMap<String, Value>);

/// Why a file's settings are not taken.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not YAML, or YAML that grows beyond all bounds.
    #[error("the file is no YAML that can be read: {0}")]
    Yaml(String),
    /// YAML, and not a mapping.
    #[error("the file is {0}: it must be a mapping of Elasticsearch settings, such as `search.max_buckets: 20000`")]
    NotAMapping(&'static str),
    /// Keys that are not on the allow-list.
    #[error("the file sets what may not be set from outside: {keys}; the keys that may be set begin with {}", ALLOWED.join(", "))]
    Refused {
        /// The keys, the first of them.
        keys: String,
    },
    /// The same key in two spellings.
    #[error("the file sets `{0}` twice: once nested and once with dots; set it once")]
    Twice(String),
    /// A value that is no plain value.
    #[error(
        "the value of `{0}` cannot be used: it must be a text, number, true or false, or a list of these, and must not contain `${{`"
    )]
    Value(String),
    /// More settings than any node needs.
    #[error("the file has more than {SETTINGS_MAX} settings")]
    TooMany,
}

impl Settings {
    /// Reads a file.
    ///
    /// # Errors
    /// [`SettingsError`] names what is wrong; none of them is cured by asking again.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_events: 20_000,
                max_nodes: 10_000,
                max_depth: 16,
                max_documents: 1,
                max_aliases: 100,
                max_anchors: 100,
                max_inclusion_depth: 0,
                max_total_scalar_bytes: 512 * 1024,
            },
            with_snippet: false,
        };
        let value: Value = serde_saphyr::from_str_with_options(text, options)
            .map_err(|error| SettingsError::Yaml(error.to_string()))?;
        let mapping = match value {
            Value::Object(mapping) => mapping,
            // A file with nothing but comments sets nothing.
            Value::Null => return Ok(Self::default()),
            Value::Array(_) => return Err(SettingsError::NotAMapping("a list")),
            _ => return Err(SettingsError::NotAMapping("a plain text")),
        };
        let mut settings = BTreeMap::new();
        flatten("", mapping, &mut settings)?;
        let refused: Vec<&str> = settings.keys().filter(|key| !allowed(key)).map(String::as_str).collect();
        if !refused.is_empty() {
            let more = refused.len().saturating_sub(REFUSED_NAMED_MAX);
            let mut keys = refused[..refused.len() - more]
                .iter()
                .map(|key| format!("`{}`", short(key)))
                .collect::<Vec<_>>()
                .join(", ");
            if more > 0 {
                keys.push_str(&format!(" and {more} more"));
            }
            return Err(SettingsError::Refused { keys });
        }
        Ok(Self(settings))
    }

    /// The settings in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The keys in order.
    #[must_use]
    pub fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

/// Bytes as hexadecimal digits: digests, for people.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn allowed(key: &str) -> bool {
    let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    // A prefix that ends in a dot is a family; one that does not is that key alone.
    let known = |prefix: &str| {
        if prefix.ends_with('.') { key.len() > prefix.len() && key.starts_with(prefix) } else { key == prefix }
    };
    plain && ALLOWED.iter().any(|prefix| known(prefix))
}

fn flatten(
    prefix: &str,
    mapping: serde_json::Map<String, Value>,
    into: &mut BTreeMap<String, Value>,
) -> Result<(), SettingsError> {
    for (name, value) in mapping {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        if let Value::Object(inner) = value {
            flatten(&key, inner, into)?;
            continue;
        }
        if !usable(&value) {
            return Err(SettingsError::Value(short(&key)));
        }
        if into.len() == SETTINGS_MAX {
            return Err(SettingsError::TooMany);
        }
        if into.insert(key.clone(), value).is_some() {
            return Err(SettingsError::Twice(short(&key)));
        }
    }
    Ok(())
}

fn usable(value: &Value) -> bool {
    match value {
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => !text.contains("${"),
        Value::Array(values) => values.iter().all(|value| !value.is_array() && usable(value)),
        Value::Null | Value::Object(_) => false,
    }
}

fn short(key: &str) -> String {
    key.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Settings::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn nested_and_dotted_keys_are_the_same_settings() {
        let dotted =
            Settings::parse("search.max_buckets: 20000\nindices.recovery.max_bytes_per_sec: 50mb\n").expect("good");
        let nested =
            Settings::parse("search:\n  max_buckets: 20000\nindices:\n  recovery:\n    max_bytes_per_sec: 50mb\n")
                .expect("good");
        assert_eq!(dotted, nested);
        assert_eq!(dotted.keys(), ["indices.recovery.max_bytes_per_sec", "search.max_buckets"]);
    }

    #[test]
    fn what_may_not_be_set_from_outside_is_refused_by_name() {
        let refusal = refusal(
            "xpack.security.enabled: true\npath.data: /etc\nsearch.max_buckets: 1\ndiscovery.type: single-node\n",
        );
        assert!(refusal.contains("`discovery.type`, `path.data`, `xpack.security.enabled`;"), "{refusal}");
        assert!(!refusal.contains("search.max_buckets"));
    }

    #[test]
    fn a_key_cannot_smuggle_a_line_into_the_configuration() {
        assert!(refusal("\"search.a\\nxpack.security.enabled\": true").contains("may not be set"));
        assert!(refusal("search.: 1").contains("may not be set"));
        assert!(refusal("http.compression_level: 9").contains("may not be set"));
    }

    #[test]
    fn a_value_cannot_read_the_environment() {
        assert!(refusal("search.x: \"${POD_NAME}\"").contains("search.x"));
        assert!(refusal("search.x: [a, [b]]").contains("search.x"));
        assert!(refusal("search.x: null").contains("search.x"));
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        assert!(refusal("just text").contains("a plain text"));
        assert!(refusal("- a\n- b\n").contains("a list"));
        assert!(refusal("a: [").contains("no YAML"));
        assert!(refusal("search.a: 1\nsearch.a: 2\n").contains("no YAML"));
        assert!(refusal("search.a: 1\nsearch:\n  a: 2\n").contains("twice"));
        assert_eq!(Settings::parse("# nothing yet\n").expect("empty"), Settings::default());
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let inner = vec![format!("*a{}", level - 1); 10].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
        }
        assert!(refusal(&bomb).contains("no YAML"));
        assert!(refusal(&format!("a: {}1{}", "[".repeat(5000), "]".repeat(5000))).contains("no YAML"));
    }
}
