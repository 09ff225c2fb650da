//! An answer as it comes, and a handle to stop it from elsewhere.

use std::iter::FusedIterator;
use std::sync::Arc;

use super::core::Core;
use super::options::Response;
use super::turn::Turn;
use crate::chat::{Event, Message};
use crate::error::{ErrorKind, Result};

/// Pieces of an answer: an iterator of valid UTF-8, in order, as large as the consumer is slow. Calls of tools are no text: they
/// stand in the [`Response`], and where [`events`](Self::events) are asked for, between the pieces.
///
/// It ends once: with `None` after a complete answer, which is then part of the history and in [`response`](Self::response), or
/// with one error, after which the session is as it was before the turn. Nothing comes after that. Dropping the stream before
/// its end cancels the turn. The stream is independent of the session's lifetime and may be moved to another thread.
pub struct ResponseStream {
    core: Arc<Core>,
    turn: Arc<Turn>,
    /// What becomes history with the answer; `None` for a completion outside the conversation.
    messages: Option<Vec<Message>>,
    state: State,
}

/// The parts of an answer; made by [`ResponseStream::events`]. It ends as the stream does, and either may be gone on with.
pub struct Events<'a>(&'a mut ResponseStream);

enum State {
    Running,
    Completed(Box<Response>),
    Failed,
}

/// Cancels one turn, from any thread, at any time. Clones cancel the same turn.
#[derive(Clone)]
pub struct Canceller(Arc<Turn>);

impl Canceller {
    /// Cancels the turn if its end was not seen yet; else does nothing. Takes effect within one stage of the executor; the
    /// stream ends at once.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

impl ResponseStream {
    pub(super) fn new(core: Arc<Core>, turn: Arc<Turn>, messages: Option<Vec<Message>>) -> Self {
        Self { core, turn, messages, state: State::Running }
    }

    /// A handle that cancels this turn from elsewhere.
    pub fn canceller(&self) -> Canceller {
        Canceller(Arc::clone(&self.turn))
    }

    /// The answer, once the iterator has returned `None` after the last piece.
    pub fn response(&self) -> Option<&Response> {
        match &self.state {
            State::Completed(response) => Some(response),
            State::Running | State::Failed => None,
        }
    }

    /// The pieces and, in their places, the tools that the model calls.
    pub fn events(&mut self) -> Events<'_> {
        Events(self)
    }

    /// Waits for the next part and leaves the end open: `None` where nothing but the end is left, and [`end`](Self::end) then tells
    /// which. For who takes a part before the one in front of it is seen, so that an answer that is left with its last part is
    /// not history.
    pub fn next_part(&mut self) -> Option<Event> {
        if matches!(self.state, State::Running) { self.turn.take() } else { None }
    }

    fn next_event(&mut self) -> Option<Result<Event>> {
        if let Some(event) = self.next_part() {
            return Some(Ok(event));
        }
        if !matches!(self.state, State::Running) {
            return None;
        }
        match self.core.settle(&self.turn, self.messages.take()) {
            Ok(response) => {
                self.state = State::Completed(Box::new(response));
                None
            }
            Err(error) => {
                self.state = State::Failed;
                Some(Err(error))
            }
        }
    }

    /// Waits for the end and returns the answer, with the text of all pieces.
    ///
    /// # Errors
    ///
    /// The error that ended the turn; `Misuse` if it was returned already, so that no error is seen twice.
    pub fn end(&mut self) -> Result<&Response> {
        while let Some(event) = self.next_event() {
            event?;
        }
        self.response().ok_or_else(|| {
            let reason = "the stream ended with an error, which it has returned before".to_owned();
            ErrorKind::Misuse { operation: "finish", reason }.into()
        })
    }

    /// As [`end`](Self::end), of a stream that is of no use any more.
    ///
    /// # Errors
    ///
    /// As [`end`](Self::end).
    pub fn finish(mut self) -> Result<Response> {
        self.end().cloned()
    }
}

impl Iterator for ResponseStream {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_event()? {
                Ok(Event::Text(text)) => return Some(Ok(text)),
                Ok(Event::ToolCall(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Iterator for Events<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_event()
    }
}

impl FusedIterator for Events<'_> {}

impl FusedIterator for ResponseStream {}

impl Drop for ResponseStream {
    fn drop(&mut self) {
        self.turn.cancel();
    }
}
