//! How a model is to be loaded and run.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind};
use crate::executor::options::{Kernels, KvType, ThreadOptions, ThreadPriority};
use crate::residency::MemoryBudget;

/// Told how much of the model is loaded, from 0 to 1, ascending; 1 comes last. Called on the loading thread: be quick.
pub type Progress = Arc<dyn Fn(f32) + Send + Sync>;

/// Settings of a model, shared by all its sessions.
#[derive(Clone)]
pub struct ModelOptions {
    /// Tokens of context a session has, unless its own options say otherwise. `None`: what the model was trained with, but no
    /// more than [`DEFAULT_CONTEXT_LENGTH`](Self::DEFAULT_CONTEXT_LENGTH).
    pub context_length: Option<usize>,
    /// Threads that compute, for all sessions of the model together. `None`: one per performance core.
    pub threads: Option<usize>,
    /// How the system schedules these threads.
    pub priority: ThreadPriority,
    /// The cores these threads may run on, by the system's numbers. `None`: any.
    pub cpu_mask: Option<Vec<usize>>,
    /// What runs the model.
    pub executor: ExecutorChoice,
    /// Load also a model of an architecture that only llama.cpp knows. Its files are not checked before llama.cpp reads them, which
    /// ends the process on some that are damaged, so the caller vouches for the file. Without it such a model is `UnsupportedModel`.
    pub unchecked_architecture: bool,
    /// How the cache stores keys and values.
    pub kv_type: KvType,
    /// Whose kernels multiply and attend, in the staged executor.
    pub kernels: Kernels,
    /// Rows of one pass at most: the size of a chunk of prefill. More is faster to the first token and takes more memory.
    pub batch_size: usize,
    /// What the model may take of the memory. What does not fit is read from flash on every pass; the text is the same.
    pub memory_budget: MemoryBudget,
    /// Where the file is kept that a model under a memory budget is streamed from: about as large as the model, and made once.
    /// `None`: beside the model, if that can be written.
    pub cache_dir: Option<PathBuf>,
    /// GGUF file of a smaller model with the same vocabulary, whose guesses the model checks several at a time: the same text,
    /// sooner. It is loaded with these settings too, and its threads are the model's.
    pub draft_model: Option<PathBuf>,
    /// A `tokenizer.json` that turns text into tokens, instead of the vocabulary in the file.
    pub tokenizer: Option<PathBuf>,
    /// The chat template, instead of the one in the file.
    pub chat_template: Option<String>,
    /// What the chat template is to read besides the conversation, by name: `enable_thinking: false` keeps Qwen3 from thinking. A
    /// template does not complain of a name that it does not read.
    pub template_variables: BTreeMap<String, Value>,
    /// Told how loading goes on.
    pub progress: Option<Progress>,
    /// Stops loading, which then fails with `Cancelled`.
    pub cancel: Cancel,
}

/// What runs a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExecutorChoice {
    /// The staged executor where it knows the architecture, else llama.cpp's.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// The staged executor, or an error.
    #[serde(rename = "staged")]
    Staged,
    /// llama.cpp's own context.
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
}

impl ModelOptions {
    /// The threads that compute where the options name no number: one per performance core.
    pub fn default_threads() -> usize {
        ThreadOptions::default().n_threads
    }

    /// Tokens of context by default, at most: a cache for all that many models were trained with would not fit a phone.
    pub const DEFAULT_CONTEXT_LENGTH: usize = 4096;
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            context_length: None,
            threads: None,
            priority: ThreadPriority::default(),
            cpu_mask: None,
            executor: ExecutorChoice::default(),
            unchecked_architecture: false,
            kv_type: KvType::default(),
            kernels: Kernels::default(),
            batch_size: 512,
            memory_budget: MemoryBudget::default(),
            cache_dir: None,
            draft_model: None,
            tokenizer: None,
            chat_template: None,
            template_variables: BTreeMap::new(),
            progress: None,
            cancel: Cancel::new(),
        }
    }
}

impl fmt::Debug for ModelOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelOptions")
            .field("context_length", &self.context_length)
            .field("threads", &self.threads)
            .field("priority", &self.priority)
            .field("cpu_mask", &self.cpu_mask)
            .field("executor", &self.executor)
            .field("unchecked_architecture", &self.unchecked_architecture)
            .field("kv_type", &self.kv_type)
            .field("kernels", &self.kernels)
            .field("batch_size", &self.batch_size)
            .field("memory_budget", &self.memory_budget)
            .field("draft_model", &self.draft_model)
            .field("tokenizer", &self.tokenizer)
            .field("template_variables", &self.template_variables)
            .finish_non_exhaustive()
    }
}

impl ExecutorChoice {
    /// The name in settings and output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Staged => "staged",
            Self::LlamaCpp => "llama.cpp",
        }
    }
}

impl FromStr for ExecutorChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = [Self::Auto, Self::Staged, Self::LlamaCpp];
        known.into_iter().find(|choice| choice.name() == name).ok_or_else(|| {
            let reason = format!("`{name}` must be auto, staged or llama.cpp");
            ErrorKind::InvalidOption { option: "executor", reason }.into()
        })
    }
}
