//! `fulcrum bench`: the staged executor beside llama.cpp's context, on the same file, with the same threads, in one process; with
//! workloads, ways of drafting beside both (`drafting`).

mod bandwidth;
mod drafting;
mod measure;
mod mode;
mod race;
mod workload;

use crate::failure::{Failure, Result};
use crate::loading::{self, Loaded};
use crate::options::{ModelPath, count};
use crate::output;
use fulcrum::model::{ExecutorChoice, Kernels, ModelOptions};
use fulcrum::{ErrorKind, KvType, MemoryBudget};
use indicatif::ProgressBar;
use measure::{Contestant, Figures, Load, measure};
use mode::Mode;
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// Measure the executors against each other: prefill and decode, medians of interleaved rounds. With --workload, measure ways of
/// drafting against plain decoding and llama.cpp
#[derive(clap::Args)]
pub(crate) struct Bench {
    #[command(flatten)]
    model: ModelPath,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value = "512", value_parser = count)]
    prefill: NonZeroUsize,
    /// Tokens decoded one by one after it
    #[arg(long, value_name = "N", default_value = "64", value_parser = count)]
    decode: NonZeroUsize,
    /// Rounds that count
    #[arg(long, value_name = "N", default_value = "5", value_parser = count)]
    rounds: NonZeroUsize,
    /// Files of prompts, a JSON object with `messages` per line: answer them in all --modes
    #[arg(long, value_name = "FILE", num_args = 1..)]
    workload: Vec<PathBuf>,
    /// GGUF file of the draft model
    #[arg(short, long, value_name = "FILE", requires = "workload")]
    draft: Option<PathBuf>,
    /// Ways to decode, of off, auto, context, chain:N and llama (llama.cpp's own context, plainly)
    #[arg(
        long,
        value_name = "MODE,...",
        value_delimiter = ',',
        requires = "workload",
        default_value = "off,auto,context,chain:2,chain:4,chain:8,chain:16,llama"
    )]
    modes: Vec<Mode>,
    /// Prompts of each file [default: all]
    #[arg(long, value_name = "N", requires = "workload", value_parser = count)]
    limit: Option<NonZeroUsize>,
    /// Tokens of an answer at most
    #[arg(short = 'n', long, value_name = "N", requires = "workload", default_value = "128", value_parser = count)]
    max_tokens: NonZeroUsize,
    /// Context length in tokens, with --workload [default: what the model was trained for, at most 4096]
    #[arg(long, value_name = "TOKENS", requires = "workload", value_parser = count)]
    ctx: Option<NonZeroUsize>,
    /// How keys and values are cached: f16 or q8_0 [default: f16]
    #[arg(long, value_name = "TYPE")]
    kv_type: Option<KvType>,
    /// Whose kernels multiply in the staged executor: auto, own or ggml [default: auto]
    #[arg(long, value_name = "NAME")]
    kernels: Option<Kernels>,
    /// CPU threads [default: the performance cores]
    #[arg(long, value_name = "N", value_parser = count)]
    threads: Option<NonZeroUsize>,
    /// Memory that the staged executor may take: bytes (600M, 1.5G) or a share of what is free (40%) [default: unlimited]
    #[arg(long, value_name = "SIZE")]
    memory_budget: Option<MemoryBudget>,
    /// Load also a model of an architecture that only llama.cpp knows; on some damaged files of these the program ends at once
    #[arg(long)]
    unchecked_architecture: bool,
    /// Begin at once: no answer that does not count, no measurement of reading memory, which would take a lot of it
    #[arg(long, requires = "workload")]
    cold: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    model: PathBuf,
    prefill_tokens: usize,
    decode_tokens: usize,
    rounds: usize,
    rows: Vec<BenchRow>,
}

/// One executor's line. Ratios are to llama.cpp, above 1 where this one is faster; none where llama.cpp did not run.
#[derive(Debug, PartialEq, Serialize)]
struct BenchRow {
    name: &'static str,
    prefill_tokens_per_s: f64,
    decode_tokens_per_s: f64,
    /// Of decode.
    ratio: Option<f64>,
    prefill_ratio: Option<f64>,
}

