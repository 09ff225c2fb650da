//! How much to draft: the tree that brings the most expected tokens for the time it takes.
//!
//! Lever 2.1 (arXiv 2605.16786): maximise `Ĝ(T) / Ĉ_cycle(T)`, where `Ĝ = 1 + Σ b̂(u)` over the drafted nodes, by taking the
//! frontier node with the highest `b̂ / ΔĈ` for as long as that beats the ratio so far. Candidates of free sources all add the
//! same row, so best-first is by b̂ alone. We differ in two things.
//!
//! The stop: Lever's is right where each further row costs more than the last, and real kernels are not like that (ggml: the second
//! row costs a whole pass, the next two next to nothing; kernels work in groups of four). So growth goes on while an optimist could
//! still hope, every prefix is priced, and the best one is taken: the true optimum for free candidates under any cost by rows. Where
//! leaves cost something, another tree of the same size may be better.
//!
//! The aim: the best ratio of each pass by itself is not the best ratio of them all. A pass over sure text would stop where it falls
//! below its own high rate, and leave to the next pass what that one does at a lower rate; a pass over doubtful text would go on too
//! far. By the renewal-reward theorem what to maximise in each is `Ĝ(T) - λ Ĉ(T)`, with `λ` the rate of all (Dinkelbach 1967).
//! A chain, a tree or nothing at all falls out.
//!
//! The draft model's answers cost milliseconds, so it is asked only where the frontier promises enough: a batch of frontier
//! nodes at a time, each discounted by what other sources have already covered there, and judged by the run of further
//! accepted tokens that its recent record suggests.
//!
//! Deliberately not here: who proposes (trait [`Expand`]), prices (`cost`), and doubts about both (`governor`).

mod asking;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::cost::Prices;
use crate::error::Result;
use crate::token::Token;
use crate::tree::{DraftTree, NodeId, ROOT};

pub use asking::{Quote, chain_speedup};

/// By how many tokens a tree must beat plain decoding before it is verified. The best of many noisy estimates is an overestimate;
/// without a margin, ties would be lost more often than won.
pub const MARGIN: f64 = 0.03;

/// What a tree may not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows, the root included; at least 1. Also bounded by the prices' table.
    pub max_rows: usize,
    /// Edges between the root and a leaf.
    pub max_depth: usize,
    /// Calls of the draft model.
    pub max_model_rounds: usize,
    /// Frontier nodes per call of the draft model.
    pub max_model_batch: usize,
}

impl Default for Limits {
    /// 64 rows, the most that the many-row kernels take; depth 40 as SAM-Decoding; 16 rounds of at most 16 nodes.
    fn default() -> Self {
        Self { max_rows: 64, max_depth: 40, max_model_rounds: 16, max_model_batch: 16 }
    }
}

/// Where candidates come from, as growth sees it.
pub trait Expand {
    /// Adds the free sources' candidates under `node` to `tree`, with their probabilities. Called once per node.
    fn expand(&mut self, tree: &mut DraftTree, node: NodeId);

    /// Whether `token` ends the text. As a row it is worth nothing: the target's word at its parent says it, and nothing comes behind.
    fn is_end(&self, _token: Token) -> bool {
        false
    }

    /// What the draft model would cost; `None` if there is none to ask.
    fn quote(&self) -> Option<Quote> {
        None
    }

    /// Adds the draft model's candidates under `nodes` to `tree`, with their probabilities, and returns the ms it took.
    fn ask_model(&mut self, _tree: &mut DraftTree, _nodes: &[NodeId]) -> Result<f64> {
        Ok(0.0)
    }
}

/// What growth decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// The nodes to verify, best first, the root among them; the root alone is plain decoding.
    pub selected: Vec<NodeId>,
    /// Expected tokens of the pass, at least 1: Ĝ.
    pub expected_tokens: f64,
    /// Expected ms of the pass, without what drafting has cost.
    pub pass_ms: f64,
    /// Expected ms of a plain pass now.
    pub plain_ms: f64,
    /// Ms spent on the draft model.
    pub model_ms: f64,
    /// Calls of the draft model.
    pub model_rounds: usize,
}

/// A frontier node in the order in which it is taken: more reach first, then older.
#[derive(PartialEq)]
struct Frontier {
    reach: f64,
    node: NodeId,
}

impl Eq for Frontier {}

impl Ord for Frontier {
    fn cmp(&self, other: &Self) -> Ordering {
        self.reach.total_cmp(&other.reach).then(other.node.cmp(&self.node))
    }
}

