//! The draft model beside the steps that ask it: reading what it has missed, being judged by that, being given up.

use crate::cancel::Cancel;
use crate::cost::Prices;
use crate::draft::Hindsight;
use crate::error::{Error, Result};
use crate::growth;
use crate::tree::{DraftTree, ROOT, Source};

use super::learning::Company;
use super::sources::{PRICED_ROWS, add_candidates, batch_ms, draft_table, share_of_priced};
use super::{Drafting, LOOK_BACK, Speculation};

/// Plain passes of the target that reading a prompt may take the draft model: the last message, and a quarter of that if it is short. What
/// it has read makes the passes behind it fewer, at a falling rate, and what stands before the last message is quoted by the other
/// drafters (ADR 3). A model by whose record drafts would win nothing reads only as much as keeps that record.
const READING: f64 = 1.0;

/// Tokens at most between the end of the last message and the answer: the template's words.
const OPENING: usize = 8;

/// Tokens of an answer from which on it may pay to have read the prompt before the model is asked. Where fewer are left growth asks
/// it, with what is unread in the price.
const SHORTEST: usize = 8;

impl Speculation {
    /// Shows a draft model that has not been used for a while what it has missed, when that is due. Returns the ms it took.
    pub(super) fn look_at_model(&mut self, prices: &Prices, now: &dyn Fn() -> f64, cancel: &Cancel) -> Result<f64> {
        if self.drafting != Drafting::Auto {
            return Ok(0.0);
        }
        let n_unread = self.model.as_ref().map_or(0, |model| model.n_unread());
        let plain_ms = prices.plain_ms();
        let table = draft_table(&self.cost, plain_ms);
        let is_due = self.governor.should_look_at_model(batch_ms(&table, n_unread), plain_ms);
        if n_unread == 0 || !is_due {
            return Ok(0.0);
        }
        let start = now();
        if self.show_model(now, cancel)? {
            let rate = self.kinds.mean_rate_in_company();
            self.governor.observe_look(growth::chain_speedup(prices, rate, batch_ms(&table, 1)));
        }
        Ok(now() - start)
    }

    /// Lets the draft model read of a prompt what it may, and judges it by what it would have said there. To be called behind every
    /// prefill: a prompt is too long to be read when the first draft is due. `n_left` more tokens may be chosen at most.
    /// Returns the ms it took.
    ///
    /// Fails only if it is cancelled.
    pub fn let_model_read(&mut self, n_left: usize, now: &dyn Fn() -> f64, cancel: &Cancel) -> Result<f64> {
        if self.model.is_none() || matches!(self.drafting, Drafting::Context | Drafting::Off) {
            return Ok(0.0);
        }
        let at_most = self.reading_of_a_prompt();
        if let Some(model) = self.model.as_mut() {
            model.read_at_most(at_most);
        }
        if n_left < SHORTEST {
            return Ok(0.0);
        }
        let start = now();
        self.show_model(now, cancel)?;
        Ok(now() - start)
    }

    /// Tokens of a prompt that the draft model may read.
    fn reading_of_a_prompt(&self) -> usize {
        let prices = self.cost.prices(self.history.len(), self.limits.max_rows);
        let table = draft_table(&self.cost, prices.plain_ms());
        // By drafts of the model alone, unless its record says otherwise.
        let rate = self.kinds.current().hoped_first_rate(Source::Model);
        let could_win = growth::chain_speedup(&prices, rate, batch_ms(&table, 1)) > 1.0;
        // A chain was ordered, whether it wins or not.
        let is_ordered = self.drafting != Drafting::Auto;
        if !could_win && !is_ordered {
            return LOOK_BACK;
        }
        let most = affordable(&table, prices.plain_ms());
        self.last_message().clamp(most / 4, most).max(LOOK_BACK)
    }

    /// Tokens from the beginning of the last message to the end of the prompt.
    fn last_message(&self) -> usize {
        let behind = self.history.iter().rev();
        let mut ends = behind.enumerate().filter(|(_, token)| self.ends.contains(token)).map(|(at, _)| at);
        let last = ends.next().filter(|&at| at > OPENING);
        last.or_else(|| ends.next()).unwrap_or(self.history.len())
    }

    /// Lets the draft model read what it has not read, and judges it by that. Says whether there was anything to judge it by.
    fn show_model(&mut self, now: &dyn Fn() -> f64, cancel: &Cancel) -> Result<bool> {
        let Some(model) = self.model.as_mut() else { return Ok(false) };
        let n_unread = model.n_unread();
        if n_unread == 0 {
            return Ok(false);
        }
        let start = now();
        let seen = match model.look(LOOK_BACK, cancel) {
            Err(error) if !error.is_cancelled() => {
                self.give_up_model(Some(error));
                return Ok(false);
            }
            seen => seen?,
        };
        self.cost.observe_draft_batch(n_unread.min(PRICED_ROWS), (now() - start) * share_of_priced(n_unread));
        self.learn_from_hindsight(&seen);
        Ok(!seen.is_empty())
    }

    /// Goes on without a draft model that has failed: it could only have made answers faster.
    pub(super) fn give_up_model(&mut self, failure: Option<Error>) {
        if let Some(error) = failure {
            log::warn!("the draft model is given up for this session: {error}");
            self.model = None;
        }
    }

    pub(super) fn learn_from_hindsight(&mut self, seen: &[Hindsight]) {
        let known = seen.iter().rev().zip(self.wanted.iter().rev());
        for (hindsight, wanted) in known.filter_map(|(hindsight, wanted)| Some((hindsight, (*wanted)?))) {
            let mut tree = DraftTree::new(0);
            add_candidates(&mut tree, ROOT, &hindsight.candidates);
            let company = Company::ModelAlone { foreseen: wanted.foreseen };
            self.kinds.label(&tree, ROOT, wanted.token, company);
        }
    }
}

/// Tokens that a draft model with this `table` reads in [`READING`] plain passes.
fn affordable(table: &[f64], plain_ms: f64) -> usize {
    let token_ms = batch_ms(table, PRICED_ROWS) / PRICED_ROWS as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of tokens; saturates")]
    let tokens = (READING * plain_ms / token_ms) as usize;
    tokens.max(LOOK_BACK)
}
