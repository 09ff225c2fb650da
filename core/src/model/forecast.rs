//! What a model would be like under a memory budget, said before anything is loaded or written.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::file::Route;
use super::load::{describe, staged_options, thread_options};
use super::part::Part;
use super::{ModelFile, ModelOptions};
use crate::error::{ErrorKind, Result};
use crate::executor::memory::available_memory;
use crate::executor::options::check_sizes;
use crate::executor::staged::{Forecast, Setup};
use crate::gguf::validate::validate;
use crate::kernels::threads::ThreadPool;
use crate::residency::ResidencyInfo;
use crate::residency::probe::{flash_bandwidth, memory_bandwidth};
use crate::residency::stream::IN_FLIGHT;

/// What a model would be like under its memory budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResidencyForecast {
    /// What would be in memory, and what would be read; budget and memory with the draft model's part, all else without.
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
    /// `OutOfMemory`, with the smallest budget, if the model does not fit; `InvalidOption` if there is no budget, a size is out of range,
    /// or the staged executor does not run the model; what [`Model::load`](super::Model::load) returns for a damaged file.
    pub fn forecast(&self, options: &ModelOptions) -> Result<ResidencyForecast> {
        let missing = "there is nothing to plan without one".to_owned();
        let missing = ErrorKind::InvalidOption { option: "memory_budget", reason: missing };
        let budget = options.memory_budget.bytes(available_memory())?.ok_or(missing)?;
        let threads = Arc::new(ThreadPool::new(&thread_options(options))?);
        let draft = options.draft_model.as_deref().map(Self::open).transpose()?;
        let draft = draft.map(|draft| draft.within(options, &threads, budget, Part::Draft)).transpose()?;
        // The draft model is in memory as a whole.
        let taken = draft.map_or(0, |draft| draft.info.memory + draft.info.streamed_bytes);
        let forecast = self.within(options, &threads, budget.saturating_sub(taken), Part::Target)?;
        let first = &self.direct()?[0];
        let flash = flash_bandwidth(&**first, self.parts()[0].len(), IN_FLIGHT)?;
        let memory = memory_bandwidth(threads.n_threads())?;
        let info = ResidencyInfo { budget, memory: forecast.info.memory + taken, ..forecast.info };
        let seconds = (info.streamed_bytes as f64 / flash)
            .max((info.streamed_bytes + info.pinned_bytes - forecast.embedding_bytes) as f64 / memory);
        Ok(ResidencyForecast {
            info,
            smallest_budget: forecast.smallest + taken,
            prepared_path: forecast.prepared_path,
            prepared_bytes: forecast.prepared_bytes,
            prepared_ready: forecast.prepared_ready,
            flash_bandwidth: flash,
            memory_bandwidth: memory,
            tokens_per_s: 1.0 / seconds,
        })
    }

    /// What loading this file alone within `budget` bytes would come to.
    fn within(&self, options: &ModelOptions, threads: &Arc<ThreadPool>, budget: u64, part: Part) -> Result<Forecast> {
        let gguf = self.gguf()?;
        validate(&gguf).map_err(|unusable| unusable.in_file(self.path()))?;
        let (Route::Staged(arch), _) = self.route(&gguf, options)? else {
            let reason = "llama.cpp's context cannot keep one".to_owned();
            return Err(ErrorKind::InvalidOption { option: "memory_budget", reason }.into());
        };
        let context_length = describe(&gguf, options).context_length;
        check_sizes(context_length, options.batch_size)?;
        let setup = Setup { arch: *arch, options: staged_options(options, threads) };
        Forecast::new(
            &setup,
            &gguf,
            self.first(),
            self.direct()?,
            [budget, part.beside()],
            part.n_cells(context_length),
            options.cache_dir.as_deref(),
        )
    }
}
