//! llama.cpp loads the random-weight models that the parity tests are built on, and finds nothing degenerate in them.
#![cfg(feature = "ggml")]
#![allow(unsafe_code, clippy::unwrap_used, clippy::cast_possible_truncation, clippy::undocumented_unsafe_blocks)]

mod common;

use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Once;

use common::quantize::WeightType;
use common::random_model::{Family, ModelOptions, random_model};
use common::small_vocabulary::{IM_END, IM_START, N_VOCAB};
use fulcrum::gguf::Gguf;
use fulcrum::gguf::validate::validate;
use llama_cpp_sys_2 as sys;

/// A file that is removed again.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("fulcrum-{}-{name}.gguf", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

unsafe extern "C" fn ignore_log(_: sys::ggml_log_level, _: *const std::ffi::c_char, _: *mut std::ffi::c_void) {}

struct Oracle {
    model: *mut sys::llama_model,
    context: *mut sys::llama_context,
}

impl Oracle {
    fn load(file: &TemporaryFile) -> Self {
        static BACKEND: Once = Once::new();
        BACKEND.call_once(|| unsafe {
            sys::llama_log_set(Some(ignore_log), std::ptr::null_mut());
            sys::llama_backend_init();
        });
        let path = CString::new(file.0.to_str().unwrap()).unwrap();
        let model = unsafe { sys::llama_model_load_from_file(path.as_ptr(), sys::llama_model_default_params()) };
        assert!(!model.is_null(), "llama.cpp refuses the model");
        let mut params = unsafe { sys::llama_context_default_params() };
        (params.n_ctx, params.n_batch, params.n_threads, params.n_threads_batch) = (512, 512, 1, 1);
        let context = unsafe { sys::llama_init_from_model(model, params) };
        assert!(!context.is_null(), "llama.cpp makes no context of the model");
        Self { model, context }
    }

    /// Logits of the last of `tokens`, read in one batch.
    fn logits(&self, tokens: &mut [i32]) -> Vec<f32> {
        unsafe {
            let batch = sys::llama_batch_get_one(tokens.as_mut_ptr(), tokens.len() as i32);
            assert_eq!(sys::llama_decode(self.context, batch), 0);
            std::slice::from_raw_parts(sys::llama_get_logits_ith(self.context, -1), N_VOCAB).to_vec()
        }
    }

    fn tokenize(&self, text: &str) -> Vec<i32> {
        let mut tokens = vec![0; text.len() + 8];
        let n = unsafe {
            let vocabulary = sys::llama_model_get_vocab(self.model);
            let (text, len) = (text.as_ptr().cast(), text.len() as i32);
            sys::llama_tokenize(vocabulary, text, len, tokens.as_mut_ptr(), tokens.len() as i32, true, true)
        };
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

fn deviation(values: &[f32]) -> f32 {
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt()
}

fn check(family: Family, options: &ModelOptions) {
    let bytes = random_model(family, options).write();
    validate(&Gguf::parse(&bytes).unwrap()).unwrap();
    let name = format!("{family:?}-{:?}-{}", options.weights, options.tied);
    let oracle = Oracle::load(&TemporaryFile::new(&name, &bytes));
    let mut tokens: Vec<i32> = (0..48).map(|i| (i * 37 + 11) % 280).collect();
    let first = oracle.logits(&mut tokens);
    let second = oracle.logits(&mut [5]);
    assert!(first.iter().chain(&second).all(|logit| logit.is_finite()), "{name}");
    // Spread, and depending on what was read.
    assert!((0.5..60.0).contains(&deviation(&first)), "{name}: deviation {}", deviation(&first));
    let moved: Vec<f32> = first.iter().zip(&second).map(|(a, b)| a - b).collect();
    assert!(deviation(&moved) > 0.1, "{name}: the next token changes nothing");
}

#[test]
fn llama_cpp_runs_every_family_and_type() {
    for family in Family::ALL {
        for weights in WeightType::ALL {
            check(family, &ModelOptions::new(family).weights(weights));
        }
    }
}

#[test]
fn llama_cpp_runs_tied_and_untied_models() {
    for family in Family::ALL {
        let options = ModelOptions::new(family);
        let other = !options.tied;
        check(family, &options.tied(other));
    }
}

#[test]
fn quantised_models_resemble_the_exact_one() {
    let logits = |weights| {
        let options = ModelOptions::new(Family::Llama).weights(weights);
        let file = TemporaryFile::new(&format!("resemble-{weights:?}"), &random_model(Family::Llama, &options).write());
        Oracle::load(&file).logits(&mut [1, 2, 3, 4, 5, 6, 7, 8])
    };
    let exact = logits(WeightType::F32);
    for (weights, bound) in [
        (WeightType::F16, 0.01),
        (WeightType::Q8_0, 0.05),
        (WeightType::Q6_K, 0.15),
        (WeightType::Q4_K, 0.5),
        (WeightType::Q4_0, 0.6),
    ] {
        let error: Vec<f32> = logits(weights).iter().zip(&exact).map(|(a, b)| a - b).collect();
        let relative = deviation(&error) / deviation(&exact);
        assert!(relative < bound, "{weights:?}: {relative}");
    }
}

#[test]
fn the_vocabulary_works() {
    let bytes = random_model(Family::Qwen2, &ModelOptions::new(Family::Qwen2)).write();
    let oracle = Oracle::load(&TemporaryFile::new("vocabulary", &bytes));
    let tokens = oracle.tokenize("<|im_start|>the hello<|im_end|>");
    assert_eq!((tokens[0], *tokens.last().unwrap()), (IM_START as i32, IM_END as i32));
    assert!(tokens.len() < 8, "merges are not used: {tokens:?}");
    assert!(oracle.tokenize("Grüße, 世界\n").iter().all(|&token| token < 256 + 24));
}
