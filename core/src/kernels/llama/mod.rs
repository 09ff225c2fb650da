//! llama.cpp's own model and context, as safe values.
//!
//! `llama-cpp-2` hides the context's pointer, without which there is no own thread pool and no abort callback, so these wrap
//! `llama-cpp-sys-2`. Everything that llama.cpp answers with `abort()` is checked here first.

mod batch;
mod context;
mod model;

pub(crate) use batch::Batch;
pub(crate) use context::{ContextOptions, LlamaContext};
pub(crate) use model::{LlamaModel, LoadOptions};
