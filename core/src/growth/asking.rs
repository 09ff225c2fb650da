//! When the draft model is worth its price, and about which nodes.
//!
//! Its answer is not known before it is asked, so what is compared is a hope: a chain of its candidates at the rate at which
//! they have been right lately, verified beside what the other sources propose (counting only what those leave open, level by
//! level) or instead of it. A call is not about one node but about the path that the other sources propose from there as well: where
//! the model agrees with it, one call has done the work of several, as a pass of the target does (speculative decoding of the
//! draft itself). Lever (2.1) charges each node the draft's mean cost and takes what comes; with free sources beside
//! it the question is rather what the model adds.

use crate::cost::Prices;
use crate::draft::calibration::{CLASSES, class_of};
use crate::tree::{DraftTree, NodeId, Source};

use super::{Grower, Prefix};

/// Steps for which a draft model's run of accepted tokens is thought ahead.
const LOOKAHEAD: usize = 16;

/// Tokens' worth of trust in the model's record, beside how sure it was along the path at hand.
const RECORD_WEIGHT: f64 = 4.0;

/// Tokens, if the model is right, by which the first call of a step may hope for less than the tree has: what it says teaches what to hope
/// of it, and where it ends, other sources go on.
const CURIOSITY: f64 = 0.7;

/// A figure for each of the next levels below a node.
type Levels = [f64; LOOKAHEAD];

/// What asking the draft model costs and promises.
#[derive(Clone, Debug, PartialEq)]
pub struct Quote {
    /// How often the best candidate is right where it is asked, other sources included, in [0, 1], by the
    /// [class](class_of) of the token it is asked behind.
    pub rates_behind: [f64; CLASSES],
    /// Ms per call by nodes asked about, `[max_model_batch + 1]`; index 0 is not read.
    pub batch_ms: Vec<f64>,
    /// Ms before the first call of this step: what it has not read yet.
    pub catch_up_ms: f64,
}

/// A call of the draft model.
#[derive(Clone, Copy)]
struct Call {
    ms: f64,
    /// Steps of the model's own chain that it is expected to answer: those of the path on which the sources agree.
    steps: f64,
}

/// Speed over plain decoding of the best chain that a draft model alone would draft, whose best candidate is right at `first_rate`,
/// in [0, 1], and takes `call_ms`.
pub fn chain_speedup(prices: &Prices, first_rate: f64, call_ms: f64) -> f64 {
    let (mut tokens, mut next, mut best) = (1.0, 1.0, 1.0f64);
    for n in 1..=LOOKAHEAD {
        next *= first_rate.clamp(0.0, 1.0);
        tokens += next;
        let ms = prices.cycle_ms(1 + n, 1, tokens) + call_ms * n as f64;
        best = best.max(tokens * prices.plain_ms() / ms);
    }
    best
}

