//! Drafts from what the target said the last time it read the same token, on whichever path.
//!
//! Token Recycling (arXiv 2408.08696): the best few successors of every verified row, rejected rows included, in a table by
//! token, overwritten by the latest; the draft tree is read off it. It knows nothing but the last token, so its candidates
//! are many and cheap and each is doubtful; calibration says how doubtful. A pass that is projected on demand says nothing of
//! its rejected rows: projecting them would cost more than they teach.
//!
//! Rows are allocated as tokens are met: 4 bytes per vocabulary item, and 28 per token met, at most [`MAX_ROWS`] of them.
//!
//! Deliberately not here: contexts longer than one token (`context`), and forgetting with the turn: the table says what the
//! model does after a token. It goes with the conversation.

use super::{Candidate, Drafter, Place, TopK, bin, index};
use crate::token::Token;
use crate::tree::{Claim, Source};

/// Tokens remembered: 1 MB of rows. Texts of one session meet fewer; beyond that the oldest rows are taken over.
pub const MAX_ROWS: usize = 32_768;

/// Lower edges of the bins of the remembered weight.
const WEIGHTS: [f64; 7] = [0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95];

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Row {
    token: Token,
    top: TopK,
}

/// The drafter.
#[derive(Clone, Debug)]
pub struct RecycleDrafter {
    row_of: Vec<u32>,
    rows: Vec<Row>,
    max_rows: usize,
    /// The row that is taken over next when the table is full.
    hand: usize,
    last: Option<Token>,
}

impl RecycleDrafter {
    /// An empty table for a vocabulary of `n_vocab` tokens.
    pub fn new(n_vocab: usize) -> Self {
        Self::with_max_rows(n_vocab, MAX_ROWS)
    }

    fn with_max_rows(n_vocab: usize, max_rows: usize) -> Self {
        Self { row_of: vec![NONE; n_vocab], rows: Vec::new(), max_rows: max_rows.max(1), hand: 0, last: None }
    }

    /// Forgets every row: what the model said after a token is as private as the text it was said in.
    pub fn forget(&mut self) {
        *self = Self::with_max_rows(self.row_of.len(), self.max_rows);
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.row_of.len() * size_of::<u32>() + self.rows.len() * size_of::<Row>()
    }

    /// Remembered tokens with their successors, to be saved.
    pub fn rows(&self) -> impl Iterator<Item = (Token, TopK)> + '_ {
        self.rows.iter().map(|row| (row.token, row.top))
    }

    /// Remembers that the target said `top` behind `token`. Tokens beyond the vocabulary are ignored.
    pub fn record(&mut self, token: Token, top: &TopK) {
        let Some(&slot) = self.row_of.get(token as usize) else { return };
        if top.is_empty() {
            return;
        }
        let row = Row { token, top: *top };
        if slot != NONE {
            self.rows[slot as usize] = row;
        } else if self.rows.len() < self.max_rows {
            self.row_of[token as usize] = index(self.rows.len());
            self.rows.push(row);
        } else {
            let old = std::mem::replace(&mut self.rows[self.hand], row);
            self.row_of[old.token as usize] = NONE;
            self.row_of[token as usize] = index(self.hand);
            self.hand = (self.hand + 1) % self.max_rows;
        }
    }
}

impl Drafter for RecycleDrafter {
    fn commit(&mut self, token: Token) {
        self.last = Some(token);
    }

    fn said(&mut self, top: &TopK) {
        if let Some(token) = self.last {
            self.record(token, top);
        }
    }

    fn said_elsewhere(&mut self, token: Token, top: &TopK) {
        self.record(token, top);
    }

    fn rewind(&mut self, history: &[Token]) {
        self.last = history.last().copied();
    }

    fn propose(&mut self, place: Place, out: &mut Vec<Candidate>) {
        let slot = self.row_of.get(place.token as usize).copied().unwrap_or(NONE);
        let Some(row) = self.rows.get(slot as usize) else { return };
        for (rank, (token, weight)) in (0..).zip(row.top.iter()) {
            out.push(Candidate {
                token,
                claim: Claim { source: Source::Recycle, major: rank, minor: bin(weight, &WEIGHTS) },
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposals(drafter: &mut RecycleDrafter, token: Token) -> Vec<Token> {
        let mut out = Vec::new();
        drafter.propose(Place { node: 0, parent: None, token, depth: 0 }, &mut out);
        out.iter().map(|c| c.token).collect()
    }

    #[test]
    fn remembers_the_latest_word_on_each_token() {
        let mut drafter = RecycleDrafter::new(100);
        drafter.commit(5);
        drafter.said(&TopK::from_weights([(6, 0.7), (7, 0.3)]));
        assert_eq!(proposals(&mut drafter, 5), [6, 7]);
        drafter.said_elsewhere(5, &TopK::from_weights([(8, 1.0)]));
        assert_eq!(proposals(&mut drafter, 5), [8]);
        assert!(proposals(&mut drafter, 6).is_empty());
    }

    #[test]
    fn says_rank_and_weight() {
        let mut drafter = RecycleDrafter::new(100);
        drafter.record(1, &TopK::from_weights([(6, 0.96), (7, 0.04)]));
        let mut out = Vec::new();
        drafter.propose(Place { node: 0, parent: None, token: 1, depth: 0 }, &mut out);
        assert_eq!(out.iter().map(|c| (c.claim.major, c.claim.minor)).collect::<Vec<_>>(), [(0, 7), (1, 0)]);
    }

    #[test]
    fn a_full_table_takes_over_its_oldest_rows() {
        let mut drafter = RecycleDrafter::with_max_rows(100, 3);
        (0..5).for_each(|token| drafter.record(token, &TopK::from_weights([(token + 50, 1.0)])));
        assert!(proposals(&mut drafter, 0).is_empty() && proposals(&mut drafter, 1).is_empty());
        assert_eq!((2..5).flat_map(|t| proposals(&mut drafter, t)).collect::<Vec<_>>(), [52, 53, 54]);
        assert_eq!(drafter.rows().count(), 3);
    }

    #[test]
    fn tokens_beyond_the_vocabulary_do_no_harm() {
        let mut drafter = RecycleDrafter::new(4);
        drafter.record(4, &TopK::from_weights([(1, 1.0)]));
        drafter.record(Token::MAX, &TopK::from_weights([(1, 1.0)]));
        assert!(proposals(&mut drafter, Token::MAX).is_empty());
        assert_eq!(drafter.rows().count(), 0);
    }
}
