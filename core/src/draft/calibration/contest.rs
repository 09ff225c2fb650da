//! What a candidate is worth where the draft model was asked: given what it says of the candidate and of its rivals, and what the
//! other sources say.
//!
//! Two sources that are each right nine times in ten are not both right where they disagree. Which of them is then right depends
//! on how sure each is, and on the text; so it is counted, by what each of the two sides says: this candidate, this surely; or
//! another one, this surely; or nothing. A cell with little evidence leans on a rule: the surer side, and what the model leaves
//! over for candidates that it does not name.

use super::count::Count;

/// Lower edges of the bins of how sure a side is.
const SURE: [f64; 6] = [0.15, 0.4, 0.65, 0.85, 0.95, 0.985];

/// What a side may say: nothing, this candidate, or another, the latter two with a bin.
const SAYINGS: usize = 1 + 2 * (SURE.len() + 1);

/// Offers after which a cell's old evidence weighs 1/e.
const WINDOW: f64 = 32.0;

/// What the draft model and the other sources together think of one candidate; `None` where they do not name it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Words {
    pub(super) model: Option<f64>,
    pub(super) others: Option<f64>,
}

impl Words {
    /// The larger of each side's.
    pub(super) fn max(self, other: Self) -> Self {
        let larger = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
        Self { model: larger(self.model, other.model), others: larger(self.others, other.others) }
    }
}

/// Counts by what the two sides say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Contest(Vec<Count>);

impl Default for Contest {
    fn default() -> Self {
        Self(vec![Count::default(); SAYINGS * SAYINGS])
    }
}

impl Contest {
    /// The probability of a candidate of which the two sides say `own`, and of its best rivals `best`, itself included. `None` where
    /// the model was not asked, so that nothing is contested.
    pub(super) fn probability(&self, own: Words, best: Words) -> Option<f64> {
        best.model.map(|best_of_model| self.0[cell(own, best)].rate(prior(own, best_of_model)))
    }

    /// Learns whether such a candidate was right.
    pub(super) fn observe(&mut self, own: Words, best: Words, hit: bool) {
        if best.model.is_some() {
            self.0[cell(own, best)].observe(hit, WINDOW);
        }
    }
}

fn prior(own: Words, best_of_model: f64) -> f64 {
    match own.model {
        Some(model) => own.others.map_or(model, |others| others.max(model)),
        None => own.others.unwrap_or_default() * (1.0 - best_of_model),
    }
}

fn cell(own: Words, best: Words) -> usize {
    saying(own.model, best.model) * SAYINGS + saying(own.others, best.others)
}

fn saying(own: Option<f64>, best: Option<f64>) -> usize {
    let bin = |p: f64| SURE.iter().take_while(|&&edge| p >= edge).count();
    match (own, best) {
        (Some(p), _) => 1 + bin(p),
        (None, Some(p)) => 2 + SURE.len() + bin(p),
        (None, None) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Words = Words { model: Some(0.9), others: Some(0.9) };
    const MODELS: Words = Words { model: Some(0.9), others: None };
    const OTHERS: Words = Words { model: None, others: Some(0.9) };

    #[test]
    fn nothing_is_contested_where_the_model_was_not_asked() {
        let mut contest = Contest::default();
        contest.observe(OTHERS, OTHERS, true);
        assert_eq!(contest.probability(OTHERS, OTHERS), None);
        assert_eq!(contest, Contest::default());
    }

    #[test]
    fn what_the_model_names_leaves_little_to_the_others() {
        let contest = Contest::default();
        assert!((contest.probability(OTHERS, BOTH).unwrap() - 0.09).abs() < 1e-9);
        assert!((contest.probability(MODELS, BOTH).unwrap() - 0.9).abs() < 1e-9);
    }

    #[test]
    fn where_they_disagree_the_one_that_was_right_is_trusted_and_agreement_is_another_thing() {
        let mut contest = Contest::default();
        for _ in 0..100 {
            contest.observe(OTHERS, BOTH, true);
            contest.observe(MODELS, BOTH, false);
            contest.observe(BOTH, BOTH, true);
        }
        assert!(contest.probability(OTHERS, BOTH).unwrap() > 0.85);
        assert!(contest.probability(MODELS, BOTH).unwrap() < 0.15);
        assert!(contest.probability(BOTH, BOTH).unwrap() > 0.9);
    }

    #[test]
    fn every_saying_has_a_cell() {
        let sides = [None, Some(0.0), Some(0.15), Some(0.5), Some(0.95), Some(1.0)];
        let words = || sides.iter().flat_map(|&model| sides.iter().map(move |&others| Words { model, others }));
        let contest = Contest::default();
        for (own, best) in words().flat_map(|own| words().map(move |best| (own, own.max(best)))) {
            assert!(contest.probability(own, best).is_none_or(|p| (0.0..=1.0).contains(&p)));
        }
    }
}
