//! THE loop: draft → verify → accept → commit → emit, until something ends it.
//!
//! Each turn of the loop is one pass of the target. Its first row is the last token chosen, which is not in the cache yet; below
//! it hang the rows that were drafted, if any. As far as the target's own choices lead down these rows, they are committed; what
//! it chose is shown. The text is the target's alone: drafting changes how many passes it takes.
//!
//! Deliberately not known here: conversations, threads, and undoing. A generation that fails leaves ledger and speculation
//! somewhere behind where it began; the caller takes both back there.

mod clock;
mod ledger;
mod output;
mod prefill;
mod projector;

pub use ledger::Ledger;
pub use output::{FinishReason, Output, Sink, ToolCalls};

use std::time::Instant;

use crate::accept::{self, Accepted, accept};
use crate::cancel::Cancel;
use crate::chat::ToolCall;
use crate::cost::PassCost;
use crate::error::Result;
use crate::metrics::GenerationMetrics;
use crate::sampling::{Choice, Sampler};
use crate::speculation::{Plan, Speculation};
use crate::token::Token;
use clock::Clock;
use projector::Projector;

/// One generation: where it decodes, how it chooses, where its text goes.
pub struct Generation<'a> {
    /// The sequence, and the executor behind it.
    pub ledger: &'a mut Ledger,
    /// Says which rows to try; [aligned](Speculation::align) with the prompt, and marked.
    pub speculation: &'a mut Speculation,
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
    /// The text, without the stop string that ended it and without calls of tools.
    pub text: String,
    /// The tools that are called.
    pub tool_calls: Vec<ToolCall>,
    /// The tokens chosen, but for the one that ends the generation; those of a stop string are among them.
    pub tokens: Vec<Token>,
    /// The choices behind `tokens`, if the sampler reports log-probabilities.
    pub logprobs: Vec<Choice>,
    /// What ended it.
    pub finish_reason: FinishReason,
}

/// The text so far, prompt and answer, and what ended it, if something has. Its last token is not in the ledger yet.
struct Text {
    tokens: Vec<Token>,
    ended: Option<FinishReason>,
}

impl Generation<'_> {
    /// Decodes what follows `prompt`, reusing as much of the ledger as it agrees with.
    ///
    /// # Errors
    ///
    /// `InvalidOption` for a prompt without tokens, `ContextFull` for one that does not fit, `Cancelled`, and what the
    /// executor, the sampler and the output's sink return.
    pub fn run(mut self, prompt: &[Token]) -> Result<Generated> {
        let mut projector = Projector::new(self.ledger.shape().n_vocab, self.speculation.learns());
        let before = self.ledger.flash();
        let mut text = self.prefill(prompt, &mut projector)?;
        let prefilled = self.ledger.flash();
        self.metrics.prefill_flash = prefilled.since(&before);
        self.emit()?;
        self.read(&text, &projector)?;
        let finish_reason = loop {
            if let Some(reason) = text.ended {
                break reason;
            }
            if self.ledger.room() == 0 {
                break FinishReason::ContextFull;
            }
            self.step(&mut text, &mut projector)?;
            self.metrics.decode_flash = self.ledger.flash().since(&prefilled);
            self.emit()?;
        };
        self.output.finish(finish_reason)
    }

    /// One pass: at least one token further.
    fn step(&mut self, text: &mut Text, projector: &mut Projector) -> Result<()> {
        let clock = Clock::start();
        let cached = self.ledger.tokens().len();
        // Rows beyond the last token allowed would be accepted by nobody.
        let max_rows = self.ledger.room().min(self.ledger.shape().max_rows).min(self.output.n_left());
        let plan = self.speculation.plan(cached, max_rows, &|| clock.ms(), self.cancel)?;
        let rows = plan.flat.rows.len();
        let mut cost = PassCost { rows, leaves: plan.flat.n_leaves(), cached, ..PassCost::default() };
        let (planned, read) = (clock.ms(), self.ledger.flash());
        self.ledger.verify(&plan.flat.rows, self.cancel)?;
        let verified = clock.ms() - planned;
        let read = self.ledger.flash().since(&read);
        (cost.io_ms, cost.read_ms) = (read.stalled_s * 1e3, read.busy_s * 1e3);
        cost.verify_ms = (verified - cost.io_ms).max(0.0);
        projector.begin(rows, plan.projection.batched);
        let accepted = self.accept(&plan, text, projector, &mut cost)?;
        self.ledger.commit(&accepted.path)?;
        let done = clock.ms();
        cost.overhead_ms = (done - planned - verified - cost.project_ms - cost.sample_ms).max(0.0);
        let settled = self.speculation.settle(&plan, &accepted, projector.said(), &cost, &|| clock.ms());
        self.metrics.add_step(&clock.step(&settled, &cost, planned + clock.ms() - done));
        Ok(())
    }

    /// Goes down the pass's rows as far as the target's own choices lead. What is chosen is text at once, so that penalties see it
    /// and a stop string ends the way down: nothing behind the end of a text is ever committed.
    fn accept(
        &mut self,
        plan: &Plan,
        text: &mut Text,
        projector: &mut Projector,
        cost: &mut PassCost,
    ) -> Result<Accepted> {
        accept(&plan.flat, |path| {
            let logits = projector.logits(path[path.len() - 1], self.ledger, cost)?;
            let clock = Clock::start();
            let choice = self.sampler.choose(logits, &text.tokens, text.tokens.len())?;
            let token = choice.token;
            text.tokens.push(token);
            text.ended = self.output.take(choice);
            cost.sampled += 1;
            cost.sample_ms += clock.ms();
            Ok(match text.ended {
                Some(_) => accept::Choice::Stop(token),
                None => accept::Choice::Continue(token),
            })
        })
    }

    /// Shows what was chosen. The sink may block, so no clock runs here.
    fn emit(&mut self) -> Result<()> {
        self.metrics.decode_tokens = self.output.n_tokens();
        self.output.show()
    }
}
