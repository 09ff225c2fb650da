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

    use fulcrum::{ExecutorChoice, KvType, Model, ModelOptions};

    use super::common::quantize::WeightType;
    use super::common::random_model::{Family, small_model};
    use super::*;

    fn load(path: &Path, kv_type: KvType) -> Model {
        let options = ModelOptions {
            executor: ExecutorChoice::LlamaCpp,
            batch_size: 32,
            threads: Some(1),
            kv_type,
            // A recurrent model's is one of those that nothing checks.
            unchecked_architecture: true,
            ..ModelOptions::default()
        };
        Model::load(path, options).unwrap()
    }

    /// llama.cpp sums in another order in other shapes; F32 weights keep it from rounding activations to 8 bits besides, which
    /// would hide what a broken law does to the logits.
    fn random_weights(kv_type: KvType) -> Model {
        let name = format!("fulcrum-contract-{}-{kv_type:?}.gguf", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, small_model(Family::Llama, WeightType::F32).write()).unwrap();
        let model = load(&path, kv_type);
        std::fs::remove_file(&path).unwrap();
        model
    }

    #[test]
    fn contract_with_f16_cache() {
        judge(&**random_weights(KvType::F16).weights(), 5e-3, LEAVES);
    }

    #[test]
    fn contract_with_q8_0_cache() {
        judge(&**random_weights(KvType::Q8_0).weights(), 5e-3, LEAVES);
    }

    /// A model whose state cannot be cut keeps the contract by reading its history again.
    #[test]
    fn contract_with_a_running_state() {
        let Some(path) = common::recurrent_model("llama::contract_with_a_running_state") else { return };
        judge(&**load(&path, KvType::F16).weights(), 5e-3, 1);
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
