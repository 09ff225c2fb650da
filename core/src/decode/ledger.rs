//! The token ledger: what the executor's cache holds, token by token.
//!
//! A prompt is compared with the ledger, not with remembered text, so whatever differs (a template that strips white space or
//! thinking, a text that encodes differently than it was generated) is run again from the first token that differs on, and
//! nothing else is. Exactness first; reuse follows from it.

use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};
use crate::executor::{Executor, ExecutorShape, Row};
use crate::metrics::FlashMetrics;
use crate::token::Token;

/// An executor and the tokens it has committed: `tokens().len()` is always the executor's `len()`.
pub struct Ledger {
    executor: Box<dyn Executor>,
    tokens: Vec<Token>,
    rows: Vec<Row>,
}

impl Ledger {
    /// The ledger of an executor that is still empty.
    ///
    /// # Errors
    ///
    /// `Misuse` if it is not.
    pub fn new(executor: Box<dyn Executor>) -> Result<Self> {
        if !executor.is_empty() {
            let reason = "the executor holds tokens that no ledger knows".to_owned();
            return Err(ErrorKind::Misuse { operation: "Ledger::new", reason }.into());
        }
        Ok(Self { executor, tokens: Vec::new(), rows: Vec::new() })
    }

    /// The executor's sizes.
    pub fn shape(&self) -> &ExecutorShape {
        self.executor.shape()
    }

    /// The tokens committed, by position.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Positions left.
    pub fn room(&self) -> usize {
        self.shape().n_cells - self.tokens.len()
    }

    /// How many tokens at the beginning of the ledger and of `prompt` are the same.
    pub fn agreeing(&self, prompt: &[Token]) -> usize {
        self.tokens.iter().zip(prompt).take_while(|(held, wanted)| held == wanted).count()
    }

    /// What the model has read from flash so far.
    pub fn flash(&self) -> FlashMetrics {
        self.executor.flash()
    }

    /// Forgets what does not agree with `prompt` and returns how many of the prompt's tokens are there: all but one at most,
    /// because the last one's logits are needed.
    ///
    /// # Errors
    ///
    /// Those of [`Executor::truncate`].
    pub fn reuse(&mut self, prompt: &[Token]) -> Result<usize> {
        let reused = self.agreeing(prompt).min(prompt.len().saturating_sub(1));
        self.truncate(reused)?;
        Ok(reused)
    }

    /// Begins a pass over `rows` and runs it through all layers.
    ///
    /// # Errors
    ///
    /// Those of [`Executor::begin`] and [`Executor::run`]; the pass must then be rolled back.
    pub fn verify(&mut self, rows: &[Row], cancel: &Cancel) -> Result<()> {
        if cancel.is_cancelled() {
            return Err(ErrorKind::Cancelled.into());
        }
        self.executor.begin(rows)?;
        self.rows.clear();
        self.rows.extend_from_slice(rows);
        for stage in 0..self.shape().boundaries.len() {
            let boundary = self.shape().boundaries[stage];
            self.executor.run(boundary, cancel)?;
        }
        Ok(())
    }

    /// The logits of `rows` of the pass, `[rows.len(), n_vocab]`.
    ///
    /// # Errors
    ///
    /// Those of [`Executor::project`].
    pub fn project(&mut self, rows: &[u32], logits: &mut [f32]) -> Result<()> {
        self.executor.project(rows, logits)
    }

    /// Ends the pass: `path` becomes history, here and in the cache.
    ///
    /// # Errors
    ///
    /// Those of [`Executor::commit`]; the pass must then be rolled back.
    pub fn commit(&mut self, path: &[u32]) -> Result<()> {
        self.executor.commit(path)?;
        self.tokens.extend(path.iter().map(|&row| self.rows[row as usize].token));
        Ok(())
    }

    /// Ends the pass, if there is one, and forgets what was committed from position `len` on. There may be less.
    ///
    /// # Errors
    ///
    /// Those of [`Executor::truncate`]; the executor is then of no further use.
    pub fn roll_back(&mut self, len: usize) -> Result<()> {
        self.executor.rollback();
        self.truncate(len)
    }

    fn truncate(&mut self, len: usize) -> Result<()> {
        if len < self.tokens.len() {
            self.executor.truncate(len)?;
            self.tokens.truncate(len);
        }
        Ok(())
    }
}
