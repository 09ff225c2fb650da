//! Standard output for text that comes in pieces, and the progress bar beside it.
//!
//! Nothing here panics when the reader goes away; the error travels up and ends the command quietly.

use crate::failure::{Failure, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Writes text as it is and shows it at once.
pub(crate) fn write(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Writes a line.
pub(crate) fn write_line(text: impl Display) -> Result<()> {
    write(&format!("{text}\n"))
}

/// Writes a value as one line of JSON.
pub(crate) fn write_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|error| Failure::Output(error.into()))?;
    write_line(text)
}

/// A bar for a load that reports how far it is, between 0 and 1; shown only where somebody watches.
pub(crate) fn progress_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("loading {wide_bar} {percent:>3} %");
    let bar = ProgressBar::new(PROGRESS_STEPS);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Steps of the progress bar: finer than a terminal is wide.
pub(crate) const PROGRESS_STEPS: u64 = 1000;

/// Bytes as a person reads them: `1.5 GiB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut unit) = (bytes, 0);
    let mut remainder = 0;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        remainder = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit == 0 { format!("{whole} B") } else { format!("{whole}.{} {}", remainder * 10 / 1024, UNITS[unit]) }
}

/// A count as a person reads it: `8.0 M`.
pub(crate) fn human_count(count: u64) -> String {
    for (size, unit) in [(1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K")] {
        if count >= size {
            return format!("{}.{} {unit}", count / size, count % size * 10 / size);
        }
    }
    count.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(human_bytes(999), "999 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(3 << 30), "3.0 GiB");
        assert_eq!(human_count(999), "999");
        assert_eq!(human_count(1_236_000_000), "1.2 B");
        assert_eq!(human_count(260_032), "260.0 K");
    }
}
