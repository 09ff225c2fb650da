//! The executor contract, on the executors there are.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "ggml")]
mod common;
mod contract;

use contract::{CELLS, ROWS, Subject, contract};
use fulcrum::executor::Weights;
use fulcrum::executor::scripted::{Rule, Script};

#[test]
fn scripted() {
    let weights = Script::new(Rule::hashed(50, 1)).max_rows(ROWS).weights();
    contract(&Subject { make: &|| weights.executor(CELLS).unwrap(), tolerance: 0.0, max_leaves: ROWS });
}

#[cfg(feature = "ggml")]
mod llama {
    use fulcrum::Cancel;
    use fulcrum::executor::llama::{LlamaOptions, LlamaWeights};
    use fulcrum::executor::options::{KvType, ThreadOptions};

    use super::*;

    fn weights(test: &str, options: LlamaOptions) -> Option<LlamaWeights> {
        let path = common::model(test)?;
        Some(LlamaWeights::load(&path, options, &Cancel::new(), &mut |_| ()).unwrap())
    }

    fn options(n_threads: usize) -> LlamaOptions {
        LlamaOptions { max_rows: 32, threads: ThreadOptions::new(n_threads), ..LlamaOptions::default() }
    }

    /// K and V are stored in half precision, and llama.cpp sums in another order in other shapes.
    #[test]
    fn contract_with_f16_cache() {
        for n_threads in [1, 2] {
            let Some(weights) = weights("llama::contract_with_f16_cache", options(n_threads)) else { return };
            contract(&Subject { make: &|| weights.executor(CELLS).unwrap(), tolerance: 5e-3, max_leaves: 64 });
        }
    }

    /// A head dimension that blocks of 32 do not divide is an error with a reason, not an abort.
    #[test]
    fn contract_with_q8_0_cache() {
        let options = LlamaOptions { kv_type: KvType::Q8_0, ..options(1) };
        let Some(weights) = weights("llama::contract_with_q8_0_cache", options) else { return };
        match weights.executor(CELLS) {
            Ok(_) => contract(&Subject { make: &|| weights.executor(CELLS).unwrap(), tolerance: 5e-2, max_leaves: 64 }),
            Err(error) => assert!(error.to_string().contains("block size"), "{error}"),
        }
    }
}
