//! One turn between the worker, which fills it, and the consumer, who empties it; anyone may cancel it.
//!
//! What waits in between is bounded: a worker that is ahead of its consumer waits (back-pressure), a consumer that is behind gets
//! everything at once (coalescing), and none is woken more often than text is read: every wake takes a core from those that compute.
//! A turn is *open* until it is settled by its consumer or cancelled, whichever comes first,
//! and that decides once and for all how it ended: after a cancel nothing of it is seen, after settling a cancel does nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::options::Response;
use crate::cancel::Cancel;
use crate::chat::Event;
use crate::error::{ErrorKind, Result};

/// Text that may wait for its consumer, in bytes: a few hundred tokens.
const CAPACITY: usize = 1024;

/// Time from one piece to the next at least, unless as much waits as may, a tool is called, or the turn ends: thirty a second. On two
/// cores that both compute, a piece costs Kotlin 0.4 ms of one (`docs/benchmarks.md`, Kotlin and Swift).
const INTERVAL: Duration = Duration::from_millis(33);

/// A call counts as much as may wait: the app is to see it before much more comes.
fn n_bytes(event: &Event) -> usize {
    match event {
        Event::Text(text) => text.len(),
        Event::ToolCall(_) => CAPACITY,
    }
}

/// A turn that is under way, or was.
#[derive(Default)]
pub(super) struct Turn {
    cancel: Cancel,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    /// No two texts side by side.
    events: VecDeque<Event>,
    /// Bytes of text that wait.
    n_bytes: usize,
    /// When the consumer may have the next piece; `None` before the first.
    due: Option<Instant>,
    outcome: Option<Result<Response>>,
    settled: bool,
}

impl Inner {
    /// Whether what there is need not wait for more.
    fn is_due(&self) -> bool {
        let in_time = self.due.is_none_or(|due| due <= Instant::now());
        in_time || self.n_bytes >= CAPACITY || self.outcome.is_some()
    }

    fn push(&mut self, event: Event) {
        match (event, self.events.back_mut()) {
            (Event::Text(text), Some(Event::Text(last))) => {
                self.n_bytes += text.len();
                last.push_str(&text);
            }
            (event, _) => {
                self.n_bytes += n_bytes(&event);
                self.events.push_back(event);
            }
        }
    }

    fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.n_bytes -= n_bytes(&event);
        Some(event)
    }
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

    /// Worker: adds a piece, after waiting for room. Fails with `Cancelled`.
    pub(super) fn push(&self, event: Event) -> Result<()> {
        let mut inner = self.inner.lock();
        while inner.n_bytes >= CAPACITY && !self.cancel.is_cancelled() {
            self.changed.wait(&mut inner);
        }
        if self.cancel.is_cancelled() {
            return Err(ErrorKind::Cancelled.into());
        }
        inner.push(event);
        if inner.is_due() {
            self.changed.notify_all();
        }
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

    /// Consumer: waits for a piece, and for its time, and takes all the text there is, or a call; `None` once there is nothing left
    /// but to settle.
    pub(super) fn take(&self) -> Option<Event> {
        let mut inner = self.inner.lock();
        loop {
            if self.cancel.is_cancelled() {
                return None;
            }
            let is_due = inner.is_due();
            if is_due && let Some(event) = inner.pop() {
                inner.due = Some(Instant::now() + INTERVAL);
                self.changed.notify_all();
                return Some(event);
            }
            if inner.outcome.is_some() {
                return None;
            }
            match inner.due {
                Some(due) if !is_due => drop(self.changed.wait_until(&mut inner, due)),
                _ => self.changed.wait(&mut inner),
            }
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::RecvTimeoutError;

    use super::*;

    fn text(text: &str) -> Event {
        Event::Text(text.into())
    }

    #[test]
    fn a_consumer_is_woken_once_an_interval_and_gets_everything() {
        let turn = Turn::default();
        let start = Instant::now();
        let pieces = std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..200 {
                    turn.push(text("la ")).unwrap();
                    std::thread::sleep(Duration::from_micros(200));
                }
                turn.end(Err(ErrorKind::Closed.into()));
            });
            std::iter::from_fn(|| turn.take()).collect::<Vec<_>>()
        });
        let said = |event: &Event| match event {
            Event::Text(text) => text.clone(),
            Event::ToolCall(_) => unreachable!("nobody calls"),
        };
        assert_eq!(pieces.iter().map(said).collect::<String>(), "la ".repeat(200));
        // The first comes at once, the last with the end.
        let most = start.elapsed().as_millis() / INTERVAL.as_millis() + 2;
        assert!(pieces.len() as u128 <= most, "{} pieces in {most} intervals", pieces.len());
        assert!(turn.settle().is_err());
    }

    #[test]
    fn a_piece_waits_for_its_time_and_not_for_the_end() {
        let turn = Turn::default();
        std::thread::scope(|scope| {
            let (done, until_done) = std::sync::mpsc::channel::<()>();
            let turn = &turn;
            // Ends a turn that would wait for ever.
            scope.spawn(move || {
                if until_done.recv_timeout(Duration::from_secs(20)).is_err_and(|e| e != RecvTimeoutError::Disconnected)
                {
                    turn.end(Err(ErrorKind::Closed.into()));
                }
            });
            for piece in 0..4 {
                turn.push(text("la")).unwrap();
                let start = Instant::now();
                assert_eq!(turn.take(), Some(text("la")));
                assert!(start.elapsed() < Duration::from_secs(10), "piece {piece} waits for the end");
            }
            drop(done);
        });
    }
}
