//! What goes to standard output, and how sizes read.
//!
//! Writers are passed in, so that tests can look; nothing here panics when the reader goes away: the error travels up and ends
//! the command quietly.

use crate::failure::{Failure, Result};
use std::io::Write;

/// Writes text as it is and shows it at once.
pub(crate) fn write(out: &mut dyn Write, text: &str) -> Result<()> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Writes a value as one line of JSON.
pub(crate) fn write_json(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|error| Failure::Output(error.into()))?;
    write(out, &format!("{text}\n"))
}

/// Bytes as a person reads them: `1.5 GiB`.
pub(crate) fn human_bytes(bytes: u64) -> String {
    let units = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, size)| bytes >= *size);
    unit.map_or_else(|| format!("{bytes} B"), |(unit, size)| tenths(bytes, size, unit))
}

/// A count as a person reads it: `8.0 M`.
pub(crate) fn human_count(count: u64) -> String {
    let unit = [("B", 1_000_000_000), ("M", 1_000_000), ("K", 1_000)].into_iter().find(|(_, size)| count >= *size);
    unit.map_or_else(|| count.to_string(), |(unit, size)| tenths(count, size, unit))
}

/// In integers, rounded down: no size is shown larger than it is.
fn tenths(value: u64, size: u64, unit: &str) -> String {
    format!("{}.{} {unit}", value / size, u128::from(value % size) * 10 / u128::from(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(human_bytes(999), "999 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(3 << 30), "3.0 GiB");
        assert_eq!(human_bytes(u64::MAX), "16777215.9 TiB");
        assert_eq!(human_count(999), "999");
        assert_eq!(human_count(1_236_000_000), "1.2 B");
        assert_eq!(human_count(260_032), "260.0 K");
    }
}
