//! Which calibration a text is drafted by: what one kind of text has taught is wrong of another.
//!
//! A calibration that has learnt from hundreds of summaries takes dozens of answers to come round to another task, longer than one
//! that has learnt nothing. So there is a challenger, which begins anew with a turn, with what claims are worth elsewhere. Both
//! learn from the same labels, both are judged by how well they foresee them (a log loss), and the challenger takes over
//! where it is clearly ahead. What the other had learnt is then forgotten with the next turn: kinds are told apart, not kept.
//! Until then drafts are grown by both, each believed by how well it has foreseen so far: Bayes' mixture of two models.
//!
//! An archive of kinds was tried and is not here: where kinds alternate, an answer is over before it has told which it is.
//!
//! Deliberately not here: how a calibration learns (`draft::calibration`), and what kind a text is. Nobody has to say.

use crate::draft::Calibration;
use crate::draft::calibration::CLASSES;
use crate::token::Token;
use crate::tree::{Claims, DraftTree, NodeId};

use super::learning::{Company, label};

/// Nats by which the challenger must be ahead to take over: the luck of a few words does not suffice.
const AHEAD: f64 = 12.0;

/// Nats by which it must be ahead at the end of a turn to go on in the next one, instead of beginning anew.
const PROMISING: f64 = 2.0;

/// Nats by which it must be ahead to be believed as much as the calibration in use: the log odds against a change of kind.
const DOUBT: f64 = 5.0;

/// A challenger that is believed less is not asked.
const NEGLIGIBLE: f64 = 0.01;

/// A choice that was all but ruled out says no more than this against a calibration.
const FLOOR: f64 = 0.01;

/// The calibration in use and its challenger. What the tree's best was worth beside the draft model's the challenger learns of trees in
/// which it had little say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kinds {
    current: Calibration,
    challenger: Calibration,
    /// Nats by which the challenger has foreseen better what came since it began, or since it was the one in use.
    lead: f64,
}

impl Kinds {
    /// A turn begins, which may be of another kind.
    pub(super) fn begin_turn(&mut self) {
        if self.lead <= PROMISING {
            (self.challenger, self.lead) = (Calibration::new(), 0.0);
        }
    }

    /// The calibration in use.
    pub fn current(&self) -> &Calibration {
        &self.current
    }

    /// The probability of each of `siblings` to be the target's choice, in (0, 1), together at most 1.
    pub(super) fn probabilities(&self, siblings: &[Claims]) -> Vec<f64> {
        let mut probabilities = self.current.probabilities(siblings);
        if self.belief() > 0.0 {
            let others = self.challenger.probabilities(siblings);
            probabilities.iter_mut().zip(others).for_each(|(p, other)| *p = self.mixed(*p, other));
        }
        probabilities
    }

    /// How often the tree's best candidate is right where the draft model is asked ([`Calibration::rates_in_company`]).
    pub(super) fn rates_in_company(&self) -> [f64; CLASSES] {
        let [current, challenger] = [&self.current, &self.challenger].map(Calibration::rates_in_company);
        std::array::from_fn(|class| self.mixed(current[class], challenger[class]))
    }

    /// The same behind any token.
    pub(super) fn mean_rate_in_company(&self) -> f64 {
        self.mixed(self.current.mean_rate_in_company(), self.challenger.mean_rate_in_company())
    }

    /// What the two foresee together.
    fn mixed(&self, current: f64, challenger: f64) -> f64 {
        current + self.belief() * (challenger - current)
    }

    /// How far the challenger is believed, in [0, 1): the probability whose odds are what `lead` says, against `DOUBT`. Whoever is in
    /// use has the doubt on its side, so what takes over gains by it.
    fn belief(&self) -> f64 {
        let belief = 1.0 / (1.0 + (DOUBT - self.lead).exp());
        if belief > NEGLIGIBLE { belief } else { 0.0 }
    }

    /// Lets both learn what is no choice between candidates.
    pub(super) fn learn(&mut self, lesson: impl Fn(&mut Calibration)) {
        lesson(&mut self.current);
        lesson(&mut self.challenger);
    }

    /// Learns from one reached node: every candidate under it was the target's choice or was not.
    pub(super) fn label(&mut self, tree: &DraftTree, node: NodeId, chosen: Token, company: Company) {
        self.lead += loss(&self.current, tree, node, chosen) - loss(&self.challenger, tree, node, chosen);
        self.learn(|calibration| label(calibration, tree, node, chosen, company));
        if self.lead > AHEAD {
            std::mem::swap(&mut self.current, &mut self.challenger);
            self.lead = -self.lead;
        }
    }
}

