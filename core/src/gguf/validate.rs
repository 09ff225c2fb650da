//! What a file must keep to besides the format, so that nobody who loads it runs into an assertion.
//!
//! llama.cpp answers many contradictions in a file with an exception, which its C interface turns into an error, and some
//! with an assertion, a division by zero or a null pointer, which end the process. This module refuses the latter before
//! llama.cpp sees the file, and whatever would mislead our own executor. It was written from the sources of the vendored
//! version; each rule names what it guards against where that is not plain.
//!
//! For the families the staged executor runs, hyperparameters and every tensor's shape and type are checked. For others,
//! what all loaders share: their own assertions (a few architectures have some) are not all known here, so [`knows`] says no, and a
//! model of theirs is loaded only on the word of the caller.
//!
//! Deliberately not known here: whether the weights make sense (a NaN among them gives NaN logits, not a crash), and how a
//! family computes.

mod hyperparameters;
mod tensors;
mod vocabulary;

use std::path::Path;

use super::{Gguf, KeyError};
use crate::error::{Error, ErrorKind};

/// Why a sound GGUF file cannot be used as a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// The file contradicts itself, or says something absurd.
    #[error("{reason}")]
    Invalid {
        /// What is wrong, with the key, token or tensor.
        reason: String,
    },
    /// The file is sound, but is not a language model that generates text.
    #[error("{reason}")]
    Unsupported {
        /// What it is instead.
        reason: String,
    },
}

impl Unusable {
    fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid { reason: reason.into() }
    }

    fn unsupported(reason: impl Into<String>) -> Self {
        Self::Unsupported { reason: reason.into() }
    }

    /// The crate's error, naming the file.
    pub fn in_file(self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Self::Invalid { reason } => ErrorKind::InvalidModel { path, reason }.into(),
            Self::Unsupported { reason } => ErrorKind::UnsupportedModel { path, reason }.into(),
        }
    }
}

impl From<KeyError> for Unusable {
    fn from(error: KeyError) -> Self {
        Self::invalid(error.to_string())
    }
}

/// The longest name of an architecture; the longest known has 16 bytes.
const MAX_NAME_BYTES: usize = 64;

type Checked = Result<(), Unusable>;

/// Refuses a file that would end the process when llama.cpp loads it, makes a context of it, or reads text with it.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn validate(gguf: &Gguf<'_>) -> Result<(), Unusable> {
    let architecture: &str = gguf.require("general.architecture")?;
    // It goes into keys, and into lines that are shown to people.
    if !(1..=MAX_NAME_BYTES).contains(&architecture.len()) || !architecture.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(Unusable::invalid("general.architecture is no name"));
    }
    let n_vocab = vocabulary::check(gguf)?;
    let hyperparameters = hyperparameters::check(gguf, architecture)?;
    tensors::check_all(gguf)?;
    if let Some(family) = tensors::Family::of(architecture) {
        let shape = hyperparameters::family_shape(gguf, &hyperparameters, family)?;
        tensors::check_family(gguf, family, &shape, n_vocab)?;
    }
    Ok(())
}

/// Whether [`validate`] has all the rules for files of `architecture`, or only those that every architecture shares.
pub fn knows(architecture: &str) -> bool {
    tensors::Family::of(architecture).is_some()
}

/// Refuses a file whose vocabulary alone would end the process when llama.cpp loads it with `vocab_only`.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn validate_vocabulary(gguf: &Gguf<'_>) -> Result<(), Unusable> {
    vocabulary::check(gguf).map(drop)
}
