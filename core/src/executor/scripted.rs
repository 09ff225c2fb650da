//! A fake model for tests: its logits are a function of the history, its costs are prescribed, its failures are planned.
//!
//! It obeys the executor contract to the letter (and refuses whoever does not), including cells: a row's history is read back
//! from the cells it may see, so a wrong commit or mask shows as wrong text. It computes nothing and knows no files. Public
//! because tests of programs above this crate want it too; it is of no use to an app.

mod rule;
mod vocabulary;

pub use rule::Rule;
pub use vocabulary::ByteVocabulary;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::pass::Pass;
use super::{Executor, ExecutorShape, Row, Weights};
use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};
use crate::kv_cache::KvCache;
use crate::token::Token;

/// What a test prescribes of a fake model.
#[derive(Clone)]
pub struct Script {
    rule: Rule,
    n_layers: usize,
    n_stages: usize,
    max_rows: usize,
    cost: Cost,
    forgets_rows: bool,
    invariant_rows: bool,
    hook: Option<Hook>,
}

/// What a fake pass costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Per pass over all layers, whatever its rows.
    pub pass: Duration,
    /// Per row of a pass over all layers.
    pub row: Duration,
    /// Per projected row.
    pub projection: Duration,
    /// Whether the time is really spent sleeping; otherwise it is only added to [`Tally::elapsed`].
    pub real: bool,
}

/// A call of the executor contract that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Call {
    Begin,
    Run,
    Keep,
    Project,
    Commit,
    Truncate,
}

/// Runs before the `n`-th call (from 0, over all executors of the model and all kinds of call); an error it returns is that
/// call's. Where a test injects faults, cancels in the middle, or counts.
pub type Hook = Arc<dyn Fn(Call, u64) -> Result<()> + Send + Sync>;

/// What all executors of a fake model did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passes begun.
    pub passes: u64,
    /// Rows of those passes.
    pub rows: u64,
    /// Rows projected.
    pub projected: u64,
    /// Positions committed.
    pub committed: u64,
    /// Prescribed time spent, slept or not.
    pub elapsed: Duration,
}

/// The fake's weights: a [`Script`] and a [`Tally`] that its executors share.
pub struct ScriptedWeights {
    script: Script,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    calls: AtomicU64,
    tally: Mutex<Tally>,
}

impl Script {
    /// A model of 4 layers in 2 stages and passes of at most 16 rows that costs nothing and never fails.
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            n_layers: 4,
            n_stages: 2,
            max_rows: 16,
            cost: Cost::default(),
            forgets_rows: true,
            invariant_rows: true,
            hook: None,
        }
    }

    /// Layers, in `n_stages` stages of nearly equal size. Both at least 1, stages at most layers.
    pub fn layers(mut self, n_layers: usize, n_stages: usize) -> Self {
        self.n_layers = n_layers.max(1);
        self.n_stages = n_stages.clamp(1, self.n_layers);
        self
    }

    /// Rows a pass may have.
    pub fn max_rows(mut self, max_rows: usize) -> Self {
        self.max_rows = max_rows.max(1);
        self
    }

    /// What passes cost.
    pub fn cost(mut self, cost: Cost) -> Self {
        self.cost = cost;
        self
    }

    /// A model with a running state, as far as its [shape](ExecutorShape::forgets_rows) says.
    pub fn with_running_state(mut self) -> Self {
        self.forgets_rows = false;
        self
    }

    /// A model whose rows depend on the rows beside them, as far as its [shape](ExecutorShape::invariant_rows) says.
    pub fn with_varying_rows(mut self) -> Self {
        self.invariant_rows = false;
        self
    }

    /// What happens before every call.
    pub fn hook(mut self, hook: impl Fn(Call, u64) -> Result<()> + Send + Sync + 'static) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// The model.
    pub fn weights(self) -> Arc<ScriptedWeights> {
        Arc::new(ScriptedWeights { script: self, shared: Arc::default() })
    }
}

impl ScriptedWeights {
    /// What all executors of this model did so far.
    pub fn tally(&self) -> Tally {
        *self.shared.tally.lock()
    }
}

