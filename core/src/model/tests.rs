//! Faults below a whole model: what a conversation loses when the flash under it fails, which is nothing.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use super::{Model, ModelOptions};
use crate::error::{ErrorKind, Result};
use crate::kernels::direct::DirectFile;
use crate::residency::MemoryBudget;
use crate::residency::faulty::Faulty;
use crate::residency::source::ReadBlocks;
use crate::session::{ChatSession, GenerationOptions, Response, SessionOptions};

type File = Arc<Faulty<DirectFile>>;

fn pocket() -> Option<PathBuf> {
    Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/pocket.gguf")).filter(|path| path.is_file())
}

/// The bundled model under a budget that streams most of it, from its own file (there is no folder for a prepared one).
fn load(path: &Path) -> (Model, File) {
    let options = |budget| ModelOptions {
        memory_budget: MemoryBudget::Bytes(budget),
        cache_dir: Some("/nowhere".into()),
        context_length: Some(512),
        threads: Some(1),
        ..ModelOptions::default()
    };
    let smallest = match Model::load(path, options(1)).map(drop).map_err(crate::Error::into_kind) {
        Err(ErrorKind::OutOfMemory { needed, .. }) => needed,
        other => panic!("{other:?}"),
    };
    let opened: Mutex<Option<File>> = Mutex::new(None);
    let open = |file: &super::ModelFile| -> Result<Vec<Arc<dyn ReadBlocks>>> {
        let file = Arc::new(Faulty::new(DirectFile::open(file.path())?));
        *opened.lock() = Some(Arc::clone(&file));
        Ok(vec![file])
    };
    let model = Model::load_reading(path, &options(smallest + (2 << 20)), &open).unwrap();
    let residency = model.info().residency.clone().unwrap();
    assert!(residency.streamed_layers > 0 && residency.prepared.is_none(), "{residency:?}");
    let file = opened.lock().take().unwrap();
    (model, file)
}

fn ask(session: &ChatSession, message: &str) -> Result<Response> {
    let options = GenerationOptions { max_tokens: Some(12), ..GenerationOptions::default() };
    session.stream_response_with(message, &options)?.finish()
}

#[test]
fn whatever_read_fails_the_turn_is_undone_and_the_next_one_works() {
    let Some(path) = pocket() else { return };
    let (model, file) = load(&path);
    let session = || model.session(SessionOptions::default()).unwrap();
    let undisturbed = session();
    let expected = ["Hello!", "Tell me a story."].map(|message| ask(&undisturbed, message).unwrap().text);
    // The budget has room for one session at a time.
    drop(undisturbed);
    for every in [1, 2, 7, 30, 150] {
        let session = session();
        assert_eq!(ask(&session, "Hello!").unwrap().text, expected[0]);
        let history = session.history();
        file.fail_every.store(every, Relaxed);
        let failed = ask(&session, "Tell me a story.").map(|response| response.text);
        file.fail_every.store(0, Relaxed);
        match failed.map_err(crate::Error::into_kind) {
            Err(ErrorKind::File { action: "read", path, .. }) => assert!(path.ends_with("pocket.gguf")),
            other => panic!("every {every}: {other:?}"),
        }
        assert_eq!(session.history(), history, "every {every}");
        assert_eq!(ask(&session, "Tell me a story.").unwrap().text, expected[1], "every {every}");
    }
}

#[test]
fn a_file_that_is_cut_under_a_session_is_an_error_until_it_is_whole_again() {
    let Some(path) = pocket() else { return };
    let (model, file) = load(&path);
    let session = model.session(SessionOptions::default()).unwrap();
    let first = ask(&session, "Hello!").unwrap();
    assert!(first.metrics.decode_flash.bytes > 0 && first.metrics.decode_flash.packed_bytes > 0, "{:?}", first.metrics);
    file.end.store(1 << 20, Relaxed);
    for _ in 0..2 {
        let error = ask(&session, "And now?").map(drop).unwrap_err().to_string();
        assert!(error.contains("pocket.gguf") && error.contains("cut"), "{error}");
    }
    file.end.store(u64::MAX, Relaxed);
    file.stall_ms.store(1, Relaxed);
    ask(&session, "And now?").unwrap();
    assert_eq!(session.history().len(), 4);
}
