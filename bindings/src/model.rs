//! Models.

use std::collections::HashMap;
use std::sync::Arc;

use fulcrum::{Cancel, ExecutorChoice, Kernels, KvType, Model, ThreadPriority};

use crate::error::Result;
use crate::message::{Message, Tool, json, messages, tools};
use crate::number::{count, figure, optional, small};
use crate::residency::{MemoryBudget, ResidencyInfo};
use crate::session::{NativeSession, SessionOptions};

/// Settings of a model, shared by all its sessions. What is left out is the core's default.
#[derive(Clone, Debug, Default, PartialEq, uniffi::Record)]
pub struct ModelOptions {
    /// Tokens of context a session has, unless its own options say otherwise. By default what the model was trained with, but no
    /// more than 4096.
    #[uniffi(default)]
    pub context_length: Option<i32>,
    /// Threads that compute, for all sessions of the model together. By default one per performance core.
    #[uniffi(default)]
    pub threads: Option<i32>,
    /// How the system schedules these threads. By default as other programs.
    #[uniffi(default)]
    pub priority: Option<ThreadPriority>,
    /// The cores these threads may run on, by the system's numbers. By default any.
    #[uniffi(default)]
    pub cpu_mask: Option<Vec<i32>>,
    /// What runs the model. By default the staged executor where it knows the architecture, else llama.cpp's.
    #[uniffi(default)]
    pub executor: Option<ExecutorChoice>,
    /// Load also a model of an architecture that only llama.cpp knows. Its files are not checked before llama.cpp reads them, which
    /// ends the app on some that are damaged, so the caller vouches for the file. By default such a model is not supported.
    #[uniffi(default = false)]
    pub unchecked_architecture: bool,
    /// How the cache stores keys and values. By default in half precision.
    #[uniffi(default)]
    pub kv_type: Option<KvType>,
    /// Whose kernels multiply and attend, in the staged executor. By default ours for the formats they know, else ggml's.
    #[uniffi(default)]
    pub kernels: Option<Kernels>,
    /// Rows of one pass at most: more is faster to the first token and takes more memory. By default 512.
    #[uniffi(default)]
    pub batch_size: Option<i32>,
    /// What the model may take of the memory. What does not fit is read from flash on every pass; the text is the same. By default
    /// all that it needs.
    #[uniffi(default)]
    pub memory_budget: Option<MemoryBudget>,
    /// The folder of the file that a model under a memory budget is streamed from: about as large as the model, and made once. By
    /// default the model's own folder, if that can be written.
    #[uniffi(default)]
    pub cache_dir: Option<String>,
    /// GGUF file of a smaller model with the same vocabulary, whose guesses the model checks several at a time: the same text,
    /// sooner. It is loaded with these settings too, and its threads are the model's.
    #[uniffi(default)]
    pub draft_model: Option<String>,
    /// A `tokenizer.json` that turns text into tokens, instead of the vocabulary in the file.
    #[uniffi(default)]
    pub tokenizer: Option<String>,
    /// The chat template (Jinja), instead of the one in the file.
    #[uniffi(default)]
    pub chat_template: Option<String>,
    /// What the chat template is to read besides the conversation, by name, each the text of a JSON value: `"enable_thinking"` and
    /// `"false"` keep Qwen3 from thinking. A template does not complain of a name that it does not read. By default nothing.
    #[uniffi(default)]
    pub template_variables: HashMap<String, String>,
}

/// How the system schedules the computing threads.
#[uniffi::remote(Enum)]
pub enum ThreadPriority {
    /// After everything else: answers that nobody waits for.
    Low,
    /// As other programs.
    Normal,
    /// Before other programs.
    Medium,
    /// Well before other programs.
    High,
    /// Before nearly everything; needs rights that most programs do not have.
    Realtime,
}

/// What runs a model.
#[uniffi::remote(Enum)]
pub enum ExecutorChoice {
    /// The staged executor where it knows the architecture, else llama.cpp's.
    Auto,
    /// The staged executor, or an error.
    Staged,
    /// llama.cpp's own context.
    LlamaCpp,
}

/// How the cache stores keys and values.
#[uniffi::remote(Enum)]
pub enum KvType {
    /// Half precision: 2 bytes per number.
    F16,
    /// 8-bit blocks with a scale: 1.06 bytes per number, for slightly different text.
    Q8_0,
}

/// Whose kernels multiply on the CPU and attend over the cache.
#[uniffi::remote(Enum)]
pub enum Kernels {
    /// Ours for the formats they know, else ggml's.
    Auto,
    /// ggml's.
    Ggml,
    /// Ours for every matrix and for attention, or an error that names what has no kernel of ours.
    Own,
}

