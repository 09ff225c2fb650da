//! How a command fails: one line on standard error, and the exit code.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// The result of a command and its parts.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine's error, which says what to do.
    Engine(fulcrum::Error),
    /// The command was called in a way it does not understand, beyond what the option parser sees.
    Usage(String),
    /// A file or standard input could not be read as text.
    Input { from: PathBuf, source: io::Error },
    /// Standard output could not be written.
    Output(io::Error),
    /// The terminal could not be read from.
    Terminal(String),
}

impl Failure {
    /// Says what went wrong and gives the exit code: 1 at run time, 2 for wrong usage. A reader that went away (`| head`)
    /// has what it wanted: no message, no failure.
    pub(crate) fn report(self) -> ExitCode {
        let (message, code) = match self {
            Self::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Self::Engine(error) => (error.to_string(), 1),
            Self::Usage(reason) => (reason, 2),
            Self::Input { from, source } => (format!("cannot read {}: {source}", from.display()), 1),
            Self::Output(source) => (format!("cannot write to standard output: {source}"), 1),
            Self::Terminal(reason) => (format!("cannot read from the terminal: {reason}"), 1),
        };
        // A message of several lines would break scripts that read one. Nobody is left to tell if this fails.
        let _ = writeln!(io::stderr(), "error: {}", one_line(&message));
        ExitCode::from(code)
    }
}

impl From<fulcrum::Error> for Failure {
    fn from(error: fulcrum::Error) -> Self {
        Self::Engine(error)
    }
}

/// The message with line breaks and runs of white space made single spaces.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line() {
        assert_eq!(one_line("chat template: line 3\n    {% if %}\n"), "chat template: line 3 {% if %}");
    }
}
