//! Graphs by shape: built when a shape is first seen, kept while they are used.

use std::sync::Arc;

use super::block::{self, Block, SightInput, StageInputs, WEIGHTS};
use super::products::Products;
use super::state::{Sight, State, StateTensors};
use super::weights::{Setup, StagedModel};
use crate::architecture::{Architecture, GlobalTensor};
use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};
use crate::kernels::attention::Workspace;
use crate::kernels::graph::{Builder, Graph, Tensor};
use crate::kernels::region::Piece;
use crate::kernels::store::{AnchorId, TensorId, TensorStore};

/// What a graph computes. Two passes of one shape run the same graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Layers `from .. to` over `rows` rows that look at `n_kv` cells, or at any number with our attention. After the last layer
    /// `wanted` rows are left.
    Stage { from: usize, to: usize, rows: usize, wanted: usize, n_kv: usize },
    /// Logits of `rows` selected hidden states.
    Projection { rows: usize },
}

/// The session's tensors are the second store of every graph.
const STATE: usize = 1;

/// Tensors that one layer adds to a graph at most, and those around the layers.
const LAYER_TENSORS: usize = 64;
const OTHER_TENSORS: usize = 64;

/// The graphs of one sequence, most recently used last.
pub(super) struct Graphs {
    model: Arc<StagedModel>,
    stores: Vec<Arc<TensorStore>>,
    tensors: StateTensors,
    workspace: Arc<Workspace>,
    built: Vec<(Shape, Graph)>,
    kept: usize,
}

impl Graphs {
    /// Shapes to keep. A tree's row counts differ from step to step; a graph of 16 layers takes about 300 KB of headers.
    const KEPT: usize = 40;

    /// Passes to keep where a pass is many graphs: a layer's takes about 50 KB.
    const KEPT_PASSES: usize = 6;

    /// Bytes that attention needs for itself: the most of what [`new`](Self::new) takes.
    pub(super) fn bytes(setup: &Setup, n_cells: usize) -> u64 {
        if !setup.attends() {
            return 0;
        }
        Workspace::bytes(&setup.attention(0), State::padded(n_cells), setup.options.threads.n_threads())
    }

    /// Graph memory that a row of a pass takes at most: what is alive at once in a block, in f32.
    pub(super) fn bytes_per_row(arch: &Architecture) -> u64 {
        let (embd, q) = (u64::from(arch.n_embd), u64::from(arch.n_embd_q()));
        let (kv, ff) = (u64::from(arch.n_embd_kv()), u64::from(arch.n_ff));
        let attention = 2 * (q + 2 * kv) + q + 2 * embd;
        let feed_forward = 3 * ff + 3 * embd;
        4 * attention.max(feed_forward)
    }

    pub(super) fn new(model: Arc<StagedModel>, state: &State) -> Self {
        let stores = vec![Arc::clone(model.store()), Arc::clone(state.store())];
        let tensors = state.tensors().clone();
        let n_threads = model.options().threads.n_threads();
        let cells = if model.attends() { State::padded(tensors.n_cells) } else { 0 };
        let workspace = Arc::new(Workspace::new(&model.attention(0), cells, n_threads));
        let parts = model.parts(0..model.arch().n_layers as usize).count();
        let kept = Self::KEPT.max(Self::KEPT_PASSES * (parts + 1));
        Self { model, stores, tensors, workspace, built: Vec::with_capacity(kept), kept }
    }

    /// Gives the graph of `shape` its memory, and forgets it again.
    pub(super) fn reserve(&mut self, shape: Shape) -> Result<()> {
        let mut graph = self.build(shape);
        self.model.machine(&Cancel::new())?.place(&mut graph)
    }

