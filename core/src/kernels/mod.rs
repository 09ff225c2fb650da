//! The room with the sharp tools: the only place with `unsafe`, and the only one that names `llama_cpp_*` types.
//!
//! What leaves this room is safe: checked before C++ sees it, because what C++ finds wrong it answers with `abort()`.
//! Deliberately not known here: sessions, sampling, drafting, and why anybody asks.
#![allow(unsafe_code)]

pub(crate) mod llama;
pub(crate) mod native_log;
pub(crate) mod runtime;
pub(crate) mod threads;
mod vocabulary;

pub use vocabulary::LlamaVocabulary;
