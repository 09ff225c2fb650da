//! How a model writes calls of tools: read off its own template.
//!
//! A template writes earlier calls into the prompt the way the model was trained to write them. So it is asked to write calls that
//! nobody made, and what stands around their names and arguments is the syntax. What was found is tried on what it was found in. A
//! template that writes no calls, or not with JSON arguments, has no syntax here, and its model's calls stay text.

use serde_json::{Map, Value, json};

use super::reader::{Event, ToolCallReader};
use super::scan::{Marker, Scanned, Unread, object, word};
use crate::chat::{Message, ToolCall};
use crate::error::Result;

/// What stands around a call, and how the call itself is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCallSyntax {
    /// Before the first call.
    pub(super) open: Marker,
    /// Between two calls; `None` where an answer holds no more than one.
    pub(super) between: Option<Marker>,
    /// Behind the last.
    pub(super) close: Marker,
    shape: Shape,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    /// A JSON object with all there is to a call, under these keys.
    Object { name: String, arguments: String, id: Option<String> },
    /// The name, its id behind a marker where calls have one, another marker, and a JSON object of arguments.
    Named { id: Option<Marker>, arguments: Marker },
}

/// Some models write name and arguments into an object of their own under this key.
const FUNCTION: &str = "function";

/// What a template is asked to write: text that no marker begins like, and calls of which nothing needs to be quoted.
const TEXT: &str = "⁂ fulcrum probe";
const NAMES: [&str; 2] = ["fulcrum_probe_a", "fulcrum_probe_b"];
const IDS: [&str; 2] = ["probe000a", "probe000b"];
const KEY: &str = "fulcrum_probe_key";

fn probe(which: usize) -> ToolCall {
    let id = Some(IDS[which].to_owned());
    ToolCall { id, name: NAMES[which].to_owned(), arguments: json!({ KEY: which }) }
}

impl ToolCallSyntax {
    /// The syntax of the template that `render` runs, if asked to with the opening of an answer at the end; `None` if there is none that
    /// can be read here.
    pub(crate) fn of(render: impl Fn(&[Message], bool) -> Result<String>) -> Option<Self> {
        let answer = |content: &str, n_calls: usize| {
            let tool_calls = (0..n_calls).map(probe).collect();
            render(&[Message::user("?"), Message { tool_calls, ..Message::assistant(content) }], false).ok()
        };
        let (plain, one) = (answer(TEXT, 0)?, answer("", 1)?);
        let written = Written::find(&one, 0)?;
        let (before, behind) = plain.split_once(TEXT)?;
        // Templates that write text and calls side by side show what is between them; the others, what a call has in place of a text.
        let beside = answer(TEXT, 1).and_then(|both| {
            let from = both.find(TEXT)? + TEXT.len();
            both.get(from..Written::find(&both, 0)?.start).map(str::to_owned)
        });
        let open = match beside {
            Some(open) => open,
            None => one[..written.start].strip_prefix(before.trim_end())?.to_owned(),
        };
        if opens_a_turn(&open, &render) {
            return None;
        }
        let tail = &one[written.end..];
        let close = &tail[..tail.len() - common_end(tail, behind)];
        let between = answer("", 2).and_then(|two| {
            let (first, second) = (Written::find(&two, 0)?, Written::find(&two, 1)?);
            two.get(first.end..second.start).map(Marker::new)
        });
        let alone = format!("{open}{}{close}", &one[written.start..written.end]);
        let syntax = Self { open: Marker::new(&open), between, close: Marker::new(close), shape: written.shape };
        syntax.reads(&alone, probe(0)).then_some(syntax)
    }

    /// Whether `text` is `call` and nothing else.
    fn reads(&self, text: &str, call: ToolCall) -> bool {
        let mut reader = ToolCallReader::new(self.clone(), vec![call.name.clone()]);
        let mut events = reader.push(text);
        events.extend(reader.finish());
        // A name in front of the arguments may have no id in the text.
        matches!(&events[..], [Event::ToolCall(read)] if (&read.name, &read.arguments) == (&call.name, &call.arguments))
    }

