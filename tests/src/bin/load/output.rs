//! What is printed: rows of named figures, as text for people or as JSON lines for programs.

use std::time::Duration;

/// Prints rows of named figures.
pub(crate) struct Output {
    /// One JSON object a line instead of text.
    pub(crate) json: bool,
}

impl Output {
    pub(crate) fn title(&self, title: &str) {
        if !self.json {
            println!("\n{title}");
        }
    }

    /// One measurement of `measured`.
    pub(crate) fn row(&self, measured: &str, figures: &[(&str, f64)]) {
        if self.json {
            let mut object: serde_json::Map<_, _> =
                figures.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
            object.insert("measured".to_owned(), measured.into());
            println!("{}", serde_json::Value::Object(object));
        } else {
            let cells: Vec<_> = figures.iter().map(|(name, value)| format!("{name} {}", shown(*value))).collect();
            println!("  {}", cells.join("  "));
        }
    }
}

/// The percentile of times that are sorted, in milliseconds.
pub(crate) fn percentile_ms(times: &[Duration], percent: usize) -> f64 {
    times.get(times.len() * percent / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

fn shown(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}
