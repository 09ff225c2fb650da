//! An answer as it comes: the consumer pulls, so a slow one slows the model and no buffer grows.

use fulcrum::{Canceller, ResponseStream};
use parking_lot::Mutex;

use crate::error::Result;
use crate::response::Response;

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
    /// Waits for the next piece of text; none after the last. Blocks: call it on a thread that may wait.
    pub fn next(&self) -> Result<Option<String>> {
        Ok(self.stream.lock().next().transpose()?)
    }

    /// The answer, once `next` has returned none.
    pub fn response(&self) -> Option<Response> {
        self.stream.lock().response().cloned().map(Into::into)
    }

    /// Cancels the turn if its end was not seen yet; else does nothing. Ends a `next` that waits.
    pub fn cancel(&self) {
        self.canceller.cancel();
    }
}
