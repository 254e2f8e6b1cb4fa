//! Kubernetes quantities (`500m`, `2`, `1.5Gi`, `2e9`): parsed as apimachinery does, compared by what they mean.
//!
//! - `10Gi` equals `10240Mi`: equality and order are those of the amounts, never of the texts (C5).
//! - What the user wrote is what is printed, stored and sent.
//! - An amount is exact down to a billionth, which is also the finest that Kubernetes keeps; a finer one is rounded up, as there.
//! - Kubernetes silently caps what is larger than 2⁶³ − 1. Here it is an error: a wish of `9223372036854775807Gi` is a mistake.
//!
//! What an amount may be for a certain field (whole bytes, at least so much) is for [`crate::request`] to say.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest text that is read as a quantity. The longest useful one has 20 digits and a suffix.
pub const TEXT_CHARS_MAX: usize = 64;

/// Billionths in one: amounts are kept as a whole number of these.
const NANOS: i128 = 1_000_000_000;

/// The largest amount, in billionths: Kubernetes keeps amounts as signed 64-bit numbers.
const AMOUNT_MAX: i128 = i64::MAX as i128 * NANOS;

/// An amount of something, not negative, and the text that the user wrote for it.
#[derive(Clone)]
pub struct Quantity {
    text: String,
    nanos: i128,
}

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Nothing was written.
    #[error("is empty: write an amount such as `500m`, `2` or `10Gi`")]
    Empty,
    /// Neither a number nor a number with a suffix.
    #[error("`{0}` is no quantity: write a number and at most one suffix, such as `500m`, `2`, `1.5Gi` or `2e9`")]
    Malformed(String),
    /// A number, then letters that are no suffix of Kubernetes.
    #[error(
        "`{text}` ends in the unknown suffix `{suffix}`: the suffixes are n u m k M G T P E, Ki Mi Gi Ti Pi Ei, and an exponent such as e9"
    )]
    Suffix {
        /// What was written.
        text: String,
        /// The part of it that is no suffix.
        suffix: String,
    },
    /// Below zero.
    #[error("`{0}` is negative: an amount is 0 or more")]
    Negative(String),
    /// Larger than Kubernetes can keep.
    #[error("`{0}` is too large: the largest amount that Kubernetes can keep is 9223372036854775807")]
    TooLarge(String),
    /// More characters or digits than any amount needs.
    #[error("has too many digits: an amount needs at most 20")]
    TooLong,
}

impl Quantity {
    /// The amount times 1000, rounded up: CPU is counted in thousandths of a core.
    #[must_use]
    pub fn as_millis(&self) -> u64 {
        self.ceil(NANOS / 1000)
    }

    /// The amount in whole units, rounded up as Kubernetes does: bytes for memory and disk.
    #[must_use]
    pub fn as_bytes(&self) -> u64 {
        self.ceil(NANOS)
    }

    /// Whether the amount is a whole number, as bytes must be.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.nanos % NANOS == 0
    }

    /// Whether the amount is a whole number of thousandths, as CPU must be.
    #[must_use]
    pub fn is_whole_millis(&self) -> bool {
        self.nanos % (NANOS / 1000) == 0
    }

    /// The text as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn ceil(&self, unit: i128) -> u64 {
        let units = self.nanos / unit + i128::from(self.nanos % unit != 0);
        // Only thousandths of an amount near 2⁶³ do not fit; the largest number stands for them, and every sum over it is checked.
        u64::try_from(units).unwrap_or(u64::MAX)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Empty);
        }
        if text.len() > TEXT_CHARS_MAX {
            return Err(QuantityError::TooLong);
        }
        let (negative, number) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
        let (number, suffix) = number.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return Err(QuantityError::Malformed(text.to_owned()));
        }
        let scale = Scale::parse(suffix)
            .ok_or_else(|| QuantityError::Suffix { text: text.to_owned(), suffix: suffix.to_owned() })?;
        let nanos = nanos(text, whole, fraction, scale)?;
        if negative && nanos != 0 {
            return Err(QuantityError::Negative(text.to_owned()));
        }
        Ok(Self { text: text.to_owned(), nanos })
    }
}

/// What a suffix multiplies by: 10 to the one, times 2 to the other.
#[derive(Clone, Copy)]
struct Scale {
    tens: i32,
    twos: u32,
}

impl Scale {
    fn parse(suffix: &str) -> Option<Self> {
        let (tens, twos) = match suffix {
            "n" => (-9, 0),
            "u" => (-6, 0),
            "m" => (-3, 0),
            "" => (0, 0),
            "k" => (3, 0),
            "M" => (6, 0),
            "G" => (9, 0),
            "T" => (12, 0),
            "P" => (15, 0),
            "E" => (18, 0),
            "Ki" => (0, 10),
            "Mi" => (0, 20),
            "Gi" => (0, 30),
            "Ti" => (0, 40),
            "Pi" => (0, 50),
            "Ei" => (0, 60),
            exponent => (Self::exponent(exponent)?, 0),
        };
        Some(Self { tens, twos })
    }

    fn exponent(suffix: &str) -> Option<i32> {
        let digits = suffix.strip_prefix(['e', 'E'])?;
        let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
        if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        // Beyond a thousand all exponents mean the same: far too large, or as good as nothing.
        let size = unsigned.parse::<i32>().map_or(1000, |n| n.min(1000));
        Some(if digits.starts_with('-') { -size } else { size })
    }
}

