//! Reads the streamed layers, one after the other and round again, ahead of their use.
//!
//! A few threads fill a ring of slots, request by request, so that several are in flight; whoever computes takes a full slot
//! as a [`Lease`] and gives it back when the layer is done. Nothing waits for a pass to begin: as soon as a slot is free the next
//! layer is read into it, so the first layers of the next pass arrive while tokens are projected, chosen and drafted.
//!
//! Every use of a layer has a number, its *turn*; turns go on for ever, so that a slot full for an earlier turn is never mistaken
//! for a later one. A pass that was given up leaves the ring somewhere in the middle: the next one skips to its first layer.
//!
//! Deliberately not known here: what a layer is, and which ones stream.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::layout::Run;
use super::source::{BlobSource, Read, Scratch};
use crate::cancel::Cancel;
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::region::Piece;
use crate::kernels::threads::POLL_CANCEL;
use crate::metrics::FlashMetrics;

/// Requests in flight: flash reaches its bandwidth with a few large ones.
pub(crate) const IN_FLIGHT: usize = 4;

/// The streamed layers of a model, and the threads that read them. One pass uses it at a time.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    pass: Mutex<()>,
}

struct Shared {
    source: Arc<dyn BlobSource>,
    /// The layers, ascending.
    order: Vec<usize>,
    state: Mutex<State>,
    /// For readers: there is something to read.
    wanted: Condvar,
    /// For whoever computes: a layer has come, or reading has failed.
    arrived: Condvar,
}

struct State {
    slots: Vec<Slot>,
    /// The turn that is computed next.
    next: u64,
    /// The turn that is being read; those before it are read or on their way.
    filling: u64,
    /// Requests of it that are taken.
    taken: usize,
    /// Why reading has stopped; until somebody asks for a layer again.
    failed: Option<Error>,
    stopped: bool,
    ended: bool,
    /// Passes begun. What an earlier one asked for may still fail, but is no failure of this one's: it is read again.
    passes: u64,
    in_flight: usize,
    busy_since: Option<Instant>,
    figures: FlashMetrics,
}

/// Memory for one layer.
enum Slot {
    Free(Piece),
    /// Being read for `turn`. What is not taken yet, what has come back by request, and how many have not.
    Filling {
        turn: u64,
        rest: Piece,
        back: Vec<Option<Piece>>,
        out: usize,
        given_up: bool,
    },
    Full {
        turn: u64,
        memory: Piece,
    },
    /// With whoever computes.
    Lent,
}

/// The right to stream for a pass.
pub(crate) struct Pass<'a> {
    stream: &'a Stream,
    _turn: MutexGuard<'a, ()>,
}

/// A layer in memory, until it is dropped.
pub(crate) struct Lease<'a> {
    shared: &'a Shared,
    slot: usize,
    memory: Option<Piece>,
}

impl Stream {
    /// Begins to read `layers` (ascending) from `source` into `slots`, each as large as the largest of them.
    ///
    /// # Errors
    ///
    /// `Backend` if the threads cannot be started.
    pub(crate) fn start(source: Arc<dyn BlobSource>, layers: Vec<usize>, slots: Vec<Piece>) -> Result<Self> {
        let state = State {
            slots: slots.into_iter().map(Slot::Free).collect(),
            next: 0,
            filling: 0,
            taken: 0,
            failed: None,
            stopped: false,
            ended: false,
            passes: 0,
            in_flight: 0,
            busy_since: None,
            figures: FlashMetrics::default(),
        };
        let shared = Arc::new(Shared {
            source,
            order: layers,
            state: Mutex::new(state),
            wanted: Condvar::new(),
            arrived: Condvar::new(),
        });
        let mut stream = Self { shared, threads: Vec::new(), pass: Mutex::new(()) };
        for _ in 0..IN_FLIGHT {
            let shared = Arc::clone(&stream.shared);
            let thread = std::thread::Builder::new().name("fulcrum flash".into()).spawn(move || shared.read());
            let failed =
                |e: std::io::Error| ErrorKind::Backend { operation: "starting a thread", reason: e.to_string() };
            stream.threads.push(thread.map_err(failed)?);
        }
        Ok(stream)
    }

