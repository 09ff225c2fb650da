//! How much memory a model may take, as an app says it, and what became of it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// What a model may take of the device's memory: weights, slots, graphs, the K/V caches of its sessions and what a bare program needs
/// around them, together. An app's own memory is not counted. What does not fit is read from flash on every pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum MemoryBudget {
    /// All that it needs: every weight stays in memory.
    #[default]
    Unlimited,
    /// So many bytes.
    Bytes(u64),
    /// This share, above 0 and at most 1, of what the system can give when the model is loaded.
    /// Linux and Android say how much that is; elsewhere it is `InvalidOption`.
    Share(f32),
}

/// How a model lies in memory under a budget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResidencyInfo {
    /// Bytes that were allowed.
    pub budget: u64,
    /// Bytes that model, one session and process take by the plan.
    pub memory: u64,
    /// Layers in memory.
    pub pinned_layers: usize,
    /// Layers that are read from flash on every pass.
    pub streamed_layers: usize,
    /// Bytes of weights in memory, slots not counted.
    pub pinned_bytes: u64,
    /// Bytes of weights that every pass reads.
    pub streamed_bytes: u64,
    /// Streamed layers that are in memory at a time.
    pub slots: usize,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Rows of one pass at most: the size of a chunk of prefill.
    pub max_rows: usize,
    /// The prepared file that layers are streamed from. `None`: there is none, or nothing streams; then what streams is read from
    /// the model's own file and packed every time.
    pub prepared: Option<PathBuf>,
}

impl MemoryBudget {
    /// The budget in bytes where the system can give `available`; `None` if there is no limit.
    ///
    /// # Errors
    ///
    /// `InvalidOption` for a share that is none, or of a memory whose size the system does not tell.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn bytes(self, available: Option<u64>) -> Result<Option<u64>, Error> {
        match (self, available) {
            (Self::Unlimited, _) => Ok(None),
            (Self::Bytes(bytes), _) => Ok(Some(bytes)),
            (Self::Share(share), _) if !(share > 0.0 && share <= 1.0) => {
                Err(invalid(format!("a share of {share} is not above 0 and at most 1")))
            }
            (Self::Share(share), Some(available)) => Ok(Some((f64::from(share) * available as f64) as u64)),
            (Self::Share(_), None) => {
                Err(invalid("this system does not say how much memory it can give; say bytes".to_owned()))
            }
        }
    }
}

fn invalid(reason: String) -> Error {
    ErrorKind::InvalidOption { option: "memory_budget", reason }.into()
}

impl FromStr for MemoryBudget {
    type Err = Error;

    /// `unlimited`, a share (`40%`), or bytes (`600M`, `1.5G`; K, M and G are powers of 1024).
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "unlimited" {
            return Ok(Self::Unlimited);
        }
        let wrong = || invalid(format!("`{text}` must be bytes (600M, 1.5G), a share (40%) or unlimited"));
        let unit = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
        let number: f64 = unit.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0).ok_or_else(wrong)?;
        let factor = match &text[unit.len()..] {
            "%" if number <= 100.0 => return Ok(Self::Share((number / 100.0) as f32)),
            "" | "B" => 1.0,
            "K" | "k" | "KiB" => 1024.0,
            "M" | "m" | "MiB" => 1024.0 * 1024.0,
            "G" | "g" | "GiB" => 1024.0 * 1024.0 * 1024.0,
            _ => return Err(wrong()),
        };
        Ok(Self::Bytes((number * factor) as u64))
    }
}

impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Share(share) => write!(f, "{}%", share * 100.0),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<MemoryBudget>().ok();
        assert_eq!(read("unlimited"), Some(MemoryBudget::Unlimited));
        assert_eq!(read("600M"), Some(MemoryBudget::Bytes(600 << 20)));
        assert_eq!(read("600m"), Some(MemoryBudget::Bytes(600 << 20)));
        assert_eq!(read("1.5GiB"), Some(MemoryBudget::Bytes(3 << 29)));
        assert_eq!(read("1000"), Some(MemoryBudget::Bytes(1000)));
        assert_eq!(read("25%"), Some(MemoryBudget::Share(0.25)));
        for wrong in ["", "M", "-1G", "0", "600X", "101%", "nan", "half", "1 G"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        for budget in [MemoryBudget::Unlimited, MemoryBudget::Bytes(7), MemoryBudget::Share(0.5)] {
            assert_eq!(read(&budget.to_string()), Some(budget));
        }
    }

    #[test]
    fn shares_are_of_what_is_available() {
        assert_eq!(MemoryBudget::Share(0.25).bytes(Some(1000)).unwrap(), Some(250));
        assert_eq!(MemoryBudget::Unlimited.bytes(None).unwrap(), None);
        assert!(MemoryBudget::Share(0.5).bytes(None).is_err());
        for share in [0.0, -0.1, 1.1, f32::NAN] {
            assert!(MemoryBudget::Share(share).bytes(Some(1000)).is_err(), "{share}");
        }
    }
}
