//! From what a source says to how often the target agrees: one probability scale for all sources, learnt on line.
//!
//! Lever calls for a calibration that keeps the draft's ranking and shrinks it by how often the target's choice is among the
//! candidates, and gives no closed form (arXiv 2605.16786, section 2.1). Ours counts: each source's claims fall into cells
//! (`major`, `minor`), each cell keeps exponentially forgotten counts of offers and hits, beginning with what
//! such claims have been worth elsewhere (a Beta prior). On top, one shift in log-odds per source follows a source that is better or
//! worse than that, and a change of subject, faster than the cells can. A token that several sources propose has its own counts
//! by the set of its sources, leaning on its best source. Where the draft model was asked, a candidate is worth what
//! such candidates were worth against such rivals (`contest`): what the others say is worth little where the model says otherwise.
//!
//! Learning is free of selection bias: the target's choice is known at every *reached* row, so every candidate proposed under
//! a reached node is a labelled example, verified or not.
//!
//! Deliberately not here: what the figures of a claim mean (each source says so), and when to speculate (`governor`).

mod contest;
mod count;
mod prior;
#[cfg(test)]
mod tests;

use crate::tree::{Claim, Claims, Source};

use contest::{Contest, Words};
use count::Count;
pub(crate) use prior::SHORTER;
use prior::prior;

/// Offers after which a cell's old evidence weighs 1/e: a cell follows drift within a few dozen offers of its own.
const CELL_WINDOW: f64 = 32.0;
/// The same for a set of sources, which sees more offers.
const JOINT_WINDOW: f64 = 64.0;

/// Offers that what such claims have been worth elsewhere stands for in a new cell; forgotten as offers are.
const PRIOR_WEIGHT: f64 = 8.0;

/// Windows of the rate of a source's best candidate, lately and in the long run, and what of the former a step without offers
/// leaves: a bad run is forgotten within about twenty steps, a bad source is not.
const FIRST_WINDOW: f64 = 24.0;
const FIRST_LONG_WINDOW: f64 = 256.0;
const AGEING: f64 = 0.93;

/// Step of the per-source shift in log-odds per offer, and how much of the shift each offer leaves: it answers within about
/// five offers and forgets within about fifty, when the cells have caught up.
const SHIFT_STEP: f64 = 0.3;
const SHIFT_KEEP: f64 = 0.98;
const SHIFT_LIMIT: f64 = 3.0;

/// Hit rate assumed of the best candidate of a source that has never been checked. Low: the first offers are a trial.
const FIRST_PRIOR: f64 = 0.3;

/// Estimates stay this far from 0 and 1, so that log-odds exist and no claim by itself is ever beyond doubt or beyond hope.
const FLOOR: f64 = 0.002;

/// The candidates under one node never share more than this: they exclude each other, and something else is always possible.
const SIBLINGS: f64 = 0.99;

/// Lower edges of the classes of how surely a token was foreseen. Where one was, the draft model mostly knows the next one too: texts
/// are foreseeable in stretches.
const FORESEEN: [f64; 3] = [0.6, 0.85, 0.96];
/// The number of these classes.
pub const CLASSES: usize = FORESEEN.len() + 1;
const FORESEEN_WINDOW: f64 = 48.0;

/// How often other sources are assumed to be right where the draft model is wrong, and to outvote it where it is right.
const RESCUED_PRIOR: f64 = 0.1;
const SPOILED_PRIOR: f64 = 0.03;

/// Bins of the best source's estimate for candidates of several sources.
const JOINT_BINS: usize = 10;

/// The counts of one source.
#[derive(Clone, Debug, PartialEq)]
struct SourceTable {
    cells: Vec<Count>,
    shift: f64,
    /// How often the best candidate at a node where the source proposed anything was right: lately, and in the long run.
    first: Count,
    first_long: Count,
}

impl SourceTable {
    /// Nothing learnt of `source`.
    fn new(source: Source) -> Self {
        let claims =
            (0u8..).take(Claim::MAJORS).flat_map(|major| (0u8..).take(Claim::MINORS).map(move |minor| (major, minor)));
        Self {
            cells: claims
                .map(|(major, minor)| Count::of(prior(Claim { source, major, minor }), PRIOR_WEIGHT))
                .collect(),
            shift: 0.0,
            first: Count::default(),
            first_long: Count::default(),
        }
    }