impl PartialOrd for Frontier {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A prefix of the best-first order.
#[derive(Clone, Copy, Debug)]
struct Prefix {
    rows: usize,
    leaves: usize,
    tokens: f64,
}

impl Prefix {
    /// With `node` as well, no leaf more.
    fn plus(self, tree: &DraftTree, node: NodeId) -> Self {
        Self { rows: self.rows + 1, tokens: self.tokens + tree.nodes()[node].reach, ..self }
    }
}

/// Grows `tree` within `limits` and decides which of its nodes to verify, where a ms is worth `rate` tokens: what decoding brings in
/// the long run, at least what it does plainly.
///
/// Fails only if the draft model does.
pub fn grow(
    tree: &mut DraftTree,
    sources: &mut impl Expand,
    prices: &Prices,
    rate: f64,
    limits: Limits,
) -> Result<Growth> {
    let mut grower = Grower::new(prices, rate, limits);
    let mut best = grower.grow_free(tree, sources);
    while grower.model_rounds < limits.max_model_rounds {
        let Some(quote) = sources.quote() else { break };
        let batch = grower.worth_asking(tree, best, &quote);
        if batch.is_empty() {
            break;
        }
        grower.model_ms += sources.ask_model(tree, &batch)?.max(0.0);
        grower.model_rounds += 1;
        grower.mark_asked(tree, &batch);
        tree.update_reach();
        best = grower.grow_free(tree, sources);
    }
    Ok(grower.decide(best))
}

/// Follows the most probable child of each node for up to `n` tokens, whatever it costs: the fixed chain that others draft, to
/// measure against. The draft model drafts it alone; the free sources do if there is none (prompt lookup).
pub fn grow_chain(tree: &mut DraftTree, sources: &mut impl Expand, prices: &Prices, n: usize) -> Result<Growth> {
    let mut grower = Grower::new(prices, 0.0, Limits { max_rows: n + 1, ..Limits::default() });
    let mut prefix = Prefix { rows: 1, leaves: 1, tokens: 1.0 };
    grower.order.push(ROOT);
    while prefix.rows < grower.limits.max_rows {
        let node = grower.order[prefix.rows - 1];
        if sources.quote().is_some() {
            grower.model_ms += sources.ask_model(tree, &[node])?.max(0.0);
            grower.model_rounds += 1;
        } else {
            sources.expand(tree, node);
        }
        let by_reach =
            |&a: &NodeId, &b: &NodeId| tree.nodes()[a].reach.total_cmp(&tree.nodes()[b].reach).then(b.cmp(&a));
        let best = tree.children(node).max_by(by_reach);
        let Some(child) = best.filter(|&child| !sources.is_end(tree.nodes()[child].token)) else { break };
        grower.order.push(child);
        prefix.rows += 1;
        prefix.tokens += tree.nodes()[child].reach;
    }
    Ok(grower.decide(prefix))
}

struct Grower<'a> {
    prices: &'a Prices,
    /// Tokens that a ms is worth.
    rate: f64,
    limits: Limits,
    /// By node.
    expanded: Vec<bool>,
    asked: Vec<bool>,
    /// The best-first order as far as it was followed.
    order: Vec<NodeId>,
    model_ms: f64,
    model_rounds: usize,
}

impl<'a> Grower<'a> {
    fn new(prices: &'a Prices, rate: f64, limits: Limits) -> Self {
        let max_rows = limits.max_rows.clamp(1, prices.max_rows().max(1));
        let limits = Limits { max_rows, ..limits };
        let (expanded, asked, order) = (Vec::new(), Vec::new(), Vec::new());
        Self { prices, rate, limits, expanded, asked, order, model_ms: 0.0, model_rounds: 0 }
    }

    /// Tokens of a pass less those that its time is worth.
    fn gain(&self, rows: usize, leaves: usize, tokens: f64) -> f64 {
        tokens - self.rate * self.prices.cycle_ms(rows, leaves, tokens)
    }

    /// Follows the best-first order, letting free sources expand it, and returns the best prefix.
    fn grow_free(&mut self, tree: &mut DraftTree, sources: &mut impl Expand) -> Prefix {
        self.order.clear();
        let mut has_child = vec![false; tree.len()];
        let mut frontier = BinaryHeap::from([Frontier { reach: 1.0, node: ROOT }]);
        let mut prefix = Prefix { rows: 0, leaves: 0, tokens: 0.0 };
        let mut best = Prefix { rows: 1, leaves: 1, tokens: 1.0 };
        let mut best_gain = self.gain(1, 1, 1.0) + MARGIN;
        while let Some(Frontier { reach, node }) = frontier.pop() {
            if prefix.rows >= self.limits.max_rows || (node != ROOT && !self.may_hope(prefix, reach, best_gain)) {
                break;
            }
            has_child.resize(tree.len(), false);
            // The first child takes its parent's place as a leaf.
            let opens = tree.nodes()[node].parent.is_none_or(|parent| std::mem::replace(&mut has_child[parent], true));
            prefix.rows += 1;
            prefix.leaves += usize::from(opens);
            prefix.tokens += reach;
            self.order.push(node);
            let gain = self.gain(prefix.rows, prefix.leaves, prefix.tokens);
            if prefix.rows > 1 && gain > best_gain {
                (best, best_gain) = (prefix, gain);
            }
            self.expand(tree, sources, node);
            let children = tree.children(node).filter(|&child| !sources.is_end(tree.nodes()[child].token));
            frontier.extend(children.map(|child| Frontier { reach: tree.nodes()[child].reach, node: child }));
        }
        best
    }

    fn expand(&mut self, tree: &mut DraftTree, sources: &mut impl Expand, node: NodeId) {
        self.expanded.resize(tree.len().max(self.expanded.len()), false);
        if !self.expanded[node] && tree.nodes()[node].depth < self.limits.max_depth {
            self.expanded[node] = true;
            sources.expand(tree, node);
        }
    }

    /// Whether any number of further rows, each with as much reach as the next one, could beat `best_gain`.
    fn may_hope(&self, prefix: Prefix, reach: f64, best_gain: f64) -> bool {
        (prefix.rows + 1..=self.limits.max_rows).any(|rows| {
            let tokens = prefix.tokens + reach * (rows - prefix.rows) as f64;
            self.gain(rows, prefix.leaves, tokens) > best_gain
        })
    }

    fn mark_asked(&mut self, tree: &DraftTree, nodes: &[NodeId]) {
        self.asked.resize(tree.len().max(self.asked.len()), false);
        for &node in nodes {
            self.asked[node] = true;
        }
    }

    fn decide(self, best: Prefix) -> Growth {
        Growth {
            selected: self.order[..best.rows.min(self.order.len())].to_vec(),
            expected_tokens: best.tokens,
            pass_ms: self.prices.cycle_ms(best.rows, best.leaves, best.tokens),
            plain_ms: self.prices.plain_ms(),
            model_ms: self.model_ms,
            model_rounds: self.model_rounds,
        }
    }
}
