//! What an app gets back.

use fulcrum::FinishReason;

use crate::message::ToolCall;
use crate::metrics::GenerationMetrics;
use crate::number::small;

/// What ended a generation.
#[uniffi::remote(Enum)]
pub enum FinishReason {
    /// The model ended its turn.
    EndOfTurn,
    /// A stop string was generated.
    StopString,
    /// As many tokens as were allowed.
    MaxTokens,
    /// The context has no room for another token.
    ContextFull,
}

/// An answer that came to its end.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct Response {
    /// The text: the pieces of the stream, joined. Calls of tools are no part of it.
    pub text: String,
    /// The tools that the model calls, in order. The app runs them and answers with their results, all at once and before anything else
    /// is asked: some templates refuse a conversation with a call that has no result.
    pub tool_calls: Vec<ToolCall>,
    /// The tokens generated, without the one that ended the turn; those of a stop string are among them.
    pub tokens: Vec<i32>,
    /// What ended it.
    pub finish_reason: FinishReason,
    /// Its figures.
    pub metrics: GenerationMetrics,
    /// One per token, if log-probabilities were asked for; else empty.
    pub logprobs: Vec<Choice>,
    /// The seed it was sampled with: given again, it gives the same answer to the same prompt.
    pub seed: u64,
    /// Messages at the beginning of the history that were left out of the prompt.
    pub dropped_messages: i32,
}

/// A chosen token.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct Choice {
    /// The token.
    pub token: i32,
    /// Its log-probability under the model, before sampling settings.
    pub logprob: Option<f32>,
    /// The most probable tokens, the most probable first.
    pub top: Vec<TokenLogprob>,
}

/// A token and how probable it was.
#[derive(Clone, Copy, Debug, PartialEq, uniffi::Record)]
pub struct TokenLogprob {
    /// The token.
    pub token: i32,
    /// Its log-probability.
    pub logprob: f32,
}

impl From<fulcrum::Choice> for Choice {
    fn from(choice: fulcrum::Choice) -> Self {
        let candidate = |top: fulcrum::TokenLogprob| TokenLogprob { token: small(top.token), logprob: top.logprob };
        Self {
            token: small(choice.token),
            logprob: choice.logprob,
            top: choice.top.into_iter().map(candidate).collect(),
        }
    }
}

impl From<fulcrum::Response> for Response {
    fn from(response: fulcrum::Response) -> Self {
        Self {
            text: response.text,
            tool_calls: response.tool_calls.into_iter().map(Into::into).collect(),
            tokens: response.tokens.into_iter().map(small).collect(),
            finish_reason: response.finish_reason,
            metrics: response.metrics.into(),
            logprobs: response.logprobs.into_iter().map(Into::into).collect(),
            seed: response.seed,
            dropped_messages: small(response.dropped_messages),
        }
    }
}
