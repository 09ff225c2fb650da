//! On-device LLM inference: a GGUF file in, exact text out.
//!
//! The modules stand in the order of a token's journey; `ARCHITECTURE.md` tells the journey in words.
//! Modules import from lower floors only, which `tests/floors.rs` checks.
#![deny(unsafe_code)]

pub mod accept;
pub mod cancel;
pub mod cost;
pub mod draft;
pub mod error;
pub mod executor;
pub mod governor;
pub mod growth;
pub mod row;
pub mod speculation;
pub mod token;
pub mod tokenizer;
pub mod tree;

pub use cancel::Cancel;
pub use error::{Error, ErrorKind, Result};
pub use token::Token;
