//! Small models with random weights, one for each family the staged executor runs.
//!
//! Tensor names, shapes and metadata are those that llama.cpp's loaders read. Weights are scaled so that activations stay
//! near 1 and logits are spread over several units: a difference in the arithmetic then shows in the logits. The same seed
//! gives the same numbers for every weight type, before they are quantised.

use super::gguf_writer::GgufWriter;
use super::quantize::WeightType;
use super::small_vocabulary::{self, N_VOCAB};

/// What the model is to resemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Llama,
    /// `llama` with the frequency factors of Llama 3.
    Llama3,
    /// `llama` with heads that are wider than the embedding divided by their number.
    Mistral,
    /// Biases on queries, keys and values.
    Qwen2,
    /// Norms on queries and keys; wide heads.
    Qwen3,
    /// Post norms, soft caps, every other layer with a sliding window, scaled embedding; always tied.
    Gemma2,
    /// Post norms, norms on queries and keys, five layers of six with a sliding window and a rotary base of their own.
    Gemma3,
    /// Fused queries/keys/values and fused gate/up.
    Phi3,
    /// `phi3` with factors for short and long contexts.
    Phi3Longrope,
}

impl Family {
    pub const ALL: [Self; 9] = [
        Self::Llama,
        Self::Llama3,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gemma2,
        Self::Gemma3,
        Self::Phi3,
        Self::Phi3Longrope,
    ];

    pub fn architecture(self) -> &'static str {
        match self {
            Self::Llama | Self::Llama3 | Self::Mistral => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
            Self::Phi3 | Self::Phi3Longrope => "phi3",
        }
    }

    fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }

    fn is_phi(self) -> bool {
        matches!(self, Self::Phi3 | Self::Phi3Longrope)
    }
}

/// Sizes and form of a model.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    pub weights: WeightType,
    /// The output projection is the embedding. Gemma 2 always is tied.
    pub tied: bool,
    pub n_layers: u32,
    /// A multiple of 256 for K-quants, as is `n_ff`, and `n_head * head_dim`.
    pub n_embd: u32,
    pub n_head: u32,
    pub n_head_kv: u32,
    pub head_dim: u32,
    pub n_ff: u32,
    /// Length of context the model claims to be trained for.
    pub n_ctx: u32,
    /// Positions a windowed layer sees, in the families that have them.
    pub sliding_window: u32,
    /// Context up to which the short factors of `Phi3Longrope` hold.
    pub n_ctx_short: u32,
    pub seed: u64,
}

impl ModelOptions {
    /// Sizes at which every rule of the family takes part.
    pub fn new(family: Family) -> Self {
        let wide_heads = matches!(family, Family::Mistral | Family::Qwen3) || family.is_gemma();
        Self {
            weights: WeightType::F32,
            tied: family.is_gemma(),
            n_layers: match family {
                Family::Gemma3 => 7,
                Family::Gemma2 => 4,
                _ => 3,
            },
            n_embd: 256,
            n_head: 8,
            n_head_kv: 2,
            head_dim: if wide_heads { 64 } else { 32 },
            n_ff: 512,
            n_ctx: 2048,
            sliding_window: 32,
            n_ctx_short: 256,
            seed: 1,
        }
    }

    pub fn weights(self, weights: WeightType) -> Self {
        Self { weights, ..self }
    }

    pub fn tied(self, tied: bool) -> Self {
        Self { tied, ..self }
    }

    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }
}

/// A model of `family` with the default sizes, its matrices stored as `weights`.
pub fn small_model(family: Family, weights: WeightType) -> GgufWriter {
    random_model(family, &ModelOptions::new(family).weights(weights))
}

/// A model of `family`.
pub fn random_model(family: Family, options: &ModelOptions) -> GgufWriter {
    let mut file = GgufWriter::default();
    describe(&mut file, family, options);
    small_vocabulary::describe(&mut file);
    let mut model = Builder { file, options };
    model.outer_tensors(family);
    (0..options.n_layers).for_each(|layer| model.layer_tensors(family, layer));
    model.file
}

