//! What an app may ask of one answer.

use fulcrum::sampling::DrySettings as CoreDry;

use crate::error::Result;
use crate::number::{count, optional};

/// Settings of one answer. What is left out is the core's default.
#[derive(Clone, Debug, Default, PartialEq, uniffi::Record)]
pub struct GenerationOptions {
    /// How tokens are chosen; log-probabilities are asked for here too.
    #[uniffi(default)]
    pub sampler: SamplerSettings,
    /// Tokens an answer may have, at least 1. By default as many as the context holds.
    #[uniffi(default)]
    pub max_tokens: Option<i32>,
    /// Strings that end the answer. They are never shown and no part of it.
    #[uniffi(default)]
    pub stop: Vec<String>,
    /// How much to speculate. It changes how fast the answer comes and nothing else, but for a `Chain` on kernels that are not ours. By
    /// default `Auto`.
    #[uniffi(default)]
    pub drafting: Option<Drafting>,
}

/// How the next token is chosen. By default greedily: the same prompt always gives the same answer.
#[derive(Clone, Debug, Default, PartialEq, uniffi::Record)]
pub struct SamplerSettings {
    /// Divides the logits: below 1 sharper, above 1 flatter. 0 (default) always takes the likeliest token.
    #[uniffi(default)]
    pub temperature: Option<f32>,
    /// Keeps the `top_k` largest logits. 0: all. By default 40.
    #[uniffi(default)]
    pub top_k: Option<i32>,
    /// Keeps the fewest most probable tokens that together have at least this probability. By default 0.95.
    #[uniffi(default)]
    pub top_p: Option<f32>,
    /// Drops tokens less probable than this share of the most probable one's probability. By default 0.05.
    #[uniffi(default)]
    pub min_p: Option<f32>,
    /// Keeps the tokens whose surprise is nearest to the expected one, together at least this probable. 1 (default): all.
    #[uniffi(default)]
    pub typical_p: Option<f32>,
    /// Tokens of the history that the three penalties look back on. By default 64.
    #[uniffi(default)]
    pub penalty_window: Option<i32>,
    /// Divides the positive and multiplies the negative logits of tokens in the window. 1 (default): off.
    #[uniffi(default)]
    pub repetition_penalty: Option<f32>,
    /// Subtracted from a token's logit once per occurrence in the window. 0 (default): off.
    #[uniffi(default)]
    pub frequency_penalty: Option<f32>,
    /// Subtracted from a token's logit if it is in the window at all. 0 (default): off.
    #[uniffi(default)]
    pub presence_penalty: Option<f32>,
    /// "Don't repeat yourself": against going on with a sequence that was there before. By default off.
    #[uniffi(default)]
    pub dry: Option<DrySettings>,
    /// Added to the logits of tokens, before everything else. −∞ forbids a token.
    #[uniffi(default)]
    pub logit_bias: Vec<LogitBias>,
    /// The same seed gives the same text, whatever is drafted. By default another one each time; the response tells it.
    #[uniffi(default)]
    pub seed: Option<u64>,
    /// Report the log-probability of the chosen token and of so many most probable ones.
    #[uniffi(default)]
    pub logprobs: Option<i32>,
}

/// Settings of DRY: a token that would prolong a repetition of `n` tokens loses `multiplier * base ^ (n - allowed_length)`.
#[derive(Clone, Debug, Default, PartialEq, uniffi::Record)]
pub struct DrySettings {
    /// Strength. 0: off.
    pub multiplier: f32,
    /// Growth per repeated token, at least 1. By default 1.75.
    #[uniffi(default)]
    pub base: Option<f32>,
    /// Repetitions shorter than this are free, at least 1. By default 2.
    #[uniffi(default)]
    pub allowed_length: Option<i32>,
    /// Tokens of the history looked back on. By default all.
    #[uniffi(default)]
    pub window: Option<i32>,
    /// Token sequences across which nothing counts as a repetition.
    #[uniffi(default)]
    pub sequence_breakers: Vec<Vec<i32>>,
}

/// What is added to one token's logit.
#[derive(Clone, Copy, Debug, PartialEq, uniffi::Record)]
pub struct LogitBias {
    /// The token.
    pub token: i32,
    /// Added to its logit.
    pub bias: f32,
}

/// How much to speculate. It changes how fast an answer comes and nothing else, but for a `Chain` on kernels that are not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Drafting {
    /// With every source there is, as far as it pays and the text stays that of plain decoding, bit for bit.
    Auto,
    /// As `Auto`, without the draft model.
    Context,
    /// A chain of up to `n` tokens in every step, whether it pays or not: for measurements.
    Chain {
        /// Tokens drafted.
        n: i32,
    },
    /// Not at all.
    Off,
}

impl TryFrom<GenerationOptions> for fulcrum::GenerationOptions {
    type Error = crate::NativeError;

    fn try_from(options: GenerationOptions) -> Result<Self> {
        Ok(Self {
            sampler: options.sampler.try_into()?,
            max_tokens: optional("max_tokens", options.max_tokens)?,
            stop: options.stop,
            drafting: options.drafting.map(TryInto::try_into).transpose()?.unwrap_or_default(),
        })
    }
}

impl TryFrom<SamplerSettings> for fulcrum::SamplerSettings {
    type Error = crate::NativeError;

