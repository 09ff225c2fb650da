//! From a path to a [`Model`]: the file is checked, given to the executor that runs it, and joined with its vocabulary and
//! template.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::file::Route;
use super::machine::Machine;
use super::part::Part;
use super::profile::Engine;
use super::{Model, ModelFile, ModelInfo, ModelOptions};
use crate::chat::ChatTemplate;
use crate::error::{ErrorKind, Result};
use crate::executor::Weights;
use crate::executor::llama::{LlamaOptions, LlamaWeights};
use crate::executor::memory::{available_memory, check_available};
use crate::executor::options::{Kernels, ThreadOptions, check_sizes};
use crate::executor::staged::{StagedModel, StagedOptions, StagedWeights, Within};
use crate::gguf::Gguf;
use crate::gguf::validate::validate;
use crate::kernels::LlamaVocabulary;
use crate::kernels::threads::ThreadPool;
use crate::residency::source::ReadBlocks;
use crate::tokenizer::{TokenizerJson, Vocabulary};

/// Opens a model's files to be read past the page cache.
type OpenFiles<'a> = dyn Fn(&ModelFile) -> Result<Vec<Arc<dyn ReadBlocks>>> + 'a;

impl Model {
    /// Loads the GGUF file at `path`; of a split model, any of its files. With it the draft model, if the options name one.
    ///
    /// # Errors
    ///
    /// `File` or `InvalidModel` if the file cannot be read or is damaged, `UnsupportedModel` if the chosen executor cannot run it,
    /// `Tokenizer` or `Template` if its text side is unusable, `InvalidOption`, `OutOfMemory`, or `Cancelled`.
    /// `InvalidOption` also for a draft model of another vocabulary.
    pub fn load(path: impl AsRef<Path>, options: ModelOptions) -> Result<Self> {
        Self::load_reading(path.as_ref(), &options, &ModelFile::direct)
    }

    /// As [`load`](Self::load), with the model's files that are read past the page cache opened by `open`.
    pub(super) fn load_reading(path: &Path, options: &ModelOptions, open: &OpenFiles<'_>) -> Result<Self> {
        // One pool for both models, which run in turns: two would spin against each other.
        let threads = Arc::new(ThreadPool::new(&thread_options(options))?);
        let budget = options.memory_budget.bytes(available_memory())?;
        let own = ModelOptions { progress: None, chat_template: None, tokenizer: None, ..options.clone() };
        let draft = Loading { options: &own, threads: &threads, budget, part: Part::Draft, open: &ModelFile::direct };
        let draft = options.draft_model.as_ref().map(|path| draft.load(path)).transpose()?;
        // The draft is in memory as a whole, and what it takes is taken first.
        let taken = draft.as_ref().and_then(|draft| draft.info().residency.as_ref());
        if let Some(too_small) = taken.filter(|residency| residency.streamed_layers > 0) {
            let (what, available) = ("the draft model under the memory budget", Some(too_small.budget));
            let needed = too_small.memory + too_small.streamed_bytes;
            return Err(ErrorKind::OutOfMemory { what, needed, available }.into());
        }
        let budget = budget.map(|budget| budget - taken.map_or(0, |residency| residency.memory));
        let model = Loading { options, threads: &threads, budget, part: Part::Target, open }.load(path)?;
        match draft {
            Some(draft) => model.with_draft(&draft),
            None => Ok(model),
        }
    }
}

/// What one model is loaded with.
struct Loading<'a> {
    options: &'a ModelOptions,
    threads: &'a Arc<ThreadPool>,
    /// Bytes it may take, if there is a limit.
    budget: Option<u64>,
    part: Part,
    open: &'a OpenFiles<'a>,
}

