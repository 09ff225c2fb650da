//! The layer-staged executor: the model as ggml graphs, one per stage, so that rows can be dropped between stages and only the
//! rows that matter are projected.
//!
//! A graph is built once for a shape (rows, cells rounded up to 256) and run again for every pass of that shape; nothing is
//! allocated then. Row counts are exact, not rounded up: on the CPU a padded row costs as much as a real one.
//!
//! Deliberately not here: which weights are where (`weights`), what a block consists of (`block`), the session's tensors
//! (`state`), and every decision about rows.

mod block;
mod budgeted;
mod graphs;
mod products;
mod state;
mod weights;

use std::ops::Range;
use std::sync::Arc;

use super::memory::check_available;
use super::options::check_sizes;
use super::pass::Pass;
use super::{Executor, ExecutorShape, Row};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::kernels::store::AnchorId;
use crate::kv_cache::KvCache;
use crate::metrics::FlashMetrics;
use crate::residency::stream;
use budgeted::Share;
pub(crate) use budgeted::{ALLOWANCE, Forecast, Within};
use graphs::{Graphs, Shape};
use state::State;
pub(crate) use weights::{Setup, StagedModel, StagedOptions, StagedWeights};

/// Runs one sequence through a [`StagedModel`].
pub(crate) struct StagedExecutor {
    model: Arc<StagedModel>,
    shape: ExecutorShape,
    cache: KvCache,
    pass: Pass,
    state: State,
    graphs: Graphs,
    /// What this sequence takes of the model's memory budget.
    _share: Option<Share>,
}

impl StagedExecutor {
    /// Rows whose logits one graph makes at most.
    const PROJECTED_ROWS: usize = 64;

    /// An empty sequence of `n_cells` positions.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` for the cache or the graphs; `InvalidOption` if there are no cells or the cache type does not fit the heads.
    pub(crate) fn new(model: Arc<StagedModel>, n_cells: usize) -> Result<Self> {
        check_sizes(n_cells, model.options().max_rows)?;
        let max_rows = model.options().max_rows.min(n_cells);
        let (state_bytes, graph_bytes) =
            (State::bytes(model.setup(), n_cells, max_rows), Graphs::bytes(model.setup(), n_cells));
        check_available("the session", state_bytes + graph_bytes)?;
        let share = Share::take(&model, n_cells, max_rows)?;
        let n_layers = model.arch().n_layers as usize;
        let per_stage = model.options().stage_layers.max(1);
        let boundaries = (1..=n_layers).filter(|l| l % per_stage == 0 || *l == n_layers).collect();
        let n_vocab = model.arch().n_vocab as usize;
        let invariant_rows = model.is_invariant();
        let shape =
            ExecutorShape { n_vocab, n_layers, n_cells, max_rows, boundaries, forgets_rows: true, invariant_rows };
        let state = State::new(&model, n_cells, max_rows)?;
        let mut executor = Self {
            cache: KvCache::new(n_cells, max_rows),
            pass: Pass::new(max_rows),
            graphs: Graphs::new(Arc::clone(&model), &state),
            model,
            shape,
            state,
            _share: share,
        };
        executor.reserve()?;
        Ok(executor)
    }

    /// Has the shared graph memory grow to the largest shapes now, so that no later pass moves it.
    fn reserve(&mut self) -> Result<()> {
        let (rows, n_cells) = (self.shape.max_rows, State::padded(self.shape.n_cells));
        let n_kv = if self.model.attends() { 0 } else { n_cells };
        let first = self.shape.boundaries[0];
        let parts: Vec<Range<usize>> = self.model.parts(0..first).map(|part| part.layers).collect();
        // The first part embeds; of the others one is like the next.
        for Range { start: from, end: to } in parts.into_iter().take(2) {
            self.graphs.reserve(Shape::Stage { from, to, rows, wanted: rows, n_kv })?;
        }
        self.graphs.reserve(Shape::Projection { rows: rows.min(Self::PROJECTED_ROWS) })
    }

    /// Runs layers that are in memory together; one that streams is waited for.
    fn run_part(&mut self, part: Part, stream: Option<&stream::Pass<'_>>, cancel: &Cancel) -> Result<()> {
        let Range { start: from, end: to } = part.layers;
        let rows = self.pass.kept().len();
        let last = to == self.shape.n_layers;
        let wanted = if last { wanted_before(&self.pass, u32::MAX) } else { rows };
        let n_kv = if self.model.attends() { 0 } else { State::padded(self.cache.n_used()) };
        let lease = stream.filter(|_| part.anchor.is_some()).map(|stream| stream.layer(from, cancel)).transpose()?;
        let moored = part.anchor.zip(lease.as_ref().map(stream::Lease::memory));
        self.graphs.run(Shape::Stage { from, to, rows, wanted, n_kv }, moored, cancel, None)
    }
}

