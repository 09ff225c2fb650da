//! A model that llama.cpp has loaded: its weights or just its vocabulary.
//!
//! The file is expected to have passed our own reader ([`crate::gguf`]): duplicate vocabulary strings and absurd
//! hyperparameters abort the process inside llama.cpp, and nothing here looks for them.

use std::ffi::{CStr, CString, c_void};
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};

use llama_cpp_sys_2 as sys;

use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::{native_log, runtime};

/// How a model is loaded.
pub(crate) struct LoadOptions<'a> {
    /// Load the vocabulary and the metadata, and no weights.
    pub(crate) vocab_only: bool,
    /// Polled while loading; when it is raised, loading ends with `Cancelled`.
    pub(crate) cancel: &'a Cancel,
    /// Told the part that is loaded, 0.0 to 1.0.
    pub(crate) progress: &'a mut dyn FnMut(f32),
}

/// A loaded model. It never changes, so threads may share it.
pub(crate) struct LlamaModel {
    raw: NonNull<sys::llama_model>,
    path: PathBuf,
    has_weights: bool,
}

// SAFETY: the model is not written after loading (llama.cpp itself runs many contexts on one model), and freeing it is not
// tied to the thread that loaded it.
unsafe impl Send for LlamaModel {}
// SAFETY: as above; every function called through `&self` only reads.
unsafe impl Sync for LlamaModel {}

impl LlamaModel {
    /// Loads the model at `path`, mapped into memory. Of a split model, `path` is the first part.
    ///
    /// Fails with `File` if the file cannot be read, `InvalidModel` with llama.cpp's reason if it cannot be loaded, and
    /// `Cancelled`.
    pub(crate) fn load(path: &Path, options: LoadOptions<'_>) -> Result<Self> {
        runtime::start();
        let c_path = checked_path(path)?;
        let mut progress = Progress { cancel: options.cancel, report: options.progress };
        // A list with only its end mark: no device beside the CPU.
        let mut no_devices: [sys::ggml_backend_dev_t; 1] = [ptr::null_mut()];
        // SAFETY: takes nothing, returns a value.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.vocab_only = options.vocab_only;
        params.n_gpu_layers = 0;
        params.devices = no_devices.as_mut_ptr();
        params.load_mode = sys::LLAMA_LOAD_MODE_MMAP;
        // Weights of formats for which the CPU has a faster layout are copied to it, not mapped.
        params.use_extra_bufts = !options.vocab_only;
        params.progress_callback = Some(on_progress);
        params.progress_callback_user_data = (&raw mut progress).cast();
        // SAFETY: the path is NUL-terminated; the device list and the progress data outlive the call, and nothing keeps
        // them afterwards. C++ exceptions are caught inside.
        let (raw, reason) = native_log::capture(|| unsafe { sys::llama_model_load_from_file(c_path.as_ptr(), params) });
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { raw, path: path.to_owned(), has_weights: !options.vocab_only }),
            None if options.cancel.is_cancelled() => Err(ErrorKind::Cancelled.into()),
            None => Err(ErrorKind::InvalidModel { path: path.to_owned(), reason }.into()),
        }
    }

    /// The file it came from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether weights were loaded, not only the vocabulary.
    pub(crate) fn has_weights(&self) -> bool {
        self.has_weights
    }

    pub(super) fn as_ptr(&self) -> *mut sys::llama_model {
        self.raw.as_ptr()
    }

    pub(crate) fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is alive; the vocabulary is a part of it.
        unsafe { sys::llama_model_get_vocab(self.as_ptr()) }
    }

    /// Tokens in the vocabulary, which is the length of a row of logits.
    pub(crate) fn n_vocab(&self) -> usize {
        // SAFETY: the vocabulary is alive while the model is.
        usize::try_from(unsafe { sys::llama_vocab_n_tokens(self.vocab()) }).unwrap_or(0)
    }

    /// Decoder layers.
    pub(crate) fn n_layers(&self) -> usize {
        // SAFETY: the model is alive.
        usize::try_from(unsafe { sys::llama_model_n_layer(self.as_ptr()) }).unwrap_or(0)
    }

    /// Whether the model keeps a running state (Mamba, RWKV, and the hybrids) that cannot be cut at a position.
    pub(crate) fn has_running_state(&self) -> bool {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_is_recurrent(self.as_ptr()) || sys::llama_model_is_hybrid(self.as_ptr()) }
    }

    /// Why this model cannot generate text token by token, if it cannot.
    pub(crate) fn why_not_autoregressive(&self) -> Option<&'static str> {
        // SAFETY: the model is alive.
        unsafe {
            if sys::llama_model_has_encoder(self.as_ptr()) {
                Some("it has an encoder, and only decoder models generate here")
            } else if !sys::llama_model_has_decoder(self.as_ptr()) {
                Some("it is an encoder and does not generate text")
            } else if sys::llama_model_is_diffusion(self.as_ptr()) {
                Some("it is a diffusion model and does not generate token by token")
            } else {
                None
            }
        }
    }

    /// Bytes of K and V for one position in all layers, at `bytes_per_value`: an estimate from the shape, before allocating.
    pub(crate) fn cache_bytes_per_position(&self, bytes_per_value: f64) -> f64 {
        // SAFETY: the model is alive.
        let (n_embd, n_head, n_head_kv) = unsafe {
            (
                sys::llama_model_n_embd(self.as_ptr()),
                sys::llama_model_n_head(self.as_ptr()),
                sys::llama_model_n_head_kv(self.as_ptr()),
            )
        };
        // Heads are often wider than their share of the embedding, and then the file says so.
        let key_length = self.metadata(c"general.architecture").and_then(|architecture| {
            let key = CString::new(format!("{architecture}.attention.key_length")).ok()?;
            self.metadata(&key)?.parse::<f64>().ok()
        });
        let head_dim = key_length.unwrap_or(f64::from(n_embd) / f64::from(n_head.max(1)));
        2.0 * self.n_layers() as f64 * f64::from(n_head_kv.max(0)) * head_dim * bytes_per_value
    }

    /// A metadata value of the file as text, `None` if the file has no such key or the value is an array.
    pub(crate) fn metadata(&self, key: &CStr) -> Option<String> {
        let read = |buffer: &mut [u8]| {
            // SAFETY: the buffer is as long as stated; the result is cut to it and NUL-terminated.
            unsafe {
                sys::llama_model_meta_val_str(self.as_ptr(), key.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
            }
        };
        let length = usize::try_from(read(&mut [0])).ok()?;
        let mut buffer = vec![0; length + 1];
        read(&mut buffer);
        buffer.truncate(length);
        String::from_utf8(buffer).ok()
    }
}

