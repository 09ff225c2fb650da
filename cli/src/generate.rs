//! `fulcrum generate`: one prompt, one answer.

use crate::failure::{Failure, Result};
use crate::input;
use crate::loading::{Loaded, load};
use crate::options::{ModelArgs, SamplingArgs};
use crate::output;
use crate::profile::ProfileArgs;
use fulcrum::decode::FinishReason;
use fulcrum::metrics::GenerationMetrics;
use fulcrum::session::{Response, SessionOptions};
use fulcrum::{Model, Token};
use serde::Serialize;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

/// Answer one prompt, or continue a text with --raw
#[derive(clap::Args)]
pub(crate) struct Generate {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    profile: ProfileArgs,
    /// Instructions to the model, in front of the prompt
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// Continue the text as it is, without the model's chat template
    #[arg(long)]
    raw: bool,
    /// Print one JSON object: text, tokens, finish_reason, metrics
    #[arg(long)]
    json: bool,
}

/// Where the prompt comes from: one of these, or standard input.
#[derive(clap::Args)]
#[group(multiple = false)]
struct PromptArgs {
    /// The prompt
    #[arg(short, long, value_name = "TEXT")]
    prompt: Option<String>,
    /// File with the prompt
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'a> {
    text: &'a str,
    tokens: &'a [Token],
    finish_reason: FinishReason,
    metrics: Metrics<'a>,
}

#[derive(Serialize)]
struct Metrics<'a> {
    /// Seconds from the beginning of loading until the model can answer.
    load_s: f64,
    #[serde(flatten)]
    generation: &'a GenerationMetrics,
}

impl Generate {
    pub(crate) fn run(self) -> Result<()> {
        let prompt = self.prompt.read()?;
        let Loaded { model, load_s } = load(self.model.path(), self.model.options())?;
        self.profile.begin(&model);
        let answered = self.answer(&prompt, &model, load_s);
        self.profile.end(&model)?;
        answered
    }

    fn answer(&self, prompt: &str, model: &Model, load_s: f64) -> Result<()> {
        let session =
            model.session(SessionOptions { system_prompt: self.system.clone(), ..SessionOptions::default() })?;
        let options = self.sampling.generation();
        let mut stream = if self.raw {
            session.complete(prompt, &options)?
        } else {
            session.stream_response_with(prompt, &options)?
        };
        let mut out = io::stdout().lock();
        if self.json {
            return output::write_json(&mut out, &Answer::new(&stream.finish()?, load_s));
        }
        for piece in &mut stream {
            output::write(&mut out, &piece?)?;
        }
        output::write(&mut out, "\n")
    }
}

impl PromptArgs {
    /// The prompt's text. A file or a pipe usually ends with a line break that is no part of the prompt; one is taken off.
    fn read(&self) -> Result<String> {
        let (from, text) = match (&self.prompt, &self.file) {
            (Some(text), _) => return Ok(text.clone()),
            (None, Some(path)) => (path.clone(), File::open(path).and_then(input::text)),
            (None, None) if io::stdin().is_terminal() => {
                return Err(Failure::Usage("no prompt: give --prompt or --file, or pipe the prompt in".to_owned()));
            }
            (None, None) => ("standard input".into(), input::text(io::stdin().lock())),
        };
        let mut text = text.map_err(|source| Failure::Input { from, source })?;
        text.truncate(without_line_break(&text).len());
        Ok(text)
    }
}

fn without_line_break(text: &str) -> &str {
    text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(text)
}

impl<'a> Answer<'a> {
    fn new(response: &'a Response, load_s: f64) -> Self {
        Self {
            text: &response.text,
            tokens: &response.tokens,
            finish_reason: response.finish_reason,
            metrics: Metrics { load_s, generation: &response.metrics },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_at_the_end_is_no_part_of_a_prompt() {
        assert_eq!(without_line_break("a\n"), "a");
        assert_eq!(without_line_break("a\r\n"), "a");
        assert_eq!(without_line_break("a\n\n"), "a\n");
        assert_eq!(without_line_break("a"), "a");
    }

    #[test]
    fn the_json_has_the_documented_fields() {
        let generation = GenerationMetrics::default();
        let answer = Answer {
            text: "hi",
            tokens: &[1, 2],
            finish_reason: FinishReason::MaxTokens,
            metrics: Metrics { load_s: 0.5, generation: &generation },
        };
        let value = serde_json::to_value(&answer).unwrap();
        assert_eq!(value["text"], "hi");
        assert_eq!(value["tokens"], serde_json::json!([1, 2]));
        assert!(value["finish_reason"].is_string());
        let documented = "load_s prompt_tokens reused_tokens prefill_s ttft_s decode_tokens decode_s decode_tokens_per_s \
                          target_passes drafted accepted accepted_by accepted_length rows_per_pass draft_s draft_model_s verify_s \
                          project_s sample_s batched_passes expected_on_demand_s expected_batched_s predicted_s drafting prefill_flash decode_flash peak_rss_bytes";
        for field in documented.split_whitespace() {
            assert!(value["metrics"].get(field).is_some(), "{field} is not in {value}");
        }
    }
}
