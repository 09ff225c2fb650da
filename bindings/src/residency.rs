//! Models within a memory budget: what is allowed, what became of it, and what would.

use crate::error::Result;
use crate::model::ModelOptions;
use crate::number::{count, figure, small};

/// What a model may take of the device's memory: weights, slots, graphs, the K/V caches of its sessions and what a bare program needs
/// around them, together. An app's own memory is not counted. What does not fit is read from flash on every pass.
#[derive(Clone, Copy, Debug, PartialEq, uniffi::Enum)]
pub enum MemoryBudget {
    /// All that it needs: every weight stays in memory.
    Unlimited,
    /// So many bytes.
    Bytes(i64),
    /// This share, above 0 and at most 1, of what the system can give when the model is loaded. Linux and Android say how much that
    /// is; where the system does not, on iOS and macOS, it is an invalid option, and bytes have to be said.
    Share(f32),
}

/// How a model lies in memory under a budget.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ResidencyInfo {
    /// Bytes that were allowed.
    pub budget: i64,
    /// Bytes that model, one session and process take by the plan.
    pub memory: i64,
    /// Layers in memory.
    pub pinned_layers: i32,
    /// Layers that are read from flash on every pass.
    pub streamed_layers: i32,
    /// Bytes of weights in memory, slots not counted.
    pub pinned_bytes: i64,
    /// Bytes of weights that every pass reads.
    pub streamed_bytes: i64,
    /// Streamed layers that are in memory at a time.
    pub slots: i32,
    /// Bytes of a slot.
    pub slot_bytes: i64,
    /// Rows of one pass at most: the size of a chunk of prefill.
    pub max_rows: i32,
    /// The prepared file that layers are streamed from. None if there is none, or nothing streams; then what streams is read from the
    /// model's own file and packed every time.
    pub prepared: Option<String>,
}

/// What a model would be like under its memory budget.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct ResidencyForecast {
    /// What would be in memory, and what would be read.
    pub info: ResidencyInfo,
    /// The smallest budget that the model can run with, in bytes.
    pub smallest_budget: i64,
    /// The file that layers would be streamed from.
    pub prepared_path: String,
    /// Bytes of it on the disk.
    pub prepared_bytes: i64,
    /// Whether it is there already.
    pub prepared_ready: bool,
    /// Bytes per second of flash, measured for a moment on the model's file.
    pub flash_bandwidth: f64,
    /// Bytes per second of memory, measured for a moment.
    pub memory_bandwidth: f64,
    /// Tokens per second of plain decoding that these allow.
    pub tokens_per_s: f64,
}

/// What loading the file at `path` within its budget would come to; writes nothing. Blocks: call it on a thread that may wait.
#[uniffi::export]
pub fn native_forecast(path: String, options: ModelOptions) -> Result<ResidencyForecast> {
    Ok(fulcrum::model::ModelFile::open(path.as_ref())?.forecast(&options.try_into()?)?.into())
}

impl TryFrom<MemoryBudget> for fulcrum::MemoryBudget {
    type Error = crate::NativeError;

    fn try_from(budget: MemoryBudget) -> Result<Self> {
        Ok(match budget {
            MemoryBudget::Unlimited => Self::Unlimited,
            MemoryBudget::Bytes(bytes) => Self::Bytes(count("memory_budget", bytes)?),
            MemoryBudget::Share(share) => Self::Share(share),
        })
    }
}

impl From<fulcrum::ResidencyInfo> for ResidencyInfo {
    fn from(info: fulcrum::ResidencyInfo) -> Self {
        Self {
            budget: figure(info.budget),
            memory: figure(info.memory),
            pinned_layers: small(info.pinned_layers),
            streamed_layers: small(info.streamed_layers),
            pinned_bytes: figure(info.pinned_bytes),
            streamed_bytes: figure(info.streamed_bytes),
            slots: small(info.slots),
            slot_bytes: figure(info.slot_bytes),
            max_rows: small(info.max_rows),
            prepared: info.prepared.map(|path| path.display().to_string()),
        }
    }
}

impl From<fulcrum::model::ResidencyForecast> for ResidencyForecast {
    fn from(forecast: fulcrum::model::ResidencyForecast) -> Self {
        Self {
            info: forecast.info.into(),
            smallest_budget: figure(forecast.smallest_budget),
            prepared_path: forecast.prepared_path.display().to_string(),
            prepared_bytes: figure(forecast.prepared_bytes),
            prepared_ready: forecast.prepared_ready,
            flash_bandwidth: forecast.flash_bandwidth,
            memory_bandwidth: forecast.memory_bandwidth,
            tokens_per_s: forecast.tokens_per_s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_budget_arrives() {
        use fulcrum::MemoryBudget::{Bytes, Share, Unlimited};
        let given = [MemoryBudget::Unlimited, MemoryBudget::Bytes(1), MemoryBudget::Share(0.5)];
        let there = given.map(|budget| fulcrum::MemoryBudget::try_from(budget).unwrap());
        assert_eq!(there, [Unlimited, Bytes(1), Share(0.5)]);
    }
}
