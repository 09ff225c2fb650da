//! Logits to *the target's distribution*, and from there to a token.
//!
//! Whatever drafts, the text is decided here: [`Sampler::distribution`] is a function of the row of logits, the history and the
//! settings alone, and [`Sampler::choose`] of that and `(seed, position)`. So the same seed gives the same text with any
//! drafting, and verification may ask for the distribution at any node of a tree, in any order.
//!
//! The chain is llama.cpp's in its default order (`common/common.h`, `common_params_sampling::samplers`): logit bias,
//! repetition/frequency/presence penalties, DRY, top-k, typical, top-p, min-p, temperature. Its `top_n_sigma` and `xtc` are not
//! built: the first has no users here, the second draws random numbers before the distribution is known.
//!
//! A constraint (grammar, JSON schema) needs no hook: it writes −∞ over the tokens it forbids before the row comes here, and a
//! token at −∞ is impossible from then on.
//!
//! Deliberately not known here: trees, acceptance, text, stop strings, where logits come from.

mod chain;
mod distribution;
mod penalties;
mod settings;
mod uniform;

pub use distribution::{Candidate, Distribution, sample};
pub use settings::{DrySettings, SamplerSettings, sequence_breakers};
pub use uniform::uniform;

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::error::{ErrorKind, Result};
use crate::token::Token;

/// A token and the natural logarithm of its probability under the raw model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: Token,
    /// Log-softmax of the row of logits at temperature 1, before anything of the chain.
    pub logprob: f32,
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The token.
    pub token: Token,
    /// Its log-probability under the raw model (log-softmax at temperature 1, before the chain), if
    /// [`SamplerSettings::logprobs`] asks for it.
    pub logprob: Option<f32>,
    /// The raw model's most probable tokens, descending, ties to the lower token; as many as asked for. The chosen token is
    /// among them or not.
    pub top: Vec<TokenLogprob>,
}

/// Gives the target's distribution, and chooses from it. Holds buffers and no state that changes an answer: rolling a turn back
/// needs nothing here.
#[derive(Clone, Debug)]
pub struct Sampler {
    settings: SamplerSettings,
    seed: u64,
    n_vocab: usize,
    /// The row after bias and penalties, where there are any.
    logits: Vec<f32>,
    penalties: penalties::Scratch,
    chain: chain::Scratch,
    distribution: Distribution,
}

impl Sampler {
    /// A sampler for rows of `n_vocab` logits. Without a seed in `settings` it draws one, which [`seed`](Self::seed) tells.
    ///
    /// Fails with `InvalidOption` for a value that cannot be used, also for tokens that are not in the vocabulary.
    pub fn new(settings: &SamplerSettings, n_vocab: usize) -> Result<Self> {
        settings.validate(n_vocab)?;
        Ok(Self {
            settings: settings.clone(),
            seed: settings.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish()),
            n_vocab,
            logits: Vec::new(),
            penalties: penalties::Scratch::default(),
            chain: chain::Scratch::default(),
            distribution: Distribution::default(),
        })
    }

    /// The seed in use: the same one with the same settings gives the same text.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The settings in use.
    pub fn settings(&self) -> &SamplerSettings {
        &self.settings
    }

    /// The target's distribution of the token that follows `history` (prompt and output, from the beginning), given the row of
    /// `logits`, `[n_vocab]`. Allocates nothing once its buffers have grown.
    ///
    /// −∞ means impossible. Fails with `Backend` if a logit is NaN or +∞ (a broken file or kernel: nothing sensible could be
    /// said from here on) or if every token is impossible, and with `Misuse` if the row has not `n_vocab` logits.
    pub fn distribution(&mut self, logits: &[f32], history: &[Token]) -> Result<&Distribution> {
        self.check(logits)?;
        let logits = if self.settings.changes_logits() {
            self.logits.clear();
            self.logits.extend_from_slice(logits);
            penalties::apply(&self.settings, history, &mut self.penalties, &mut self.logits);
            &self.logits
        } else {
            logits
        };
        chain::run(&self.settings, logits, &mut self.chain, &mut self.distribution);
        if self.distribution.candidates().is_empty() {
            return Err(backend("every token is forbidden (all logits are -inf)".to_owned()));
        }
        Ok(&self.distribution)
    }

    /// Chooses the token at `position` of the sequence: the target's distribution, and a draw keyed by `(seed, position)`.
    ///
    /// Fails as [`distribution`](Self::distribution) does.
    pub fn choose(&mut self, logits: &[f32], history: &[Token], position: usize) -> Result<Choice> {
        let draw = uniform(self.seed, position as u64);
        let token = sample(self.distribution(logits, history)?, draw);
        let Some(n_top) = self.settings.logprobs else {
            return Ok(Choice { token, logprob: None, top: Vec::new() });
        };
        let (logprob, top) = chain::logprobs(logits, token, n_top, &mut self.chain);
        Ok(Choice { token, logprob: Some(logprob), top })
    }

    fn check(&self, logits: &[f32]) -> Result<()> {
        if logits.len() != self.n_vocab {
            let reason = format!("a row of {} logits for a vocabulary of {}", logits.len(), self.n_vocab);
            return Err(ErrorKind::Misuse { operation: "Sampler::distribution", reason }.into());
        }
        // One branch-free pass: NaN and +inf are the only values that are not below infinity.
        if logits.iter().fold(true, |sound, &l| sound & (l < f32::INFINITY)) {
            return Ok(());
        }
        let token = logits.iter().position(|&l| l.is_nan() || l == f32::INFINITY).unwrap_or_default();
        Err(backend(format!(
            "the logit of token {token} is {}: the model file is damaged or a kernel is broken",
            logits[token]
        )))
    }
}

fn backend(reason: String) -> crate::error::Error {
    ErrorKind::Backend { operation: "sampling", reason }.into()
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the tests' numbers are small")]
mod tests;