    /// Waits for other sessions' passes, and begins one.
    ///
    /// # Errors
    ///
    /// `Cancelled`, and `File` if a file is no longer what was opened.
    pub(crate) fn pass(&self, cancel: &Cancel) -> Result<Pass<'_>> {
        let turn = loop {
            if cancel.is_cancelled() {
                return Err(ErrorKind::Cancelled.into());
            }
            if let Some(turn) = self.pass.try_lock_for(POLL_CANCEL) {
                break turn;
            }
        };
        self.shared.source.check_unchanged()?;
        // What went wrong while nobody asked is tried again.
        let mut state = self.shared.state.lock();
        state.passes += 1;
        self.shared.resume(&mut state);
        drop(state);
        Ok(Pass { stream: self, _turn: turn })
    }

    /// What was read so far.
    pub(crate) fn figures(&self) -> FlashMetrics {
        let state = self.shared.state.lock();
        let mut figures = state.figures;
        figures.busy_s += state.busy_since.map_or(0.0, |since| since.elapsed().as_secs_f64());
        figures
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.wanted.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread that reads weights has panicked");
            }
        }
    }
}

impl Pass<'_> {
    /// Waits until `layer` is in memory.
    ///
    /// # Errors
    ///
    /// `Cancelled`, or `File` if it could not be read; asking again tries again.
    pub(crate) fn layer(&self, layer: usize, cancel: &Cancel) -> Result<Lease<'_>> {
        let shared = &*self.stream.shared;
        let mut state = shared.state.lock();
        let turn = shared.turn_of(layer, state.next);
        shared.skip_to(turn, &mut state);
        let slot = shared.slot_of(turn, &state);
        let mut waited = None;
        let memory = loop {
            if let Some(memory) = state.slots[slot].take_full(turn) {
                break memory;
            }
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            shared.resume(&mut state);
            let since = *waited.get_or_insert_with(Instant::now);
            shared.arrived.wait_for(&mut state, POLL_CANCEL);
            if cancel.is_cancelled() {
                state.figures.stalled_s += since.elapsed().as_secs_f64();
                return Err(ErrorKind::Cancelled.into());
            }
        };
        state.next = turn + 1;
        state.figures.stalled_s += waited.map_or(0.0, |since| since.elapsed().as_secs_f64());
        Ok(Lease { shared, slot, memory: Some(memory) })
    }
}

impl Lease<'_> {
    /// The layer.
    pub(crate) fn memory(&self) -> &Piece {
        self.memory.as_ref().expect("it is given back when the lease is dropped")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.shared.state.lock().slots[self.slot] = Slot::Free(memory);
            self.shared.wanted.notify_all();
        }
    }
}

impl Shared {
    fn layer_of(&self, turn: u64) -> usize {
        self.order[usize::try_from(turn % self.order.len() as u64).unwrap_or(0)]
    }

    fn slot_of(&self, turn: u64, state: &State) -> usize {
        usize::try_from(turn % state.slots.len() as u64).unwrap_or(0)
    }

    /// The first turn of `layer` from `next` on.
    fn turn_of(&self, layer: usize, next: u64) -> u64 {
        let n = self.order.len() as u64;
        let place = self.order.binary_search(&layer).expect("a layer that streams") as u64;
        next + (place + n - next % n) % n
    }

    /// Forgets what was read for turns before `turn`.
    fn skip_to(&self, turn: u64, state: &mut State) {
        state.next = turn;
        for slot in &mut state.slots {
            slot.forget_before(turn);
        }
        if state.filling < turn {
            (state.filling, state.taken) = (turn, 0);
        }
        self.wanted.notify_all();
    }

    /// Lets readers go on after a failure that nobody has seen, or that somebody has.
    fn resume(&self, state: &mut State) {
        if state.stopped {
            (state.stopped, state.failed) = (false, None);
            self.wanted.notify_all();
        }
    }

    /// A reading thread.
    fn read(&self) {
        let mut scratch = Scratch::new();
        let mut state = self.state.lock();
        while !state.ended {
            let Some(mut request) = self.take(&mut state) else {
                self.wanted.wait(&mut state);
                continue;
            };
            if state.in_flight == 0 {
                state.busy_since = Some(Instant::now());
            }
            state.in_flight += 1;
            let result = MutexGuard::unlocked(&mut state, || {
                let layer = self.layer_of(request.turn);
                let run = &self.source.runs(layer)[request.index];
                self.source.read(layer, run, request.piece.bytes_mut(), &mut scratch)
            });
            state.in_flight -= 1;
            if state.in_flight == 0 {
                let busy = state.busy_since.take().map_or(0.0, |since| since.elapsed().as_secs_f64());
                state.figures.busy_s += busy;
            }
            self.give_back(request, result, &mut state);
        }
    }

