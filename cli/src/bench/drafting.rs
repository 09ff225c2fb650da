//! `fulcrum bench --workload`: ways of drafting beside plain decoding and llama.cpp's, on prompts.

use super::Bench;
use super::bandwidth::read_bandwidth;
use super::mode::Mode;
use super::race::{Contestant, Line, Rules, geometric_mean, race};
use super::workload::Workload;
use crate::failure::{Failure, Result};
use crate::loading;
use crate::output;
use fulcrum::MemoryBudget;
use fulcrum::model::{ExecutorChoice, Kernels, Model, ModelOptions};
use indicatif::ProgressBar;
use serde::Serialize;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    model: PathBuf,
    draft: Option<PathBuf>,
    threads: usize,
    /// Of plain reading, GB/s, before and after; none when begun cold.
    read_gb_per_s: Option<[f64; 2]>,
    prompts: usize,
    /// Tokens of all prompts, in one round.
    prefill_tokens: u64,
    /// Tokens of all answers of the first mode, in one round.
    decode_tokens: u64,
    max_tokens: usize,
    rounds: usize,
    /// The process's largest resident set.
    peak_rss_bytes: Option<u64>,
    /// A line per workload and mode.
    rows: Vec<Line>,
    /// Over the workloads.
    geometric_means: Vec<Means>,
}

/// Geometric means over the workloads of one mode's ratios.
#[derive(Serialize)]
struct Means {
    name: String,
    ratio: Option<f64>,
    ratio_llama: Option<f64>,
    ttft_ratio: Option<f64>,
    total_ratio: Option<f64>,
}

/// Runs all workloads in all modes and prints the figures.
pub(super) fn run(bench: &Bench) -> Result<()> {
    if bench.modes.is_empty() {
        return Err(Failure::Usage("--modes names none".to_owned()));
    }
    let limit = bench.limit.map_or(usize::MAX, Into::into);
    let workloads = bench.workload.iter().map(|path| Workload::read(path, limit)).collect::<Result<Vec<_>>>()?;
    let rules = Rules { max_tokens: bench.max_tokens.into(), rounds: bench.rounds.into() };
    let contestants = contestants(bench)?;
    let threads = bench.threads.map_or_else(ModelOptions::default_threads, Into::into);
    let read = || (!bench.cold).then(|| read_bandwidth(threads));
    let before = read();
    for contestant in contestants.iter().filter(|_| !bench.cold) {
        contestant.warm_up(&workloads[0], rules.max_tokens)?;
    }
    let prompts: usize = workloads.iter().map(|workload| workload.prompts.len()).sum();
    let bar = ProgressBar::new((prompts * rules.rounds) as u64);
    let bar = if io::stderr().is_terminal() { bar } else { ProgressBar::hidden() };
    let mut rows = Vec::new();
    for workload in &workloads {
        rows.append(&mut race(&contestants, workload, &rules, || bar.inc(1))?);
    }
    bar.finish_and_clear();
    let first = |figure: fn(&Line) -> u64| rows.iter().step_by(contestants.len()).map(figure).sum();
    let report = Report {
        prefill_tokens: first(|line| line.prefill_tokens),
        decode_tokens: first(|line| line.decode_tokens),
        model: bench.model.path().to_owned(),
        draft: bench.draft.clone(),
        threads,
        read_gb_per_s: before.zip(read()).map(<[f64; 2]>::from),
        prompts,
        max_tokens: rules.max_tokens,
        rounds: rules.rounds,
        peak_rss_bytes: rows.iter().filter_map(|row| row.peak_rss_bytes).max(),
        geometric_means: contestants.iter().map(|contestant| means(&contestant.mode.to_string(), &rows)).collect(),
        rows,
    };
    let mut out = io::stdout().lock();
    if bench.json { output::write_json(&mut out, &report) } else { output::write(&mut out, &table(&report)) }
}

/// Each mode with a model of its own over weights that are loaded once per executor.
fn contestants(bench: &Bench) -> Result<Vec<Contestant>> {
    let options = ModelOptions {
        context_length: bench.ctx.map(Into::into),
        kv_type: bench.kv_type.unwrap_or_default(),
        threads: bench.threads.map(Into::into),
        kernels: bench.kernels.unwrap_or_default(),
        draft_model: bench.draft.clone(),
        unchecked_architecture: bench.unchecked_architecture,
        memory_budget: bench.memory_budget.unwrap_or_default(),
        ..ModelOptions::default()
    };
    let llama = ModelOptions {
        executor: ExecutorChoice::LlamaCpp,
        kernels: Kernels::Auto,
        draft_model: None,
        memory_budget: MemoryBudget::Unlimited,
        ..options.clone()
    };
    let is_wanted = |wanted: fn(&Mode) -> bool| bench.modes.iter().any(wanted);
    let own =
        is_wanted(|mode| *mode != Mode::LlamaCpp).then(|| loading::load(bench.model.path(), options)).transpose()?;
    let llama =
        is_wanted(|mode| *mode == Mode::LlamaCpp).then(|| loading::load(bench.model.path(), llama)).transpose()?;
    let contestant = |mode: &Mode| {
        let loaded = if *mode == Mode::LlamaCpp { &llama } else { &own };
        let model = loaded.as_ref().map(|loaded| fresh(&loaded.model));
        model.map(|model| Ok(Contestant { mode: *mode, model: model? }))
    };
    bench.modes.iter().filter_map(contestant).collect()
}

