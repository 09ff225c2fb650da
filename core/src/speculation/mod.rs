//! One step of speculation, without the model: a plan before the pass, what came of it after.
//!
//! This is where drafters, calibration, prices, growth and governor meet, so that the decode loop is draft → verify → accept →
//! commit → emit and nothing else. Plan in, observation out; time comes in through a clock that is passed in.
//!
//! All sources feed one tree (ALGORITHMS of CoordGen 1.1, 1.2 and Lever 2.1 together). A draft model is asked by growth where
//! the tree's frontier is worth its price. Prompts are read with what the target said at each position, where that is known:
//! every position is then a labelled example, and calibration starts warm.
//!
//! Deliberately not here: passes, logits, samplers, text. What is drafted can change speed, never text.

mod drafting;
mod learning;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use crate::accept::Accepted;
use crate::cancel::Cancel;
use crate::cost::{CostModel, PassCost, Prices, Projection};
use crate::draft::store::SavedDrafts;
use crate::draft::{
    BatchDrafter, Calibration, ContextDrafter, Drafter, Hindsight, RecycleDrafter, ReuseDrafter, TopK, Verified,
};
use crate::error::{Error, Result};
use crate::governor::{Governor, Mode, Step};
use crate::growth::{self, Expand, Growth, Limits, Quote};
use crate::token::Token;
use crate::tree::{DraftTree, FlatTree, NodeId, ROOT, Source};

pub use drafting::Drafting;
use learning::{Company, label, verified_path};
use sources::{PRICED_ROWS, Sources, add_candidates, batch_ms, draft_table, share_of_priced};

/// Rows of a tree at most while only plain passes were measured.
const FIRST_ROWS: usize = 4;

/// Positions at which a draft model that is looked at is judged.
const LOOK_BACK: usize = 32;

/// What asking the draft model is assumed to come to, over what a chain at its mean rate would: a little more, so that it is tried.
/// Then the step by which experience changes that, and by which it returns while the model is not asked, so that it is tried again.
const HOPE: f64 = 1.2;
const HOPE_STEP: f64 = 0.1;
const HOPE_LEAK: f64 = 0.02;

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
}

/// What became of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Settled {
    /// Rows beside the root.
    pub drafted: usize,
    /// Drafted tokens accepted.
    pub accepted: usize,
    /// Accepted tokens by source, in the order of [`Source::ALL`]; a token of several sources counts for each.
    pub accepted_by: [usize; Source::COUNT],
    /// Tokens that growth expected, and emitted ones.
    pub expected_tokens: f64,
    /// Tokens emitted.
    pub emitted: usize,
    /// Ms that growth expected of the pass, without drafting.
    pub expected_ms: f64,
    /// Ms that the pass took, without drafting.
    pub pass_ms: f64,
    /// Ms that a plain pass was expected to take.
    pub plain_ms: f64,
    /// Ms that growth spent on the draft model.
    pub model_ms: f64,
}

/// What speculation has learnt that is worth more than one session: figures only, no text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Experience {
    /// What passes and drafting cost.
    pub cost: CostModel,
    /// What the sources' words have been worth.
    pub calibration: Calibration,
}

impl From<CostModel> for Experience {
    fn from(cost: CostModel) -> Self {
        Self { cost, ..Self::default() }
    }
}

/// A tree that was not verified and is followed by what is emitted.
#[derive(Clone, Debug)]
struct Shadow {
    tree: DraftTree,
    selected: Vec<NodeId>,
    at: NodeId,
    emitted: usize,
    passes: f64,
}

/// The state of speculation in one session.
pub struct Speculation {
    drafting: Drafting,
    limits: Limits,
    context: ContextDrafter,
    recycle: RecycleDrafter,
    reuse: ReuseDrafter,
    model: Option<Box<dyn BatchDrafter>>,
    calibration: Calibration,
    cost: CostModel,
    governor: Governor,
    shadow: Option<Shadow>,
    history: Vec<Token>,
    /// Its length when the turn began.
    mark: usize,
    /// What the target wanted behind each of the latest tokens but the last: its own word where it was heard, else what came.
    wanted: VecDeque<Token>,
    said: Option<Token>,
    /// [`Quote::hope_factor`].
    hope_factor: f64,
}

