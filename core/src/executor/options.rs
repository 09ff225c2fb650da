//! What an executor is made with, whichever it is.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::cores::performance_cores;
use crate::error::{Error, ErrorKind, Result};

/// How the cache stores keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvType {
    /// Half precision: 2 bytes per number.
    #[default]
    F16,
    /// 8-bit blocks with a scale: 1.06 bytes per number, for slightly different text. Needs a head dimension divisible by 32.
    Q8_0,
}

impl KvType {
    /// Bytes of one number.
    pub fn bytes_per_value(self) -> f64 {
        match self {
            Self::F16 => 2.0,
            Self::Q8_0 => 34.0 / 32.0,
        }
    }
}

impl FromStr for KvType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "f16" => Ok(Self::F16),
            "q8_0" => Ok(Self::Q8_0),
            _ => {
                Err(ErrorKind::InvalidOption { option: "kv_type", reason: format!("`{name}` must be f16 or q8_0") }
                    .into())
            }
        }
    }
}

/// Whose kernels multiply on the CPU and attend over the cache, in the staged executor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernels {
    /// Ours for the formats they know, else ggml's.
    #[default]
    Auto,
    /// ggml's.
    Ggml,
    /// Ours for every matrix and for attention, or an error that names what has no kernel of ours: whoever asks for this relies on
    /// a row having the same bits whatever rows are computed beside it.
    Own,
}

impl Kernels {
    const ALL: [Self; 3] = [Self::Auto, Self::Ggml, Self::Own];

    /// The name in settings and output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ggml => "ggml",
            Self::Own => "own",
        }
    }
}

impl FromStr for Kernels {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kernels| kernels.name() == name).ok_or_else(|| {
            let reason = format!("`{name}` must be auto, own or ggml");
            ErrorKind::InvalidOption { option: "kernels", reason }.into()
        })
    }
}

/// How the system schedules the computing threads (ggml's priorities). Above `Normal` the process may need rights it does not
/// have; the threads then run as `Normal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThreadPriority {
    /// After everything else: answers that nobody waits for.
    Low,
    /// As other programs.
    #[default]
    Normal,
    /// Before other programs.
    Medium,
    /// Well before other programs.
    High,
    /// Before nearly everything; needs rights that most programs do not have.
    Realtime,
}

/// The most positions of a context: kernels count them in 32 bits, signed, rounded up to 256.
#[cfg(feature = "ggml")]
pub(crate) const MAX_CELLS: usize = (i32::MAX as usize) - 256;

/// The most rows of a pass. Far above what pays; graphs are sized by it.
#[cfg(feature = "ggml")]
pub(crate) const MAX_ROWS: usize = 1 << 16;

/// Checks what an executor is asked to hold and to run at once: sizes that are products of these then fit their types.
///
/// Fails with `InvalidOption`.
#[cfg(feature = "ggml")]
pub(crate) fn check_sizes(n_cells: usize, max_rows: usize) -> Result<()> {
    let between = |option, value: usize, max: usize| {
        if (1..=max).contains(&value) {
            return Ok(());
        }
        Err(ErrorKind::InvalidOption { option, reason: format!("{value} is not between 1 and {max}") }.into())
    };
    between("context_length", n_cells, MAX_CELLS)?;
    between("batch_size", max_rows, MAX_ROWS)
}

/// The threads that compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadOptions {
    /// Threads, the calling one included: 1 to [`MAX`](Self::MAX).
    pub n_threads: usize,
    /// How they are scheduled.
    pub priority: ThreadPriority,
    /// The cores they may run on, by the system's numbers, `None` for any. The calling thread is bound to them too, and stays so.
    pub cpu_mask: Option<Vec<usize>>,
    /// How long a thread without work spins before it sleeps: 0 (not at all) to 100; 1 is about a millisecond.
    pub poll: u32,
}

impl ThreadOptions {
    /// The most threads ggml handles, and the number of processors a mask can name.
    pub const MAX: usize = 512;

    /// `n_threads` threads of normal priority on any processor, which sleep when there is nothing to do.
    pub fn new(n_threads: usize) -> Self {
        Self { n_threads, priority: ThreadPriority::default(), cpu_mask: None, poll: 1 }
    }

    /// Checks every field; ggml answers a wrong one by ending the process.
    ///
    /// Fails with `InvalidOption`.
    pub fn check(&self) -> Result<()> {
        let invalid = |option, reason| Err(ErrorKind::InvalidOption { option, reason }.into());
        if !(1..=Self::MAX).contains(&self.n_threads) {
            return invalid("threads", format!("{} is not between 1 and {}", self.n_threads, Self::MAX));
        }
        if self.poll > 100 {
            return invalid("poll", format!("{} is not between 0 and 100", self.poll));
        }
        match &self.cpu_mask {
            Some(cpu_mask) if cpu_mask.is_empty() => invalid("cpu_mask", "the list of processors is empty".to_owned()),
            Some(cpu_mask) => match cpu_mask.iter().find(|&&cpu| cpu >= Self::MAX) {
                Some(cpu) => invalid("cpu_mask", format!("{cpu} is not below {}", Self::MAX)),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

impl Default for ThreadOptions {
    /// One thread per performance core.
    fn default() -> Self {
        Self::new(performance_cores().min(Self::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ggml_would_abort_on_is_refused() {
        let option = |options: ThreadOptions| match options.check().map_err(crate::Error::into_kind) {
            Err(ErrorKind::InvalidOption { option, .. }) => option,
            other => panic!("{other:?}"),
        };
        assert_eq!(option(ThreadOptions::new(0)), "threads");
        assert_eq!(option(ThreadOptions::new(513)), "threads");
        assert_eq!(option(ThreadOptions { cpu_mask: Some(vec![]), ..ThreadOptions::new(1) }), "cpu_mask");
        assert_eq!(option(ThreadOptions { cpu_mask: Some(vec![0, 512]), ..ThreadOptions::new(1) }), "cpu_mask");
        assert_eq!(option(ThreadOptions { poll: 101, ..ThreadOptions::new(1) }), "poll");
        assert!(ThreadOptions::default().check().is_ok());
        assert!(ThreadOptions::new(512).check().is_ok());
    }
}
