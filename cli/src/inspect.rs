//! `fulcrum inspect`: what is in a file, and which executor would run it, and why.

mod summary;

use crate::failure::Result;
use crate::options::ModelPath;
use crate::output;
use fulcrum::model::{ModelFile, ModelOptions};
use serde::Serialize;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use summary::Summary;

/// Say what is in a model file, and what would run it, and why
#[derive(clap::Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    model: ModelPath,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    file: PathBuf,
    #[serde(flatten)]
    summary: Summary,
    /// What would run the model; none if nothing can.
    executor: Option<&'static str>,
    /// Why that, or why nothing.
    reason: String,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<()> {
        let file = ModelFile::open(self.model.path())?;
        let summary = Summary::of(&file.gguf()?);
        let (executor, reason) = match file.executor(&ModelOptions::default()) {
            Ok((choice, reason)) => (Some(choice.name()), reason),
            Err(error) => (None, error.to_string()),
        };
        let report = Report { file: self.model.path().to_owned(), summary, executor, reason };
        let mut out = io::stdout().lock();
        if self.json { output::write_json(&mut out, &report) } else { output::write(&mut out, &report.text()) }
    }
}

impl Report {
    fn text(&self) -> String {
        let executor = [("executor", format!("{}: {}", self.executor.unwrap_or("none"), self.reason))];
        let mut text = String::new();
        for (label, value) in self.summary.lines().into_iter().chain(executor) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{label:<14} {value}");
        }
        text
    }
}