impl Speculation {
    /// For a vocabulary of `n_vocab` tokens, with what is known already (possibly nothing: the first pass is then plain).
    pub fn new(drafting: Drafting, limits: Limits, n_vocab: usize, experience: Experience) -> Self {
        let Experience { cost, calibration } = experience;
        Self {
            drafting,
            limits,
            context: ContextDrafter::default(),
            recycle: RecycleDrafter::new(n_vocab),
            reuse: ReuseDrafter::new(),
            model: None,
            calibration,
            cost,
            governor: Governor::new(),
            shadow: None,
            history: Vec::new(),
            mark: 0,
            wanted: VecDeque::new(),
            said: None,
            hope_factor: HOPE,
        }
    }

    /// Drafts with a draft model too.
    #[must_use]
    pub fn with_model(mut self, model: Box<dyn BatchDrafter>) -> Self {
        self.model = Some(model);
        self
    }

    /// How much to speculate from now on.
    pub fn set_drafting(&mut self, drafting: Drafting) {
        self.drafting = drafting;
    }

    /// Whether anything may be drafted, so that what the target says is worth keeping.
    pub fn learns(&self) -> bool {
        self.drafting != Drafting::Off
    }

    /// Tokens of the history.
    pub fn n_read(&self) -> usize {
        self.history.len()
    }

    /// What was learnt so far about prices and sources, for other sessions of the same model to begin with.
    pub fn experience(&self) -> Experience {
        Experience { cost: self.cost.clone(), calibration: self.calibration.clone() }
    }

    /// What was measured so far.
    pub fn cost(&self) -> &CostModel {
        &self.cost
    }

    /// The account that keeps speculation from losing.
    pub fn governor(&self) -> &Governor {
        &self.governor
    }

    /// What the sources' words have been worth.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// Bytes that drafting without a model uses.
    pub fn bytes(&self) -> usize {
        self.context.bytes() + self.recycle.bytes()
    }

    fn free(&mut self) -> [&mut dyn Drafter; 3] {
        [&mut self.context, &mut self.recycle, &mut self.reuse]
    }

    /// `token` is now the last of the history; `said` is what the target says behind it, where that is known (prompts).
    pub fn read(&mut self, token: Token, said: Option<&TopK>) {
        self.commit(token);
        let Some(said) = said else { return };
        if let Some(next) = said.first().filter(|_| self.drafting != Drafting::Off) {
            let mut tree = DraftTree::new(token);
            let mut sources = self.sources(&|| 0.0);
            sources.begin();
            sources.expand(&mut tree, ROOT);
            label(&mut self.calibration, &tree, ROOT, next, Company::All);
        }
        self.said = said.first();
        self.free().iter_mut().for_each(|drafter| drafter.said(said));
    }

    fn commit(&mut self, token: Token) {
        if !self.history.is_empty() {
            if self.wanted.len() >= LOOK_BACK {
                self.wanted.pop_front();
            }
            self.wanted.push_back(self.said.take().unwrap_or(token));
        }
        self.free().iter_mut().for_each(|drafter| drafter.commit(token));
        if let Some(model) = &mut self.model {
            model.commit(token);
        }
        self.history.push(token);
    }

    /// Text that is not part of the history but may be quoted.
    pub fn add_context(&mut self, tokens: &[Token]) {
        self.context.add_context(tokens);
    }

    /// Makes the history agree with `prompt` and returns how many of the prompt's tokens it holds then; the others are to be
    /// [`read`](Self::read). What a new rendering left out of the history stays in store as context.
    pub fn align(&mut self, prompt: &[Token]) -> usize {
        let common = self.history.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        if common < self.history.len() {
            self.history.truncate(common);
            let history = std::mem::take(&mut self.history);
            self.free().iter_mut().for_each(|drafter| drafter.rewind(&history));
            self.history = history;
            if let Some(model) = &mut self.model {
                model.rewind(common);
            }
            self.forget_step();
        }
        common
    }

