//! Who proposes tokens, behind one trait.
//!
//! A drafter hears what becomes history and what the target says, and is asked for candidates under one node of the draft tree
//! at a time, best node first: the tree grows where it is likely to be reached (`growth`), so drafters are lazy and keep one
//! cursor per node they were asked about. What they propose can only change speed, never text.
//!
//! Free sources (everything but the draft model) answer in microseconds and are asked about every node that growth looks at.
//! The draft model answers in milliseconds and is asked in batches, where its answer is worth its price: [`model`].
//!
//! Deliberately not here: probabilities (a drafter makes a [`Claim`], `calibration` knows what it is worth) and the tree.

pub mod automaton;
pub mod calibration;
pub mod context;
pub mod model;
pub mod recycle;
pub mod reuse;
pub mod store;
pub mod top_k;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::token::Token;
use crate::tree::{Claim, DraftTree, NodeId};

pub use calibration::Calibration;
pub use context::ContextDrafter;
pub use model::ModelDrafter;
pub use recycle::RecycleDrafter;
pub use reuse::ReuseDrafter;
pub use top_k::TopK;

/// A node that wants children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// Its parent; `None` for the root, which is the last committed token.
    pub parent: Option<NodeId>,
    /// The token read there.
    pub token: Token,
    /// Edges from the root.
    pub depth: usize,
}

/// A proposed next token, and how sure its source says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The token.
    pub token: Token,
    /// The source's word on it.
    pub claim: Claim,
}

/// A finished verify pass, seen along one drafted path: what was drafted and what the target said instead.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a> {
    /// The longest drafted path through the accepted rows, tokens behind the root: `x`.
    pub drafted: &'a [Token],
    /// The target's choice behind the root and behind each drafted token, as far as rows were projected: `y`, so that
    /// `predicted[i]` is what the target wanted where `drafted[i]` stands.
    pub predicted: &'a [Token],
}

/// A source of candidates.
///
/// Calls come in this order: any number of `commit`, each followed by at most one `said`; then for each step `begin`, `propose`
/// for nodes whose parent was asked about before, `verified`, and the commits of what was emitted.
pub trait Drafter: Send {
    /// `token` is now the last of the history: prompt, earlier turns, outputs.
    fn commit(&mut self, token: Token);

    /// What the target says behind the last committed token.
    fn said(&mut self, _top: &TopK) {}

    /// What the target says behind `token` on a path that did not become history.
    fn said_elsewhere(&mut self, _token: Token, _top: &TopK) {}

    /// A new tree begins; its root is the last committed token.
    fn begin(&mut self) {}

    /// Appends candidates under `place` to `out`, best first. Tokens may repeat what other sources propose, not each other.
    fn propose(&mut self, place: Place, out: &mut Vec<Candidate>);

    /// A pass was verified; its emitted tokens have not been committed yet.
    fn verified(&mut self, _pass: Verified<'_>) {}

    /// The history is now `history`, which begins as the old one did: a prompt that was rendered anew. What was read stays stored.
    fn rewind(&mut self, history: &[Token]);

    /// Remembers the state of now. One mark is kept: the start of the turn.
    fn mark(&mut self) {}

    /// Forgets the text committed or added since the mark: the turn was rolled back.
    fn roll_back(&mut self) {}
}

/// A source whose answers cost enough to be asked in batches: the draft model.
///
/// It hears what becomes history and reads it only when it is asked.
pub trait BatchDrafter: Send {
    /// `token` is now the last of the history.
    fn commit(&mut self, token: Token);

    /// Tokens of the history that it would read if it were asked now, the last one (the root of the next tree) not counted. It may
    /// leave out the beginning of what it has not read.
    fn n_unread(&self) -> usize;

    /// Reads no more than the latest `tokens` of what is unread, from now on; nor more than it would anyway.
    fn read_at_most(&mut self, tokens: usize);

    /// Candidates under each of `nodes`. Reads what of the history is unread, and says what it would have proposed there.
    fn propose(&mut self, tree: &DraftTree, nodes: &[NodeId], cancel: &Cancel) -> Result<Answer>;

    /// Reads the unread history and says what it would have proposed at up to `n` of the latest positions of it, in order; the
    /// last is the one whose next token is the last of the history.
    fn look(&mut self, n: usize, cancel: &Cancel) -> Result<Vec<Hindsight>>;

    /// The history is now its own first `len` tokens.
    fn rewind(&mut self, len: usize);

    /// Remembers the state of now; one mark is kept.
    fn mark(&mut self);

    /// Forgets the history committed since the mark.
    fn roll_back(&mut self);
}

/// What a batch came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// By node asked about: its candidates, best first.
    pub candidates: Vec<Vec<Candidate>>,
    /// What it would have proposed at the latest positions of the history that it had not read, as [`BatchDrafter::look`] gives it.
    pub hindsight: Vec<Hindsight>,
}

/// What a drafter would have proposed at a position whose next token is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindsight {
    /// Its candidates, best first.
    pub candidates: Vec<Candidate>,
    /// What did come. (What the target wanted may be another word, in a prompt.)
    pub token: Token,
}

/// Index of a count or position in 32 bits; saturates, and every store is bounded far below that.
fn index(i: usize) -> u32 {
    u32::try_from(i).unwrap_or(u32::MAX)
}

/// The number of `edges` (rising) that `value` reaches: the bin of a figure.
fn bin<T: PartialOrd>(value: T, edges: &[T]) -> u8 {
    u8::try_from(edges.iter().take_while(|&edge| value >= *edge).count()).unwrap_or(u8::MAX)
}
