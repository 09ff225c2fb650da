//! Options that several commands share. What is not given is left to the engine's defaults.

use clap::{Args, ValueEnum};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Which model, and how it runs.
#[derive(Args)]
pub(crate) struct ModelArgs {
    /// GGUF file; of a split model, its first file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// Context length in tokens [default: what the model was trained for, at most 4096]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) ctx: Option<NonZeroUsize>,
    /// CPU threads [default: the performance cores]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// What runs the model [default: staged where it knows the architecture, else llama.cpp]
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) executor: Option<ExecutorChoice>,
}

/// The executors by the names users type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExecutorChoice {
    /// Fulcrum's own, layer by layer
    Staged,
    /// llama.cpp's context
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

/// How text is drawn from the model, and when it ends.
#[derive(Args)]
pub(crate) struct SamplingArgs {
    /// Tokens to generate at most
    #[arg(short = 'n', long = "max-tokens", value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
    /// Temperature; 0 always takes the likeliest token
    #[arg(long, value_name = "T", value_parser = not_negative)]
    pub(crate) temp: Option<f32>,
    /// Sample among the K likeliest tokens only; 0 for all
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
    /// Sample among the likeliest tokens that together have probability P
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(crate) top_p: Option<f32>,
    /// Sample among tokens at least P times as likely as the likeliest
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(crate) min_p: Option<f32>,
    /// The same seed gives the same text
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// End before this text appears; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) stop: Vec<String>,
}

fn number(text: &str) -> Result<f32, String> {
    text.parse::<f32>().ok().filter(|value| value.is_finite()).ok_or_else(|| "not a number".to_owned())
}

fn not_negative(text: &str) -> Result<f32, String> {
    let value = number(text)?;
    if value >= 0.0 { Ok(value) } else { Err("must not be negative".to_owned()) }
}

fn probability(text: &str) -> Result<f32, String> {
    let value = number(text)?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("must be between 0 and 1".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_ranges() {
        assert_eq!(not_negative("0.7"), Ok(0.7));
        assert!(not_negative("-1").is_err());
        assert!(not_negative("inf").is_err());
        assert!(not_negative("warm").is_err());
        assert_eq!(probability("1"), Ok(1.0));
        assert!(probability("1.01").is_err());
        assert!(probability("NaN").is_err());
    }

    #[test]
    fn executors_have_the_names_users_type() {
        let names: Vec<_> =
            ExecutorChoice::value_variants().iter().filter_map(|v| Some(v.to_possible_value()?.get_name().to_owned())).collect();
        assert_eq!(names, ["staged", "llama.cpp"]);
    }
}