    /// The turn begins, its prompt [aligned](Self::align) and not yet read: [`roll_back`](Self::roll_back) comes back to here.
    pub fn mark(&mut self) {
        self.mark = self.history.len();
        self.free().iter_mut().for_each(|drafter| drafter.mark());
        if let Some(model) = &mut self.model {
            model.mark();
        }
    }

    /// The turn never was: its text is forgotten. What was learnt about costs and sources stays.
    pub fn roll_back(&mut self) {
        self.history.truncate(self.mark);
        self.free().iter_mut().for_each(|drafter| drafter.roll_back());
        if let Some(model) = &mut self.model {
            model.roll_back();
        }
        self.forget_step();
    }

    /// The conversation is over and its text forgotten; text handed in and what was learnt about costs and sources stay.
    pub fn forget(&mut self) {
        self.history.clear();
        self.mark = 0;
        self.context.forget_history();
        self.recycle.rewind(&[]);
        self.reuse = ReuseDrafter::new();
        if let Some(model) = &mut self.model {
            model.rewind(0);
            model.mark();
        }
        self.forget_step();
    }

    fn forget_step(&mut self) {
        self.shadow = None;
        self.wanted.clear();
        self.said = None;
    }

    fn last(&self) -> Token {
        self.history.last().copied().unwrap_or_default()
    }

    /// What to save for another session.
    pub fn saved(&self) -> SavedDrafts {
        let (text, rows) = self.context.stored();
        SavedDrafts {
            context: text.iter().copied().zip(rows.iter().copied()).collect(),
            recycled: self.recycle.rows().collect(),
        }
    }

    /// Starts with what another session saved.
    pub fn restore(&mut self, saved: &SavedDrafts) {
        let (text, rows): (Vec<Token>, Vec<TopK>) = saved.context.iter().copied().unzip();
        self.context.restore(&text, &rows);
        saved.recycled.iter().for_each(|(token, top)| self.recycle.record(*token, top));
    }

    fn sources<'a>(&'a mut self, now: &'a dyn Fn() -> f64) -> Sources<'a> {
        let model = self.model.as_mut().filter(|_| self.drafting != Drafting::Context);
        Sources {
            free: [
                (Source::Context, &mut self.context as &mut dyn Drafter),
                (Source::Recycle, &mut self.recycle),
                (Source::Reuse, &mut self.reuse),
            ],
            model,
            calibration: &self.calibration,
            cost: &mut self.cost,
            cancel: None,
            plain_ms: 0.0,
            hope_factor: self.hope_factor,
            max_batch: self.limits.max_model_batch,
            now,
            scratch: Vec::new(),
            hindsight: Vec::new(),
            free_ms: [0.0; 3],
            expanded: 0,
            failure: None,
        }
    }

