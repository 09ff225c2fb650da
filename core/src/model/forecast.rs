//! What a model would be like under a memory budget, said before anything is loaded or written.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::file::Route;
use super::load::{describe, staged_options, thread_options};
use super::{ExecutorChoice, ModelFile, ModelOptions};
use crate::error::{ErrorKind, Result};
use crate::executor::memory::available_memory;
use crate::executor::staged::{Forecast, Setup};
use crate::gguf::validate::validate;
use crate::kernels::threads::ThreadPool;
use crate::residency::ResidencyInfo;
use crate::residency::probe::{flash_bandwidth, memory_bandwidth};
use crate::residency::stream::IN_FLIGHT;

/// What a model would be like under its memory budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResidencyForecast {
    /// What would be in memory, and what would be read.
    #[serde(flatten)]
    pub info: ResidencyInfo,
    /// The smallest budget that the model can run with, in bytes.
    pub smallest_budget: u64,
    /// The file that layers would be streamed from.
    pub prepared_path: PathBuf,
    /// Bytes of it on the disk.
    pub prepared_bytes: u64,
    /// Whether it is there already.
    pub prepared_ready: bool,
    /// Bytes per second of flash, measured for a moment on the model's file.
    pub flash_bandwidth: f64,
    /// Bytes per second of memory, measured for a moment.
    pub memory_bandwidth: f64,
    /// Tokens per second of plain decoding that these allow: each token reads the streamed layers from flash and all weights from
    /// memory, at the same time.
    pub tokens_per_s: f64,
}

impl ModelFile {
    /// What loading with `options` would come to. Reads some of the file to see how fast that is; writes nothing.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`, with the smallest budget, if the model does not fit; `InvalidOption` if there is no budget or the
    /// staged executor does not run the model; what [`Model::load`](super::Model::load) returns for a damaged file.
    pub fn forecast(&self, options: &ModelOptions) -> Result<ResidencyForecast> {
        let gguf = self.gguf()?;
        validate(&gguf).map_err(|unusable| unusable.in_file(self.path()))?;
        let missing = |reason: &str| ErrorKind::InvalidOption { option: "memory_budget", reason: reason.to_owned() };
        let budget = options.memory_budget.bytes(available_memory())?;
        let budget = budget.ok_or_else(|| missing("there is nothing to plan without one"))?;
        let (Route::Staged(arch), _) = self.route(&gguf, ExecutorChoice::Staged)? else {
            return Err(missing("llama.cpp's context cannot keep one").into());
        };
        let n_cells = describe(&gguf, options).context_length;
        let setup = Setup {
            arch: *arch,
            options: staged_options(options, &Arc::new(ThreadPool::new(&thread_options(options))?)),
        };
        let files = self.direct()?;
        let first = Arc::clone(&files[0]);
        let forecast =
            Forecast::new(&setup, &gguf, self.first(), files, budget, n_cells, options.cache_dir.as_deref())?;
        let flash = flash_bandwidth(&*first, self.parts()[0].bytes().len() as u64, IN_FLIGHT)?;
        let memory = memory_bandwidth(setup.options.threads.n_threads())?;
        let info = forecast.info;
        let seconds = (info.streamed_bytes as f64 / flash)
            .max((info.streamed_bytes + info.pinned_bytes - forecast.embedding_bytes) as f64 / memory);
        Ok(ResidencyForecast {
            info,
            smallest_budget: forecast.smallest,
            prepared_path: forecast.prepared_path,
            prepared_bytes: forecast.prepared_bytes,
            prepared_ready: forecast.prepared_ready,
            flash_bandwidth: flash,
            memory_bandwidth: memory,
            tokens_per_s: 1.0 / seconds,
        })
    }
}
