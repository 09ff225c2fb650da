//! An answer as it comes, to what the person reads and what the app is to do.
//!
//! What may become a call is held back, as long as it may, and so is white space, which belongs to the call behind it. What begins
//! like a call and is none is text: nothing that the model wrote is lost, but for the markers and the white space around calls. What a model
//! thinks aloud is text too, whatever it calls there.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::scan::{Marker, Unread};
use super::syntax::ToolCallSyntax;
use crate::chat::ToolCall;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Text to show: never empty, whole code points.
    Text(String),
    /// A tool that the model calls.
    ToolCall(ToolCall),
}

/// Finds the calls in one answer.
#[derive(Clone, Debug)]
pub struct ToolCallReader {
    syntax: ToolCallSyntax,
    /// The tools there are.
    names: Vec<String>,
    /// Ids that were given to calls.
    ids: HashSet<String>,
    /// The end of the text so far, not given out yet.
    held: String,
    state: State,
    /// Whether a call was the last thing given out.
    is_behind: bool,
    /// Whether what is held ends within an object.
    is_open: bool,
}

/// What `held` begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The answer's first word, which may open a thought.
    Beginning,
    /// A thought: what is called there is not called.
    Thought,
    /// Text, and maybe a call somewhere.
    Text,
    /// A marker of so many bytes with white space before it, and maybe a call behind it.
    Call(usize),
    /// What follows a call.
    Behind,
    /// Text, and no call will come any more.
    Rest,
}

/// Around the thoughts of models that think aloud.
const THOUGHT: (&str, &str) = ("<think>", "</think>");

impl ToolCallReader {
    /// A reader at the beginning of an answer; `names` are the tools that can be called.
    pub fn new(syntax: ToolCallSyntax, names: Vec<String>) -> Self {
        let (ids, held, state) = (HashSet::new(), String::new(), State::Beginning);
        Self { syntax, names, ids, held, state, is_behind: false, is_open: false }
    }