impl Loading<'_> {
    fn load(&self, path: &Path) -> Result<Model> {
        let Self { options, threads, budget, .. } = *self;
        let file = ModelFile::open(path)?;
        let gguf = file.gguf()?;
        validate(&gguf).map_err(|unusable| unusable.in_file(file.path()))?;
        let (route, reason) = file.route(&gguf, options)?;
        let mut info = describe(&gguf, options);
        check_sizes(info.context_length, options.batch_size)?;
        info.context_length = self.part.n_cells(info.context_length);
        warn_beyond_training(path, &info);
        if budget.is_none() {
            check_available("the model's weights", info.weight_bytes)?;
        }
        info.executor_reason = reason;
        info.executor = route.name().to_owned();
        let tokenizer = options.tokenizer.as_deref().map(|path| tokenizer(path, &gguf)).transpose()?;
        let (weights, vocabulary) = match route {
            Route::Staged(architecture) => {
                let settings = staged_options(options, threads);
                let mut progress = |share| tell(options, share);
                let (parts, cancel) = (file.parts(), &options.cancel);
                let model = match budget {
                    None => StagedModel::load(*architecture, &gguf, parts, settings, &mut progress, cancel)?,
                    Some(budget) => {
                        let within = Within {
                            budget,
                            beside: self.part.beside(),
                            n_cells: info.context_length,
                            model: file.first(),
                            files: (self.open)(&file)?,
                            folder: options.cache_dir.as_deref(),
                            progress: &mut progress,
                            cancel,
                        };
                        StagedModel::load_within(*architecture, &gguf, settings, within)?
                    }
                };
                info.residency = model.residency().map(|residency| residency.info().clone());
                let weights: Arc<dyn Weights> = Arc::new(StagedWeights(model));
                let vocabulary = match tokenizer {
                    Some(tokenizer) => tokenizer,
                    None => {
                        // llama.cpp opens it by its name, and what it reads was checked as long as it is the same.
                        file.check()?;
                        Arc::new(LlamaVocabulary::load(file.first())?)
                    }
                };
                (weights, vocabulary)
            }
            Route::LlamaCpp if options.kernels == Kernels::Own => {
                let reason =
                    format!("`own` needs the staged executor, and llama.cpp runs this model: {}", info.executor_reason);
                return Err(ErrorKind::InvalidOption { option: "kernels", reason }.into());
            }
            Route::LlamaCpp if budget.is_some() => {
                let reason = format!("llama.cpp's context cannot keep one ({}); leave it out", info.executor_reason);
                return Err(ErrorKind::InvalidOption { option: "memory_budget", reason }.into());
            }
            Route::LlamaCpp => {
                let settings = llama_options(options);
                let mut progress = |share| tell(options, share);
                file.check()?;
                let weights = LlamaWeights::load(file.parts(), settings, &options.cancel, &mut progress)?;
                let vocabulary = match tokenizer {
                    Some(tokenizer) => tokenizer,
                    None => Arc::new(weights.vocabulary()?),
                };
                let weights: Arc<dyn Weights> = Arc::new(weights);
                (weights, vocabulary)
            }
        };
        let template = template(&gguf, options, &*vocabulary)?;
        let engine = engine(options, threads, &info);
        Ok(Model::running_on(engine, weights, vocabulary, template, info))
    }
}

fn engine(options: &ModelOptions, threads: &ThreadPool, info: &ModelInfo) -> Engine {
    let Machine { kernels, ggml, .. } = Machine::here();
    let streams = info.residency.as_ref().is_some_and(|residency| residency.streamed_bytes > 0);
    Engine {
        device: format!("{} {kernels} {}", std::env::consts::ARCH, ggml.join(" ")),
        backend: format!(
            "{} {} {:?} kernels {:?} cache streams {streams}",
            env!("CARGO_PKG_VERSION"),
            info.executor,
            options.kernels,
            options.kv_type
        ),
        threads: threads.n_threads(),
    }
}

fn warn_beyond_training(path: &Path, info: &ModelInfo) {
    let (trained, wanted) = (info.train_context_length, info.context_length);
    if (1..wanted).contains(&trained) {
        log::warn!("{}: trained for {trained} tokens; past them, in {wanted}, text may make no sense", path.display());
    }
}

fn tell(options: &ModelOptions, share: f32) {
    if let Some(progress) = &options.progress {
        progress(share);
    }
}

/// Threads beyond the processors would wait for each other at spinning barriers: an answer would take minutes.
pub(super) fn thread_options(options: &ModelOptions) -> ThreadOptions {
    let default = ThreadOptions::default();
    let wanted = options.threads.unwrap_or(default.n_threads);
    let too_many = wanted > default.n_threads && wanted <= ThreadOptions::MAX;
    if too_many {
        log::warn!("{wanted} threads are asked for and {} used: there are no processors for more", default.n_threads);
    }
    ThreadOptions {
        n_threads: if too_many { default.n_threads } else { wanted },
        priority: options.priority,
        cpu_mask: options.cpu_mask.clone(),
        ..default
    }
}

