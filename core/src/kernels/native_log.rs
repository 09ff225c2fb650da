//! What llama.cpp and ggml print, as records of the `log` crate, and the reason for a failure out of it.
//!
//! The C API reports a failure as a null pointer or a number; the reason is only in the log. [`capture`] collects it. Lines
//! arrive in pieces, so they are joined until the newline. llama.cpp prints a hundred lines per model at `info`: they are
//! `debug` here, because a library that is asked to load a model should not talk.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use llama_cpp_sys_2 as sys;
use log::Level;

const LLAMA: &CStr = c"llama.cpp";
const GGML: &CStr = c"ggml";

/// The reason a call gives when it fails silently.
const NO_REASON: &str = "it gave no reason";

thread_local! {
    /// Per thread, because sessions on different threads decode at the same time and must not mix their lines.
    static LINES: RefCell<Lines> = const { RefCell::new(Lines::new()) };
}

/// Sends what llama.cpp and ggml print to the `log` crate, targets `llama.cpp` and `ggml`. Only the first call does anything.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `record` is a function for the whole life of the process and the user data are static C strings.
        // llama_log_set also sets ggml's callback, so ggml's own comes second.
        unsafe {
            sys::llama_log_set(Some(record), LLAMA.as_ptr().cast_mut().cast());
            sys::ggml_log_set(Some(record), GGML.as_ptr().cast_mut().cast());
        }
    });
}

/// Runs `call` and returns its result with the first error line that this thread printed meanwhile, or the first warning: what follows
/// it is what each caller up to the API has to add, which is less and less.
///
/// Meanwhile errors are logged at `debug`: the caller makes an [`Error`](crate::Error) of them, and one failure should not be
/// told twice.
pub(super) fn capture<T>(call: impl FnOnce() -> T) -> (T, String) {
    LINES.with_borrow_mut(Lines::begin);
    let result = call();
    (result, LINES.with_borrow_mut(Lines::end))
}

/// One thread's unfinished line and the worst complaint, the first of equals.
struct Lines {
    level: Level,
    line: String,
    capturing: bool,
    complaint: Option<(Level, String)>,
}

impl Lines {
    const fn new() -> Self {
        Self { level: Level::Debug, line: String::new(), capturing: false, complaint: None }
    }

    fn begin(&mut self) {
        self.capturing = true;
        self.complaint = None;
    }

    fn end(&mut self) -> String {
        self.capturing = false;
        self.complaint.take().map_or_else(|| NO_REASON.to_owned(), |(_, line)| line)
    }

    /// Adds a piece of text and hands every finished line to `emit`.
    fn push(&mut self, level: Option<Level>, text: &str, mut emit: impl FnMut(Level, &str)) {
        if let Some(level) = level {
            self.level = level;
        }
        for piece in text.split_inclusive('\n') {
            self.line.push_str(piece.trim_end_matches('\n'));
            if piece.ends_with('\n') {
                let line = std::mem::take(&mut self.line);
                self.finish(line.trim_end(), &mut emit);
            }
        }
    }

    fn finish(&mut self, line: &str, emit: &mut impl FnMut(Level, &str)) {
        if line.is_empty() {
            return;
        }
        let mut level = self.level;
        if self.capturing && level <= Level::Warn {
            // `Error < Warn` in the log crate.
            if self.complaint.as_ref().is_none_or(|(worst, _)| level < *worst) {
                self.complaint = Some((level, one_sentence(line)));
            }
            level = Level::Debug;
        }
        emit(level, line);
    }
}

/// Takes the C++ function's name off the front of a line: `llama_decode: failed` becomes `failed`.
fn one_sentence(line: &str) -> String {
    match line.split_once(": ") {
        Some((name, rest)) if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => {
            rest.trim().to_owned()
        }
        _ => line.trim().to_owned(),
    }
}

/// The level of the `log` crate, or `None` for the continuation of a line.
fn level_of(level: sys::ggml_log_level) -> Option<Level> {
    match level {
        sys::GGML_LOG_LEVEL_ERROR => Some(Level::Error),
        sys::GGML_LOG_LEVEL_WARN => Some(Level::Warn),
        sys::GGML_LOG_LEVEL_INFO => Some(Level::Debug),
        sys::GGML_LOG_LEVEL_CONT => None,
        _ => Some(Level::Trace),
    }
}

/// The callback. A panic (an application's logger may panic) must not unwind into C++.
unsafe extern "C" fn record(level: sys::ggml_log_level, text: *const c_char, user_data: *mut c_void) {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        if text.is_null() || user_data.is_null() {
            return;
        }
        // SAFETY: both are NUL-terminated: the text by the contract of ggml_log_callback, the user data by `install`.
        let (text, target) = unsafe { (CStr::from_ptr(text), CStr::from_ptr(user_data.cast_const().cast())) };
        let target = target.to_str().unwrap_or("ggml");
        let mut finished = Vec::new();
        LINES.with_borrow_mut(|lines| {
            lines.push(level_of(level), &text.to_string_lossy(), |level, line| finished.push((level, line.to_owned())));
        });
        // Outside the borrow: a logger may call back into the engine.
        for (level, line) in finished {
            log::log!(target: target, level, "{line}");
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(lines: &mut Lines, pieces: &[(Option<Level>, &str)]) -> Vec<(Level, String)> {
        let mut out = Vec::new();
        for (level, text) in pieces {
            lines.push(*level, text, |level, line| out.push((level, line.to_owned())));
        }
        out
    }

    #[test]
    fn pieces_of_a_line_are_joined_and_keep_the_level_of_the_first() {
        let out = feed(
            &mut Lines::new(),
            &[
                (Some(Level::Warn), "load"),
                (None, "ing ."),
                (None, ".\nnext\n"),
                (Some(Level::Debug), "\n"),
                (None, "x"),
            ],
        );
        assert_eq!(out, [(Level::Warn, "loading ..".to_owned()), (Level::Warn, "next".to_owned())]);
    }

    #[test]
    fn the_first_error_is_the_reason_and_is_not_logged_as_an_error_too() {
        let mut lines = Lines::new();
        lines.begin();
        let out = feed(
            &mut lines,
            &[
                (Some(Level::Warn), "aside: a warning\n"),
                (Some(Level::Error), "llama_init: n_ctx: too large\n"),
                (Some(Level::Error), "llama_new: failed\n"),
            ],
        );
        assert!(out.iter().all(|(level, _)| *level == Level::Debug), "{out:?}");
        assert_eq!(lines.end(), "n_ctx: too large");
        lines.begin();
        assert_eq!(lines.end(), NO_REASON);
    }

    #[test]
    fn a_function_name_is_not_part_of_the_reason() {
        assert_eq!(one_sentence("llama_decode: failed: 2"), "failed: 2");
        assert_eq!(one_sentence("no room: left"), "no room: left");
    }
}
