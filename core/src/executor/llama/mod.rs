//! The executor on llama.cpp's own context: every architecture llama.cpp loads, all layers at once.
//!
//! It has one boundary, `n_layers`: rows cannot be dropped on the way, and layers are neither streamed nor placed. A tree runs as
//! sequences that share cells (see `leaves`); a chain is plain `llama_decode`. Committed rows stay in the cells they were
//! computed in, so after a tree the sums of attention run in another order than in plain decoding, and logits differ in the last
//! bits.
//!
//! Models with a running state (Mamba, RWKV, hybrids) run chains only. Their state cannot be cut, so after a rollback, a
//! partial commit or a truncation the next pass first reads the history again. So it does after an exception, which takes the context
//! with it.

mod leaves;

use std::sync::Arc;

use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};
use crate::executor::memory::check_available;
use crate::executor::options::{KvType, ThreadOptions, check_sizes};
use crate::executor::pass::Pass;
use crate::executor::{Executor, ExecutorShape, Row, Weights};
use crate::kernels::LlamaVocabulary;
use crate::kernels::llama::{Batch, ContextOptions, LlamaContext, LlamaModel, LoadOptions};
use crate::kernels::mapping::Mapping;
use crate::kernels::threads::ThreadPool;
use crate::kv_cache::KvCache;
use crate::token::Token;
use leaves::Leaves;

/// Leaves that the tree of one pass may have. Every pass gets a little slower with it; llama.cpp has 256 sequences.
const MAX_LEAVES: usize = 64;

/// How llama.cpp runs a model.
#[derive(Clone, Debug)]
pub(crate) struct LlamaOptions {
    /// Rows that one pass may have; also the longest piece of a prompt that is read at once.
    pub(crate) max_rows: usize,
    /// Type of K and V.
    pub(crate) kv_type: KvType,
    /// The threads, for all executors of the model together: they take turns, pass by pass.
    pub(crate) threads: ThreadOptions,
}

/// A model loaded by llama.cpp.
pub(crate) struct LlamaWeights {
    model: Arc<LlamaModel>,
    /// The files, which llama.cpp maps as well.
    files: Vec<Arc<Mapping>>,
    threads: Arc<ThreadPool>,
    options: LlamaOptions,
}

