//! From a path to a [`Model`]: the file is read, checked, given to the executor that can run it, and joined with its vocabulary
//! and template.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ExecutorChoice, Model, ModelInfo, ModelOptions};
use crate::architecture::Architecture;
use crate::chat::ChatTemplate;
use crate::error::{ErrorKind, Result};
use crate::executor::Weights;
use crate::executor::options::ThreadOptions;
use crate::executor::staged::{StagedModel, StagedOptions, StagedWeights};
use crate::gguf::{Gguf, SplitName};
use crate::kernels::LlamaVocabulary;
use crate::kernels::mapping::Mapping;
use crate::kernels::threads::ThreadPool;
use crate::tokenizer::Vocabulary;

impl Model {
    /// Loads the GGUF file at `path`; of a split model, any of its files.
    ///
    /// # Errors
    ///
    /// `File` or `InvalidModel` if the file cannot be read or is damaged, `UnsupportedModel` if the chosen executor cannot run it,
    /// `Tokenizer` or `Template` if its text side is unusable, `InvalidOption`, `OutOfMemory`, or `Cancelled`.
    pub fn load(path: impl AsRef<Path>, options: ModelOptions) -> Result<Self> {
        let path = path.as_ref();
        let mappings = map_all(path)?;
        let parts: Vec<&[u8]> = mappings.iter().map(|m| m.bytes()).collect();
        let file = Gguf::parse_files(&parts).map_err(|e| e.in_file(mappings[e.file()].path()))?;
        let threads = Arc::new(ThreadPool::new(&thread_options(&options))?);
        let plan = Plan::choose(path, &file, options.executor)?;
        let mut info = describe(&file, &options);
        info.executor_reason = plan.reason;
        let weights: Arc<dyn Weights> = match plan.architecture {
            Some(arch) => {
                info.executor = ExecutorChoice::Staged.name().into();
                let staged = StagedOptions { threads, kv_type: options.kv_type, max_rows: options.batch_size, stage_layers: 1 << 16 };
                let mut progress = |share| options.progress.iter().for_each(|tell| tell(share));
                Arc::new(StagedWeights(StagedModel::load(arch, &file, &mappings, staged, &mut progress, &options.cancel)?))
            }
            None => todo!(),
        };
        let vocabulary: Arc<dyn Vocabulary> = Arc::new(LlamaVocabulary::load(path)?);
        let template = template(&file, &options, &*vocabulary)?;
        Ok(Self::from_parts(weights, vocabulary, template, info))
    }
}

/// Maps the file, or all files of a split model.
fn map_all(path: &Path) -> Result<Vec<Arc<Mapping>>> {
    let paths: Vec<PathBuf> = match SplitName::parse(path) {
        Some(name) => name.paths().collect(),
        None => vec![path.to_owned()],
    };
    paths.iter().map(|path| Mapping::open(path).map(Arc::new)).collect()
}

fn thread_options(options: &ModelOptions) -> ThreadOptions {
    let default = ThreadOptions::default();
    ThreadOptions {
        n_threads: options.threads.unwrap_or(default.n_threads),
        priority: options.priority,
        cpu_mask: options.cpu_mask.clone(),
        ..default
    }
}

/// Which executor runs a file, and why.
struct Plan {
    /// What the staged executor runs; `None` for llama.cpp's context.
    architecture: Option<Architecture>,
    reason: String,
}

impl Plan {
    fn choose(path: &Path, file: &Gguf<'_>, choice: ExecutorChoice) -> Result<Self> {
        if choice == ExecutorChoice::LlamaCpp {
            return Ok(Self { architecture: None, reason: "chosen in the options".into() });
        }
        match Architecture::read(file) {
            Ok(architecture) => {
                let reason = format!("the architecture `{}` is described", architecture.family.name);
                Ok(Self { architecture: Some(architecture), reason })
            }
            Err(reason) if choice == ExecutorChoice::Auto => Ok(Self { architecture: None, reason }),
            Err(reason) => {
                let reason = format!("the staged executor was chosen, but {reason}");
                Err(ErrorKind::UnsupportedModel { path: path.to_owned(), reason }.into())
            }
        }
    }
}

fn describe(file: &Gguf<'_>, options: &ModelOptions) -> ModelInfo {
    let text = |key: &str| file.find::<&str>(key).ok().flatten().map(str::to_owned);
    let architecture = text("general.architecture").unwrap_or_default();
    let number = |key: &str| file.find::<u32>(&format!("{architecture}.{key}")).ok().flatten().unwrap_or(0) as usize;
    let train_context_length = number("context_length");
    let default = train_context_length.clamp(1, ModelOptions::DEFAULT_CONTEXT_LENGTH);
    let mut bytes_by_type: HashMap<&'static str, u64> = HashMap::new();
    for tensor in file.tensors() {
        *bytes_by_type.entry(tensor.ty.name()).or_default() += tensor.size;
    }
    ModelInfo {
        name: text("general.name"),
        quantization: bytes_by_type.iter().max_by_key(|(_, bytes)| **bytes).map(|(name, _)| (*name).to_owned()),
        n_parameters: file.tensors().iter().map(|t| t.shape.n_elements()).sum(),
        n_layers: number("block_count"),
        n_vocab: file.tensor("token_embd.weight").map_or(0, |t| usize::try_from(t.shape.n_rows()).unwrap_or(0)),
        train_context_length,
        context_length: options.context_length.unwrap_or(default),
        weight_bytes: bytes_by_type.values().sum(),
        architecture,
        ..ModelInfo::default()
    }
}

fn template(file: &Gguf<'_>, options: &ModelOptions, vocabulary: &dyn Vocabulary) -> Result<ChatTemplate> {
    let source = options.chat_template.as_deref().or(file.find("tokenizer.chat_template").ok().flatten());
    let special = |token: Option<u32>| {
        let mut bytes = Vec::new();
        if let Some(token) = token {
            vocabulary.decode_token(token, true, &mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    ChatTemplate::new(source, &special(vocabulary.bos()), &special(vocabulary.eos()))
}
