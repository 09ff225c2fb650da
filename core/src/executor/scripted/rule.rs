//! What the fake model says after a history.

use std::sync::Arc;

use crate::token::Token;

/// A function from the whole history to logits. Cheap to clone.
#[derive(Clone)]
pub struct Rule {
    n_vocab: usize,
    logits: Arc<LogitsFn>,
}

type LogitsFn = dyn Fn(&[Token], &mut [f32]) + Send + Sync;

/// The logit of a prescribed token; all others have 0. Large enough that no sampling at a sane temperature strays from it.
const CERTAIN: f32 = 100.0;

impl Rule {
    /// Any function: it is given the history (at least one token) and `[n_vocab]` logits, all zero.
    pub fn logits_from(n_vocab: usize, logits: impl Fn(&[Token], &mut [f32]) + Send + Sync + 'static) -> Self {
        Self { n_vocab, logits: Arc::new(logits) }
    }

    /// One certain next token per history.
    pub fn next_token(n_vocab: usize, next: impl Fn(&[Token]) -> Token + Send + Sync + 'static) -> Self {
        Self::logits_from(n_vocab, move |history, logits| logits[next(history) as usize] = CERTAIN)
    }

    /// Pseudo-random logits in 0 .. 8, a hash of history and `seed`: every history has its own distribution.
    pub fn hashed(n_vocab: usize, seed: u64) -> Self {
        Self::logits_from(n_vocab, move |history, logits| {
            let state = history.iter().fold(mix(seed), |state, &token| mix(state ^ u64::from(token)));
            for (token, logit) in (0u64..).zip(logits) {
                *logit = (mix(state ^ (token << 32)) >> 40) as f32 / (1u64 << 21) as f32;
            }
        })
    }

    /// Continues the first of `sequences` that begins with the history, and says `end` where none does.
    pub fn continuing(n_vocab: usize, sequences: Vec<Vec<Token>>, end: Token) -> Self {
        Self::next_token(n_vocab, move |history| {
            let known = sequences.iter().find(|s| s.len() > history.len() && s.starts_with(history));
            known.map_or(end, |s| s[history.len()])
        })
    }

    /// A chat model: after the last `marker` (the end of a prompt) it says what `reply` makes of everything up to there, then `end`.
    pub fn replying(
        n_vocab: usize,
        marker: &[Token],
        end: Token,
        reply: impl Fn(&[Token]) -> Vec<Token> + Send + Sync + 'static,
    ) -> Self {
        let marker = marker.to_vec();
        Self::next_token(n_vocab, move |history| {
            let found = history.windows(marker.len()).rposition(|window| window == marker);
            let prompt_end = found.map_or(0, |start| start + marker.len());
            reply(&history[..prompt_end]).get(history.len() - prompt_end).copied().unwrap_or(end)
        })
    }

    /// Tokens in the vocabulary.
    pub fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// Writes the logits after `history`.
    pub fn logits(&self, history: &[Token], logits: &mut [f32]) {
        logits.fill(0.0);
        (self.logits)(history, logits);
    }
}

/// A 64-bit finaliser (the constants of MurmurHash3's, variant 13 of Stafford): every input bit reaches every output bit.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
