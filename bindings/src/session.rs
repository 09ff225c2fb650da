//! Conversations.

use std::sync::Arc;

use fulcrum::{ChatSession, ContextOverflow};

use crate::error::Result;
use crate::generation::GenerationOptions;
use crate::message::{Message, Tool, messages, tools};
use crate::metrics::SessionMetrics;
use crate::number::optional;
use crate::stream::NativeStream;

/// Settings of a session. What is left out is the core's default.
#[derive(Clone, Debug, Default, PartialEq, uniffi::Record)]
pub struct SessionOptions {
    /// Instructions to the model, in front of every conversation.
    #[uniffi(default)]
    pub system_prompt: Option<String>,
    /// Tools that the chat template tells the model of.
    #[uniffi(default)]
    pub tools: Vec<Tool>,
    /// Tokens the session's context holds. By default the model's setting.
    #[uniffi(default)]
    pub context_length: Option<i32>,
    /// What to do when the conversation outgrows the context. By default it is an error.
    #[uniffi(default)]
    pub context_overflow: Option<ContextOverflow>,
    /// Settings of answers that are asked for without any.
    #[uniffi(default)]
    pub generation: GenerationOptions,
}

/// What to do when a prompt does not fit into the context.
#[uniffi::remote(Enum)]
pub enum ContextOverflow {
    /// The turn fails and the session is as before.
    Error,
    /// The oldest turns are left out of the prompt, whole turns only, until it fits and leaves room to answer. The system prompt
    /// and the new message stay, and the history still has everything.
    DropOldestTurns,
}

impl TryFrom<SessionOptions> for fulcrum::SessionOptions {
    type Error = crate::NativeError;

    fn try_from(options: SessionOptions) -> Result<Self> {
        Ok(Self {
            system_prompt: options.system_prompt,
            tools: tools(options.tools)?,
            context_length: optional("context_length", options.context_length)?,
            context_overflow: options.context_overflow.unwrap_or_default(),
            generation: options.generation.try_into()?,
        })
    }
}

/// A conversation with a model. All methods can be called from any thread; one answer is generated at a time.
#[derive(uniffi::Object)]
pub struct NativeSession(pub(crate) ChatSession);

#[uniffi::export]
impl NativeSession {
    /// Answers `prompt` piece by piece.
    pub fn stream(&self, prompt: String, options: Option<GenerationOptions>) -> Result<Arc<NativeStream>> {
        self.stream_messages(vec![Message::user(prompt)], options)
    }

    /// Answers the conversation followed by `new_messages`, for example the results of tools.
    pub fn stream_messages(
        &self,
        new_messages: Vec<Message>,
        options: Option<GenerationOptions>,
    ) -> Result<Arc<NativeStream>> {
        let stream = self.0.stream_messages(messages(new_messages)?, &self.generation(options)?)?;
        Ok(Arc::new(NativeStream::new(stream)))
    }

    /// Continues `text` as it stands, without template and history; neither changes.
    pub fn complete(&self, text: String, options: Option<GenerationOptions>) -> Result<Arc<NativeStream>> {
        Ok(Arc::new(NativeStream::new(self.0.complete(&text, &self.generation(options)?)?)))
    }

    /// Lets answers be drafted from `text` too; no answer changes with it.
    pub fn add_context(&self, text: String) -> Result<()> {
        Ok(self.0.add_context(&text)?)
    }

    /// Writes what the session can draft from to the file at `path`.
    pub fn save_drafts(&self, path: String) -> Result<()> {
        Ok(self.0.save_drafts(path)?)
    }

    /// Drafts from what another session saved, too.
    pub fn load_drafts(&self, path: String) -> Result<()> {
        Ok(self.0.load_drafts(path)?)
    }

    /// Cancels the answer that is being generated, if there is one.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// The conversation so far.
    pub fn history(&self) -> Vec<Message> {
        self.0.history().into_iter().map(Into::into).collect()
    }

    /// Replaces the conversation.
    pub fn restore_history(&self, history: Vec<Message>) -> Result<()> {
        Ok(self.0.restore_history(messages(history)?)?)
    }

    /// Forgets all turns; system prompt and tools stay.
    pub fn reset(&self) -> Result<()> {
        Ok(self.0.reset()?)
    }

    /// Replaces the system prompt.
    pub fn set_system_prompt(&self, system_prompt: Option<String>) -> Result<()> {
        Ok(self.0.set_system_prompt(system_prompt.as_deref())?)
    }

    /// Replaces the tools.
    pub fn set_tools(&self, new_tools: Vec<Tool>) -> Result<()> {
        Ok(self.0.set_tools(tools(new_tools)?)?)
    }

    /// The figures of all generations so far.
    pub fn metrics(&self) -> SessionMetrics {
        self.0.metrics().into()
    }

    /// Cancels the answer that is being generated and ends the session: waits until its worker has stopped.
    pub fn end(&self) {
        self.0.close();
    }
}

impl NativeSession {
    fn generation(&self, options: Option<GenerationOptions>) -> Result<fulcrum::GenerationOptions> {
        options.map_or_else(|| Ok(self.0.options().generation.clone()), TryInto::try_into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_cores_default() {
        let options = fulcrum::SessionOptions::try_from(SessionOptions::default()).unwrap();
        assert_eq!(options, fulcrum::SessionOptions::default());
    }

    #[test]
    fn every_option_arrives() {
        let tool = Tool { name: "time".into(), description: "Tells it".into(), parameters: "{}".into() };
        let given = SessionOptions {
            system_prompt: Some("Be brief.".into()),
            tools: vec![tool],
            context_length: Some(7),
            context_overflow: Some(ContextOverflow::DropOldestTurns),
            generation: GenerationOptions { max_tokens: Some(8), ..Default::default() },
        };
        let parameters = serde_json::Value::Object(Default::default());
        let tool = fulcrum::Tool { name: "time".into(), description: "Tells it".into(), parameters };
        let there = fulcrum::SessionOptions {
            system_prompt: Some("Be brief.".into()),
            tools: vec![tool],
            context_length: Some(7),
            context_overflow: ContextOverflow::DropOldestTurns,
            generation: fulcrum::GenerationOptions { max_tokens: Some(8), ..Default::default() },
        };
        assert_eq!(fulcrum::SessionOptions::try_from(given).unwrap(), there);
    }
}
