//! From chosen tokens to text that may be shown, and when to end.
//!
//! Bytes wait until they are whole code points, text waits while it may become a stop string, or a call of a tool where there are
//! tools. What is left waits for the end of the pass that chose it, so that nothing is shown that is not committed, and then goes to
//! the sink. The sink may block: that is back-pressure.

use serde::{Deserialize, Serialize};

use super::Generated;
use crate::chat::{Event, ToolCall, ToolCallReader};
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

/// Takes what is shown. An error ends the generation.
pub type Sink<'a> = dyn FnMut(Event) -> Result<()> + 'a;

/// How calls of tools are found in a generation.
pub struct ToolCalls {
    /// Finds them in the text.
    pub reader: ToolCallReader,
    /// Control tokens that stand around calls. They are part of the text, which other control tokens are not.
    pub markers: Vec<Token>,
}

/// The text of one generation, as far as it has come.
pub struct Output<'a> {
    vocabulary: &'a dyn Vocabulary,
    sink: &'a mut Sink<'a>,
    max_tokens: usize,
    stops: StopStrings,
    stream: DecodeStream,
    bytes: Vec<u8>,
    tools: Option<ToolCalls>,
    /// What has come and was not shown yet.
    new: String,
    text: String,
    tool_calls: Vec<ToolCall>,
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
            tools: None,
            new: String::new(),
            text: String::new(),
            tool_calls: Vec::new(),
            tokens: Vec::new(),
            logprobs: Vec::new(),
        }
    }

    /// Finds calls of tools in the text.
    #[must_use]
    pub fn with_tools(mut self, tools: Option<ToolCalls>) -> Self {
        self.tools = tools;
        self
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
        let is_marker = self.tools.as_ref().is_some_and(|tools| tools.markers.contains(&choice.token));
        self.vocabulary.decode_token(choice.token, is_marker, &mut self.bytes);
        self.tokens.push(choice.token);
        if choice.logprob.is_some() {
            self.logprobs.push(choice);
        }
        let piece = self.stops.push(self.stream.push(&self.bytes));
        self.new.push_str(&piece.text);
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
        if self.new.is_empty() {
            return Ok(());
        }
        let new = std::mem::take(&mut self.new);
        let events = match &mut self.tools {
            Some(tools) => tools.reader.push(&new),
            None => vec![Event::Text(new)],
        };
        self.pass_on(events)
    }

    /// Ends the text: what was held back is shown, unless it is a stop string.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn finish(mut self, mut finish_reason: FinishReason) -> Result<Generated> {
        let piece = self.stops.push(self.stream.finish());
        self.new.push_str(&piece.text);
        if piece.stopped.is_some() {
            finish_reason = FinishReason::StopString;
        }
        self.new.push_str(&self.stops.finish());
        self.show()?;
        let rest = self.tools.as_mut().map_or_else(Vec::new, |tools| tools.reader.finish());
        self.pass_on(rest)?;
        let Self { text, tool_calls, tokens, logprobs, .. } = self;
        Ok(Generated { text, tool_calls, tokens, logprobs, finish_reason })
    }

    fn pass_on(&mut self, events: Vec<Event>) -> Result<()> {
        for event in events {
            match &event {
                Event::Text(text) => self.text.push_str(text),
                Event::ToolCall(call) => self.tool_calls.push(call.clone()),
            }
            (self.sink)(event)?;
        }
        Ok(())
    }
}
