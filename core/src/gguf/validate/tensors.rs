//! The rules for the tensor table.

use std::collections::HashSet;

use super::super::{Gguf, TensorInfo, TensorType};
use super::{Checked, Unusable};

/// ggml asserts that a buffer made of mapped bytes begins at a multiple of this (`TENSOR_ALIGNMENT`).
const MAPPED_ALIGNMENT: u64 = 32;

/// A family whose tensors are known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    Qwen2,
    Qwen3,
    Gemma2,
    Gemma3,
    Phi3,
}

impl Family {
    pub(super) fn of(architecture: &str) -> Option<Self> {
        Some(match architecture {
            "llama" => Self::Llama,
            "qwen2" => Self::Qwen2,
            "qwen3" => Self::Qwen3,
            "gemma2" => Self::Gemma2,
            "gemma3" => Self::Gemma3,
            "phi3" => Self::Phi3,
            _ => return None,
        })
    }
}

/// What the shapes of a family's tensors follow from.
#[derive(Clone, Debug)]
pub(super) struct FamilyShape {
    pub(super) n_layers: u32,
    pub(super) n_embd: u64,
    pub(super) n_ff: u64,
    /// Width of all query heads together.
    pub(super) n_q: u64,
    /// Width of all key heads together, and of all value heads.
    pub(super) n_kv: u64,
    pub(super) head_dim: u64,
    pub(super) n_rot: u64,
    /// Feed-forward networks of a layer that are chosen from; 0 for one that is always used.
    pub(super) n_experts: u64,
}

/// Rules for the tensors of every architecture.
pub(super) fn check_all(gguf: &Gguf<'_>) -> Checked {
    if gguf.tensors().is_empty() {
        return Err(Unusable::invalid("it has no tensors: it is a vocabulary or an adapter, not a model"));
    }
    for tensor in gguf.tensors() {
        if !tensor.offset.is_multiple_of(MAPPED_ALIGNMENT) {
            let (name, offset) = (tensor.name, tensor.offset);
            return Err(Unusable::invalid(format!("tensor {name:?} begins at byte {offset}, not a multiple of 32")));
        }
        // Formats of intermediate results, which no kernel takes as weights.
        if matches!(tensor.ty, TensorType::Q8_1 | TensorType::Q8_K) {
            return Err(unexpected_type(tensor));
        }
    }
    Ok(())
}

/// Rules for the tensors of a family we know: these and no others. llama.cpp's loaders look for some that a family does not have, and
/// take whatever type they are of.
pub(super) fn check_family(gguf: &Gguf<'_>, family: Family, shape: &FamilyShape, n_vocab: usize) -> Checked {
    let mut table = Table { gguf, known: HashSet::new() };
    let by_vocab = [shape.n_embd, n_vocab as u64];
    table.expect("token_embd.weight", &by_vocab, true)?;
    table.expect("output_norm.weight", &[shape.n_embd], true)?;
    table.expect("output.bias", &[n_vocab as u64], false)?;
    if gguf.tensor("output.weight").is_some() {
        table.expect("output.weight", &by_vocab, true)?;
        table.expect_scales("output", 1)?;
    }
    for name in ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"] {
        table.expect(name, &[shape.n_rot / 2], false)?;
    }
    for layer in 0..shape.n_layers {
        for (name, dims, required) in layer_tensors(family, shape) {
            table.expect(&format!("blk.{layer}.{name}"), &dims, required)?;
            if let (2 | 3, Some(name)) = (dims.len(), name.strip_suffix(".weight")) {
                table.expect_scales(&format!("blk.{layer}.{name}"), *dims.get(2).unwrap_or(&1))?;
            }
        }
        check_attention_inputs(gguf, layer)?;
    }
    table.refuse_strangers()
}