    fn cell(claim: Claim) -> usize {
        (claim.major as usize).min(Claim::MAJORS - 1) * Claim::MINORS + (claim.minor as usize).min(Claim::MINORS - 1)
    }

    fn unshifted(&self, claim: Claim) -> f64 {
        self.cells[Self::cell(claim)].share()
    }

    fn probability(&self, claim: Claim) -> f64 {
        shifted(self.unshifted(claim), self.shift)
    }

    fn observe(&mut self, claim: Claim, hit: bool) {
        let surprise = f64::from(u8::from(hit)) - self.probability(claim);
        self.shift = (self.shift * SHIFT_KEEP + SHIFT_STEP * surprise).clamp(-SHIFT_LIMIT, SHIFT_LIMIT);
        self.cells[Self::cell(claim)].observe(hit, CELL_WINDOW);
    }
}

/// `p` moved by `shift` in log-odds, kept within `[FLOOR, 1 - FLOOR]`.
fn shifted(p: f64, shift: f64) -> f64 {
    let p = p.clamp(FLOOR, 1.0 - FLOOR);
    let odds = p / (1.0 - p) * shift.exp();
    (odds / (1.0 + odds)).clamp(FLOOR, 1.0 - FLOOR)
}

/// The calibration of all sources.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    sources: [SourceTable; Source::COUNT],
    joint: Vec<[Count; JOINT_BINS]>,
    /// How often the draft model's best candidate was right, by how surely the token before was foreseen.
    behind: [Count; CLASSES],
    /// Where the draft model's best candidate was wrong (right): how often the tree's best was right (wrong).
    rescued: Count,
    spoiled: Count,
    contest: Contest,
}

impl Default for Calibration {
    fn default() -> Self {
        Self::new()
    }
}

impl Calibration {
    /// Nothing learnt: every claim is worth what such claims have been worth elsewhere.
    pub fn new() -> Self {
        Self {
            sources: Source::ALL.map(SourceTable::new),
            joint: vec![Default::default(); 1 << Source::COUNT],
            behind: Default::default(),
            rescued: Count::default(),
            spoiled: Count::default(),
            contest: Contest::default(),
        }
    }

    /// Probability that the target, having reached the parent, chooses a candidate with these claims; 0 without claims.
    pub fn probability(&self, claims: &Claims) -> f64 {
        let best = self.best(claims);
        match self.joint.get(claims.mask()) {
            Some(bins) if claims.iter().count() > 1 => bins[bin(best)].rate(best).clamp(FLOOR, 1.0 - FLOOR),
            _ => best,
        }
    }

    /// Probability of each of the candidates under one node, with what they say about each other; together at most 0.99.
    pub fn probabilities(&self, siblings: &[Claims]) -> Vec<f64> {
        let contested = self.contested(siblings).into_iter().map(|(own, best)| self.contest.probability(own, best));
        let mut each: Vec<f64> = contested
            .zip(siblings)
            .map(|(p, claims)| p.map_or_else(|| self.probability(claims), |p| p.clamp(FLOOR, 1.0 - FLOOR)))
            .collect();
        exclude(&mut each);
        each
    }

    /// Of each candidate under one node, what the draft model's and the others' words are worth by themselves; and the most that
    /// each of the two says of any of them.
    fn contested(&self, siblings: &[Claims]) -> Vec<(Words, Words)> {
        let words = |claims: &Claims| {
            let (model, others) = claims.split(Source::Model);
            let worth = |claims: Claims| (claims.mask() > 0).then(|| self.probability(&claims));
            Words { model: worth(model), others: worth(others) }
        };
        let each: Vec<Words> = siblings.iter().map(words).collect();
        let best = each.iter().fold(Words::default(), |best, words| best.max(*words));
        each.into_iter().map(|words| (words, best)).collect()
    }

    /// Learns from one reached row with these candidates: which of them, if any, the target chose.
    pub fn observe_siblings(&mut self, siblings: &[Claims], chosen: Option<usize>) {
        for (i, (own, best)) in self.contested(siblings).into_iter().enumerate() {
            self.contest.observe(own, best, chosen == Some(i));
        }
        for (i, claims) in siblings.iter().enumerate() {
            self.observe(claims, chosen == Some(i));
        }
    }

    /// The most that any one source's claim is worth.
    fn best(&self, claims: &Claims) -> f64 {
        claims.iter().map(|claim| self.sources[claim.source.index()].probability(claim)).fold(0.0, f64::max)
    }

