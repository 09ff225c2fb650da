//! What the machine offers, as far as it matters to a model.

use serde::{Deserialize, Serialize};

use crate::executor::memory::available_memory;
use crate::executor::options::ThreadOptions;
use crate::kernels::gemm::Isa;
use crate::kernels::runtime::{simd_in_use, start};

/// What the machine offers, and what this build makes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Machine {
    /// Threads that compute by default: one per performance core.
    pub threads: usize,
    /// The instruction set that Fulcrum's kernels chose at run time, for example `avx512`.
    pub kernels: String,
    /// The instruction sets that ggml was built for, by its names (`AVX2`, `DOTPROD`, …): never more than this CPU has.
    pub ggml: Vec<String>,
    /// Bytes that can be allocated without swapping, where the system says so (Linux and Android).
    pub available_bytes: Option<u64>,
}

impl Machine {
    /// The machine this runs on, now.
    pub fn here() -> Self {
        start();
        Self {
            threads: ThreadOptions::default().n_threads,
            kernels: Isa::detect().name().to_owned(),
            ggml: simd_in_use().into_iter().collect(),
            available_bytes: available_memory(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_threads_and_instructions() {
        let machine = Machine::here();
        assert!(machine.threads >= 1 && !machine.kernels.is_empty() && !machine.ggml.is_empty(), "{machine:?}");
    }
}
