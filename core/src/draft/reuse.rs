//! The rest of a rejected draft, offered again: what follows a mismatch is often still right.
//!
//! CoordGen 1.2 (arXiv 2510.15312): with draft x, predictions y and the first mismatch e, keep the longest later run on which the
//! two agree, `(γ, ε) = argmax (ε − γ) subject to y_i = x_i for all i in [e+γ, e+ε]`, realign it behind the new last token and
//! offer it again, until it is too old. The paper names three kinds of mismatch (a missing word, a synonym, a redundant word)
//! and one realignment; the kinds ask for three, so we offer the starts that differ and let calibration say which pays:
//! behind the place where the corrected token itself stands in the draft (redundant), at the agreeing run (synonym), at the
//! rejected token (missing word). Predictions behind the mismatch exist only where rows were projected in one batch; without
//! them the run is not known and the rest is offered as such.
//!
//! Deliberately not here: whether rows are projected in a batch (`cost`).

use super::{Candidate, Drafter, Place, Verified, bin};
use crate::token::Token;
use crate::tree::{Claim, Source};

/// Steps for which a rest is offered without a hit, and tokens it may offer in all: the paper gives "at least one more step" and
/// a threshold without a value. A rest that failed twice is about something else.
const MAX_AGE: usize = 2;
const MAX_OFFERED: usize = 64;

/// Lower edges of the bins of the agreeing run's length; bin 0 means that it is not known.
const RUNS: [usize; 6] = [1, 2, 3, 5, 9, 17];

/// How the rest lines up with the new last token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alignment {
    /// The draft had the corrected token a little later: what it rejected was too much.
    BehindCorrection,
    /// The corrected token took the place of the rejected ones.
    AtRun,
    /// The corrected token came in front of the rejected one.
    AtRejected,
    /// The rest was hit and goes on.
    Continued,
}

/// One way on: the next token to offer is `rest[at]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    at: usize,
    alignment: Alignment,
}

/// The drafter.
#[derive(Clone, Debug, Default)]
pub struct ReuseDrafter {
    rest: Vec<Token>,
    starts: Vec<Start>,
    /// Length of the agreeing run; 0 if not known.
    run: usize,
    age: usize,
    offered: usize,
    /// By node of the present tree: the ways on from there.
    ways: Vec<Vec<Start>>,
}

impl ReuseDrafter {
    /// Nothing to offer.
    pub fn new() -> Self {
        Self::default()
    }

    fn drop_rest(&mut self) {
        self.rest.clear();
        self.starts.clear();
        (self.run, self.age, self.offered) = (0, 0, 0);
    }

    /// The starts that go on over all of `emitted`.
    fn continued(&self, emitted: &[Token]) -> Vec<Start> {
        let goes_on = |start: &&Start| self.rest.get(start.at..start.at + emitted.len()) == Some(emitted);
        let on = |start: &Start| Start { at: start.at + emitted.len(), alignment: Alignment::Continued };
        self.starts.iter().filter(goes_on).map(on).filter(|s| s.at < self.rest.len()).take(1).collect()
    }

    /// Keeps what of `drafted` lies behind the mismatch at `e`.
    fn keep(&mut self, drafted: &[Token], predicted: &[Token], e: usize) {
        let (gamma, run) = longest_agreement(drafted, predicted, e);
        self.rest = drafted[e..].to_vec();
        self.run = run;
        let behind_correction = self.rest.iter().skip(1).position(|&token| token == predicted[e]).map(|i| i + 2);
        let ways = [
            behind_correction.map(|at| (at, Alignment::BehindCorrection)),
            Some((gamma, Alignment::AtRun)),
            Some((0, Alignment::AtRejected)),
        ];
        self.starts.clear();
        for (at, alignment) in ways.into_iter().flatten().filter(|&(at, _)| at < drafted.len() - e) {
            if self.starts.iter().all(|start| self.rest[start.at] != self.rest[at]) {
                self.starts.push(Start { at, alignment });
            }
        }
    }

    fn is_spent(&self) -> bool {
        self.age > MAX_AGE || self.offered > MAX_OFFERED || self.starts.is_empty()
    }

    fn ways_at(&mut self, place: Place) -> Vec<Start> {
        let ways: Vec<Start> = match place.parent {
            None => self.starts.clone(),
            Some(parent) => {
                let above = self.ways.get(parent).map_or(&[][..], Vec::as_slice);
                let follows = above.iter().filter(|way| self.rest.get(way.at) == Some(&place.token));
                follows.map(|way| Start { at: way.at + 1, ..*way }).filter(|way| way.at < self.rest.len()).collect()
            }
        };
        if self.ways.len() <= place.node {
            self.ways.resize(place.node + 1, Vec::new());
        }
        self.ways[place.node].clone_from(&ways);
        ways
    }
}

/// Offset γ ≥ 1 from the mismatch `e` and length of the longest later run on which draft and predictions agree, the earliest of
/// equals; (1, 0) if there is none or no predictions are known.
fn longest_agreement(drafted: &[Token], predicted: &[Token], e: usize) -> (usize, usize) {
    let mut best = (1, 0);
    let mut run = 0;
    for i in e + 1..drafted.len().min(predicted.len()) {
        run = if drafted[i] == predicted[i] { run + 1 } else { 0 };
        if run > best.1 {
            best = (i + 1 - run - e, run);
        }
    }
    best
}

impl Drafter for ReuseDrafter {
    fn commit(&mut self, _token: Token) {}

    fn begin(&mut self) {
        self.ways.clear();
    }