impl Weights for ScriptedWeights {
    fn executor(&self, n_cells: usize) -> Result<Box<dyn Executor>> {
        let Script { n_layers, n_stages, max_rows, .. } = self.script;
        let shape = ExecutorShape {
            n_vocab: self.script.rule.n_vocab(),
            n_layers,
            n_cells,
            max_rows,
            boundaries: (1..=n_stages).map(|stage| stage * n_layers / n_stages).collect(),
            forgets_rows: self.script.forgets_rows,
            invariant_rows: self.script.invariant_rows,
        };
        Ok(Box::new(ScriptedExecutor {
            cells: vec![0; n_cells],
            cache: KvCache::new(n_cells, max_rows),
            pass: Pass::new(max_rows),
            script: self.script.clone(),
            shared: Arc::clone(&self.shared),
            shape,
        }))
    }
}

struct ScriptedExecutor {
    shape: ExecutorShape,
    script: Script,
    shared: Arc<Shared>,
    pass: Pass,
    cache: KvCache,
    /// What the K/V cache would hold: the token that was read at each cell.
    cells: Vec<Token>,
}

impl ScriptedExecutor {
    fn announce(&self, call: Call) -> Result<()> {
        let n = self.shared.calls.fetch_add(1, Ordering::Relaxed);
        self.script.hook.as_ref().map_or(Ok(()), |hook| hook(call, n))
    }

    /// Sleeps in small steps, as a real stage polls between its operations.
    fn spend(&self, cost: Duration, cancel: &Cancel) -> Result<()> {
        self.shared.tally.lock().elapsed += cost;
        let end = Instant::now() + if self.script.cost.real { cost } else { Duration::ZERO };
        loop {
            if cancel.is_cancelled() {
                return Err(ErrorKind::Cancelled.into());
            }
            match end.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => std::thread::sleep(left.min(Duration::from_millis(1))),
                _ => return Ok(()),
            }
        }
    }

    /// The tokens that `row` sees, in position order, and itself.
    fn history(&self, row: u32) -> Vec<Token> {
        let mut path: Vec<Token> = self.cache.visible_rows(row, None).map(|cell| self.cells[cell]).collect();
        path.reverse();
        let mut history = self.cells[self.cache.visible_history(row, None)].to_vec();
        history.append(&mut path);
        history
    }
}

impl Executor for ScriptedExecutor {
    fn shape(&self) -> &ExecutorShape {
        &self.shape
    }

    fn len(&self) -> usize {
        self.cache.len()
    }

    fn begin(&mut self, rows: &[Row]) -> Result<()> {
        self.announce(Call::Begin)?;
        self.pass.begin(rows, &self.shape, &mut self.cache)?;
        let mut tally = self.shared.tally.lock();
        tally.passes += 1;
        tally.rows += rows.len() as u64;
        Ok(())
    }

    fn run(&mut self, boundary: usize, cancel: &Cancel) -> Result<()> {
        let layers = self.pass.layers_to(boundary, &self.shape)?;
        self.announce(Call::Run)?;
        let rows = u32::try_from(self.pass.kept().len()).unwrap_or(u32::MAX);
        let share = layers.len() as f64 / self.shape.n_layers as f64;
        self.spend((self.script.cost.pass + self.script.cost.row * rows).mul_f64(share), cancel)?;
        for &row in self.pass.kept() {
            self.cells[self.cache.cell(row)] = self.pass.rows()[row as usize].token;
        }
        self.pass.ran(boundary);
        Ok(())
    }

    fn keep(&mut self, rows: &[u32]) -> Result<()> {
        self.announce(Call::Keep)?;
        self.pass.keep(rows)
    }

    fn project(&mut self, rows: &[u32], logits: &mut [f32]) -> Result<()> {
        self.announce(Call::Project)?;
        self.pass.check_project(rows, logits.len(), &self.shape)?;
        for (&row, logits) in rows.iter().zip(logits.chunks_exact_mut(self.shape.n_vocab)) {
            self.spend(self.script.cost.projection, &Cancel::new())?;
            self.script.rule.logits(&self.history(row), logits);
        }
        self.shared.tally.lock().projected += rows.len() as u64;
        Ok(())
    }

    fn commit(&mut self, path: &[u32]) -> Result<()> {
        self.announce(Call::Commit)?;
        self.pass.check_commit(path, &self.shape)?;
        self.cache.commit(path, |m| {
            self.cells[m.to] = self.cells[m.from];
            Ok(())
        })?;
        self.pass.end();
        self.shared.tally.lock().committed += path.len() as u64;
        Ok(())
    }

    fn rollback(&mut self) {
        self.cache.rollback();
        self.pass.end();
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        self.announce(Call::Truncate)?;
        self.cache.truncate(len)
    }
}

#[cfg(test)]
mod tests;
