//! The contract between the decode loop and whatever runs the model.
//!
//! An executor runs one sequence: a committed history at positions `0 .. len()`, and at most one *pass* over new rows that
//! hang below it as a tree. A pass is begun, run through the layers stage by stage, projected where logits are wanted, and
//! settled once: committed along one path, or rolled back. Executors decide nothing: which rows, which are dropped, which are
//! projected and which are accepted is the caller's business.
//!
//! Deliberately not known here: text, sampling, drafting, sessions, files.

mod cores;
#[cfg(feature = "ggml")]
pub(crate) mod llama;
#[cfg(feature = "ggml")]
pub(crate) mod memory;
pub mod options;
pub mod pass;
pub mod scripted;
#[cfg(feature = "ggml")]
pub(crate) mod staged;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::metrics::FlashMetrics;

pub use crate::row::Row;

/// Sizes that the caller of an executor needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorShape {
    /// Tokens in the vocabulary: the length of a row of logits.
    pub n_vocab: usize,
    /// Decoder layers.
    pub n_layers: usize,
    /// Positions that fit: committed history plus the rows of a pass.
    pub n_cells: usize,
    /// Rows that one pass may have.
    pub max_rows: usize,
    /// Layers after which [`Executor::run`] can stop, ascending; the last is `n_layers`.
    pub boundaries: Vec<usize>,
    /// Whether rejected rows are forgotten for nothing. A model with a running state reads its history again after each, so nothing
    /// is drafted for it.
    pub forgets_rows: bool,
    /// Whether a row's logits have the same bits whatever rows stand beside it. Where they have not, a drafted pass can decide a
    /// near-tie otherwise than plain decoding would, so nothing is drafted unless that is asked for.
    pub invariant_rows: bool,
}

/// Runs a model over the rows of one sequence. One instance belongs to one session and is used from one thread at a time.
///
/// # Errors
///
/// Every method but [`rollback`](Self::rollback) can fail. After an error the pass is still there and must be rolled back; the
/// committed history is unharmed.
pub trait Executor: Send {
    /// The sizes; they never change.
    fn shape(&self) -> &ExecutorShape;

    /// Committed positions.
    fn len(&self) -> usize;

    /// Whether nothing is committed.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins a pass over `rows`, parents before children, and gives each row a free cell.
    ///
    /// Fails with `ContextFull` if the deepest path or the rows do not fit, with `Misuse` if a pass is under way, `rows` is
    /// empty or longer than `max_rows`, a token is not in the vocabulary, or a parent does not come before its child.
    fn begin(&mut self, rows: &[Row]) -> Result<()>;

    /// Runs the pass's rows from where they are through layer `boundary` (exclusive), one of `shape().boundaries`.
    ///
    /// Polls `cancel` at least once per stage and fails with `Cancelled` when it is raised.
    fn run(&mut self, boundary: usize, cancel: &Cancel) -> Result<()>;

    /// Drops every row but `rows` (ascending indices of `begin`, each with its parent) from the stages still to run.
    fn keep(&mut self, rows: &[u32]) -> Result<()>;

    /// Writes the logits of `rows` (indices of `begin`, in any order) to `logits`, `[rows.len(), n_vocab]`.
    ///
    /// The rows have run all layers, were not dropped and have `wants_logits`. Projecting one row at a time along the accepted
    /// path and projecting all at once give logits of the same rows; whether they agree bit for bit is the kernels' property.
    fn project(&mut self, rows: &[u32], logits: &mut [f32]) -> Result<()>;

    /// Ends the pass: `path` (a chain of rows from a root downwards, possibly empty) becomes history in position order, all other
    /// rows are forgotten. The rows of `path` have run all layers.
    fn commit(&mut self, path: &[u32]) -> Result<()>;

    /// Ends the pass, if there is one, and forgets its rows. Cannot fail.
    fn rollback(&mut self);

    /// Forgets committed positions from `len` on. Fails with `Misuse` while a pass is under way or if `len` is beyond the history.
    fn truncate(&mut self, len: usize) -> Result<()>;

    /// What the model has read from flash since it was loaded, for all its sequences. Zero where every weight is in memory.
    fn flash(&self) -> FlashMetrics {
        FlashMetrics::default()
    }
}

/// A loaded model from which executors are made, one per session; they share the weights.
pub trait Weights: Send + Sync {
    /// A new, empty executor with `n_cells` positions.
    ///
    /// Fails with `OutOfMemory` if its cache cannot be allocated.
    fn executor(&self, n_cells: usize) -> Result<Box<dyn Executor>>;
}
