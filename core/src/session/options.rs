//! What an app may ask of a session and of one answer, and what it gets back.

use serde::{Deserialize, Serialize};

use crate::chat::{Tool, ToolCall};
use crate::decode::FinishReason;
use crate::error::{ErrorKind, Result};
use crate::metrics::GenerationMetrics;
use crate::sampling::{Choice, SamplerSettings};
use crate::speculation::Drafting;
use crate::token::Token;

/// Settings of a session. They can differ between sessions of one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionOptions {
    /// Instructions to the model, in front of every conversation.
    pub system_prompt: Option<String>,
    /// Tools that the chat template tells the model of.
    pub tools: Vec<Tool>,
    /// Tokens the session's context holds. `None`: the model's setting. The cache is allocated when the session begins.
    pub context_length: Option<usize>,
    /// What to do when the conversation outgrows the context.
    pub context_overflow: ContextOverflow,
    /// Settings of answers that are asked for without any.
    pub generation: GenerationOptions,
}

/// Settings of one answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationOptions {
    /// How tokens are chosen; log-probabilities are asked for here too.
    pub sampler: SamplerSettings,
    /// Tokens an answer may have, at least 1. `None`: as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Strings that end the answer. They are never shown and no part of it.
    pub stop: Vec<String>,
    /// How much to speculate. It changes how fast the answer comes and nothing else, but for a `Chain` on kernels that are not ours.
    pub drafting: Drafting,
}

/// What to do when a prompt does not fit into the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextOverflow {
    /// The turn fails with `ContextFull` and the session is as before.
    #[default]
    Error,
    /// The oldest turns are left out of the prompt, whole turns only, until it fits and leaves room to answer: for `max_tokens`,
    /// but no more than a quarter of the context. The system prompt and the new message stay. [`history`] still has everything.
    /// Fails with `ContextFull` if the system prompt and the new message alone do not fit.
    ///
    /// [`history`]: super::ChatSession::history
    DropOldestTurns,
}

/// An answer that came to its end.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Response {
    /// The text: the pieces of the stream, joined. Calls of tools are no part of it.
    pub text: String,
    /// The tools that the model calls, in order: the app runs them and gives their results to
    /// [`stream_messages`](super::ChatSession::stream_messages), all at once and before anything else is asked: some templates
    /// refuse a conversation with a call that has no result.
    pub tool_calls: Vec<ToolCall>,
    /// The tokens generated, without the one that ended the turn; those of a stop string are among them.
    pub tokens: Vec<Token>,
    /// What ended it.
    pub finish_reason: FinishReason,
    /// Its figures.
    pub metrics: GenerationMetrics,
    /// One per token, if [`SamplerSettings::logprobs`] asked for them; else empty.
    pub logprobs: Vec<Choice>,
    /// The seed it was sampled with: given again, it gives the same answer to the same prompt.
    pub seed: u64,
    /// Messages at the beginning of the history that were left out of the prompt.
    pub dropped_messages: usize,
}

impl GenerationOptions {
    /// The number of tokens that is never exceeded.
    pub(super) fn token_limit(&self) -> Result<usize> {
        match self.max_tokens {
            Some(0) => {
                Err(ErrorKind::InvalidOption { option: "max_tokens", reason: "0 must be 1 or more".into() }.into())
            }
            limit => Ok(limit.unwrap_or(usize::MAX)),
        }
    }
}