impl LlamaWeights {
    /// Loads the model in `files`, which passed [`validate`](crate::gguf::validate::validate), since llama.cpp ends the process on some
    /// that do not. `progress` is told the part that is loaded, 0.0 to 1.0, and `cancel` polled meanwhile.
    ///
    /// Fails with `File`, `InvalidModel` with llama.cpp's reason, `UnsupportedModel` for models that do not generate text,
    /// `InvalidOption`, `Cancelled`.
    pub(crate) fn load(
        files: &[Arc<Mapping>],
        options: LlamaOptions,
        cancel: &Cancel,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Self> {
        let path = files[0].path();
        let model = LlamaModel::load(path, LoadOptions { vocab_only: false, cancel, progress })?;
        if let Some(reason) = model.why_not_autoregressive() {
            return Err(ErrorKind::UnsupportedModel { path: path.to_owned(), reason: reason.to_owned() }.into());
        }
        let threads = Arc::new(ThreadPool::new(&options.threads)?);
        Ok(Self { model: Arc::new(model), files: files.to_vec(), threads, options })
    }

    /// The vocabulary of the same file, without loading it again.
    ///
    /// Fails with `Tokenizer` if the file has none.
    pub(crate) fn vocabulary(&self) -> Result<LlamaVocabulary> {
        LlamaVocabulary::of(Arc::clone(&self.model))
    }

    /// Fails with `OutOfMemory` if the cache is larger than what the system says it can give.
    fn check_memory(&self, n_cells: usize) -> Result<()> {
        let per_position = self.model.cache_bytes_per_position(self.options.kv_type.bytes_per_value());
        // A float beyond the range of the integer becomes its largest value.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let needed = (per_position * n_cells as f64) as u64;
        check_available("the K/V cache", needed)
    }
}

impl Weights for LlamaWeights {
    fn executor(&self, n_cells: usize) -> Result<Box<dyn Executor>> {
        check_sizes(n_cells, self.options.max_rows)?;
        self.check_memory(n_cells)?;
        // Not more rows than positions, and every leaf is a row.
        let max_rows = self.options.max_rows.min(n_cells);
        let max_leaves = if self.model.has_running_state() { 1 } else { MAX_LEAVES.min(max_rows) };
        let context = LlamaContext::new(
            Arc::clone(&self.model),
            &ContextOptions {
                n_cells,
                max_rows,
                n_seqs: max_leaves,
                kv_type: self.options.kv_type,
                threads: Arc::clone(&self.threads),
            },
        )?;
        let n_layers = self.model.n_layers();
        let shape = ExecutorShape {
            n_vocab: self.model.n_vocab(),
            n_layers,
            n_cells,
            max_rows,
            boundaries: vec![n_layers],
            forgets_rows: !self.model.has_running_state(),
            invariant_rows: false,
        };
        Ok(Box::new(LlamaExecutor {
            context,
            files: self.files.clone(),
            batch: Batch::default(),
            pass: Pass::new(max_rows),
            cache: KvCache::new(n_cells, max_rows),
            leaves: Leaves::default(),
            batch_rows: vec![None; max_rows],
            tried: false,
            history: Vec::new(),
            cached: 0,
            shared: vec![0; max_leaves],
            shape,
        }))
    }
}

/// One session's context.
struct LlamaExecutor {
    shape: ExecutorShape,
    context: LlamaContext,
    files: Vec<Arc<Mapping>>,
    batch: Batch,
    pass: Pass,
    /// Counts positions and checks paths. Its cells are not llama.cpp's, which finds its own.
    cache: KvCache,
    leaves: Leaves,
    /// Row of the batch, of each row of the pass; `None` for rows that were dropped before the run.
    batch_rows: Vec<Option<usize>>,
    /// Whether a decode was tried in this pass, so that there may be rows in the cache.
    tried: bool,
    /// The committed tokens, for models that have to read them again.
    history: Vec<Token>,
    /// How much of the history is in llama.cpp's cache: all of it, except after a cut that the model's memory refused.
    cached: usize,
    /// How much of the history each leaf's sequence shares. The first is sequence 0, which has all that is cached.
    shared: Vec<usize>,
}

impl LlamaExecutor {
    /// Reads the part of the history that the cache has lost, in pieces, without logits.
    fn restore_history(&mut self, cancel: &Cancel) -> Result<()> {
        while self.cached < self.history.len() {
            let end = self.history.len().min(self.cached + self.shape.max_rows);
            self.batch.clear();
            for position in self.cached..end {
                self.batch.push(self.history[position], position, 0..1, false);
            }
            self.context.decode(&mut self.batch, cancel)?;
            self.cached = end;
        }
        Ok(())
    }

    /// Gives every leaf's sequence the history. Chains have nothing to do; trees share what was committed since the last one.
    fn share_history(&mut self) {
        for (sequence, shared) in self.shared.iter_mut().enumerate().take(self.leaves.len()).skip(1) {
            if *shared < self.cached {
                self.context.share(0, sequence, *shared..self.cached);
                *shared = self.cached;
            }
        }
    }

    fn fill_batch(&mut self) {
        self.batch.clear();
        self.batch_rows.fill(None);
        for (batch_row, &row) in self.pass.kept().iter().enumerate() {
            let Row { token, wants_logits, .. } = self.pass.rows()[row as usize];
            self.batch.push(token, self.cache.position(row), self.leaves.of(row as usize), wants_logits);
            self.batch_rows[row as usize] = Some(batch_row);
        }
    }

    /// Takes everything from position `len` on out of llama.cpp's cache, or, if its memory cannot be cut there, everything.
    fn cut(&mut self, len: usize) {
        let kept = if len > 0 && self.context.remove_all_from(len) {
            len
        } else {
            self.context.clear();
            0
        };
        self.cached = self.cached.min(kept);
        for shared in &mut self.shared {
            *shared = (*shared).min(self.cached);
        }
    }

