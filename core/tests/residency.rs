//! A model under a memory budget: the same text as without one, whatever is pinned, whatever streams, and wherever it streams from.
#![cfg(feature = "ggml")]
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use fulcrum::model::{ExecutorChoice, ModelFile};
use fulcrum::session::{GenerationOptions, SessionOptions};
use fulcrum::{Drafting, ErrorKind, MemoryBudget, Model, ModelOptions, Response, Token};

/// A folder of its own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fulcrum-residency-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn prepared(&self, model: &Path) -> PathBuf {
        let mut name = model.file_name().unwrap().to_owned();
        name.push(".packed");
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options(folder: &Path, memory_budget: MemoryBudget) -> ModelOptions {
    ModelOptions {
        executor: ExecutorChoice::Staged,
        memory_budget,
        cache_dir: Some(folder.to_owned()),
        context_length: Some(256),
        threads: Some(1),
        ..ModelOptions::default()
    }
}

fn load(path: &Path, folder: &Folder, memory_budget: MemoryBudget) -> fulcrum::Result<Model> {
    Model::load(path, options(&folder.0, memory_budget))
}

fn answer(model: &Model, drafting: Drafting) -> Response {
    let options = GenerationOptions { max_tokens: Some(48), drafting, ..GenerationOptions::default() };
    let session = model.session(SessionOptions::default()).unwrap();
    session.complete("Once upon a time there was a little", &options).unwrap().finish().unwrap()
}

fn tokens(model: &Model, drafting: Drafting) -> Vec<Token> {
    answer(model, drafting).tokens
}

/// Bytes of the smallest plan, as the refusal says them.
fn smallest(path: &Path, folder: &Folder) -> u64 {
    match load(path, folder, MemoryBudget::Bytes(1)).map_err(fulcrum::Error::into_kind) {
        Err(ErrorKind::OutOfMemory { needed, available: Some(1), .. }) => needed,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a model in one byte"),
    }
}

#[test]
fn the_text_is_the_same_from_the_smallest_budget_to_the_largest() {
    let Some(path) = common::model("the_text_is_the_same_from_the_smallest_budget_to_the_largest") else { return };
    let folder = Folder::new("same");
    let resident = load(&path, &folder, MemoryBudget::Unlimited).unwrap();
    let expected = [Drafting::Off, Drafting::Auto].map(|drafting| tokens(&resident, drafting));
    drop(resident);
    let mut read_before = u64::MAX;
    for more in [1 << 20, 4 << 20, 6 << 20, 1 << 30] {
        let model = load(&path, &folder, MemoryBudget::Bytes(smallest(&path, &folder) + more)).unwrap();
        for (drafting, expected) in [Drafting::Off, Drafting::Auto].into_iter().zip(&expected) {
            assert_eq!(tokens(&model, drafting), *expected, "{more} bytes more than the smallest plan, {drafting:?}");
        }
        let metrics = answer(&model, Drafting::Off).metrics;
        assert_eq!(metrics.decode_flash.packed_bytes, 0, "it streams from the prepared file");
        let per_pass = metrics.decode_flash.bytes / metrics.target_passes;
        assert!(per_pass <= read_before, "{per_pass} bytes per pass, {read_before} with less memory");
        read_before = per_pass;
    }
    assert_eq!(read_before, 0, "with memory enough nothing is read");
}

#[test]
fn a_prepared_file_that_is_damaged_stale_or_cut_changes_no_text() {
    let Some(path) = common::model("a_prepared_file_that_is_damaged_stale_or_cut_changes_no_text") else { return };
    let folder = Folder::new("damage");
    let budget = MemoryBudget::Bytes(smallest(&path, &folder) + (1 << 20));
    let prepared = folder.prepared(&path);
    let model = load(&path, &folder, budget).unwrap();
    assert_eq!(model.info().residency.as_ref().unwrap().prepared.as_ref(), Some(&prepared));
    let expected = tokens(&model, Drafting::Off);

    // Cut under a running session: the model's own file takes over.
    let whole = std::fs::read(&prepared).unwrap();
    std::fs::OpenOptions::new().write(true).open(&prepared).unwrap().set_len(whole.len() as u64 / 2).unwrap();
    let after = answer(&model, Drafting::Off);
    assert_eq!(after.tokens, expected);
    assert!(after.metrics.decode_flash.packed_bytes > 0, "read from the model's own file");
    drop(model);

    // Whatever is not what it should be is made again.
    let mut torn = whole.clone();
    torn[12] ^= 1;
    for wrong in [&whole[..whole.len() / 2], &[0; 4096], b"", &torn] {
        std::fs::write(&prepared, wrong).unwrap();
        assert_eq!(tokens(&load(&path, &folder, budget).unwrap(), Drafting::Off), expected);
        assert!(std::fs::read(&prepared).unwrap() == whole, "made again");
    }
}

