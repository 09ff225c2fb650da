//! Which tokens stay candidates, and with which weight: top-k, typical, top-p, min-p, temperature.
//!
//! A candidate is one `u64`: the complement of the logit, in an encoding whose order is that of numbers, in its high half, the
//! token in its low half. Ascending keys are then descending logits and, among equals, ascending tokens, and selecting or
//! sorting a vocabulary compares plain integers. This matters: 150,000 tokens are looked at for every token of text.

use super::TokenLogprob;
use super::distribution::{Candidate, Distribution};
use super::settings::SamplerSettings;
use crate::token::Token;

/// Buffers that keep their capacity from call to call.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    /// The candidates that are left, best first.
    keys: Vec<u64>,
    /// Typical: distance from the expected surprise, and rank.
    oddity: Vec<(f64, usize)>,
}

/// Runs the chain over a row without NaN and +∞. Leaves `distribution` empty if every logit is −∞.
pub(super) fn run(settings: &SamplerSettings, logits: &[f32], scratch: &mut Scratch, distribution: &mut Distribution) {
    if settings.is_greedy() {
        let best = argmax(logits).map(|token| Candidate { token, probability: 1.0 });
        return distribution.set(best.into_iter());
    }
    let Scratch { keys, oddity } = scratch;
    let mut total = gather(settings, logits, keys);
    if settings.typical_p < 1.0 {
        typical(f64::from(settings.typical_p), total, keys, oddity);
        total = keys_weight(keys);
    }
    if settings.top_p < 1.0 {
        keys.truncate(top_p_len(f64::from(settings.top_p), total, keys));
    }
    if settings.min_p > 0.0 {
        let least = largest(keys) + f64::from(settings.min_p).ln();
        keys.truncate(keys.partition_point(|&key| logit(key) >= least));
    }
    let (max, temperature) = (largest(keys), f64::from(settings.temperature));
    distribution.set(
        keys.iter().map(|&key| Candidate { token: token(key), probability: ((logit(key) - max) / temperature).exp() }),
    );
}

/// Log-softmax of the raw row at temperature 1: of `chosen`, and of the `n_top` most probable tokens.
pub(super) fn logprobs(logits: &[f32], chosen: Token, n_top: usize, scratch: &mut Scratch) -> (f32, Vec<TokenLogprob>) {
    let max = row_max(logits);
    let log_total = row_weight(logits, max).ln();
    #[expect(clippy::cast_possible_truncation, reason = "rounded on purpose")]
    let logprob = |logit: f64| (logit - f64::from(max) - log_total) as f32;
    top_k(logits, n_top, &mut scratch.keys);
    let top = scratch.keys.iter().map(|&key| TokenLogprob { token: token(key), logprob: logprob(logit(key)) });
    (logprob(f64::from(logits[chosen as usize])), top.collect())
}

/// The candidates that top-k leaves, sorted, and the sum of their weights relative to the first.
///
/// Without top-k, tokens that top-p and min-p are certain to drop are left out beforehand, because sorting a whole vocabulary
/// costs milliseconds; the sum is that of all.
fn gather(settings: &SamplerSettings, logits: &[f32], keys: &mut Vec<u64>) -> f64 {
    if (1..logits.len()).contains(&settings.top_k) {
        top_k(logits, settings.top_k, keys);
        return keys_weight(keys);
    }
    let max = row_max(logits);
    // Only they ask for it, and a sum over the vocabulary is the dearest part of the chain.
    let summed = settings.top_p < 1.0 || settings.typical_p < 1.0;
    let total = if summed { row_weight(logits, max) } else { 0.0 };
    let mut floor = f64::NEG_INFINITY;
    if settings.typical_p >= 1.0 {
        // All tokens below a probability of (1 - top_p) / n together are less than the tail that top-p drops.
        let tail = (1.0 - f64::from(settings.top_p)) / logits.len() as f64 * total;
        floor = f64::from(max) + tail.max(f64::from(settings.min_p)).ln();
    }
    keys.clear();
    let possible = logits.iter().enumerate().filter(|&(_, &l)| l > f32::NEG_INFINITY && f64::from(l) >= floor);
    keys.extend(possible.map(|(token, &logit)| key(token, logit)));
    keys.sort_unstable();
    total
}

