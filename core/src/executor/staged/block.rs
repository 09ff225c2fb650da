//! The decoder block: one function for every family in the table.
//!
//! It appends the nodes of one layer to a graph: norm, Q/K/V, rotation, cache write, attention, output, feed-forward. What a family
//! lacks has no tensor, and what has no tensor is not built. The order of operations is llama.cpp's, so that with ggml's kernels
//! the numbers are too.

use super::weights::{LayerWeights, StagedModel};
use crate::architecture::{Architecture, GlobalTensor, LayerTensor as T};
use crate::kernels::graph::{Builder, Tensor};

/// What every layer of a stage reads beside its weights.
pub(super) struct StageInputs<'g> {
    /// Positions of the rows, `[rows]`.
    pub(super) positions: Tensor<'g>,
    /// Cells that the rows' keys and values go to, `[rows]`.
    pub(super) cells: Tensor<'g>,
    /// Who sees whom, `[n_kv, rows]`.
    pub(super) mask: Tensor<'g>,
    /// The same within the sliding window.
    pub(super) window_mask: Option<Tensor<'g>>,
    /// Frequency factors of the rotation, if the file has any.
    pub(super) rope_factors: Option<Tensor<'g>>,
    /// Rows of the pass.
    pub(super) rows: i64,
    /// Cells that attention looks at.
    pub(super) n_kv: i64,
}

/// One layer: its weights, its cache, and the graph they are built into.
pub(super) struct Block<'a, 'g> {
    pub(super) graph: &'a Builder<'g>,
    pub(super) arch: &'a Architecture,
    pub(super) layer: u32,
    pub(super) weights: &'a LayerWeights,
    pub(super) keys: Tensor<'g>,
    pub(super) values: Tensor<'g>,
}

/// The weights are the first store of every graph.
pub(super) const WEIGHTS: usize = 0;

