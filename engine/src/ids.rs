//! The names and numbers of the engine: never a bare `u64` or `String`.
//!
//! Every type here is a newtype with the one meaning that `docs/words.md` gives it. Text types are cheap to
//! clone: a workflow's name of a step is shared by all its facts.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// A workflow's id: a UUIDv7, so that ids sort by the time of their submission.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkflowId(Uuid);

impl WorkflowId {
    /// A new id for the time `now`: its milliseconds, its microseconds in the twelve bits that the format leaves for
    /// more precision, and 62 of these random bits.
    pub(crate) fn drawn(now: Timestamp, bits: u64) -> Self {
        let micros = u64::try_from(now.as_micros()).unwrap_or(0);
        let mut rest = [0; 10];
        rest[2..].copy_from_slice(&bits.to_be_bytes());
        let fraction = u16::try_from(micros % 1_000 * 4).expect("less than twelve bits");
        rest[..2].copy_from_slice(&fraction.to_be_bytes());
        Self(uuid::Builder::from_unix_timestamp_millis(micros / 1_000, &rest).into_uuid())
    }

    /// The sixteen bytes of the id: big-endian, so that they sort as the id does.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id with these sixteen bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for WorkflowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for WorkflowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for WorkflowId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// A moment: microseconds since 1970-01-01T00:00:00Z. For people; order is by [`Sequence`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `micros` microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// This moment plus `duration`, or the last one there is.
    #[must_use]
    pub fn after(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339, UTC, always with six digits of a second: `2026-01-01T00:00:00.000001Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{moment:.6}")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>().map(|moment| Self(moment.as_microsecond()))
    }
}

// For people (JSON) the text, in the journal (bincode) the number.
impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            i64::deserialize(deserializer).map(Self)
        }
    }
}

/// A 32-byte BLAKE3 hash; as text, 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            blake3::Hash::from_hex(text.as_bytes()).map(|hash| Self(*hash.as_bytes())).map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// An entry's place in its workflow: 1, 2, 3, no gap. 0 stands for "nothing yet".
    Sequence(u64)
}
number! {
    /// A commit's place in the journal: 1, 2, 3, no gap. 0 stands for "nothing yet".
    CommitNumber(u64)
}
number! {
    /// One execution of a step or of its compensation, counted from 1.
    Attempt(u32)
}
number! {
    /// The number of this opening of the store: an older one is refused.
    FencingToken(u64)
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name with this text.
            #[must_use]
            pub fn new(text: &str) -> Self {
                Self(text.into())
            }

            /// Its text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }
    };
}

text! {
    /// A step's name; for the create workflow also the status of its report.
    StepName
}
text! {
    /// A definition's name.
    DefinitionName
}
text! {
    /// Who asks: a request's `user`.
    Tenant
}
text! {
    /// What a tenant asks for: a request's `service_name`.
    Service
}
text! {
    /// A client's name for a submission: the same key and body never make a second workflow.
    IdempotencyKey
}
text! {
    /// Who caused a fact: a principal's name, never a credential.
    Who
}
text! {
    /// What a quota counts, such as `clusters` or `memory_bytes`.
    ResourceName
}

/// JSON kept as bytes, so that the journal's codec never decodes a self-describing type.
///
/// At most [`Json::BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(Arc<[u8]>);

/// A value was longer than [`Json::BYTES_MAX`], or was no JSON at all.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Longer than the journal takes.
    #[error("the value has {bytes} bytes, a journaled value at most {}: make it smaller", Json::BYTES_MAX)]
    TooLong {
        /// How long it was.
        bytes: usize,
    },
    /// Not serializable, or not JSON.
    #[error("the value is not JSON")]
    Invalid(#[from] serde_json::Error),
}

impl Json {
    /// The most bytes that an input or output may have: 256 KiB.
    pub const BYTES_MAX: usize = 256 * 1024;

    /// `value` as JSON.
    ///
    /// # Errors
    /// [`JsonError`] if it is too long, or cannot be serialized.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, JsonError> {
        let mut bytes = Vec::with_capacity(512);
        serde_json::to_writer(&mut bytes, value)?;
        Self::checked(bytes)
    }

    /// The JSON text `bytes`.
    ///
    /// # Errors
    /// [`JsonError`] if it is too long, or no JSON.
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let text: &RawValue = serde_json::from_slice(bytes)?;
        Self::checked(without_space(text.get()))
    }

    fn checked(bytes: Vec<u8>) -> Result<Self, JsonError> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(JsonError::TooLong { bytes: bytes.len() });
        }
        Ok(Self(bytes.into()))
    }

    /// JSON's `null`.
    #[must_use]
    pub fn null() -> Self {
        Self(Arc::from(&b"null"[..]))
    }

    /// What the codec has read back: it was checked when it was written.
    pub(crate) fn from_journal(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Read as a `T`.
    ///
    /// # Errors
    /// If the text does not have the shape of a `T`.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0)
    }

    /// Read as any JSON value; `null` if the bytes are none.
    #[must_use]
    pub fn value(&self) -> serde_json::Value {
        self.read().unwrap_or(serde_json::Value::Null)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// `text`, which is JSON, on one line and without space between its tokens: an export has a commit a line.
fn without_space(text: &str) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        kept.push(byte);
    }
    kept
}

// In JSON the text itself, byte for byte: an export must give the hashes that the journal has. In bincode its bytes.
impl Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let text: &RawValue = serde_json::from_slice(&self.0).map_err(serde::ser::Error::custom)?;
            text.serialize(serializer)
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

// Inside of an internally tagged enum serde has parsed the value before it comes here, and its text is lost:
// `entry.rs` puts the text back where hashes depend on it.
impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> serde::de::Visitor<'de> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a JSON text")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }

        if deserializer.is_human_readable() {
            let value = serde_json::Value::deserialize(deserializer)?;
            Self::of(&value).map_err(serde::de::Error::custom)
        } else {
            deserializer.deserialize_byte_buf(Bytes).map(|bytes| Self::from_journal(&bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_shown_with_six_digits_and_read_back() {
        let moment = Timestamp::from_micros(1_767_225_600_000_001);
        assert_eq!(moment.to_string(), "2026-01-01T00:00:00.000001Z");
        assert_eq!(moment.to_string().parse::<Timestamp>().expect("its own text"), moment);
    }

    #[test]
    fn ids_made_later_sort_later() {
        let early = WorkflowId::drawn(Timestamp::from_micros(1_000_000), u64::MAX);
        let late = WorkflowId::drawn(Timestamp::from_micros(1_000_001), 0);
        assert!(early < late);
        assert_eq!(early.to_string().parse::<WorkflowId>().expect("its own text"), early);
    }

    #[test]
    fn json_longer_than_the_journal_takes_is_refused() {
        assert!(matches!(Json::of(&"x".repeat(Json::BYTES_MAX)), Err(JsonError::TooLong { .. })));
        assert!(Json::parse(b"{").is_err());
        assert!(Json::parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn parsed_json_loses_the_space_between_its_tokens_and_nothing_else() {
        let json =
            Json::parse(b" { \"a b\" :\n[1.50, \"\\\" \\\\\" , 12345678901234567890123] } ").expect("it is JSON");
        assert_eq!(json.as_bytes(), b"{\"a b\":[1.50,\"\\\" \\\\\",12345678901234567890123]}");
        assert_eq!(serde_json::to_string(&json).expect("it is JSON").as_bytes(), json.as_bytes());
    }
}
