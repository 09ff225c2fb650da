//! llama.cpp's own logits, for tests: what `llama_decode` says about a batch of exactly this shape.
//!
//! llama.cpp's logits of a position depend on the rows beside it (attention splits, tiles, repacked groups), so a comparison is
//! fair only at the same batch shapes. Not for use by programs: no transactions, no trees, every row projected.

use std::path::Path;
use std::sync::Arc;

use super::LlamaOptions;
use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};
use crate::kernels::llama::{Batch, ContextOptions, LlamaContext, LlamaModel, LoadOptions};
use crate::kernels::threads::ThreadPool;
use crate::token::Token;

/// A llama.cpp context on one sequence.
pub struct Oracle {
    context: LlamaContext,
    batch: Batch,
    len: usize,
}

impl Oracle {
    /// Loads the model at `path` into a context of `n_cells` positions.
    ///
    /// Fails as [`LlamaWeights::load`](super::LlamaWeights::load) and its executors do.
    pub fn load(path: &Path, n_cells: usize, options: &LlamaOptions) -> Result<Self> {
        let load = LoadOptions {
            vocab_only: false,
            n_gpu_layers: options.n_gpu_layers,
            repack: options.repack,
            cancel: &Cancel::new(),
            progress: &mut |_| (),
        };
        let context = LlamaContext::new(
            Arc::new(LlamaModel::load(path, load)?),
            &ContextOptions {
                n_cells,
                max_rows: options.max_rows.min(n_cells),
                n_seqs: 1,
                kv_type: options.kv_type,
                threads: Arc::new(ThreadPool::new(&options.threads)?),
            },
        )?;
        Ok(Self { context, batch: Batch::default(), len: 0 })
    }

    /// Tokens in the vocabulary.
    pub fn n_vocab(&self) -> usize {
        self.context.model().n_vocab()
    }

    /// Positions decoded so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was decoded.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Decodes `tokens` in one batch and returns the logits of all its rows, `[tokens.len(), n_vocab]`.
    ///
    /// Fails with `Misuse` for a token that is not in the vocabulary or a batch that is too long, `ContextFull`, `Backend`.
    pub fn decode(&mut self, tokens: &[Token]) -> Result<Vec<f32>> {
        self.batch.clear();
        for (row, &token) in tokens.iter().enumerate() {
            self.batch.push(token, self.len + row, 0..1, true);
        }
        self.context.decode(&mut self.batch, &Cancel::new())?;
        self.len += tokens.len();
        let mut logits = Vec::with_capacity(tokens.len() * self.n_vocab());
        for row in 0..tokens.len() {
            let values = self.context.logits(row).ok_or_else(|| ErrorKind::Backend {
                operation: "reading logits",
                reason: format!("there are none of row {row}"),
            })?;
            logits.extend_from_slice(values);
        }
        Ok(logits)
    }

    /// Forgets positions from `len` on.
    ///
    /// Fails with `Misuse` if the model's memory cannot be cut there.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if len == 0 {
            self.context.clear();
        } else if !self.context.remove_all_from(len) {
            let reason = "this model's memory cannot be cut".to_owned();
            return Err(ErrorKind::Misuse { operation: "truncate", reason }.into());
        }
        self.len = self.len.min(len);
        Ok(())
    }
}
