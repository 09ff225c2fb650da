//! Drafts from what has been read and written: the continuation of the longest matching suffix, and what the target itself
//! would say there.
//!
//! CoordGen 1.1 (arXiv 2510.15312): the store is the prompt's context, earlier turns, finished outputs and text the app hands
//! in, under one suffix automaton. Context and model word things differently; the model's word is known at the rows that prefill
//! hears (`decode::prefill`) and wherever a token was verified. So the best few tokens of such a row are kept, and where one of
//! them occurs elsewhere in the context, it is followed with what the model would say there. The paper adds these paths to the
//! store depth-first. We keep the rows and walk the same paths when the draft tree asks for them, best first: no depth or width
//! to choose, and no memory per path.
//!
//! Memory: at most 120 bytes per stored token (automaton 92, text 4, row 24). When the store is full, its older half is forgotten
//! and the automaton rebuilt from the rest: amortised constant time per token.
//!
//! Deliberately not here: tokens' text, and who may read whose context (one drafter per session).

use std::ops::Range;

use super::automaton::{Automaton, Cursor, Successor};
use super::calibration::SHORTER;
use super::{Candidate, Drafter, Place, TopK, bin};
use crate::token::Token;
use crate::tree::{Claim, Source};

/// Tokens stored by default: 7.9 MB of entries at most, in vectors that may have allocated twice that.
pub const DEFAULT_CAPACITY: usize = 65_536;

/// Stands between texts in the store. No vocabulary has it.
const SEPARATOR: Token = Token::MAX;

/// Candidates per node from the text, and suffixes tried for them, longest first.
const MAX_CANDIDATES: usize = 4;
const MAX_SUFFIXES: usize = 3;

/// Tokens from which the matched suffix is found again after a rebuild. Longer matches are all equally good.
const TAIL: usize = 48;

/// Lower edges of the bins of match length; a match of one token is bin 0. Lengths beyond 32 do not differ in trust.
const LENGTHS: [usize; 10] = [2, 3, 4, 5, 7, 9, 13, 17, 25, 33];
/// Lower edges of the bins of a successor's share of all occurrences.
const SHARES: [f64; 5] = [0.2, 0.4, 0.6, 0.8, 0.999];
/// Lower edges of the bins of the target's weight for a token at the matched position.
const WEIGHTS: [f64; 7] = [0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95];

/// What the store held when the turn began.
#[derive(Clone, Debug, Default)]
struct Mark {
    /// Tokens stored ever.
    stored: usize,
    tail: Vec<Token>,
}

/// The drafter.
#[derive(Clone, Debug)]
pub struct ContextDrafter {
    automaton: Automaton,
    /// Stored text, and the target's best tokens behind each of its tokens (none where it has not read them).
    text: Vec<Token>,
    rows: Vec<TopK>,
    capacity: usize,
    /// Tokens forgotten so far.
    forgotten: usize,
    /// What was handed in, by places among all tokens ever stored.
    handed_in: Vec<Range<usize>>,
    /// The longest suffix of the history that the store had before.
    cursor: Cursor,
    /// The end of the history.
    tail: Vec<Token>,
    /// Where the last committed token is stored.
    last_row: Option<usize>,
    /// By node of the present tree.
    cursors: Vec<Cursor>,
    mark: Mark,
}

impl Default for ContextDrafter {
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY)
    }
}

impl ContextDrafter {
    /// An empty store of at most `capacity` tokens (at least 128).
    pub fn new(capacity: usize) -> Self {
        Self {
            automaton: Automaton::new(),
            text: Vec::new(),
            rows: Vec::new(),
            capacity: capacity.max(128),
            forgotten: 0,
            handed_in: Vec::new(),
            cursor: Cursor::default(),
            tail: Vec::new(),
            last_row: None,
            cursors: Vec::new(),
            mark: Mark::default(),
        }
    }

