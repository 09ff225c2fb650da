//! A llama.cpp context: one K/V cache, one batch at a time, with its own threads and a way to be interrupted.
//!
//! Every number that llama.cpp asserts on is checked before it gets there. Deliberately not known here: rows, trees and what
//! the sequences mean; those are the executor's.

use std::ffi::c_void;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use llama_cpp_sys_2 as sys;

use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};
use crate::executor::options::{KvType, check_sizes};
use crate::kernels::llama::{Batch, LlamaModel};
use crate::kernels::threads::ThreadPool;
use crate::kernels::{guard, native_log};

/// What a context is made with.
#[derive(Clone)]
pub(crate) struct ContextOptions {
    /// Positions in the cache.
    pub(crate) n_cells: usize,
    /// Rows of a batch.
    pub(crate) max_rows: usize,
    /// Sequences that may share the cache; sequence ids are below it.
    pub(crate) n_seqs: usize,
    /// Type of K and V.
    pub(crate) kv_type: KvType,
    /// The threads, shared with the model's other contexts.
    pub(crate) threads: Arc<ThreadPool>,
}

/// A context on a model.
pub(crate) struct LlamaContext {
    // Freed first, in `drop`: it uses the three below it.
    raw: NonNull<sys::llama_context>,
    options: ContextOptions,
    interrupt: Box<Interrupt>,
    model: Arc<LlamaModel>,
    /// An exception came out of it: it is neither used again nor freed.
    broken: bool,
    /// Which rows of the last batch have logits; empty when there are none to read.
    has_logits: Vec<bool>,
}

// SAFETY: a context is not bound to a thread; it is used through `&mut self`, so by one thread at a time.
unsafe impl Send for LlamaContext {}

impl LlamaContext {
    /// Makes a context, its cache and its threads.
    ///
    /// Fails with `InvalidOption` for a number out of range, `UnsupportedModel` if llama.cpp cannot generate with the model,
    /// `OutOfMemory` if it could not allocate, `Backend` with its reason otherwise.
    pub(crate) fn new(model: Arc<LlamaModel>, options: &ContextOptions) -> Result<Self> {
        check(&model, options)?;
        let interrupt = Box::new(Interrupt(AtomicPtr::new(ptr::null_mut())));
        let mut params = params(options);
        params.abort_callback = Some(is_interrupted);
        params.abort_callback_data = ptr::from_ref::<Interrupt>(&interrupt).cast_mut().cast();
        // SAFETY: the model is alive and has weights (`check`); the interrupt is on the heap and lives as long as the context.
        // C++ exceptions are caught inside.
        let (raw, reason) = native_log::capture(|| unsafe { sys::llama_init_from_model(model.as_ptr(), params) });
        let Some(raw) = NonNull::new(raw) else { return Err(creation_error(&model, options, reason).into()) };
        let context = Self { raw, options: options.clone(), interrupt, model, broken: false, has_logits: vec![] };
        let threads = options.threads.as_ptr();
        // SAFETY: context and pool are alive; the pool is dropped after the context.
        unsafe { sys::llama_attach_threadpool(context.as_ptr(), threads, threads) };
        if context.memory().is_null() {
            return Err(unsupported(&context.model, "it has no K/V cache and cannot generate text"));
        }
        Ok(context)
    }

    /// Whether an exception came out of llama.cpp, whose state nobody knows since: nothing can be decoded or kept.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Puts a new context, with nothing in its cache, in this one's place.
    ///
    /// Fails as [`new`](Self::new); the old one stays then.
    pub(crate) fn renew(&mut self) -> Result<()> {
        *self = Self::new(Arc::clone(&self.model), &self.options)?;
        Ok(())
    }

    fn as_ptr(&self) -> *mut sys::llama_context {
        self.raw.as_ptr()
    }

    fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: the context is alive.
        unsafe { sys::llama_get_memory(self.as_ptr()) }
    }

    /// Decodes `batch` in one piece: K and V of its rows go to the cache, logits of the rows that want them can be read.
    ///
    /// Fails with `Misuse` if the batch breaks a limit, `Cancelled` when `cancel` is raised, `ContextFull` if there is no free
    /// cell, `Backend` otherwise. After an error some rows may be in the cache: the caller removes them by position, or, if the context
    /// [is broken](Self::is_broken), renews it.
    pub(crate) fn decode(&mut self, batch: &mut Batch, cancel: &Cancel) -> Result<()> {
        self.has_logits.clear();
        let failed = |reason| Err(ErrorKind::Backend { operation: "decoding", reason }.into());
        if self.broken {
            return failed("the context broke in an earlier pass".to_owned());
        }
        batch.check(self.options.max_rows, self.options.n_seqs, self.model.n_vocab())?;
        let n_rows = batch.len();
        let threads = Arc::clone(&self.options.threads);
        let turn = threads.turn(cancel)?;
        self.interrupt.0.store(ptr::from_ref::<AtomicBool>(cancel.flag()).cast_mut(), Ordering::Release);
        let raw = batch.raw();
        // SAFETY: the batch's arrays are as long as it says and outlive the call; tokens, sequences and the number of rows
        // are within the context's limits (`check`); the flag behind `interrupt` is borrowed until it is taken away below. After an
        // exception the context is `broken`.
        let (status, reason) = native_log::capture(|| unsafe { guard::decode(self.as_ptr(), &raw) });
        self.interrupt.0.store(ptr::null_mut(), Ordering::Release);
        drop(turn);
        let status = match status {
            Ok(status) => status,
            Err(guard::Thrown(reason)) => {
                self.broken = true;
                return failed(reason);
            }
        };
        match status {
            0 if cancel.is_cancelled() => Err(ErrorKind::Cancelled.into()),
            0 => {
                self.has_logits.extend(batch.wants_logits());
                Ok(())
            }
            // No cell was free. The caller counts cells, so this says that the count is wrong or the model's window is smaller.
            1 => Err(ErrorKind::ContextFull { needed: n_rows, capacity: 0 }.into()),
            2 => Err(ErrorKind::Cancelled.into()),
            _ => failed(reason),
        }
    }

    /// The logits of row `row` of the last batch, `[n_vocab]`; `None` if it asked for none or the batch failed.
    pub(crate) fn logits(&self, row: usize) -> Option<&[f32]> {
        if !*self.has_logits.get(row)? {
            return None;
        }
        // SAFETY: the row is in the last batch and has logits, so the pointer is to `n_vocab` floats that stay until the next
        // decode, which needs `&mut self`.
        unsafe {
            let logits = sys::llama_get_logits_ith(self.as_ptr(), i32::try_from(row).ok()?);
            if logits.is_null() { None } else { Some(std::slice::from_raw_parts(logits, self.model.n_vocab())) }
        }
    }

    /// Takes `positions` of sequence `seq` away. False if the model's memory cannot be cut there, or the context is broken; nothing has
    /// changed then.
    #[must_use]
    pub(crate) fn remove(&mut self, seq: usize, positions: Range<usize>) -> bool {
        let Some(seq) = self.seq(seq) else { return false };
        // SAFETY: the context has a memory and the sequence is one of its own.
        unsafe { sys::llama_memory_seq_rm(self.memory(), seq, pos(positions.start), pos(positions.end)) }
    }

    /// Takes every position from `from` on away, in all sequences. False as for [`remove`](Self::remove).
    #[must_use]
    pub(crate) fn remove_all_from(&mut self, from: usize) -> bool {
        // SAFETY: the context has a memory and is not broken; -1 stands for every sequence and for no end.
        !self.broken && unsafe { sys::llama_memory_seq_rm(self.memory(), -1, pos(from), -1) }
    }

    /// Makes `positions` of sequence `from` also belong to `to`. Nothing is copied.
    pub(crate) fn share(&mut self, from: usize, to: usize, positions: Range<usize>) {
        if let (Some(from), Some(to)) = (self.seq(from), self.seq(to)) {
            // SAFETY: the context has a memory and both sequences are its own; the cache is unified, where any range will do.
            unsafe { sys::llama_memory_seq_cp(self.memory(), from, to, pos(positions.start), pos(positions.end)) }
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        if !self.broken {
            // SAFETY: the context has a memory.
            unsafe { sys::llama_memory_clear(self.memory(), false) }
        }
    }

    /// The id of sequence `seq`, if the context has it and is not broken.
    fn seq(&self, seq: usize) -> Option<sys::llama_seq_id> {
        if seq < self.options.n_seqs && !self.broken { i32::try_from(seq).ok() } else { None }
    }
}