/// The amount in billionths, rounded up.
fn nanos(text: &str, whole: &str, fraction: &str, scale: Scale) -> Result<i128, QuantityError> {
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(0);
    }
    let too_large = || QuantityError::TooLarge(text.to_owned());
    let mantissa: i128 = digits.parse().map_err(|_| QuantityError::TooLong)?;
    let mantissa = mantissa.checked_mul(1 << scale.twos).ok_or_else(too_large)?;
    let places = i32::try_from(fraction.len()).expect("a quantity's text is short");
    let tens = scale.tens - places + 9;
    let power = 10_i128.checked_pow(tens.unsigned_abs());
    let nanos = match (tens >= 0, power) {
        (true, Some(power)) => mantissa.checked_mul(power).ok_or_else(too_large)?,
        (true, None) => return Err(too_large()),
        (false, Some(power)) => mantissa / power + i128::from(mantissa % power != 0),
        // Less than a billionth, whatever the digits are.
        (false, None) => 1,
    };
    if nanos > AMOUNT_MAX { Err(too_large()) } else { Ok(nanos) }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quantity({})", self.text)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn refusal(text: &str) -> String {
        text.parse::<Quantity>().expect_err(text).to_string()
    }

    #[test]
    fn every_suffix_means_what_it_means_to_kubernetes() {
        for (text, bytes) in [
            ("1k", 1000),
            ("1M", 1_000_000),
            ("2G", 2_000_000_000),
            ("1T", 1_000_000_000_000),
            ("1P", 10_u64.pow(15)),
            ("1E", 10_u64.pow(18)),
            ("1Ki", 1 << 10),
            ("1Mi", 1 << 20),
            ("1.5Gi", 3 << 29),
            ("1Ti", 1 << 40),
            ("1Pi", 1 << 50),
            ("7Ei", 7 << 60),
            ("2e9", 2_000_000_000),
            ("2E9", 2_000_000_000),
            ("2000e-3", 2),
            ("+5", 5),
            ("5.", 5),
            (".5k", 500),
            ("9223372036854775807", i64::MAX as u64),
            ("0", 0),
            ("-0", 0),
        ] {
            assert_eq!(quantity(text).as_bytes(), bytes, "{text}");
        }
        for (text, millis) in [("500m", 500), ("2", 2000), ("1.5", 1500), ("0.1", 100), ("1u", 1), ("1n", 1)] {
            assert_eq!(quantity(text).as_millis(), millis, "{text}");
        }
    }

    #[test]
    fn amounts_are_compared_and_not_texts() {
        assert_eq!(quantity("10Gi"), quantity("10240Mi"));
        assert_eq!(quantity("1000m"), quantity("1"));
        assert!(quantity("1Gi") > quantity("1G"));
        assert!(quantity("900m") < quantity("1"));
    }

    #[test]
    fn what_the_user_wrote_is_what_is_printed() {
        assert_eq!(quantity("10240Mi").to_string(), "10240Mi");
        assert_eq!(serde_json::to_string(&quantity("1.50")).expect("a string"), "\"1.50\"");
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_the_reason() {
        assert!(refusal("").contains("is empty"));
        assert!(refusal("abc").contains("no quantity"));
        assert!(refusal("1GB").contains("unknown suffix `GB`"));
        assert!(refusal("1gi").contains("unknown suffix"));
        assert!(refusal("1 Gi").contains("unknown suffix"));
        assert!(refusal("1e").contains("unknown suffix"));
        assert!(refusal("1e1.5").contains("unknown suffix"));
        assert!(refusal("1.2.3").contains("no quantity"));
        assert!(refusal(".").contains("no quantity"));
        assert!(refusal("-1").contains("negative"));
        assert!(refusal("--1").contains("no quantity"));
        assert!(refusal("١Gi").contains("no quantity"));
    }

    #[test]
    fn an_overflow_is_refused_and_never_wraps() {
        for text in
            ["9223372036854775807Gi", "9223372036854775808", "8Ei", "1e19", "1e999999999999", "99999999999999999999E"]
        {
            assert!(refusal(text).contains("too large"), "{text}: {}", refusal(text));
        }
        assert!(refusal(&"9".repeat(60)).contains("too many digits"));
        assert!(refusal(&"9".repeat(65)).contains("too many digits"));
    }

    #[test]
    fn what_is_finer_than_a_billionth_is_rounded_up() {
        assert_eq!(quantity("1e-30"), quantity("1n"));
        assert_eq!(quantity("0.5n"), quantity("1n"));
        assert_eq!(quantity("0e-999"), quantity("0"));
        assert!(!quantity("1.5").is_whole());
        assert!(!quantity("1u").is_whole_millis());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,70}") {
            let _ = text.parse::<Quantity>();
        }

        #[test]
        fn any_likely_text_is_read_or_refused_without_a_panic(text in "[+-]?[0-9]{0,40}[.]?[0-9]{0,20}[numkKMGTPEie+-]{0,3}[0-9]{0,6}") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                prop_assert!(quantity.nanos >= 0 && quantity.nanos <= AMOUNT_MAX);
                prop_assert_eq!(quantity.to_string(), text);
            }
        }

        #[test]
        fn thousandths_times_a_suffix_are_exact(millis in 0_u64..4_000_000_000, suffix in 0_usize..6) {
            let (name, unit) = [("", 1_i128), ("k", 1000), ("M", 1_000_000), ("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30)][suffix];
            let text = format!("{}.{:03}{name}", millis / 1000, millis % 1000);
            prop_assert_eq!(quantity(&text).nanos, i128::from(millis) * unit * 1_000_000);
            prop_assert_eq!(quantity(&text), quantity(&format!("{}e-3", i128::from(millis) * unit)));
        }
    }
}
