//! Conversations with a model: history, turns as transactions, a worker thread, cancel.
//!
//! A turn either comes to its end, and then it is history, or it leaves no trace: after a cancel, an error or an overflow the
//! session is as it was before the user's message, and ready for the next one at once. Whoever asks gets exactly one end.
//!
//! A stream is an owned value, not a borrow of the session: bindings need it so, and with it every method takes `&self` and can be
//! called from any thread. The price is that asking twice at the same time is an error at run time, `Busy`.
//!
//! Deliberately not known here: how models are loaded, kernels, files.

mod conversation;
mod core;
mod options;
mod prompt;
mod stream;
mod turn;
mod worker;

pub use options::{ContextOverflow, GenerationOptions, Response, SessionOptions};
pub use stream::{Canceller, Events, ResponseStream};

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use parking_lot::Mutex;

use self::core::{Core, Shared};
use self::worker::{Answerer, Job, Prompt, Request};
use crate::chat::{ChatTemplate, Message, Tool};
use crate::decode::Ledger;
use crate::draft::ModelDrafter;
use crate::draft::store::{MAX_BYTES, SavedDrafts, vocabulary_hash};
use crate::error::{ErrorKind, Result};
use crate::executor::{ExecutorShape, Weights};
use crate::growth::Limits;
use crate::metrics::SessionMetrics;
use crate::sampling::Sampler;
use crate::small_file;
use crate::speculation::{Drafting, Experience, Speculation};
use crate::stop::StopStrings;
use crate::tokenizer::{Encoding, Vocabulary};

/// What a session needs of a model. Cheap to clone.
#[derive(Clone)]
pub struct ModelParts {
    /// Makes the session's executor.
    pub weights: Arc<dyn Weights>,
    /// Text to tokens and back.
    pub vocabulary: Arc<dyn Vocabulary>,
    /// Messages to prompts.
    pub template: Arc<ChatTemplate>,
    /// Tokens a session's context holds, unless its options say otherwise.
    pub context_length: usize,
    /// The model that drafts, if there is one; its vocabulary is the same.
    pub draft: Option<DraftParts>,
    /// What drafting has taught the model's sessions so far: a new one begins with it, every turn leaves its own.
    pub experience: Arc<Mutex<Experience>>,
}

/// What a session needs of a model that drafts.
#[derive(Clone)]
pub struct DraftParts {
    /// Makes the executor.
    pub weights: Arc<dyn Weights>,
    /// Tokens its context holds at most.
    pub context_length: usize,
}

impl ModelParts {
    /// The parts of a model without a draft model, in which nothing was learnt yet.
    pub fn new(
        weights: Arc<dyn Weights>,
        vocabulary: Arc<dyn Vocabulary>,
        template: Arc<ChatTemplate>,
        context_length: usize,
    ) -> Self {
        Self { weights, vocabulary, template, context_length, draft: None, experience: Arc::default() }
    }
}

/// A conversation with a model. Sessions of one model share its weights and run independently of each other.
///
/// All methods can be called from any thread. One answer is generated at a time; asking for another while its stream is open
/// (neither ended, nor cancelled, nor dropped) fails with `Busy`, and so does changing the conversation.
///
/// Dropping the session's last handle (the session or a stream) waits until its worker has stopped, at most one stage of the
/// executor.
pub struct ChatSession {
    core: Arc<Core>,
    options: SessionOptions,
    vocabulary: Arc<dyn Vocabulary>,
    n_vocab: usize,
}

impl ChatSession {
    /// A session with an empty history.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` if the context's cache cannot be allocated, `InvalidOption` for a context of no tokens.
    pub fn new(mut parts: ModelParts, options: SessionOptions) -> Result<Self> {
        parts.context_length = options.context_length.unwrap_or(parts.context_length);
        if parts.context_length == 0 {
            let reason = "0 must be 1 or more".to_owned();
            return Err(ErrorKind::InvalidOption { option: "context_length", reason }.into());
        }
        let ledger = Ledger::new(parts.weights.executor(parts.context_length)?)?;
        let (capacity, n_vocab) = (ledger.shape().n_cells, ledger.shape().n_vocab);
        let shared = Arc::new(Shared::default());
        shared.edit(|conversation| {
            conversation.system.clone_from(&options.system_prompt);
            conversation.tools.clone_from(&options.tools);
        })?;
        let overflow = options.context_overflow;
        let vocabulary = Arc::clone(&parts.vocabulary);
        let speculation = speculation_for(ledger.shape(), &parts)?;
        let answerer =
            Answerer { parts, shared: Arc::clone(&shared), overflow, capacity, ledger: Some(ledger), speculation };
        let worker = answerer.start()?;
        Ok(Self { core: Arc::new(Core::new(shared, worker)), options, vocabulary, n_vocab })
    }