/// The `k` best of the possible tokens, sorted.
fn top_k(logits: &[f32], k: usize, keys: &mut Vec<u64>) {
    keys.clear();
    if k == 0 {
        return;
    }
    // Nearly every logit fails one comparison with the worst of the best so far; the rest are thinned out in bulk.
    let room = (2 * k.min(logits.len())).max(64);
    let mut floor = f32::NEG_INFINITY;
    for (token, &value) in logits.iter().enumerate() {
        if value > floor {
            keys.push(key(token, value));
            if keys.len() >= room && keys.len() > k {
                let (_, worst, _) = keys.select_nth_unstable(k - 1);
                floor = logit_f32(*worst);
                keys.truncate(k);
            }
        }
    }
    keys.sort_unstable();
    keys.truncate(k);
}

/// Keeps the candidates whose surprise is nearest to the entropy, as few as together reach `p`, in their order.
fn typical(p: f64, total: f64, keys: &mut Vec<u64>, oddity: &mut Vec<(f64, usize)>) {
    let max = largest(keys);
    let log_probability = |key: u64| logit(key) - max - total.ln();
    let entropy: f64 = keys.iter().map(|&key| log_probability(key)).map(|l| -l * l.exp()).filter(|h| !h.is_nan()).sum();
    oddity.clear();
    oddity.extend(keys.iter().enumerate().map(|(rank, &key)| ((-log_probability(key) - entropy).abs(), rank)));
    oddity.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut mass = 0.0;
    let reached = oddity.iter().position(|&(_, rank)| {
        mass += log_probability(keys[rank]).exp();
        mass >= p
    });
    oddity.truncate(reached.map_or(oddity.len(), |last| last + 1));
    oddity.sort_unstable_by_key(|&(_, rank)| rank);
    // Ranks ascend, so a place is read before it is written.
    for (place, &(_, rank)) in oddity.iter().enumerate() {
        keys[place] = keys[rank];
    }
    keys.truncate(oddity.len());
}

/// How many of the first candidates are needed to reach the share `p` of `total`, at least one.
fn top_p_len(p: f64, total: f64, keys: &[u64]) -> usize {
    let max = largest(keys);
    let mut mass = 0.0;
    let reached = keys.iter().position(|&key| {
        mass += (logit(key) - max).exp();
        mass >= p * total
    });
    reached.map_or(keys.len(), |last| last + 1)
}

/// The largest logit's token, the lowest of equals; `None` if all are −∞.
fn argmax(logits: &[f32]) -> Option<Token> {
    let max = row_max(logits);
    let possible = max > f32::NEG_INFINITY;
    possible.then(|| logits.iter().position(|&l| l == max)).flatten().and_then(|i| Token::try_from(i).ok())
}

fn row_max(logits: &[f32]) -> f32 {
    let larger = |max: f32, logit: f32| if logit > max { logit } else { max };
    // Independent lanes, or the compiler may not reorder the comparisons and takes one logit at a time.
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = logits.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, logit);
        }
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, larger)
}

/// Σ exp(logit − max) over a row.
fn row_weight(logits: &[f32], max: f32) -> f64 {
    logits.iter().map(|&l| (f64::from(l) - f64::from(max)).exp()).sum()
}

/// Σ exp(logit − largest) over the candidates.
fn keys_weight(keys: &[u64]) -> f64 {
    let max = largest(keys);
    keys.iter().map(|&key| (logit(key) - max).exp()).sum()
}

fn largest(keys: &[u64]) -> f64 {
    keys.first().map_or(f64::NEG_INFINITY, |&key| logit(key))
}

const SIGN: u32 = 1 << 31;

fn key(token: usize, logit: f32) -> u64 {
    // -0.0 equals 0.0 and must not be ordered below it.
    let bits = (logit + 0.0).to_bits();
    let ascending = if bits & SIGN == 0 { bits | SIGN } else { !bits };
    u64::from(!ascending) << 32 | token as u64
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
fn token(key: u64) -> Token {
    key as Token
}

fn logit(key: u64) -> f64 {
    f64::from(logit_f32(key))
}

fn logit_f32(key: u64) -> f32 {
    let ascending = !((key >> 32) as u32);
    f32::from_bits(if ascending & SIGN == 0 { !ascending } else { ascending & !SIGN })
}
