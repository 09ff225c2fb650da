//! Tensors and graphs of ggml behind lifetimes.
//!
//! An [`Arena`] holds tensor headers, never data. A [`Graph`] is built once by a closure over a [`Builder`], which can reach only
//! its own arena and the stores the graph keeps alive; so no node can outlive what it points to.
//!
//! Shapes follow ggml's order: the first dimension is the contiguous one, so activations of `n` rows are `[n_embd, n]`.
//! ggml asserts on shapes that do not fit each other; what comes from a file is checked against the architecture before it
//! gets here.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::store::{PackedId, StoredMatrix, TensorId, TensorStore};
use crate::architecture::{Activation, Rope, RopePairs, YARN_BETA_FAST, YARN_BETA_SLOW};

/// A ggml context that holds tensor headers and graph nodes.
pub(crate) struct Arena {
    raw: NonNull<sys::ggml_context>,
    used: Cell<usize>,
    capacity: usize,
}

// SAFETY: an arena is a bump allocator without thread affinity; it is only written through `&self` while one thread builds.
unsafe impl Send for Arena {}

impl Arena {
    /// Room for `capacity` tensors and, if `graph_nodes` is not zero, one graph of that many nodes.
    pub(crate) fn new(capacity: usize, graph_nodes: usize) -> Self {
        // SAFETY: pure functions of ggml.
        let bytes = unsafe {
            let graph = if graph_nodes == 0 { 0 } else { sys::ggml_graph_overhead_custom(graph_nodes, false) };
            sys::ggml_tensor_overhead() * capacity + graph
        };
        let params = sys::ggml_init_params { mem_size: bytes, mem_buffer: ptr::null_mut(), no_alloc: true };
        // SAFETY: ggml allocates the memory itself; it aborts the process when even these few kilobytes cannot be had.
        let raw = NonNull::new(unsafe { sys::ggml_init(params) }).expect("ggml_init of a header arena");
        Self { raw, used: Cell::new(0), capacity }
    }

    /// The context, after counting one more tensor. Overrunning an arena is a bug in the caller's capacity and must not reach C.
    pub(super) fn take(&self) -> *mut sys::ggml_context {
        assert!(self.used.get() < self.capacity, "arena of {} tensors is full", self.capacity);
        self.used.set(self.used.get() + 1);
        self.raw.as_ptr()
    }

    /// The context, for calls that create no tensor.
    pub(super) fn raw(&self) -> *mut sys::ggml_context {
        self.raw.as_ptr()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: `raw` came from ggml_init and is freed once; handles to its tensors cannot outlive it.
        unsafe { sys::ggml_free(self.raw.as_ptr()) }
    }
}

/// A tensor that lives at least as long as `'g`.
#[derive(Clone, Copy)]
pub(crate) struct Tensor<'g> {
    raw: NonNull<sys::ggml_tensor>,
    owner: PhantomData<&'g Arena>,
}

impl Tensor<'_> {
    /// Wraps a tensor that ggml returned.
    pub(super) fn new(raw: *mut sys::ggml_tensor) -> Self {
        Self { raw: NonNull::new(raw).expect("ggml returned no tensor"), owner: PhantomData }
    }

    pub(super) fn raw(self) -> *mut sys::ggml_tensor {
        self.raw.as_ptr()
    }

    /// Length of dimension `i`.
    pub(crate) fn ne(self, i: usize) -> i64 {
        // SAFETY: the header lives in the arena this handle borrows from.
        unsafe { self.raw.as_ref() }.ne[i]
    }

    /// Bytes between elements of dimension `i`.
    pub(crate) fn nb(self, i: usize) -> usize {
        // SAFETY: as in `ne`.
        unsafe { self.raw.as_ref() }.nb[i]
    }
}

/// Builds one graph; see [`Graph::build`].
pub(crate) struct Builder<'g> {
    arena: &'g Arena,
    stores: &'g [Arc<TensorStore>],
    graph: *mut sys::ggml_cgraph,
    nodes: RefCell<Vec<Box<dyn Any + Send>>>,
}

