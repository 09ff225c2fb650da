//! The thread that answers: it owns the ledger, and with it the executor, and the state of speculation.
//!
//! A turn that does not come to its end leaves the ledger where the turn's prompt began to differ from it. If even that fails,
//! the executor is given up and the next turn gets a new one: no error outlives its turn.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::ModelParts;
use super::conversation::{Fitted, Room};
use super::core::{Shared, Worker};
use super::options::{ContextOverflow, Response};
use super::prompt::Prompter;
use super::turn::Turn;
use crate::cancel::Cancel;
use crate::chat::{Event, Message};
use crate::decode::{Generated, Generation, Ledger, Output, ToolCalls};
use crate::draft::store::SavedDrafts;
use crate::error::{ErrorKind, Result};
use crate::metrics::{GenerationEnd, GenerationMetrics, peak_rss_bytes};
use crate::sampling::Sampler;
use crate::speculation::{Drafting, Speculation};
use crate::stop::StopStrings;
use crate::token::Token;

/// What the worker is asked to do, one after another.
pub(super) enum Job {
    /// Answer a turn.
    Answer(OwedTurn, Box<Request>),
    /// Draft from this text too, from the next turn on.
    Context(Vec<Token>),
    /// Forget the conversation's text.
    Forget,
    /// Hand over what is stored to draft from.
    Save(Sender<SavedDrafts>),
    /// Draft from what another session saved.
    Restore(Box<SavedDrafts>),
}

/// A turn that the worker owes an end. However the job goes away, the turn gets one: also if the worker panics, or has
/// panicked while the job was on its way.
pub(super) struct OwedTurn(pub(super) Arc<Turn>);

impl Drop for OwedTurn {
    fn drop(&mut self) {
        self.0.end(Err(ErrorKind::Closed.into()));
    }
}

/// What is asked for.
pub(super) struct Request {
    pub(super) prompt: Prompt,
    pub(super) sampler: Sampler,
    pub(super) stops: StopStrings,
    pub(super) max_tokens: usize,
    pub(super) drafting: Drafting,
    pub(super) asked: Instant,
}

/// What is to be answered.
pub(super) enum Prompt {
    /// The conversation and these messages.
    Messages(Vec<Message>),
    /// Text as it is: no template, no history.
    Text(String),
}

/// The worker's own.
pub(super) struct Answerer {
    pub(super) parts: ModelParts,
    pub(super) shared: Arc<Shared>,
    pub(super) overflow: ContextOverflow,
    /// Tokens the executor holds; it may round up what was asked for.
    pub(super) capacity: usize,
    /// `None` after an executor that could not be rolled back.
    pub(super) ledger: Option<Ledger>,
    pub(super) speculation: Speculation,
}

impl Answerer {
    /// Starts the thread.
    pub(super) fn start(mut self) -> Result<Worker> {
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new().name("fulcrum session".into()).spawn(move || self.work(queue));
        let thread =
            thread.map_err(|e| ErrorKind::Backend { operation: "starting a thread", reason: e.to_string() })?;
        Ok(Worker { jobs, thread })
    }

    fn work(&mut self, queue: Receiver<Job>) {
        for job in queue {
            match job {
                Job::Answer(turn, request) => turn.0.end(self.answer(&turn.0, *request)),
                Job::Context(tokens) => self.speculation.add_context(&tokens),
                Job::Forget => self.speculation.forget(),
                // Nobody waits for it any more if it cannot be sent.
                Job::Save(to) => drop(to.send(self.speculation.saved())),
                Job::Restore(saved) => self.speculation.restore(&saved),
            }
        }
    }

    fn answer(&mut self, turn: &Turn, request: Request) -> Result<Response> {
        let mut metrics = GenerationMetrics::default();
        let seed = request.sampler.seed();
        let result = self.generate(turn, request, &mut metrics);
        metrics.peak_rss_bytes = peak_rss_bytes();
        let end = match &result {
            Ok(_) => GenerationEnd::Completed,
            Err(error) if error.is_cancelled() => GenerationEnd::Cancelled,
            Err(_) => GenerationEnd::Failed,
        };
        self.shared.measure(|session| session.add_generation(&metrics, end));
        let (Generated { text, tool_calls, tokens, logprobs, finish_reason }, dropped_messages) = result?;
        Ok(Response { text, tool_calls, tokens, finish_reason, metrics, logprobs, seed, dropped_messages })
    }

    /// The turn as a transaction: rolls ledger and speculation back unless it comes to its end.
    fn generate(
        &mut self,
        turn: &Turn,
        request: Request,
        metrics: &mut GenerationMetrics,
    ) -> Result<(Generated, usize)> {
        if turn.flag().is_cancelled() {
            return Err(ErrorKind::Cancelled.into());
        }
        let (Fitted { tokens, dropped }, tools) = self.prompt(&request, turn.flag())?;
        let mut ledger = match self.ledger.take() {
            Some(ledger) => ledger,
            None => Ledger::new(self.parts.weights.executor(self.parts.context_length)?)?,
        };
        let start = ledger.agreeing(&tokens);
        let exact = ledger.shape().invariant_rows || matches!(request.drafting, Drafting::Chain { .. });
        metrics.drafting = request.drafting != Drafting::Off && ledger.shape().forgets_rows && exact;
        self.speculation.set_drafting(if metrics.drafting { request.drafting } else { Drafting::Off });
        self.speculation.align(&tokens);
        self.speculation.mark();
        let result = self.decode(turn, request, tools, &mut ledger, &tokens, metrics);
        if result.is_err() {
            self.speculation.roll_back();
        }
        *self.parts.experience.lock() = self.speculation.experience();
        if result.is_ok() || ledger.roll_back(start).is_ok() {
            self.ledger = Some(ledger);
        }
        Ok((result?, dropped))
    }

    /// The prompt, and how calls of tools are found in its answer.
    fn prompt(&self, request: &Request, cancel: &Cancel) -> Result<(Fitted, Option<ToolCalls>)> {
        let prompter = Prompter { template: &self.parts.template, vocabulary: &*self.parts.vocabulary };
        match &request.prompt {
            Prompt::Text(text) => Ok((Fitted { tokens: prompter.trusted(text)?, dropped: 0 }, None)),
            Prompt::Messages(new) => {
                let conversation = self.shared.conversation();
                let room = Room { capacity: self.capacity, max_tokens: request.max_tokens };
                let fitted = conversation.fit(new, self.overflow, room, |messages| {
                    if cancel.is_cancelled() {
                        return Err(ErrorKind::Cancelled.into());
                    }
                    prompter.conversation(messages, &conversation.tools)
                })?;
                let tools = prompter.tool_calls(&conversation, new, &fitted.tokens)?;
                Ok((fitted, tools))
            }
        }
    }

    fn decode(
        &mut self,
        turn: &Turn,
        request: Request,
        tools: Option<ToolCalls>,
        ledger: &mut Ledger,
        prompt: &[Token],
        metrics: &mut GenerationMetrics,
    ) -> Result<Generated> {
        let Request { mut sampler, stops, max_tokens, asked, .. } = request;
        let mut sink = |event: Event| turn.push(event);
        let output = Output::new(&*self.parts.vocabulary, stops, max_tokens, &mut sink).with_tools(tools);
        let (speculation, sampler, cancel) = (&mut self.speculation, &mut sampler, turn.flag());
        Generation { ledger, speculation, sampler, output, cancel, metrics, asked }.run(prompt)
    }
}
