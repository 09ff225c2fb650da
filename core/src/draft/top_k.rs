//! The few best tokens of a row of logits: all that drafting ever keeps of one.
//!
//! A row is 0.6 MB at a vocabulary of 150,000 tokens; this is 24 bytes. Weights are relative to the kept tokens alone: the
//! full softmax would cost an exponential per vocabulary item for a figure that calibration makes up for anyway.

use crate::token::Token;

/// Tokens kept per row. Token Recycling (arXiv 2408.08696) uses 8; beyond the third or fourth they are rarely right, and
/// every one of them is stored per context token.
pub const K: usize = 4;

/// The best tokens after one row, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopK {
    tokens: [Token; K],
    /// Weight among the kept tokens, in 255ths.
    weights: [u8; K],
    len: u8,
}

impl TopK {
    /// The best tokens of `logits`, `[n_vocab]`. Logits that are not numbers, or are minus infinity, are never kept.
    pub fn of(logits: &[f32]) -> Self {
        let mut best = [(f32::NEG_INFINITY, 0); K];
        for (start, chunk) in (0..).step_by(32).zip(logits.chunks(32)) {
            // Nearly every chunk ends here: comparisons that are all made are a few vector instructions, a maximum is not.
            let least = best[K - 1].0;
            if !chunk.iter().fold(false, |any, &logit| any | (logit > least)) {
                continue;
            }
            for (token, &logit) in (start..).zip(chunk) {
                insert(&mut best, logit, token);
            }
        }
        let n = best.iter().take_while(|(logit, _)| *logit > f32::NEG_INFINITY).count();
        let share = |logit: f32| f64::from(logit - best[0].0).exp();
        let sum: f64 = best[..n].iter().map(|&(logit, _)| share(logit)).sum();
        Self::from_weights(best[..n].iter().map(|&(logit, token)| (token, share(logit) / sum)))
    }

    /// From tokens and weights in [0, 1], best first; what comes after the first [`K`] is left out.
    pub fn from_weights(best: impl IntoIterator<Item = (Token, f64)>) -> Self {
        let mut top = Self::default();
        for (i, (token, weight)) in best.into_iter().take(K).enumerate() {
            top.tokens[i] = token;
            top.weights[i] = quantised(weight);
            top.len += 1;
        }
        top
    }

    /// Tokens with their weights in [0, 1], best first.
    pub fn iter(&self) -> impl Iterator<Item = (Token, f64)> + '_ {
        let n = usize::from(self.len);
        self.tokens.iter().copied().zip(self.weights.iter().map(|&w| f64::from(w) / 255.0)).take(n)
    }

    /// The best token.
    pub fn first(&self) -> Option<Token> {
        self.iter().next().map(|(token, _)| token)
    }

    /// Bytes of the encoded form.
    pub(super) const ENCODED: usize = 5 * K + 1;

    /// Appends the encoded form: length, tokens, weights, little-endian.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.len);
        self.tokens.iter().for_each(|token| bytes.extend(token.to_le_bytes()));
        bytes.extend(self.weights);
    }

    /// Reads the encoded form; `None` if it says that it keeps more than it has room for.
    pub(super) fn decode(bytes: [u8; Self::ENCODED]) -> Option<Self> {
        let (&len, rest) = bytes.split_first()?;
        let (tokens, weights) = rest.split_at(4 * K);
        let mut top = Self { len, weights: weights.try_into().ok()?, ..Self::default() };
        for (to, from) in top.tokens.iter_mut().zip(tokens.chunks_exact(4)) {
            *to = Token::from_le_bytes(from.try_into().ok()?);
        }
        (usize::from(len) <= K).then_some(top)
    }

    /// Whether no token is kept.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of u8")]
fn quantised(weight: f64) -> u8 {
    (weight.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// Keeps `best` sorted, larger first, the earlier token first where equal: the same rule as argmax.
fn insert(best: &mut [(f32, Token); K], logit: f32, token: Token) {
    // The comparison is false for NaN, which keeps it out.
    if logit > best[K - 1].0 {
        let at = best.iter().position(|&(other, _)| logit > other).unwrap_or(K - 1);
        best[at..].rotate_right(1);
        best[at] = (logit, token);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keeps_the_best_in_order_with_their_shares() {
        let mut logits = vec![0.0f32; 100];
        logits[70] = 10.0;
        logits[3] = 10.0 - std::f32::consts::LN_2;
        logits[99] = f32::NAN;
        let top = TopK::of(&logits);
        let kept: Vec<_> = top.iter().collect();
        assert_eq!(kept.iter().map(|k| k.0).collect::<Vec<_>>(), [70, 3, 0, 1]);
        assert!((kept[0].1 - 2.0 / 3.0).abs() < 0.01 && (kept[1].1 - 1.0 / 3.0).abs() < 0.01);
    }

    #[test]
    fn banned_and_missing_tokens_are_left_out() {
        assert!(TopK::of(&[]).is_empty());
        assert!(TopK::of(&[f32::NEG_INFINITY, f32::NAN]).is_empty());
        let top = TopK::of(&[f32::NEG_INFINITY, 1.0]);
        assert_eq!(top.iter().collect::<Vec<_>>(), [(1, 1.0)]);
        assert_eq!(top.first(), Some(1));
    }

    proptest! {
        #[test]
        fn agrees_with_sorting(logits in prop::collection::vec(-8i8..8, 1..200)) {
            let logits: Vec<f32> = logits.into_iter().map(f32::from).collect();
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            order.truncate(K);
            let kept: Vec<usize> = TopK::of(&logits).iter().map(|(token, _)| token as usize).collect();
            prop_assert_eq!(kept, order);
        }
    }
}
