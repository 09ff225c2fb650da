//! The weight formats that are packed, as GGUF files hold them.
//!
//! Only their block structure stands here; how a block looks in our layout is `packed.rs`, how it is multiplied `tile.rs`.

use super::activations::ActivationKind;

/// A GGUF weight format with a packed layout and product kernels.
#[allow(non_camel_case_types)] // the names that GGUF gives them
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WeightFormat {
    /// 32 weights: a half scale, 32 signed bytes.
    Q8_0,
    /// 32 weights: a half scale, 32 nibbles with zero point 8.
    Q4_0,
    /// 256 weights: half scale and half minimum of eight runs with 6-bit scales and minima, 256 nibbles.
    Q4_K,
    /// 256 weights with zero point 32: their low nibbles, their upper two bits, sixteen signed scales, a half scale of those.
    Q6_K,
}

impl WeightFormat {
    /// Every format.
    #[allow(dead_code)] // for tests and the benchmark
    pub(crate) const ALL: [Self; 4] = [Self::Q8_0, Self::Q4_0, Self::Q4_K, Self::Q6_K];

    /// Weights per block; `k` is a multiple of it.
    pub(crate) const fn block_len(self) -> usize {
        match self {
            Self::Q8_0 | Self::Q4_0 => 32,
            Self::Q4_K | Self::Q6_K => 256,
        }
    }

    /// Bytes of a block in a GGUF file.
    pub(crate) const fn gguf_block_bytes(self) -> usize {
        match self {
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_K => 144,
            Self::Q6_K => 210,
        }
    }

    /// Bytes of one row of `k` weights in a GGUF file.
    pub(crate) const fn gguf_row_bytes(self, k: usize) -> usize {
        k / self.block_len() * self.gguf_block_bytes()
    }

    /// How the activations that meet these weights are quantised.
    pub(crate) const fn activations(self) -> ActivationKind {
        match self {
            Self::Q8_0 | Self::Q4_0 => ActivationKind::Q8,
            Self::Q4_K | Self::Q6_K => ActivationKind::Q8K,
        }
    }
}
