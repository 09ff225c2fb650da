//! `fulcrum plan`: what a model would be like under a memory budget.

use crate::failure::{Failure, Result};
use crate::options::{Loading, ModelPath};
use crate::output::{self, human_bytes};
use fulcrum::MemoryBudget;
use fulcrum::model::{ModelFile, ResidencyForecast};
use std::fmt::Write as _;
use std::io;

/// Say which layers would stay in memory under a budget, what would be read, and how fast that would be
#[derive(clap::Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    model: ModelPath,
    #[command(flatten)]
    loading: Loading,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Plan {
    pub(crate) fn run(self) -> Result<()> {
        let options = self.loading.options();
        if options.memory_budget == MemoryBudget::Unlimited {
            return Err(Failure::Usage("no budget to plan for: give one, as in --memory-budget 600M".to_owned()));
        }
        let forecast = ModelFile::open(self.model.path())?.forecast(&options)?;
        let mut out = io::stdout().lock();
        if self.json { output::write_json(&mut out, &forecast) } else { output::write(&mut out, &text(&forecast)) }
    }
}

fn text(forecast: &ResidencyForecast) -> String {
    let ResidencyForecast { info, .. } = forecast;
    let layers = info.pinned_layers + info.streamed_layers;
    let ready = if forecast.prepared_ready { "there already" } else { "to be made once, when the model is loaded" };
    let path = forecast.prepared_path.display();
    let mut lines = vec![
        ("budget", human_bytes(info.budget)),
        ("smallest", human_bytes(forecast.smallest_budget)),
        ("in memory", format!("{} by the plan", human_bytes(info.memory))),
        ("layers", format!("{} of {layers} in memory, {} streamed", info.pinned_layers, info.streamed_layers)),
        ("weights", format!("{} in memory", human_bytes(info.pinned_bytes))),
    ];
    if info.streamed_layers > 0 {
        lines.push(("slots", format!("{} of {}", info.slots, human_bytes(info.slot_bytes))));
        lines.push(("read", format!("{} per pass", human_bytes(info.streamed_bytes))));
        lines.push(("prepared file", format!("{path}, {}, {ready}", human_bytes(forecast.prepared_bytes))));
    }
    lines.push(("prefill", format!("{} rows per pass", info.max_rows)));
    lines.push(("flash", format!("{:.2} GB/s measured", forecast.flash_bandwidth / 1e9)));
    lines.push(("memory", format!("{:.2} GB/s measured", forecast.memory_bandwidth / 1e9)));
    lines.push(("plain decoding", format!("about {:.2} tokens/s; drafting makes it more", forecast.tokens_per_s)));
    let mut text = String::new();
    for (label, value) in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<14} {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulcrum::ResidencyInfo;

    fn forecast(streamed_layers: usize) -> ResidencyForecast {
        let info = ResidencyInfo { pinned_layers: 3, streamed_layers, slots: 2, ..ResidencyInfo::default() };
        ResidencyForecast {
            info,
            smallest_budget: 1 << 20,
            prepared_path: "m.gguf.packed".into(),
            prepared_bytes: 3 << 30,
            prepared_ready: false,
            flash_bandwidth: 5e8,
            memory_bandwidth: 3e10,
            tokens_per_s: 0.25,
        }
    }

    #[test]
    fn what_streams_is_said_and_what_does_not_is_not() {
        let streams = text(&forecast(5));
        assert!(streams.contains("3 of 8 in memory, 5 streamed") && streams.contains("0.25 tokens/s"), "{streams}");
        assert!(streams.contains("m.gguf.packed, 3.0 GiB, to be made once"), "{streams}");
        let resident = text(&forecast(0));
        assert!(!resident.contains("packed") && !resident.contains("slots"), "{resident}");
    }

    #[test]
    fn the_json_has_the_documented_fields() {
        let value = serde_json::to_value(forecast(5)).unwrap();
        for field in ["budget", "smallest_budget", "streamed_layers", "prepared_bytes", "tokens_per_s"] {
            assert!(value.get(field).is_some(), "{field}");
        }
    }
}
