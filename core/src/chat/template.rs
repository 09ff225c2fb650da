//! A model's own chat template, run as Hugging Face's `apply_chat_template` runs it.
//!
//! Jinja2 with `trim_blocks` and `lstrip_blocks`, Python's methods on strings, lists and dictionaries, `break` and `continue`,
//! and the functions `raise_exception`, `strftime_now` and `tojson`. A template comes from a file that somebody else made, so
//! its running time, its recursion, its output and the depth of what it builds are bounded, and a panic inside the template
//! engine is an error here.
//!
//! Not bounded is the memory of strings that a template builds by doubling; no template engine in reach offers that.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, context};
use minijinja_contrib::pycompat;

use super::json::to_json;
use super::strftime::strftime;
use super::{Message, Role, Tool, ToolCallSyntax};
use crate::error::{Error, ErrorKind, Result};

/// Steps of the template engine for one rendering, and more for each message and tool, where real templates use a few hundred.
const FUEL: u64 = 100_000;
const FUEL_PER_ITEM: u64 = 1_000;
const MAX_FUEL: u64 = 500_000;
const RECURSION_LIMIT: usize = 100;
/// A step can nest a value at most one level deeper, and the engine prints, compares and drops values recursively. A frame of
/// that was measured at less than 0.7 KiB (2.6 without optimisation). This is address space; memory is taken as far as it is used.
const STACK_BYTES_PER_STEP: u64 = if cfg!(debug_assertions) { 3072 } else { 1024 };
/// Longest source and longest prompt.
const MAX_SOURCE_BYTES: usize = 1 << 20;
const MAX_PROMPT_BYTES: usize = 64 << 20;

/// The template of models that bring none: ChatML, which most chat models read.
const CHATML: &str = "\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
";

/// Renders conversations into prompts.
///
/// A template that refuses the system role (Gemma's raises on it) or leaves it out is given the system text at the head of the
/// first user message instead.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    is_default: bool,
    reads_tools: bool,
    variables: Vec<(String, Value)>,
    /// Read off when it is asked for.
    tool_call_syntax: Arc<OnceLock<Option<ToolCallSyntax>>>,
    /// Seconds since 1970, where the caller fixed them.
    time: Option<u64>,
}

impl ChatTemplate {
    /// Compiles `source`, the model's template, or takes ChatML where there is none; an empty one counts as none. `bos` and
    /// `eos` are the texts of those tokens, which templates write (empty where a model has none).
    ///
    /// Fails with `Template` if the source cannot be parsed or is longer than 1 MiB.
    pub fn new(source: Option<&str>, bos: &str, eos: &str) -> Result<Self> {
        let source = source.filter(|s| !s.trim().is_empty());
        let mut environment = environment().map_err(|e| failed(&e))?;
        let text = source.unwrap_or(CHATML);
        if text.len() > MAX_SOURCE_BYTES {
            return Err(template_error(format!("it is {} bytes long, more than any real one", text.len())));
        }
        // The word, and not an analysis of variables: many templates assign to it on some paths before they read it.
        let reads_tools = text.contains("tools");
        let text = without_generation_tags(text);
        // The parser recurses as deep as the source nests.
        on_large_stack(FUEL, || environment.add_template_owned(NAME, text).map_err(|e| failed(&e)))?;
        let (bos, eos) = (bos.to_owned(), eos.to_owned());
        let is_default = source.is_none();
        let (variables, tool_call_syntax) = (Vec::new(), Arc::default());
        Ok(Self { environment, bos, eos, is_default, reads_tools, variables, tool_call_syntax, time: None })
    }

    /// Whether this is the default, because the model brought none.
    pub fn is_default(&self) -> bool {
        self.is_default
    }

    /// Whether the template writes tools into the prompt.
    pub fn reads_tools(&self) -> bool {
        self.reads_tools
    }

    /// How the model writes calls of tools; `None` if the template does not show it, or shows a way that is not read here: then
    /// calls come as text. The template runs up to six times for it, once.
    pub fn tool_call_syntax(&self) -> Option<&ToolCallSyntax> {
        let syntax = self.tool_call_syntax.get_or_init(|| {
            let parameters = serde_json::json!({ "type": "object", "properties": {} });
            let tool = Tool { name: "fulcrum_probe_tool".to_owned(), description: String::new(), parameters };
            let render = |messages: &[Message], add_generation_prompt| {
                self.render_as_is(messages, std::slice::from_ref(&tool), add_generation_prompt)
            };
            self.reads_tools.then(|| ToolCallSyntax::of(render)).flatten()
        });
        syntax.as_ref()
    }

