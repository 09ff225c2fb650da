//! The sources of one plan as growth sees them: candidates in, calibrated children of the tree out, with what they cost.
//!
//! Deliberately not here: the sources themselves (`draft`), and what becomes of their candidates (`growth`).

use crate::cancel::Cancel;
use crate::cost::CostModel;
use crate::draft::{BatchDrafter, Candidate, Drafter, Hindsight, Place};
use crate::error::{Error, Result};
use crate::growth::{Expand, Quote};
use crate::token::Token;
use crate::tree::{Claims, DraftTree, NodeId, Source};

use super::Kinds;

/// Draft model batches are priced up to this many rows; catching up with more is priced in proportion.
pub(super) const PRICED_ROWS: usize = 64;

/// Cost of one row of a draft model over the target's before it was measured.
const MODEL_PRIOR: f64 = 0.1;

/// The sources of one plan, as growth sees them.
pub(super) struct Sources<'a> {
    pub(super) free: [(Source, &'a mut dyn Drafter); 3],
    pub(super) model: Option<&'a mut Box<dyn BatchDrafter>>,
    pub(super) kinds: &'a Kinds,
    pub(super) cost: &'a mut CostModel,
    pub(super) ends: &'a [Token],
    pub(super) cancel: Option<&'a Cancel>,
    pub(super) plain_ms: f64,
    pub(super) max_batch: usize,
    pub(super) now: &'a dyn Fn() -> f64,
    pub(super) scratch: Vec<Candidate>,
    pub(super) hindsight: Vec<Hindsight>,
    pub(super) free_ms: [f64; 3],
    pub(super) expanded: usize,
    /// Why the draft model cannot be asked any more.
    pub(super) failure: Option<Error>,
}

impl Sources<'_> {
    pub(super) fn begin(&mut self) {
        self.free.iter_mut().for_each(|(_, drafter)| drafter.begin());
    }

    /// Enters the mean ms per node of each free source.
    pub(super) fn book_free_drafting(&mut self) {
        if self.expanded > 0 {
            for ((source, _), ms) in self.free.iter().zip(self.free_ms) {
                self.cost.observe_draft(*source, ms / self.expanded as f64);
            }
        }
    }
}

impl Expand for Sources<'_> {
    fn expand(&mut self, tree: &mut DraftTree, node: NodeId) {
        let at = &tree.nodes()[node];
        let place = Place { node, parent: at.parent, token: at.token, depth: at.depth };
        let mut before = (self.now)();
        for ((_, drafter), ms) in self.free.iter_mut().zip(&mut self.free_ms) {
            self.scratch.clear();
            drafter.propose(place, &mut self.scratch);
            add_candidates(tree, node, &self.scratch);
            let after = (self.now)();
            *ms += after - before;
            before = after;
        }
        self.expanded += 1;
        score_children(tree, node, self.kinds);
    }

    fn is_end(&self, token: Token) -> bool {
        self.ends.contains(&token)
    }

    fn quote(&self) -> Option<Quote> {
        let model = self.model.as_ref().filter(|_| self.failure.is_none())?;
        let table = draft_table(self.cost, self.plain_ms);
        let n_unread = model.n_unread();
        let catch_up_ms = if n_unread == 0 { 0.0 } else { batch_ms(&table, n_unread + 1) - batch_ms(&table, 1) };
        let batch_ms = table.into_iter().take(self.max_batch + 1).collect();
        Some(Quote { rates_behind: self.kinds.rates_in_company(), batch_ms, catch_up_ms })
    }

    fn ask_model(&mut self, tree: &mut DraftTree, nodes: &[NodeId]) -> Result<f64> {
        let (Some(model), Some(cancel)) = (&mut self.model, self.cancel) else { return Ok(0.0) };
        let rows = nodes.len() + model.n_unread();
        let start = (self.now)();
        let mut answer = match model.propose(tree, nodes, cancel) {
            Err(error) if !error.is_cancelled() => {
                self.failure = Some(error);
                return Ok((self.now)() - start);
            }
            answer => answer?,
        };
        self.hindsight.append(&mut answer.hindsight);
        let ms = (self.now)() - start;
        self.cost.observe_draft_batch(rows.min(PRICED_ROWS), ms * share_of_priced(rows));
        for (&node, candidates) in nodes.iter().zip(&answer.candidates) {
            add_candidates(tree, node, candidates);
            score_children(tree, node, self.kinds);
        }
        Ok(ms)
    }
}

pub(super) fn add_candidates(tree: &mut DraftTree, node: NodeId, candidates: &[Candidate]) {
    for candidate in candidates {
        tree.propose(node, candidate.token, candidate.claim);
    }
}

/// Gives the children of `node` their calibrated probabilities.
pub(super) fn score_children(tree: &mut DraftTree, node: NodeId, kinds: &Kinds) {
    let children: Vec<NodeId> = tree.children(node).collect();
    let claims: Vec<Claims> = children.iter().map(|&c| tree.nodes()[c].claims).collect();
    for (child, p) in children.into_iter().zip(kinds.probabilities(&claims)) {
        tree.set_probability(child, p);
    }
}

/// Ms of draft model batches by rows, measured or assumed.
pub(super) fn draft_table(cost: &CostModel, plain_ms: f64) -> Vec<f64> {
    cost.draft_batch_ms(PRICED_ROWS, |rows| plain_ms * MODEL_PRIOR * (1.0 + 0.1 * rows as f64))
}

pub(super) fn share_of_priced(rows: usize) -> f64 {
    rows.min(PRICED_ROWS) as f64 / rows.max(1) as f64
}

/// Ms of a draft model batch of any number of rows.
pub(super) fn batch_ms(table: &[f64], rows: usize) -> f64 {
    table.get(rows.min(PRICED_ROWS)).copied().unwrap_or(f64::INFINITY) / share_of_priced(rows)
}
