//! What several test binaries share. Each uses a part of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, missing_docs)]

pub mod gguf_writer;
