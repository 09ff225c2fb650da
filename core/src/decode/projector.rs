//! Logits of a pass's rows, made when they are asked for: one row at a time (Lever 2.3), or many at once where that is cheaper.
//!
//! Rows are asked for from the root downwards, so their indices rise and one buffer is enough: many rows are projected in blocks
//! of consecutive ones, and a block that nobody comes to is never made. Of each row the few best tokens are kept for the
//! drafters; whole rows of logits are gone with the next block.

use std::ops::Range;

use super::clock::Clock;
use super::ledger::Ledger;
use crate::cost::PassCost;
use crate::draft::TopK;
use crate::error::Result;

/// Numbers in the buffer at most, unless a single row has more: 16 MB.
const MAX_NUMBERS: usize = 4 << 20;

/// The buffer, and what the rows of the present pass said.
pub(super) struct Projector {
    n_vocab: usize,
    /// Whether anybody learns from the rows.
    keeps: bool,
    logits: Vec<f32>,
    /// Rows of the pass, and of a block.
    rows: u32,
    per_block: u32,
    /// The first row in the buffer.
    first: Option<u32>,
    said: Vec<(u32, TopK)>,
}

impl Projector {
    /// For rows of `n_vocab` logits, whose best tokens are kept if `keeps`.
    pub(super) fn new(n_vocab: usize, keeps: bool) -> Self {
        Self { n_vocab, keeps, logits: Vec::new(), rows: 0, per_block: 1, first: None, said: Vec::new() }
    }

    /// A pass of `rows` rows begins; `batched` says that its rows are projected together.
    pub(super) fn begin(&mut self, rows: usize, batched: bool) {
        let at_most = MAX_NUMBERS / self.n_vocab.max(1);
        let per_block = if batched { rows.min(at_most).max(1) } else { 1 };
        self.rows = u32::try_from(rows).unwrap_or(u32::MAX);
        self.per_block = u32::try_from(per_block).unwrap_or(u32::MAX);
        self.first = None;
        self.said.clear();
    }

    /// The logits of `row`, `[n_vocab]`; what making them costs is added to `cost`.
    ///
    /// # Errors
    ///
    /// Those of [`Ledger::project`].
    pub(super) fn logits(&mut self, row: u32, ledger: &mut Ledger, cost: &mut PassCost) -> Result<&[f32]> {
        let first = row - row % self.per_block;
        if self.first != Some(first) {
            // A row beyond the pass is the executor's to refuse.
            let end = first.saturating_add(self.per_block).min(self.rows.max(first + 1));
            self.project(first..end, ledger, cost)?;
        }
        let at = (row - first) as usize * self.n_vocab;
        Ok(&self.logits[at..at + self.n_vocab])
    }

    /// The rows that were projected, and what the target said there.
    pub(super) fn said(&self) -> &[(u32, TopK)] {
        &self.said
    }

    /// Keeps the best tokens of `rows` without having been asked for their logits.
    ///
    /// # Errors
    ///
    /// Those of [`Ledger::project`].
    pub(super) fn hear(&mut self, rows: Range<u32>, ledger: &mut Ledger) -> Result<()> {
        let per_block = (MAX_NUMBERS / self.n_vocab.max(1)).clamp(1, 64);
        for first in rows.clone().step_by(per_block) {
            let end = first.saturating_add(u32::try_from(per_block).unwrap_or(u32::MAX)).min(rows.end);
            self.project(first..end, ledger, &mut PassCost::default())?;
        }
        Ok(())
    }

    fn project(&mut self, rows: Range<u32>, ledger: &mut Ledger, cost: &mut PassCost) -> Result<()> {
        let clock = Clock::start();
        let block: Vec<u32> = rows.collect();
        self.first = None;
        self.logits.resize(block.len() * self.n_vocab, 0.0);
        ledger.project(&block, &mut self.logits)?;
        self.first = block.first().copied();
        if self.keeps {
            let tops = self.logits.chunks_exact(self.n_vocab).map(TopK::of);
            self.said.extend(block.iter().copied().zip(tops));
        }
        cost.projected += block.len();
        cost.projected_per_call = cost.projected_per_call.max(block.len());
        cost.project_ms += clock.ms();
        Ok(())
    }
}
