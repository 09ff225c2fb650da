//! From what a source says to how often the target agrees: one probability scale for all sources, learnt on line.
//!
//! Lever calls for a calibration that keeps the draft's ranking and shrinks it by how often the target's choice is among the
//! candidates, and gives no closed form (arXiv 2605.16786, section 2.1). Ours counts: each source's claims fall into cells
//! (`major`, `minor`), each cell keeps exponentially forgotten counts of offers and hits, and a cell with little evidence leans
//! on its row (`major`), that on the whole source, and that on a prior (hierarchical shrinkage of a Beta mean). On top, one
//! shift in log-odds per source follows a change of subject faster than the cells can. A token that several sources propose has
//! its own counts by the set of its sources, leaning on its best source.
//!
//! Learning is free of selection bias: the target's choice is known at every *reached* row, so every candidate proposed under
//! a reached node is a labelled example, verified or not.
//!
//! Deliberately not here: what the figures of a claim mean (each source says so), and when to speculate (`governor`).

use crate::tree::{Claim, Claims, Source};

/// Offers after which a cell's old evidence weighs 1/e: a cell follows drift within a few dozen offers of its own.
const CELL_WINDOW: f64 = 32.0;
/// The same for a row of cells, a source, and a set of sources, which see more offers.
const ROW_WINDOW: f64 = 64.0;
const SOURCE_WINDOW: f64 = 128.0;

/// The same for the rate of a source's best candidate, lately and in the long run, and what of the former a step without offers
/// leaves: a bad run is forgotten within about twenty steps, a bad source is not.
const FIRST_WINDOW: f64 = 24.0;
const FIRST_LONG_WINDOW: f64 = 256.0;
const AGEING: f64 = 0.93;

/// Offers' worth of trust that a cell places in the level above it.
const SHRINKAGE: f64 = 4.0;

/// Step of the per-source shift in log-odds per offer, and how much of the shift each offer leaves: it answers within about
/// ten offers and forgets within about fifty, when the cells have caught up.
const SHIFT_STEP: f64 = 0.15;
const SHIFT_KEEP: f64 = 0.98;
const SHIFT_LIMIT: f64 = 3.0;

/// Hit rate assumed of a source that has never been checked. Low: the first offers are a trial, and trials cost rows.
const PRIOR: f64 = 0.3;

/// Estimates stay this far from 0 and 1, so that log-odds exist and no candidate is ever beyond doubt or beyond hope.
const FLOOR: f64 = 0.002;

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

/// Exponentially forgotten counts of one kind of candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Count {
    offers: f64,
    hits: f64,
}

impl Count {
    fn observe(&mut self, hit: bool, window: f64) {
        let keep = 1.0 - 1.0 / window;
        self.offers = self.offers * keep + 1.0;
        self.hits = self.hits * keep + f64::from(u8::from(hit));
    }

    /// Hit rate, leaning on `prior` as on `SHRINKAGE` offers.
    fn rate(&self, prior: f64) -> f64 {
        (self.hits + SHRINKAGE * prior) / (self.offers + SHRINKAGE)
    }
}

/// The counts of one source.
#[derive(Clone, Debug, PartialEq)]
struct SourceTable {
    cells: Vec<Count>,
    rows: [Count; Claim::MAJORS],
    all: Count,
    shift: f64,
    /// How often the best candidate at a node where the source proposed anything was right: lately, and in the long run.
    first: Count,
    first_long: Count,
    /// How often any of them was: the coverage that Lever shrinks by.
    any: Count,
}

impl Default for SourceTable {
    fn default() -> Self {
        Self {
            cells: vec![Count::default(); Claim::MAJORS * Claim::MINORS],
            rows: [Count::default(); Claim::MAJORS],
            all: Count::default(),
            shift: 0.0,
            first: Count::default(),
            first_long: Count::default(),
            any: Count::default(),
        }
    }
}

impl SourceTable {
    fn cell(claim: Claim) -> (usize, usize) {
        let major = (claim.major as usize).min(Claim::MAJORS - 1);
        (major, major * Claim::MINORS + (claim.minor as usize).min(Claim::MINORS - 1))
    }

    fn unshifted(&self, claim: Claim) -> f64 {
        let (row, cell) = Self::cell(claim);
        self.cells[cell].rate(self.rows[row].rate(self.all.rate(PRIOR)))
    }

    fn probability(&self, claim: Claim) -> f64 {
        shifted(self.unshifted(claim), self.shift)
    }

