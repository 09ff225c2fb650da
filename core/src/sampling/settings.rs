//! What a caller may ask of the sampler, checked before anything is loaded or run.

use serde::{Deserialize, Serialize, Serializer};

use crate::error::{ErrorKind, Result};
use crate::token::Token;
use crate::tokenizer::{Encoding, Vocabulary};

/// How the next token is chosen.
///
/// The default is greedy: a temperature of 0, so the same prompt always gives the same answer, and drafts are accepted most
/// often. Raising only `temperature` gives llama.cpp's default chain (`top_k` 40, `top_p` 0.95, `min_p` 0.05).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplerSettings {
    /// Divides the logits: below 1 sharper, above 1 flatter. 0 is greedy: the largest logit after bias and penalties, the lowest
    /// token of equals. Finite, not negative.
    pub temperature: f32,
    /// Keeps the `top_k` largest logits. 0: all.
    pub top_k: usize,
    /// Keeps the fewest most probable tokens that together have at least this probability. 0 to 1; 1: all.
    pub top_p: f32,
    /// Drops tokens less probable than this share of the most probable one's probability. 0 to 1; 0: none.
    pub min_p: f32,
    /// Keeps the tokens whose surprise is nearest to the expected one, together at least this probable (Meister et al. 2022,
    /// Locally typical sampling). 0 to 1; 1: all.
    pub typical_p: f32,
    /// Tokens of the history that the three penalties look back on. `None`: all of it.
    pub penalty_window: Option<usize>,
    /// Divides the positive and multiplies the negative logits of tokens in the window (Keskar et al. 2019, CTRL). 1: off.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit once per occurrence in the window. Negative values encourage. 0: off.
    pub frequency_penalty: f32,
    /// Subtracted from a token's logit if it is in the window at all. Negative values encourage. 0: off.
    pub presence_penalty: f32,
    /// "Don't repeat yourself": against going on with a sequence that was there before.
    pub dry: DrySettings,
    /// Added to the logits of tokens, before everything else. −∞ forbids a token, and so does anything below −1e30, which is what
    /// −∞ becomes in JSON.
    #[serde(serialize_with = "finite")]
    pub logit_bias: Vec<(Token, f32)>,
    /// The same seed gives the same text, whatever is drafted. `None`: the sampler draws one and tells it.
    pub seed: Option<u64>,
    /// `Some(n)`: report the log-probability of the chosen token and of the `n` most probable ones, under the raw model at
    /// temperature 1, before the chain.
    pub logprobs: Option<usize>,
}

/// Settings of DRY (p-e-w, text-generation-webui, pull request 5677): a token that would prolong a repetition of `n` tokens loses
/// `multiplier * base ^ (n - allowed_length)` of its logit, for `n` from `allowed_length` on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DrySettings {
    /// Strength. 0: off.
    pub multiplier: f32,
    /// Growth per repeated token, at least 1.
    pub base: f32,
    /// Repetitions shorter than this are free, at least 1.
    pub allowed_length: usize,
    /// Tokens of the history looked back on. `None`: all of it.
    pub window: Option<usize>,
    /// Token sequences across which nothing counts as a repetition; [`sequence_breakers`] makes them from text.
    pub sequence_breakers: Vec<Vec<Token>>,
}

impl Default for SamplerSettings {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            penalty_window: Some(64),
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            dry: DrySettings::default(),
            logit_bias: Vec::new(),
            seed: None,
            logprobs: None,
        }
    }
}

impl Default for DrySettings {
    fn default() -> Self {
        Self { multiplier: 0.0, base: 1.75, allowed_length: 2, window: None, sequence_breakers: Vec::new() }
    }
}

impl SamplerSettings {
    /// Whether the answer follows from the logits alone, without a draw.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// Checks every value.
    ///
    /// Fails with `InvalidOption`, naming the first that cannot be used.
    pub fn validate(&self, n_vocab: usize) -> Result<()> {
        check("temperature", self.temperature, "0 or more", |v| v >= 0.0)?;
        check("top_p", self.top_p, "from 0 to 1", |v| (0.0..=1.0).contains(&v))?;
        check("min_p", self.min_p, "from 0 to 1", |v| (0.0..=1.0).contains(&v))?;
        check("typical_p", self.typical_p, "from 0 to 1", |v| (0.0..=1.0).contains(&v))?;
        check("repetition_penalty", self.repetition_penalty, "above 0", |v| v > 0.0)?;
        check("frequency_penalty", self.frequency_penalty, "finite", |_| true)?;
        check("presence_penalty", self.presence_penalty, "finite", |_| true)?;
        check("dry.multiplier", self.dry.multiplier, "0 or more", |v| v >= 0.0)?;
        check("dry.base", self.dry.base, "1 or more", |v| v >= 1.0)?;
        if self.dry.allowed_length == 0 {
            return Err(invalid("dry.allowed_length", "0 must be 1 or more".to_owned()));
        }
        if self.dry.sequence_breakers.iter().any(Vec::is_empty) {
            return Err(invalid("dry.sequence_breakers", "a sequence breaker has no tokens".to_owned()));
        }
        for &(token, bias) in &self.logit_bias {
            if token as usize >= n_vocab {
                return Err(invalid(
                    "logit_bias",
                    format!("token {token} is not below the vocabulary's size of {n_vocab}"),
                ));
            }
            if bias.is_nan() || bias == f32::INFINITY {
                return Err(invalid("logit_bias", format!("{bias} for token {token} must be finite or -inf")));
            }
        }
        Ok(())
    }

    /// Whether the chain begins with anything but the model's own logits.
    pub(super) fn changes_logits(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.frequency_penalty != 0.0
            || self.presence_penalty != 0.0
            || self.dry.multiplier > 0.0
            || !self.logit_bias.is_empty()
    }
}

/// JSON has no infinity, and `null` could not be read back.
fn finite<S: Serializer>(bias: &[(Token, f32)], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(bias.iter().map(|&(token, bias)| (token, bias.max(f32::MIN))))
}

fn check(option: &'static str, value: f32, wanted: &str, holds: impl Fn(f32) -> bool) -> Result<()> {
    if value.is_finite() && holds(value) {
        return Ok(());
    }
    Err(invalid(option, format!("{value} must be {wanted}")))
}

fn invalid(option: &'static str, reason: String) -> crate::error::Error {
    ErrorKind::InvalidOption { option, reason }.into()
}

/// Sequence breakers for [`DrySettings`] from text, for example `["\n", ":", "\"", "*"]` (llama.cpp's defaults).
///
/// A breaker is often only a part of a token (`":\n\n"`), so every token that contains the text is one, and so is the text as the
/// tokenizer cuts it. Looks at every token once: milliseconds.
///
/// Fails as [`Vocabulary::encode`] does.
pub fn sequence_breakers(vocabulary: &dyn Vocabulary, texts: &[&str]) -> Result<Vec<Vec<Token>>> {
    let mut breakers: Vec<Vec<Token>> = Vec::new();
    for text in texts {
        let tokens = vocabulary.encode(text, Encoding { add_bos: false, parse_special: false })?;
        if tokens.len() > 1 {
            breakers.push(tokens);
        }
    }
    let mut bytes = Vec::new();
    for token in 0..Token::try_from(vocabulary.n_tokens()).unwrap_or(Token::MAX) {
        bytes.clear();
        vocabulary.decode_token(token, false, &mut bytes);
        let contains = |text: &&str| !text.is_empty() && bytes.windows(text.len()).any(|w| w == text.as_bytes());
        if texts.iter().any(contains) {
            breakers.push(vec![token]);
        }
    }
    Ok(breakers)
}