    /// The words of its markers, among them names of control tokens.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        let (id, arguments) = match &self.shape {
            Shape::Object { .. } => (None, None),
            Shape::Named { id, arguments } => (id.as_ref(), Some(arguments)),
        };
        let markers = [Some(&self.open), self.between.as_ref(), Some(&self.close), id, arguments];
        markers.into_iter().flatten().flat_map(Marker::words)
    }

    /// The call that `text` begins with. Its id is what the model wrote, if it did.
    pub(super) fn scan<'a>(&self, text: &'a str) -> Scanned<'a, ToolCall> {
        match &self.shape {
            Shape::Object { name, arguments, id } => {
                let (object, rest) = object(text)?;
                let call = call_of(&object, name, arguments, id.as_deref()).ok_or(Unread::Other)?;
                Ok((call, rest))
            }
            Shape::Named { id, arguments } => {
                let (name, rest) = word(text)?;
                // Models leave out the id where they have none.
                let (id, rest) = match id.as_ref().map_or(Err(Unread::Other), |marker| marker.scan(rest)) {
                    Ok(((), rest)) => word(rest).map(|(id, rest)| (Some(id.to_owned()), rest))?,
                    Err(Unread::Other) => (None, rest),
                    Err(undecided) => return Err(undecided),
                };
                let ((), rest) = arguments.scan(rest)?;
                let (object, rest) = object(rest)?;
                Ok((ToolCall { id, name: name.to_owned(), arguments: Value::Object(object) }, rest))
            }
        }
    }
}

fn call_of(object: &Map<String, Value>, name: &str, arguments: &str, id: Option<&str>) -> Option<ToolCall> {
    let id = id.and_then(|key| object.get(key)?.as_str()).map(str::to_owned);
    let function = object.get(FUNCTION).and_then(Value::as_object).unwrap_or(object);
    let name = function.get(name)?.as_str().filter(|name| !name.is_empty())?.to_owned();
    // The two names that models know, and mix up.
    let given = [arguments, "arguments", "parameters"].into_iter().find_map(|key| function.get(key));
    let arguments = given.map_or_else(|| Some(Map::new()), arguments_of)?;
    Some(ToolCall { id, name, arguments: Value::Object(arguments) })
}

/// Whether `open` holds what a template opens an answer with: it writes calls as turns of their own, of which the model writes the rest
/// only, and where that begins nobody says.
fn opens_a_turn(open: &str, render: impl Fn(&[Message], bool) -> Result<String>) -> bool {
    let question = [Message::user("?")];
    let (Ok(closed), Ok(opened)) = (render(&question, false), render(&question, true)) else { return false };
    let opening = opened.strip_prefix(&closed).and_then(|opening| opening.split_whitespace().next());
    opening.is_some_and(|word| open.contains(word))
}

/// An object, or one that is written within a string.
fn arguments_of(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Null => Some(Map::new()),
        Value::String(text) if text.trim().is_empty() => Some(Map::new()),
        Value::Object(arguments) => Some(arguments.clone()),
        Value::String(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

/// A call in a rendered text: where it stands, and how it is written.
struct Written {
    start: usize,
    end: usize,
    shape: Shape,
}

impl Written {
    fn find(rendered: &str, which: usize) -> Option<Self> {
        let name = rendered.find(NAMES[which])?;
        Self::as_object(rendered, name, which).or_else(|| Self::as_name(rendered, name, which))
    }

    /// The outermost object around the name that is a call, not a list of them.
    fn as_object(rendered: &str, name: usize, which: usize) -> Option<Self> {
        let braces = rendered[..name].rmatch_indices('{').take(2);
        let objects = braces.filter_map(|(start, _)| {
            let (object, rest) = object(&rendered[start..]).ok()?;
            let key = |object: &Map<String, Value>, is: &dyn Fn(&Value) -> bool| {
                object.iter().find(|(_, value)| is(value)).map(|(key, _)| key.clone())
            };
            let function = object.get(FUNCTION).and_then(Value::as_object).unwrap_or(&object);
            let shape = Shape::Object {
                name: key(function, &|value| value == NAMES[which])?,
                arguments: key(function, &|value| arguments_of(value).is_some_and(|a| a.contains_key(KEY)))?,
                id: key(&object, &|value| value == IDS[which]),
            };
            Some(Self { start, end: rendered.len() - rest.len(), shape })
        });
        objects.last()
    }

    fn as_name(rendered: &str, start: usize, which: usize) -> Option<Self> {
        let behind = &rendered[start + NAMES[which].len()..];
        let brace = behind[..behind.find(KEY)?].rfind('{')?;
        let (_, rest) = object(&behind[brace..]).ok()?;
        let (id, arguments) = match behind[..brace].split_once(IDS[which]) {
            Some((id, arguments)) => (Some(id), arguments),
            None => (None, &behind[..brace]),
        };
        let shape = Shape::Named { id: id.map(Marker::new), arguments: Marker::new(arguments) };
        Some(Self { start, end: rendered.len() - rest.len(), shape })
    }
}

/// Bytes of the longest end that two texts have in common.
fn common_end(a: &str, b: &str) -> usize {
    let common = a.chars().rev().zip(b.chars().rev()).take_while(|(a, b)| a == b);
    common.map(|(c, _)| c.len_utf8()).sum()
}
