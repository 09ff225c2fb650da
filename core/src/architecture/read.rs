//! Reads an [`Architecture`] from a file's metadata and checks its tensor table against it.

use super::{Architecture, FAMILIES, Family, GlobalTensor, LayerTensor, Need, Rope, TensorSpec, Windows};
use crate::gguf::{Array, Gguf, KeyError};

/// Keys that change what a block computes and that the table has no column for; their absence or 0 is what it describes.
const UNDESCRIBED: [&str; 11] = [
    "attention.scale",
    "attention.clamp_kqv",
    "residual_scale",
    "embedding_scale",
    "logit_scale",
    "rope.scaling.alpha",
    "rope.scaling.yarn_log_multiplier",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
];

/// Why the staged executor does not run a file; llama.cpp's own context may.
pub(super) type Unsupported = String;

impl Architecture {
    /// The architecture of `file`, if the table describes it down to the last tensor.
    ///
    /// # Errors
    ///
    /// The reason, as a clause: "the architecture `mamba` is not in the table".
    pub fn read(file: &Gguf<'_>) -> Result<Self, Unsupported> {
        let name: &str = file.require("general.architecture").map_err(said)?;
        let family = FAMILIES.iter().find(|f| f.name == name);
        let family = family.ok_or_else(|| format!("the architecture `{name}` is not in the table"))?;
        let arch = Keys { file, family }.architecture()?;
        arch.check_tensors(file)?;
        Ok(arch)
    }

    fn check_tensors(&self, file: &Gguf<'_>) -> Result<(), Unsupported> {
        let mut described = 0;
        for global in GlobalTensor::ALL {
            described += check(file, global.name(), &global.spec(self))?;
        }
        for layer in 0..self.n_layers {
            for (tensor, spec) in LayerTensor::ALL.iter().filter_map(|t| Some((t, t.spec(self)?))) {
                described += check(file, &tensor.name(layer), &spec)?;
            }
        }
        if described == file.tensors().len() {
            return Ok(());
        }
        let known = |name: &str| {
            GlobalTensor::ALL.iter().any(|g| g.name() == name)
                || (0..self.n_layers)
                    .any(|l| LayerTensor::ALL.iter().any(|t| t.spec(self).is_some() && t.name(l) == name))
        };
        let stranger = file.tensors().iter().find(|t| !known(t.name)).map_or("?", |t| t.name);
        Err(format!("the tensor `{stranger}` is not part of the architecture `{}` as described here", self.family.name))
    }
}

fn check(file: &Gguf<'_>, name: &str, spec: &TensorSpec) -> Result<usize, Unsupported> {
    match (file.tensor(name), spec.need) {
        (Some(found), _) if found.shape.extents() == [spec.dims[0], spec.dims[1], 1, 1] => Ok(1),
        (Some(found), _) => Err(format!("the tensor `{name}` has the shape {}, not {spec}", found.shape)),
        (None, Need::Optional) => Ok(0),
        (None, Need::Required) => Err(format!("the tensor `{name}` is missing")),
    }
}

fn said(error: KeyError) -> Unsupported {
    error.to_string()
}

/// Metadata of one file, under its family's prefix.
struct Keys<'f, 'b> {
    file: &'f Gguf<'b>,
    family: &'static Family,
}

