//! What passes the validation does not end the process inside llama.cpp.
//!
//! Models are spoiled at random, by key and by tensor rather than by byte, so that many of them pass. Each that passes is
//! loaded in a child process, given a context, and asked for tokens and logits; llama.cpp may refuse it, but a child that
//! dies of a signal is a rule that the validation lacks. Slow: `cargo test --release --test gguf_oracle_survives -- --ignored`;
//! `FULCRUM_ORACLE_SEEDS=1500..20000` for other models, or one that died.
#![cfg(feature = "ggml")]
#![allow(unsafe_code, clippy::unwrap_used, clippy::cast_possible_truncation, clippy::undocumented_unsafe_blocks)]

mod common;

use std::ffi::CString;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::gguf_writer::{GgufWriter, Meta, Tensor};
use common::random_model::{Family, ModelOptions, random_model, with_experts};
use common::small_vocabulary;
use fulcrum::gguf::validate::validate;
use fulcrum::gguf::{Gguf, TensorType};
use llama_cpp_sys_2 as sys;

/// The models, where the environment does not say.
const SEEDS: Range<u64> = 0..1500;
/// A tiny model is loaded in some milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

fn spoil(file: &mut GgufWriter, random: &mut Random, architecture: &str) {
    let numbers = [0_u32, 1, 2, 3, 4, 5, 7, 8, 16, 31, 32, 64, 256, 512, 513, 1 << 20, 1 << 31, u32::MAX];
    match random.below(10) {
        0 => {
            let at = random.below(file.metadata.len());
            file.metadata.remove(at);
        }
        1 => {
            let at = random.below(file.metadata.len());
            file.metadata[at].1 = spoiled_value(&file.metadata[at].1, random, &numbers);
        }
        2 | 3 => {
            let key = format!("{architecture}.{}", random.pick(&EXTRA_KEYS));
            let n = random.below(4);
            let value = match random.below(5) {
                0 => Meta::F32(random.pick(&[0.0, -1.0, 1e-30, 1e30, 0.5, 8.0])),
                1 => Meta::Bool(random.below(2) == 0),
                2 => Meta::from(vec![random.pick(&numbers); n]),
                3 => Meta::from(random.pick(&["yarn", "longrope", "none", "linear", "silu", ""])),
                _ => Meta::U32(random.pick(&numbers)),
            };
            file.set(&key, value);
        }
        4 => {
            let at = random.below(file.tensors.len());
            file.tensors.remove(at);
        }
        5 => {
            let (at, from) = (random.below(file.tensors.len()), random.below(file.tensors.len()));
            let other = file.tensors[from].clone();
            let tensor = &mut file.tensors[at];
            (tensor.dims, tensor.ty, tensor.data) = (other.dims, other.ty, other.data);
        }
        6 | 7 => {
            let at = random.below(file.tensors.len());
            retype(&mut file.tensors[at], random);
        }
        8 => {
            let name = format!("{}{}", random.pick(&["blk.0.", "blk.1.", ""]), random.pick(&EXTRA_TENSORS));
            let dims = random.pick(&[vec![1], vec![2], vec![64], vec![256], vec![64, 64], vec![256, 256]]);
            let data = vec![0; 4 * dims.iter().product::<u64>() as usize];
            file.tensor(&name, &dims, 0, data);
            let at = file.tensors.len() - 1;
            retype(&mut file.tensors[at], random);
        }
        _ => {
            let mut tokens = small_vocabulary::tokens();
            let at = random.below(tokens.len());
            tokens[at] = random.pick(&["", "<0x0A>", "the", "<|eot_id|>", "\u{0}", "\u{10ffff}", " ", "▁"]).to_owned();
            file.set("tokenizer.ggml.tokens", tokens);
            let ty = random.below(8) as i32;
            file.set("tokenizer.ggml.token_type", vec![ty; small_vocabulary::N_VOCAB]);
        }
    }
}

/// Another type, with numbers that are as good as any, if its blocks fill the rows.
fn retype(tensor: &mut Tensor, random: &mut Random) {
    let ty = random.pick(TensorType::ALL);
    let rows: u64 = tensor.dims[1..].iter().product();
    if let Some(bytes) = ty.row_bytes(tensor.dims[0]) {
        tensor.ty = ty.code();
        tensor.data = (0..bytes * rows).map(|i| (i % 59) as u8).collect();
    }
}

/// Names that llama.cpp's loaders look for, of which a family has some.
const EXTRA_TENSORS: [&str; 22] = [
    "attn_q.scale",
    "attn_qkv.scale",
    "attn_output.scale",
    "attn_output.input_scale",
    "attn_q.bias",
    "attn_output.bias",
    "attn_qkv.weight",
    "attn_gate.weight",
    "ffn_gate.scale",
    "ffn_up.scale",
    "ffn_down.scale",
    "ffn_down.input_scale",
    "ffn_down_exps.scale",
    "ffn_up_exps.scale",
    "ffn_down.bias",
    "ffn_gate_shexp.weight",
    "output.scale",
    "output.input_scale",
    "output.weight",
    "output.bias",
    "rope_freqs.weight",
    "cls.output.weight",
];

const EXTRA_KEYS: [&str; 29] = [
    "attention.key_length",
    "attention.value_length",
    "attention.key_length_swa",
    "attention.value_length_swa",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.causal",
    "attention.scale",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "block_count",
    "context_length",
    "embedding_length",
    "embedding_length_out",
    "expert_count",
    "expert_shared_feed_forward_length",
    "expert_used_count",
    "feed_forward_length",
    "nextn_predict_layers",
    "pooling_type",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "vocab_size",
];

