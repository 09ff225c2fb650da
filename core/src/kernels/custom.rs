//! Our own kernels as nodes of a ggml graph.
//!
//! ggml calls a custom node from all its threads at once with the node's tensor and a user pointer, and puts a barrier behind it.
//! The pointer is a node description that the graph owns. Kernels get slices of work from a counter, because fixed shares stall
//! where cores differ in speed.

use std::any::Any;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::attention::{AttentionShape, Operands, Visibility, Workspace, attention};
use super::gemm::{self, ActivationShape, ChunkCounter, Gate, GatedPart, Isa, Part, Share};
use super::graph::{Builder, Tensor};
use super::store::StoredMatrix;
use crate::architecture::Activation;

/// What a custom node does.
pub(super) trait Node: Any + Send {
    /// One thread's part of the work.
    ///
    /// # Safety
    ///
    /// Called by ggml only: `dst` is the node's tensor, its sources are computed, and all `n_threads` threads call this once.
    unsafe fn run(&self, dst: &sys::ggml_tensor, thread: usize, n_threads: usize);
}

/// ggml's entry into a node.
unsafe extern "C" fn enter<N: Node>(dst: *mut sys::ggml_tensor, thread: i32, n_threads: i32, node: *mut c_void) {
    // SAFETY: `custom` registered this function with a pointer to an `N` that the graph owns; ggml passes its own tensor.
    let (node, dst) = unsafe { (&*node.cast::<N>(), &*dst) };
    // SAFETY: this is ggml's call.
    unsafe { node.run(dst, thread.unsigned_abs() as usize, n_threads.unsigned_abs() as usize) }
}

