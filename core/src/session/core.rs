//! What the session, its streams and its worker share.
//!
//! One lock guards the conversation and says which turn is open. A turn is settled, and becomes history, under that lock, so
//! whoever asks for the next answer finds the last one there. Lock order: this lock, then the worker's or a turn's. The worker holds
//! [`Shared`] but not [`Core`], so the last stream or session to go ends the worker and waits for it.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::conversation::Conversation;
use super::options::Response;
use super::turn::Turn;
use super::worker::{Job, OwedTurn, Request};
use crate::chat::Message;
use crate::error::{ErrorKind, Result};
use crate::metrics::SessionMetrics;

/// The state between turns.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    conversation: Conversation,
    metrics: SessionMetrics,
    turn: Option<Arc<Turn>>,
}

/// The state and the worker.
pub(super) struct Core {
    pub(super) shared: Arc<Shared>,
    worker: Mutex<Option<Worker>>,
}

/// The thread and the way to it. Turns that wait are cancelled but for the last, because a turn must not be open when the next
/// one begins, and texts that wait are what the app gave: the queue needs no bound.
pub(super) struct Worker {
    pub(super) jobs: Sender<Job>,
    pub(super) thread: JoinHandle<()>,
}

impl Shared {
    pub(super) fn conversation(&self) -> Conversation {
        self.state.lock().conversation.clone()
    }

    pub(super) fn metrics(&self) -> SessionMetrics {
        self.state.lock().metrics
    }

    /// Changes the metrics.
    pub(super) fn measure(&self, change: impl FnOnce(&mut SessionMetrics)) {
        change(&mut self.state.lock().metrics);
    }

    /// Changes the conversation; no turn begins meanwhile. Fails with `Busy` while one is open.
    pub(super) fn edit<T>(&self, change: impl FnOnce(&mut Conversation) -> T) -> Result<T> {
        let mut state = self.state.lock();
        state.check_idle()?;
        Ok(change(&mut state.conversation))
    }

    /// Cancels the open turn, if there is one.
    pub(super) fn cancel(&self) {
        self.state.lock().cancel();
    }

    /// Cancels the open turn and takes the worker, in one step, so that no turn begins in between.
    fn close(&self, worker: &Mutex<Option<Worker>>) -> Option<Worker> {
        let state = self.state.lock();
        state.cancel();
        worker.lock().take()
    }
}

impl State {
    fn cancel(&self) {
        if let Some(turn) = &self.turn {
            turn.cancel();
        }
    }

    fn check_idle(&self) -> Result<()> {
        match &self.turn {
            Some(turn) if turn.is_open() => Err(ErrorKind::Busy.into()),
            _ => Ok(()),
        }
    }
}

impl Core {
    pub(super) fn new(shared: Arc<Shared>, worker: Worker) -> Self {
        Self { shared, worker: Mutex::new(Some(worker)) }
    }

    /// Opens a turn. Fails with `Busy` while another one is open, with `Closed` after [`close`](Self::close).
    pub(super) fn begin(&self, request: Request) -> Result<Arc<Turn>> {
        let mut state = self.shared.state.lock();
        state.check_idle()?;
        let turn = Arc::default();
        self.send(Job::Answer(OwedTurn(Arc::clone(&turn)), Box::new(request)))?;
        state.turn = Some(Arc::clone(&turn));
        Ok(turn)
    }

    /// Hands the worker a job. Fails with `Closed` after [`close`](Self::close).
    pub(super) fn send(&self, job: Job) -> Result<()> {
        let sent = self.worker.lock().as_ref().is_some_and(|worker| worker.jobs.send(job).is_ok());
        if sent { Ok(()) } else { Err(ErrorKind::Closed.into()) }
    }

    /// Settles a turn that has ended; a complete answer to `messages` becomes history.
    pub(super) fn settle(&self, turn: &Arc<Turn>, messages: Option<Vec<Message>>) -> Result<Response> {
        let mut state = self.shared.state.lock();
        let response = turn.settle()?;
        if let Some(messages) = messages {
            let tool_calls = response.tool_calls.clone();
            let answer = Message { tool_calls, ..Message::assistant(response.text.clone()) };
            state.conversation.commit(messages, answer, response.dropped_messages);
        }
        Ok(response)
    }

    /// Cancels the open turn, ends the worker and waits for it. Nothing runs after that.
    pub(super) fn close(&self) {
        let worker = self.shared.close(&self.worker);
        if let Some(Worker { jobs, thread }) = worker {
            drop(jobs);
            // A panic of the worker was reported to its turn; a worker that drops its own session must not wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.close();
    }
}
