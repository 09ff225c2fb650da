//! The draft model beside the steps that ask it: reading what it has missed, being judged by that, being given up.

use crate::cancel::Cancel;
use crate::cost::Prices;
use crate::draft::Hindsight;
use crate::error::{Error, Result};
use crate::growth;
use crate::tree::{DraftTree, ROOT};

use super::learning::Company;
use super::sources::{PRICED_ROWS, add_candidates, batch_ms, draft_table, share_of_priced};
use super::{Drafting, LOOK_BACK, Speculation};

/// Plain passes of the target that reading a prompt may take the draft model. What it has read makes the passes behind it fewer, at a
/// falling rate: answers of fifteen to ninety tokens are over soonest with one to one and a half (ADR 3).
const READING: f64 = 1.5;

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
        if self.let_model_read(now, cancel)? {
            let rate = self.kinds.current().mean_rate_in_company();
            self.governor.observe_look(growth::chain_speedup(prices, rate, batch_ms(&table, 1)));
        }
        Ok(now() - start)
    }

    /// Lets the draft model read what it has not read, and judges it by what it would have said there. Says whether there was
    /// anything to judge it by. To be called behind every prefill: a prompt is too long to be read when the first draft is due.
    ///
    /// Fails only if it is cancelled.
    pub fn let_model_read(&mut self, now: &dyn Fn() -> f64, cancel: &Cancel) -> Result<bool> {
        let is_wanted = matches!(self.drafting, Drafting::Auto | Drafting::Chain { .. });
        let affordable = self.affordable();
        let Some(model) = self.model.as_mut().filter(|_| is_wanted) else { return Ok(false) };
        model.read_at_most(affordable);
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

    /// Tokens of what it has not read that the draft model may read now; all, where drafting was ordered, whatever it costs.
    fn affordable(&self) -> usize {
        if self.drafting != Drafting::Auto {
            return usize::MAX;
        }
        let plain_ms = self.cost.prices(self.history.len(), 1).plain_ms();
        let token_ms = batch_ms(&draft_table(&self.cost, plain_ms), PRICED_ROWS) / PRICED_ROWS as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of tokens; saturates")]
        let tokens = (READING * plain_ms / token_ms) as usize;
        tokens.max(LOOK_BACK)
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
