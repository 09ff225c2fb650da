//! How much to draft: the tree that brings the most expected tokens per millisecond.
//!
//! Lever 2.1 (arXiv 2605.16786): maximise `Ĝ(T) / Ĉ_cycle(T)`, where `Ĝ = 1 + Σ b̂(u)` over the drafted nodes, by taking the
//! frontier node with the highest `b̂ / ΔĈ` for as long as that beats the ratio so far. Candidates of free sources all add the
//! same row, so best-first is by b̂ alone. We differ in the stop: Lever's is right where each further row costs more than the
//! last, and real kernels are not like that (ggml: the second row costs a whole pass, the next two next to nothing; kernels work
//! in groups of four). So growth goes on while an optimist could still hope, every prefix is priced, and the best one is taken:
//! the true optimum of the ratio for free candidates under any cost curve, and the same tree as Lever's under a convex one.
//! A chain, a tree or nothing at all falls out.
//!
//! The draft model's answers cost milliseconds, so it is asked only where the frontier promises enough: a batch of frontier
//! nodes at a time, each discounted by what other sources have already covered there, and judged by the run of further
//! accepted tokens that its recent record suggests.
//!
//! Deliberately not here: who proposes (trait [`Expand`]), prices (`cost`), and doubts about both (`governor`).

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::cost::Prices;
use crate::error::Result;
use crate::tree::{DraftTree, NodeId, ROOT};

/// By how much a tree must beat plain decoding before it is verified. The best of many noisy estimates is an overestimate;
/// without a margin, ties would be lost more often than won.
pub const MARGIN: f64 = 1.03;

/// Steps for which a draft model's run of accepted tokens is thought ahead.
const LOOKAHEAD: usize = 8;

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
    /// 64 rows, the most that the many-row kernels take; depth 40 as SAM-Decoding; 16 rounds of at most 4 nodes.
    fn default() -> Self {
        Self { max_rows: 64, max_depth: 40, max_model_rounds: 16, max_model_batch: 4 }
    }
}

/// What asking the draft model costs and promises.
#[derive(Clone, Debug, PartialEq)]
pub struct Quote {
    /// How often its best candidate has been right lately, in [0, 1].
    pub first_rate: f64,
    /// Ms per call by nodes asked about, `[max_model_batch + 1]`; index 0 is not read.
    pub batch_ms: Vec<f64>,
    /// Ms before the first call of this step: what it has not read yet.
    pub catch_up_ms: f64,
}

