//! Quantities as the API server reads and writes them: thousandths in 128 bits, and the canonical text.
//!
//! Written apart from the steps' own parser on purpose: a stand-in that shared the parser of what it stands
//! against would share its mistakes.

use serde_json::Value;

/// A quantity in thousandths, and how it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quantity {
    pub(super) milli: i128,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Binary,
    Decimal,
    Exponent,
}

const BINARY: [(&str, i128); 6] =
    [("Ei", 1 << 60), ("Pi", 1 << 50), ("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
const DECIMAL: [(&str, u32); 7] = [("E", 18), ("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3), ("", 0)];

/// Whether every amount of this object can be parsed: what containers and claims ask for, what quotas allow, what volumes have.
pub(super) fn are_readable(object: &Value) -> bool {
    match object {
        Value::Object(fields) => fields.iter().all(|(name, value)| match (name.as_str(), value) {
            ("requests" | "limits" | "hard" | "capacity", Value::Object(amounts)) => {
                amounts.values().all(|amount| amount.as_str().and_then(Quantity::parse).is_some())
            }
            _ => are_readable(value),
        }),
        Value::Array(items) => items.iter().all(are_readable),
        _ => true,
    }
}

impl Quantity {
    /// Parses as the API server does; nothing for what it refuses.
    pub(super) fn parse(text: &str) -> Option<Quantity> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (digits, suffix) = unsigned.split_at(end);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let (form, factor, exponent) = parse_suffix(suffix)?;
        let mantissa: i128 = format!("0{whole}{fraction}").parse().ok()?;
        // mantissa × factor × 10^(exponent − digits after the point), in thousandths, rounded up.
        let power = exponent - i32::try_from(fraction.len()).ok()? + 3;
        let scaled = mantissa.checked_mul(factor)?;
        let milli = if power >= 0 {
            scaled.checked_mul(10_i128.checked_pow(power.unsigned_abs())?)?
        } else {
            let divisor = 10_i128.checked_pow(power.unsigned_abs()).unwrap_or(i128::MAX);
            scaled / divisor + i128::from(scaled % divisor != 0)
        };
        // The API server caps at 2^63 − 1 instead of refusing.
        let milli = milli.min(i128::from(i64::MAX) * 1000);
        Some(Quantity { milli: if negative { -milli } else { milli }, form })
    }

    pub(super) fn of_milli(milli: i128, like: Option<Quantity>) -> Quantity {
        Quantity { milli, form: like.map_or(Form::Decimal, |like| like.form) }
    }

    pub(super) fn is_whole(self) -> bool {
        self.milli % 1000 == 0
    }

    /// The canonical text: the largest suffix without a fraction.
    pub(super) fn canonical(self) -> String {
        let sign = if self.milli < 0 { "-" } else { "" };
        let milli = self.milli.abs();
        if milli == 0 {
            return "0".to_owned();
        }
        let units = milli / 1000;
        if milli % 1000 != 0 {
            return format!("{sign}{milli}m");
        }
        match self.form {
            Form::Binary => {
                let unit = BINARY.iter().find(|(_, factor)| units % factor == 0);
                match unit {
                    // Below a Ki there is no binary suffix; the number stands alone.
                    Some((suffix, factor)) if units >= 1024 => format!("{sign}{}{suffix}", units / factor),
                    _ => format!("{sign}{units}"),
                }
            }
            Form::Decimal | Form::Exponent => {
                let (suffix, power) =
                    DECIMAL.into_iter().find(|(_, power)| units % 10_i128.pow(*power) == 0).unwrap_or(("", 0));
                let digits = units / 10_i128.pow(power);
                match (self.form, power) {
                    (Form::Exponent, 1..) => format!("{sign}{digits}e{power}"),
                    _ => format!("{sign}{digits}{suffix}"),
                }
            }
        }
    }
}

fn parse_suffix(suffix: &str) -> Option<(Form, i128, i32)> {
    if let Some((_, factor)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((Form::Binary, *factor, 0));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Form::Decimal, 1, i32::try_from(*power).ok()?));
    }
    match suffix {
        "m" => return Some((Form::Decimal, 1, -3)),
        "u" => return Some((Form::Decimal, 1, -6)),
        "n" => return Some((Form::Decimal, 1, -9)),
        _ => {}
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    Some((Form::Exponent, 1, exponent.parse().ok()?))
}

/// The thousandths in a JSON value that holds a quantity; 0 where it is none.
pub(super) fn milli(value: Option<&Value>) -> i128 {
    value.and_then(Value::as_str).and_then(Quantity::parse).map_or(0, |quantity| quantity.milli)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_and_write_as_the_api_server_has_them() {
        for (text, canonical) in [
            ("0.5", "500m"),
            ("500m", "500m"),
            ("2", "2"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("10240Mi", "10Gi"),
            ("1000m", "1"),
            ("2e9", "2e9"),
            ("1000", "1k"),
            ("0", "0"),
            (".5", "500m"),
            ("1.", "1"),
            ("0.1m", "1m"),
            ("-1", "-1"),
            ("9223372036854775807Gi", "9223372036854775807"),
        ] {
            assert_eq!(Quantity::parse(text).expect(text).canonical(), canonical, "{text}");
        }
        for text in ["", "abc", "1GB", "1 Gi", "1..2", "Gi", "--1", "1e", "١"] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
    }
}