/// The tensors of a layer: name, shape, whether it must be there.
fn layer_tensors(family: Family, shape: &FamilyShape) -> Vec<(&'static str, Vec<u64>, bool)> {
    use Family::{Gemma2, Gemma3, Phi3, Qwen3};
    let &FamilyShape { n_embd, n_ff, n_q, n_kv, head_dim, n_experts, .. } = shape;
    let post_norms = matches!(family, Gemma2 | Gemma3);
    let head_norms = matches!(family, Qwen3 | Gemma3);
    let dense = n_experts == 0;
    let up = if family == Phi3 { 2 * n_ff } else { n_ff };
    let mut tensors = vec![
        ("attn_norm.weight", vec![n_embd], true),
        ("attn_q.weight", vec![n_embd, n_q], false),
        ("attn_k.weight", vec![n_embd, n_kv], false),
        ("attn_v.weight", vec![n_embd, n_kv], false),
        ("attn_qkv.weight", vec![n_embd, n_q + 2 * n_kv], false),
        ("attn_q.bias", vec![n_q], false),
        ("attn_k.bias", vec![n_kv], false),
        ("attn_v.bias", vec![n_kv], false),
        ("attn_qkv.bias", vec![n_q + 2 * n_kv], false),
        ("attn_output.weight", vec![n_q, n_embd], true),
        ("attn_output.bias", vec![n_embd], false),
        ("attn_q_norm.weight", vec![head_dim], head_norms),
        ("attn_k_norm.weight", vec![head_dim], head_norms),
        ("post_attention_norm.weight", vec![n_embd], post_norms),
        ("ffn_norm.weight", vec![n_embd], true),
        ("post_ffw_norm.weight", vec![n_embd], post_norms),
        ("ffn_gate.weight", vec![n_embd, n_ff], dense && family != Phi3),
        ("ffn_up.weight", vec![n_embd, up], dense),
        ("ffn_down.weight", vec![n_ff, n_embd], dense),
        ("ffn_gate.bias", vec![n_ff], false),
        ("ffn_up.bias", vec![n_ff], false),
        ("ffn_down.bias", vec![n_embd], false),
    ];
    if !dense {
        tensors.extend([
            ("ffn_gate_inp.weight", vec![n_embd, n_experts], true),
            ("ffn_gate_exps.weight", vec![n_embd, n_ff, n_experts], false),
            ("ffn_up_exps.weight", vec![n_embd, n_ff, n_experts], true),
            ("ffn_down_exps.weight", vec![n_ff, n_embd, n_experts], true),
        ]);
    }
    tensors
}

/// Queries, keys and values come from one tensor or from three; with neither, phi3 follows a null pointer.
fn check_attention_inputs(gguf: &Gguf<'_>, layer: u32) -> Checked {
    let has = |name: &str| gguf.tensor(&format!("blk.{layer}.{name}.weight")).is_some();
    if has("attn_qkv") || ["attn_q", "attn_k", "attn_v"].into_iter().all(has) {
        return Ok(());
    }
    Err(Unusable::invalid(format!("layer {layer} has no weights for queries, keys and values")))
}

/// The tensor table, and which of it has been looked at.
struct Table<'g> {
    gguf: &'g Gguf<'g>,
    known: HashSet<&'g str>,
}

impl Table<'_> {
    fn expect(&mut self, name: &str, dims: &[u64], required: bool) -> Checked {
        let Some(tensor) = self.gguf.tensor(name) else {
            return if required { Err(Unusable::invalid(format!("the tensor {name:?} is missing"))) } else { Ok(()) };
        };
        let mut extents = [1; 4];
        extents[..dims.len()].copy_from_slice(dims);
        if tensor.shape.extents() != extents {
            let shape = tensor.shape;
            return Err(Unusable::invalid(format!("tensor {name:?} has the shape {shape} where {dims:?} is expected")));
        }
        if !can_be_used(tensor, dims.len()) {
            return Err(unexpected_type(tensor));
        }
        self.known.insert(tensor.name);
        Ok(())
    }

    /// What the products with `name` may be multiplied by afterwards, one number for each of `n` matrices.
    fn expect_scales(&mut self, name: &str, n: u64) -> Checked {
        self.expect(&format!("{name}.scale"), &[n], false)?;
        self.expect(&format!("{name}.input_scale"), &[n], false)
    }

    fn refuse_strangers(self) -> Checked {
        match self.gguf.tensors().iter().find(|tensor| !self.known.contains(tensor.name)) {
            Some(stranger) => {
                Err(Unusable::unsupported(format!("the tensor {:?} is none that its architecture has", stranger.name)))
            }
            None => Ok(()),
        }
    }
}

/// Vectors (norms, biases, rotary factors) are F32, else ggml asserts or aborts. Matrices are any format that is multiplied:
/// with the others ggml calls a kernel that is not there.
fn can_be_used(tensor: &TensorInfo<'_>, n_dims: usize) -> bool {
    use TensorType::{F64, I8, I16, I32, I64, Q8_1, Q8_K};
    if n_dims == 1 {
        return tensor.ty == TensorType::F32;
    }
    !matches!(tensor.ty, F64 | I8 | I16 | I32 | I64 | Q8_1 | Q8_K)
}

fn unexpected_type(tensor: &TensorInfo<'_>) -> Unusable {
    Unusable::invalid(format!("tensor {:?} has the type {}, in which no model stores it", tensor.name, tensor.ty))
}
