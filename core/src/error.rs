//! What can go wrong, as one enum an app can branch on.
//!
//! Every message is one line that says what happened, with which file or value, and what to do about it.
//! Nothing here is ever a bare string on its way up: a caller that knows more wraps the kind, not the text.

use std::fmt;
use std::path::PathBuf;

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// An error: a kind to branch on, boxed so that `Result` stays small.
pub struct Error(Box<ErrorKind>);

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file could not be opened, read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried: `open`, `read`, `map`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not a GGUF file, or is damaged.
    #[error("{}: not a usable GGUF file: {reason}", path.display())]
    InvalidModel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where in the file.
        reason: String,
    },
    /// The file is sound, but nothing here can run what it describes.
    #[error("{}: this model is not supported: {reason}", path.display())]
    UnsupportedModel {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// A tokenizer file or the vocabulary in a model cannot be used.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// What is wrong, and with which file or token.
        reason: String,
    },
    /// The model's chat template cannot be rendered.
    #[error("chat template: {reason}; pass your own template, or prompt without one")]
    Template {
        /// The template engine's message, with the line.
        reason: String,
    },
    /// The conversation does not fit into the context.
    #[error(
        "the context is full: {needed} tokens are needed and there is room for {capacity}; shorten the prompt, raise the context length, or choose an overflow policy"
    )]
    ContextFull {
        /// Tokens that would have to be in the context.
        needed: usize,
        /// Tokens the context holds.
        capacity: usize,
    },
    /// An option has a value that cannot be used.
    #[error("{option}: {reason}")]
    InvalidOption {
        /// The option's name as the caller wrote it, for example `top_p`.
        option: &'static str,
        /// Why the value cannot be used, with the value.
        reason: String,
    },
    /// There is not enough memory.
    #[error("not enough memory for {what}: {} needed{}; give it more, or use a smaller model, context or cache type",
        mebibytes(*needed, u128::div_ceil),
        available.map_or_else(String::new, |a| format!(", {} available", mebibytes(a, |bytes, unit| bytes / unit))))]
    OutOfMemory {
        /// What was to be allocated.
        what: &'static str,
        /// Bytes asked for.
        needed: u64,
        /// Bytes known to be available, where the system says so.
        available: Option<u64>,
    },
    /// The turn was cancelled; the session is as it was before the turn.
    #[error("cancelled")]
    Cancelled,
    /// A session answers one prompt at a time, and is answering one.
    #[error("the session is busy with another response; wait for it to end, cancel it, or use a second session")]
    Busy,
    /// The session's worker has ended.
    #[error("the session is closed")]
    Closed,
    /// ggml or llama.cpp reported a failure.
    #[error("{operation} failed in the backend: {reason}")]
    Backend {
        /// What was being done.
        operation: &'static str,
        /// The backend's status or last log line.
        reason: String,
    },
    /// The caller broke a documented rule of the API, for example projected a row that asked for no logits.
    #[error("{operation}: {reason}")]
    Misuse {
        /// The call.
        operation: &'static str,
        /// The rule.
        reason: String,
    },
}

/// A size in the unit that budgets are given in. What is needed is rounded up, so that it is enough when it is typed.
fn mebibytes(bytes: u64, divide: fn(u128, u128) -> u128) -> String {
    let tenths = divide(u128::from(bytes) * 10, 1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

impl Error {
    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }

    /// Takes the error apart.
    pub fn into_kind(self) -> ErrorKind {
        *self.0
    }

    /// Whether this is [`ErrorKind::Cancelled`].
    pub fn is_cancelled(&self) -> bool {
        matches!(*self.0, ErrorKind::Cancelled)
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self(Box::new(kind))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_in_mebibytes_and_are_enough() {
        let message = |available| ErrorKind::OutOfMemory { what: "it", needed: (3 << 20) + 1, available }.to_string();
        let advice = "give it more, or use a smaller model, context or cache type";
        assert_eq!(message(None), format!("not enough memory for it: 3.1 MiB needed; {advice}"));
        let available = Some((2 << 20) - 1);
        assert_eq!(
            message(available),
            format!("not enough memory for it: 3.1 MiB needed, 1.9 MiB available; {advice}")
        );
    }
}