/// The same with two feed-forward networks per layer, of which one is used: what the family `llama` is in Mixtral. Weights are F32.
pub fn with_experts(mut model: GgufWriter, options: &ModelOptions) -> GgufWriter {
    model.set("llama.expert_count", 2_u32).set("llama.expert_used_count", 1_u32);
    model.tensors.retain(|tensor| !tensor.name.contains(".ffn_") || tensor.name.contains("norm"));
    let (n_embd, n_ff) = (options.n_embd.into(), options.n_ff.into());
    for layer in 0..options.n_layers {
        for (name, dims) in [
            ("gate_inp", &[n_embd, 2][..]),
            ("gate_exps", &[n_embd, n_ff, 2]),
            ("up_exps", &[n_embd, n_ff, 2]),
            ("down_exps", &[n_ff, n_embd, 2]),
        ] {
            let weights = (0..dims.iter().product()).map(|i: u64| (i % 7) as f32 / 70.0);
            let data = weights.flat_map(f32::to_le_bytes).collect();
            model.tensor(&format!("blk.{layer}.ffn_{name}.weight"), dims, 0, data);
        }
    }
    model
}

fn describe(file: &mut GgufWriter, family: Family, options: &ModelOptions) {
    let architecture = family.architecture();
    let key = |name: &str| format!("{architecture}.{name}");
    file.set("general.architecture", architecture).set("general.name", "random weights");
    file.set(&key("context_length"), options.n_ctx).set(&key("embedding_length"), options.n_embd);
    file.set(&key("block_count"), options.n_layers).set(&key("feed_forward_length"), options.n_ff);
    file.set(&key("attention.head_count"), options.n_head).set(&key("attention.head_count_kv"), options.n_head_kv);
    file.set(&key("attention.key_length"), options.head_dim).set(&key("attention.value_length"), options.head_dim);
    file.set(&key("attention.layer_norm_rms_epsilon"), 1e-5_f32);
    file.set(&key("rope.dimension_count"), options.head_dim).set(&key("vocab_size"), N_VOCAB as u32);
    let freq_base = match family {
        Family::Llama3 => 500_000.0_f32,
        Family::Mistral | Family::Qwen2 | Family::Qwen3 | Family::Gemma3 => 1_000_000.0,
        _ => 10_000.0,
    };
    file.set(&key("rope.freq_base"), freq_base);
    match family {
        Family::Gemma2 => {
            file.set(&key("attention.sliding_window"), options.sliding_window);
            file.set(&key("attn_logit_softcapping"), 50.0_f32).set(&key("final_logit_softcapping"), 30.0_f32);
        }
        Family::Gemma3 => {
            file.set(&key("attention.sliding_window"), options.sliding_window);
            file.set(&key("rope.freq_base_swa"), 10_000.0_f32);
            file.set(&key("rope.scaling.type"), "linear").set(&key("rope.scaling.factor"), 8.0_f32);
        }
        Family::Phi3Longrope => {
            file.set(&key("rope.scaling.original_context_length"), options.n_ctx_short);
            file.set(&key("rope.scaling.attn_factor"), 1.19_f32);
        }
        _ => {}
    }
}

struct Builder<'a> {
    file: GgufWriter,
    options: &'a ModelOptions,
}

