//! What a verified pass teaches: labels for the calibration, and the path along which draft and target can be compared.
//!
//! The target's choice is known at every reached row, so every candidate under a reached node is a labelled example, verified
//! or not: learning has no selection bias.

use crate::accept::Accepted;
use crate::draft::{Calibration, TopK};
use crate::token::Token;
use crate::tree::{Claim, Claims, DraftTree, NodeId, Source};

use super::Plan;

/// Whether all sources were asked about a node, or the draft model alone.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Company {
    All,
    ModelAlone {
        /// How surely the node's own token was foreseen, if it is not of a prompt.
        foreseen: Option<f64>,
    },
}

/// Learns from one reached node: every candidate under it was the target's choice or was not.
pub(super) fn label(calibration: &mut Calibration, tree: &DraftTree, node: NodeId, chosen: Token, company: Company) {
    for source in Source::ALL {
        let claim = |c: NodeId| Some((tree.nodes()[c].token, tree.nodes()[c].claims.by(source)?));
        let claims: Vec<(Token, Claim)> = tree.children(node).filter_map(claim).collect();
        // Of equals the first: sources propose best first.
        let worth = |claim: Claim| calibration.probability(&Claims::of(claim));
        let best = claims.iter().rev().max_by(|a, b| worth(a.1).total_cmp(&worth(b.1)));
        if let Some(is_right) = best.map(|(token, _)| *token == chosen) {
            calibration.observe_node(source, is_right);
            match company {
                Company::All if source == Source::Model => {
                    let by_reach = |a: &NodeId, b: &NodeId| tree.nodes()[*a].reach.total_cmp(&tree.nodes()[*b].reach);
                    let best = tree.children(node).max_by(by_reach).map(|best| tree.nodes()[best].token);
                    calibration.observe_company(tree.nodes()[node].probability, is_right, best == Some(chosen));
                }
                Company::ModelAlone { foreseen: Some(foreseen) } => calibration.observe_behind(foreseen, is_right),
                _ => {}
            }
        }
    }
    let (tokens, claims): (Vec<Token>, Vec<Claims>) =
        tree.children(node).map(|child| (tree.nodes()[child].token, tree.nodes()[child].claims)).unzip();
    calibration.observe_siblings(&claims, tokens.iter().position(|&token| token == chosen));
}

/// The longest likely drafted path through the accepted rows, and what the target wanted along it as far as that is known.
pub(super) fn verified_path<'a>(
    plan: &Plan,
    accepted: &Accepted,
    emitted: &[Token],
    said_at: impl Fn(u32) -> Option<&'a TopK>,
) -> (Vec<Token>, Vec<Token>) {
    let mut predicted = emitted.to_vec();
    let mut drafted: Vec<Token> = emitted[..accepted.n_drafted()].to_vec();
    let mut row = accepted.path.last().copied().unwrap_or(0);
    let mut is_known = true;
    let reach = |child: usize| plan.tree.nodes()[plan.flat.nodes[child]].reach;
    let likeliest = |row: u32| {
        let children = (0..plan.flat.rows.len()).rev().filter(|&child| plan.flat.rows[child].parent == Some(row));
        children.max_by(|&a, &b| reach(a).total_cmp(&reach(b)))
    };
    while let Some(child) = likeliest(row) {
        drafted.push(plan.flat.rows[child].token);
        row = u32::try_from(child).unwrap_or(u32::MAX);
        let said = said_at(row).and_then(TopK::first).filter(|_| is_known);
        is_known = said.is_some();
        predicted.extend(said);
    }
    (drafted, predicted)
}