    fn propose(&mut self, place: Place, out: &mut Vec<Candidate>) {
        let first = out.len();
        for way in self.ways_at(place) {
            let token = self.rest[way.at];
            if out[first..].iter().all(|c| c.token != token) {
                let major = way.alignment as u8 + if place.depth == 0 { 0 } else { 4 };
                let claim = Claim { source: Source::Reuse, major, minor: bin(self.run, &RUNS) };
                out.push(Candidate { token, claim });
                self.offered += 1;
            }
        }
    }

    fn verified(&mut self, pass: Verified<'_>) {
        let Verified { drafted, predicted } = pass;
        let e = drafted.iter().zip(predicted).take_while(|(x, y)| x == y).count();
        let Some(emitted) = predicted.get(..=e) else { return self.drop_rest() };
        let continued = self.continued(emitted);
        if !continued.is_empty() {
            (self.starts, self.age) = (continued, 0);
        } else if drafted.len() > e + 1 {
            self.drop_rest();
            self.keep(drafted, predicted, e);
        } else if drafted.is_empty() && !self.rest.is_empty() {
            // Offered and not verified: to the rest this is a draft whose first token was checked.
            self.age += 1;
            let Some(start) = self.starts.first() else { return self.drop_rest() };
            let tokens = self.rest.split_off(start.at);
            if tokens.first() == predicted.first() { self.drop_rest() } else { self.keep(&tokens, predicted, 0) }
        } else {
            self.drop_rest();
        }
        if self.is_spent() {
            self.drop_rest();
        }
    }

    fn rewind(&mut self, _history: &[Token]) {
        self.drop_rest();
    }

    /// What the last answer left behind is about that answer.
    fn mark(&mut self) {
        self.drop_rest();
    }

    fn roll_back(&mut self) {
        self.drop_rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(drafter: &mut ReuseDrafter) -> Vec<Token> {
        drafter.begin();
        let mut out = Vec::new();
        drafter.propose(Place { node: 0, parent: None, token: 0, depth: 0 }, &mut out);
        out.iter().map(|c| c.token).collect()
    }

    fn verify(drafter: &mut ReuseDrafter, drafted: &[Token], predicted: &[Token]) {
        drafter.verified(Verified { drafted, predicted });
    }

    #[test]
    fn finds_the_longest_later_run() {
        let x = [1, 2, 3, 4, 5, 6, 7];
        assert_eq!(longest_agreement(&x, &[1, 9, 3, 9, 5, 6, 7], 1), (3, 3));
        assert_eq!(longest_agreement(&x, &[1, 9, 3, 4, 9, 6, 7], 1), (1, 2));
        assert_eq!(longest_agreement(&x, &[1, 9], 1), (1, 0));
    }

    #[test]
    fn offers_the_run_behind_a_synonym_and_the_rejected_token_behind_a_missing_word() {
        let mut drafter = ReuseDrafter::new();
        verify(&mut drafter, &[1, 2, 3, 4], &[1, 9, 3, 4, 5]);
        assert_eq!(offers(&mut drafter), [3, 2]);
    }

    #[test]
    fn offers_what_stands_behind_the_correction_when_the_rejected_token_was_redundant() {
        let mut drafter = ReuseDrafter::new();
        verify(&mut drafter, &[1, 2, 3, 4, 5], &[3, 9, 4, 4, 5]);
        assert_eq!(offers(&mut drafter), [4, 1]);
    }

    #[test]
    fn follows_the_rest_down_the_tree() {
        let mut drafter = ReuseDrafter::new();
        verify(&mut drafter, &[1, 2, 3, 4], &[9, 2, 3, 4]);
        assert_eq!(offers(&mut drafter), [2, 1]);
        let mut out = Vec::new();
        drafter.propose(Place { node: 1, parent: Some(0), token: 2, depth: 1 }, &mut out);
        drafter.propose(Place { node: 2, parent: Some(1), token: 3, depth: 2 }, &mut out);
        drafter.propose(Place { node: 3, parent: Some(1), token: 77, depth: 2 }, &mut out);
        assert_eq!(out.iter().map(|c| c.token).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(out[0].claim.major, Alignment::AtRun as u8 + 4);
        assert_eq!(out[0].claim.minor, 3);
    }

    #[test]
    fn a_rest_that_is_hit_goes_on_and_one_that_is_not_ages_out() {
        let mut drafter = ReuseDrafter::new();
        let x = [1, 2, 3, 4, 5, 6, 7, 8];
        verify(&mut drafter, &x, &[9, 2, 3, 4, 5, 6, 7, 8]);
        // The tree had room for two of the rest; both were right and so was the third.
        assert_eq!(offers(&mut drafter), [2, 1]);
        verify(&mut drafter, &[2, 3], &[2, 3, 4]);
        assert_eq!(offers(&mut drafter), [5]);
        // Not verified any more, and the text goes elsewhere.
        for step in 0..=MAX_AGE {
            assert!(!offers(&mut drafter).is_empty(), "step {step}");
            verify(&mut drafter, &[], &[50]);
        }
        assert!(offers(&mut drafter).is_empty());
    }

    #[test]
    fn a_draft_that_was_right_a_roll_back_or_a_new_turn_leaves_nothing() {
        let mut drafter = ReuseDrafter::new();
        verify(&mut drafter, &[1, 2, 3], &[9, 2, 3]);
        verify(&mut drafter, &[7], &[7, 8]);
        assert!(offers(&mut drafter).is_empty());
        verify(&mut drafter, &[1, 2, 3], &[9, 2, 3]);
        drafter.roll_back();
        assert!(offers(&mut drafter).is_empty());
        verify(&mut drafter, &[1, 2, 3], &[9, 2, 3]);
        drafter.mark();
        assert!(offers(&mut drafter).is_empty());
    }
}