pub(super) fn staged_options(options: &ModelOptions, threads: &Arc<ThreadPool>) -> StagedOptions {
    StagedOptions {
        threads: Arc::clone(threads),
        kv_type: options.kv_type,
        max_rows: options.batch_size,
        kernels: options.kernels,
        stage_layers: usize::MAX,
    }
}

fn llama_options(options: &ModelOptions) -> LlamaOptions {
    LlamaOptions { max_rows: options.batch_size, kv_type: options.kv_type, threads: thread_options(options) }
}

pub(super) fn describe(gguf: &Gguf<'_>, options: &ModelOptions) -> ModelInfo {
    let text = |key: &str| gguf.find::<&str>(key).ok().flatten().map(str::to_owned);
    let architecture = text("general.architecture").unwrap_or_default();
    let number = |key: &str| gguf.find::<u32>(&format!("{architecture}.{key}")).ok().flatten().unwrap_or(0) as usize;
    let train_context_length = number("context_length");
    let default = train_context_length.clamp(1, ModelOptions::DEFAULT_CONTEXT_LENGTH);
    let mut bytes_by_type: HashMap<&'static str, u64> = HashMap::new();
    for tensor in gguf.tensors() {
        *bytes_by_type.entry(tensor.ty.name()).or_default() += tensor.size;
    }
    let most = bytes_by_type.iter().max_by_key(|(name, bytes)| (**bytes, **name));
    ModelInfo {
        name: text("general.name"),
        quantization: most.map(|(name, _)| (*name).to_owned()),
        n_parameters: gguf.tensors().iter().map(|t| t.shape.n_elements()).sum(),
        n_layers: number("block_count"),
        n_vocab: gguf.tensor("token_embd.weight").map_or(0, |t| usize::try_from(t.shape.n_rows()).unwrap_or(0)),
        train_context_length,
        context_length: options.context_length.unwrap_or(default),
        weight_bytes: bytes_by_type.values().sum(),
        architecture,
        ..ModelInfo::default()
    }
}

/// The vocabulary of a `tokenizer.json`, with what the model's file says about the ends of a text.
fn tokenizer(path: &Path, gguf: &Gguf<'_>) -> Result<Arc<dyn Vocabulary>> {
    let mut vocabulary = TokenizerJson::load(path)?;
    let embedded = gguf.tensor("token_embd.weight").map_or(0, |t| t.shape.n_rows());
    // Matrices are often padded to more rows than there are tokens.
    if vocabulary.n_tokens() as u64 > embedded {
        let reason = format!(
            "{} has {} tokens and the model {embedded}; pass the tokenizer.json that belongs to the model",
            path.display(),
            vocabulary.n_tokens()
        );
        return Err(ErrorKind::Tokenizer { reason }.into());
    }
    let token = |key: &str| gguf.find::<u32>(&format!("tokenizer.ggml.{key}_token_id")).ok().flatten();
    if gguf.find::<bool>("tokenizer.ggml.add_bos_token").ok().flatten() == Some(false) {
        vocabulary = vocabulary.with_bos(None);
    } else if let Some(bos) = token("bos") {
        vocabulary = vocabulary.with_bos(Some(bos));
    }
    for end in ["eot", "eos"].into_iter().filter_map(token) {
        vocabulary = vocabulary.with_eos(end);
    }
    Ok(Arc::new(vocabulary))
}

fn template(gguf: &Gguf<'_>, options: &ModelOptions, vocabulary: &dyn Vocabulary) -> Result<ChatTemplate> {
    let source = options.chat_template.as_deref().or(gguf.find("tokenizer.chat_template").ok().flatten());
    let special = |token: Option<u32>| {
        let mut bytes = Vec::new();
        if let Some(token) = token {
            vocabulary.decode_token(token, true, &mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let template = ChatTemplate::new(source, &special(vocabulary.bos()), &special(vocabulary.eos()))?;
    Ok(options.template_variables.iter().fold(template, |template, (name, value)| template.with_variable(name, value)))
}
