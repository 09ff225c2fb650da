//! From chosen tokens to text that may be shown, and when to end.
//!
//! Bytes wait until they are whole code points, text waits while it may become a stop string. What is left waits for the end of
//! the pass that chose it, so that nothing is shown that is not committed, and then goes to the sink. The sink may block: that
//! is back-pressure.

use serde::{Deserialize, Serialize};

use super::Generated;
use crate::error::Result;
use crate::sampling::Choice;
use crate::stop::StopStrings;
use crate::token::Token;
use crate::tokenizer::{DecodeStream, Vocabulary};

/// What ended a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// Takes pieces of text, never empty, always valid UTF-8. An error ends the generation.
pub type Sink<'a> = dyn FnMut(&str) -> Result<()> + 'a;

/// The text of one generation, as far as it has come.
pub struct Output<'a> {
    vocabulary: &'a dyn Vocabulary,
    sink: &'a mut Sink<'a>,
    max_tokens: usize,
    stops: StopStrings,
    stream: DecodeStream,
    bytes: Vec<u8>,
    text: String,
    /// Bytes of `text` that were shown.
    shown: usize,
    tokens: Vec<Token>,
    logprobs: Vec<Choice>,
}

impl<'a> Output<'a> {
    /// No text yet. Ends with `stops` or after `max_tokens` tokens, and hands pieces of text to `sink`.
    pub fn new(vocabulary: &'a dyn Vocabulary, stops: StopStrings, max_tokens: usize, sink: &'a mut Sink<'a>) -> Self {
        Self {
            vocabulary,
            sink,
            max_tokens,
            stops,
            stream: DecodeStream::new(),
            bytes: Vec::new(),
            text: String::new(),
            shown: 0,
            tokens: Vec::new(),
            logprobs: Vec::new(),
        }
    }

    /// Tokens so far.
    pub fn n_tokens(&self) -> u64 {
        self.tokens.len() as u64
    }

    /// Tokens that may still come, at least 1 as long as nothing has ended it.
    pub fn n_left(&self) -> usize {
        self.max_tokens - self.tokens.len().min(self.max_tokens)
    }

    /// Takes the next token. Returns what ends the generation, if this token does.
    pub fn take(&mut self, choice: Choice) -> Option<FinishReason> {
        if self.vocabulary.is_end_of_generation(choice.token) {
            return Some(FinishReason::EndOfTurn);
        }
        self.bytes.clear();
        self.vocabulary.decode_token(choice.token, false, &mut self.bytes);
        self.tokens.push(choice.token);
        if choice.logprob.is_some() {
            self.logprobs.push(choice);
        }
        let piece = self.stops.push(self.stream.push(&self.bytes));
        self.text.push_str(&piece.text);
        match piece.stopped {
            Some(_) => Some(FinishReason::StopString),
            None if self.tokens.len() >= self.max_tokens => Some(FinishReason::MaxTokens),
            None => None,
        }
    }

    /// Shows what has come since the last time.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn show(&mut self) -> Result<()> {
        if self.shown == self.text.len() {
            return Ok(());
        }
        let piece = &self.text[self.shown..];
        self.shown = self.text.len();
        (self.sink)(piece)
    }

    /// Ends the text: what was held back is shown, unless it is a stop string.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn finish(mut self, mut finish_reason: FinishReason) -> Result<Generated> {
        let piece = self.stops.push(self.stream.finish());
        self.text.push_str(&piece.text);
        if piece.stopped.is_some() {
            finish_reason = FinishReason::StopString;
        }
        self.text.push_str(&self.stops.finish());
        self.show()?;
        Ok(Generated { text: self.text, tokens: self.tokens, logprobs: self.logprobs, finish_reason })
    }
}
