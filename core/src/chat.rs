//! Messages and tools to the prompt a model was trained on, and calls of tools out of its answer.
//!
//! A model brings its own template, a Jinja program inside the file; [`ChatTemplate`] runs it as Hugging Face's
//! `apply_chat_template` would. The messages here are what such templates read. How they write calls is how the model does
//! ([`ToolCallSyntax`]), and so [`ToolCallReader`] finds them in an answer.
//!
//! Deliberately not known here: tokens, files.

mod calls;
mod json;
mod strftime;
mod template;

pub use calls::{Event, ToolCallReader, ToolCallSyntax};
pub use template::ChatTemplate;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text. Templates see an empty text as text, not as absence.
    #[serde(default)]
    pub content: String,
    /// Tools that an assistant's message calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool's message answers, where the model numbers its calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The tool that answers, where the template wants its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    /// Instructions of the app.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// What the person says.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// What a tool gave back.
    pub fn tool(content: impl Into<String>) -> Self {
        Self::new(Role::Tool, content)
    }

    /// What the tool gave back that `call` called.
    pub fn tool_result(call: &ToolCall, content: impl Into<String>) -> Self {
        Self { tool_call_id: call.id.clone(), name: Some(call.name.clone()), ..Self::tool(content) }
    }

    /// A message of `role` without tool calls.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), tool_calls: Vec::new(), tool_call_id: None, name: None }
    }
}

/// A call of a tool by the model. In JSON it has the shape that chat templates and OpenAI's API share:
/// `{"id", "type": "function", "function": {"name", "arguments"}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Wire<CallWire>", into = "Wire<CallWire>")]
pub struct ToolCall {
    /// What tells it from other calls. Calls in an answer have one, made up if the model gave none; most templates do without.
    pub id: Option<String>,
    /// The tool's name.
    pub name: String,
    /// The arguments, an object; key order is kept. Whole numbers beyond 64 bits lose digits.
    pub arguments: Value,
}

/// A tool the model may call. In JSON: `{"type": "function", "function": {"name", "description", "parameters"}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Wire<ToolWire>", into = "Wire<ToolWire>")]
pub struct Tool {
    /// The tool's name.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON schema of its arguments, passed to the template as it is, key order kept.
    pub parameters: Value,
}

/// The envelope around a function in JSON.
#[derive(Serialize, Deserialize)]
struct Wire<F> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", default)]
    kind: Kind,
    function: F,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Function,
}

#[derive(Serialize, Deserialize)]
struct CallWire {
    name: String,
    arguments: Value,
}

#[derive(Serialize, Deserialize)]
struct ToolWire {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Value,
}

impl From<ToolCall> for Wire<CallWire> {
    fn from(call: ToolCall) -> Self {
        let function = CallWire { name: call.name, arguments: call.arguments };
        Self { id: call.id, kind: Kind::Function, function }
    }
}

impl From<Wire<CallWire>> for ToolCall {
    fn from(wire: Wire<CallWire>) -> Self {
        Self { id: wire.id, name: wire.function.name, arguments: wire.function.arguments }
    }
}

impl From<Tool> for Wire<ToolWire> {
    fn from(tool: Tool) -> Self {
        let function = ToolWire { name: tool.name, description: tool.description, parameters: tool.parameters };
        Self { id: None, kind: Kind::Function, function }
    }
}

impl From<Wire<ToolWire>> for Tool {
    fn from(wire: Wire<ToolWire>) -> Self {
        let ToolWire { name, description, parameters } = wire.function;
        Self { name, description, parameters }
    }
}

#[cfg(test)]
mod tests;
