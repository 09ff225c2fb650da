//! Model families as data.
//!
//! One decoder block serves every family; a [`Family`] says in what a family differs, and an [`Architecture`] adds the sizes of one
//! file. A new family of the same kind is a new row of [`FAMILIES`]. Numeric conventions (where a scale is applied, which default
//! a missing key has) are those of the vendored llama.cpp, because its output is the oracle.
//!
//! Deliberately not here: bytes, devices, graphs. A file whose architecture has no row, or that has a tensor this table does not
//! describe, is for llama.cpp's own context; the reason is said.

mod read;
mod tensors;

pub use tensors::{GlobalTensor, LayerTensor, Need, TensorSpec};

/// How rotary embedding pairs the elements of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairs {
    /// Neighbours, as Llama files are stored.
    Adjacent,
    /// First half with second half, as GPT-NeoX.
    Halves,
}

/// The gate's activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// Tanh approximation of GELU.
    Gelu,
}

/// Which layers attend through a sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// None does, whatever the file says.
    Never,
    /// Of every `pattern` layers all but the last, if the file has a window or there is a default.
    AllButEvery {
        /// Length of the pattern, unless the file has its own.
        pattern: u32,
        /// Window where the file has none, positions; 0 for no window.
        default_window: u32,
    },
}

/// In what a family differs from the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Family {
    /// `general.architecture`.
    pub name: &'static str,
    /// Rotary embedding.
    pub rope_pairs: RopePairs,
    /// Queries and keys are normalised per head before rotation.
    pub qk_norm: bool,
    /// The outputs of attention and feed-forward are normalised before they are added.
    pub post_norm: bool,
    /// Feed-forward activation.
    pub activation: Activation,
    /// Gate and up projection are one matrix.
    pub fused_gate_up: bool,
    /// Embeddings are multiplied by `sqrt(n_embd)`.
    pub embedding_scale: bool,
    /// The attention scale is applied to the queries, before the product with the keys.
    pub scale_queries: bool,
    /// With this many layers the attention scale is `1/sqrt(n_embd / n_heads)` instead of `1/sqrt(head_dim)`.
    pub wide_scale_layers: Option<u32>,
    /// Cap of attention scores where the file says nothing; `None` if the family has no such cap.
    pub attention_cap: Option<f32>,
    /// Cap of logits where the file says nothing, 0 for none; `None` if the family has no such cap.
    pub logit_cap: Option<f32>,
    /// Sliding windows.
    pub windows: Windows,
    /// Windowed layers rotate with the base of the others unless the file says otherwise; if not, with 10,000.
    pub window_shares_rope: bool,
}

const LLAMA: Family = Family {
    name: "llama",
    rope_pairs: RopePairs::Adjacent,
    qk_norm: false,
    post_norm: false,
    activation: Activation::Silu,
    fused_gate_up: false,
    embedding_scale: false,
    scale_queries: false,
    wide_scale_layers: None,
    attention_cap: None,
    logit_cap: None,
    windows: Windows::Never,
    window_shares_rope: true,
};

const QWEN2: Family = Family { name: "qwen2", rope_pairs: RopePairs::Halves, ..LLAMA };

const GEMMA2: Family = Family {
    name: "gemma2",
    rope_pairs: RopePairs::Halves,
    post_norm: true,
    activation: Activation::Gelu,
    embedding_scale: true,
    scale_queries: true,
    wide_scale_layers: Some(46),
    attention_cap: Some(50.0),
    logit_cap: Some(30.0),
    windows: Windows::AllButEvery { pattern: 2, default_window: 4096 },
    ..LLAMA
};

/// Every family the staged executor describes. `llama` includes Mistral, SmolLM2 and whatever else is stored under that name.
pub const FAMILIES: &[Family] = &[
    LLAMA,
    QWEN2,
    Family { name: "qwen3", qk_norm: true, ..QWEN2 },
    GEMMA2,
    Family {
        name: "gemma3",
        qk_norm: true,
        wide_scale_layers: Some(62),
        attention_cap: None,
        logit_cap: Some(0.0),
        windows: Windows::AllButEvery { pattern: 6, default_window: 0 },
        window_shares_rope: false,
        ..GEMMA2
    },
    Family { name: "phi3", fused_gate_up: true, scale_queries: true, ..QWEN2 },
];

/// Rotary embedding of one kind of layer; the names are the field's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Pairing.
    pub pairs: RopePairs,
    /// Elements of a head that are rotated.
    pub n_dims: u32,
    /// Base of the frequencies.
    pub freq_base: f32,
    /// Factor on positions: the inverse of a linear scaling.
    pub freq_scale: f32,
    /// Context length before scaling, positions.
    pub n_ctx_orig: u32,
    /// Share of YaRN's extrapolation: 1 under YaRN, else 0.
    pub ext_factor: f32,
    /// Factor on the magnitude.
    pub attn_factor: f32,
}

/// YaRN's ramp, rotations; the same for every model.
pub const YARN_BETA_FAST: f32 = 32.0;
/// YaRN's ramp, rotations; the same for every model.
pub const YARN_BETA_SLOW: f32 = 1.0;

/// A family with the sizes of one file.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// The row of the table.
    pub family: &'static Family,
    /// Tokens in the vocabulary.
    pub n_vocab: u32,
    /// Context length that the model was trained for, positions.
    pub n_ctx_train: u32,
    /// Length of a hidden state.
    pub n_embd: u32,
    /// Decoder layers.
    pub n_layers: u32,
    /// Width of the feed-forward block.
    pub n_ff: u32,
    /// Query heads.
    pub n_heads: u32,
    /// Key and value heads; divides `n_heads`.
    pub n_heads_kv: u32,
    /// Length of a head.
    pub head_dim: u32,
    /// Epsilon of every norm.
    pub norm_epsilon: f32,
    /// Factor on attention scores.
    pub attention_scale: f32,
    /// Cap of attention scores, if any.
    pub attention_cap: Option<f32>,
    /// Cap of logits, if any.
    pub logit_cap: Option<f32>,
    /// Rotary embedding of layers that see everything.
    pub rope: Rope,
    /// Rotary embedding of layers that see a window.
    pub window_rope: Rope,
    /// Window in positions, if any layer has one.
    pub window: Option<u32>,
    /// For each layer, whether it sees only the window.
    pub windowed: Vec<bool>,
    /// The file's output matrix is its embedding matrix.
    pub tied_output: bool,
    /// Queries, keys and values are one matrix.
    pub fused_qkv: bool,
}

impl Architecture {
    /// Length of a row of K or V: all its heads.
    pub fn n_embd_kv(&self) -> u32 {
        self.n_heads_kv * self.head_dim
    }

    /// Length of a row of Q: all its heads.
    pub fn n_embd_q(&self) -> u32 {
        self.n_heads * self.head_dim
    }

    /// The window of `layer`, positions including the row itself.
    pub fn layer_window(&self, layer: u32) -> Option<u32> {
        self.window.filter(|_| self.windowed[layer as usize])
    }

    /// Rotary embedding of `layer`.
    pub fn layer_rope(&self, layer: u32) -> &Rope {
        if self.layer_window(layer).is_some() { &self.window_rope } else { &self.rope }
    }
}
