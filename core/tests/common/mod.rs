//! What several test binaries share. Each uses a part of it.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

pub mod gguf_writer;
pub mod quantize;
pub mod random_model;
pub mod small_vocabulary;
