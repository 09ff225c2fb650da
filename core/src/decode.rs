//! THE loop: (draft →) verify → accept → commit → emit, until something ends it.
//!
//! Each turn of the loop is one pass of the target. Its rows are the tokens that are chosen but not yet in the cache: the end of
//! the prompt at first, then the last token chosen. What the pass confirms is committed, what it chose is shown.
//!
//! Deliberately not known here: conversations, threads, and undoing. A generation that fails leaves the ledger somewhere
//! behind where it began; the caller takes it back there.

mod ledger;
mod output;

pub use ledger::Ledger;
pub use output::{FinishReason, Output, Sink};

use std::time::Instant;

use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};
use crate::executor::Row;
use crate::metrics::{GenerationMetrics, StepMetrics};
use crate::sampling::{Choice, Sampler};
use crate::token::Token;

/// One generation: where it decodes, how it chooses, where its text goes.
pub struct Generation<'a> {
    /// The sequence, and the executor behind it.
    pub ledger: &'a mut Ledger,
    /// The target's choice at a position.
    pub sampler: &'a mut Sampler,
    /// Tokens become text here.
    pub output: Output<'a>,
    /// Polled before every pass, and by the executor within.
    pub cancel: &'a Cancel,
    /// Kept up to date at every step, so that a generation that fails has figures too.
    pub metrics: &'a mut GenerationMetrics,
    /// When the answer was asked for.
    pub asked: Instant,
}

/// What a generation came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The text, without the stop string that ended it.
    pub text: String,
    /// The tokens chosen, but for the one that ends the generation; those of a stop string are among them.
    pub tokens: Vec<Token>,
    /// The choices behind `tokens`, if the sampler reports log-probabilities.
    pub logprobs: Vec<Choice>,
    /// What ended it.
    pub finish_reason: FinishReason,
}

impl Generation<'_> {
    /// Decodes what follows `prompt`, reusing as much of the ledger as it agrees with.
    ///
    /// # Errors
    ///
    /// `InvalidOption` for a prompt without tokens, `ContextFull` for one that does not fit, `Cancelled`, and what the
    /// executor, the sampler and the output's sink return.
    pub fn run(mut self, prompt: &[Token]) -> Result<Generated> {
        let mut sequence = prompt.to_vec();
        let mut logits = vec![0.0; self.ledger.shape().n_vocab];
        let mut pending = self.prefill(prompt)?;
        let finish_reason = loop {
            if pending.len() > self.ledger.room() {
                break FinishReason::ContextFull;
            }
            let clock = Instant::now();
            let rows = chain(&pending, true); // A draft tree's rows hang below the last of these.
            self.ledger.verify(&rows, self.cancel)?;
            let (path, choice) = self.accept(&rows, &sequence, &mut logits)?;
            self.ledger.commit(&path)?;
            self.measure(clock);
            sequence.push(choice.token);
            pending = vec![choice.token];
            let ended = self.output.emit(choice);
            self.metrics.decode_tokens = self.output.n_tokens();
            if let Some(reason) = ended? {
                break reason;
            }
        };
        self.output.finish(finish_reason)
    }

    /// Runs the part of the prompt that the cache does not hold, chunk by chunk, and returns the last chunk: it is the loop's
    /// first pass.
    fn prefill(&mut self, prompt: &[Token]) -> Result<Vec<Token>> {
        let n_cells = self.ledger.shape().n_cells;
        if prompt.is_empty() {
            return Err(ErrorKind::InvalidOption { option: "prompt", reason: "it has no tokens".into() }.into());
        }
        if prompt.len() > n_cells {
            return Err(ErrorKind::ContextFull { needed: prompt.len(), capacity: n_cells }.into());
        }
        let clock = Instant::now();
        let reused = self.ledger.reuse(prompt)?;
        self.metrics.prompt_tokens = prompt.len() as u64;
        self.metrics.reused_tokens = reused as u64;
        let mut rest = &prompt[reused..];
        let max_rows = self.ledger.shape().max_rows;
        while rest.len() > max_rows {
            let (chunk, after) = rest.split_at(max_rows);
            let rows = chain(chunk, false);
            self.ledger.verify(&rows, self.cancel)?;
            self.ledger.commit(&indices(&rows))?;
            rest = after;
        }
        self.metrics.prefill_s = clock.elapsed().as_secs_f64();
        Ok(rest.to_vec())
    }

    /// Goes down the pass's rows as far as the target's own choices lead, and returns the path and the choice after it.
    ///
    /// Rows that were already decided are on the path as they are; from the last of them on, a choice that a drafted row
    /// carries would continue there.
    fn accept(&mut self, rows: &[Row], sequence: &[Token], logits: &mut [f32]) -> Result<(Vec<u32>, Choice)> {
        let path = indices(rows);
        self.ledger.project(&path[path.len() - 1..], logits)?;
        let choice = self.sampler.choose(logits, sequence, sequence.len())?;
        Ok((path, choice))
    }

    /// The loop's first pass ends prefill; the others are decoding.
    fn measure(&mut self, clock: Instant) {
        let seconds = clock.elapsed().as_secs_f64();
        if self.output.n_tokens() == 0 {
            self.metrics.prefill_s += seconds;
            self.metrics.ttft_s = self.asked.elapsed().as_secs_f64();
        } else {
            self.metrics.add_step(&StepMetrics { chosen: 1, drafted: 0, accepted: 0, seconds });
        }
    }
}

/// Rows of tokens that follow each other; only the last may be asked for logits, and only if `wants_logits`.
fn chain(tokens: &[Token], wants_logits: bool) -> Vec<Row> {
    let row = |(i, &token): (u32, &Token)| {
        let is_last = i as usize + 1 == tokens.len();
        Row { token, parent: i.checked_sub(1), wants_logits: wants_logits && is_last }
    };
    (0u32..).zip(tokens).map(row).collect()
}

fn indices(rows: &[Row]) -> Vec<u32> {
    (0u32..).take(rows.len()).collect()
}
