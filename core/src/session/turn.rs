//! One turn between the worker, which fills it, and the consumer, who empties it; anyone may cancel it.
//!
//! The text in between is bounded: a worker that is ahead of its consumer waits (back-pressure), a consumer that is behind gets
//! everything at once (coalescing). A turn is *open* until it is settled by its consumer or cancelled, whichever comes first,
//! and that decides once and for all how it ended: after a cancel nothing of it is seen, after settling a cancel does nothing.

use parking_lot::{Condvar, Mutex};

use super::options::Response;
use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};

/// Text that may wait for its consumer, in bytes: a few hundred tokens.
const CAPACITY: usize = 1024;

/// A turn that is under way, or was.
#[derive(Default)]
pub(super) struct Turn {
    cancel: Cancel,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    text: String,
    outcome: Option<Result<Response>>,
    settled: bool,
}

impl Turn {
    /// What the worker polls.
    pub(super) fn flag(&self) -> &Cancel {
        &self.cancel
    }

    /// Whether the consumer is still to see its end.
    pub(super) fn is_open(&self) -> bool {
        !self.inner.lock().settled && !self.cancel.is_cancelled()
    }

    /// Cancels the turn; of no effect once it is settled, because nobody asks any more.
    pub(super) fn cancel(&self) {
        let _nobody_is_about_to_wait = self.inner.lock();
        self.cancel.cancel();
        self.changed.notify_all();
    }

    /// Worker: adds a piece of text, after waiting for room. Fails with `Cancelled`.
    pub(super) fn push(&self, piece: &str) -> Result<()> {
        let mut inner = self.inner.lock();
        while inner.text.len() >= CAPACITY && !self.cancel.is_cancelled() {
            self.changed.wait(&mut inner);
        }
        if self.cancel.is_cancelled() {
            return Err(ErrorKind::Cancelled.into());
        }
        inner.text.push_str(piece);
        self.changed.notify_all();
        Ok(())
    }

    /// Worker: says how it ended. Only the first time counts.
    pub(super) fn end(&self, outcome: Result<Response>) {
        let mut inner = self.inner.lock();
        if inner.outcome.is_none() {
            inner.outcome = Some(outcome);
            self.changed.notify_all();
        }
    }

    /// Consumer: waits for text and takes all there is; `None` once there is nothing left but to settle.
    pub(super) fn take_text(&self) -> Option<String> {
        let mut inner = self.inner.lock();
        loop {
            if self.cancel.is_cancelled() {
                return None;
            }
            if !inner.text.is_empty() {
                self.changed.notify_all();
                return Some(std::mem::take(&mut inner.text));
            }
            if inner.outcome.is_some() {
                return None;
            }
            self.changed.wait(&mut inner);
        }
    }

    /// Consumer: ends the turn, once, and says how it ended.
    pub(super) fn settle(&self) -> Result<Response> {
        let mut inner = self.inner.lock();
        inner.settled = true;
        if self.cancel.is_cancelled() {
            return Err(ErrorKind::Cancelled.into());
        }
        inner.outcome.take().unwrap_or_else(|| Err(ErrorKind::Closed.into()))
    }
}
