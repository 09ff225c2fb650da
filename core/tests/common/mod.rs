//! What several test binaries share: a writer of small models, and where the bundled one is. Each uses a part of it.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::print_stderr, clippy::print_stdout)]

pub mod gguf_writer;
pub mod isolated;
pub mod quantize;
pub mod random_model;
pub mod small_vocabulary;

use std::path::{Path, PathBuf};

/// A small model that generates sensible text: `FULCRUM_TEST_MODEL`, else the bundled one. Without either it says which test
/// is skipped and returns `None`.
pub fn model(test: &str) -> Option<PathBuf> {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/pocket.gguf");
    let path =
        std::env::var_os("FULCRUM_TEST_MODEL").map(PathBuf::from).or_else(|| bundled.is_file().then_some(bundled));
    if path.is_none() {
        eprintln!("skipped {test}: there is no models/pocket.gguf and FULCRUM_TEST_MODEL is not set");
    }
    path
}

/// The draft of that model: `FULCRUM_TEST_DRAFT_MODEL`, else the bundled one, or `None` after saying which test is skipped.
pub fn draft_model(test: &str) -> Option<PathBuf> {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/pocket-draft.gguf");
    let path = std::env::var_os("FULCRUM_TEST_DRAFT_MODEL")
        .map(PathBuf::from)
        .or_else(|| bundled.is_file().then_some(bundled));
    if path.is_none() {
        eprintln!("skipped {test}: there is no models/pocket-draft.gguf and FULCRUM_TEST_DRAFT_MODEL is not set");
    }
    path
}

/// A recurrent model (Mamba or the like): `FULCRUM_TEST_RECURRENT_MODEL`, or `None` after saying which test is skipped.
pub fn recurrent_model(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("FULCRUM_TEST_RECURRENT_MODEL").map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped {test}: FULCRUM_TEST_RECURRENT_MODEL is not set");
    }
    path
}
