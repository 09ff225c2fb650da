//! A loaded model: the one place where its parts are wired together.
//!
//! Cheap to clone, and everything made from it keeps it alive. Sessions hold what they need; nothing here runs.

#[cfg(feature = "ggml")]
mod file;
#[cfg(feature = "ggml")]
mod forecast;
#[cfg(feature = "ggml")]
mod load;
#[cfg(feature = "ggml")]
mod machine;
mod options;
#[cfg(feature = "ggml")]
mod part;
mod profile;
#[cfg(all(test, feature = "ggml"))]
mod tests;

pub use crate::executor::options::{Kernels, KvType, ThreadPriority};
#[cfg(feature = "ggml")]
pub use file::ModelFile;
#[cfg(feature = "ggml")]
pub use forecast::ResidencyForecast;
#[cfg(feature = "ggml")]
pub use machine::Machine;
pub use options::{ExecutorChoice, ModelOptions, Progress};
use profile::Engine;

use std::num::NonZeroUsize;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::chat::ChatTemplate;
use crate::draft::model::check_vocabulary;
use crate::error::Result;
use crate::executor::Weights;
use crate::residency::ResidencyInfo;
use crate::session::{ChatSession, DraftParts, ModelParts, SessionOptions};
use crate::tokenizer::Vocabulary;

/// A loaded model. Clones share everything.
#[derive(Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

struct Inner {
    parts: ModelParts,
    info: ModelInfo,
    engine: Engine,
    draft: Option<Model>,
}

/// What a model is, and how it runs here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The name in the file, if it has one.
    pub name: Option<String>,
    /// The architecture in the file, for example `llama`.
    pub architecture: String,
    /// The type that most weights have, for example `Q4_0`.
    pub quantization: Option<String>,
    /// Parameters.
    pub n_parameters: u64,
    /// Decoder layers.
    pub n_layers: usize,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Tokens of context the model was trained with.
    pub train_context_length: usize,
    /// Tokens of context a session has, unless its options say otherwise.
    pub context_length: usize,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// What runs it: `staged`, `llama.cpp` or `scripted`.
    pub executor: String,
    /// Why that, in one line.
    pub executor_reason: String,
    /// What is in memory and what is read from flash, of a model under a memory budget.
    pub residency: Option<ResidencyInfo>,
}

impl Model {
    /// A model from parts: what loading ends with, and how tests come to a model without a file.
    pub fn from_parts(
        weights: Arc<dyn Weights>,
        vocabulary: Arc<dyn Vocabulary>,
        template: ChatTemplate,
        info: ModelInfo,
    ) -> Self {
        Self::running_on(Engine::default(), weights, vocabulary, template, info)
    }

    fn running_on(
        engine: Engine,
        weights: Arc<dyn Weights>,
        vocabulary: Arc<dyn Vocabulary>,
        template: ChatTemplate,
        info: ModelInfo,
    ) -> Self {
        let parts = ModelParts::new(weights, vocabulary, Arc::new(template), info.context_length);
        Self { inner: Arc::new(Inner { parts, info, engine, draft: None }) }
    }

    /// The same model, whose sessions let `draft` guess ahead: a model several times smaller, of the same vocabulary. Answers come
    /// faster where it guesses well, and are the same. Nothing is loaded again; each session has a context for either model.
    ///
    /// # Errors
    ///
    /// `InvalidOption` unless every token is the same text in both vocabularies, naming the first that is not.
    pub fn with_draft(&self, draft: &Self) -> Result<Self> {
        check_vocabulary(&**self.vocabulary(), &**draft.vocabulary())?;
        let context_length = NonZeroUsize::new(draft.info().context_length).map_or(usize::MAX, NonZeroUsize::get);
        let parts = ModelParts {
            draft: Some(DraftParts { weights: Arc::clone(draft.weights()), context_length }),
            experience: Arc::default(),
            ..self.inner.parts.clone()
        };
        let (info, engine) = (self.info().clone(), self.inner.engine.clone());
        Ok(Self { inner: Arc::new(Inner { parts, info, engine, draft: Some(draft.clone()) }) })
    }

    /// A new conversation, independent of all others.
    ///
    /// # Errors
    ///
    /// Those of [`ChatSession::new`].
    pub fn session(&self, options: SessionOptions) -> Result<ChatSession> {
        ChatSession::new(self.inner.parts.clone(), options)
    }

    /// What the model is, and how it runs here.
    pub fn info(&self) -> &ModelInfo {
        &self.inner.info
    }

    /// The model that guesses ahead in this one's sessions, if there is one.
    pub fn draft(&self) -> Option<&Model> {
        self.inner.draft.as_ref()
    }

    /// The model's vocabulary.
    pub fn vocabulary(&self) -> &Arc<dyn Vocabulary> {
        &self.inner.parts.vocabulary
    }

    /// The model's chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.inner.parts.template
    }

    /// The model's weights, for programs that run an executor themselves.
    pub fn weights(&self) -> &Arc<dyn Weights> {
        &self.inner.parts.weights
    }
}