/// The name of the row that ratios refer to.
const BASELINE: &str = "llama.cpp";

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        if !self.workload.is_empty() {
            return drafting::run(&self);
        }
        let load = Load { prefill: self.prefill.into(), decode: self.decode.into(), rounds: self.rounds.into() };
        let mut contestants = self.contestants(load)?;
        let bar = ProgressBar::new(self.rounds.get() as u64 + 1);
        let bar = if io::stderr().is_terminal() { bar } else { ProgressBar::hidden() };
        let figures = measure(&mut contestants, load, |round| bar.set_position(round as u64 + 1));
        bar.finish_and_clear();
        let report = Report {
            model: self.model.path().to_owned(),
            prefill_tokens: load.prefill,
            decode_tokens: load.decode,
            rounds: load.rounds,
            rows: rows(&figures?, load),
        };
        let mut out = io::stdout().lock();
        if self.json { output::write_json(&mut out, &report) } else { output::write(&mut out, &table(&report.rows)) }
    }

    /// The file, loaded once per executor. Where the staged one does not know the architecture, llama.cpp runs alone.
    fn contestants(&self, load: Load) -> Result<Vec<Contestant>> {
        let n_cells = load.prefill.saturating_add(load.decode);
        let mut contestants = Vec::new();
        for choice in [ExecutorChoice::Staged, ExecutorChoice::LlamaCpp] {
            let options = ModelOptions {
                context_length: Some(n_cells),
                threads: self.threads.map(Into::into),
                kv_type: self.kv_type.unwrap_or_default(),
                executor: choice,
                unchecked_architecture: self.unchecked_architecture,
                memory_budget: match choice {
                    ExecutorChoice::LlamaCpp => MemoryBudget::Unlimited,
                    _ => self.memory_budget.unwrap_or_default(),
                },
                kernels: if choice == ExecutorChoice::Staged {
                    self.kernels.unwrap_or_default()
                } else {
                    Kernels::Auto
                },
                ..ModelOptions::default()
            };
            match loading::load(self.model.path(), options) {
                Ok(Loaded { model, .. }) => {
                    contestants.push(Contestant { name: choice.name(), executor: model.weights().executor(n_cells)? });
                }
                Err(Failure::Engine(error))
                    if choice == ExecutorChoice::Staged
                        && matches!(error.kind(), ErrorKind::UnsupportedModel { .. }) =>
                {
                    log::warn!("{error}");
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(contestants)
    }
}

fn rows(figures: &[Figures], load: Load) -> Vec<BenchRow> {
    let baseline = figures.iter().find(|f| f.name == BASELINE);
    let ratio = |mine: Duration, theirs: fn(&Figures) -> Duration| {
        baseline.map(|baseline| theirs(baseline).as_secs_f64() / mine.as_secs_f64())
    };
    let row = |figures: &Figures| BenchRow {
        name: figures.name,
        prefill_tokens_per_s: load.prefill as f64 / figures.prefill.as_secs_f64(),
        decode_tokens_per_s: load.decode as f64 / figures.decode.as_secs_f64(),
        ratio: ratio(figures.decode, |f| f.decode),
        prefill_ratio: ratio(figures.prefill, |f| f.prefill),
    };
    figures.iter().map(row).collect()
}

fn table(rows: &[BenchRow]) -> String {
    let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}"));
    let mut text = format!("{:<12} {:>15} {:>7} {:>15} {:>7}\n", "", "prefill tok/s", "ratio", "decode tok/s", "ratio");
    for row in rows {
        text.push_str(&format!(
            "{:<12} {:>15.1} {:>7} {:>15.1} {:>7}\n",
            row.name,
            row.prefill_tokens_per_s,
            ratio(row.prefill_ratio),
            row.decode_tokens_per_s,
            ratio(row.ratio)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(name: &'static str, prefill_ms: u64, decode_ms: u64) -> Figures {
        Figures { name, prefill: Duration::from_millis(prefill_ms), decode: Duration::from_millis(decode_ms) }
    }

    const LOAD: Load = Load { prefill: 512, decode: 64, rounds: 5 };

    #[test]
    fn ratios_are_to_llama_cpp_and_above_one_when_faster() {
        let rows = rows(&[figures("staged", 500, 1000), figures("llama.cpp", 1000, 1500)], LOAD);
        assert_eq!(rows[0].prefill_tokens_per_s, 1024.0);
        assert_eq!(rows[0].decode_tokens_per_s, 64.0);
        assert_eq!((rows[0].ratio, rows[0].prefill_ratio), (Some(1.5), Some(2.0)));
        assert_eq!(rows[1].ratio, Some(1.0));
    }

    #[test]
    fn without_llama_cpp_there_is_no_ratio() {
        let rows = rows(&[figures("staged", 500, 1000)], LOAD);
        assert_eq!(rows[0].ratio, None);
        assert!(table(&rows).lines().count() == 2);
    }

    #[test]
    fn the_json_has_the_documented_fields() {
        let rows = rows(&[figures("staged", 500, 1000), figures("llama.cpp", 1000, 1500)], LOAD);
        let value = serde_json::to_value(&rows[0]).unwrap();
        for field in ["name", "prefill_tokens_per_s", "decode_tokens_per_s", "ratio"] {
            assert!(value.get(field).is_some(), "{field}");
        }
    }
}