/// The same model with nothing learnt.
fn fresh(model: &Model) -> Result<Model> {
    let (weights, vocabulary) = (model.weights().clone(), model.vocabulary().clone());
    let alone = Model::from_parts(weights, vocabulary, model.template().clone(), model.info().clone());
    Ok(match model.draft() {
        Some(draft) => alone.with_draft(draft)?,
        None => alone,
    })
}

fn means(name: &str, rows: &[Line]) -> Means {
    let mean =
        |ratio: fn(&Line) -> Option<f64>| geometric_mean(rows.iter().filter(|r| r.name == name).filter_map(ratio));
    Means {
        name: name.to_owned(),
        ratio: mean(|row| row.ratio),
        ratio_llama: mean(|row| row.ratio_llama),
        ttft_ratio: mean(|row| row.ttft_ratio),
        total_ratio: mean(|row| row.total_ratio),
    }
}

fn table(report: &Report) -> String {
    let read = report.read_gb_per_s.map_or_else(String::new, |[a, b]| format!("; plain read {a:.1} and {b:.1} GB/s"));
    let mut text = format!(
        "{} prompts, at most {} tokens each, median of {} rounds, {} threads{read}\n\
         {:<10} {:<9} {:>7} {:>7} {:>7} {:>7} {:>7} {:>6} | {:>6} {:>6} {:>6} {:>6} {:>6} | {:>9} {:>6}\n",
        report.prompts,
        report.max_tokens,
        report.rounds,
        report.threads,
        "workload",
        "mode",
        "tok/s",
        "×plain",
        "×llama",
        "×first",
        "×total",
        "length",
        "model",
        "draft",
        "verify",
        "proj.",
        "sample",
        "predicted",
        "differ"
    );
    let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}"));
    let share = |share: f64| format!("{:.1}%", share * 100.0);
    for row in &report.rows {
        text.push_str(&format!(
            "{:<10} {:<9} {:>7.1} {:>7} {:>7} {:>7} {:>7} {:>6.2} | {:>6} {:>6} {:>6} {:>6} {:>6} | {:>9.2} {:>6}\n",
            row.workload,
            row.name,
            row.decode_tokens_per_s,
            ratio(row.ratio),
            ratio(row.ratio_llama),
            ratio(row.ttft_ratio),
            ratio(row.total_ratio),
            row.accepted_length,
            share(row.draft_model_share),
            share(row.draft_share),
            share(row.verify_share),
            share(row.project_share),
            share(row.sample_share),
            row.predicted_over_measured,
            row.different.map_or_else(|| "-".to_owned(), |n| n.to_string()),
        ));
    }
    for row in &report.rows {
        if let Some(flash) = &row.flash {
            text.push_str(&format!(
                "{:<10} {:<9} {:.3} GB read per pass at {:.2} GB/s, {:.0} % of it behind computing\n",
                row.workload,
                row.name,
                flash.gb_per_pass,
                flash.gb_per_s,
                flash.overlap * 100.0
            ));
        }
    }
    for mean in &report.geometric_means {
        text.push_str(&format!(
            "{:<10} {:<9} {:>7} {:>7} {:>7} {:>7} {:>7}\n",
            "geo. mean",
            mean.name,
            "",
            ratio(mean.ratio),
            ratio(mean.ratio_llama),
            ratio(mean.ttft_ratio),
            ratio(mean.total_ratio)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(workload: &str, name: &str, ratio: f64) -> Line {
        Line { workload: workload.into(), name: name.into(), ratio: Some(ratio), ..Line::default() }
    }

    #[test]
    fn means_are_over_the_workloads_of_a_mode() {
        let rows = [row("rag", "auto", 2.0), row("rag", "off", 1.0), row("ui", "auto", 8.0), row("ui", "off", 1.0)];
        assert_eq!(means("auto", &rows).ratio, Some(4.0));
        assert_eq!(means("auto", &rows).ratio_llama, None);
    }

    #[test]
    fn the_json_has_the_fields_of_the_executors_rows_and_more() {
        let value = serde_json::to_value(row("ui", "auto", 2.0)).unwrap();
        let shared = ["name", "prefill_tokens_per_s", "decode_tokens_per_s", "ratio", "prefill_ratio"];
        for field in shared.iter().chain(&["workload", "accepted_length"]) {
            assert!(value.get(field).is_some(), "{field}");
        }
    }
}
