//! An export, read line by line: each line is one commit, exactly as cairn writes it.
//!
//! - A byte that was changed anywhere in a line is found: what is read is written again and compared.
//! - Both forms of an export are read: a commit a line, and one array with a commit a line.
//! - A line has a bound, so that no file makes the program take all memory.

use std::io::{BufRead, Read};

use cairn_engine::Commit;

use crate::{error::ToolError, source::Reader};

/// Longer than any commit: a segment of the log has less.
const LINE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Reads an export. Ends after the first error.
pub(crate) struct Lines<R> {
    reader: R,
    /// What the lines come from, for messages.
    name: String,
    line: u64,
    /// Whether the export is one array, once its first line is read; and whether that has been closed.
    array: Option<Array>,
    over: bool,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Array {
    None,
    Open { comma: bool },
    Closed,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R, name: impl Into<String>) -> Self {
        Self { reader, name: name.into(), line: 0, array: None, over: false, buffer: Vec::new() }
    }

    fn bad(&self, detail: impl Into<String>) -> ToolError {
        ToolError::Bad { place: self.here(), detail: detail.into() }
    }

    fn here(&self) -> String {
        format!("line {} of {}", self.line, self.name)
    }

    /// The next commit; `None` at the end.
    fn read(&mut self) -> Result<Option<Commit>, ToolError> {
        loop {
            self.buffer.clear();
            let read = (&mut self.reader)
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut self.buffer)
                .map_err(|error| ToolError::io("read", self.name.clone(), error))?;
            self.line += 1;
            if read == 0 {
                return match self.array {
                    Some(Array::Open { .. }) => Err(self.bad("the export ends before its closing bracket")),
                    _ => Ok(None),
                };
            }
            let mut text = self.buffer.as_slice();
            text = text.strip_suffix(b"\n").unwrap_or(text);
            text = text.strip_suffix(b"\r").unwrap_or(text);
            let array = *self.array.get_or_insert(Array::None);
            match (self.line, text, array) {
                (1, b"[", _) => {
                    self.array = Some(Array::Open { comma: true });
                    continue;
                }
                (_, b"]", Array::Open { comma }) if !comma || self.line == 2 => {
                    self.array = Some(Array::Closed);
                    continue;
                }
                (_, _, Array::Closed) => return Err(self.bad("something follows the closing bracket")),
                (_, _, Array::Open { comma: false }) => return Err(self.bad("the line before has no comma")),
                (_, _, Array::Open { comma: true }) => {
                    let comma = text.ends_with(b",");
                    text = text.strip_suffix(b",").unwrap_or(text);
                    self.array = Some(Array::Open { comma });
                }
                (_, _, Array::None) => {}
            }
            return self.commit(text).map(Some);
        }
    }

    fn commit(&self, text: &[u8]) -> Result<Commit, ToolError> {
        if text.is_empty() {
            return Err(self.bad("the line is empty"));
        }
        let commit: Commit =
            serde_json::from_slice(text).map_err(|error| self.bad(format!("it is no commit: {error}")))?;
        let again = serde_json::to_vec(&commit).map_err(|error| self.bad(error.to_string()))?;
        if again != text {
            let at = again.iter().zip(text).take_while(|(one, other)| one == other).count();
            return Err(self.bad(format!(
                "commit {} is not written as cairn writes it, from byte {} on: this line was changed",
                commit.number,
                at + 1
            )));
        }
        Ok(commit)
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Commit, ToolError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.read().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

impl<R: BufRead> Reader for Lines<R> {
    fn place(&self) -> Option<String> {
        Some(self.here())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn read(text: &str) -> Result<Vec<Commit>, String> {
        Lines::new(text.as_bytes(), "x").collect::<Result<_, _>>().map_err(|error| error.to_string())
    }

    #[test]
    fn both_forms_of_an_export_are_read_back_as_they_were() {
        let commits = samples::journal();
        let lines = samples::export(&commits);
        assert_eq!(read(&(lines.join("\n") + "\n")), Ok(commits.clone()));
        assert_eq!(read(&lines.join("\r\n")), Ok(commits.clone()));
        assert_eq!(read(&format!("[\n{}\n]\n", lines.join(",\n"))), Ok(commits));
        assert_eq!(read("[\n]\n"), Ok(Vec::new()));
        assert_eq!(read(""), Ok(Vec::new()));
    }

    #[test]
    fn an_array_that_was_cut_is_found() {
        let lines = samples::export(&samples::journal());
        for text in [
            format!("[\n{}\n", lines.join(",\n")),
            format!("[\n{},\n", lines[0]),
            format!("[\n{}\n{}\n]\n", lines[0], lines[1]),
            format!("[\n{},\n]\n", lines[0]),
            format!("[\n{}\n]\n{}\n", lines[0], lines[1]),
        ] {
            assert!(read(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_export_is_refused_with_the_line() {
        let line = &samples::export(&samples::journal())[0];
        let error = read(&format!("{line}\n\n")).expect_err("an empty line");
        assert_eq!(error, "the journal is bad at line 2 of x: the line is empty");
        assert!(
            read("hello\n").expect_err("no JSON").starts_with("the journal is bad at line 1 of x: it is no commit")
        );
        let spaced = line.replacen("{\"number\":", "{\"number\": ", 1);
        assert!(read(&spaced).expect_err("not as cairn writes it").contains("from byte 11 on"), "{spaced}");
    }
}