impl<'g> Builder<'g> {
    /// Appends `node`, whose result has `element` type and shape `[ne0, ne1]`, reading `sources`.
    fn custom<N: Node>(&self, node: N, element: sys::ggml_type, ne: [i64; 2], sources: &[Tensor<'g>]) -> Tensor<'g> {
        const ALL_THREADS: i32 = -1; // GGML_N_TASKS_MAX, a macro that the bindings do not carry
        let mut sources: Vec<_> = sources.iter().map(|s| s.raw()).collect();
        let n_sources = i32::try_from(sources.len()).expect("a handful of sources");
        let node = self.own(Box::new(node));
        // SAFETY: as for all operations; the graph owns the node description.
        self.node(|c| unsafe {
            sys::ggml_custom_4d(
                c,
                element,
                ne[0],
                ne[1],
                1,
                1,
                sources.as_mut_ptr(),
                n_sources,
                Some(enter::<N>),
                ALL_THREADS,
                node.cast_mut().cast(),
            )
        })
    }

    /// Activations `x`, `[k, rows]`, quantised as the products of `shape`'s kind take them.
    pub(crate) fn quantise(&self, x: Tensor<'g>, isa: Isa, shape: ActivationShape) -> Tensor<'g> {
        assert_eq!((shape.k(), shape.rows()), (to_usize(x.ne(0)), to_usize(x.ne(1))), "activations");
        let bytes = i64::try_from(shape.bytes()).expect("activations fit the address space");
        let node = Quantise { isa, shape, counter: ChunkCounter::new() };
        self.custom(node, sys::GGML_TYPE_I8, [bytes, 1], &[x])
    }

    /// Products of quantised activations `x` with several matrices, side by side: `[Σ n, rows]`; with a `residual` of the same
    /// shape added, if there is one.
    pub(crate) fn packed_products(
        &self,
        x: Tensor<'g>,
        isa: Isa,
        shape: ActivationShape,
        matrices: Vec<StoredMatrix>,
        residual: Option<Tensor<'g>>,
    ) -> Tensor<'g> {
        let n: usize = matrices.iter().map(|m| m.shape().n()).sum();
        let ne = [n, shape.rows()].map(|n| i64::try_from(n).expect("tensor dimensions fit i64"));
        assert!((1..=Products::MAX_PARTS).contains(&matrices.len()), "matrices that share an input");
        assert!(matrices.iter().all(|m| m.shape().k() == shape.k()), "matrices and activations");
        let node = Products { isa, shape, matrices, has_residual: residual.is_some(), counter: ChunkCounter::new() };
        match residual {
            None => self.custom(node, sys::GGML_TYPE_F32, ne, &[x]),
            Some(residual) => {
                assert_eq!([residual.ne(0), residual.ne(1)], ne, "residual");
                assert_eq!(residual.nb(1), n * size_of::<f32>(), "the residual is contiguous");
                self.custom(node, sys::GGML_TYPE_F32, ne, &[x, residual])
            }
        }
    }

    /// `f(x · gateᵀ) · (x · upᵀ)` of quantised activations `x`: `[n, rows]`.
    pub(crate) fn gated_products(
        &self,
        x: Tensor<'g>,
        isa: Isa,
        shape: ActivationShape,
        [gate, up]: [StoredMatrix; 2],
        activation: Activation,
    ) -> Tensor<'g> {
        let ne = [up.shape().n(), shape.rows()].map(|n| i64::try_from(n).expect("tensor dimensions fit i64"));
        assert_eq!([gate.shape().n(), gate.shape().k()], [up.shape().n(), shape.k()], "gate and up");
        assert_eq!(up.shape().k(), shape.k(), "matrices and activations");
        let function = match activation {
            Activation::Silu => Gate::Silu,
            Activation::Gelu => Gate::Gelu,
        };
        let node = GatedProducts { isa, shape, gate, up, function, counter: ChunkCounter::new() };
        self.custom(node, sys::GGML_TYPE_F32, ne, &[x])
    }
}

/// Where [`Builder::attend`] reads what rows see: the history's length, the words per row, then the words.
pub(crate) const SIGHT_HEADER: usize = 2;

impl<'g> Builder<'g> {
    /// Attention of `q`, `[head_dim, heads, rows]`, over the cells of `keys` and `values`, `[head_dim, cells, kv_heads]`, as far as each row sees:
    /// `[head_dim · heads, rows]`. `sight` is `[SIGHT_HEADER + words · rows]`, i64, as [`Visibility`] takes it.
    pub(crate) fn attend(
        &self,
        [q, keys, values, sight]: [Tensor<'g>; 4],
        isa: Isa,
        shape: AttentionShape,
        workspace: Arc<Workspace>,
    ) -> Tensor<'g> {
        assert!(shape.is_supported(), "attention of a shape that the kernels do not know");
        assert_eq!((to_usize(q.ne(0)), to_usize(q.ne(1))), (shape.head_dim, shape.n_head), "queries");
        let ne = [q.ne(0) * q.ne(1), q.ne(2)];
        self.custom(Attend { isa, shape, workspace }, sys::GGML_TYPE_F32, ne, &[q, keys, values, sight])
    }
}

struct Attend {
    isa: Isa,
    shape: AttentionShape,
    workspace: Arc<Workspace>,
}

impl Node for Attend {
    unsafe fn run(&self, dst: &sys::ggml_tensor, thread: usize, n_threads: usize) {
        assert_eq!(n_threads, self.workspace.n_threads(), "threads of the workspace");
        // SAFETY: the sources are those `attend` was built with. The sight was written for this pass: it has the header and the
        // words of every row, and names only cells that exist. The workspace serves the nodes of one pass, one at a time.
        unsafe {
            let [q, keys, values, sight] = [0, 1, 2, 3].map(|i| &*dst.src[i]);
            let sight = sight.data.cast::<u64>();
            let [history, words] = [0, 1].map(|i| usize::try_from(*sight.add(i)).expect("cells are counted in usize"));
            let words_of_rows = std::slice::from_raw_parts(sight.add(SIGHT_HEADER), words * to_usize(q.ne[2]));
            let visibility = Visibility::new(history, words_of_rows, words).expect("every row sees itself");
            let operands = Operands {
                q: q.data.cast(),
                q_row_stride: q.nb[2] / size_of::<f32>(),
                q_head_stride: q.nb[1] / size_of::<f32>(),
                k: keys.data.cast(),
                k_stride: keys.nb[1],
                k_head_stride: keys.nb[2],
                v: values.data.cast(),
                v_stride: values.nb[1],
                v_head_stride: values.nb[2],
                out: dst.data.cast(),
                out_stride: dst.nb[1] / size_of::<f32>(),
            };
            attention(self.isa, &self.shape, &visibility, &operands, &self.workspace, thread);
        }
    }
}

fn to_usize(n: i64) -> usize {
    usize::try_from(n).expect("tensor dimensions are not negative")
}

struct Quantise {
    isa: Isa,
    shape: ActivationShape,
    counter: ChunkCounter,
}

impl Node for Quantise {
    unsafe fn run(&self, dst: &sys::ggml_tensor, _thread: usize, n_threads: usize) {
        let share = Share { counter: &self.counter, n_threads };
        // SAFETY: the source has the shape's rows and columns (checked when built), its rows `nb[1]` bytes apart; the result
        // has the shape's bytes and is written by this node only.
        unsafe {
            let x = &*dst.src[0];
            gemm::quantise(self.isa, &self.shape, x.data.cast(), x.nb[1] / size_of::<f32>(), dst.data.cast(), share);
        }
    }
}

struct Products {
    isa: Isa,
    shape: ActivationShape,
    matrices: Vec<StoredMatrix>,
    has_residual: bool,
    counter: ChunkCounter,
}

impl Products {
    /// The most matrices that share an input: queries, keys, values.
    const MAX_PARTS: usize = 3;
}

impl Node for Products {
    unsafe fn run(&self, dst: &sys::ggml_tensor, _thread: usize, n_threads: usize) {
        let stride = dst.nb[1] / size_of::<f32>();
        let mut y = dst.data.cast::<f32>();
        let mut residual = ptr::null_mut();
        if self.has_residual {
            // SAFETY: with a residual the node has a second source.
            residual = unsafe { (*dst.src[1]).data.cast::<f32>() };
        }
        let mut parts = [Part { weights: self.matrices[0].matrix(), y, stride, residual }; Self::MAX_PARTS];
        for (part, weights) in parts.iter_mut().zip(self.matrices.iter().map(StoredMatrix::matrix)) {
            *part = Part { weights, y, stride, residual };
            // SAFETY: the columns of all matrices together are the length of a row of the result and of the residual.
            y = unsafe { y.add(weights.shape().n()) };
            residual = if self.has_residual { residual.wrapping_add(weights.shape().n()) } else { residual };
        }
        let share = Share { counter: &self.counter, n_threads };
        // SAFETY: the source holds activations of this shape, quantised by a node of this instruction set; each part's columns
        // are its own.
        unsafe {
            let x = &*dst.src[0];
            gemm::product(self.isa, &parts[..self.matrices.len()], &self.shape, x.data.cast(), share);
        }
    }
}

struct GatedProducts {
    isa: Isa,
    shape: ActivationShape,
    gate: StoredMatrix,
    up: StoredMatrix,
    function: Gate,
    counter: ChunkCounter,
}

impl Node for GatedProducts {
    unsafe fn run(&self, dst: &sys::ggml_tensor, _thread: usize, n_threads: usize) {
        let stride = dst.nb[1] / size_of::<f32>();
        let (gate, up) = (self.gate.matrix(), self.up.matrix());
        let part = GatedPart { gate, up, function: self.function, y: dst.data.cast(), stride };
        let share = Share { counter: &self.counter, n_threads };
        // SAFETY: the source holds activations of this shape, quantised by a node of this instruction set; the result has a row
        // of `up`'s length for each of them.
        unsafe { gemm::gated_product(self.isa, &part, &self.shape, (*dst.src[0]).data.cast(), share) }
    }
}
