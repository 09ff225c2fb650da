//! Loads a model, with a bar where somebody watches.

use crate::failure::Result;
use fulcrum::model::{Model, ModelOptions};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Steps of the bar: finer than a terminal is wide.
const STEPS: u64 = 1000;

/// A model, and how long it took to load.
pub(crate) struct Loaded {
    pub(crate) model: Model,
    /// Seconds.
    pub(crate) load_s: f64,
}

/// Loads the model in the file `path`.
pub(crate) fn load(path: &Path, options: ModelOptions) -> Result<Loaded> {
    let start = Instant::now();
    let bar = progress_bar();
    let shown = bar.clone();
    let options = ModelOptions { progress: Some(Arc::new(move |part| shown.set_position(steps(part)))), ..options };
    let model = Model::load(path, options);
    // Also before an error is said: the bar would stand in its line.
    bar.finish_and_clear();
    Ok(Loaded { model: model?, load_s: start.elapsed().as_secs_f64() })
}

fn progress_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(STEPS);
    match ProgressStyle::with_template("loading {wide_bar} {percent:>3} %") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Steps of the bar for a part of 0 to 1.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn steps(part: f32) -> u64 {
    (part.clamp(0.0, 1.0) * STEPS as f32) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_stays_within_its_ends() {
        assert_eq!([steps(-1.0), steps(0.0), steps(0.5), steps(1.0), steps(f32::NAN)], [0, 0, 500, 1000, 0]);
    }
}