    fn try_from(settings: SamplerSettings) -> Result<Self> {
        let default = Self::default();
        let bias = |entry: LogitBias| Ok((count("logit_bias", entry.token)?, entry.bias));
        Ok(Self {
            temperature: settings.temperature.unwrap_or(default.temperature),
            top_k: optional("top_k", settings.top_k)?.unwrap_or(default.top_k),
            top_p: settings.top_p.unwrap_or(default.top_p),
            min_p: settings.min_p.unwrap_or(default.min_p),
            typical_p: settings.typical_p.unwrap_or(default.typical_p),
            penalty_window: optional("penalty_window", settings.penalty_window)?.or(default.penalty_window),
            repetition_penalty: settings.repetition_penalty.unwrap_or(default.repetition_penalty),
            frequency_penalty: settings.frequency_penalty.unwrap_or(default.frequency_penalty),
            presence_penalty: settings.presence_penalty.unwrap_or(default.presence_penalty),
            dry: settings.dry.map_or(Ok(default.dry), TryInto::try_into)?,
            logit_bias: settings.logit_bias.into_iter().map(bias).collect::<Result<_>>()?,
            seed: settings.seed,
            logprobs: optional("logprobs", settings.logprobs)?,
        })
    }
}

impl TryFrom<DrySettings> for CoreDry {
    type Error = crate::NativeError;

    fn try_from(settings: DrySettings) -> Result<Self> {
        let default = Self::default();
        let breaker = |tokens: Vec<i32>| tokens.into_iter().map(|id| count("sequence_breakers", id)).collect();
        Ok(Self {
            multiplier: settings.multiplier,
            base: settings.base.unwrap_or(default.base),
            allowed_length: optional("allowed_length", settings.allowed_length)?.unwrap_or(default.allowed_length),
            window: optional("window", settings.window)?.or(default.window),
            sequence_breakers: settings.sequence_breakers.into_iter().map(breaker).collect::<Result<_>>()?,
        })
    }
}

impl TryFrom<Drafting> for fulcrum::Drafting {
    type Error = crate::NativeError;

    fn try_from(drafting: Drafting) -> Result<Self> {
        match drafting {
            Drafting::Auto => Ok(Self::Auto),
            Drafting::Context => Ok(Self::Context),
            Drafting::Off => Ok(Self::Off),
            // The core reads a chain from its name, and with it the limits of `n`.
            Drafting::Chain { n } => Ok(format!("chain:{n}").parse()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_cores_default() {
        let options = fulcrum::GenerationOptions::try_from(GenerationOptions::default()).unwrap();
        assert_eq!(options, fulcrum::GenerationOptions::default());
    }

    #[test]
    fn every_option_arrives() {
        let given = GenerationOptions {
            sampler: SamplerSettings { seed: Some(u64::MAX), ..Default::default() },
            max_tokens: Some(9),
            stop: vec!["stop".into()],
            drafting: Some(Drafting::Chain { n: 3 }),
        };
        let there = fulcrum::GenerationOptions {
            sampler: fulcrum::SamplerSettings { seed: Some(u64::MAX), ..Default::default() },
            max_tokens: Some(9),
            stop: vec!["stop".into()],
            drafting: fulcrum::Drafting::Chain { n: 3 },
        };
        assert_eq!(fulcrum::GenerationOptions::try_from(given).unwrap(), there);
    }

    #[test]
    fn every_sampler_setting_arrives() {
        let given = SamplerSettings {
            temperature: Some(0.5),
            top_k: Some(7),
            top_p: Some(0.6),
            min_p: Some(0.1),
            typical_p: Some(0.7),
            penalty_window: Some(8),
            repetition_penalty: Some(1.1),
            frequency_penalty: Some(0.2),
            presence_penalty: Some(0.3),
            dry: Some(DrySettings { multiplier: 0.8, ..Default::default() }),
            logit_bias: vec![LogitBias { token: 9, bias: -2.0 }],
            seed: Some(10),
            logprobs: Some(11),
        };
        let there = fulcrum::SamplerSettings {
            temperature: 0.5,
            top_k: 7,
            top_p: 0.6,
            min_p: 0.1,
            typical_p: 0.7,
            penalty_window: Some(8),
            repetition_penalty: 1.1,
            frequency_penalty: 0.2,
            presence_penalty: 0.3,
            dry: CoreDry { multiplier: 0.8, ..Default::default() },
            logit_bias: vec![(9, -2.0)],
            seed: Some(10),
            logprobs: Some(11),
        };
        assert_eq!(fulcrum::SamplerSettings::try_from(given).unwrap(), there);
    }

    #[test]
    fn every_setting_of_dry_arrives() {
        let given = DrySettings {
            multiplier: 0.8,
            base: Some(1.5),
            allowed_length: Some(3),
            window: Some(4),
            sequence_breakers: vec![vec![5, 6], vec![7]],
        };
        let there = CoreDry {
            multiplier: 0.8,
            base: 1.5,
            allowed_length: 3,
            window: Some(4),
            sequence_breakers: vec![vec![5, 6], vec![7]],
        };
        assert_eq!(CoreDry::try_from(given).unwrap(), there);
    }

    #[test]
    fn every_way_to_draft_arrives() {
        use fulcrum::Drafting::{Auto, Chain, Context, Off};
        let given = [Drafting::Auto, Drafting::Context, Drafting::Chain { n: 3 }, Drafting::Off];
        let there = given.map(|drafting| fulcrum::Drafting::try_from(drafting).unwrap());
        assert_eq!(there, [Auto, Context, Chain { n: 3 }, Off]);
    }

    #[test]
    fn a_chain_has_its_limits() {
        for n in [-1, 0, 64] {
            assert!(fulcrum::Drafting::try_from(Drafting::Chain { n }).is_err());
        }
    }
}
