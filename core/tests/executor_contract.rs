//! The executor contract, on the executors there are.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "ggml")]
mod common;
mod contract;

use contract::{CELLS, LEAVES, ROWS, Subject, contract};
use fulcrum::executor::Weights;
use fulcrum::executor::scripted::{Rule, Script};

/// Judges the executors of `weights`; `tolerance` is relative to a row's largest logit.
fn judge(weights: &dyn Weights, tolerance: f32, max_leaves: usize) {
    let n_vocab = weights.executor(CELLS).unwrap().shape().n_vocab;
    contract(&Subject { make: &|| weights.executor(CELLS).unwrap(), n_vocab, tolerance, max_leaves });
}

#[test]
fn scripted() {
    judge(&*Script::new(Rule::hashed(50, 1)).max_rows(ROWS).weights(), 0.0, LEAVES);
}

#[cfg(feature = "ggml")]
mod llama {
    use std::path::Path;

    use fulcrum::Cancel;
    use fulcrum::executor::llama::{LlamaOptions, LlamaWeights};
    use fulcrum::executor::options::{KvType, ThreadOptions};

    use super::*;

    fn load(path: &Path, kv_type: KvType) -> LlamaWeights {
        let options = LlamaOptions { max_rows: 32, threads: ThreadOptions::new(1), kv_type, ..LlamaOptions::default() };
        LlamaWeights::load(path, options, &Cancel::new(), &mut |_| ()).unwrap()
    }

    fn weights(test: &str, kv_type: KvType) -> Option<LlamaWeights> {
        Some(load(&common::model(test)?, kv_type))
    }

    /// llama.cpp sums in another order in other shapes, and with Q8_0 weights rounds activations to 8 bits on the way: up to 2.6e-2
    /// between one-by-one and batched evaluation was seen.
    #[test]
    fn contract_with_f16_cache() {
        let Some(weights) = weights("llama::contract_with_f16_cache", KvType::F16) else { return };
        judge(&weights, 3e-2, LEAVES);
    }

    /// A head dimension that blocks of 32 do not divide is an error with a reason, not an abort.
    #[test]
    fn contract_with_q8_0_cache() {
        let Some(weights) = weights("llama::contract_with_q8_0_cache", KvType::Q8_0) else { return };
        match weights.executor(CELLS) {
            Ok(_) => judge(&weights, 5e-2, LEAVES),
            Err(error) => assert!(error.to_string().contains("block size"), "{error}"),
        }
    }

    /// A model whose state cannot be cut keeps the contract by reading its history again.
    #[test]
    fn contract_with_a_running_state() {
        let Some(path) = common::recurrent_model("llama::contract_with_a_running_state") else { return };
        judge(&load(&path, KvType::F16), 5e-3, 1);
    }
}

/// The staged executor, with nothing to tolerate: its kernels give a row the same bits in any company.
#[cfg(feature = "ggml")]
#[test]
fn staged() {
    use common::quantize::WeightType;
    use common::random_model::{Family, small_model};
    use fulcrum::{ExecutorChoice, Model, ModelOptions};

    for family in [Family::Llama, Family::Gemma3, Family::Phi3] {
        let name = format!("fulcrum-contract-{}-{family:?}.gguf", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, small_model(family, WeightType::Q8_0).write()).unwrap();
        let options = ModelOptions { executor: ExecutorChoice::Staged, threads: Some(1), ..ModelOptions::default() };
        let model = Model::load(&path, options);
        std::fs::remove_file(&path).unwrap();
        judge(&**model.unwrap().weights(), 0.0, LEAVES);
    }
}
