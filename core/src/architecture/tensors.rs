//! The tensors a family's file has: names, shapes, and which may be missing.

use std::fmt;

use super::Architecture;

/// A tensor that every layer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the files' own
pub enum LayerTensor {
    AttnNorm,
    AttnQkv,
    AttnQkvBias,
    AttnQ,
    AttnQBias,
    AttnK,
    AttnKBias,
    AttnV,
    AttnVBias,
    AttnQNorm,
    AttnKNorm,
    AttnOutput,
    AttnOutputBias,
    AttnPostNorm,
    FfnNorm,
    FfnGate,
    FfnGateBias,
    FfnUp,
    FfnUpBias,
    FfnDown,
    FfnDownBias,
    FfnPostNorm,
}

/// A tensor outside the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum GlobalTensor {
    TokenEmbedding,
    OutputNorm,
    Output,
    OutputBias,
    RopeFactors,
    RopeFactorsLong,
    RopeFactorsShort,
}

/// Whether a file must have a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It must be there.
    Required,
    /// It may be there.
    Optional,
}

/// What a file says, or should say, of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Dimensions, contiguous first; vectors have one.
    pub dims: [u64; 2],
    /// Whether it must be there.
    pub need: Need,
}

impl LayerTensor {
    /// All of them, in the order of a token's walk through a block.
    pub const ALL: [Self; 22] = [
        Self::AttnNorm,
        Self::AttnQkv,
        Self::AttnQkvBias,
        Self::AttnQ,
        Self::AttnQBias,
        Self::AttnK,
        Self::AttnKBias,
        Self::AttnV,
        Self::AttnVBias,
        Self::AttnQNorm,
        Self::AttnKNorm,
        Self::AttnOutput,
        Self::AttnOutputBias,
        Self::AttnPostNorm,
        Self::FfnNorm,
        Self::FfnGate,
        Self::FfnGateBias,
        Self::FfnUp,
        Self::FfnUpBias,
        Self::FfnDown,
        Self::FfnDownBias,
        Self::FfnPostNorm,
    ];

    fn stem(self) -> (&'static str, &'static str) {
        match self {
            Self::AttnNorm => ("attn_norm", "weight"),
            Self::AttnQkv => ("attn_qkv", "weight"),
            Self::AttnQkvBias => ("attn_qkv", "bias"),
            Self::AttnQ => ("attn_q", "weight"),
            Self::AttnQBias => ("attn_q", "bias"),
            Self::AttnK => ("attn_k", "weight"),
            Self::AttnKBias => ("attn_k", "bias"),
            Self::AttnV => ("attn_v", "weight"),
            Self::AttnVBias => ("attn_v", "bias"),
            Self::AttnQNorm => ("attn_q_norm", "weight"),
            Self::AttnKNorm => ("attn_k_norm", "weight"),
            Self::AttnOutput => ("attn_output", "weight"),
            Self::AttnOutputBias => ("attn_output", "bias"),
            Self::AttnPostNorm => ("post_attention_norm", "weight"),
            Self::FfnNorm => ("ffn_norm", "weight"),
            Self::FfnGate => ("ffn_gate", "weight"),
            Self::FfnGateBias => ("ffn_gate", "bias"),
            Self::FfnUp => ("ffn_up", "weight"),
            Self::FfnUpBias => ("ffn_up", "bias"),
            Self::FfnDown => ("ffn_down", "weight"),
            Self::FfnDownBias => ("ffn_down", "bias"),
            Self::FfnPostNorm => ("post_ffw_norm", "weight"),
        }
    }

    /// The tensor's name in layer `layer`.
    pub fn name(self, layer: u32) -> String {
        let (stem, kind) = self.stem();
        format!("blk.{layer}.{stem}.{kind}")
    }

    /// What the architecture expects; `None` if it has no such tensor.
    pub fn spec(self, arch: &Architecture) -> Option<TensorSpec> {
        use LayerTensor as T;
        let family = arch.family;
        let (embd, ff, head) = (u64::from(arch.n_embd), u64::from(arch.n_ff), u64::from(arch.head_dim));
        let (q, kv) = (u64::from(arch.n_embd_q()), u64::from(arch.n_embd_kv()));
        let required = |dims| Some(TensorSpec { dims, need: Need::Required });
        let optional = |dims| Some(TensorSpec { dims, need: Need::Optional });
        match self {
            T::AttnNorm | T::FfnNorm => required([embd, 1]),
            T::AttnQkv if arch.fused_qkv => required([embd, q + 2 * kv]),
            T::AttnQkvBias if arch.fused_qkv => optional([q + 2 * kv, 1]),
            T::AttnQ if !arch.fused_qkv => required([embd, q]),
            T::AttnK | T::AttnV if !arch.fused_qkv => required([embd, kv]),
            T::AttnQBias if !arch.fused_qkv => optional([q, 1]),
            T::AttnKBias | T::AttnVBias if !arch.fused_qkv => optional([kv, 1]),
            T::AttnQNorm | T::AttnKNorm if family.qk_norm => required([head, 1]),
            T::AttnOutput => required([q, embd]),
            T::AttnOutputBias => optional([embd, 1]),
            T::AttnPostNorm | T::FfnPostNorm if family.post_norm => required([embd, 1]),
            T::FfnGate if !family.fused_gate_up => required([embd, ff]),
            T::FfnGateBias if !family.fused_gate_up => optional([ff, 1]),
            T::FfnUp if family.fused_gate_up => required([embd, 2 * ff]),
            T::FfnUp => required([embd, ff]),
            T::FfnUpBias if !family.fused_gate_up => optional([ff, 1]),
            T::FfnDown => required([ff, embd]),
            T::FfnDownBias if !family.fused_gate_up => optional([embd, 1]),
            _ => None,
        }
    }

    /// Whether this tensor is the weights of a product, which devices may want in another layout.
    pub fn is_matrix(self) -> bool {
        use LayerTensor as T;
        matches!(self, T::AttnQkv | T::AttnQ | T::AttnK | T::AttnV | T::AttnOutput | T::FfnGate | T::FfnUp | T::FfnDown)
    }
}

impl GlobalTensor {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::TokenEmbedding,
        Self::OutputNorm,
        Self::Output,
        Self::OutputBias,
        Self::RopeFactors,
        Self::RopeFactorsLong,
        Self::RopeFactorsShort,
    ];

    /// The tensor's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::TokenEmbedding => "token_embd.weight",
            Self::OutputNorm => "output_norm.weight",
            Self::Output => "output.weight",
            Self::OutputBias => "output.bias",
            Self::RopeFactors => "rope_freqs.weight",
            Self::RopeFactorsLong => "rope_factors_long.weight",
            Self::RopeFactorsShort => "rope_factors_short.weight",
        }
    }

    /// What the architecture expects.
    pub fn spec(self, arch: &Architecture) -> TensorSpec {
        let (embd, vocab) = (u64::from(arch.n_embd), u64::from(arch.n_vocab));
        let required = |dims| TensorSpec { dims, need: Need::Required };
        let optional = |dims| TensorSpec { dims, need: Need::Optional };
        match self {
            Self::TokenEmbedding => required([embd, vocab]),
            Self::OutputNorm => required([embd, 1]),
            Self::Output => optional([embd, vocab]),
            Self::OutputBias => optional([vocab, 1]),
            Self::RopeFactors | Self::RopeFactorsLong | Self::RopeFactorsShort => {
                optional([u64::from(arch.rope.n_dims / 2), 1])
            }
        }
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dims {
            [n, 1] => write!(f, "[{n}]"),
            [k, n] => write!(f, "[{k}, {n}]"),
        }
    }
}