impl<'g> Block<'_, 'g> {
    /// Runs `h`, `[n_embd, rows]`, through the layer. With `wanted`, `[n]`, everything after attention runs for those rows only; an
    /// empty selection is `Some(None)`: keys and values are written and nothing is returned.
    pub(super) fn build(
        &self, inputs: &StageInputs<'g>, h: Tensor<'g>, wanted: Option<Option<Tensor<'g>>>,
    ) -> Option<Tensor<'g>> {
        let normed = self.norm(h, T::AttnNorm);
        let (q, k, v) = self.queries_keys_values(inputs, normed);
        let n_kv_row = i64::from(self.arch.n_embd_kv());
        self.graph.set_rows(self.keys, self.graph.reshape(k, &[n_kv_row, inputs.rows]), inputs.cells);
        self.graph.set_rows(self.values, v, inputs.cells);
        if matches!(wanted, Some(None)) {
            return None;
        }
        let mut attended = self.linear(self.attend(inputs, q), T::AttnOutput, T::AttnOutputBias);
        let mut residual = h;
        if let Some(Some(ids)) = wanted {
            attended = self.graph.get_rows(attended, ids);
            residual = self.graph.get_rows(residual, ids);
        }
        let h = self.graph.add(self.norm_if_any(attended, T::AttnPostNorm), residual);
        let fed = self.feed_forward(self.norm(h, T::FfnNorm));
        Some(self.graph.add(self.norm_if_any(fed, T::FfnPostNorm), h))
    }

    /// Rotated queries `[head_dim, heads, rows]`, rotated keys `[head_dim, kv_heads, rows]`, values `[n_embd_kv, rows]`.
    fn queries_keys_values(&self, inputs: &StageInputs<'g>, x: Tensor<'g>) -> (Tensor<'g>, Tensor<'g>, Tensor<'g>) {
        let arch = self.arch;
        let (dim, heads, kv) = (i64::from(arch.head_dim), i64::from(arch.n_heads), i64::from(arch.n_heads_kv));
        let (q, k, v) = if arch.fused_qkv {
            let all = self.linear(x, T::AttnQkv, T::AttnQkvBias);
            let (head, row) = (all.nb(0) * arch.head_dim as usize, all.nb(1));
            let (k_at, v_at) = (head * arch.n_heads as usize, head * (arch.n_heads + arch.n_heads_kv) as usize);
            (
                self.graph.view_3d(all, [dim, heads, inputs.rows], [head, row], 0),
                self.graph.view_3d(all, [dim, kv, inputs.rows], [head, row], k_at),
                self.graph.view_2d(all, [dim * kv, inputs.rows], row, v_at),
            )
        } else {
            let q = self.linear(x, T::AttnQ, T::AttnQBias);
            let k = self.linear(x, T::AttnK, T::AttnKBias);
            let v = self.linear(x, T::AttnV, T::AttnVBias);
            (self.graph.reshape(q, &[dim, heads, inputs.rows]), self.graph.reshape(k, &[dim, kv, inputs.rows]), v)
        };
        let rope = arch.layer_rope(self.layer);
        let rotate = |x| self.graph.rope(x, inputs.positions, inputs.rope_factors, rope);
        let (q, k) = (rotate(self.norm_if_any(q, T::AttnQNorm)), rotate(self.norm_if_any(k, T::AttnKNorm)));
        let q = if arch.family.scale_queries { self.graph.scale(q, arch.attention_scale) } else { q };
        (q, k, v)
    }

    /// Attention of `q` over the cache, `[n_embd_q, rows]`.
    fn attend(&self, inputs: &StageInputs<'g>, q: Tensor<'g>) -> Tensor<'g> {
        let (dim, kv) = (i64::from(self.arch.head_dim), i64::from(self.arch.n_heads_kv));
        let heads = |cache: Tensor<'g>| {
            let head_bytes = cache.nb(1) / self.arch.n_heads_kv as usize;
            self.graph.view_3d(cache, [dim, inputs.n_kv, kv], [cache.nb(1), head_bytes], 0)
        };
        let window_mask = self.arch.layer_window(self.layer).and(inputs.window_mask);
        let mask = window_mask.unwrap_or(inputs.mask);
        let scale = if self.arch.family.scale_queries { 1.0 } else { self.arch.attention_scale };
        let cap = self.arch.attention_cap.unwrap_or(0.0);
        self.graph.attention(q, heads(self.keys), heads(self.values), mask, scale, cap)
    }

    fn feed_forward(&self, x: Tensor<'g>) -> Tensor<'g> {
        let activation = self.arch.family.activation;
        let up = self.linear(x, T::FfnUp, T::FfnUpBias);
        let activated = if self.arch.family.fused_gate_up {
            self.graph.gated_halves(activation, up)
        } else {
            self.graph.gated(activation, self.linear(x, T::FfnGate, T::FfnGateBias), up)
        };
        self.linear(activated, T::FfnDown, T::FfnDownBias)
    }

    fn tensor(&self, which: T) -> Option<Tensor<'g>> {
        self.weights.get(which).map(|id| self.graph.stored(WEIGHTS, id))
    }

    fn required(&self, which: T) -> Tensor<'g> {
        self.tensor(which).expect("the architecture was checked against the file")
    }

    fn linear(&self, x: Tensor<'g>, weight: T, bias: T) -> Tensor<'g> {
        let product = self.graph.mul_mat(self.required(weight), x);
        self.tensor(bias).map_or(product, |bias| self.graph.add(product, bias))
    }

    fn norm(&self, x: Tensor<'g>, gain: T) -> Tensor<'g> {
        self.graph.rms_norm(x, self.required(gain), self.arch.norm_epsilon)
    }

    fn norm_if_any(&self, x: Tensor<'g>, gain: T) -> Tensor<'g> {
        if self.tensor(gain).is_some() { self.norm(x, gain) } else { x }
    }
}

/// Hidden states of `tokens`, `[n_embd, rows]`.
pub(super) fn embed<'g>(graph: &Builder<'g>, model: &StagedModel, tokens: Tensor<'g>) -> Tensor<'g> {
    let h = graph.get_rows(graph.stored(WEIGHTS, model.required(GlobalTensor::TokenEmbedding)), tokens);
    if !model.arch().family.embedding_scale {
        return h;
    }
    #[allow(clippy::cast_precision_loss)] // a hidden state has far fewer than 2^24 elements
    graph.scale(h, (model.arch().n_embd as f32).sqrt())
}

/// Logits of hidden states, `[n_vocab, rows]`.
pub(super) fn project<'g>(graph: &Builder<'g>, model: &StagedModel, h: Tensor<'g>) -> Tensor<'g> {
    let arch = model.arch();
    let gain = graph.stored(WEIGHTS, model.required(GlobalTensor::OutputNorm));
    let mut logits = graph.mul_mat(graph.stored(WEIGHTS, model.output()), graph.rms_norm(h, gain, arch.norm_epsilon));
    if let Some(bias) = model.get(GlobalTensor::OutputBias) {
        logits = graph.add(logits, graph.stored(WEIGHTS, bias));
    }
    arch.logit_cap.map_or(logits, |cap| graph.soft_cap(logits, cap))
}
