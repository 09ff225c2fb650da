//! llama.cpp's own logits: what `llama_decode` says about a batch of exactly this shape, with none of our code between.
//!
//! llama.cpp's logits of a position depend on the rows beside it (attention splits, tiles, repacked groups), so a comparison is
//! fair only at the same batch shapes. For files that are known to be sound: nothing is checked.
#![allow(dead_code, missing_docs, unreachable_pub, unsafe_code, clippy::undocumented_unsafe_blocks)]

use std::ffi::CString;
use std::path::Path;
use std::ptr;

use fulcrum::{KvType, Machine, Token};
use llama_cpp_sys_2 as sys;

/// A llama.cpp context on one sequence, with one thread.
pub struct Oracle {
    model: *mut sys::llama_model,
    context: *mut sys::llama_context,
    len: usize,
}

impl Oracle {
    /// Loads the model at `path` into a context of `n_cells` positions, set up as our executors set theirs up.
    pub fn load(path: &Path, n_cells: usize, kv_type: KvType) -> Self {
        // Starts the backend, and sends its log where nobody listens.
        Machine::here();
        let path = CString::new(path.to_str().unwrap()).unwrap();
        let model = unsafe { sys::llama_model_load_from_file(path.as_ptr(), sys::llama_model_default_params()) };
        assert!(!model.is_null(), "llama.cpp refuses the model");
        let mut params = unsafe { sys::llama_context_default_params() };
        (params.n_ctx, params.n_batch, params.n_ubatch) = (n_cells as u32, n_cells as u32, n_cells as u32);
        (params.n_threads, params.n_threads_batch) = (1, 1);
        params.flash_attn_type = sys::LLAMA_FLASH_ATTN_TYPE_ENABLED;
        let kv_type = match kv_type {
            KvType::F16 => sys::GGML_TYPE_F16,
            KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
        };
        (params.type_k, params.type_v) = (kv_type, kv_type);
        (params.kv_unified, params.swa_full) = (true, true);
        let context = unsafe { sys::llama_init_from_model(model, params) };
        assert!(!context.is_null(), "llama.cpp makes no context of the model");
        Self { model, context, len: 0 }
    }

    fn vocabulary(&self) -> *const sys::llama_vocab {
        unsafe { sys::llama_model_get_vocab(self.model) }
    }

    /// Tokens in the vocabulary.
    pub fn n_vocab(&self) -> usize {
        unsafe { sys::llama_vocab_n_tokens(self.vocabulary()) as usize }
    }

    /// Decodes `tokens` in one batch and returns the logits of all its rows, `[tokens.len(), n_vocab]`.
    pub fn decode(&mut self, tokens: &[Token]) -> Vec<f32> {
        let mut ids: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
        let mut positions: Vec<i32> = (self.len..self.len + ids.len()).map(|position| position as i32).collect();
        let mut sequence = [0];
        let mut sequences = vec![sequence.as_mut_ptr(); ids.len()];
        let (mut n_sequences, mut wants_logits) = (vec![1; ids.len()], vec![1; ids.len()]);
        let batch = sys::llama_batch {
            n_tokens: ids.len() as i32,
            token: ids.as_mut_ptr(),
            embd: ptr::null_mut(),
            pos: positions.as_mut_ptr(),
            n_seq_id: n_sequences.as_mut_ptr(),
            seq_id: sequences.as_mut_ptr(),
            logits: wants_logits.as_mut_ptr(),
        };
        assert_eq!(unsafe { sys::llama_decode(self.context, batch) }, 0);
        self.len += ids.len();
        let row = |row| unsafe {
            std::slice::from_raw_parts(sys::llama_get_logits_ith(self.context, row), self.n_vocab()).to_vec()
        };
        (0..ids.len() as i32).flat_map(row).collect()
    }

    /// Forgets positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        let cut = unsafe { sys::llama_memory_seq_rm(sys::llama_get_memory(self.context), 0, len as i32, -1) };
        assert!(cut, "this model's memory cannot be cut");
        self.len = len;
    }

    /// Tokens of `text`, special tokens read as such.
    pub fn tokenize(&self, text: &str) -> Vec<i32> {
        let mut tokens = vec![0; text.len() + 8];
        let (bytes, n_bytes, n) = (text.as_ptr().cast(), text.len() as i32, tokens.len() as i32);
        let n = unsafe { sys::llama_tokenize(self.vocabulary(), bytes, n_bytes, tokens.as_mut_ptr(), n, true, true) };
        tokens.truncate(usize::try_from(n).unwrap());
        tokens
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        unsafe {
            sys::llama_free(self.context);
            sys::llama_model_free(self.model);
        }
    }
}

/// llama.cpp's own tokens of a text, whatever its length.
pub struct Vocabulary(*mut sys::llama_model);

// Nothing changes in it.
unsafe impl Sync for Vocabulary {}

impl Vocabulary {
    /// Of the model at `path`.
    pub fn load(path: &Path) -> Self {
        Machine::here();
        let path = CString::new(path.to_str().unwrap()).unwrap();
        let mut params = unsafe { sys::llama_model_default_params() };
        params.vocab_only = true;
        let model = unsafe { sys::llama_model_load_from_file(path.as_ptr(), params) };
        assert!(!model.is_null(), "llama.cpp refuses the vocabulary");
        Self(model)
    }

    /// The tokens of `text` as a whole, without a begin-of-sequence token.
    pub fn tokenize(&self, text: &str, parse_special: bool) -> Vec<Token> {
        let tokenize = || unsafe {
            let mut tokens = vec![0; text.len() + 8];
            let vocabulary = sys::llama_model_get_vocab(self.0);
            let (start, len, room) = (text.as_ptr().cast(), text.len() as i32, tokens.len() as i32);
            let n = sys::llama_tokenize(vocabulary, start, len, tokens.as_mut_ptr(), room, false, parse_special);
            tokens.truncate(usize::try_from(n).unwrap());
            tokens.into_iter().filter_map(|token| Token::try_from(token).ok()).collect()
        };
        // `std::regex` recurses once per character.
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size((8 << 20) + (text.len() << 10));
            thread.spawn_scoped(scope, tokenize).unwrap().join().unwrap()
        })
    }
}

impl Drop for Vocabulary {
    fn drop(&mut self) {
        unsafe { sys::llama_model_free(self.0) }
    }
}
