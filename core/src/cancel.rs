//! A flag that one thread raises and the decode loop, the executors and the loaders poll.
//!
//! It has no callbacks and wakes nobody: whoever waits on something else polls it between waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A shared cancel flag. Clones are the same flag. It is raised once per turn and never lowered: a new turn gets a new flag.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A flag that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the flag. Safe to call from any thread, any number of times, before, during or after the turn.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the flag is raised.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// The flag itself, for a C callback that polls it.
    #[cfg(feature = "ggml")]
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.0
    }
}