#[test]
fn what_was_left_unfinished_is_finished_and_never_taken_for_whole() {
    let Some(path) = common::model("what_was_left_unfinished_is_finished_and_never_taken_for_whole") else { return };
    let folder = Folder::new("unfinished");
    let budget = MemoryBudget::Bytes(smallest(&path, &folder) + (1 << 20));
    let cancelled = options(&folder.0, budget);
    cancelled.cancel.cancel();
    assert!(Model::load(&path, cancelled).is_err_and(|error| error.is_cancelled()));
    assert!(!folder.prepared(&path).exists());

    // Stopped in the middle: what is there has another name.
    let mut stopped = options(&folder.0, budget);
    let cancel = stopped.cancel.clone();
    stopped.progress = Some(std::sync::Arc::new(move |share| {
        if share > 0.3 {
            cancel.cancel()
        }
    }));
    assert!(Model::load(&path, stopped).is_err_and(|error| error.is_cancelled()));
    assert!(!folder.prepared(&path).exists());
    let parts = std::fs::read_dir(&folder.0).unwrap().count();
    assert_eq!(parts, 1, "the unfinished file");

    let model = load(&path, &folder, budget).unwrap();
    assert!(folder.prepared(&path).exists());
    let fresh = Folder::new("fresh");
    drop(load(&path, &fresh, budget).unwrap());
    assert!(std::fs::read(folder.prepared(&path)).unwrap() == std::fs::read(fresh.prepared(&path)).unwrap());
    drop(model);
}

#[test]
fn sessions_beyond_the_budget_are_refused() {
    let Some(path) = common::model("sessions_beyond_the_budget_are_refused") else { return };
    let folder = Folder::new("sessions");
    let model = load(&path, &folder, MemoryBudget::Bytes(smallest(&path, &folder))).unwrap();
    let first = model.session(SessionOptions::default()).unwrap();
    let second = model.session(SessionOptions::default()).map(drop).map_err(fulcrum::Error::into_kind);
    assert!(matches!(second, Err(ErrorKind::OutOfMemory { available: Some(_), .. })), "{second:?}");
    drop(first);
    assert!(model.session(SessionOptions::default()).is_ok());
}

#[test]
fn a_forecast_is_what_loading_comes_to() {
    let Some(path) = common::model("a_forecast_is_what_loading_comes_to") else { return };
    let folder = Folder::new("forecast");
    let budget = MemoryBudget::Bytes(smallest(&path, &folder) + (3 << 20));
    let file = ModelFile::open(&path).unwrap();
    let before = file.forecast(&options(&folder.0, budget)).unwrap();
    assert!(!before.prepared_ready && before.tokens_per_s > 0.0, "{before:?}");
    let loaded = load(&path, &folder, budget).unwrap().info().residency.clone().unwrap();
    assert_eq!(loaded.streamed_bytes, before.info.streamed_bytes);
    let length = std::fs::metadata(loaded.prepared.unwrap()).unwrap().len();
    assert_eq!(length, before.prepared_bytes);
    assert!(file.forecast(&options(&folder.0, budget)).unwrap().prepared_ready);
    assert!(file.forecast(&options(&folder.0, MemoryBudget::Unlimited)).is_err());
}

#[test]
fn a_draft_model_takes_no_more_memory_in_a_longer_context() {
    let test = "a_draft_model_takes_no_more_memory_in_a_longer_context";
    let (Some(path), Some(draft)) = (common::model(test), common::draft_model(test)) else { return };
    let folder = Folder::new("draft-context");
    let file = ModelFile::open(&path).unwrap();
    let memory = |context_length, draft_model| {
        let options = options(&folder.0, MemoryBudget::Bytes(1 << 30));
        let options = ModelOptions { context_length: Some(context_length), draft_model, ..options };
        file.forecast(&options).unwrap().info.memory
    };
    let taken = |context_length| memory(context_length, Some(draft.clone())) - memory(context_length, None);
    assert!(taken(512) < taken(2048), "what fits is kept as a whole");
    assert_eq!(taken(2048), taken(16_384));
    assert!(memory(2048, None) < memory(16_384, None));
}
