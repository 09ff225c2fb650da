//! On-device LLM inference: a GGUF file in, exact text out.
//!
//! The modules stand in the order of a token's journey; `ARCHITECTURE.md` tells the journey in words.
//! Modules import from lower floors only, which `tests/floors` checks.
#![deny(unsafe_code)]

pub mod cancel;
pub mod error;
pub mod metrics;
pub mod row;
pub mod token;

pub mod gguf;

pub mod architecture;

pub mod tokenizer;

pub mod chat;

pub mod sampling;

pub mod stop;

pub mod draft;

pub mod tree;

pub mod growth;

pub mod cost;

pub mod governor;

pub mod executor;

pub mod kv_cache;

pub mod residency;

pub mod accept;

#[cfg(feature = "ggml")]
mod kernels;

pub mod speculation;

mod small_file;

pub mod decode;

pub mod session;

pub mod model;

pub use cancel::Cancel;
pub use chat::{ChatTemplate, Event, Message, Role, Tool, ToolCall};
pub use decode::FinishReason;
pub use error::{Error, ErrorKind, Result};
pub use metrics::{GenerationMetrics, SessionMetrics, SourceTokens, StepMetrics};
#[cfg(feature = "ggml")]
pub use model::Machine;
pub use model::{ExecutorChoice, Kernels, KvType, Model, ModelInfo, ModelOptions, Progress, ThreadPriority};
pub use residency::{MemoryBudget, ResidencyInfo};
pub use sampling::{Candidate, Choice, Distribution, DrySettings, Sampler, SamplerSettings, TokenLogprob};
pub use session::{
    Canceller, ChatSession, ContextOverflow, GenerationOptions, ModelParts, Response, ResponseStream, SessionOptions,
};
pub use speculation::Drafting;
pub use stop::{StopOutput, StopStrings};
pub use token::Token;
pub use tokenizer::{DecodeStream, TokenizerJson};

/// The examples of the README.
#[cfg(all(doctest, feature = "ggml"))]
#[doc = include_str!("../../README.md")]
struct Readme;