    /// Plans the next step behind `cached` committed positions, of at most `max_rows` rows. `now` gives ms of a steady clock.
    ///
    /// Fails only if it is cancelled.
    pub fn plan(&mut self, cached: usize, max_rows: usize, now: &dyn Fn() -> f64, cancel: &Cancel) -> Result<Plan> {
        let start = now();
        let limits = Limits { max_rows: self.max_rows().min(max_rows.max(1)), ..self.limits };
        let prices = self.cost.prices(cached, limits.max_rows);
        let mode = self.mode();
        let mut tree = DraftTree::new(self.last());
        let mut growth = plain(&prices);
        if mode == Mode::Speculate {
            self.shadow = None;
            self.look_at_model(&prices, now, cancel)?;
            growth = self.grow(&mut tree, &prices, limits, now, cancel)?;
        } else if mode == Mode::Shadow {
            self.look_at_model(&prices, now, cancel)?;
            if self.shadow.is_none() {
                self.cast_shadow(&prices, limits, now)?;
            }
        }
        let flat = tree.flatten(&growth.selected);
        let projection = prices.projection(flat.rows.len(), growth.expected_tokens);
        Ok(Plan { tree, flat, growth, projection, mode, draft_ms: now() - start })
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
            // Before anything was measured there is nothing to compare with.
            Drafting::Auto | Drafting::Context if self.cost.is_empty() => Mode::Plain,
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
        let mut sources = self.sources(now);
        sources.cancel = Some(cancel);
        sources.plain_ms = prices.plain_ms();
        sources.begin();
        let growth = match drafting {
            Drafting::Chain { n } => {
                growth::grow_chain(tree, &mut sources, prices, n.min(limits.max_rows.saturating_sub(1)))?
            }
            _ => growth::grow(tree, &mut sources, prices, limits)?,
        };
        sources.book_free_drafting();
        let hindsight = std::mem::take(&mut sources.hindsight);
        let failure = sources.failure.take();
        self.learn_from_hindsight(&hindsight);
        self.give_up_model(failure);
        if growth.model_rounds > 0 {
            self.governor.model_was_used();
        } else {
            self.calibration.age(Source::Model);
        }
        self.hope_factor += match growth.hoped_rate {
            Some(hoped) => HOPE_STEP * ((growth.expected_rate() / hoped).clamp(0.5, 2.0) - self.hope_factor),
            None => HOPE_LEAK * (HOPE - self.hope_factor),
        };
        Ok(growth)
    }

    /// Drafts a tree that will not be verified, with free sources only.
    fn cast_shadow(&mut self, prices: &Prices, limits: Limits, now: &dyn Fn() -> f64) -> Result<()> {
        let start = now();
        let mut tree = DraftTree::new(self.last());
        let mut sources = self.sources(now);
        sources.model = None;
        sources.begin();
        let growth = growth::grow(&mut tree, &mut sources, prices, limits)?;
        sources.book_free_drafting();
        let passes = (growth.pass_ms + now() - start) / growth.plain_ms;
        self.shadow = Some(Shadow { tree, selected: growth.selected, at: ROOT, emitted: 0, passes });
        Ok(())
    }

    /// Shows a draft model that has not been used for a while what it has missed, when that is due.
    fn look_at_model(&mut self, prices: &Prices, now: &dyn Fn() -> f64, cancel: &Cancel) -> Result<()> {
        if self.drafting != Drafting::Auto {
            return Ok(());
        }
        let n_unread = self.model.as_ref().map_or(0, |model| model.n_unread());
        let plain_ms = prices.plain_ms();
        let table = draft_table(&self.cost, plain_ms);
        let is_due = self.governor.should_look_at_model(batch_ms(&table, n_unread), plain_ms);
        if n_unread > 0 && is_due && self.let_model_read(now, cancel)? {
            let quote = Quote {
                first_rate: self.calibration.rate_in_company(),
                batch_ms: table,
                catch_up_ms: 0.0,
                hope_factor: self.hope_factor,
            };
            self.governor.observe_look(growth::chain_speedup(prices, &quote));
        }
        Ok(())
    }

