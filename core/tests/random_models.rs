//! llama.cpp loads the random-weight models that the parity tests are built on, and finds nothing degenerate in them.
#![cfg(feature = "ggml")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;
#[path = "common/oracle.rs"]
mod oracle;

use std::path::PathBuf;

use common::quantize::WeightType;
use common::random_model::{Family, ModelOptions, random_model};
use common::small_vocabulary::{IM_END, IM_START, N_VOCAB};
use fulcrum::gguf::Gguf;
use fulcrum::gguf::validate::validate;
use fulcrum::{KvType, Token};
use oracle::Oracle;

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

fn oracle(file: &TemporaryFile) -> Oracle {
    Oracle::load(&file.0, 512, KvType::F16)
}

/// Logits of the last of `tokens`, read in one batch.
fn last_logits(oracle: &mut Oracle, tokens: &[Token]) -> Vec<f32> {
    oracle.decode(tokens).split_off((tokens.len() - 1) * N_VOCAB)
}

fn deviation(values: &[f32]) -> f32 {
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt()
}

fn check(family: Family, options: &ModelOptions) {
    let bytes = random_model(family, options).write();
    validate(&Gguf::parse(&bytes).unwrap()).unwrap();
    let name = format!("{family:?}-{:?}-{}", options.weights, options.tied);
    let mut oracle = oracle(&TemporaryFile::new(&name, &bytes));
    let tokens: Vec<Token> = (0..48).map(|i| (i * 37 + 11) % 280).collect();
    let first = last_logits(&mut oracle, &tokens);
    let second = last_logits(&mut oracle, &[5]);
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
        last_logits(&mut oracle(&file), &[1, 2, 3, 4, 5, 6, 7, 8])
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
    let oracle = oracle(&TemporaryFile::new("vocabulary", &bytes));
    let tokens = oracle.tokenize("<|im_start|>the hello<|im_end|>");
    assert_eq!((tokens[0], *tokens.last().unwrap()), (IM_START as i32, IM_END as i32));
    assert!(tokens.len() < 8, "merges are not used: {tokens:?}");
    assert!(oracle.tokenize("Grüße, 世界\n").iter().all(|&token| token < 256 + 24));
}
