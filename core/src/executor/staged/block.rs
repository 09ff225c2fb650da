//! The decoder block: one function for every family in the table.
//!
//! It appends the nodes of one layer to a graph: norm, Q/K/V, rotation, cache write, attention, output, feed-forward. What a family
//! lacks has no tensor, and what has no tensor is not built. The order of operations is llama.cpp's, so that with ggml's kernels
//! the numbers are too.

use std::sync::Arc;

use super::products::Products;
use super::weights::{LayerWeights, StagedModel};
use crate::architecture::{Architecture, GlobalTensor, LayerTensor as T};
use crate::kernels::attention::Workspace;
use crate::kernels::graph::{Builder, Tensor};

/// What every layer of a stage reads beside its weights.
pub(super) struct StageInputs<'g> {
    /// Positions of the rows, `[rows]`.
    pub(super) positions: Tensor<'g>,
    /// Cells that the rows' keys and values go to, `[rows]`.
    pub(super) cells: Tensor<'g>,
    /// Who sees whom.
    pub(super) sight: SightInput<'g>,
    /// Frequency factors of the rotation, if the file has any.
    pub(super) rope_factors: Option<Tensor<'g>>,
}

/// Who sees whom, and so whose kernels attend.
pub(super) enum SightInput<'g> {
    /// Ours.
    Ancestors(Tensor<'g>, Arc<Workspace>),
    /// ggml's: a mask `[n_kv, rows]`, and the same within the sliding window.
    Masks { mask: Tensor<'g>, window_mask: Option<Tensor<'g>>, n_kv: i64 },
}

/// One layer: its weights, its cache, and the graph they are built into.
pub(super) struct Block<'a, 'g> {
    pub(super) graph: &'a Builder<'g>,
    pub(super) model: &'a StagedModel,
    pub(super) arch: &'a Architecture,
    pub(super) layer: u32,
    pub(super) weights: &'a LayerWeights,
    pub(super) products: Products,
    pub(super) keys: Tensor<'g>,
    pub(super) values: Tensor<'g>,
}

/// The weights are the first store of every graph.
pub(super) const WEIGHTS: usize = 0;