    /// Lets the draft model read what it has not read, and judges it by what it would have said there. Says whether there was
    /// anything to judge it by. To be called behind every prefill: a prompt is too long to be read when the first draft is due.
    ///
    /// Fails only if it is cancelled.
    pub fn let_model_read(&mut self, now: &dyn Fn() -> f64, cancel: &Cancel) -> Result<bool> {
        let is_wanted = matches!(self.drafting, Drafting::Auto | Drafting::Chain { .. });
        let Some(model) = self.model.as_mut().filter(|_| is_wanted) else { return Ok(false) };
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
    fn give_up_model(&mut self, failure: Option<Error>) {
        if let Some(error) = failure {
            log::warn!("the draft model is given up for this session: {error}");
            self.model = None;
        }
    }

    fn learn_from_hindsight(&mut self, seen: &[Hindsight]) {
        for (hindsight, &wanted) in seen.iter().rev().zip(self.wanted.iter().rev()) {
            let mut tree = DraftTree::new(0);
            add_candidates(&mut tree, ROOT, &hindsight.candidates);
            label(&mut self.calibration, &tree, ROOT, wanted, Company::ModelAlone);
        }
    }

    /// Takes in what became of `plan`: `accepted`, what the target said at the rows that were projected (`said`, row and best
    /// tokens), and what the pass cost. The emitted tokens are history now.
    pub fn settle(&mut self, plan: &Plan, accepted: &Accepted, said: &[(u32, TopK)], pass: &PassCost) -> Settled {
        let emitted: Vec<Token> = accepted.emitted(&plan.flat).collect();
        for (&row, &token) in accepted.path.iter().zip(&emitted) {
            label(&mut self.calibration, &plan.tree, plan.flat.nodes[row as usize], token, Company::All);
        }
        let settled = self.book(plan, accepted, pass);
        self.teach(plan, accepted, &emitted, said);
        settled
    }

    fn book(&mut self, plan: &Plan, accepted: &Accepted, pass: &PassCost) -> Settled {
        let emitted = accepted.path.len();
        let drafted = plan.flat.rows.len() - 1;
        self.cost.observe(pass);
        let step = Step {
            mode: plan.mode,
            emitted,
            drafted: drafted > 0,
            total_ms: pass.total_ms() + plan.draft_ms,
            draft_ms: plan.draft_ms,
            plain_ms: plan.growth.plain_ms,
        };
        // What was ordered, not chosen, is not the governor's to judge.
        if matches!(self.drafting, Drafting::Auto | Drafting::Context) {
            self.governor.observe(&step);
        }
        let mut accepted_by = [0; Source::COUNT];
        for &row in accepted.path.iter().skip(1) {
            let claims = &plan.tree.nodes()[plan.flat.nodes[row as usize]].claims;
            claims.iter().for_each(|claim| accepted_by[claim.source.index()] += 1);
        }
        Settled {
            drafted,
            accepted: accepted.n_drafted(),
            accepted_by,
            expected_tokens: plan.growth.expected_tokens,
            emitted,
            expected_ms: plan.growth.pass_ms,
            pass_ms: pass.total_ms(),
            plain_ms: plan.growth.plain_ms,
            model_ms: plan.growth.model_ms,
        }
    }

    /// Tells the drafters what the target said, and commits what was emitted.
    fn teach(&mut self, plan: &Plan, accepted: &Accepted, emitted: &[Token], said: &[(u32, TopK)]) {
        let said_at = |row: u32| said.iter().find(|(r, _)| *r == row).map(|(_, top)| top);
        let (drafted, predicted) = verified_path(plan, accepted, emitted, said_at);
        self.reuse.verified(Verified { drafted: &drafted, predicted: &predicted });
        for (row, top) in said.iter().filter(|(row, _)| !accepted.path.contains(row)) {
            let token = plan.flat.rows[*row as usize].token;
            self.free().iter_mut().for_each(|drafter| drafter.said_elsewhere(token, top));
        }
        for (&row, &token) in accepted.path.iter().zip(emitted) {
            if let Some(top) = said_at(row) {
                self.free().iter_mut().for_each(|drafter| drafter.said(top));
            }
            self.follow_shadow(token);
            self.commit(token);
        }
    }

    /// Moves the shadow on with an emitted token; where the text leaves it, its gain is booked.
    fn follow_shadow(&mut self, token: Token) {
        let Some(shadow) = &mut self.shadow else { return };
        label(&mut self.calibration, &shadow.tree, shadow.at, token, Company::All);
        shadow.emitted += 1;
        match shadow.tree.child(shadow.at, token).filter(|child| shadow.selected.contains(child)) {
            Some(child) => shadow.at = child,
            None => {
                if shadow.selected.len() > 1 {
                    self.governor.observe_shadow(shadow.emitted, shadow.passes);
                }
                self.shadow = None;
            }
        }
    }
}

/// The decision to draft nothing.
fn plain(prices: &Prices) -> Growth {
    let plain_ms = prices.plain_ms();
    Growth {
        selected: vec![ROOT],
        expected_tokens: 1.0,
        pass_ms: plain_ms,
        plain_ms,
        model_ms: 0.0,
        model_rounds: 0,
        hoped_rate: None,
    }
}