/// Operations: each appends a node and returns its result. SAFETY for all of them: the operands live as long as the graph
/// (`'g`), the arena has room (`take` checks), and ggml only records the node here; data is touched in `Machine::compute`.
impl<'g> Builder<'g> {
    /// Tensor `id` of the graph's store number `store`.
    pub(crate) fn stored(&self, store: usize, id: TensorId) -> Tensor<'g> {
        self.stores[store].tensor(id)
    }

    /// Runs `node` (and what it depends on) in the graph, after everything expanded so far.
    pub(crate) fn expand(&self, node: Tensor<'g>) {
        // SAFETY: see the impl block; the graph has room for every node of its arena.
        unsafe { sys::ggml_build_forward_expand(self.graph, node.raw()) }
    }

    /// Weights `id` of the graph's store number `store`, packed for our kernels.
    pub(crate) fn packed(&self, store: usize, id: PackedId) -> StoredMatrix {
        self.stores[store].packed(id)
    }

    /// Keeps the description of a custom node as long as the graph.
    pub(super) fn own<N: Any + Send>(&self, node: Box<N>) -> *const N {
        let address = ptr::from_ref(&*node);
        self.nodes.borrow_mut().push(node);
        address
    }

    pub(super) fn node(&self, make: impl FnOnce(*mut sys::ggml_context) -> *mut sys::ggml_tensor) -> Tensor<'g> {
        Tensor::new(make(self.arena.take()))
    }

    /// `w · x`: `[k, n] × [k, rows] → [n, rows]`.
    pub(crate) fn mul_mat(&self, w: Tensor<'g>, x: Tensor<'g>) -> Tensor<'g> {
        // SAFETY: see the impl block.
        self.node(|c| unsafe { sys::ggml_mul_mat(c, w.raw(), x.raw()) })
    }

    /// Element-wise sum, `b` broadcast over rows.
    pub(crate) fn add(&self, a: Tensor<'g>, b: Tensor<'g>) -> Tensor<'g> {
        // SAFETY: see the impl block.
        self.node(|c| unsafe { sys::ggml_add(c, a.raw(), b.raw()) })
    }

    /// `x · s`.
    pub(crate) fn scale(&self, x: Tensor<'g>, s: f32) -> Tensor<'g> {
        // SAFETY: see the impl block.
        self.node(|c| unsafe { sys::ggml_scale(c, x.raw(), s) })
    }

    /// `cap · tanh(x / cap)`.
    pub(crate) fn soft_cap(&self, x: Tensor<'g>, cap: f32) -> Tensor<'g> {
        let scaled = self.scale(x, 1.0 / cap);
        // SAFETY: see the impl block.
        let bent = self.node(|c| unsafe { sys::ggml_tanh(c, scaled.raw()) });
        self.scale(bent, cap)
    }

    /// `gain · x / rms(x)` over the first dimension.
    pub(crate) fn rms_norm(&self, x: Tensor<'g>, gain: Tensor<'g>, epsilon: f32) -> Tensor<'g> {
        // SAFETY: see the impl block.
        let normed = self.node(|c| unsafe { sys::ggml_rms_norm(c, x.raw(), epsilon) });
        // SAFETY: see the impl block.
        self.node(|c| unsafe { sys::ggml_mul(c, normed.raw(), gain.raw()) })
    }

    /// Rotary position embedding of `x`, `[head_dim, heads, rows]`, at `positions`, `[rows]`; `factors` divide the frequencies.
    pub(crate) fn rope(
        &self,
        x: Tensor<'g>,
        positions: Tensor<'g>,
        factors: Option<Tensor<'g>>,
        rope: &Rope,
    ) -> Tensor<'g> {
        const NEOX: i32 = 2; // GGML_ROPE_TYPE_NEOX, a macro that the bindings do not carry
        let mode = if rope.pairs == RopePairs::Halves { NEOX } else { 0 };
        let factors = factors.map_or(ptr::null_mut(), Tensor::raw);
        let (n_dims, n_ctx_orig) = (rope.n_dims.cast_signed(), rope.n_ctx_orig.min(i32::MAX as u32).cast_signed());
        // SAFETY: see the impl block.
        self.node(|c| unsafe {
            sys::ggml_rope_ext(
                c,
                x.raw(),
                positions.raw(),
                factors,
                n_dims,
                mode,
                n_ctx_orig,
                rope.freq_base,
                rope.freq_scale,
                rope.ext_factor,
                rope.attn_factor,
                YARN_BETA_FAST,
                YARN_BETA_SLOW,
            )
        })
    }

    /// The gated activation of two products.
    pub(crate) fn gated(&self, kind: Activation, gate: Tensor<'g>, up: Tensor<'g>) -> Tensor<'g> {
        // SAFETY: see the impl block.
        self.node(|c| unsafe {
            match kind {
                Activation::Silu => sys::ggml_swiglu_split(c, gate.raw(), up.raw()),
                Activation::Gelu => sys::ggml_geglu_split(c, gate.raw(), up.raw()),
            }
        })
    }

    /// The gated activation of one product whose first half is the gate.
    pub(crate) fn gated_halves(&self, kind: Activation, gate_up: Tensor<'g>) -> Tensor<'g> {
        // SAFETY: see the impl block.
        self.node(|c| unsafe {
            match kind {
                Activation::Silu => sys::ggml_swiglu(c, gate_up.raw()),
                Activation::Gelu => sys::ggml_geglu(c, gate_up.raw()),
            }
        })
    }

    /// Rows `ids` of `x`.
    pub(crate) fn get_rows(&self, x: Tensor<'g>, ids: Tensor<'g>) -> Tensor<'g> {
        // SAFETY: see the impl block.
        self.node(|c| unsafe { sys::ggml_get_rows(c, x.raw(), ids.raw()) })
    }

    /// Writes the rows of `x` to rows `ids` of `into`.
    pub(crate) fn set_rows(&self, into: Tensor<'g>, x: Tensor<'g>, ids: Tensor<'g>) {
        // SAFETY: see the impl block.
        let node = self.node(|c| unsafe { sys::ggml_set_rows(c, into.raw(), x.raw(), ids.raw()) });
        self.expand(node);
    }

    /// Copies `x` over `into`.
    pub(crate) fn copy(&self, x: Tensor<'g>, into: Tensor<'g>) {
        // SAFETY: see the impl block.
        let node = self.node(|c| unsafe { sys::ggml_cpy(c, x.raw(), into.raw()) });
        self.expand(node);
    }

    /// Attention of `q` `[head_dim, heads, rows]` over cells `k`, `v` `[head_dim, cells, kv_heads]` under `mask` `[cells, rows]`:
    /// `softmax(cap(scale · q kᵀ) + mask) v`, `[head_dim · heads, rows]`.
    pub(crate) fn attention(
        &self,
        q: Tensor<'g>,
        k: Tensor<'g>,
        v: Tensor<'g>,
        mask: Tensor<'g>,
        scale: f32,
        soft_cap: f32,
    ) -> Tensor<'g> {
        let rows_last = self.permute(q, [0, 2, 1, 3]);
        // SAFETY: see the impl block.
        let out = self.node(|c| unsafe {
            let out = sys::ggml_flash_attn_ext(c, rows_last.raw(), k.raw(), v.raw(), mask.raw(), scale, 0.0, soft_cap);
            sys::ggml_prec_set_acc(out, sys::GGML_PREC_F32);
            out
        });
        self.reshape(out, &[out.ne(0) * out.ne(1), out.ne(2)])
    }

    /// `x` with its dimensions in another order.
    pub(crate) fn permute(&self, x: Tensor<'g>, axes: [i32; 4]) -> Tensor<'g> {
        // SAFETY: see the impl block.
        self.node(|c| unsafe { sys::ggml_permute(c, x.raw(), axes[0], axes[1], axes[2], axes[3]) })
    }

    /// `x`, contiguous, with two or three other dimensions over the same elements.
    pub(crate) fn reshape(&self, x: Tensor<'g>, ne: &[i64]) -> Tensor<'g> {
        // SAFETY: see the impl block.
        self.node(|c| unsafe {
            match *ne {
                [a, b] => sys::ggml_reshape_2d(c, x.raw(), a, b),
                [a, b, d] => sys::ggml_reshape_3d(c, x.raw(), a, b, d),
                _ => unreachable!("reshape takes two or three dimensions"),
            }
        })
    }

    /// The first `n` elements of the one-dimensional `x`.
    pub(crate) fn head(&self, x: Tensor<'g>, n: i64) -> Tensor<'g> {
        // SAFETY: see the impl block.
        self.node(|c| unsafe { sys::ggml_view_1d(c, x.raw(), n, 0) })
    }

    /// The start of the contiguous `x`, seen as `[ne0, ne1]`.
    pub(crate) fn head_2d(&self, x: Tensor<'g>, ne0: i64, ne1: i64) -> Tensor<'g> {
        let row = x.nb(0) * usize::try_from(ne0).unwrap_or(0);
        // SAFETY: see the impl block.
        self.node(|c| unsafe { sys::ggml_view_2d(c, x.raw(), ne0, ne1, row, 0) })
    }

    /// A window of `x` as `[ne0, ne1]` with `nb` bytes from row to row, from byte `offset`.
    pub(crate) fn view_2d(&self, x: Tensor<'g>, ne: [i64; 2], nb: usize, offset: usize) -> Tensor<'g> {
        // SAFETY: see the impl block.
        self.node(|c| unsafe { sys::ggml_view_2d(c, x.raw(), ne[0], ne[1], nb, offset) })
    }

    /// A window of `x` as `[ne0, ne1, ne2]` with strides `nb` in bytes, from byte `offset`.
    pub(crate) fn view_3d(&self, x: Tensor<'g>, ne: [i64; 3], nb: [usize; 2], offset: usize) -> Tensor<'g> {
        // SAFETY: see the impl block.
        self.node(|c| unsafe { sys::ggml_view_3d(c, x.raw(), ne[0], ne[1], ne[2], nb[0], nb[1], offset) })
    }
}

/// A graph over its own arena and the stores it reads and writes; built once, run many times.
pub(crate) struct Graph {
    // Declared before the arena: the pointers die with it.
    raw: *mut sys::ggml_cgraph,
    result: Option<*mut sys::ggml_tensor>,
    /// The allocator's generation that the nodes' addresses belong to.
    pub(super) generation: u64,
    _arena: Box<Arena>,
    _nodes: Vec<Box<dyn Any + Send>>,
    _stores: Vec<Arc<TensorStore>>,
}

// SAFETY: a graph is headers only and has no thread affinity; it runs under `&mut Machine`.
unsafe impl Send for Graph {}

impl Graph {
    /// Builds a graph of at most `capacity` tensors. The closure returns the tensor to be read afterwards, if any.
    ///
    /// The closure can use tensors of its builder only: the lifetime is chosen by this function, so nothing else fits.
    pub(crate) fn build(
        capacity: usize,
        stores: Vec<Arc<TensorStore>>,
        body: impl for<'g> FnOnce(&Builder<'g>) -> Option<Tensor<'g>>,
    ) -> Self {
        let arena = Box::new(Arena::new(capacity, capacity));
        // SAFETY: the arena was sized for one graph of this capacity.
        let raw = unsafe { sys::ggml_new_graph_custom(arena.raw(), capacity, false) };
        let builder = Builder { arena: &arena, stores: &stores, graph: raw, nodes: RefCell::default() };
        let result = body(&builder).map(|tensor| {
            builder.expand(tensor);
            // SAFETY: the tensor is a node of this arena. The flag keeps the allocator from reusing its memory within a run.
            unsafe { sys::ggml_set_output(tensor.raw()) };
            tensor.raw()
        });
        let nodes = builder.nodes.into_inner();
        Self { raw, result, generation: 0, _arena: arena, _nodes: nodes, _stores: stores }
    }

    pub(super) fn raw(&self) -> *mut sys::ggml_cgraph {
        self.raw
    }

    pub(super) fn result(&self) -> Option<*mut sys::ggml_tensor> {
        self.result
    }
}