/// Where candidates come from, as growth sees it.
pub trait Expand {
    /// Adds the free sources' candidates under `node` to `tree`, with their probabilities. Called once per node.
    fn expand(&mut self, tree: &mut DraftTree, node: NodeId);

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

impl Growth {
    /// Expected speed over plain decoding, drafting included; 1 if nothing is drafted and nothing was spent.
    pub fn expected_speedup(&self) -> f64 {
        let ms = self.pass_ms + self.model_ms;
        if ms > 0.0 { self.expected_tokens * self.plain_ms / ms } else { 1.0 }
    }
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

/// Grows `tree` within `limits` and decides which of its nodes to verify.
///
/// Fails only if the draft model does.
pub fn grow(tree: &mut DraftTree, sources: &mut impl Expand, prices: &Prices, limits: Limits) -> Result<Growth> {
    let mut grower = Grower::new(prices, limits);
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

struct Grower<'a> {
    prices: &'a Prices,
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
    fn new(prices: &'a Prices, limits: Limits) -> Self {
        let max_rows = limits.max_rows.clamp(1, prices.max_rows().max(1));
        let limits = Limits { max_rows, ..limits };
        let (expanded, asked, order) = (Vec::new(), Vec::new(), Vec::new());
        Self { prices, limits, expanded, asked, order, model_ms: 0.0, model_rounds: 0 }
    }

    /// Tokens per ms of a pass, with what drafting has cost so far.
    fn rate(&self, rows: usize, leaves: usize, tokens: f64) -> f64 {
        tokens / (self.prices.cycle_ms(rows, leaves, tokens) + self.model_ms)
    }

    /// Follows the best-first order, letting free sources expand it, and returns the best prefix.
    fn grow_free(&mut self, tree: &mut DraftTree, sources: &mut impl Expand) -> Prefix {
        self.order.clear();
        let mut has_child = vec![false; tree.len()];
        let mut frontier = BinaryHeap::from([Frontier { reach: 1.0, node: ROOT }]);
        let mut prefix = Prefix { rows: 0, leaves: 0, tokens: 0.0 };
        let mut best = Prefix { rows: 1, leaves: 1, tokens: 1.0 };
        let mut best_rate = self.rate(1, 1, 1.0) * MARGIN;
        while let Some(Frontier { reach, node }) = frontier.pop() {
            if prefix.rows >= self.limits.max_rows || (node != ROOT && !self.may_hope(prefix, reach, best_rate)) {
                break;
            }
            has_child.resize(tree.len(), false);
            // The first child takes its parent's place as a leaf.
            let opens = tree.nodes()[node].parent.is_none_or(|parent| std::mem::replace(&mut has_child[parent], true));
            prefix.rows += 1;
            prefix.leaves += usize::from(opens);
            prefix.tokens += reach;
            self.order.push(node);
            let rate = self.rate(prefix.rows, prefix.leaves, prefix.tokens);
            if prefix.rows > 1 && rate > best_rate {
                (best, best_rate) = (prefix, rate);
            }
            self.expand(tree, sources, node);
            let children = tree.children(node).map(|child| Frontier { reach: tree.nodes()[child].reach, node: child });
            frontier.extend(children);
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

    /// Whether any number of further rows, each with as much reach as the next one, could beat `best_rate`.
    fn may_hope(&self, prefix: Prefix, reach: f64, best_rate: f64) -> bool {
        (prefix.rows + 1..=self.limits.max_rows).any(|rows| {
            let tokens = prefix.tokens + reach * (rows - prefix.rows) as f64;
            self.rate(rows, prefix.leaves, tokens) > best_rate
        })
    }

    /// The frontier nodes about which the draft model should be asked now, parents before children; empty if it should not.
    fn worth_asking(&self, tree: &DraftTree, best: Prefix, quote: &Quote) -> Vec<NodeId> {
        let a = quote.first_rate.clamp(0.0, 1.0);
        let mut nodes: Vec<(f64, usize)> = self
            .order
            .iter()
            .enumerate()
            .filter(|&(_, &node)| !self.asked.get(node).copied().unwrap_or(false))
            .filter(|&(_, &node)| tree.nodes()[node].depth < self.limits.max_depth)
            .map(|(at, &node)| (promise(tree, node, a), at))
            .collect();
        nodes.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1)));
        let Some(&(gain, at)) = nodes.first() else { return Vec::new() };
        let now = self.rate(best.rows, best.leaves, best.tokens);
        if self.hoped_rate(tree, best, at, gain, quote) <= now * MARGIN {
            return Vec::new();
        }
        let mut batch = vec![self.order[at]];
        let batch_ms = |n: usize| quote.batch_ms.get(n).copied().unwrap_or(f64::INFINITY);
        for &(gain, at) in nodes.iter().skip(1).take(self.limits.max_model_batch.saturating_sub(1)) {
            let row_ms = self.prices.cycle_ms(best.rows + 2, 1, 1.0) - self.prices.cycle_ms(best.rows + 1, 1, 1.0);
            if gain <= now * (batch_ms(batch.len() + 1) - batch_ms(batch.len()) + row_ms) {
                break;
            }
            batch.push(self.order[at]);
        }
        batch.sort_unstable();
        batch
    }