    /// Tokens stored, separators included.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.automaton.bytes() + self.text.len() * (size_of::<Token>() + size_of::<TopK>())
    }

    /// Text that is not history but may be quoted: documents, examples of the user's style.
    pub fn add_context(&mut self, tokens: &[Token]) {
        let start = self.forgotten + self.text.len();
        self.store(SEPARATOR);
        tokens.iter().for_each(|&token| self.store(token));
        self.store(SEPARATOR);
        self.handed_in.push(start..self.forgotten + self.text.len());
        self.find_tail();
    }

    /// Stored text and rows, to be saved: [`SEPARATOR`](Token::MAX) between texts.
    pub fn stored(&self) -> (&[Token], &[TopK]) {
        (&self.text, &self.rows)
    }

    /// Puts saved text and rows (of equal length) in front of what is stored: the newest of it, half of what is free at most, because a
    /// full store forgets its older half with the next token.
    pub fn restore(&mut self, text: &[Token], rows: &[TopK]) {
        let room = self.capacity.saturating_sub(self.text.len() + 1) / 2;
        let n = text.len().min(rows.len());
        let from = n - n.min(room);
        if from == n {
            return;
        }
        let mut all_text = text[from..n].to_vec();
        let mut all_rows = rows[from..n].to_vec();
        all_text.push(SEPARATOR);
        all_rows.push(TopK::default());
        let added = all_text.len();
        all_text.append(&mut self.text);
        all_rows.append(&mut self.rows);
        self.mark.stored = self.mark.stored.max(self.forgotten) + added;
        for range in &mut self.handed_in {
            *range = range.start.max(self.forgotten) + added..range.end + added;
        }
        self.handed_in.push(self.forgotten..self.forgotten + added);
        (self.text, self.rows) = (all_text, all_rows);
        self.last_row = self.last_row.map(|row| row + added);
        self.rebuild();
    }

    /// Forgets what was read and written; what was handed in stays.
    pub fn forget_history(&mut self) {
        let (text, rows) = (std::mem::take(&mut self.text), std::mem::take(&mut self.rows));
        let forgotten = std::mem::take(&mut self.forgotten);
        for range in std::mem::take(&mut self.handed_in) {
            let kept = range.start.saturating_sub(forgotten)..range.end.saturating_sub(forgotten).min(text.len());
            if kept.is_empty() {
                continue;
            }
            let start = self.text.len();
            self.text.extend_from_slice(&text[kept.clone()]);
            self.rows.extend_from_slice(&rows[kept]);
            self.handed_in.push(start..self.text.len());
        }
        self.tail.clear();
        self.last_row = None;
        self.mark = Mark { stored: self.text.len(), tail: Vec::new() };
        self.rebuild();
    }

    fn store(&mut self, token: Token) {
        if self.text.len() >= self.capacity {
            self.forget_older_half();
        }
        if token == SEPARATOR {
            self.automaton.start_string();
        } else {
            self.automaton.push(token, self.text.len());
        }
        self.text.push(token);
        self.rows.push(TopK::default());
    }

    fn forget_older_half(&mut self) {
        let n = self.text.len() / 2;
        self.text.drain(..n);
        self.rows.drain(..n);
        self.forgotten += n;
        self.handed_in.retain(|range| range.end > self.forgotten);
        self.last_row = self.last_row.and_then(|row| row.checked_sub(n));
        self.rebuild();
    }

    /// Builds the automaton from the stored text and finds the history's place in it again.
    fn rebuild(&mut self) {
        self.automaton = Automaton::new();
        for (position, &token) in self.text.iter().enumerate() {
            if token == SEPARATOR {
                self.automaton.start_string();
            } else {
                self.automaton.push(token, position);
            }
        }
        self.find_tail();
    }

    fn find_tail(&mut self) {
        let cursor = self.tail.iter().fold(Cursor::default(), |cursor, &token| self.automaton.advance(cursor, token));
        self.cursor = self.without_own_occurrence(cursor);
    }

    /// The history's own end is in the store too and has no continuation: a suffix seen only there is no match.
    fn without_own_occurrence(&self, cursor: Cursor) -> Cursor {
        if self.automaton.count(cursor) > 1 { cursor } else { self.automaton.shorter(cursor).unwrap_or_default() }
    }

    fn extend_tail(&mut self, token: Token) {
        if self.tail.len() >= TAIL {
            self.tail.remove(0);
        }
        self.tail.push(token);
    }

    /// The suffix matched at `place`.
    fn cursor_at(&mut self, place: Place) -> Cursor {
        let cursor = match place.parent {
            None => self.cursor,
            Some(parent) => {
                let above = self.cursors.get(parent).copied().unwrap_or_default();
                self.automaton.advance(above, place.token)
            }
        };
        if self.cursors.len() <= place.node {
            self.cursors.resize(place.node + 1, Cursor::default());
        }
        self.cursors[place.node] = cursor;
        cursor
    }

    /// What the text says: successors of the longest suffix, then of shorter ones.
    fn propose_text(&self, longest: Cursor, out: &mut Vec<Candidate>) {
        let first = out.len();
        let mut next = Some(longest);
        for shorter in 0..MAX_SUFFIXES {
            let Some(cursor) = next.filter(|c| !c.is_empty()) else { return };
            let mut successors: Vec<Successor> = self.automaton.successors(cursor).collect();
            let total: usize = successors.iter().map(|s| s.count).sum();
            successors.sort_by_key(|s| std::cmp::Reverse((s.count, s.position)));
            for successor in successors.iter().take(MAX_CANDIDATES) {
                if out.len() - first >= MAX_CANDIDATES {
                    return;
                }
                if !out[first..].iter().any(|c| c.token == successor.token) {
                    let claim = text_claim(cursor.len(), successor.count, total, shorter > 0);
                    out.push(Candidate { token: successor.token, claim });
                }
            }
            next = self.automaton.shorter(cursor);
        }
    }

    /// What the target would say where the longest suffix occurred last.
    fn propose_aligned(&self, longest: Cursor, out: &mut Vec<Candidate>) {
        let mut next = Some(longest);
        for _ in 0..MAX_SUFFIXES {
            let Some(cursor) = next.filter(|c| !c.is_empty()) else { return };
            let latest = self.automaton.successors(cursor).map(|s| s.position).max();
            let row = latest.and_then(|at| self.rows.get(at.checked_sub(1)?)).filter(|row| !row.is_empty());
            if let Some(row) = row {
                let major = bin(cursor.len(), &LENGTHS);
                let claim = |weight| Claim { source: Source::Aligned, major, minor: bin(weight, &WEIGHTS) };
                out.extend(row.iter().map(|(token, weight)| Candidate { token, claim: claim(weight) }));
                return;
            }
            next = self.automaton.shorter(cursor);
        }
    }
}

