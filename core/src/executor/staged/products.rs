//! Products of activations with weights, wherever the weights are.

use super::block::WEIGHTS;
use super::weights::Weight;
use crate::kernels::gemm::{ActivationShape, Isa, PackedMatrix};
use crate::kernels::graph::{Builder, Tensor};

/// Multiplies, with our kernels for this instruction set where the weights are packed, else with ggml's.
#[derive(Clone, Copy)]
pub(super) struct Products(pub(super) Isa);

impl Products {
    /// `x · Wᵀ`: `[k, rows]` with `[k, n]` gives `[n, rows]`.
    pub(super) fn one<'g>(self, graph: &Builder<'g>, x: Tensor<'g>, weight: Weight) -> Tensor<'g> {
        match weight {
            Weight::Ggml(id) => graph.mul_mat(graph.stored(WEIGHTS, id), x),
            Weight::Packed(id) => self.packed(graph, x, vec![graph.packed(WEIGHTS, id)]),
        }
    }

    /// Products with several matrices side by side, `[Σ n, rows]`: the activations are quantised once, and all matrices are walked
    /// in one node. `None` if they are not all packed for the same kind of activations.
    pub(super) fn joined<'g>(self, graph: &Builder<'g>, x: Tensor<'g>, weights: &[Weight]) -> Option<Tensor<'g>> {
        let packed = |weight: &Weight| match weight {
            Weight::Ggml(_) => None,
            Weight::Packed(id) => Some(graph.packed(WEIGHTS, *id)),
        };
        let matrices: Vec<PackedMatrix> = weights.iter().map(packed).collect::<Option<_>>()?;
        let kind = matrices[0].shape().format().activations();
        let same_kind = matrices.iter().all(|m| m.shape().format().activations() == kind);
        same_kind.then(|| self.packed(graph, x, matrices))
    }

    fn packed<'g>(self, graph: &Builder<'g>, x: Tensor<'g>, matrices: Vec<PackedMatrix>) -> Tensor<'g> {
        let shape = matrices[0].shape();
        let rows = usize::try_from(x.ne(1)).expect("rows are counted in usize");
        let shape = ActivationShape::new(shape.format().activations(), rows, shape.k(), self.0.interleave());
        let shape = shape.expect("packed matrices have whole blocks, and a pass has rows");
        graph.packed_products(graph.quantise(x, self.0, shape), self.0, shape, matrices)
    }
}
