//! On-device LLM inference: a GGUF file in, exact text out.
//!
//! The modules stand in the order of a token's journey; `ARCHITECTURE.md` tells the journey in words.
//! Modules import from lower floors only, which `tests/floors` checks.
#![deny(unsafe_code)]

pub mod cancel;
pub mod error;
pub mod token;

pub mod gguf;

pub mod architecture;

pub mod tokenizer;

pub mod chat;

pub mod sampling;

pub mod executor;

pub mod kv_cache;

#[cfg(feature = "ggml")]
mod kernels;

pub mod stop;

pub use cancel::Cancel;
pub use chat::{ChatTemplate, Message, Role, Tool, ToolCall};
pub use error::{Error, ErrorKind, Result};
pub use sampling::{Candidate, Choice, Distribution, DrySettings, Sampler, SamplerSettings, TokenLogprob};
pub use stop::{StopOutput, StopStrings};
pub use token::Token;
pub use tokenizer::{DecodeStream, TokenizerJson};