    /// Knows the ids of earlier calls, which no call gets again.
    #[must_use]
    pub fn with_ids<'a>(mut self, ids: impl IntoIterator<Item = &'a str>) -> Self {
        self.ids.extend(ids.into_iter().map(str::to_owned));
        self
    }

    /// Knows how the prompt ends: it may have opened a thought already.
    #[must_use]
    pub fn behind(mut self, prompt: &str) -> Self {
        if prompt.trim_end().ends_with(THOUGHT.0) {
            self.state = State::Thought;
        }
        self
    }

    /// Takes the next piece of the answer and returns what is certain now, texts joined.
    pub fn push(&mut self, piece: &str) -> Vec<Event> {
        self.held.push_str(piece);
        let mut events = Vec::new();
        // A long object is not read again for every piece of it.
        if !self.is_open || piece.contains('}') {
            while self.advance(&mut events) {}
        }
        events
    }

    /// Ends the answer: what was held back is text, unless it belongs to a call.
    pub fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let is_gap = self.is_behind && self.held.trim().is_empty();
        if self.state != State::Behind && !is_gap {
            self.show(self.held.len(), &mut events);
        }
        self.held.clear();
        events
    }

    /// One state further. Returns whether another step may be possible.
    fn advance(&mut self, events: &mut Vec<Event>) -> bool {
        match self.state {
            State::Beginning => self.begin(),
            State::Thought => self.think(events),
            State::Text => self.look_for_a_call(events),
            State::Call(marker) => self.read_a_call(marker, events),
            State::Behind => self.go_on_behind_a_call(),
            State::Rest => {
                self.show(self.held.len(), events);
                false
            }
        }
    }

    fn begin(&mut self) -> bool {
        let text = self.held.trim_start();
        let is_undecided = THOUGHT.0.starts_with(text);
        if !is_undecided {
            self.state = if text.starts_with(THOUGHT.0) { State::Thought } else { State::Text };
        }
        !is_undecided
    }

    /// Shows a thought, up to its end.
    fn think(&mut self, events: &mut Vec<Event>) -> bool {
        if let Some(at) = self.held.find(THOUGHT.1) {
            self.state = State::Text;
            self.show(at + THOUGHT.1.len(), events);
            return true;
        }
        let may_end = |at: &usize| THOUGHT.1.starts_with(&self.held[*at..]);
        let end = self.held.rmatch_indices('<').map(|(at, _)| at).next().filter(may_end);
        self.show(end.unwrap_or(self.held.len()), events);
        false
    }

    fn look_for_a_call(&mut self, events: &mut Vec<Event>) -> bool {
        let text = self.held.trim_end();
        // Where any text could hold the marker, a call begins the answer or there is none.
        let weak = self.syntax.open.is_weak();
        let places = text.char_indices().filter(|(_, c)| !c.is_whitespace()).map(|(at, _)| at);
        let found =
            places.take(if weak { 1 } else { usize::MAX }).find_map(|at| match self.syntax.open.scan(&text[at..]) {
                Ok(((), rest)) => Some((at, Some(text.len() - rest.len()))),
                Err(Unread::Other) => None,
                Err(_) => Some((at, None)),
            });
        let shown = found.map_or(text.len(), |(at, _)| text[..at].trim_end().len());
        match found {
            Some((_, Some(end))) => self.state = State::Call(end - shown),
            None if weak && !text.is_empty() => self.state = State::Rest,
            Some((_, None)) | None => {}
        }
        self.show(shown, events);
        self.state != State::Text
    }

    fn read_a_call(&mut self, marker: usize, events: &mut Vec<Event>) -> bool {
        let scanned = self.syntax.scan(&self.held[marker..]);
        self.is_open = scanned == Err(Unread::Open);
        match scanned {
            Err(Unread::Undecided | Unread::Open) => return false,
            Ok((call, rest)) if self.is_one(&call) => {
                let rest = rest.to_owned();
                events.push(Event::ToolCall(self.numbered(call)));
                self.is_behind = true;
                self.held = rest;
                self.state = State::Behind;
            }
            // Text after all; what follows its first character may be a call.
            Ok(_) | Err(Unread::Other) => {
                let first = self.held.find(|c: char| !c.is_whitespace()).unwrap_or(0);
                let n_bytes = self.held[first..].chars().next().map_or(0, char::len_utf8);
                self.state = if self.syntax.open.is_weak() { State::Rest } else { State::Text };
                self.show(first + n_bytes, events);
            }
        }
        true
    }

    /// The end of calls, or another one.
    fn go_on_behind_a_call(&mut self) -> bool {
        if self.held.trim_start().is_empty() {
            return false;
        }
        let scan = |marker: &Marker| marker.scan(&self.held).map(|((), rest)| self.held.len() - rest.len());
        let close = if self.syntax.close.is_empty() { Err(Unread::Other) } else { scan(&self.syntax.close) };
        let between = self.syntax.between.as_ref().map_or(Err(Unread::Other), scan);
        match (close, between) {
            (Ok(end), _) => {
                self.held.drain(..end);
                self.state = self.behind_all();
            }
            (Err(Unread::Other), Ok(end)) => self.state = State::Call(end),
            (Err(Unread::Other), Err(Unread::Other)) => self.state = self.behind_all(),
            _ => return false,
        }
        true
    }

    fn behind_all(&self) -> State {
        let more = self.syntax.between.is_some() && !self.syntax.open.is_weak();
        if more { State::Text } else { State::Rest }
    }

    /// Where only its place tells a call from an object that the person asked for, it has to be one of a tool that there is.
    fn is_one(&self, call: &ToolCall) -> bool {
        !self.syntax.open.is_weak() || self.names.contains(&call.name)
    }

    /// With an id that no other call has and that templates accept: some want nine letters or digits.
    fn numbered(&mut self, mut call: ToolCall) -> ToolCall {
        let is_sound = |id: &String| id.len() == 9 && id.chars().all(|c| c.is_ascii_alphanumeric());
        let own = call.id.filter(|id| is_sound(id) && !self.ids.contains(id));
        let made_up = || (1..).map(|number| format!("call{number:05}")).find(|id| !self.ids.contains(id));
        call.id = own.or_else(made_up);
        self.ids.extend(call.id.clone());
        call
    }

    /// Gives out the first `n_bytes` that are held.
    fn show(&mut self, n_bytes: usize, events: &mut Vec<Event>) {
        if n_bytes == 0 {
            return;
        }
        self.is_behind = false;
        let text = self.held.drain(..n_bytes);
        match events.last_mut() {
            Some(Event::Text(last)) => last.extend(text),
            _ => events.push(Event::Text(text.collect())),
        }
    }
}