    /// Leaves of the pass only the first `n_rows` positions of `sequence` after the history, and those to sequence 0 alone.
    fn settle(&mut self, sequence: usize, n_rows: usize) {
        let (from, to) = (self.cached, self.cached + n_rows);
        let mut done = true;
        if sequence == 0 {
            done &= self.context.remove(0, to..usize::MAX);
        } else {
            done &= self.context.remove(0, from..usize::MAX);
            self.context.share(sequence, 0, from..to);
        }
        for other in 1..self.leaves.len() {
            done &= self.context.remove(other, from..usize::MAX);
        }
        if done {
            self.cached = to;
        } else {
            self.cut(0);
        }
    }
}

impl Executor for LlamaExecutor {
    fn shape(&self) -> &ExecutorShape {
        &self.shape
    }

    fn len(&self) -> usize {
        self.cache.len()
    }

    /// Beside the contract's errors, fails with `Misuse` if the tree has more leaves than [`MAX_LEAVES`], or
    /// more than one on a model with a running state.
    fn begin(&mut self, rows: &[Row]) -> Result<()> {
        self.pass.begin(rows, &self.shape, &mut self.cache)?;
        self.leaves.number(rows.iter().map(|row| row.parent));
        self.tried = false;
        let (n, max) = (self.leaves.len(), self.shared.len());
        if n > max {
            self.rollback();
            let reason = format!("the tree has {n} leaves, and this executor runs at most {max}");
            return Err(ErrorKind::Misuse { operation: "begin", reason }.into());
        }
        Ok(())
    }

    fn run(&mut self, boundary: usize, cancel: &Cancel) -> Result<()> {
        self.pass.layers_to(boundary, &self.shape)?;
        self.files.iter().try_for_each(|file| file.check())?;
        if self.tried {
            self.cut(self.cached);
        }
        self.tried = true;
        if self.context.is_broken() {
            self.context.renew()?;
            self.cut(0);
        }
        self.restore_history(cancel)?;
        self.share_history();
        self.fill_batch();
        self.context.decode(&mut self.batch, cancel)?;
        self.pass.ran(boundary);
        Ok(())
    }

    /// Before [`run`](Self::run) the dropped rows are not computed at all; afterwards there is no stage left to spare.
    fn keep(&mut self, rows: &[u32]) -> Result<()> {
        self.pass.keep(rows)
    }

    fn project(&mut self, rows: &[u32], logits: &mut [f32]) -> Result<()> {
        self.pass.check_project(rows, logits.len(), &self.shape)?;
        for (&row, out) in rows.iter().zip(logits.chunks_exact_mut(self.shape.n_vocab)) {
            match self.batch_rows[row as usize].and_then(|row| self.context.logits(row)) {
                Some(values) => out.copy_from_slice(values),
                None => {
                    let reason = format!("there are no logits of row {row}");
                    return Err(ErrorKind::Backend { operation: "project", reason }.into());
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self, path: &[u32]) -> Result<()> {
        self.pass.check_commit(path, &self.shape)?;
        self.cache.commit(path, |_| Ok(()))?;
        match path.last() {
            None if self.tried => self.cut(self.cached),
            None => (),
            // A chain that is accepted whole is where it belongs already.
            Some(_) if self.leaves.len() == 1 && path.len() == self.batch.len() => self.cached += path.len(),
            Some(&last) => self.settle(self.leaves.of(last as usize).start, path.len()),
        }
        self.history.extend(path.iter().map(|&row| self.pass.rows()[row as usize].token));
        self.pass.end();
        Ok(())
    }

    fn rollback(&mut self) {
        if self.cache.n_rows() > 0 && self.tried {
            self.cut(self.cached);
        }
        self.cache.rollback();
        self.pass.end();
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        self.cache.truncate(len)?;
        if len < self.cached {
            self.cut(len);
        }
        self.history.truncate(len);
        Ok(())
    }
}