/// What a successor of a suffix of `len` tokens claims that followed `count` of `total` times.
fn text_claim(len: usize, count: usize, total: usize, is_shorter: bool) -> Claim {
    let share = bin(count as f64 / total.max(1) as f64, &SHARES);
    let minor = share + u8::from(share == 5 && count > 1) + u8::from(share == 5 && count > 3);
    Claim { source: Source::Context, major: if is_shorter { SHORTER } else { bin(len, &LENGTHS) }, minor }
}

impl Drafter for ContextDrafter {
    fn commit(&mut self, token: Token) {
        self.extend_tail(token);
        let before = self.forgotten;
        // Before it is stored: the token's own occurrence must not count as a match.
        let cursor = self.automaton.advance(self.cursor, token);
        self.store(token);
        self.last_row = Some(self.text.len() - 1);
        if self.forgotten == before {
            self.cursor = cursor;
        } else {
            self.find_tail();
        }
    }

    fn said(&mut self, top: &TopK) {
        if let Some(row) = self.last_row.and_then(|row| self.rows.get_mut(row)) {
            *row = *top;
        }
    }

    fn begin(&mut self) {
        self.cursors.clear();
    }

    fn rewind(&mut self, history: &[Token]) {
        self.store(SEPARATOR);
        self.tail = history[history.len().saturating_sub(TAIL)..].to_vec();
        self.last_row = None;
        self.find_tail();
    }

    fn propose(&mut self, place: Place, out: &mut Vec<Candidate>) {
        let cursor = self.cursor_at(place);
        self.propose_text(cursor, out);
        self.propose_aligned(cursor, out);
    }

    fn mark(&mut self) {
        self.mark = Mark { stored: self.forgotten + self.text.len(), tail: self.tail.clone() };
    }

    fn roll_back(&mut self) {
        let kept = self.mark.stored.saturating_sub(self.forgotten).min(self.text.len());
        self.text.truncate(kept);
        self.rows.truncate(kept);
        self.tail.clone_from(&self.mark.tail);
        self.last_row = kept.checked_sub(1);
        self.handed_in.retain(|range| range.end <= self.mark.stored);
        self.rebuild();
    }
}

#[cfg(test)]
mod tests;
