//! Messages and tools. What is JSON in the core is JSON text here: both languages have their own ways to make and read it.

use fulcrum::{ErrorKind, Role};
use serde_json::Value;

use crate::error::Result;

/// Who speaks.
#[uniffi::remote(Enum)]
pub enum Role {
    /// Instructions of the app.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text.
    pub content: String,
    /// Tools that an assistant's message calls.
    #[uniffi(default)]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool's message answers, where the model numbers its calls.
    #[uniffi(default)]
    pub tool_call_id: Option<String>,
    /// The tool that answers, where the template wants its name.
    #[uniffi(default)]
    pub name: Option<String>,
}

/// A call of a tool by the model.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// The arguments: the text of a JSON object.
    pub arguments: String,
    /// What tells it from other calls. Calls in an answer have one.
    #[uniffi(default)]
    pub id: Option<String>,
}

/// A tool the model may call.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct Tool {
    /// The tool's name.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// The text of a JSON schema of its arguments; the chat template gets it as it is, key order kept.
    pub parameters: String,
}

pub(crate) fn json(option: &'static str, text: &str) -> Result<Value> {
    let invalid = |error| ErrorKind::InvalidOption { option, reason: format!("this is no JSON: {error}") };
    serde_json::from_str(text).map_err(|error| fulcrum::Error::from(invalid(error)).into())
}

impl ToolCall {
    fn into_core(self) -> Result<fulcrum::ToolCall> {
        let arguments = json("arguments", &self.arguments)?;
        Ok(fulcrum::ToolCall { id: self.id, name: self.name, arguments })
    }
}

impl Tool {
    fn into_core(self) -> Result<fulcrum::Tool> {
        let parameters = json("parameters", &self.parameters)?;
        Ok(fulcrum::Tool { name: self.name, description: self.description, parameters })
    }
}

impl Message {
    /// What the person says.
    pub(crate) fn user(content: String) -> Self {
        fulcrum::Message::user(content).into()
    }

    fn into_core(self) -> Result<fulcrum::Message> {
        let tool_calls = self.tool_calls.into_iter().map(ToolCall::into_core).collect::<Result<_>>()?;
        let Self { role, content, tool_call_id, name, .. } = self;
        Ok(fulcrum::Message { role, content, tool_calls, tool_call_id, name })
    }
}

impl From<fulcrum::ToolCall> for ToolCall {
    fn from(call: fulcrum::ToolCall) -> Self {
        Self { name: call.name, arguments: call.arguments.to_string(), id: call.id }
    }
}

impl From<fulcrum::Message> for Message {
    fn from(message: fulcrum::Message) -> Self {
        let fulcrum::Message { role, content, tool_calls, tool_call_id, name } = message;
        Self { role, content, tool_calls: tool_calls.into_iter().map(Into::into).collect(), tool_call_id, name }
    }
}

/// Messages for the core.
pub(crate) fn messages(messages: Vec<Message>) -> Result<Vec<fulcrum::Message>> {
    messages.into_iter().map(Message::into_core).collect()
}

/// Tools for the core.
pub(crate) fn tools(tools: Vec<Tool>) -> Result<Vec<fulcrum::Tool>> {
    tools.into_iter().map(Tool::into_core).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::NativeError;

    #[test]
    fn a_message_comes_back_as_it_went() {
        let call = ToolCall { name: "time".into(), arguments: r#"{"z":1,"a":[2]}"#.into(), id: Some("7".into()) };
        let message = Message {
            role: Role::Assistant,
            content: "🙂".into(),
            tool_calls: vec![call],
            tool_call_id: None,
            name: Some("n".into()),
        };
        let there = messages(vec![message.clone()]).unwrap();
        assert_eq!(there.into_iter().map(Message::from).collect::<Vec<_>>(), [message]);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let tool = Tool { name: "time".into(), description: String::new(), parameters: "{".into() };
        assert!(matches!(tools(vec![tool]), Err(NativeError::InvalidOption { option, .. }) if option == "parameters"));
    }
}