impl Keys<'_, '_> {
    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.family.name)
    }

    fn number(&self, suffix: &str) -> Result<Option<u32>, Unsupported> {
        self.file.find::<u32>(&self.key(suffix)).map_err(said)
    }

    fn required(&self, suffix: &str) -> Result<u32, Unsupported> {
        let value = self.file.require::<u32>(&self.key(suffix)).map_err(said)?;
        if value == 0 { Err(format!("the metadata key `{}` is 0", self.key(suffix))) } else { Ok(value) }
    }

    fn float(&self, suffix: &str) -> Result<Option<f32>, Unsupported> {
        let value = self.file.find::<f32>(&self.key(suffix)).map_err(said)?;
        match value {
            Some(v) if !v.is_finite() => Err(format!("the metadata key `{}` is {v}", self.key(suffix))),
            other => Ok(other),
        }
    }

    fn architecture(&self) -> Result<Architecture, Unsupported> {
        let family = self.family;
        self.refuse_strangers()?;
        let (n_embd, n_heads) = (self.required("embedding_length")?, self.required("attention.head_count")?);
        let n_heads_kv = self.number("attention.head_count_kv")?.unwrap_or(n_heads);
        if n_heads_kv == 0 || !n_heads.is_multiple_of(n_heads_kv) {
            return Err(format!("{n_heads} query heads cannot share {n_heads_kv} key heads"));
        }
        let head_dim = self.head_dim(n_embd, n_heads)?;
        let n_layers = self.required("block_count")?;
        let (window, windowed) = self.windows(n_layers)?;
        let rope = self.rope(head_dim)?;
        let window_rope = self.window_rope(&rope)?;
        let embedding = self.file.tensor(GlobalTensor::TokenEmbedding.name());
        let embedding = embedding.ok_or_else(|| "the tensor `token_embd.weight` is missing".to_owned())?;
        let n_vocab =
            u32::try_from(embedding.shape.extents()[1]).map_err(|_| "the vocabulary is absurdly large".to_owned())?;
        Ok(Architecture {
            family,
            n_vocab,
            n_ctx_train: self.required("context_length")?,
            n_embd,
            n_layers,
            n_ff: self.required("feed_forward_length")?,
            n_heads,
            n_heads_kv,
            head_dim,
            norm_epsilon: self.epsilon()?,
            attention_scale: self.attention_scale(n_embd, n_heads, head_dim, n_layers),
            attention_cap: self.cap("attn_logit_softcapping", family.attention_cap)?,
            logit_cap: self.cap("final_logit_softcapping", family.logit_cap)?,
            rope,
            window_rope,
            window,
            windowed,
            tied_output: self.file.tensor(GlobalTensor::Output.name()).is_none(),
            fused_qkv: self.file.tensor(&LayerTensor::AttnQkv.name(0)).is_some(),
        })
    }

    /// Features of an otherwise known architecture that change what a block computes.
    fn refuse_strangers(&self) -> Result<(), Unsupported> {
        if self.number("expert_count")?.unwrap_or(0) > 0 {
            return Err("mixture-of-experts models are not described here".into());
        }
        if self.file.find::<bool>(&self.key("attention.causal")).map_err(said)? == Some(false) {
            return Err("attention is not causal: this is an encoder".into());
        }
        if self.number("nextn_predict_layers")?.unwrap_or(0) > 0 {
            return Err("next-token-prediction layers are not described here".into());
        }
        for suffix in UNDESCRIBED {
            if self.float(suffix)?.is_some_and(|v| v != 0.0) {
                return Err(format!("the metadata key `{}` is not described here", self.key(suffix)));
            }
        }
        Ok(())
    }

    fn head_dim(&self, n_embd: u32, n_heads: u32) -> Result<u32, Unsupported> {
        let default = n_embd / n_heads;
        let keys = self.number("attention.key_length")?.unwrap_or(default);
        let values = self.number("attention.value_length")?.unwrap_or(default);
        if keys != values || keys == 0 || !keys.is_multiple_of(2) {
            return Err(format!("heads of {keys} key and {values} value elements are not described here"));
        }
        let heads_fit = keys.checked_mul(n_heads).is_some_and(|all| all <= 1 << 20);
        if heads_fit { Ok(keys) } else { Err(format!("{n_heads} heads of {keys} elements are absurd")) }
    }

    fn epsilon(&self) -> Result<f32, Unsupported> {
        let suffix = "attention.layer_norm_rms_epsilon";
        let value = self.float(suffix)?.ok_or_else(|| format!("the metadata key `{}` is missing", self.key(suffix)))?;
        if value >= 0.0 { Ok(value) } else { Err(format!("the metadata key `{}` is {value}", self.key(suffix))) }
    }

    fn cap(&self, suffix: &str, default: Option<f32>) -> Result<Option<f32>, Unsupported> {
        let Some(default) = default else { return Ok(None) };
        Ok(Some(self.float(suffix)?.unwrap_or(default)).filter(|&cap| cap != 0.0))
    }

    #[allow(clippy::cast_precision_loss)] // small integers
    fn attention_scale(&self, n_embd: u32, n_heads: u32, head_dim: u32, n_layers: u32) -> f32 {
        let wide = self.family.wide_scale_layers == Some(n_layers);
        1.0 / (if wide { n_embd / n_heads } else { head_dim } as f32).sqrt()
    }

    fn windows(&self, n_layers: u32) -> Result<(Option<u32>, Vec<bool>), Unsupported> {
        let none = (None, vec![false; n_layers as usize]);
        let Windows::AllButEvery { pattern, default_window } = self.family.windows else { return Ok(none) };
        let window = self.number("attention.sliding_window")?.unwrap_or(default_window);
        if window == 0 {
            return Ok(none);
        }
        let key = self.key("attention.sliding_window_pattern");
        if let Some(array) = self.file.get(&key).and_then(|_| self.file.find::<Array<'_>>(&key).ok().flatten()) {
            let layers: Option<Vec<bool>> = array.to_vec();
            let layers = layers.filter(|l| l.len() == n_layers as usize);
            return layers
                .map(|l| (Some(window), l))
                .ok_or_else(|| format!("the metadata key `{key}` does not fit the layers"));
        }
        let pattern = self.number("attention.sliding_window_pattern")?.unwrap_or(pattern);
        let windowed = (0..n_layers).map(|l| pattern == 0 || l % pattern < pattern - 1).collect();
        Ok((Some(window), windowed))
    }

    fn rope(&self, head_dim: u32) -> Result<Rope, Unsupported> {
        let n_dims = self.number("rope.dimension_count")?.unwrap_or(head_dim);
        if n_dims == 0 || n_dims > head_dim || !n_dims.is_multiple_of(2) {
            return Err(format!("a rotation of {n_dims} of {head_dim} elements is not possible"));
        }
        let scaling: Option<&str> = self.file.find(&self.key("rope.scaling.type")).map_err(said)?;
        let yarn = match scaling.unwrap_or("linear") {
            "none" | "linear" | "longrope" => false,
            "yarn" => true,
            other => return Err(format!("the rope scaling `{other}` is not described here")),
        };
        let factor = match self.float("rope.scaling.factor")? {
            None => self.float("rope.scale_linear")?,
            found => found,
        };
        let factor = factor.filter(|&f| f > 0.0 && scaling != Some("none")).unwrap_or(1.0);
        // ggml multiplies the magnitude by 1 + 0.1 ln(factor) under YaRN, which is the factor wanted when it is above 1.
        let yarn_factor = if yarn && factor < 1.0 { 1.0 / (1.0 + 0.1 * factor.ln()) } else { 1.0 };
        Ok(Rope {
            pairs: self.family.rope_pairs,
            n_dims,
            freq_base: self.float("rope.freq_base")?.unwrap_or(10_000.0),
            freq_scale: 1.0 / factor,
            n_ctx_orig: match self.number("rope.scaling.original_context_length")? {
                Some(n) => n,
                None => self.required("context_length")?,
            },
            ext_factor: if yarn { 1.0 } else { 0.0 },
            attn_factor: self.float("rope.scaling.attn_factor")?.unwrap_or(1.0) * yarn_factor,
        })
    }

    fn window_rope(&self, rope: &Rope) -> Result<Rope, Unsupported> {
        let (base, scale) =
            if self.family.window_shares_rope { (rope.freq_base, rope.freq_scale) } else { (10_000.0, 1.0) };
        let freq_base = self.float("rope.freq_base_swa")?.unwrap_or(base);
        Ok(Rope { freq_base, freq_scale: scale, ..*rope })
    }
}