    fn observe(&mut self, claims: &Claims, hit: bool) {
        if claims.iter().count() > 1 {
            let best = bin(self.best(claims));
            if let Some(bins) = self.joint.get_mut(claims.mask()) {
                bins[best].observe(hit, JOINT_WINDOW);
            }
        }
        for claim in claims.iter() {
            self.sources[claim.source.index()].observe(claim, hit);
        }
    }

    /// Learns from one reached row at which `source` proposed something: whether its best candidate was the target's choice.
    pub fn observe_node(&mut self, source: Source, first_hit: bool) {
        let table = &mut self.sources[source.index()];
        table.first.observe(first_hit, FIRST_WINDOW);
        table.first_long.observe(first_hit, FIRST_LONG_WINDOW);
    }

    /// How often the best candidate of `source` has been right lately, in [0, 1]; in the long run, where lately says little.
    pub fn first_rate(&self, source: Source) -> f64 {
        let table = &self.sources[source.index()];
        table.first.rate(table.first_long.rate(FIRST_PRIOR))
    }

    /// The same of a source that is taken to be always right as long as nothing is known of it.
    pub fn hoped_first_rate(&self, source: Source) -> f64 {
        let table = &self.sources[source.index()];
        table.first.rate(table.first_long.rate(1.0))
    }

    /// A step has passed in which `source` was not checked: what it did lately says a little less. Without this, a source that is
    /// not asked because of a bad run would stay unasked.
    pub fn age(&mut self, source: Source) {
        let first = std::iter::once(&mut self.sources[source.index()].first);
        let behind = self.behind.iter_mut().filter(|_| source == Source::Model);
        first.chain(behind).for_each(|count| {
            (count.offers, count.hits) = (count.offers * AGEING, count.hits * AGEING);
        });
    }

    /// Learns from one reached row about which the draft model was asked, and whose token was `foreseen` with that probability:
    /// whether its best candidate was the target's choice, and whether the best of all sources was.
    pub fn observe_company(&mut self, foreseen: f64, model_hit: bool, tree_hit: bool) {
        self.observe_behind(foreseen, model_hit);
        if model_hit {
            self.spoiled.observe(!tree_hit, CELL_WINDOW);
        } else {
            self.rescued.observe(tree_hit, CELL_WINDOW);
        }
    }

    /// Learns from one reached row about which the draft model was not asked, but has said since what it would have proposed.
    pub fn observe_behind(&mut self, foreseen: f64, model_hit: bool) {
        self.behind[class_of(foreseen)].observe(model_hit, FORESEEN_WINDOW);
    }

    /// How often the tree's best candidate is right where the draft model is asked, by the [class](class_of) of the token it is asked
    /// behind: its own record, and what other sources add to it, which is learnt where it is asked and holds while it is not.
    pub fn rates_in_company(&self) -> [f64; CLASSES] {
        let mean = self.first_rate(Source::Model);
        self.behind.map(|count| self.with_company(count.rate(mean)))
    }

    /// The same behind any token.
    pub fn mean_rate_in_company(&self) -> f64 {
        self.with_company(self.first_rate(Source::Model))
    }

    fn with_company(&self, own: f64) -> f64 {
        own * (1.0 - self.spoiled.rate(SPOILED_PRIOR)) + (1.0 - own) * self.rescued.rate(RESCUED_PRIOR)
    }
}

/// Lets candidates exclude each other, so that together they have at most [`SIBLINGS`]: the likeliest, the first of equals, keeps its
/// own, the others share what it leaves.
fn exclude(each: &mut [f64]) {
    let Some(best) = (0..each.len()).rev().max_by(|&a, &b| each[a].total_cmp(&each[b])) else { return };
    each[best] = each[best].min(SIBLINGS);
    let left = SIBLINGS - each[best];
    let others = each.iter().sum::<f64>() - each[best];
    if others > left {
        let own = std::mem::take(&mut each[best]);
        each.iter_mut().for_each(|p| *p *= left / others);
        each[best] = own;
    }
}

/// The class of a probability with which a token was foreseen.
pub fn class_of(foreseen: f64) -> usize {
    FORESEEN.iter().take_while(|&&edge| foreseen >= edge).count()
}

/// The bin of a probability.
fn bin(p: f64) -> usize {
    (0..JOINT_BINS - 1).take_while(|&i| p >= (i + 1) as f64 / JOINT_BINS as f64).count()
}
