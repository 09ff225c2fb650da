//! A way of decoding that the workloads are run with.

use fulcrum::Drafting;
use std::fmt;
use std::str::FromStr;

/// One column of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The engine, drafting so.
    Own(Drafting),
    /// llama.cpp's own context on the same file, decoding plainly.
    LlamaCpp,
}

impl Mode {
    /// Plain decoding, to which ratios refer.
    pub(crate) const PLAIN: Self = Self::Own(Drafting::Off);
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "llama" => Ok(Self::LlamaCpp),
            _ => text.parse().map(Self::Own).map_err(|_| {
                format!("`{text}` is none of auto, context, off, chain:N with N from 1 to 63, and llama (llama.cpp)")
            }),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(drafting) => f.pad(&drafting.to_string()),
            Self::LlamaCpp => f.pad("llama"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["auto", "context", "off", "chain:4", "llama"] {
            assert_eq!(text.parse::<Mode>().unwrap().to_string(), text);
        }
        assert_eq!("off".parse(), Ok(Mode::PLAIN));
        assert!("chain:0".parse::<Mode>().is_err());
    }
}
