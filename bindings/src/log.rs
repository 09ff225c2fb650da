//! What the core logs, for the app's own log.
//!
//! A process has one logger, so this is the one thing here that is not an object. Without a sink nothing is written anywhere, but
//! on Android: there it goes to the system's log, and warnings do so from the first model on without anybody asking.

use std::sync::Arc;

use log::{LevelFilter, Metadata, Record};
use parking_lot::Mutex;

/// How important a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, uniffi::Enum)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something may fail, or is slower than it could be.
    Warn,
    /// What was decided, and why.
    Info,
    /// What ggml and llama.cpp say.
    Debug,
    /// Everything.
    Trace,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct LogLine {
    /// How important it is.
    pub level: LogLevel,
    /// Who says it: a module of Fulcrum, `ggml` or `llama.cpp`.
    pub target: String,
    /// What is said.
    pub message: String,
}

/// Is given the lines of the log, on any thread. Must be quick and must not throw.
#[uniffi::export(with_foreign)]
pub trait LogSink: Send + Sync {
    /// Takes one line.
    fn log(&self, line: LogLine);
}

struct Logger {
    sink: Mutex<Option<Arc<dyn LogSink>>>,
}

static LOGGER: Logger = Logger { sink: Mutex::new(None) };

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // A sink may log: it is called without the lock.
        let sink = self.sink.lock().clone();
        match sink {
            Some(sink) => sink.log(LogLine {
                level: record.level().into(),
                target: record.target().to_owned(),
                message: record.args().to_string(),
            }),
            None => log_without_sink(record),
        }
    }

    fn flush(&self) {}
}

#[cfg(target_os = "android")]
fn log_without_sink(record: &Record<'_>) {
    static SYSTEM: std::sync::OnceLock<android_logger::AndroidLogger> = std::sync::OnceLock::new();
    let config = || android_logger::Config::default().with_tag("fulcrum").with_max_level(LevelFilter::Trace);
    log::Log::log(SYSTEM.get_or_init(|| android_logger::AndroidLogger::new(config())), record);
}

#[cfg(not(target_os = "android"))]
fn log_without_sink(_: &Record<'_>) {}

/// Sends lines at `level` and above to `sink`, or to nobody (on Android: to the system's log).
#[uniffi::export]
pub fn set_log_sink(sink: Option<Arc<dyn LogSink>>, level: LogLevel) {
    *LOGGER.sink.lock() = sink;
    // A program in which another logger was set first keeps that one.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level.into());
}

/// Sends warnings to Android's log, unless somebody has asked for the log before, in this way or another.
pub(crate) fn log_to_system() {
    if cfg!(target_os = "android") && log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

impl From<log::Level> for LogLevel {
    fn from(level: log::Level) -> Self {
        match level {
            log::Level::Error => Self::Error,
            log::Level::Warn => Self::Warn,
            log::Level::Info => Self::Info,
            log::Level::Debug => Self::Debug,
            log::Level::Trace => Self::Trace,
        }
    }
}