    /// The next request, if there is a slot for it.
    fn take(&self, state: &mut State) -> Option<Request> {
        if state.stopped {
            return None;
        }
        let (turn, index) = (state.filling, state.taken);
        let slot = self.slot_of(turn, state);
        let runs: &[Run] = self.source.runs(self.layer_of(turn));
        state.slots[slot].begin(turn, runs.len());
        let Slot::Filling { turn: of, rest, out, given_up: false, .. } = &mut state.slots[slot] else { return None };
        if *of != turn {
            return None;
        }
        let piece = rest.split_to(runs[index].len);
        *out += 1;
        state.taken += 1;
        if state.taken == runs.len() {
            (state.filling, state.taken) = (turn + 1, 0);
        }
        Some(Request { turn, index, slot, piece, asked_in: state.passes })
    }

    fn give_back(&self, request: Request, result: Result<Read>, state: &mut State) {
        let Request { turn, index, slot, piece, asked_in } = request;
        // Nobody waits for what was given up, so nobody is told that it failed.
        let is_wanted = !matches!(state.slots[slot], Slot::Filling { given_up: true, .. });
        match result {
            Ok(read) => {
                state.figures.bytes += read.bytes;
                state.figures.packed_bytes += read.packed;
            }
            Err(_) if !is_wanted => {}
            Err(error) => {
                log::warn!("reading layer {}: {error}", self.layer_of(turn));
                if asked_in == state.passes {
                    state.failed.get_or_insert(error);
                    state.stopped = true;
                }
                // From this layer on everything is read again, by whoever asks for it.
                for slot in &mut state.slots {
                    slot.give_up_from(turn);
                }
                if state.filling >= turn {
                    (state.filling, state.taken) = (turn, 0);
                }
            }
        }
        state.slots[slot].take_back(index, piece);
        self.arrived.notify_all();
        self.wanted.notify_all();
    }
}

struct Request {
    /// The pass during which, or behind which, it was taken.
    asked_in: u64,
    turn: u64,
    index: usize,
    slot: usize,
    piece: Piece,
}

impl Slot {
    /// Takes the slot's memory, leaving it lent.
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Lent)
    }

    /// Has a free slot be filled for `turn`.
    fn begin(&mut self, turn: u64, n_requests: usize) {
        if let Self::Free(_) = self
            && let Self::Free(rest) = self.take()
        {
            let back = (0..n_requests).map(|_| None).collect();
            *self = Self::Filling { turn, rest, back, out: 0, given_up: false };
        }
    }

    fn take_full(&mut self, turn: u64) -> Option<Piece> {
        match self {
            Self::Full { turn: of, .. } if *of == turn => match self.take() {
                Self::Full { memory, .. } => Some(memory),
                _ => None,
            },
            _ => None,
        }
    }

    /// A request has come back.
    fn take_back(&mut self, index: usize, piece: Piece) {
        if let Self::Filling { back, out, .. } = self {
            back[index] = Some(piece);
            *out -= 1;
        }
        self.settle();
    }

    /// Frees the slot if what it holds or waits for is for a turn before `turn`.
    fn forget_before(&mut self, turn: u64) {
        match self {
            Self::Full { turn: of, .. } if *of < turn => {
                if let Self::Full { memory, .. } = self.take() {
                    *self = Self::Free(memory);
                }
            }
            Self::Filling { turn: of, given_up, .. } if *of < turn => *given_up = true,
            _ => {}
        }
        self.settle();
    }

    /// Gives up what is being read for `turn` or later.
    fn give_up_from(&mut self, turn: u64) {
        match self {
            Self::Full { turn: of, .. } if *of >= turn => {
                if let Self::Full { memory, .. } = self.take() {
                    *self = Self::Free(memory);
                }
            }
            Self::Filling { turn: of, given_up, .. } if *of >= turn => *given_up = true,
            _ => {}
        }
        self.settle();
    }

    /// What is complete is full; what was given up is free as soon as no request for it is out.
    fn settle(&mut self) {
        let Self::Filling { back, out: 0, given_up, .. } = self else { return };
        let complete = back.iter().all(Option::is_some);
        if !complete && !*given_up {
            return;
        }
        let Self::Filling { turn, rest, back, given_up, .. } = self.take() else { return };
        let memory = joined(back, rest);
        *self = if given_up { Self::Free(memory) } else { Self::Full { turn, memory } };
    }
}

/// The slot's memory in one piece again. Requests are taken from the front, so those that came back stand before the rest.
fn joined(back: Vec<Option<Piece>>, rest: Piece) -> Piece {
    let mut pieces = back.into_iter().flatten().chain([rest]);
    let Some(mut whole) = pieces.next() else { unreachable!("there is at least the rest") };
    pieces.for_each(|piece| whole.join(piece));
    whole
}
