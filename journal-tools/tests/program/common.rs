//! Runs the program.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

/// One run of the program, with an environment of its own.
pub(crate) struct Run {
    command: Command,
    stdin: Option<Vec<u8>>,
    closed_stdout: bool,
}

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cairn-journal"));
        command.args(arguments).env_remove("CAIRN_DATA");
        Self { command, stdin: None, closed_stdout: false }
    }

    pub(crate) fn stdin(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = Some(bytes);
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    pub(crate) fn environment(mut self, variable: &str, value: &Path) -> Self {
        self.command.env(variable, value);
        self
    }

    /// Nobody reads what it prints, from the beginning.
    pub(crate) fn closed_stdout(mut self) -> Self {
        self.closed_stdout = true;
        self
    }

    pub(crate) fn finish(mut self) -> Ended {
        let stdin = if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
        let stdout = if self.closed_stdout {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            drop(reader);
            Stdio::from(writer)
        } else {
            Stdio::piped()
        };
        let mut child =
            self.command.stdin(stdin).stdout(stdout).stderr(Stdio::piped()).spawn().expect("the program starts");
        if let (Some(bytes), Some(mut stdin)) = (self.stdin, child.stdin.take()) {
            // A program that refuses the rest shows that in its exit code.
            let _ = stdin.write_all(&bytes);
        }
        let output = child.wait_with_output().expect("the program ends");
        Ended {
            code: output.status.code().expect("it is not killed"),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

/// Runs the program with these arguments.
pub(crate) fn cairn_journal(arguments: &[&str]) -> Ended {
    Run::new(arguments).finish()
}