/// What a model is, and how it runs here.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct ModelInfo {
    /// The name in the file, if it has one.
    pub name: Option<String>,
    /// The architecture in the file, for example `llama`.
    pub architecture: String,
    /// The type that most weights have, for example `Q4_0`.
    pub quantization: Option<String>,
    /// Parameters.
    pub n_parameters: i64,
    /// Decoder layers.
    pub n_layers: i32,
    /// Tokens in the vocabulary.
    pub n_vocab: i32,
    /// Tokens of context the model was trained with.
    pub train_context_length: i32,
    /// Tokens of context a session has, unless its options say otherwise.
    pub context_length: i32,
    /// Bytes of the weights.
    pub weight_bytes: i64,
    /// What runs it: `staged` or `llama.cpp`.
    pub executor: String,
    /// Why that, in one line.
    pub executor_reason: String,
    /// What is in memory and what is read from flash, of a model under a memory budget.
    pub residency: Option<ResidencyInfo>,
    /// Whether its chat template tells the model of tools.
    pub reads_tools: bool,
    /// Whether calls of tools are found in its answers; else they are text.
    pub reads_tool_calls: bool,
}

/// What the machine offers, and what this library makes of it.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Machine {
    /// Threads that compute by default: one per performance core.
    pub threads: i32,
    /// The instruction set that Fulcrum's kernels chose at run time, for example `avx512`.
    pub kernels: String,
    /// The instruction sets that ggml was built for, by its names (`AVX2`, `DOTPROD`, …).
    pub ggml: Vec<String>,
    /// Bytes that can be allocated without swapping, where the system says so (Linux and Android).
    pub available_bytes: Option<i64>,
}

/// The machine this runs on, now.
#[uniffi::export]
pub fn machine() -> Machine {
    let fulcrum::Machine { threads, kernels, ggml, available_bytes, .. } = fulcrum::Machine::here();
    Machine { threads: small(threads), kernels, ggml, available_bytes: available_bytes.map(figure) }
}

/// Stops loading a model, from any thread.
#[derive(Default, uniffi::Object)]
pub struct Cancellation(Cancel);

#[uniffi::export]
impl Cancellation {
    /// One that is not raised.
    #[uniffi::constructor]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Raises it, for good.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

/// Is told how loading goes on.
#[uniffi::export(with_foreign)]
pub trait LoadProgress: Send + Sync {
    /// How much of the model is loaded, from 0 to 1, ascending. On the loading thread: must be quick and must not throw.
    fn loaded(&self, share: f32);
}

/// A loaded model.
#[derive(uniffi::Object)]
pub struct NativeModel(Model);

#[uniffi::export]
impl NativeModel {
    /// Loads the GGUF file at `path`. Blocks: call it on a thread that may wait.
    #[uniffi::constructor]
    pub fn load(
        path: String,
        options: ModelOptions,
        cancellation: Option<Arc<Cancellation>>,
        progress: Option<Arc<dyn LoadProgress>>,
    ) -> Result<Arc<Self>> {
        crate::log::log_to_system();
        let mut options = fulcrum::ModelOptions::try_from(options)?;
        options.progress = progress.map(|progress| Arc::new(move |share| progress.loaded(share)) as fulcrum::Progress);
        options.cancel = cancellation.map_or_else(Cancel::new, |cancellation| cancellation.0.clone());
        Ok(Arc::new(Self(Model::load(path, options)?)))
    }

    /// A new conversation.
    pub fn session(&self, options: SessionOptions) -> Result<Arc<NativeSession>> {
        Ok(Arc::new(NativeSession(self.0.session(options.try_into()?)?)))
    }

    /// The same model, in whose sessions `draft` guesses ahead: the same text, sooner. Nothing is loaded again.
    pub fn with_draft(&self, draft: Arc<Self>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(self.0.with_draft(&draft.0)?)))
    }

    /// Writes what passes and drafting have cost so far to the file at `path`.
    pub fn save_profile(&self, path: String) -> Result<()> {
        Ok(self.0.save_profile(path)?)
    }

    /// Lets sessions begin with the prices that were saved.
    pub fn load_profile(&self, path: String) -> Result<()> {
        Ok(self.0.load_profile(path)?)
    }

    /// What the model is, and how it runs here.
    pub fn info(&self) -> ModelInfo {
        (&self.0).into()
    }

    /// What the model is that guesses ahead in this one's sessions, if there is one.
    pub fn draft(&self) -> Option<ModelInfo> {
        self.0.draft().map(Into::into)
    }

    /// The tokens of `text`, without one for its beginning; special tokens in it are read as such if `special`, else as text.
    pub fn tokenize(&self, text: String, special: bool) -> Result<Vec<i32>> {
        let encoding = fulcrum::tokenizer::Encoding { add_bos: false, parse_special: special };
        Ok(self.0.vocabulary().encode(&text, encoding)?.into_iter().map(small).collect())
    }

    /// The prompt that the model's chat template makes of a conversation.
    pub fn render(&self, conversation: Vec<Message>, with_tools: Vec<Tool>) -> Result<String> {
        Ok(self.0.template().render(&messages(conversation)?, &tools(with_tools)?, true)?)
    }
}

