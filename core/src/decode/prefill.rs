//! The prompt: what of it the cache does not hold is run chunk by chunk, and the last chunk gives the first token.
//!
//! Only the last row is projected. The target's word at every position of the prompt would calibrate the drafters, and costs
//! the output projection once per token: time to the first token that an answer of a few words never earns back.

use super::clock::Clock;
use super::projector::Projector;
use super::{Generation, Text};
use crate::cost::PassCost;
use crate::error::{ErrorKind, Result};
use crate::executor::Row;
use crate::token::Token;

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
            self.ledger.verify(&chain(chunk, false), self.cancel)?;
            self.ledger.commit(&indices(chunk.len()))?;
            rest = after;
        }
        let text = self.first_token(prompt, rest, projector)?;
        self.metrics.prefill_s = clock.ms() / 1e3;
        self.metrics.ttft_s = self.asked.elapsed().as_secs_f64();
        Ok(text)
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

    /// Runs the `rest` of the prompt, chooses what follows it, and lets the drafters read both.
    fn first_token(&mut self, prompt: &[Token], rest: &[Token], projector: &mut Projector) -> Result<Text> {
        let path = indices(rest.len());
        self.ledger.verify(&chain(rest, true), self.cancel)?;
        projector.begin(1, false);
        let logits = projector.logits(path[path.len() - 1], self.ledger, &mut PassCost::default())?;
        let choice = self.sampler.choose(logits, prompt, prompt.len())?;
        self.ledger.commit(&path)?;
        let tokens: Vec<Token> = prompt.iter().copied().chain([choice.token]).collect();
        self.read(&tokens, projector)?;
        Ok(Text { ended: self.output.take(choice), tokens })
    }

    /// Lets the drafters read what is new to them: the prompt, the target's word behind it, and the first token chosen.
    fn read(&mut self, text: &[Token], projector: &Projector) -> Result<()> {
        let n_prompt = text.len() - 1;
        for position in self.speculation.n_read()..text.len() {
            let said = projector.said().first().filter(|_| position + 1 == n_prompt);
            self.speculation.read(text[position], said.map(|(_, top)| top));
        }
        let clock = Clock::start();
        self.speculation.let_model_read(&|| clock.ms(), self.cancel)?;
        Ok(())
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

fn indices(n_rows: usize) -> Vec<u32> {
    (0u32..).take(n_rows).collect()
}
