//! An answer as it comes: the consumer pulls, so a slow one slows the model and no buffer grows.

use fulcrum::{Canceller, Event, ResponseStream};
use parking_lot::Mutex;

use crate::error::Result;
use crate::message::ToolCall;
use crate::response::Response;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, uniffi::Enum)]
pub enum NativeEvent {
    /// Text to show.
    Text {
        /// The text, never empty.
        text: String,
    },
    /// A tool that the model calls.
    ToolCall {
        /// The call.
        call: ToolCall,
    },
}

impl From<Event> for NativeEvent {
    fn from(event: Event) -> Self {
        match event {
            Event::Text(text) => Self::Text { text },
            Event::ToolCall(call) => Self::ToolCall { call: call.into() },
        }
    }
}

/// An answer that is being generated. Dropping it before its end cancels the turn.
#[derive(uniffi::Object)]
pub struct NativeStream {
    stream: Mutex<ResponseStream>,
    canceller: Canceller,
}

impl NativeStream {
    pub(crate) fn new(stream: ResponseStream) -> Self {
        Self { canceller: stream.canceller(), stream: Mutex::new(stream) }
    }
}

#[uniffi::export]
impl NativeStream {
    /// Waits for the next part; none after the last, and after a cancel. Blocks: call it on a thread that may wait.
    pub fn next(&self) -> Option<NativeEvent> {
        self.stream.lock().next_part().map(Into::into)
    }

    /// The answer, which becomes history with this call, or the error that ended it, once: to be called after `next` has returned
    /// none, and after the app has seen all parts.
    pub fn finish(&self) -> Result<Response> {
        Ok(self.stream.lock().end()?.clone().into())
    }

    /// Cancels the turn if its end was not seen yet; else does nothing. Ends a `next` that waits.
    pub fn cancel(&self) {
        self.canceller.cancel();
    }
}