impl<'g> Block<'_, 'g> {
    /// Runs `h`, `[n_embd, rows]`, through the layer. With `wanted`, `[n]`, everything after attention runs for those rows only; an
    /// empty selection is `Some(None)`: keys and values are written and nothing is returned.
    pub(super) fn build(
        &self,
        inputs: &StageInputs<'g>,
        h: Tensor<'g>,
        wanted: Option<Option<Tensor<'g>>>,
    ) -> Option<Tensor<'g>> {
        let normed = self.norm(h, T::AttnNorm);
        let (q, k, v) = self.queries_keys_values(inputs, normed);
        for (cache, x) in [(self.keys, k), (self.values, self.heads(v, self.arch.n_heads_kv))] {
            self.graph.set_rows(cache, self.graph.permute(x, [0, 2, 1, 3]), inputs.cells);
        }
        if matches!(wanted, Some(None)) {
            return None;
        }
        let mut attended = self.attend(inputs, q);
        let mut residual = h;
        if let Some(Some(ids)) = wanted {
            attended = self.graph.get_rows(attended, ids);
            residual = self.graph.get_rows(residual, ids);
        }
        let h = self.added(attended, [T::AttnOutput, T::AttnOutputBias, T::AttnPostNorm], residual);
        let activated = self.activate(self.norm(h, T::FfnNorm));
        Some(self.added(activated, [T::FfnDown, T::FfnDownBias, T::FfnPostNorm], h))
    }

    /// Rotated queries `[head_dim, heads, rows]`, rotated keys `[head_dim, kv_heads, rows]`, values `[n_embd_kv, rows]`.
    fn queries_keys_values(&self, inputs: &StageInputs<'g>, x: Tensor<'g>) -> (Tensor<'g>, Tensor<'g>, Tensor<'g>) {
        let arch = self.arch;
        let (n_q, n_kv) = (i64::from(arch.n_embd_q()), i64::from(arch.n_embd_kv()));
        let [q, k, v] = if arch.fused_qkv {
            let all = self.linear(x, T::AttnQkv, T::AttnQkvBias);
            self.columns(all, [n_q, n_kv, n_kv])
        } else {
            match self.joined(x, [T::AttnQ, T::AttnK, T::AttnV]) {
                Some(all) => self.columns(all, [n_q, n_kv, n_kv]),
                None => [T::AttnQ, T::AttnK, T::AttnV].map(|which| self.product(x, which)),
            }
        };
        let (q, k) = (self.biased(q, T::AttnQBias), self.biased(k, T::AttnKBias));
        let v = self.biased(v, T::AttnVBias);
        let rope = arch.layer_rope(self.layer);
        let rotate = |x, heads, gain| {
            let x = self.norm_if_any(self.heads(x, heads), gain);
            self.graph.rope(x, inputs.positions, inputs.rope_factors, rope)
        };
        let (q, k) = (rotate(q, arch.n_heads, T::AttnQNorm), rotate(k, arch.n_heads_kv, T::AttnKNorm));
        let q = if arch.family.scale_queries { self.graph.scale(q, arch.attention_scale) } else { q };
        (q, k, v)
    }

    /// `x`, `[head_dim · heads, rows]`, as `[head_dim, heads, rows]`.
    fn heads(&self, x: Tensor<'g>, heads: u32) -> Tensor<'g> {
        let dim = self.arch.head_dim;
        self.graph.view_3d(x, [dim.into(), heads.into(), x.ne(1)], [x.nb(0) * dim as usize, x.nb(1)], 0)
    }

    /// `x` cut into columns of these widths.
    fn columns<const N: usize>(&self, x: Tensor<'g>, widths: [i64; N]) -> [Tensor<'g>; N] {
        let mut first = 0;
        widths.map(|width| {
            let view = self.graph.view_2d(x, [width, x.ne(1)], x.nb(1), first);
            first += x.nb(0) * usize::try_from(width).unwrap_or(0);
            view
        })
    }

    /// Attention of `q` over the cache, `[n_embd_q, rows]`.
    fn attend(&self, inputs: &StageInputs<'g>, q: Tensor<'g>) -> Tensor<'g> {
        let shape = self.model.attention(self.layer);
        let (mask, n_kv) = match &inputs.sight {
            SightInput::Ancestors(sight, workspace) => {
                let sources = [q, self.keys, self.values, *sight];
                return self.graph.attend(sources, self.products.0, shape, Arc::clone(workspace));
            }
            SightInput::Masks { mask, window_mask, n_kv } => {
                let window_mask = self.arch.layer_window(self.layer).and(*window_mask);
                (window_mask.unwrap_or(*mask), *n_kv)
            }
        };
        let (dim, kv) = (i64::from(self.arch.head_dim), i64::from(self.arch.n_heads_kv));
        let heads = |cache: Tensor<'g>| self.graph.view_3d(cache, [dim, n_kv, kv], [cache.nb(1), cache.nb(2)], 0);
        self.graph.attention(q, heads(self.keys), heads(self.values), mask, shape.scale, shape.soft_cap)
    }

    /// The gated activation of the feed-forward block, `[n_ff, rows]`.
    fn activate(&self, x: Tensor<'g>) -> Tensor<'g> {
        let activation = self.arch.family.activation;
        if self.arch.family.fused_gate_up {
            return self.graph.gated_halves(activation, self.product(x, T::FfnUp));
        }
        let weights = [T::FfnGate, T::FfnUp].map(|which| self.weights.matrix(which));
        let has_bias = [T::FfnGateBias, T::FfnUpBias].iter().any(|&bias| self.weights.vector(bias).is_some());
        let one_walk = if has_bias { None } else { self.products.gated(self.graph, x, weights, activation) };
        one_walk.unwrap_or_else(|| {
            let up = self.linear(x, T::FfnUp, T::FfnUpBias);
            self.graph.gated(activation, self.linear(x, T::FfnGate, T::FfnGateBias), up)
        })
    }

    /// The product of `x` with a matrix, with its bias and norm if there are any, added to `residual`.
    fn added(&self, x: Tensor<'g>, [weight, bias, norm]: [T; 3], residual: Tensor<'g>) -> Tensor<'g> {
        if self.weights.vector(bias).is_none() && self.weights.vector(norm).is_none() {
            return self.products.added(self.graph, x, self.weights.matrix(weight), residual);
        }
        self.graph.add(self.norm_if_any(self.linear(x, weight, bias), norm), residual)
    }

    /// Products of `x` with several matrices side by side, if one walk over all of them can make it.
    fn joined<const N: usize>(&self, x: Tensor<'g>, which: [T; N]) -> Option<Tensor<'g>> {
        let present = which.iter().all(|&which| which.spec(self.arch).is_some());
        if present { self.products.joined(self.graph, x, &which.map(|which| self.weights.matrix(which))) } else { None }
    }

    fn product(&self, x: Tensor<'g>, which: T) -> Tensor<'g> {
        self.products.one(self.graph, x, self.weights.matrix(which))
    }

    fn linear(&self, x: Tensor<'g>, weight: T, bias: T) -> Tensor<'g> {
        self.biased(self.product(x, weight), bias)
    }

    fn biased(&self, x: Tensor<'g>, bias: T) -> Tensor<'g> {
        self.weights.vector(bias).map_or(x, |id| self.graph.add(x, self.graph.stored(WEIGHTS, id)))
    }

    fn norm(&self, x: Tensor<'g>, gain: T) -> Tensor<'g> {
        let gain = self.weights.vector(gain).expect("the architecture was checked against the file");
        self.graph.rms_norm(x, self.graph.stored(WEIGHTS, gain), self.arch.norm_epsilon)
    }

    fn norm_if_any(&self, x: Tensor<'g>, gain: T) -> Tensor<'g> {
        if self.weights.vector(gain).is_some() { self.norm(x, gain) } else { x }
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
    let mut logits = Products(model.isa()).one(graph, graph.rms_norm(h, gain, arch.norm_epsilon), model.output());
    if let Some(bias) = model.get(GlobalTensor::OutputBias) {
        logits = graph.add(logits, graph.stored(WEIGHTS, bias));
    }
    arch.logit_cap.map_or(logits, |cap| graph.soft_cap(logits, cap))
}
