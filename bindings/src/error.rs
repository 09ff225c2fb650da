//! The core's errors as one enum with fields.

use fulcrum::ErrorKind;

/// The result of everything that can fail.
pub type Result<T> = std::result::Result<T, NativeError>;

/// What went wrong. `detail` is one line for a person: what happened, with which file or value, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
#[error("{}", self.detail())]
pub enum NativeError {
    /// A file could not be opened, read or written.
    File {
        /// One line for a person.
        detail: String,
        /// What was tried: `open`, `read`, `map`, `write`.
        action: String,
        /// The file.
        path: String,
    },
    /// The file is not a GGUF file, or is damaged.
    InvalidModel {
        /// One line for a person.
        detail: String,
        /// The file.
        path: String,
        /// What is wrong with it, and where in the file.
        reason: String,
    },
    /// The file is sound, but nothing here can run what it describes.
    UnsupportedModel {
        /// One line for a person.
        detail: String,
        /// The file.
        path: String,
        /// What is missing.
        reason: String,
    },
    /// A tokenizer file or the vocabulary in a model cannot be used.
    Tokenizer {
        /// One line for a person.
        detail: String,
        /// What is wrong, and with which file or token.
        reason: String,
    },
    /// The model's chat template cannot be rendered.
    Template {
        /// One line for a person.
        detail: String,
        /// The template engine's message, with the line.
        reason: String,
    },
    /// The conversation does not fit into the context.
    ContextFull {
        /// One line for a person.
        detail: String,
        /// Tokens that would have to be in the context.
        needed: i64,
        /// Tokens the context holds.
        capacity: i64,
    },
    /// An option has a value that cannot be used.
    InvalidOption {
        /// One line for a person.
        detail: String,
        /// The option's name, for example `top_p`.
        option: String,
        /// Why the value cannot be used, with the value.
        reason: String,
    },
    /// There is not enough memory.
    OutOfMemory {
        /// One line for a person.
        detail: String,
        /// What was to be allocated.
        what: String,
        /// Bytes asked for.
        needed: i64,
        /// Bytes known to be available, where the system says so.
        available: Option<i64>,
    },
    /// The turn, or loading, was cancelled; a session is as it was before the turn.
    Cancelled {
        /// One line for a person.
        detail: String,
    },
    /// A session answers one prompt at a time, and is answering one.
    Busy {
        /// One line for a person.
        detail: String,
    },
    /// The session has ended.
    Closed {
        /// One line for a person.
        detail: String,
    },
    /// ggml or llama.cpp reported a failure.
    Backend {
        /// One line for a person.
        detail: String,
        /// What was being done.
        operation: String,
        /// The backend's status or last log line.
        reason: String,
    },
    /// A documented rule of the API was broken.
    Misuse {
        /// One line for a person.
        detail: String,
        /// The call.
        operation: String,
        /// The rule.
        reason: String,
    },
}

impl NativeError {
    /// One line for a person.
    pub fn detail(&self) -> &str {
        match self {
            Self::File { detail, .. }
            | Self::InvalidModel { detail, .. }
            | Self::UnsupportedModel { detail, .. }
            | Self::Tokenizer { detail, .. }
            | Self::Template { detail, .. }
            | Self::ContextFull { detail, .. }
            | Self::InvalidOption { detail, .. }
            | Self::OutOfMemory { detail, .. }
            | Self::Cancelled { detail }
            | Self::Busy { detail }
            | Self::Closed { detail }
            | Self::Backend { detail, .. }
            | Self::Misuse { detail, .. } => detail,
        }
    }
}

impl From<fulcrum::Error> for NativeError {
    fn from(error: fulcrum::Error) -> Self {
        use crate::number::figure;
        let detail = error.to_string();
        match error.into_kind() {
            ErrorKind::File { action, path, .. } => {
                Self::File { detail, action: action.into(), path: path.display().to_string() }
            }
            ErrorKind::InvalidModel { path, reason } => {
                Self::InvalidModel { detail, path: path.display().to_string(), reason }
            }
            ErrorKind::UnsupportedModel { path, reason } => {
                Self::UnsupportedModel { detail, path: path.display().to_string(), reason }
            }
            ErrorKind::Tokenizer { reason } => Self::Tokenizer { detail, reason },
            ErrorKind::Template { reason } => Self::Template { detail, reason },
            ErrorKind::ContextFull { needed, capacity } => {
                Self::ContextFull { detail, needed: figure(needed), capacity: figure(capacity) }
            }
            ErrorKind::InvalidOption { option, reason } => {
                Self::InvalidOption { detail, option: option.into(), reason }
            }
            ErrorKind::OutOfMemory { what, needed, available } => Self::OutOfMemory {
                detail,
                what: what.into(),
                needed: figure(needed),
                available: available.map(figure),
            },
            ErrorKind::Cancelled => Self::Cancelled { detail },
            ErrorKind::Busy => Self::Busy { detail },
            ErrorKind::Closed => Self::Closed { detail },
            ErrorKind::Backend { operation, reason } => Self::Backend { detail, operation: operation.into(), reason },
            ErrorKind::Misuse { operation, reason } => Self::Misuse { detail, operation: operation.into(), reason },
            // The core may add kinds; here one is added with it, and until then nothing is lost but the name.
            other => Self::Backend { detail, operation: "the core".into(), reason: other.to_string() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One error of every kind.
    fn kinds() -> Vec<ErrorKind> {
        let (path, reason) = (std::path::PathBuf::from("m.gguf"), "why".to_owned());
        vec![
            ErrorKind::File { action: "open", path: path.clone(), source: std::io::ErrorKind::NotFound.into() },
            ErrorKind::InvalidModel { path: path.clone(), reason: reason.clone() },
            ErrorKind::UnsupportedModel { path, reason: reason.clone() },
            ErrorKind::Tokenizer { reason: reason.clone() },
            ErrorKind::Template { reason: reason.clone() },
            ErrorKind::ContextFull { needed: 7, capacity: 3 },
            ErrorKind::InvalidOption { option: "top_p", reason: reason.clone() },
            ErrorKind::OutOfMemory { what: "the cache", needed: 7, available: Some(3) },
            ErrorKind::Cancelled,
            ErrorKind::Busy,
            ErrorKind::Closed,
            ErrorKind::Backend { operation: "decoding", reason: reason.clone() },
            ErrorKind::Misuse { operation: "finish", reason },
        ]
    }

    #[test]
    fn every_kind_keeps_its_name_and_its_message() {
        for kind in kinds() {
            let name = |debug: String| debug.split([' ', '{', '(']).next().unwrap_or_default().to_owned();
            let (core, message) = (name(format!("{kind:?}")), kind.to_string());
            let crossed = NativeError::from(fulcrum::Error::from(kind));
            assert_eq!(name(format!("{crossed:?}")), core);
            assert_eq!(crossed.to_string(), message);
        }
    }

    #[test]
    fn fields_arrive() {
        let error = fulcrum::Error::from(ErrorKind::OutOfMemory { what: "the cache", needed: 7, available: Some(3) });
        let detail = error.to_string();
        let there = NativeError::OutOfMemory { detail, what: "the cache".into(), needed: 7, available: Some(3) };
        assert_eq!(NativeError::from(error), there);
    }
}