    /// The best rate that asking about `order[at]` may lead to, if the model's next candidates do as well as its recent ones.
    fn hoped_rate(&self, tree: &DraftTree, best: Prefix, at: usize, gain: f64, quote: &Quote) -> f64 {
        let base = self.including(tree, best, at);
        let call_ms = quote.batch_ms.get(1).copied().unwrap_or(f64::INFINITY);
        let mut spent = if self.model_rounds == 0 { quote.catch_up_ms } else { 0.0 };
        let (mut tokens, mut next, mut hoped) = (base.tokens, gain, 0.0f64);
        for step in 1..=LOOKAHEAD.min(self.limits.max_model_rounds - self.model_rounds) {
            tokens += next;
            next *= quote.first_rate.clamp(0.0, 1.0);
            spent += call_ms;
            let pass_ms = self.prices.cycle_ms(base.rows + step, base.leaves, tokens);
            hoped = hoped.max(tokens / (pass_ms + self.model_ms + spent));
        }
        hoped
    }

    /// `best` with `order[at]` and its ancestors added.
    fn including(&self, tree: &DraftTree, best: Prefix, at: usize) -> Prefix {
        let selected = &self.order[..best.rows.min(self.order.len())];
        let missing = tree.ancestors(self.order[at]).filter(|node| !selected.contains(node));
        missing.fold(best, |sum, node| Prefix {
            rows: sum.rows + 1,
            leaves: sum.leaves,
            tokens: sum.tokens + tree.nodes()[node].reach,
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

/// Expected accepted tokens from the model's first candidate under `node`, counting only what other sources leave open.
fn promise(tree: &DraftTree, node: NodeId, first_rate: f64) -> f64 {
    let covered: f64 = tree.children(node).map(|child| tree.nodes()[child].probability).sum();
    tree.nodes()[node].reach * first_rate * (1.0 - covered).max(0.0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::token::Token;
    use crate::tree::{Claim, Source};

    const CLAIM: Claim = Claim { source: Source::Context, major: 0, minor: 0 };

    /// Candidates by path.
    #[derive(Clone, Debug, Default)]
    struct Fixed {
        free: HashMap<Vec<Token>, Vec<(Token, f64)>>,
        model: HashMap<Vec<Token>, Vec<(Token, f64)>>,
        quote: Option<Quote>,
        asked: Vec<Vec<NodeId>>,
    }

    impl Fixed {
        /// A chain of tokens 1, 2, 3, … with these probabilities.
        fn chain(probabilities: &[f64]) -> Self {
            let tokens: Vec<Token> = (1..).take(probabilities.len()).collect();
            let links = probabilities.iter().enumerate().map(|(i, &p)| (tokens[..i].to_vec(), vec![(tokens[i], p)]));
            Self { free: links.collect(), ..Self::default() }
        }
    }

    fn add(tree: &mut DraftTree, node: NodeId, children: Option<&Vec<(Token, f64)>>, source: Source) {
        for &(token, p) in children.into_iter().flatten() {
            let child = tree.propose(node, token, Claim { source, ..CLAIM });
            tree.set_probability(child, p);
        }
    }

    impl Expand for Fixed {
        fn expand(&mut self, tree: &mut DraftTree, node: NodeId) {
            add(tree, node, self.free.get(&tree.path(node)), Source::Context);
        }

        fn quote(&self) -> Option<Quote> {
            self.quote.clone()
        }

        fn ask_model(&mut self, tree: &mut DraftTree, nodes: &[NodeId]) -> Result<f64> {
            self.asked.push(nodes.to_vec());
            nodes.iter().for_each(|&node| add(tree, node, self.model.get(&tree.path(node)), Source::Model));
            Ok(self.quote.as_ref().map_or(0.0, |q| q.batch_ms[nodes.len()]))
        }
    }

    fn prices(verify_ms: Vec<f64>) -> Prices {
        let project_ms = vec![0.0; verify_ms.len()];
        Prices { verify_ms, project_ms, leaf_ms: 0.0, fixed_ms: 0.0, sample_ms: 0.0 }
    }

    /// `fixed + slope · rows`.
    fn linear(fixed: f64, slope: f64) -> Prices {
        prices((0..=64).map(|rows| fixed + slope * f64::from(rows)).collect())
    }

    fn run(mut sources: Fixed, prices: &Prices, limits: Limits) -> (DraftTree, Growth) {
        let mut tree = DraftTree::new(0);
        let growth = grow(&mut tree, &mut sources, prices, limits).unwrap();
        (tree, growth)
    }

    #[test]
    fn free_rows_are_all_taken_and_dear_rows_not() {
        let chain = Fixed::chain(&[0.5; 10]);
        let (_, all) = run(chain.clone(), &linear(30.0, 0.0), Limits::default());
        assert_eq!(all.selected.len(), 11);
        let (_, none) = run(chain, &linear(0.0, 30.0), Limits::default());
        assert_eq!(none.selected, [ROOT]);
        assert_eq!((none.expected_tokens, none.pass_ms, none.plain_ms), (1.0, 30.0, 30.0));
        assert_eq!(none.expected_speedup(), 1.0);
    }

    #[test]
    fn looks_beyond_a_hump() {
        // ggml at Q8_0: the second row costs a whole pass, the next two a third of one. Lever's own rule stops at one row.
        let ggml = prices(vec![0.0, 26.5, 54.0, 58.0, 63.0, 72.0, 80.0, 88.0, 96.0]);
        let (_, growth) = run(Fixed::chain(&[0.95; 10]), &ggml, Limits::default());
        assert_eq!(growth.selected.len(), 8);
        assert!(growth.expected_speedup() > 1.8, "{}", growth.expected_speedup());
    }

    #[test]
    fn a_tree_where_it_is_broad_and_a_chain_where_it_is_sure() {
        let mut sources = Fixed::chain(&[0.5, 0.9]);
        sources.free.get_mut(&vec![]).unwrap().push((50, 0.4));
        let (tree, growth) = run(sources, &linear(30.0, 3.0), Limits::default());
        assert_eq!(growth.selected.len(), 4);
        assert_eq!(tree.flatten(&growth.selected).n_leaves(), 2);
        assert!((growth.expected_tokens - (1.0 + 0.5 + 0.45 + 0.4)).abs() < 1e-12);
    }

    #[test]
    fn the_model_is_asked_where_retrieval_ends_and_not_where_it_is_sure() {
        let mut sources = Fixed::chain(&[0.98, 0.98]);
        sources.model = HashMap::from([(vec![1, 2], vec![(9, 0.8)]), (vec![1, 2, 9], vec![(10, 0.8)])]);
        sources.quote = Some(Quote { first_rate: 0.8, batch_ms: vec![0.0, 2.0, 2.5, 3.0, 3.5], catch_up_ms: 0.0 });
        let mut tree = DraftTree::new(0);
        let growth = grow(&mut tree, &mut sources, &linear(30.0, 1.0), Limits::default()).unwrap();
        assert_eq!(sources.asked[0], [2], "the end of the retrieved chain");
        assert!(growth.selected.iter().any(|&node| tree.path(node) == [1, 2, 9, 10]));
        assert!(growth.model_ms > 0.0);
    }

    #[test]
    fn a_model_that_costs_more_than_it_brings_is_not_asked() {
        for (first_rate, ms) in [(0.8, 60.0), (0.02, 2.0)] {
            let sources = Fixed {
                quote: Some(Quote { first_rate, batch_ms: vec![0.0, ms, ms, ms, ms], catch_up_ms: 0.0 }),
                ..Fixed::default()
            };
            let (_, growth) = run(sources, &linear(30.0, 1.0), Limits::default());
            assert_eq!((growth.model_rounds, growth.model_ms), (0, 0.0));
        }
    }

    #[test]
    fn the_model_drafts_a_chain_alone() {
        let mut sources = Fixed::chain(&[0.85; 30]);
        sources.model = std::mem::take(&mut sources.free);
        sources.quote = Some(Quote { first_rate: 0.85, batch_ms: vec![0.0, 2.0, 2.2, 2.4, 2.6], catch_up_ms: 0.0 });
        let (_, growth) = run(sources, &linear(33.0, 3.0), Limits::default());
        assert!((5..=12).contains(&growth.selected.len()), "{}", growth.selected.len());
        assert!(growth.expected_speedup() > 2.0, "{}", growth.expected_speedup());
    }

    /// A random tree of candidates: for each node its parent (an earlier one) and probability.
    fn candidates() -> impl Strategy<Value = Vec<(usize, f64)>> {
        prop::collection::vec((0usize..8, 0.0f64..=1.0), 0..9)
    }

    fn sources(candidates: &[(usize, f64)]) -> Fixed {
        let mut sources = Fixed::default();
        let mut paths: Vec<Vec<Token>> = vec![Vec::new()];
        for (i, &(parent, p)) in candidates.iter().enumerate() {
            let parent = paths[parent % paths.len()].clone();
            let token = Token::try_from(i).unwrap() + 1;
            sources.free.entry(parent.clone()).or_default().push((token, p));
            paths.push([parent, vec![token]].concat());
        }
        sources
    }

    /// The best ratio over all subtrees, by trying them.
    fn best_by_force(candidates: &[(usize, f64)], prices: &Prices) -> f64 {
        let n = candidates.len();
        let mut parents = vec![0];
        let mut reach = vec![1.0];
        for (i, &(parent, p)) in candidates.iter().enumerate() {
            parents.push(parent % (i + 1));
            reach.push(reach[parent % (i + 1)] * p);
        }
        let mut best = 0.0f64;
        for set in 0u32..1 << n {
            let has = |node: usize| node == 0 || set & (1 << (node - 1)) != 0;
            if (1..=n).all(|node| !has(node) || has(parents[node])) {
                let tokens: f64 = (0..=n).filter(|&node| has(node)).map(|node| reach[node]).sum();
                best = best.max(tokens / prices.cycle_ms(1 + set.count_ones() as usize, 1, tokens));
            }
        }
        best
    }

    proptest! {
        #[test]
        fn no_subtree_and_so_no_chain_is_better(
            candidates in candidates(), steps in prop::collection::vec(0.0f64..20.0, 10)
        ) {
            let mut ms = 5.0;
            let prices = prices(std::iter::once(0.0).chain(steps.iter().map(|step| { ms += step; ms })).collect());
            let (_, growth) = run(sources(&candidates), &prices, Limits::default());
            let rate = growth.expected_tokens / growth.pass_ms;
            let best = best_by_force(&candidates, &prices);
            let plain = 1.0 / prices.plain_ms();
            // Within the margin over plain nothing is drafted; beyond it, the best of all subtrees is found.
            if best > plain * MARGIN * 1.000_001 {
                prop_assert!((rate / best - 1.0).abs() < 1e-9, "{rate} against {best}");
            } else {
                prop_assert_eq!(growth.selected, vec![ROOT]);
            }
        }

        #[test]
        fn limits_hold(candidates in candidates(), max_rows in 1usize..12, max_depth in 0usize..6) {
            let limits = Limits { max_rows, max_depth, ..Limits::default() };
            let (tree, growth) = run(sources(&candidates), &linear(30.0, 0.01), limits);
            prop_assert!(growth.selected.len() <= max_rows);
            prop_assert!(growth.selected.iter().all(|&node| tree.nodes()[node].depth <= max_depth));
            let flat = tree.flatten(&growth.selected);
            prop_assert_eq!(flat.rows.len(), growth.selected.len(), "the selection is a tree");
        }

        #[test]
        fn dearer_rows_never_give_a_bigger_tree_and_a_dearer_cycle_never_a_smaller_one(
            candidates in candidates(), fixed in 1.0f64..100.0, slope in 0.0f64..30.0, more in 0.0f64..30.0
        ) {
            let rows = |fixed, slope| run(sources(&candidates), &linear(fixed, slope), Limits::default()).1.selected.len();
            prop_assert!(rows(fixed, slope + more) <= rows(fixed, slope));
            prop_assert!(rows(fixed + more, slope) >= rows(fixed, slope));
        }

        #[test]
        fn never_expects_to_be_slower_than_plain(candidates in candidates(), fixed in 0.1f64..50.0, slope in 0.0f64..50.0) {
            let (_, growth) = run(sources(&candidates), &linear(fixed, slope), Limits::default());
            prop_assert!(growth.expected_speedup() >= 1.0 - 1e-12);
        }
    }
}