    /// Answers `prompt` with the session's settings and waits for the end.
    ///
    /// # Errors
    ///
    /// Those of [`stream_messages`](Self::stream_messages) and what ends the turn: `Cancelled`, `ContextFull`, `Template`,
    /// `Tokenizer`, `Backend`, `OutOfMemory`, `Closed`.
    pub fn respond(&self, prompt: &str) -> Result<Response> {
        self.stream_response(prompt)?.finish()
    }

    /// Like [`respond`](Self::respond), with settings for this answer.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn respond_with(&self, prompt: &str, options: &GenerationOptions) -> Result<Response> {
        self.stream_response_with(prompt, options)?.finish()
    }

    /// Answers `prompt` with the session's settings, piece by piece.
    ///
    /// # Errors
    ///
    /// Those of [`stream_messages`](Self::stream_messages). What goes wrong later ends the stream.
    pub fn stream_response(&self, prompt: &str) -> Result<ResponseStream> {
        self.stream_response_with(prompt, &self.options.generation)
    }

    /// Like [`stream_response`](Self::stream_response), with settings for this answer.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn stream_response_with(&self, prompt: &str, options: &GenerationOptions) -> Result<ResponseStream> {
        self.stream_messages(vec![Message::user(prompt)], options)
    }

    /// Answers the conversation followed by `messages`, for example the results of tools that the last answer
    /// [called](Response::tool_calls), each a [`Message::tool_result`]. They become history with the answer.
    ///
    /// # Errors
    ///
    /// `Busy`, `Closed`, and `InvalidOption` for settings that cannot be used or an empty list.
    pub fn stream_messages(&self, messages: Vec<Message>, options: &GenerationOptions) -> Result<ResponseStream> {
        if messages.is_empty() {
            return Err(ErrorKind::InvalidOption { option: "messages", reason: "there are none".into() }.into());
        }
        self.begin(Prompt::Messages(messages.clone()), Some(messages), options)
    }

    /// Continues `text` as it stands, without template and history; neither changes. Special tokens in it are read as such.
    ///
    /// # Errors
    ///
    /// Those of [`stream_messages`](Self::stream_messages).
    pub fn complete(&self, text: &str, options: &GenerationOptions) -> Result<ResponseStream> {
        self.begin(Prompt::Text(text.to_owned()), None, options)
    }

    fn begin(
        &self,
        prompt: Prompt,
        messages: Option<Vec<Message>>,
        options: &GenerationOptions,
    ) -> Result<ResponseStream> {
        let request = Request {
            prompt,
            sampler: Sampler::new(&options.sampler, self.n_vocab)?,
            stops: StopStrings::new(options.stop.clone())?,
            max_tokens: options.token_limit()?,
            drafting: options.drafting,
            asked: Instant::now(),
        };
        let turn = self.core.begin(request)?;
        Ok(ResponseStream::new(Arc::clone(&self.core), turn, messages))
    }

    /// Lets answers be drafted from `text` too, from the next one on: what the app expects the model to quote. It is no part of
    /// the conversation, and no answer changes with it. The oldest text is forgotten when there is more than 65,536 tokens.
    ///
    /// # Errors
    ///
    /// `Tokenizer` if the text cannot be encoded, `Closed`.
    pub fn add_context(&self, text: &str) -> Result<()> {
        let tokens = self.vocabulary.encode(text, Encoding { add_bos: false, parse_special: false })?;
        self.core.send(Job::Context(tokens))
    }

    /// Writes what answers are drafted from to the file at `path`, for [`load_drafts`](Self::load_drafts) in a later session, so that
    /// it is fast from its first answer on. The file holds text of the conversation and of what was handed in, token by token: it is
    /// as private as they are. At most 13 MB, mostly far less; written whole or not at all.
    ///
    /// # Errors
    ///
    /// `Busy` while an answer is generated, `Closed`, and `File`.
    pub fn save_drafts(&self, path: impl AsRef<Path>) -> Result<()> {
        let (to, saved) = channel();
        self.core.shared.edit(|_| self.core.send(Job::Save(to)))??;
        let saved: SavedDrafts = saved.recv().map_err(|_| ErrorKind::Closed)?;
        small_file::write(path.as_ref(), &saved.encode(vocabulary_hash(&*self.vocabulary)))
    }

    /// Lets answers be drafted from what a session of a model with the same vocabulary [saved](Self::save_drafts) too, from the next
    /// one on. No answer changes with it.
    ///
    /// # Errors
    ///
    /// `File` if it cannot be read, `InvalidOption` if it is something else, damaged, of another version or of another vocabulary: an
    /// app may well go on without it. `Closed`.
    pub fn load_drafts(&self, path: impl AsRef<Path>) -> Result<()> {
        let bytes = small_file::read(path.as_ref(), MAX_BYTES)?;
        let saved = SavedDrafts::decode(&bytes, vocabulary_hash(&*self.vocabulary), self.n_vocab)?;
        self.core.send(Job::Restore(Box::new(saved)))
    }

    /// Cancels the answer that is being generated, if there is one. To be sure which one, use [`ResponseStream::canceller`].
    pub fn cancel(&self) {
        self.core.shared.cancel();
    }

    /// The conversation so far: the system prompt, if there is one, and the turns that came to their end. Serialisable; give it
    /// to [`restore_history`](Self::restore_history) to go on later.
    pub fn history(&self) -> Vec<Message> {
        self.core.shared.conversation().history()
    }

    /// Replaces the conversation; a system message at its beginning becomes the system prompt, without one there is none.
    ///
    /// # Errors
    ///
    /// `Busy`. That the history fits into the context shows at the next prompt.
    pub fn restore_history(&self, messages: Vec<Message>) -> Result<()> {
        self.core.shared.edit(|conversation| conversation.restore(messages))
    }

    /// Forgets all turns, also as something to draft from; system prompt, tools and text that was handed in stay.
    ///
    /// # Errors
    ///
    /// `Busy`.
    pub fn reset(&self) -> Result<()> {
        self.core.shared.edit(|conversation| {
            conversation.messages.clear();
            conversation.dropped = 0;
            // A closed session has forgotten everything already.
            let _ = self.core.send(Job::Forget);
        })
    }

    /// Replaces the system prompt. The next prompt is run again from there on.
    ///
    /// # Errors
    ///
    /// `Busy`.
    pub fn set_system_prompt(&self, system_prompt: Option<&str>) -> Result<()> {
        self.core.shared.edit(|conversation| conversation.system = system_prompt.map(str::to_owned))
    }

    /// Replaces the tools that the chat template tells the model of.
    ///
    /// # Errors
    ///
    /// `Busy`.
    pub fn set_tools(&self, tools: Vec<Tool>) -> Result<()> {
        self.core.shared.edit(|conversation| conversation.tools = tools)
    }

    /// The figures of all generations so far, those that were rolled back included. A cancelled one is counted when the worker
    /// has stopped, and in any case before the next one begins.
    pub fn metrics(&self) -> SessionMetrics {
        self.core.shared.metrics()
    }

    /// The settings the session was made with.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// Cancels the answer that is being generated and ends the session: waits until its worker has stopped and its memory is
    /// free. Every later prompt fails with `Closed`; history and metrics can still be read. Closing twice does nothing.
    pub fn close(&self) {
        self.core.close();
    }
}

fn speculation_for(shape: &ExecutorShape, parts: &ModelParts) -> Result<Speculation> {
    if !shape.forgets_rows {
        log::info!("nothing is drafted: the model has a running state, which rejected rows would spoil");
    }
    if !shape.invariant_rows {
        log::info!("nothing is drafted by default: with these kernels that could turn a near-tie");
    }
    let experience = parts.experience.lock().clone();
    let ends = (0..).take(parts.vocabulary.n_tokens()).filter(|&token| parts.vocabulary.is_end_of_generation(token));
    let speculation = Speculation::new(Drafting::default(), Limits::default(), shape.n_vocab, experience);
    let speculation = speculation.with_ends(ends.collect());
    Ok(match &parts.draft {
        None => speculation,
        Some(draft) => {
            let n_cells = parts.context_length.min(draft.context_length).min(ModelDrafter::CELLS);
            let executor = draft.weights.executor(n_cells)?;
            speculation.with_model(Box::new(ModelDrafter::new(executor, shape.n_vocab)))
        }
    })
}