fn spoiled_value(value: &Meta, random: &mut Random, numbers: &[u32]) -> Meta {
    match value {
        Meta::U32(_) => Meta::U32(random.pick(numbers)),
        Meta::F32(_) => Meta::F32(random.pick(&[0.0, -1.0, 1e-30, 1e30])),
        Meta::Bool(v) => Meta::Bool(!v),
        Meta::Str(_) => {
            Meta::from(random.pick(&["", "llama", "gpt2", "default", "llama-bpe", "qwen2", "gemma4", "phi3"]))
        }
        Meta::Array(code, elements) => {
            let mut elements = elements.clone();
            elements.truncate(random.below(elements.len() + 1));
            Meta::Array(*code, elements)
        }
        _ => Meta::U32(0),
    }
}

/// What the child does: everything that a session would.
fn load(path: &Path) {
    unsafe extern "C" fn ignore(_: sys::ggml_log_level, _: *const std::ffi::c_char, _: *mut std::ffi::c_void) {}
    unsafe {
        sys::llama_log_set(Some(ignore), std::ptr::null_mut());
        sys::llama_backend_init();
        let path = CString::new(path.to_str().unwrap()).unwrap();
        let model = sys::llama_model_load_from_file(path.as_ptr(), sys::llama_model_default_params());
        if model.is_null() {
            return;
        }
        let vocabulary = sys::llama_model_get_vocab(model);
        let mut tokens = vec![0; 256];
        for text in ["", "Hello, the world!\n\n", "<|im_start|>Grüße 世界 \u{0}\u{1f600}<|im_end|>"] {
            let (start, len) = (text.as_ptr().cast(), text.len() as i32);
            sys::llama_tokenize(vocabulary, start, len, tokens.as_mut_ptr(), 256, true, true);
        }
        let mut piece = vec![0; 512];
        for token in 0..sys::llama_vocab_n_tokens(vocabulary) {
            sys::llama_token_to_piece(vocabulary, token, piece.as_mut_ptr(), 512, 0, true);
        }
        let mut params = sys::llama_context_default_params();
        (params.n_ctx, params.n_threads, params.n_threads_batch) = (128, 1, 1);
        let context = sys::llama_init_from_model(model, params);
        if context.is_null() {
            return;
        }
        let mut tokens: Vec<i32> = (0..40).collect();
        for rows in [40, 1] {
            sys::llama_decode(context, sys::llama_batch_get_one(tokens.as_mut_ptr(), rows));
        }
        sys::llama_free(context);
        sys::llama_model_free(model);
    }
}

/// How a child that loads `path` ends, if not well.
fn death_in_child(path: &Path) -> Option<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "spoiled_models_that_pass_do_not_end_the_process"])
        .env("FULCRUM_LOAD_IN_CHILD", path)
        .env("GGML_NO_BACKTRACE", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return (!status.success()).then(|| status.to_string()),
            None if started.elapsed() > PATIENCE => {
                child.kill().unwrap();
                child.wait().unwrap();
                return Some("does not end".to_owned());
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[test]
#[ignore = "slow: starts a process for every model"]
fn spoiled_models_that_pass_do_not_end_the_process() {
    if let Some(path) = std::env::var_os("FULCRUM_LOAD_IN_CHILD") {
        return load(Path::new(&path));
    }
    let folder = std::env::temp_dir().join(format!("fulcrum-oracle-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("model.gguf");
    let seeds = std::env::var("FULCRUM_ORACLE_SEEDS").map_or(SEEDS, |seeds| {
        let (first, end) = seeds.split_once("..").unwrap();
        first.parse().unwrap()..end.parse().unwrap()
    });
    let n_models = seeds.end - seeds.start;
    let (mut passed, mut deaths) = (0, Vec::new());
    for seed in seeds {
        let mut random = Random(seed);
        let family = random.pick(&Family::ALL);
        // The narrow ones are quick; the wide ones have room for the blocks of every type.
        let width = random.pick(&[64, 64, 256]);
        let form = ModelOptions { n_layers: 2, n_embd: width, n_ff: width, ..ModelOptions::new(family) };
        let (head_dim, tied) = (width / 4, random.below(2) == 0);
        let form = ModelOptions { n_head: 4, n_head_kv: 2, head_dim, tied, ..form };
        let mut file = random_model(family, &form);
        if family.architecture() == "llama" && random.below(3) == 0 {
            file = with_experts(file, &form);
        }
        for _ in 0..1 + random.below(2) {
            spoil(&mut file, &mut random, family.architecture());
        }
        let bytes = file.write();
        if !Gguf::parse(&bytes).is_ok_and(|gguf| validate(&gguf).is_ok()) {
            continue;
        }
        passed += 1;
        std::fs::write(&path, &bytes).unwrap();
        deaths.extend(death_in_child(&path).map(|death| format!("{family:?}, seed {seed}: {death}")));
    }
    // The method itself: a model that is known to end the process does.
    let mut duplicates = random_model(Family::Llama, &ModelOptions::new(Family::Llama));
    duplicates.set("tokenizer.ggml.tokens", vec!["the"; small_vocabulary::N_VOCAB]);
    std::fs::write(&path, duplicates.write()).unwrap();
    assert!(death_in_child(&path).is_some(), "a child that must die does not");
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(passed > n_models / 5, "only {passed} models passed the validation");
    assert!(deaths.is_empty(), "{} of {passed}:\n{}", deaths.len(), deaths.join("\n"));
}