impl Drop for LlamaModel {
    fn drop(&mut self) {
        // SAFETY: made by llama_model_load_from_file and freed once; contexts hold an `Arc` of the model.
        unsafe { sys::llama_model_free(self.raw.as_ptr()) }
    }
}

/// The path as C wants it, and sure to be an existing file: llama.cpp's own words for these are of little help.
fn checked_path(path: &Path) -> Result<CString> {
    let file = |source| Error::from(ErrorKind::File { action: "open", path: path.to_owned(), source });
    if std::fs::metadata(path).map_err(file)?.is_dir() {
        return Err(file(std::io::ErrorKind::IsADirectory.into()));
    }
    std::fs::File::open(path).map_err(file)?;
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| file(std::io::ErrorKind::InvalidInput.into()))
}

/// What the progress callback works with.
struct Progress<'a> {
    cancel: &'a Cancel,
    report: &'a mut dyn FnMut(f32),
}

/// Returns whether to go on. A panic of the application's callback must not unwind into C++: it ends the loading.
unsafe extern "C" fn on_progress(part: f32, user_data: *mut c_void) -> bool {
    // SAFETY: the user data are the `Progress` in `load`, which outlives the loading and is used by nobody else meanwhile.
    let progress = unsafe { &mut *user_data.cast::<Progress<'_>>() };
    let reported = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (progress.report)(part)));
    reported.is_ok() && !progress.cancel.is_cancelled()
}
