//! The plan of a step: which rows to verify, and how to project them.

use crate::cancel::Cancel;
use crate::cost::{Prices, Projection};
use crate::error::Result;
use crate::governor::Mode;
use crate::growth::{self, Growth, Limits};
use crate::tree::{DraftTree, FlatTree, ROOT, Source};

use super::settling::Shadow;
use super::{Drafting, Speculation};

/// Rows of a tree at most while only plain passes were measured.
pub(super) const FIRST_ROWS: usize = 8;

/// What the loop should verify.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The candidates, those not selected included.
    pub tree: DraftTree,
    /// The rows to run; row 0 is the last emitted token.
    pub flat: FlatTree,
    /// What growth expects.
    pub growth: Growth,
    /// How the rows should be projected.
    pub projection: Projection,
    /// What the governor allowed.
    pub mode: Mode,
    /// Ms it took to plan, draft model included.
    pub draft_ms: f64,
    /// Whether a plain pass had been measured, so that the growth's price of one is more than a guess.
    pub knows_plain: bool,
}

impl Speculation {
    /// Plans the next step behind `cached` committed positions, of at most `max_rows` rows. `now` gives ms of a steady clock.
    ///
    /// Fails only if it is cancelled.
    pub fn plan(&mut self, cached: usize, max_rows: usize, now: &dyn Fn() -> f64, cancel: &Cancel) -> Result<Plan> {
        let start = now();
        let limits = Limits { max_rows: self.max_rows().min(max_rows.max(1)), ..self.limits };
        let prices = self.cost.prices(cached, limits.max_rows);
        let (mode, knows_plain) = (self.mode(), self.cost.knows_plain());
        let mut tree = DraftTree::foreseen(self.last(), self.foreseen.unwrap_or_default());
        let mut growth = plain(&prices);
        if mode == Mode::Speculate {
            self.shadow = None;
            let looked = self.look_at_model(&prices, now, cancel)?;
            growth = self.grow(&mut tree, &prices, limits, now, cancel)?;
            growth.model_ms += looked;
        } else if mode == Mode::Shadow {
            growth.model_ms = self.look_at_model(&prices, now, cancel)?;
            if self.shadow.is_none() {
                self.cast_shadow(&prices, limits, now)?;
            }
        }
        let flat = tree.flatten(&growth.selected);
        let projection = prices.projection(flat.rows.len(), growth.expected_tokens);
        // What cannot be left out is no price of drafting: there is something to settle whether anything was drafted or not.
        let settling_ms = std::mem::take(&mut self.settling_ms);
        let draft_ms = now() - start + if mode == Mode::Speculate { settling_ms } else { 0.0 };
        Ok(Plan { tree, flat, growth, projection, mode, draft_ms, knows_plain })
    }

    /// Rows of the next tree at most. Prices beyond what was measured are extrapolated, from noise where little was measured: two
    /// rows that seemed as cheap as one would make sixty-four look free. So each tree is at most twice the largest tried.
    fn max_rows(&self) -> usize {
        match self.drafting {
            Drafting::Chain { .. } | Drafting::Off => self.limits.max_rows,
            Drafting::Auto | Drafting::Context => self.limits.max_rows.min(FIRST_ROWS.max(2 * self.cost.most_rows())),
        }
    }

    fn mode(&self) -> Mode {
        match self.drafting {
            Drafting::Off => Mode::Plain,
            Drafting::Chain { .. } => Mode::Speculate,
            Drafting::Auto | Drafting::Context if !self.cost.knows_plain() => Mode::Plain,
            Drafting::Auto | Drafting::Context => self.governor.mode(),
        }
    }

    fn grow(
        &mut self,
        tree: &mut DraftTree,
        prices: &Prices,
        limits: Limits,
        now: &dyn Fn() -> f64,
        cancel: &Cancel,
    ) -> Result<Growth> {
        let drafting = self.drafting;
        let rate = self.worth.tokens_per_ms(prices.plain_ms());
        let mut sources = self.sources(now);
        sources.cancel = Some(cancel);
        sources.plain_ms = prices.plain_ms();
        sources.begin();
        let growth = match drafting {
            Drafting::Chain { n } => {
                growth::grow_chain(tree, &mut sources, prices, n.min(limits.max_rows.saturating_sub(1)))?
            }
            _ => growth::grow(tree, &mut sources, prices, rate, limits)?,
        };
        sources.book_free_drafting();
        let hindsight = std::mem::take(&mut sources.hindsight);
        let failure = sources.failure.take();
        self.learn_from_hindsight(&hindsight);
        self.give_up_model(failure);
        if growth.model_rounds > 0 {
            self.governor.model_was_used();
        } else {
            self.kinds.learn(|calibration| calibration.age(Source::Model));
        }
        Ok(growth)
    }

    /// Drafts a tree that will not be verified, with free sources only.
    pub(super) fn cast_shadow(&mut self, prices: &Prices, limits: Limits, now: &dyn Fn() -> f64) -> Result<()> {
        let start = now();
        let mut tree = DraftTree::new(self.last());
        let rate = self.worth.tokens_per_ms(prices.plain_ms());
        let mut sources = self.sources(now);
        sources.model = None;
        sources.begin();
        let growth = growth::grow(&mut tree, &mut sources, prices, rate, limits)?;
        sources.book_free_drafting();
        let passes = (growth.pass_ms + now() - start) / growth.plain_ms;
        self.shadow = Some(Shadow { tree, selected: growth.selected, at: ROOT, emitted: 0, passes });
        Ok(())
    }
}

/// The decision to draft nothing.
fn plain(prices: &Prices) -> Growth {
    let plain_ms = prices.plain_ms();
    Growth { selected: vec![ROOT], expected_tokens: 1.0, pass_ms: plain_ms, plain_ms, model_ms: 0.0, model_rounds: 0 }
}