impl Executor for StagedExecutor {
    fn shape(&self) -> &ExecutorShape {
        &self.shape
    }

    fn len(&self) -> usize {
        self.cache.len()
    }

    fn begin(&mut self, rows: &[Row]) -> Result<()> {
        self.pass.begin(rows, &self.shape, &mut self.cache)
    }

    fn run(&mut self, boundary: usize, cancel: &Cancel) -> Result<()> {
        let layers = self.pass.layers_to(boundary, &self.shape)?;
        self.model.store().check_files()?;
        self.state.write_inputs(&self.pass, &self.cache);
        let model = Arc::clone(&self.model);
        let stream = match model.residency() {
            Some(residency) => residency.pass(cancel)?,
            None => None,
        };
        let mut from = layers.start;
        for i in 0..self.shape.boundaries.len() {
            let to = self.shape.boundaries[i];
            if to > from && to <= layers.end {
                for part in model.parts(from..to) {
                    self.run_part(part, stream.as_ref(), cancel)?;
                }
                self.pass.ran(to);
                from = to;
            }
        }
        Ok(())
    }

    fn keep(&mut self, rows: &[u32]) -> Result<()> {
        let before: Vec<u32> = self.pass.kept().to_vec();
        self.pass.keep(rows)?;
        if self.pass.layers_done() > 0 {
            // The last layer has left the rows behind that want no logits.
            let finished = self.pass.layers_done() == self.shape.n_layers;
            let begun = self.pass.rows();
            let there = before.iter().filter(|&&row| !finished || begun[row as usize].wants_logits);
            let places = there.enumerate().filter(|(_, row)| rows.binary_search(row).is_ok()).map(|(i, _)| i);
            self.state.compact_hidden(places);
        }
        Ok(())
    }

    fn project(&mut self, rows: &[u32], logits: &mut [f32]) -> Result<()> {
        self.pass.check_project(rows, logits.len(), &self.shape)?;
        let slices = logits.chunks_mut(Self::PROJECTED_ROWS * self.shape.n_vocab);
        for (rows, logits) in rows.chunks(Self::PROJECTED_ROWS).zip(slices) {
            self.state.write_selection(rows.iter().map(|&row| wanted_before(&self.pass, row)));
            self.graphs.run(Shape::Projection { rows: rows.len() }, None, &Cancel::new(), Some(logits))?;
        }
        Ok(())
    }

    fn commit(&mut self, path: &[u32]) -> Result<()> {
        self.pass.check_commit(path, &self.shape)?;
        let state = &mut self.state;
        self.cache.commit(path, |cell| {
            state.move_cell(cell.from, cell.to);
            Ok(())
        })?;
        self.pass.end();
        Ok(())
    }

    fn rollback(&mut self) {
        self.cache.rollback();
        self.pass.end();
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        self.cache.truncate(len)
    }

    fn flash(&self) -> FlashMetrics {
        self.model.residency().map(|residency| residency.figures()).unwrap_or_default()
    }
}

/// Consecutive layers that are run as one graph.
pub(super) struct Part {
    /// The layers.
    layers: Range<usize>,
    /// Where the layer is moored, if it streams: it is the only one then.
    anchor: Option<AnchorId>,
}

impl StagedModel {
    /// `layers` cut into parts: a layer that streams stands alone, so that nothing waits for it but itself.
    fn parts(&self, layers: Range<usize>) -> impl Iterator<Item = Part> + '_ {
        let streamed = |layer: usize| self.residency().and_then(|residency| residency.streamed(layer));
        let mut from = layers.start;
        std::iter::from_fn(move || {
            let start = Some(from).filter(|&start| start < layers.end)?;
            let anchor = streamed(start);
            from = match anchor {
                Some(_) => start + 1,
                None => (start..layers.end).find(|&layer| streamed(layer).is_some()).unwrap_or(layers.end),
            };
            Some(Part { layers: start..from, anchor })
        })
    }
}

/// Kept rows before `row` whose logits may be asked for: where `row`'s hidden state is after the last layer.
fn wanted_before(pass: &Pass, row: u32) -> usize {
    pass.kept().iter().take_while(|&&kept| kept < row).filter(|&&kept| pass.rows()[kept as usize].wants_logits).count()
}
