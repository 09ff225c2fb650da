//! What changes single logits before any are dropped: bias, repetition/frequency/presence penalties, DRY.
//!
//! Finite logits stay finite, whatever the settings: a penalty can make a token very unlikely, only −∞ makes it impossible.

use super::settings::{DrySettings, SamplerSettings};
use crate::token::Token;

/// Buffers that keep their capacity from call to call.
#[derive(Clone, Debug, Default)]
pub(super) struct Scratch {
    /// The window's tokens, sorted.
    window: Vec<Token>,
    /// Z-function of the reversed history.
    z: Vec<usize>,
    /// Token and the longest repetition it would prolong.
    repeats: Vec<(Token, usize)>,
}

/// Applies bias and penalties to `logits` in place.
pub(super) fn apply(settings: &SamplerSettings, history: &[Token], scratch: &mut Scratch, logits: &mut [f32]) {
    for &(token, bias) in &settings.logit_bias {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = if bias < -1e30 { f32::NEG_INFINITY } else { finite(*logit, *logit + bias) };
        }
    }
    let penalised =
        settings.repetition_penalty != 1.0 || settings.frequency_penalty != 0.0 || settings.presence_penalty != 0.0;
    if penalised {
        penalise(settings, last(history, settings.penalty_window), &mut scratch.window, logits);
    }
    if settings.dry.multiplier > 0.0 {
        dry(&settings.dry, last(history, settings.dry.window), scratch, logits);
    }
}

/// The last `window` tokens.
fn last(history: &[Token], window: Option<usize>) -> &[Token] {
    &history[history.len() - window.map_or(history.len(), |w| w.min(history.len()))..]
}

/// `changed`, kept finite; what was impossible stays impossible.
fn finite(before: f32, changed: f32) -> f32 {
    if before == f32::NEG_INFINITY { before } else { changed.clamp(f32::MIN, f32::MAX) }
}

fn penalise(settings: &SamplerSettings, history: &[Token], window: &mut Vec<Token>, logits: &mut [f32]) {
    window.clear();
    window.extend_from_slice(history);
    window.sort_unstable();
    for occurrences in window.chunk_by(|a, b| a == b) {
        let Some(logit) = logits.get_mut(occurrences[0] as usize) else { continue };
        let scaled =
            if *logit > 0.0 { *logit / settings.repetition_penalty } else { *logit * settings.repetition_penalty };
        let count = occurrences.len() as f32;
        let changed = scaled.clamp(f32::MIN, f32::MAX)
            - (count * settings.frequency_penalty).clamp(f32::MIN, f32::MAX)
            - settings.presence_penalty;
        *logit = finite(*logit, changed);
    }
}

/// For each earlier place whose last tokens equal the end of the history, the token that followed there would prolong a
/// repetition of as many tokens as are equal.
fn dry(settings: &DrySettings, history: &[Token], scratch: &mut Scratch, logits: &mut [f32]) {
    let limit = unbroken(history, &settings.sequence_breakers);
    if limit < settings.allowed_length {
        return;
    }
    z_function(history, &mut scratch.z);
    scratch.repeats.clear();
    for distance in 1..history.len() {
        let length = scratch.z[distance].min(limit);
        if length >= settings.allowed_length {
            scratch.repeats.push((history[history.len() - distance], length));
        }
    }
    // The longest repetition of a token comes last of its own, and is the one that counts.
    scratch.repeats.sort_unstable();
    for same in scratch.repeats.chunk_by(|a, b| a.0 == b.0) {
        let (token, length) = same[same.len() - 1];
        let Some(logit) = logits.get_mut(token as usize) else { continue };
        let excess = i32::try_from(length - settings.allowed_length).unwrap_or(i32::MAX);
        let penalty = settings.multiplier * settings.base.powi(excess);
        *logit = finite(*logit, *logit - penalty.min(f32::MAX));
    }
}

/// Tokens at the end of the history that no sequence breaker touches.
fn unbroken(history: &[Token], breakers: &[Vec<Token>]) -> usize {
    (0..=history.len())
        .find(|&n| breakers.iter().any(|b| history[..history.len() - n].ends_with(b)))
        .unwrap_or(history.len())
}

/// `z[d]`: how many of the last tokens equal those that end `d` tokens earlier. Linear time (Gusfield, Algorithms on Strings,
/// section 1.4, on the reversed history).
fn z_function(history: &[Token], z: &mut Vec<usize>) {
    let n = history.len();
    let reversed = |i: usize| history[n - 1 - i];
    z.clear();
    z.resize(n, 0);
    let (mut left, mut right) = (0, 0);
    for i in 1..n {
        let mut length = if i < right { z[i - left].min(right - i) } else { 0 };
        while i + length < n && reversed(length) == reversed(i + length) {
            length += 1;
        }
        if i + length > right {
            (left, right) = (i, i + length);
        }
        z[i] = length;
    }
}