impl Grower<'_> {
    /// The frontier nodes about which the draft model should be asked now, parents before children; empty if it should not.
    pub(super) fn worth_asking(&mut self, tree: &DraftTree, best: Prefix, quote: &Quote) -> Vec<NodeId> {
        let levels = self.levels(tree, best);
        let open = |node: &NodeId| {
            !self.asked.get(*node).copied().unwrap_or(false) && tree.nodes()[*node].depth < self.limits.max_depth
        };
        let nodes: Vec<NodeId> = self.order.iter().copied().filter(open).collect();
        let hopes = nodes.iter().map(|&node| (self.hope(tree, best, node, &levels, quote), node));
        let Some((hope, first)) = hopes.max_by(|x, y| x.0.total_cmp(&y.0).then(y.1.cmp(&x.1))) else {
            return Vec::new();
        };
        let now = self.gain(best.rows, best.leaves, best.tokens);
        let curiosity = if self.model_rounds == 0 { CURIOSITY * known_rate(tree, first, quote) } else { 0.0 };
        if hope + curiosity <= now {
            return Vec::new();
        }
        // Further nodes come along where they are worth their share of the call; whether what is said there is worth verifying is
        // decided when it has been said.
        let promise = |node: NodeId| gains(tree, node, &levels, quote)[0];
        let mut others: Vec<(f64, NodeId)> =
            nodes.into_iter().filter(|&n| n != first).map(|n| (promise(n), n)).collect();
        others.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1)));
        let call_ms = |n: usize| quote.batch_ms.get(n).copied().unwrap_or(f64::INFINITY);
        let mut batch = self.marks(tree, first, quote);
        others.retain(|(_, node)| !batch.contains(node));
        for &(worth, node) in others.iter().take(self.limits.max_model_batch.saturating_sub(batch.len())) {
            if worth <= self.rate * (call_ms(batch.len() + 1) - call_ms(batch.len())) {
                break;
            }
            batch.push(node);
        }
        batch.sort_unstable();
        batch
    }

    /// `first` and the likeliest path below it, as far as asking about its nodes in the same call is cheaper than perhaps asking about
    /// them later.
    fn marks(&self, tree: &DraftTree, first: NodeId, quote: &Quote) -> Vec<NodeId> {
        let call_ms = |n: usize| quote.batch_ms.get(n).copied().unwrap_or(f64::INFINITY);
        let reach = |node: NodeId| tree.nodes()[node].reach;
        let is_open = |child: &NodeId| {
            let may_have_children = tree.nodes()[*child].depth < self.limits.max_depth;
            may_have_children && self.order.contains(child) && !self.asked.get(*child).copied().unwrap_or(false)
        };
        let mut marks = vec![first];
        let mut last = first;
        while marks.len() < self.limits.max_model_batch {
            let children = tree.children(last).filter(is_open);
            let Some(child) = children.max_by(|&a, &b| reach(a).total_cmp(&reach(b)).then(b.cmp(&a))) else { break };
            if reach(child) * call_ms(1) <= reach(first) * (call_ms(marks.len() + 1) - call_ms(marks.len())) {
                break;
            }
            marks.push(child);
            last = child;
        }
        marks
    }

    /// By node, the selected reach 1, 2, … edges below it.
    fn levels(&self, tree: &DraftTree, best: Prefix) -> Vec<Levels> {
        let mut levels = vec![[0.0; LOOKAHEAD]; tree.len()];
        let mut selected = self.order[..best.rows.min(self.order.len())].to_vec();
        selected.sort_unstable();
        for &node in selected.iter().rev() {
            let Some(parent) = tree.nodes()[node].parent else { continue };
            levels[parent][0] += tree.nodes()[node].reach;
            let below = levels[node];
            (1..LOOKAHEAD).for_each(|level| levels[parent][level] += below[level - 1]);
        }
        levels
    }

    /// The best gain that asking about `node` may lead to, if the model's next candidates do as well as its recent ones.
    ///
    /// Either they are verified beside what the other sources propose, and count where that is wrong; or they replace it: the
    /// model tells which of many doubtful candidates is right, and a chain of its own is verified instead.
    fn hope(&self, tree: &DraftTree, best: Prefix, node: NodeId, levels: &[Levels], quote: &Quote) -> f64 {
        let nothing = Prefix { rows: 0, leaves: 1, tokens: 0.0 };
        let alone = tree.ancestors(node).fold(nothing, |sum, above| sum.plus(tree, above));
        let marks = self.marks(tree, node, quote);
        let reach = |node: NodeId| tree.nodes()[node].reach;
        let call = Call {
            ms: quote.batch_ms.get(marks.len()).copied().unwrap_or(f64::INFINITY),
            steps: marks.iter().map(|&mark| reach(mark)).sum::<f64>() / reach(node).max(f64::MIN_POSITIVE),
        };
        let beside = self.hoped_gain(self.including(tree, best, node), &gains(tree, node, levels, quote), quote, call);
        let instead = self.hoped_gain(alone, &gains(tree, node, &[], quote), quote, call);
        beside.max(instead)
    }

    /// The best gain of `base` and a chain of the model's whose tokens bring `gains`.
    fn hoped_gain(&self, base: Prefix, gains: &Levels, quote: &Quote, call: Call) -> f64 {
        let step_ms = quote.batch_ms.get(1).copied().unwrap_or(f64::INFINITY);
        let first_ms = call.ms + if self.model_rounds == 0 { quote.catch_up_ms } else { 0.0 };
        let (mut tokens, mut hoped) = (base.tokens, f64::NEG_INFINITY);
        for (step, gain) in (1..).zip(gains) {
            tokens += gain;
            let spent = first_ms + (step as f64 - call.steps).max(0.0) * step_ms;
            hoped = hoped.max(self.gain(base.rows + step, base.leaves, tokens) - self.rate * spent);
        }
        hoped
    }

    /// `best` with `node` and its ancestors added.
    fn including(&self, tree: &DraftTree, best: Prefix, node: NodeId) -> Prefix {
        let selected = &self.order[..best.rows.min(self.order.len())];
        let missing = tree.ancestors(node).filter(|node| !selected.contains(node));
        missing.fold(best, |sum, node| sum.plus(tree, node))
    }
}

/// How often the model has been right behind such a node.
fn known_rate(tree: &DraftTree, node: NodeId, quote: &Quote) -> f64 {
    quote.rates_behind[class_of(tree.nodes()[node].probability)].clamp(0.0, 1.0)
}

/// Expected accepted tokens, by depth below `node`, from a chain of the model's there, counting only what the selected nodes of
/// `levels` leave open: the two are taken to be right independently of each other.
fn gains(tree: &DraftTree, node: NodeId, levels: &[Levels], quote: &Quote) -> Levels {
    let reach = tree.nodes()[node].reach;
    let known = known_rate(tree, node, quote);
    // How surely it has spoken along the path so far says how surely it will go on: texts are foreseeable in stretches.
    let spoken = tree.ancestors(node).filter(|&above| tree.nodes()[above].claims.by(Source::Model).is_some());
    let (n, sum) = spoken.fold((0.0, 0.0), |(n, sum), above| (n + 1.0, sum + tree.nodes()[above].probability));
    let rate = (sum + RECORD_WEIGHT * known) / (n + RECORD_WEIGHT);
    let mut chain = reach;
    let below = levels.get(node).copied().unwrap_or_default();
    below.map(|selected| {
        chain *= rate;
        chain * (1.0 - selected / reach.max(f64::MIN_POSITIVE)).max(0.0)
    })
}
