//! How much to speculate, as users say it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// How much to speculate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Drafting {
    /// With every source there is, as far as it pays, where the executor's rows are invariant: then the text is that of plain
    /// decoding, bit for bit. Elsewhere not at all.
    #[default]
    Auto,
    /// As `Auto`, without the draft model.
    Context,
    /// A chain of up to `n` tokens in every step, whether it pays or not, as in the textbook: the draft model's alone, or, without
    /// one, the best of the other sources'. For measurements: it drafts where rows are not invariant too, and may turn a near-tie there.
    Chain {
        /// Tokens drafted.
        n: usize,
    },
    /// Not at all.
    Off,
}

impl FromStr for Drafting {
    type Err = Error;

    /// Reads `auto`, `context`, `off` or `chain:N` with `N` from 1 to 63.
    fn from_str(text: &str) -> Result<Self> {
        let n = text.strip_prefix("chain:").and_then(|n| n.parse().ok()).filter(|n| (1..64).contains(n));
        match (text, n) {
            ("auto", _) => Ok(Self::Auto),
            ("context", _) => Ok(Self::Context),
            ("off", _) => Ok(Self::Off),
            (_, Some(n)) => Ok(Self::Chain { n }),
            _ => {
                let reason = format!("`{text}` is none of auto, context, off and chain:N with N from 1 to 63");
                Err(ErrorKind::InvalidOption { option: "drafting", reason }.into())
            }
        }
    }
}

impl fmt::Display for Drafting {
    /// Writes what [`from_str`](Self::from_str) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Context => f.write_str("context"),
            Self::Chain { n } => write!(f, "chain:{n}"),
            Self::Off => f.write_str("off"),
        }
    }
}

impl TryFrom<String> for Drafting {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Drafting> for String {
    fn from(drafting: Drafting) -> Self {
        drafting.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for drafting in [Drafting::Auto, Drafting::Context, Drafting::Chain { n: 7 }, Drafting::Off] {
            assert_eq!(drafting.to_string().parse::<Drafting>().unwrap(), drafting);
            let json = serde_json::to_string(&drafting).unwrap();
            assert_eq!(serde_json::from_str::<Drafting>(&json).unwrap(), drafting);
        }
        assert!(serde_json::from_str::<Drafting>("\"chain:0\"").is_err());
    }
}
