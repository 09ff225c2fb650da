//! Whatever is given to the public API, the process survives: a typed error of one line, or an answer.
//!
//! Cases run in child processes (see `common::isolated`), with both executors. The reader's own rules are in `gguf_*.rs`; here
//! the whole way is walked, from `Model::load` to the last token.
#![cfg(feature = "ggml")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod architectures;
mod calls;
#[path = "../common/mod.rs"]
mod common;
mod files;
mod memory;
mod options;
mod prompts;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::gguf_writer::GgufWriter;
use common::quantize::WeightType;
use common::random_model::{Family, ModelOptions as Sizes, random_model};
use fulcrum::model::ExecutorChoice;
use fulcrum::session::{GenerationOptions, Response, SessionOptions};
use fulcrum::{Error, ErrorKind, Model, ModelOptions, Result};

const EXECUTORS: [ExecutorChoice; 2] = [ExecutorChoice::Staged, ExecutorChoice::LlamaCpp];

/// Sizes of a model of some 100 KB.
fn sizes(family: Family) -> Sizes {
    Sizes { n_layers: 2, n_embd: 64, n_head: 4, n_head_kv: 2, head_dim: 32, n_ff: 128, ..Sizes::new(family) }
}

/// A small sound model.
fn small() -> GgufWriter {
    random_model(Family::Llama, &sizes(Family::Llama).weights(WeightType::Q8_0))
}

/// A file that is removed with its handle.
struct File(PathBuf);

impl File {
    fn new(bytes: &[u8]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("fulcrum-bad-{}-{}.gguf", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Options that are gentle to a busy machine.
fn gentle(executor: ExecutorChoice) -> ModelOptions {
    ModelOptions { executor, threads: Some(1), context_length: Some(256), ..ModelOptions::default() }
}

/// Loads and answers, a few tokens.
fn answer(path: &Path, options: ModelOptions) -> Result<Response> {
    let session = Model::load(path, options)?.session(SessionOptions::default())?;
    session.respond_with("hello", &GenerationOptions { max_tokens: Some(4), ..GenerationOptions::default() })
}

/// The error's kind, after a look at its message: one line that says something.
fn checked(error: Error) -> ErrorKind {
    let message = error.to_string();
    assert!(!message.contains('\n') && message.len() > 8, "the message is no line: {message:?}");
    assert!(message.len() < 1000, "the message is too long to read: {message:?}");
    error.into_kind()
}

/// The option that an `InvalidOption` complains of.
fn refused<T>(result: Result<T>) -> &'static str {
    match result.map_err(checked) {
        Err(ErrorKind::InvalidOption { option, .. }) => option,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was accepted"),
    }
}
