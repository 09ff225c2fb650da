//! Products of activations with weights, wherever the weights are.

use super::block::WEIGHTS;
use super::weights::Weight;
use crate::architecture::Activation;
use crate::kernels::gemm::{ActivationShape, Isa};
use crate::kernels::graph::{Builder, Tensor};
use crate::kernels::store::StoredMatrix;

/// Multiplies, with our kernels for this instruction set where the weights are packed, else with ggml's.
///
/// What our kernels can do in one walk over the weights, they do in one node: matrices with one input, a gate with what it
/// gates, a product with the residual it is added to.
#[derive(Clone, Copy)]
pub(super) struct Products(pub(super) Isa);

impl Products {
    /// `x · Wᵀ`: `[k, rows]` with `[k, n]` gives `[n, rows]`.
    pub(super) fn one<'g>(self, graph: &Builder<'g>, x: Tensor<'g>, weight: Weight) -> Tensor<'g> {
        match weight {
            Weight::Ggml(id) => graph.mul_mat(graph.stored(WEIGHTS, id), x),
            Weight::Packed(id) => self.packed(graph, x, vec![graph.packed(WEIGHTS, id)], None),
        }
    }

    /// `x · Wᵀ + residual`.
    pub(super) fn added<'g>(
        self,
        graph: &Builder<'g>,
        x: Tensor<'g>,
        weight: Weight,
        residual: Tensor<'g>,
    ) -> Tensor<'g> {
        match weight {
            Weight::Ggml(_) => graph.add(self.one(graph, x, weight), residual),
            Weight::Packed(id) => self.packed(graph, x, vec![graph.packed(WEIGHTS, id)], Some(residual)),
        }
    }

    /// Products with several matrices side by side, `[Σ n, rows]`, or `None` if that takes more than one walk.
    pub(super) fn joined<'g>(self, graph: &Builder<'g>, x: Tensor<'g>, weights: &[Weight]) -> Option<Tensor<'g>> {
        let matrices = walked_together(graph, weights)?;
        Some(self.packed(graph, x, matrices, None))
    }

    /// `f(x · gateᵀ) · (x · upᵀ)`, or `None` if that takes more than one walk.
    pub(super) fn gated<'g>(
        self,
        graph: &Builder<'g>,
        x: Tensor<'g>,
        weights: [Weight; 2],
        activation: Activation,
    ) -> Option<Tensor<'g>> {
        let matrices: [StoredMatrix; 2] = walked_together(graph, &weights)?.try_into().ok()?;
        let shape = self.shape(x, &matrices[0]);
        Some(graph.gated_products(graph.quantise(x, self.0, shape), self.0, shape, matrices, activation))
    }

    fn packed<'g>(
        self,
        graph: &Builder<'g>,
        x: Tensor<'g>,
        matrices: Vec<StoredMatrix>,
        residual: Option<Tensor<'g>>,
    ) -> Tensor<'g> {
        let shape = self.shape(x, &matrices[0]);
        graph.packed_products(graph.quantise(x, self.0, shape), self.0, shape, matrices, residual)
    }

    fn shape(self, x: Tensor<'_>, matrix: &StoredMatrix) -> ActivationShape {
        let rows = usize::try_from(x.ne(1)).expect("rows are counted in usize");
        let (kind, k) = (matrix.shape().format().activations(), matrix.shape().k());
        ActivationShape::new(kind, rows, k, self.0.interleave()).expect("whole blocks, and a pass has rows")
    }
}

/// The matrices, if all are packed and take the same kind of activations.
fn walked_together(graph: &Builder<'_>, weights: &[Weight]) -> Option<Vec<StoredMatrix>> {
    let packed = |weight: &Weight| match weight {
        Weight::Ggml(_) => None,
        Weight::Packed(id) => Some(graph.packed(WEIGHTS, *id)),
    };
    let matrices: Vec<StoredMatrix> = weights.iter().map(packed).collect::<Option<_>>()?;
    let kind = matrices.first()?.shape().format().activations();
    matrices.iter().all(|m| m.shape().format().activations() == kind).then_some(matrices)
}