/// Nats of surprise at the choice among the candidates under `node`, or of none of them.
fn loss(calibration: &Calibration, tree: &DraftTree, node: NodeId, chosen: Token) -> f64 {
    let claims: Vec<Claims> = tree.children(node).map(|child| tree.nodes()[child].claims).collect();
    let probabilities = calibration.probabilities(&claims);
    let right = tree.children(node).position(|child| tree.nodes()[child].token == chosen);
    let p = right.map_or_else(|| 1.0 - probabilities.iter().sum::<f64>(), |i| probabilities[i]);
    -p.max(FLOOR).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Claim, ROOT, Source};

    const CLAIM: Claim = Claim { source: Source::Recycle, major: 9, minor: 0 };

    /// Nodes of a text in which such a claim is right as often as `rate` says.
    fn read(kinds: &mut Kinds, rate: f64, n: usize) {
        let mut due = 0.0;
        for _ in 0..n {
            due += rate;
            let mut tree = DraftTree::new(0);
            tree.propose(ROOT, 1, CLAIM);
            kinds.label(&tree, ROOT, if due >= 1.0 { 1 } else { 2 }, Company::All);
            due -= f64::from(u8::from(due >= 1.0));
        }
    }

    fn worth(kinds: &Kinds) -> f64 {
        kinds.current.probability(&Claims::of(CLAIM))
    }

    #[test]
    fn each_is_believed_by_how_well_it_has_foreseen() {
        let mut kinds = Kinds::default();
        read(&mut kinds, 1.0, 100);
        for (chosen, company) in [(1, Company::All), (1, Company::ModelAlone { foreseen: Some(0.9) })] {
            let mut tree = DraftTree::new(0);
            tree.propose(ROOT, 1, Claim { source: Source::Model, major: 9, minor: 0 });
            (0..30).for_each(|_| kinds.label(&tree, ROOT, chosen, company));
        }
        kinds.challenger = Calibration::new();
        let siblings = [Claims::of(CLAIM), Claims::of(Claim { source: Source::Context, major: 8, minor: 6 })];
        let foreseen = |lead: f64| {
            let kinds = Kinds { lead, ..kinds.clone() };
            [kinds.probabilities(&siblings), kinds.rates_in_company().to_vec(), vec![kinds.mean_rate_in_company()]]
                .concat()
        };
        let of = |calibration: &Calibration| {
            let mean = vec![calibration.mean_rate_in_company()];
            [calibration.probabilities(&siblings), calibration.rates_in_company().to_vec(), mean].concat()
        };
        let (old, new) = (of(&kinds.current), of(&kinds.challenger));
        assert!(old.iter().zip(&new).all(|(old, new)| old != new), "{old:?} {new:?}");
        assert_eq!(foreseen(0.0), old, "a new one is not believed");
        for (i, (old, new)) in old.into_iter().zip(new).enumerate() {
            let share = |lead: f64| (foreseen(lead)[i] - old) / (new - old);
            assert!((share(DOUBT) - 0.5).abs() < 1e-9, "{i}: by now either may be right");
            assert!(share(AHEAD) > 0.99, "{i}: what takes over is believed before");
            assert!((-20..12).all(|lead| share(f64::from(lead)) <= share(f64::from(lead + 1))), "{i}: by their odds");
            assert!((-50..50).all(|lead| (0.0..=1.0).contains(&share(f64::from(lead)))), "{i}: between the two");
        }
    }

    #[test]
    fn texts_of_one_kind_keep_what_they_have_taught() {
        let mut kinds = Kinds::default();
        for _ in 0..20 {
            kinds.begin_turn();
            read(&mut kinds, 0.9, 20);
        }
        let learnt = worth(&kinds);
        assert!(learnt > 0.8, "{learnt}");
        kinds.begin_turn();
        assert!((worth(&kinds) - learnt).abs() < 1e-9);
    }

    #[test]
    fn a_challenger_that_is_clearly_ahead_takes_over() {
        let mut kinds = Kinds { lead: AHEAD, ..Kinds::default() };
        read(&mut kinds, 0.0, 400);
        assert!(worth(&kinds) < 0.1, "it has learnt too");
        kinds.challenger = Calibration::new();
        let surprised = |kinds: &Kinds| kinds.lead > 0.0;
        let fresh = kinds.challenger.probability(&Claims::of(CLAIM));
        kinds.lead = 0.0;
        read(&mut kinds, 1.0, 1);
        assert!(surprised(&kinds), "one that has learnt nothing expected it rather");
        kinds.lead = AHEAD;
        read(&mut kinds, 1.0, 1);
        assert!(worth(&kinds) > fresh && kinds.lead < -AHEAD);
    }

    #[test]
    fn one_that_is_ahead_goes_on_and_one_that_is_not_begins_anew() {
        let mut kinds = Kinds::default();
        read(&mut kinds, 1.0, 30);
        let learnt = kinds.challenger.clone();
        kinds.lead = PROMISING + 1.0;
        kinds.begin_turn();
        assert_eq!(kinds.challenger, learnt);
        kinds.lead = PROMISING - 1.0;
        kinds.begin_turn();
        assert_eq!((kinds.challenger, kinds.lead), (Calibration::new(), 0.0));
    }

    /// A text of which two sources speak: what stood before, surely, and what was said last, less so. In quotes the former is right, in
    /// letters the latter; now and then it is another word.
    struct Text {
        quotes: bool,
        state: u64,
    }

    impl Text {
        fn new(quotes: bool) -> Self {
            Self { quotes, state: 1 + u64::from(quotes) }
        }

        /// One node of it, and the target's choice.
        fn node(&mut self) -> (DraftTree, Token) {
            let mut tree = DraftTree::new(0);
            tree.propose(ROOT, 1, Claim { source: Source::Context, major: 8, minor: 6 });
            tree.propose(ROOT, 2, CLAIM);
            // Knuth's generator: its upper half is random enough.
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let draw = (self.state >> 32) as f64 / f64::from(u32::MAX);
            let [right, other] = if self.quotes { [1, 2] } else { [2, 1] };
            let chosen = match draw {
                0.0..0.8 => right,
                0.8..0.85 => other,
                _ => 3,
            };
            (tree, chosen)
        }
    }

    #[test]
    fn a_turn_of_another_kind_is_taken_over_by_what_it_has_taught_itself() {
        let (mut kinds, mut letters) = (Kinds::default(), Text::new(false));
        for _ in 0..30 {
            kinds.begin_turn();
            for (tree, chosen) in (0..20).map(|_| letters.node()) {
                kinds.label(&tree, ROOT, chosen, Company::All);
            }
        }
        let of_letters = kinds.current.clone();
        // The first turn of quotes, and one who has heard nothing but it.
        let (mut fresh, mut quotes) = (Calibration::new(), Text::new(true));
        kinds.begin_turn();
        let taken_over = (1..=60).find(|_| {
            let (tree, chosen) = quotes.node();
            kinds.label(&tree, ROOT, chosen, Company::All);
            label(&mut fresh, &tree, ROOT, chosen, Company::All);
            kinds.current == fresh
        });
        assert!(taken_over.is_some_and(|n| n > 3), "{taken_over:?}: neither never nor by the luck of a few words");
        // The old one is the challenger now, and is given up with the next turn.
        assert!(kinds.current != of_letters);
        for turn in 0..10 {
            kinds.begin_turn();
            for (tree, chosen) in (0..20).map(|_| quotes.node()) {
                kinds.label(&tree, ROOT, chosen, Company::All);
                label(&mut fresh, &tree, ROOT, chosen, Company::All);
            }
            assert!(kinds.current == fresh, "turn {turn}: what the first turn taught was given up");
        }
    }

    #[test]
    fn turns_of_one_kind_never_hand_over() {
        for is_quotes in [false, true] {
            let (mut kinds, mut text) = (Kinds::default(), Text::new(is_quotes));
            // It learns from every word of every turn.
            let mut all = Calibration::new();
            for turn in 0..400 {
                kinds.begin_turn();
                for (tree, chosen) in (0..5 + turn % 40).map(|_| text.node()) {
                    kinds.label(&tree, ROOT, chosen, Company::All);
                    label(&mut all, &tree, ROOT, chosen, Company::All);
                    assert!(kinds.current == all, "turn {turn}, quotes: {is_quotes}: something else was taken for it");
                }
            }
        }
    }
}