impl From<&Model> for ModelInfo {
    fn from(model: &Model) -> Self {
        let info = model.info();
        Self {
            name: info.name.clone(),
            architecture: info.architecture.clone(),
            quantization: info.quantization.clone(),
            n_parameters: figure(info.n_parameters),
            n_layers: small(info.n_layers),
            n_vocab: small(info.n_vocab),
            train_context_length: small(info.train_context_length),
            context_length: small(info.context_length),
            weight_bytes: figure(info.weight_bytes),
            executor: info.executor.clone(),
            executor_reason: info.executor_reason.clone(),
            residency: info.residency.clone().map(Into::into),
            reads_tools: model.template().reads_tools(),
            reads_tool_calls: model.template().tool_call_syntax().is_some(),
        }
    }
}

impl TryFrom<ModelOptions> for fulcrum::ModelOptions {
    type Error = crate::NativeError;

    fn try_from(options: ModelOptions) -> Result<Self> {
        let batch_size = fulcrum::ModelOptions::default().batch_size;
        let cpus = |mask: Vec<i32>| mask.into_iter().map(|cpu| count("cpu_mask", cpu)).collect::<Result<Vec<_>>>();
        Ok(Self {
            context_length: optional("context_length", options.context_length)?,
            threads: optional("threads", options.threads)?,
            priority: options.priority.unwrap_or_default(),
            cpu_mask: options.cpu_mask.map(cpus).transpose()?,
            executor: options.executor.unwrap_or_default(),
            unchecked_architecture: options.unchecked_architecture,
            kv_type: options.kv_type.unwrap_or_default(),
            kernels: options.kernels.unwrap_or_default(),
            batch_size: optional("batch_size", options.batch_size)?.unwrap_or(batch_size),
            memory_budget: options.memory_budget.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            cache_dir: options.cache_dir.map(Into::into),
            draft_model: options.draft_model.map(Into::into),
            tokenizer: options.tokenizer.map(Into::into),
            chat_template: options.chat_template,
            template_variables: options
                .template_variables
                .into_iter()
                .map(|(name, value)| Ok((name, json("template_variables", &value)?)))
                .collect::<Result<_>>()?,
            // What `NativeModel::load` is given beside the options.
            progress: None,
            cancel: Cancel::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_cores_default() {
        let options = fulcrum::ModelOptions::try_from(ModelOptions::default()).unwrap();
        assert_eq!(format!("{options:?}"), format!("{:?}", fulcrum::ModelOptions::default()));
    }

    #[test]
    fn every_option_arrives() {
        let given = ModelOptions {
            context_length: Some(1),
            threads: Some(2),
            priority: Some(ThreadPriority::Low),
            cpu_mask: Some(vec![3, 4]),
            executor: Some(ExecutorChoice::Staged),
            unchecked_architecture: true,
            kv_type: Some(KvType::Q8_0),
            kernels: Some(Kernels::Ggml),
            batch_size: Some(5),
            memory_budget: Some(MemoryBudget::Bytes(6)),
            cache_dir: Some("cache".into()),
            draft_model: Some("draft".into()),
            tokenizer: Some("tokenizer".into()),
            chat_template: Some("template".into()),
            template_variables: [("enable_thinking".into(), "false".into())].into(),
        };
        let there = fulcrum::ModelOptions::try_from(given).unwrap();
        assert_eq!((there.context_length, there.threads, there.batch_size), (Some(1), Some(2), 5));
        assert_eq!((there.priority, there.cpu_mask), (ThreadPriority::Low, Some(vec![3, 4])));
        assert_eq!((there.executor, there.unchecked_architecture), (ExecutorChoice::Staged, true));
        assert_eq!((there.kv_type, there.kernels), (KvType::Q8_0, Kernels::Ggml));
        assert_eq!(there.memory_budget, fulcrum::MemoryBudget::Bytes(6));
        let paths = ["cache", "draft", "tokenizer"].map(|path| Some(path.into()));
        assert_eq!([there.cache_dir, there.draft_model, there.tokenizer], paths);
        assert_eq!(there.chat_template.as_deref(), Some("template"));
        assert_eq!(there.template_variables, [("enable_thinking".into(), false.into())].into());
    }
}