impl Drop for LlamaContext {
    fn drop(&mut self) {
        if !self.broken {
            // SAFETY: made by llama_init_from_model, freed once, before the pool, the interrupt and the model.
            unsafe { sys::llama_free(self.raw.as_ptr()) }
        }
    }
}

/// Points to the cancel flag of the decode under way; null between decodes.
struct Interrupt(AtomicPtr<AtomicBool>);

/// ggml asks this after every node of the graph, on the thread that called `decode`.
unsafe extern "C" fn is_interrupted(user_data: *mut c_void) -> bool {
    // SAFETY: the user data are the context's `Interrupt`, which lives as long as the context; the flag behind it is borrowed
    // by `decode` for as long as it is not null.
    unsafe {
        let interrupt = &*user_data.cast::<Interrupt>();
        interrupt.0.load(Ordering::Acquire).as_ref().is_some_and(|flag| flag.load(Ordering::Acquire))
    }
}

/// A position as llama.cpp writes it; what does not fit is beyond every cache.
fn pos(position: usize) -> sys::llama_pos {
    i32::try_from(position).unwrap_or(i32::MAX)
}

fn unsupported(model: &LlamaModel, reason: &str) -> crate::Error {
    ErrorKind::UnsupportedModel { path: model.path().to_owned(), reason: reason.to_owned() }.into()
}

/// Refuses what llama.cpp would abort on, and what it would take to mean something else (0 positions: "as in training").
fn check(model: &LlamaModel, options: &ContextOptions) -> Result<()> {
    let invalid = |option, reason| Err(ErrorKind::InvalidOption { option, reason }.into());
    check_sizes(options.n_cells, options.max_rows)?;
    // SAFETY: takes nothing, returns a number.
    let max_seqs = unsafe { sys::llama_max_parallel_sequences() };
    // The output buffer of `n_seqs` rows has to fit into a batch.
    let max_seqs = max_seqs.min(options.max_rows).min(options.n_cells);
    if !(1..=max_seqs).contains(&options.n_seqs) {
        return invalid("max_leaves", format!("{} is not between 1 and {max_seqs}", options.n_seqs));
    }
    if !model.has_weights() {
        let reason = "only the vocabulary was loaded".to_owned();
        return Err(ErrorKind::Misuse { operation: "making a context", reason }.into());
    }
    match model.why_not_autoregressive() {
        Some(reason) => Err(unsupported(model, reason)),
        None => Ok(()),
    }
}

/// Numbers are in range, so the conversions cannot fail.
fn params(options: &ContextOptions) -> sys::llama_context_params {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let kv_type = match options.kv_type {
        KvType::F16 => sys::GGML_TYPE_F16,
        KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
    };
    // SAFETY: takes nothing, returns a value.
    let mut params = unsafe { sys::llama_context_default_params() };
    params.n_ctx = number(options.n_cells);
    // One batch is one graph: no hidden splitting, so that a pass is what the caller thinks it is.
    params.n_batch = number(options.max_rows);
    params.n_ubatch = number(options.max_rows);
    params.n_seq_max = number(options.n_seqs);
    params.n_threads = i32::try_from(options.threads.n_threads()).unwrap_or(1);
    params.n_threads_batch = params.n_threads;
    params.flash_attn_type = sys::LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k = kv_type;
    params.type_v = kv_type;
    // Sequences share cells, which is what makes them a tree.
    params.kv_unified = true;
    // A cache that keeps only the window could not be cut back beyond it.
    params.swa_full = true;
    params.no_perf = true;
    params
}

/// Why there is no context. llama.cpp reports a failed allocation only in words.
fn creation_error(model: &LlamaModel, options: &ContextOptions, reason: String) -> ErrorKind {
    if ["alloc", "buffer"].iter().any(|word| reason.contains(word)) {
        let per_position = model.cache_bytes_per_position(options.kv_type.bytes_per_value());
        // A float beyond the range of the integer becomes its largest value.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let needed = (per_position * options.n_cells as f64) as u64;
        return ErrorKind::OutOfMemory { what: "the K/V cache", needed, available: None };
    }
    if options.kv_type == KvType::Q8_0 && reason.contains("does not divide") {
        return ErrorKind::InvalidOption { option: "kv_type", reason: format!("{reason}; use f16") };
    }
    ErrorKind::Backend { operation: "making a llama.cpp context", reason }
}
