//! The prompt: what of it the cache does not hold is run chunk by chunk, and the last chunk gives the first token.
//!
//! The target's word at a position of the prompt shows what the drafters' claims are worth there, so that drafting need not wait
//! for the answer to learn it (CoordGen 1.1). But it costs the output projection, and the last layer in full, once per token,
//! which delays the first token; so only as many rows are heard as one per cent of prefill pays for, the latest ones. What the
//! drafters do with all that waits until the first token is out.

use std::collections::BTreeMap;

use super::clock::Clock;
use super::projector::Projector;
use super::{Generation, Text};
use crate::cost::PassCost;
use crate::draft::TopK;
use crate::error::{ErrorKind, Result};
use crate::executor::Row;
use crate::token::Token;

/// Share of prefill that hearing rows may cost.
const HEARING: f64 = 0.01;

/// What projecting a row costs beside all layers at most: the largest vocabularies make the projection a quarter of a small model.
const PROJECTION: f64 = 0.25;

/// Rows heard at most: what calibration remembers of a source.
const MAX_HEARD: usize = 128;

impl Generation<'_> {
    /// Runs the prompt and chooses the first token.
    pub(super) fn prefill(&mut self, prompt: &[Token], projector: &mut Projector) -> Result<Text> {
        self.check_prompt(prompt)?;
        let clock = Clock::start();
        let reused = self.ledger.reuse(prompt)?;
        self.metrics.prompt_tokens = prompt.len() as u64;
        self.metrics.reused_tokens = reused as u64;
        let mut rest = &prompt[reused..];
        let max_rows = self.ledger.shape().max_rows;
        while rest.len() > max_rows {
            let (chunk, after) = rest.split_at(max_rows);
            self.ledger.verify(&chain(chunk, 0), self.cancel)?;
            self.ledger.commit(&indices(chunk.len()))?;
            rest = after;
        }
        let heard = if self.speculation.learns() { self.rows_to_hear(prompt.len() - reused) } else { 1 };
        let text = self.first_token(prompt, rest, heard.clamp(1, rest.len()), projector)?;
        self.metrics.prefill_s = clock.ms() / 1e3;
        self.metrics.ttft_s = self.asked.elapsed().as_secs_f64();
        Ok(text)
    }

    /// A row that is heard runs the last layer in full, beside being projected.
    fn rows_to_hear(&self, n_run: usize) -> usize {
        let cost_of_one = 1.0 / self.ledger.shape().n_layers.max(1) as f64 + PROJECTION;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count of rows")]
        let affordable = (n_run as f64 * HEARING / cost_of_one) as usize;
        affordable.min(MAX_HEARD)
    }

    fn check_prompt(&self, prompt: &[Token]) -> Result<()> {
        let capacity = self.ledger.shape().n_cells;
        if prompt.is_empty() {
            return Err(ErrorKind::InvalidOption { option: "prompt", reason: "it has no tokens".into() }.into());
        }
        if prompt.len() > capacity {
            return Err(ErrorKind::ContextFull { needed: prompt.len(), capacity }.into());
        }
        Ok(())
    }

    /// Runs the `rest` of the prompt, hears its last `heard` rows, and chooses what follows.
    fn first_token(
        &mut self,
        prompt: &[Token],
        rest: &[Token],
        heard: usize,
        projector: &mut Projector,
    ) -> Result<Text> {
        let path = indices(rest.len());
        let (last, before) = (path[rest.len() - 1], path[rest.len() - heard]);
        let (clock, cached, read) = (Clock::start(), prompt.len() - rest.len(), self.ledger.flash());
        self.ledger.verify(&chain(rest, heard), self.cancel)?;
        let read = self.ledger.flash().since(&read);
        self.speculation.observe_prefill(rest.len(), cached, clock.ms() - read.stalled_s * 1e3, read.busy_s * 1e3);
        projector.begin(1, false);
        let logits = projector.logits(last, self.ledger, &mut PassCost::default())?;
        let choice = self.sampler.choose(logits, prompt, prompt.len())?;
        projector.hear(before..last, self.ledger)?;
        self.ledger.commit(&path)?;
        let tokens: Vec<Token> = prompt.iter().copied().chain([choice.token]).collect();
        Ok(Text { ended: self.output.take(choice), tokens })
    }

    /// Lets the drafters read what is new to them: the prompt, with the target's word where it was heard, and the first token
    /// chosen. The draft model reads too, if the text goes on for long enough. The second token waits for that: it is a part of
    /// decoding.
    pub(super) fn read(&mut self, text: &Text, projector: &Projector) -> Result<()> {
        let clock = Clock::start();
        // The last pass ended with the last token of the prompt.
        let end = projector.said().iter().map(|(row, _)| *row as usize).max().unwrap_or(0);
        let start = (text.tokens.len() - 2) - end;
        let said: BTreeMap<usize, &TopK> =
            projector.said().iter().map(|(row, top)| (start + *row as usize, top)).collect();
        for (position, &token) in text.tokens.iter().enumerate().skip(self.speculation.n_read()) {
            self.speculation.read(token, said.get(&position).copied());
        }
        let n_left = if text.ended.is_some() { 0 } else { self.output.n_left().min(self.ledger.room()) };
        let model_ms = self.speculation.let_model_read(n_left, &|| clock.ms(), self.cancel)?;
        self.metrics.add_drafting(clock.ms() / 1e3, model_ms / 1e3);
        Ok(())
    }
}

/// Rows of tokens that follow each other; the last `n_wanted` may be asked for logits.
fn chain(tokens: &[Token], n_wanted: usize) -> Vec<Row> {
    let row = |(i, &token): (u32, &Token)| {
        let wants_logits = i as usize + n_wanted >= tokens.len();
        Row { token, parent: i.checked_sub(1), wants_logits }
    };
    (0u32..).zip(tokens).map(row).collect()
}

fn indices(n_rows: usize) -> Vec<u32> {
    (0u32..).take(n_rows).collect()
}
