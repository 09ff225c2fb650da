//! Options that several commands share. What is not given is left to the engine's defaults.

use clap::{Args, ValueEnum};
use fulcrum::Drafting;
use fulcrum::model::{ExecutorChoice, Kernels, ModelOptions};
use fulcrum::sampling::SamplerSettings;
use fulcrum::session::GenerationOptions;
use fulcrum::{KvType, MemoryBudget};
use serde_json::Value;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// Which model: named with `-m`, or alone.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ModelPath {
    /// GGUF file; of a split model, its first file
    #[arg(value_name = "MODEL")]
    alone: Option<PathBuf>,
    /// The same, by name
    #[arg(short = 'm', long = "model", value_name = "FILE")]
    named: Option<PathBuf>,
}

impl ModelPath {
    /// The file.
    pub(crate) fn path(&self) -> &Path {
        // The group has exactly one; an empty path is one that cannot be opened.
        self.named.as_deref().or(self.alone.as_deref()).unwrap_or(Path::new(""))
    }
}

/// Which model, and how it runs.
#[derive(Args)]
pub(crate) struct ModelArgs {
    #[command(flatten)]
    model: ModelPath,
    #[command(flatten)]
    loading: Loading,
}

/// How a model runs, whichever it is.
#[derive(Args)]
pub(crate) struct Loading {
    /// Context length in tokens [default: what the model was trained for, at most 4096]
    #[arg(long, value_name = "TOKENS", value_parser = count)]
    ctx: Option<NonZeroUsize>,
    /// How keys and values are cached: f16, or q8_0 for half the memory and slightly different text [default: f16]
    #[arg(long, value_name = "TYPE")]
    kv_type: Option<KvType>,
    /// CPU threads [default: the performance cores]
    #[arg(long, value_name = "N", value_parser = count)]
    threads: Option<NonZeroUsize>,
    /// Memory that the model may take: bytes (600M, 1.5G) or a share of what is free (40%); the rest of the weights is read from
    /// flash on every pass [default: unlimited]
    #[arg(long, value_name = "SIZE")]
    memory_budget: Option<MemoryBudget>,
    /// Folder for the file that layers are streamed from, about as large as the model [default: beside the model]
    #[arg(long, value_name = "FOLDER", requires = "memory_budget")]
    cache_dir: Option<PathBuf>,
    /// What runs the model [default: staged where it knows the architecture, else llama.cpp]
    #[arg(long, value_enum, value_name = "NAME")]
    executor: Option<ExecutorName>,
    /// Load also a model of an architecture that only llama.cpp knows; on some damaged files of these the program ends at once
    #[arg(long)]
    unchecked_architecture: bool,
    /// GGUF file of a smaller model of the same vocabulary that guesses ahead: the same text, sooner
    #[arg(short, long, value_name = "FILE")]
    draft: Option<PathBuf>,
    /// Whose kernels multiply in the staged executor: auto (Fulcrum's for the formats they know), own (only Fulcrum's, or an
    /// error) or ggml [default: auto]
    #[arg(long, value_name = "NAME")]
    kernels: Option<Kernels>,
    /// A tokenizer.json to use instead of the vocabulary in the file
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// What the model's chat template is to read, as JSON, for example enable_thinking=false for Qwen3; may be given several times
    #[arg(long, value_name = "NAME=JSON", value_parser = template_variable)]
    template_variable: Vec<(String, Value)>,
}

/// `NAME=JSON`.
fn template_variable(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("it must be NAME=JSON")?;
    let value = serde_json::from_str(value)
        .map_err(|error| format!("`{value}` is no JSON (texts stand in quotes): {error}"))?;
    Ok((name.to_owned(), value))
}

impl ModelArgs {
    /// The model's file.
    pub(crate) fn path(&self) -> &Path {
        self.model.path()
    }

    /// The engine's settings: its defaults, and what was given.
    pub(crate) fn options(&self) -> ModelOptions {
        self.loading.options()
    }
}

