//! What claims are worth before anything was learnt: about what such claims were worth over the pocket models' workloads, so that a
//! first answer is drafted as if others had come before.
//!
//! The bins are those by which each drafter makes its claims.

use crate::tree::{Claim, Source};

/// `major` of text candidates from a shorter suffix than the longest, which has spoken against them: no length has it.
pub(crate) const SHORTER: u8 = 11;

/// What a claim is worth while nothing is known of its source, in [0, 1].
pub(super) fn prior(claim: Claim) -> f64 {
    match claim.source {
        Source::Context => of_text(claim),
        Source::Aligned => of_aligned(claim),
        Source::Recycle => of_recycled(claim),
        Source::Reuse => of_reused(claim),
        Source::Model => of_model(claim),
    }
}

/// What a claim about the text is worth at first. The more surely the longer the match and the more often it went on so.
fn of_text(claim: Claim) -> f64 {
    /// By share of all occurrences; the last three are of those that always went on so: once, up to three times, more often.
    const SHORTER_BY_SHARE: [f64; 8] = [0.02, 0.02, 0.08, 0.15, 0.1, 0.1, 0.5, 0.5];
    const BY_SHARE: [f64; 5] = [0.1, 0.2, 0.35, 0.5, 0.6];
    /// How often text that always went on so does not, behind a match of one token; and what each longer length leaves of that.
    const DOUBTS: [f64; 3] = [0.7, 0.5, 0.4];
    const DOUBT_LEFT: f64 = 0.77;
    match claim.minor.checked_sub(5) {
        _ if claim.major == SHORTER => of_bin(&SHORTER_BY_SHARE, claim.minor),
        None => of_bin(&BY_SHARE, claim.minor),
        Some(times) => 1.0 - of_bin(&DOUBTS, times) * DOUBT_LEFT.powi(i32::from(claim.major)),
    }
}

/// What a claim about the target's word at the matched position is worth at first: its weight there, more of it the longer the match.
fn of_aligned(claim: Claim) -> f64 {
    const BY_WEIGHT: [f64; 8] = [0.02, 0.05, 0.12, 0.3, 0.5, 0.7, 0.85, 0.95];
    of_bin(&BY_WEIGHT, claim.minor) * (1.0 - 0.5 * 0.7f64.powi(i32::from(claim.major)))
}

/// What a claim is worth at first, by rank and remembered weight.
fn of_recycled(claim: Claim) -> f64 {
    const BEST: [f64; 8] = [0.1, 0.1, 0.15, 0.2, 0.4, 0.4, 0.5, 0.5];
    const OTHERS: [f64; 3] = [0.02, 0.05, 0.1];
    of_bin(if claim.major == 0 { &BEST } else { &OTHERS }, claim.minor)
}

/// What a claim is worth at first, by how the rest lines up: at the root, and farther on, where it has been hit once more.
fn of_reused(claim: Claim) -> f64 {
    const BY_ALIGNMENT: [f64; 8] = [0.4, 0.2, 0.03, 0.6, 0.6, 0.85, 0.65, 0.9];
    of_bin(&BY_ALIGNMENT, claim.major)
}

/// What a claim is worth at first: a little less than its weight, since a draft model is surer of itself than it is right.
fn of_model(claim: Claim) -> f64 {
    const BY_WEIGHT: [f64; 14] = [0.01, 0.04, 0.08, 0.14, 0.2, 0.3, 0.4, 0.5, 0.62, 0.72, 0.82, 0.94, 0.97, 0.99];
    of_bin(&BY_WEIGHT, claim.major)
}

/// The figure of `table` for a bin; beyond its end the last.
fn of_bin(table: &[f64], bin: u8) -> f64 {
    table.get(bin as usize).or(table.last()).copied().unwrap_or_default()
}