impl Builder<'_> {
    fn outer_tensors(&mut self, family: Family) {
        let n_embd = self.options.n_embd;
        // Gemma multiplies embeddings by the root of their width; as output rows they are multiplied by a norm near 1.
        let embedding = if family.is_gemma() { 0.2 } else { 0.5 };
        self.matrix("token_embd.weight", n_embd, N_VOCAB as u32, embedding * f64::from(n_embd).sqrt());
        self.norm("output_norm.weight", n_embd);
        if !self.options.tied && family != Family::Gemma2 {
            self.matrix("output.weight", n_embd, N_VOCAB as u32, 4.0);
        }
        let n_factors = self.options.head_dim / 2;
        if family == Family::Llama3 {
            // As Llama 3 has them: 1 for high frequencies, 8 for low ones, a ramp between.
            self.vector("rope_freqs.weight", n_factors, |i, n| 1.0 + 7.0 * (2.0 * i / n - 0.5).clamp(0.0, 1.0));
        }
        if family == Family::Phi3Longrope {
            self.vector("rope_factors_long.weight", n_factors, |i, n| 1.0 + 30.0 * (i / n).powi(2));
            self.vector("rope_factors_short.weight", n_factors, |i, n| 1.0 + 0.5 * i / n);
        }
    }

    fn layer_tensors(&mut self, family: Family, layer: u32) {
        let &ModelOptions { n_embd, n_head, n_head_kv, head_dim, n_ff, .. } = self.options;
        let (n_q, n_kv) = (n_head * head_dim, n_head_kv * head_dim);
        let name = |name: &str| format!("blk.{layer}.{name}");
        self.norm(&name("attn_norm.weight"), n_embd);
        if family.is_phi() {
            self.matrix(&name("attn_qkv.weight"), n_embd, n_q + 2 * n_kv, 1.0);
        } else {
            for (part, width) in [("q", n_q), ("k", n_kv), ("v", n_kv)] {
                self.matrix(&name(&format!("attn_{part}.weight")), n_embd, width, 1.0);
                if family == Family::Qwen2 {
                    self.normal_vector(&name(&format!("attn_{part}.bias")), width, 0.0, 0.5);
                }
            }
        }
        if matches!(family, Family::Qwen3 | Family::Gemma3) {
            self.norm(&name("attn_q_norm.weight"), head_dim);
            self.norm(&name("attn_k_norm.weight"), head_dim);
        }
        self.matrix(&name("attn_output.weight"), n_q, n_embd, 0.7);
        self.norm(&name("ffn_norm.weight"), n_embd);
        if family.is_gemma() {
            self.norm(&name("post_attention_norm.weight"), n_embd);
            self.norm(&name("post_ffw_norm.weight"), n_embd);
        }
        if family.is_phi() {
            self.matrix(&name("ffn_up.weight"), n_embd, 2 * n_ff, 1.0);
        } else {
            self.matrix(&name("ffn_gate.weight"), n_embd, n_ff, 1.0);
            self.matrix(&name("ffn_up.weight"), n_embd, n_ff, 1.0);
        }
        self.matrix(&name("ffn_down.weight"), n_ff, n_embd, 1.0);
    }

    /// A product that makes `n_out` numbers of the size of `gain` from `n_in` numbers of the size of 1.
    fn matrix(&mut self, name: &str, n_in: u32, n_out: u32, gain: f64) {
        let deviation = gain / f64::from(n_in).sqrt();
        let mut numbers = Numbers::new(self.options.seed, name);
        let values: Vec<f32> = (0..n_in * n_out).map(|_| (numbers.normal() * deviation) as f32).collect();
        let weights = self.options.weights;
        self.file.tensor(name, &[n_in.into(), n_out.into()], weights.code(), weights.quantize(&values));
    }

    fn norm(&mut self, name: &str, len: u32) {
        self.normal_vector(name, len, 1.0, 0.1);
    }

    fn normal_vector(&mut self, name: &str, len: u32, mean: f64, deviation: f64) {
        let mut numbers = Numbers::new(self.options.seed, name);
        self.vector(name, len, |_, _| mean + deviation * numbers.normal());
    }

    fn vector(&mut self, name: &str, len: u32, mut value: impl FnMut(f64, f64) -> f64) {
        let values: Vec<f32> = (0..len).map(|i| value(f64::from(i), f64::from(len)) as f32).collect();
        self.file.tensor(name, &[len.into()], WeightType::F32.code(), WeightType::F32.quantize(&values));
    }
}

/// Random numbers of one tensor: `SplitMix64`, started from the seed and the tensor's name.
struct Numbers(u64);

impl Numbers {
    fn new(seed: u64, name: &str) -> Self {
        // FNV-1a.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(hash ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Uniform in (0, 1].
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 + f64::EPSILON
    }

    /// Mean 0, deviation 1 (Box and Muller).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).max(0.0).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
