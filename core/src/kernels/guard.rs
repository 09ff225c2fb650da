//! The calls into C++ that may throw, caught where they are made.
//!
//! An exception that leaves C++ for Rust ends the process. `guard.cpp` makes three calls inside try and catch: decoding (allocations of
//! any size, and llama.cpp's own exceptions), tokenizing (`std::regex`, tables that lack an entry) and computing a graph (its work buffer).
//! The other functions that we call catch by themselves (loading a model, making a context, reading logits), look up what was checked to be
//! there, or can only fail to allocate some hundred bytes, which ends a Rust program too.
//!
//! What threw is in a state that nobody knows. Callers do not use it again, nor free it: ggml's CPU backend, for one, is left with a
//! pointer to the work buffer that it freed.

use std::ffi::{CStr, c_char, c_int};
use std::mem::offset_of;

use llama_cpp_sys_2 as sys;

/// What C++ threw, in its own words, on one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Thrown(pub(super) String);

unsafe extern "C" {
    fn fulcrum_decode(
        context: *mut sys::llama_context,
        batch: *const sys::llama_batch,
        result: *mut i32,
        text: *mut c_char,
        capacity: usize,
    ) -> bool;

    fn fulcrum_tokenize(
        vocab: *const sys::llama_vocab,
        input: *const c_char,
        length: i32,
        tokens: *mut sys::llama_token,
        n_tokens: i32,
        parse_special: bool,
        result: *mut i32,
        text: *mut c_char,
        capacity: usize,
    ) -> bool;

    fn fulcrum_compute(
        backend: *mut sys::ggml_backend,
        graph: *mut sys::ggml_cgraph,
        result: *mut c_int,
        text: *mut c_char,
        capacity: usize,
    ) -> bool;
}

/// `guard.cpp` declares the same again by hand.
const _: () = {
    type Batch = sys::llama_batch;
    type Vocab = *const sys::llama_vocab;
    const WORD: usize = size_of::<usize>();
    assert!(size_of::<Batch>() == 7 * WORD);
    assert!(offset_of!(Batch, n_tokens) == 0 && offset_of!(Batch, token) == WORD);
    assert!(offset_of!(Batch, embd) == 2 * WORD && offset_of!(Batch, pos) == 3 * WORD);
    assert!(offset_of!(Batch, n_seq_id) == 4 * WORD && offset_of!(Batch, seq_id) == 5 * WORD);
    assert!(offset_of!(Batch, logits) == 6 * WORD);
    let _: unsafe extern "C" fn(*mut sys::llama_context, Batch) -> i32 = sys::llama_decode;
    let _: unsafe extern "C" fn(*mut sys::llama_context) = sys::llama_synchronize;
    let _: unsafe extern "C" fn(Vocab, *const c_char, i32, *mut i32, i32, bool, bool) -> i32 = sys::llama_tokenize;
    let _: unsafe extern "C" fn(*mut sys::ggml_backend, *mut sys::ggml_cgraph) -> c_int =
        sys::ggml_backend_graph_compute;
};

/// Decodes `batch`, waits for the end of the computation and returns llama.cpp's status.
///
/// # Safety
///
/// As of `llama_decode`. After an error `context` may neither be used nor freed.
pub(super) unsafe fn decode(context: *mut sys::llama_context, batch: &sys::llama_batch) -> Result<i32, Thrown> {
    let mut status = 0;
    // SAFETY: the caller vouches for context and batch; the text is as long as stated.
    caught(|text, capacity| unsafe { fulcrum_decode(context, batch, &raw mut status, text, capacity) })?;
    Ok(status)
}

/// Tokenizes without adding special tokens: how many tokens were written to `ids`, or, negative, how many do not fit.
///
/// # Safety
///
/// `vocab` is a vocabulary of a model that is alive.
pub(super) unsafe fn tokenize(
    vocab: *const sys::llama_vocab,
    input: &str,
    parse_special: bool,
    ids: &mut [sys::llama_token],
) -> Result<i32, Thrown> {
    let (length, n_ids) = (i32::try_from(input.len()), i32::try_from(ids.len()).unwrap_or(i32::MAX));
    let length = length.map_err(|_| Thrown(format!("{} bytes of text are too many", input.len())))?;
    let mut n = 0;
    // SAFETY: the caller vouches for the vocabulary; input, ids and text are as long as stated.
    caught(|text, capacity| unsafe {
        let (input, ids) = (input.as_ptr().cast(), ids.as_mut_ptr());
        fulcrum_tokenize(vocab, input, length, ids, n_ids, parse_special, &raw mut n, text, capacity)
    })?;
    Ok(n)
}

/// Computes `graph` and returns ggml's status.
///
/// # Safety
///
/// As of `ggml_backend_graph_compute`. After an error `backend` may neither be used nor freed.
pub(super) unsafe fn compute(
    backend: *mut sys::ggml_backend,
    graph: *mut sys::ggml_cgraph,
) -> Result<sys::ggml_status, Thrown> {
    let mut status = 0;
    // SAFETY: the caller vouches for backend and graph; the text is as long as stated.
    caught(|text, capacity| unsafe { fulcrum_compute(backend, graph, &raw mut status, text, capacity) })?;
    Ok(status)
}

fn caught(call: impl FnOnce(*mut c_char, usize) -> bool) -> Result<(), Thrown> {
    let mut text = [0_u8; 256];
    if call(text.as_mut_ptr().cast(), text.len()) {
        return Ok(());
    }
    let text = CStr::from_bytes_until_nul(&text).unwrap_or_default().to_string_lossy();
    Err(Thrown(text.trim().replace('\n', " ")))
}