    fn observe(&mut self, claim: Claim, hit: bool) {
        let surprise = f64::from(u8::from(hit)) - self.probability(claim);
        self.shift = (self.shift * SHIFT_KEEP + SHIFT_STEP * surprise).clamp(-SHIFT_LIMIT, SHIFT_LIMIT);
        let (row, cell) = Self::cell(claim);
        self.cells[cell].observe(hit, CELL_WINDOW);
        self.rows[row].observe(hit, ROW_WINDOW);
        self.all.observe(hit, SOURCE_WINDOW);
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
}

impl Default for Calibration {
    fn default() -> Self {
        Self::new()
    }
}

impl Calibration {
    /// Nothing learnt: every candidate has the prior.
    pub fn new() -> Self {
        Self {
            sources: Default::default(),
            joint: vec![Default::default(); 1 << Source::COUNT],
            behind: Default::default(),
            rescued: Count::default(),
            spoiled: Count::default(),
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

    /// The most that any one source's claim is worth.
    fn best(&self, claims: &Claims) -> f64 {
        claims.iter().map(|claim| self.sources[claim.source.index()].probability(claim)).fold(0.0, f64::max)
    }

    /// Learns from one candidate under a reached row: whether the target chose it.
    pub fn observe(&mut self, claims: &Claims, hit: bool) {
        if claims.iter().count() > 1 {
            let best = bin(self.best(claims));
            if let Some(bins) = self.joint.get_mut(claims.mask()) {
                bins[best].observe(hit, ROW_WINDOW);
            }
        }
        for claim in claims.iter() {
            self.sources[claim.source.index()].observe(claim, hit);
        }
    }

    /// Learns from one reached row at which `source` proposed something: whether its best candidate, and whether any of its
    /// candidates, was the target's choice.
    pub fn observe_node(&mut self, source: Source, first_hit: bool, any_hit: bool) {
        let table = &mut self.sources[source.index()];
        table.first.observe(first_hit, FIRST_WINDOW);
        table.first_long.observe(first_hit, FIRST_LONG_WINDOW);
        table.any.observe(any_hit, CELL_WINDOW);
    }

    /// How often the best candidate of `source` has been right lately, in [0, 1]; in the long run, where lately says little.
    pub fn first_rate(&self, source: Source) -> f64 {
        let table = &self.sources[source.index()];
        table.first.rate(table.first_long.rate(PRIOR))
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
        self.behind[class_of(foreseen)].observe(model_hit, FORESEEN_WINDOW);
        if model_hit {
            self.spoiled.observe(!tree_hit, CELL_WINDOW);
        } else {
            self.rescued.observe(tree_hit, CELL_WINDOW);
        }
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

    /// How often any candidate of `source` has been right lately, in [0, 1].
    pub fn coverage(&self, source: Source) -> f64 {
        self.sources[source.index()].any.rate(PRIOR)
    }

    /// Reached rows at which `source` was checked, exponentially forgotten.
    pub fn n_checked(&self, source: Source) -> f64 {
        self.sources[source.index()].any.offers
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(source: Source, major: u8, minor: u8) -> Claim {
        Claim { source, major, minor }
    }

    /// A synthetic source: hits come evenly, as often as `rate` says.
    fn feed(calibration: &mut Calibration, claims: &Claims, rate: f64, n: usize) {
        let mut due = 0.0;
        for _ in 0..n {
            due += rate;
            let hit = due >= 1.0;
            due -= f64::from(u8::from(hit));
            calibration.observe(claims, hit);
        }
    }

    #[test]
    fn converges_on_each_cell_of_a_synthetic_source() {
        let mut calibration = Calibration::new();
        let rates = [0.05, 0.3, 0.6, 0.95];
        for _ in 0..60 {
            for (major, rate) in (0..).zip(rates) {
                feed(&mut calibration, &Claims::of(claim(Source::Context, major, 0)), rate, 20);
            }
        }
        for (major, rate) in (0..).zip(rates) {
            let p = calibration.probability(&Claims::of(claim(Source::Context, major, 0)));
            assert!((p - rate).abs() < 0.08, "cell {major}: {p} instead of {rate}");
        }
    }

    #[test]
    fn a_new_cell_leans_on_its_row_and_source() {
        let mut calibration = Calibration::new();
        let fresh = Claims::of(claim(Source::Model, 3, 1));
        assert!((calibration.probability(&fresh) - PRIOR).abs() < 1e-9);
        feed(&mut calibration, &Claims::of(claim(Source::Model, 3, 0)), 0.9, 100);
        feed(&mut calibration, &Claims::of(claim(Source::Model, 7, 0)), 0.1, 100);
        assert!(calibration.probability(&fresh) > 0.6);
        assert!(calibration.probability(&Claims::of(claim(Source::Model, 7, 1))) < 0.3);
        assert!((calibration.probability(&Claims::of(claim(Source::Reuse, 3, 1))) - PRIOR).abs() < 1e-9);
    }

    #[test]
    fn follows_a_collapse_and_a_recovery_within_twenty_offers() {
        let mut calibration = Calibration::new();
        let claims = Claims::of(claim(Source::Context, 5, 2));
        feed(&mut calibration, &claims, 0.9, 300);
        feed(&mut calibration, &claims, 0.0, 20);
        assert!(calibration.probability(&claims) < 0.25, "{}", calibration.probability(&claims));
        feed(&mut calibration, &claims, 0.0, 200);
        assert!(calibration.probability(&claims) < 0.02, "{}", calibration.probability(&claims));
        feed(&mut calibration, &claims, 0.9, 20);
        assert!(calibration.probability(&claims) > 0.5, "{}", calibration.probability(&claims));
    }

    #[test]
    fn agreement_has_its_own_record() {
        let mut calibration = Calibration::new();
        let (context, model) = (claim(Source::Context, 1, 0), claim(Source::Model, 1, 0));
        let mut both = Claims::of(context);
        both.join(model);
        for _ in 0..100 {
            feed(&mut calibration, &both, 1.0, 1);
            feed(&mut calibration, &Claims::of(context), 0.0, 1);
            feed(&mut calibration, &Claims::of(model), 0.0, 1);
        }
        assert!(calibration.probability(&both) > 0.9);
        assert!(calibration.probability(&Claims::of(context)) < 0.65);
    }

    #[test]
    fn coverage_and_first_rate_are_per_source() {
        let mut calibration = Calibration::new();
        (0..200).for_each(|i| calibration.observe_node(Source::Model, i % 2 == 0, true));
        assert!((calibration.first_rate(Source::Model) - 0.5).abs() < 0.03);
        assert!(calibration.coverage(Source::Model) > 0.9);
        assert_eq!(calibration.n_checked(Source::Recycle), 0.0);
    }

    #[test]
    fn a_bad_run_is_forgotten_and_a_bad_source_is_not() {
        let mut calibration = Calibration::new();
        (0..300).for_each(|i| calibration.observe_node(Source::Model, i % 4 != 0, true));
        (0..10).for_each(|_| calibration.observe_node(Source::Model, false, false));
        assert!(calibration.first_rate(Source::Model) < 0.55);
        (0..40).for_each(|_| calibration.age(Source::Model));
        assert!(calibration.first_rate(Source::Model) > 0.65);
        (0..600).for_each(|_| calibration.observe_node(Source::Model, false, false));
        (0..1000).for_each(|_| calibration.age(Source::Model));
        assert!(calibration.first_rate(Source::Model) < 0.1);
    }

    #[test]
    fn what_other_sources_add_to_the_model_outlasts_its_absence() {
        let mut calibration = Calibration::new();
        for i in 0..200 {
            let model_hit = i % 4 != 0;
            calibration.observe_node(Source::Model, model_hit, model_hit);
            calibration.observe_company(0.9, model_hit, model_hit || i % 8 == 0);
        }
        assert!((calibration.first_rate(Source::Model) - 0.75).abs() < 0.08);
        assert!((calibration.mean_rate_in_company() - 0.87).abs() < 0.06, "{}", calibration.mean_rate_in_company());
        (0..300).for_each(|_| calibration.observe_node(Source::Model, false, false));
        assert!((calibration.mean_rate_in_company() - 0.5).abs() < 0.1, "only the model itself was seen to fail");
    }

    #[test]
    fn the_model_is_trusted_by_how_surely_the_token_before_was_foreseen() {
        let mut calibration = Calibration::new();
        assert_eq!(calibration.rates_in_company(), [calibration.mean_rate_in_company(); CLASSES]);
        for i in 0..400 {
            let (foreseen, hit) = if i % 2 == 0 { (0.99, true) } else { (0.1, i % 8 == 1) };
            calibration.observe_node(Source::Model, hit, hit);
            calibration.observe_company(foreseen, hit, hit);
        }
        let rates = calibration.rates_in_company();
        assert!(rates[CLASSES - 1] > 0.9 && (rates[0] - 0.25).abs() < 0.1, "{rates:?}");
        assert!((rates[1] - calibration.mean_rate_in_company()).abs() < 1e-12, "never seen, so as anywhere");
        assert_eq!([0.0, 0.6, 0.9, 1.0].map(class_of), [0, 1, 2, 3]);
    }

    proptest! {
        #[test]
        fn stays_within_zero_and_one(
            steps in prop::collection::vec((0usize..5, any::<u8>(), any::<u8>(), any::<bool>(), any::<bool>()), 0..400)
        ) {
            let mut calibration = Calibration::new();
            for (source, major, minor, hit, joined) in steps {
                let mut claims = Claims::of(claim(Source::ALL[source], major, minor));
                if joined {
                    claims.join(claim(Source::Model, minor, major));
                }
                calibration.observe(&claims, hit);
                let p = calibration.probability(&claims);
                prop_assert!((0.0..=1.0).contains(&p));
            }
            prop_assert_eq!(calibration.probability(&Claims::default()), 0.0);
        }

        #[test]
        fn a_hit_never_lowers_and_a_miss_never_raises_the_estimate(
            history in prop::collection::vec((0u8..3, any::<bool>()), 0..200), major in 0u8..3, hit in any::<bool>()
        ) {
            let mut calibration = Calibration::new();
            for (major, hit) in history {
                calibration.observe(&Claims::of(claim(Source::Recycle, major, 0)), hit);
            }
            let claims = Claims::of(claim(Source::Recycle, major, 0));
            let table = &calibration.sources[Source::Recycle.index()];
            let before = table.unshifted(claim(Source::Recycle, major, 0));
            calibration.observe(&claims, hit);
            let after = calibration.sources[Source::Recycle.index()].unshifted(claim(Source::Recycle, major, 0));
            let rose = after - before;
            prop_assert!((hit && rose >= -1e-12) || (!hit && rose <= 1e-12));
        }
    }
}
