//! Lines for people, on standard output.

/// A line. Whoever has stopped reading misses something, and that is all.
macro_rules! out {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

pub(crate) use out;