impl Loading {
    /// The engine's settings: its defaults, and what was given.
    pub(crate) fn options(&self) -> ModelOptions {
        ModelOptions {
            context_length: self.ctx.map(Into::into),
            kv_type: self.kv_type.unwrap_or_default(),
            threads: self.threads.map(Into::into),
            memory_budget: self.memory_budget.unwrap_or_default(),
            cache_dir: self.cache_dir.clone(),
            executor: self.executor.map_or(ExecutorChoice::Auto, ExecutorName::choice),
            unchecked_architecture: self.unchecked_architecture,
            draft_model: self.draft.clone(),
            kernels: self.kernels.unwrap_or_default(),
            tokenizer: self.tokenizer.clone(),
            template_variables: self.template_variable.iter().cloned().collect(),
            ..ModelOptions::default()
        }
    }
}

/// The executors by the names users type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExecutorName {
    /// Fulcrum's own, layer by layer
    Staged,
    /// llama.cpp's context
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

impl ExecutorName {
    fn choice(self) -> ExecutorChoice {
        match self {
            Self::Staged => ExecutorChoice::Staged,
            Self::LlamaCpp => ExecutorChoice::LlamaCpp,
        }
    }
}

/// How text is drawn from the model, and when it ends.
#[derive(Args)]
pub(crate) struct SamplingArgs {
    /// Tokens to generate at most [default: as many as the context holds]
    #[arg(short = 'n', long = "max-tokens", value_name = "N", value_parser = count)]
    max_tokens: Option<NonZeroUsize>,
    /// Temperature; 0 always takes the likeliest token, and what follows here changes nothing [default: 0]
    #[arg(long, value_name = "T", value_parser = not_negative)]
    temp: Option<f32>,
    /// Draw among the K likeliest tokens; 0 for all [default: 40]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw among the likeliest tokens that together have probability P [default: 0.95]
    #[arg(long, value_name = "P", value_parser = probability)]
    top_p: Option<f32>,
    /// Draw among tokens at least P times as likely as the likeliest [default: 0.05]
    #[arg(long, value_name = "P", value_parser = probability)]
    min_p: Option<f32>,
    /// The same seed gives the same text [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// End before this text; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// How much to guess ahead; changes speed, never text: auto, off, context (without a draft model) or chain:N (always N
    /// tokens) [default: auto]
    #[arg(long, value_name = "MODE")]
    drafting: Option<Drafting>,
}

impl SamplingArgs {
    /// The engine's settings: its defaults, and what was given.
    pub(crate) fn generation(&self) -> GenerationOptions {
        let default = SamplerSettings::default();
        let sampler = SamplerSettings {
            temperature: self.temp.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            seed: self.seed,
            ..default
        };
        GenerationOptions {
            sampler,
            max_tokens: self.max_tokens.map(Into::into),
            stop: self.stop.clone(),
            drafting: self.drafting.unwrap_or_default(),
        }
    }
}

/// One or more of something.
pub(crate) fn count(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "must be a whole number, at least 1".to_owned())
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
        assert_eq!(count("2"), Ok(NonZeroUsize::MIN.saturating_add(1)));
        assert!(count("0").is_err() && count("-1").is_err() && count("1.5").is_err());
    }

    #[test]
    fn a_template_variable_is_a_name_and_json() {
        assert_eq!(template_variable("enable_thinking=false"), Ok(("enable_thinking".into(), false.into())));
        assert_eq!(template_variable("mood=\"a=b\""), Ok(("mood".into(), "a=b".into())));
        assert!(template_variable("mood=calm").is_err_and(|error| error.contains("`calm` is no JSON")));
        assert!(template_variable("mood").is_err() && template_variable("=1").is_err());
    }

    #[test]
    fn the_help_tells_the_engines_defaults() {
        #[derive(clap::Parser)]
        struct Only {
            #[command(flatten)]
            sampling: SamplingArgs,
        }
        let help = <Only as clap::CommandFactory>::command().render_long_help().to_string();
        let SamplerSettings { temperature, top_k, top_p, min_p, .. } = SamplerSettings::default();
        for default in [temperature.to_string(), top_k.to_string(), top_p.to_string(), min_p.to_string()] {
            assert!(help.contains(&format!("[default: {default}]")), "{default} is not in {help}");
        }
    }

    #[test]
    fn executors_have_the_engines_names() {
        for name in ExecutorName::value_variants() {
            let typed = name.to_possible_value().map(|value| value.get_name().to_owned());
            assert_eq!(typed.as_deref(), Some(name.choice().name()));
        }
    }
}
