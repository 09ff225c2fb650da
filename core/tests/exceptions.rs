//! C++ exceptions end as errors: in turns of a session, one allocation after the other that C++ makes fails once.
//!
//! This binary has its own `operator new`, which throws `std::bad_alloc` when it is told to. Cases run in child processes, because an
//! exception that nobody catches ends the process.
#![cfg(all(feature = "ggml", target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
#![allow(unsafe_code, clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::isolated;
use common::quantize::WeightType;
use common::random_model::{Family, ModelOptions as Sizes, random_model};
use fulcrum::model::ExecutorChoice;
use fulcrum::session::{GenerationOptions, SessionOptions};
use fulcrum::{ChatSession, ErrorKind, Model, ModelOptions, Result};

/// Never reached by counting down.
const DISARMED: usize = usize::MAX;

/// Allocations until one fails.
static LEFT: AtomicUsize = AtomicUsize::new(DISARMED);

unsafe extern "C" {
    fn malloc(size: usize) -> *mut c_void;
}

unsafe extern "C-unwind" {
    #[link_name = "_ZSt17__throw_bad_allocv"]
    fn throw_bad_alloc() -> !;
}

/// `operator new`.
#[unsafe(no_mangle)]
extern "C-unwind" fn _Znwm(size: usize) -> *mut c_void {
    // SAFETY: malloc takes any size, and what it returns may be freed by `operator delete`, which is free.
    let memory = unsafe { malloc(size.max(1)) };
    let left = LEFT.load(Ordering::Relaxed);
    let fails = left != DISARMED && LEFT.fetch_sub(1, Ordering::Relaxed) == 0;
    if fails {
        LEFT.store(DISARMED, Ordering::Relaxed);
    }
    if fails || memory.is_null() {
        // SAFETY: throws, through a frame that has nothing to drop; the memory of one failed allocation is lost.
        unsafe { throw_bad_alloc() }
    }
    memory
}

/// `operator new[]`.
#[unsafe(no_mangle)]
extern "C-unwind" fn _Znam(size: usize) -> *mut c_void {
    _Znwm(size)
}

/// What `call` returns, with the allocation number `n` in it failing, and how many there were before all was well or one failed.
fn failing_at<T>(n: usize, call: impl FnOnce() -> T) -> (T, usize) {
    LEFT.store(n, Ordering::Relaxed);
    let result = call();
    let left = LEFT.swap(DISARMED, Ordering::Relaxed);
    (result, n - left.min(n))
}

fn small(name: &str) -> PathBuf {
    let sizes = Sizes {
        n_layers: 2,
        n_embd: 64,
        n_head: 4,
        n_head_kv: 2,
        head_dim: 32,
        n_ff: 128,
        ..Sizes::new(Family::Llama)
    };
    let path = std::env::temp_dir().join(format!("fulcrum-exceptions-{}-{name}.gguf", std::process::id()));
    std::fs::write(&path, random_model(Family::Llama, &sizes.weights(WeightType::Q8_0)).write()).unwrap();
    path
}

fn turn(session: &ChatSession) -> Result<String> {
    let options = GenerationOptions { max_tokens: Some(4), ..GenerationOptions::default() };
    Ok(session.respond_with("Hello, the world", &options)?.text)
}

/// In the second turn of a session the failing allocation is another one in each case; before and after, all is as if nothing had happened.
fn every_part_of_a_turn(test: &str, executor: ExecutorChoice, n_cases: usize) {
    isolated::each(test, 0..n_cases, |i| {
        let path = small(executor.name());
        let options = ModelOptions { executor, threads: Some(1), context_length: Some(128), ..ModelOptions::default() };
        let model = Model::load(&path, options).unwrap();
        std::fs::remove_file(&path).unwrap();
        let session = || model.session(SessionOptions::default()).unwrap();
        let (undisturbed, disturbed) = (session(), session());
        turn(&undisturbed).unwrap();
        turn(&disturbed).unwrap();
        let (expected, n) = failing_at(DISARMED - 1, || turn(&undisturbed));
        let (expected, history) = (expected.unwrap(), disturbed.history());
        assert!(n > 0, "C++ allocates nothing: the test tests nothing");
        let (error, _) = failing_at(i * n / n_cases, || turn(&disturbed));
        match error.unwrap_err().into_kind() {
            ErrorKind::Backend { reason, .. } | ErrorKind::Tokenizer { reason } => assert_eq!(reason, "std::bad_alloc"),
            other => panic!("{other}"),
        }
        assert_eq!(disturbed.history(), history);
        assert_eq!(turn(&disturbed).unwrap(), expected);
    });
}

#[test]
fn a_turn_on_llama_cpp_survives_every_allocation_that_fails() {
    every_part_of_a_turn("a_turn_on_llama_cpp_survives_every_allocation_that_fails", ExecutorChoice::LlamaCpp, 60);
}

#[test]
fn a_turn_on_the_staged_executor_survives_every_allocation_that_fails() {
    every_part_of_a_turn(
        "a_turn_on_the_staged_executor_survives_every_allocation_that_fails",
        ExecutorChoice::Staged,
        20,
    );
}
