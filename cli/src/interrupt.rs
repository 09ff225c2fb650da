//! Ctrl-C: ends the answer that is being written, or the program when none is.
//!
//! At the prompt the line editor reads Ctrl-C as a key, so this is only about the time between prompts.

use crate::failure::{Failure, Result};
use fulcrum::session::Canceller;
use parking_lot::Mutex;
use std::sync::Arc;

/// The exit code that shells expect of a program that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// What Ctrl-C would cancel now.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<Mutex<Option<Canceller>>>);

impl Interrupt {
    /// Takes over Ctrl-C for the rest of the process.
    pub(crate) fn install(&self) -> Result<()> {
        let target = self.clone();
        ctrlc::set_handler(move || match target.0.lock().as_ref() {
            Some(turn) => turn.cancel(),
            None => std::process::exit(INTERRUPTED),
        })
        .map_err(|error| Failure::Terminal(error.to_string()))
    }

    /// Lets Ctrl-C cancel `turn` while `work` runs.
    pub(crate) fn during<T>(&self, turn: Canceller, work: impl FnOnce() -> T) -> T {
        *self.0.lock() = Some(turn);
        let result = work();
        *self.0.lock() = None;
        result
    }
}