    /// Sets a variable that this model's template reads, for example `enable_thinking` of Qwen3.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: &serde_json::Value) -> Self {
        self.variables.push((name.into(), Value::from(Serde(value))));
        self.tool_call_syntax = Arc::default();
        self
    }

    /// Fixes the time that templates write into the prompt, in seconds since 1970 (UTC). Without it they write the current date,
    /// and prompts of different days differ.
    #[must_use]
    pub fn with_time(mut self, unix_seconds: u64) -> Self {
        self.time = Some(unix_seconds);
        self
    }

    /// The prompt for `messages`, ready for a tokenizer that reads special tokens and adds no begin-of-sequence token of its own
    /// if the prompt begins with one. `add_generation_prompt` opens the assistant's answer.
    ///
    /// System text that the template refuses or leaves out goes to the head of the first user message, after which it is asked
    /// again. Fails with `Template` if the template raises, uses what does not exist, does not end, or does not read the tools
    /// that are given.
    pub fn render(&self, messages: &[Message], tools: &[Tool], add_generation_prompt: bool) -> Result<String> {
        if !tools.is_empty() && !self.reads_tools {
            return Err(template_error("this model's template does not know tools".to_owned()));
        }
        let rendered = self.render_as_is(messages, tools, add_generation_prompt);
        if let Ok(prompt) = &rendered
            && (holds_system_text(prompt, messages) || !self.is_deaf(prompt, messages, tools, add_generation_prompt))
        {
            return rendered;
        }
        match fold_system(messages) {
            // The first error says more about the template than that of the second try.
            Some(folded) => self.render_as_is(&folded, tools, add_generation_prompt).or(rendered),
            None => rendered,
        }
    }

    fn render_as_is(&self, messages: &[Message], tools: &[Tool], add_generation_prompt: bool) -> Result<String> {
        let items = (messages.len() + tools.len()) as u64;
        let fuel = MAX_FUEL.min(FUEL + FUEL_PER_ITEM.saturating_mul(items));
        on_large_stack(fuel, || {
            let mut environment = self.environment.clone();
            environment.set_fuel(Some(fuel));
            let time = self.time.unwrap_or_else(now);
            environment.add_function("strftime_now", move |format: &str| strftime(format, time));
            for (name, value) in &self.variables {
                environment.add_global(name.clone(), value.clone());
            }
            let mut output = Limited(Vec::new());
            let variables = context! {
                messages => Serde(messages),
                // Absent tools are None, as in transformers: templates ask both `if tools` and `tools is not none`.
                tools => (!tools.is_empty()).then_some(Serde(tools)),
                add_generation_prompt,
                bos_token => self.bos.as_str(),
                eos_token => self.eos.as_str(),
            };
            let template = environment.get_template(NAME).map_err(|e| failed(&e))?;
            template.render_captured_to(variables, &mut output).map_err(|e| failed(&e))?;
            String::from_utf8(output.0).map_err(|e| template_error(format!("it wrote bytes that are not UTF-8: {e}")))
        })
    }

    /// Whether the prompt is the same whatever the system messages say, which a template that rewrites their text is not.
    fn is_deaf(&self, prompt: &str, messages: &[Message], tools: &[Tool], add_generation_prompt: bool) -> bool {
        let mut other = messages.to_vec();
        for message in other.iter_mut().filter(|m| m.role == Role::System) {
            message.content.insert(0, '?');
        }
        self.render_as_is(&other, tools, add_generation_prompt).is_ok_and(|other| other == prompt)
    }
}

/// The name that errors show.
const NAME: &str = "template";

fn environment() -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_unknown_method_callback(pycompat::unknown_method_callback);
    environment.set_recursion_limit(RECURSION_LIMIT);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", raise_exception);
    Ok(environment)
}

fn raise_exception(message: String) -> std::result::Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message))
}

/// `{% generation %}` marks the assistant's words for training masks and writes nothing; the engine has no such tag, so it
/// becomes a condition that always holds.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        let end = tag.find("%}").unwrap_or(tag.len());
        let (tag, after) = tag.split_at(end);
        out.push_str(before);
        match tag.trim_start_matches(['{', '%', '-', '+']).trim_end_matches(['-', '+']).trim() {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out + rest
}

/// Whether every system text is in the prompt (templates trim it).
fn holds_system_text(prompt: &str, messages: &[Message]) -> bool {
    messages.iter().filter(|m| m.role == Role::System).all(|m| prompt.contains(m.content.trim()))
}

/// The conversation without system messages, their text at the head of the first user message; `None` if there is nothing to
/// fold, or nowhere to fold it to.
fn fold_system(messages: &[Message]) -> Option<Vec<Message>> {
    let (system, mut rest): (Vec<Message>, Vec<Message>) =
        messages.iter().cloned().partition(|m| m.role == Role::System);
    let first = rest.iter_mut().find(|m| m.role == Role::User)?;
    let mut parts: Vec<&str> = system.iter().map(|m| m.content.trim()).collect();
    parts.push(&first.content);
    let content = parts.join("\n\n");
    first.content = content;
    (!system.is_empty()).then_some(rest)
}

/// Runs `work` on a thread whose stack is deep enough for the engine's recursion over whatever a template builds with `fuel`. A
/// panic of the engine ends there.
fn on_large_stack<T: Send>(fuel: u64, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let stack = usize::try_from(fuel * STACK_BYTES_PER_STEP).unwrap_or(usize::MAX);
        let builder = thread::Builder::new().name("chat template".to_owned()).stack_size(stack);
        let worker = builder
            .spawn_scoped(scope, work)
            .map_err(|e| template_error(format!("no thread could be started to render it: {e}")))?;
        worker.join().unwrap_or_else(|_| Err(template_error("the template engine panicked on it".to_owned())))
    })
}

/// An output that refuses to grow without bound.
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_PROMPT_BYTES {
            return Err(io::Error::other(format!("the prompt is longer than {MAX_PROMPT_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The engine's message on one line, with the line of the template, and the cause under it.
fn failed(error: &minijinja::Error) -> Error {
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        reason = format!("{reason}: {error}");
        cause = error.source();
    }
    template_error(reason.replace('\n', " "))
}

fn template_error(reason: String) -> Error {
    ErrorKind::Template { reason }.into()
}