    /// Runs the graph of `shape` and copies its result to `result`, if that is asked for. A streamed layer is `moored` where it was
    /// read to.
    pub(super) fn run(
        &mut self,
        shape: Shape,
        moored: Option<(AnchorId, &Piece)>,
        cancel: &Cancel,
        result: Option<&mut [f32]>,
    ) -> Result<()> {
        let model = Arc::clone(&self.model);
        let mut machine = model.machine(cancel)?;
        if let Some((anchor, memory)) = moored {
            model.store().moor(anchor, memory);
        }
        // Twice at most: another session's larger shapes may have moved the memory since this graph was placed.
        for _ in 0..2 {
            let mut graph = self.take(shape);
            let ran = machine.compute(&mut graph, cancel);
            match ran {
                Ok(false) => drop(graph),
                Ok(true) => {
                    if let Some(values) = result {
                        machine.read_result(&graph, values);
                    }
                    self.built.push((shape, graph));
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        let reason = "the graph memory moved under a graph that was just placed".into();
        Err(ErrorKind::Backend { operation: "running the model", reason }.into())
    }

    /// The graph of `shape`, out of the kept ones or new.
    fn take(&mut self, shape: Shape) -> Graph {
        match self.built.iter().rposition(|(built, _)| *built == shape) {
            Some(at) => self.built.remove(at).1,
            None => {
                if self.built.len() == self.kept {
                    self.built.remove(0);
                }
                self.build(shape)
            }
        }
    }

    fn build(&self, shape: Shape) -> Graph {
        match shape {
            Shape::Projection { rows } => {
                Graph::build(OTHER_TENSORS, self.stores.clone(), |graph| Some(self.projection(graph, rows as i64)))
            }
            Shape::Stage { from, to, rows, wanted, n_kv } => {
                let capacity = (to - from) * LAYER_TENSORS + OTHER_TENSORS;
                Graph::build(capacity, self.stores.clone(), |graph| {
                    self.stage(graph, from..to, [rows as i64, wanted as i64, n_kv as i64]);
                    None
                })
            }
        }
    }

    fn projection<'g>(&self, graph: &Builder<'g>, rows: i64) -> Tensor<'g> {
        let ids = graph.head(self.state(graph, self.tensors.selection), rows);
        let h = graph.get_rows(self.state(graph, self.tensors.hidden), ids);
        block::project(graph, &self.model, h)
    }

    fn stage(&self, graph: &Builder<'_>, layers: std::ops::Range<usize>, [rows, wanted, n_kv]: [i64; 3]) {
        let (model, tensors) = (&*self.model, &self.tensors);
        let n_embd = i64::from(model.arch().n_embd);
        let hidden = |rows| graph.head_2d(self.state(graph, tensors.hidden), n_embd, rows);
        let inputs = self.inputs(graph, rows, n_kv);
        let mut h = if layers.start == 0 {
            block::embed(graph, model, graph.head(self.state(graph, tensors.tokens), rows))
        } else {
            hidden(rows)
        };
        for layer in layers.clone() {
            let last = layer + 1 == model.arch().n_layers as usize;
            let selection = || (wanted > 0).then(|| graph.head(self.state(graph, tensors.selection), wanted));
            let block = Block {
                graph,
                model,
                arch: model.arch(),
                layer: u32::try_from(layer).expect("layers are counted in u32"),
                weights: model.layer(layer),
                products: Products(model.isa()),
                keys: self.state(graph, tensors.keys[layer]),
                values: self.state(graph, tensors.values[layer]),
            };
            match block.build(&inputs, h, (last && wanted < rows).then(selection)) {
                Some(out) => h = out,
                None => return,
            }
        }
        graph.copy(h, hidden(wanted));
    }

    fn inputs<'g>(&self, graph: &Builder<'g>, rows: i64, n_kv: i64) -> StageInputs<'g> {
        let tensors = &self.tensors;
        let mask = |id| graph.head_2d(self.state(graph, id), n_kv, rows);
        StageInputs {
            positions: graph.head(self.state(graph, tensors.positions), rows),
            cells: graph.head(self.state(graph, tensors.cells), rows),
            sight: match tensors.sight {
                Sight::Ancestors(id) => SightInput::Ancestors(self.state(graph, id), Arc::clone(&self.workspace)),
                Sight::Masks(id, window) => SightInput::Masks { mask: mask(id), window_mask: window.map(mask), n_kv },
            },
            rope_factors: self.rope_factors().map(|id| graph.stored(WEIGHTS, id)),
        }
    }

    /// The file's frequency factors; of a long and a short set, the long one if the context is longer than the original one.
    fn rope_factors(&self) -> Option<TensorId> {
        let model = &self.model;
        let long = self.tensors.n_cells > model.arch().rope.n_ctx_orig as usize;
        let set = if long { GlobalTensor::RopeFactorsLong } else { GlobalTensor::RopeFactorsShort };
        model.get(GlobalTensor::RopeFactors).or(model.get(set))
    }

    fn state<'g>(&self, graph: &Builder<'g>, id: TensorId) -> Tensor<'g> {
        graph.stored(STATE, id)
    }
}
