//! What came of a step: booked, learnt from, made history.

use crate::accept::Accepted;
use crate::cost::{PassCost, Projection};
use crate::draft::{Drafter, TopK, Verified};
use crate::governor::Step;
use crate::token::Token;
use crate::tree::{DraftTree, NodeId, Source};

use super::learning::{Company, verified_path};
use super::{Drafting, Plan, Speculation};

/// What became of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Settled {
    /// Rows beside the root.
    pub drafted: usize,
    /// Drafted tokens accepted.
    pub accepted: usize,
    /// Accepted tokens by source, in the order of [`Source::ALL`]; a token of several sources counts for each.
    pub accepted_by: [usize; Source::COUNT],
    /// Tokens that growth expected.
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
    /// How its rows were projected, and why.
    pub projection: Projection,
}

/// A tree that was not verified and is followed by what is emitted.
#[derive(Clone, Debug)]
pub(super) struct Shadow {
    pub(super) tree: DraftTree,
    pub(super) selected: Vec<NodeId>,
    pub(super) at: NodeId,
    pub(super) emitted: usize,
    pub(super) passes: f64,
}

impl Speculation {
    /// Takes in what became of `plan`: `accepted`, what the target said at the rows that were projected (`said`, row and best
    /// tokens), and what the pass cost. The emitted tokens are history now. `now` gives ms of a steady clock: the time this takes is
    /// booked with the next step.
    pub fn settle(
        &mut self,
        plan: &Plan,
        accepted: &Accepted,
        said: &[(u32, TopK)],
        pass: &PassCost,
        now: &dyn Fn() -> f64,
    ) -> Settled {
        let start = now();
        let emitted: Vec<Token> = accepted.emitted(&plan.flat).collect();
        for (&row, &token) in accepted.path.iter().zip(&emitted) {
            self.kinds.label(&plan.tree, plan.flat.nodes[row as usize], token, Company::All);
        }
        let settled = self.book(plan, accepted, pass);
        log::trace!(
            "{:?}: {} rows, expected {:.2} tokens in {:.2} ms, got {} in {:.2}; {} model rounds in {:.2} ms, drafting {:.2} ms",
            plan.mode,
            plan.flat.rows.len(),
            settled.expected_tokens,
            settled.expected_ms,
            settled.emitted,
            settled.pass_ms,
            plan.growth.model_rounds,
            settled.model_ms,
            plan.draft_ms
        );
        self.teach(plan, accepted, &emitted, said);
        self.settling_ms = now() - start;
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
            model_ms: plan.growth.model_ms,
            plain_ms: plan.growth.plain_ms,
        };
        // What was ordered, not chosen, says nothing about what choosing is worth.
        if matches!(self.drafting, Drafting::Auto | Drafting::Context) {
            self.governor.observe(&step);
            if plan.knows_plain {
                self.worth.observe(emitted, step.total_ms / step.plain_ms);
            }
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
            projection: plan.projection,
        }
    }

    /// Tells the drafters what the target said, and commits what was emitted.
    fn teach(&mut self, plan: &Plan, accepted: &Accepted, emitted: &[Token], said: &[(u32, TopK)]) {
        let said = if self.learns() { said } else { &[] };
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
            self.said = Some(token);
            let child = plan.tree.child(plan.flat.nodes[row as usize], token);
            self.commit(token, Some(child.map_or(0.0, |child| plan.tree.nodes()[child].probability)));
        }
    }

    /// Moves the shadow on with an emitted token; where the text leaves it, its gain is booked.
    fn follow_shadow(&mut self, token: Token) {
        let Some(shadow) = &mut self.shadow else { return };
        self.kinds.label(&shadow.tree, shadow.at, token, Company::All);
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
