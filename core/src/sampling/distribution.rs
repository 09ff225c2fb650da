//! A sparse probability distribution over tokens, and the draw from it.

use crate::token::Token;

/// A token that can follow, and how likely it is to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token.
    pub token: Token,
    /// Its probability after the whole chain, above 0.
    pub probability: f64,
}

/// The tokens that can follow, in descending order of their logits (so of their probabilities) and, where those are equal,
/// ascending by token; their probabilities sum to 1 (within rounding). Every other token is impossible.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    candidates: Vec<Candidate>,
}

impl Distribution {
    /// The candidates, most probable first.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The most probable token, the lowest of equals; `None` only for the distribution of no row at all (`default`).
    pub fn most_probable(&self) -> Option<Token> {
        self.candidates.first().map(|c| c.token)
    }

    /// The probability of `token`, 0 if it is impossible. Linear in the number of candidates.
    pub fn probability(&self, token: Token) -> f64 {
        self.candidates.iter().find(|c| c.token == token).map_or(0.0, |c| c.probability)
    }

    /// Replaces the contents by `weights` (descending, not negative, the first above 0), normalised. What has no weight left is
    /// not a candidate.
    pub(super) fn set(&mut self, weights: impl Iterator<Item = Candidate>) {
        self.candidates.clear();
        self.candidates.extend(weights.take_while(|c| c.probability > 0.0));
        // From the small end, so that the sum of many small numbers is not lost beside a large one.
        let total: f64 = self.candidates.iter().rev().map(|c| c.probability).sum();
        for candidate in &mut self.candidates {
            candidate.probability /= total;
        }
    }
}

/// The token that `draw`, in `[0, 1)`, falls on when the candidates divide the interval in their order.
///
/// Rounding may leave the sum a little below 1; a draw beyond it falls on the last candidate. An empty distribution gives 0.
pub fn sample(distribution: &Distribution, draw: f64) -> Token {
    let mut end = 0.0;
    for candidate in &distribution.candidates {
        end += candidate.probability;
        if draw < end {
            return candidate.token;
        }
    }
    distribution.candidates.last().map_or(0, |c| c.token)
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Distribution, sample};
    use crate::sampling::uniform;

    fn distribution(weights: &[(u32, f64)]) -> Distribution {
        let mut distribution = Distribution::default();
        distribution.set(weights.iter().map(|&(token, probability)| Candidate { token, probability }));
        distribution
    }

    #[test]
    fn weights_are_normalised_and_zeros_dropped() {
        let d = distribution(&[(7, 6.0), (2, 2.0), (9, 0.0)]);
        assert_eq!(
            d.candidates(),
            [Candidate { token: 7, probability: 0.75 }, Candidate { token: 2, probability: 0.25 }]
        );
        assert_eq!((d.probability(2), d.probability(9), d.most_probable()), (0.25, 0.0, Some(7)));
    }

    #[test]
    fn draws_fall_on_their_part_of_the_interval() {
        let d = distribution(&[(7, 2.0), (2, 1.0), (9, 1.0)]);
        let drawn: Vec<u32> = [0.0, 0.4999, 0.5, 0.7499, 0.75, 1.0 - f64::EPSILON].map(|u| sample(&d, u)).to_vec();
        assert_eq!(drawn, [7, 7, 2, 2, 9, 9]);
    }

    #[test]
    fn a_million_draws_follow_the_distribution() {
        let d = distribution(&[(3, 40.0), (1, 25.0), (4, 20.0), (15, 10.0), (9, 4.0), (2, 0.9), (6, 0.1)]);
        let n = 1_000_000;
        let mut counts = [0u32; 16];
        for position in 0..n {
            counts[sample(&d, uniform(11, position)) as usize] += 1;
        }
        let chi2: f64 = d
            .candidates()
            .iter()
            .map(|c| {
                let expected = c.probability * n as f64;
                (f64::from(counts[c.token as usize]) - expected).powi(2) / expected
            })
            .sum();
        // 6 degrees of freedom: 22.46 is exceeded by chance once in 1,000. The seed is fixed, so this does not flicker.
        assert!(chi2 < 22.46, "chi-square {chi2}");
    }
}
