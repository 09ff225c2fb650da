//! The rows of one decode, in the arrays that llama.cpp reads.
//!
//! A row belongs to a contiguous range of sequences. Leaves of a tree numbered depth first give every node such a range, so one
//! array with the numbers 0, 1, 2, … serves all rows, and filling a batch allocates nothing once it has been as long before.

use std::ops::Range;

use llama_cpp_sys_2 as sys;

use crate::error::{ErrorKind, Result};
use crate::token::Token;

/// Rows to decode together.
#[derive(Default)]
pub(crate) struct Batch {
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    n_seqs: Vec<i32>,
    /// First sequence of each row; `seq_lists` are made of it when all sequences are known.
    first_seq: Vec<usize>,
    seq_lists: Vec<*mut sys::llama_seq_id>,
    /// 0, 1, 2, … up to the last sequence in use.
    seq_ids: Vec<sys::llama_seq_id>,
    outputs: Vec<i8>,
    /// A row that cannot be written in llama.cpp's types; reported by `check`.
    unusable: Option<String>,
}

// SAFETY: the pointers in `seq_lists` are into this value's own vector and are made anew before each use.
unsafe impl Send for Batch {}

impl Batch {
    /// Takes all rows out.
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.n_seqs.clear();
        self.first_seq.clear();
        self.outputs.clear();
        self.unusable = None;
    }

    /// Adds a row at `position` of the sequences `seqs`, a non-empty range.
    pub(crate) fn push(&mut self, token: Token, position: usize, seqs: Range<usize>, wants_logits: bool) {
        let (Ok(id), Ok(position), Ok(n_seqs)) =
            (i32::try_from(token), i32::try_from(position), i32::try_from(seqs.len()))
        else {
            self.unusable = Some(format!("token {token} at position {position} is out of range"));
            return;
        };
        self.tokens.push(id);
        self.positions.push(position);
        self.n_seqs.push(n_seqs);
        self.first_seq.push(seqs.start);
        self.outputs.push(i8::from(wants_logits));
        while self.seq_ids.len() < seqs.end {
            self.seq_ids.push(i32::try_from(self.seq_ids.len()).unwrap_or(i32::MAX));
        }
    }

    /// Rows.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// For each row, whether it wants logits.
    pub(crate) fn wants_logits(&self) -> impl Iterator<Item = bool> + '_ {
        self.outputs.iter().map(|&output| output != 0)
    }

    /// Fails with `Misuse` if llama.cpp would refuse the batch or abort on it.
    pub(super) fn check(&self, max_rows: usize, n_seqs: usize, n_vocab: usize) -> Result<()> {
        let misuse = |reason| Err(ErrorKind::Misuse { operation: "decode", reason }.into());
        if let Some(reason) = &self.unusable {
            return misuse(reason.clone());
        }
        if !(1..=max_rows).contains(&self.len()) {
            return misuse(format!("{} rows are not between 1 and {max_rows}", self.len()));
        }
        if let Some(token) = self.tokens.iter().find(|&&token| token as usize >= n_vocab) {
            return misuse(format!("token {token} is not in the vocabulary of {n_vocab}"));
        }
        let mut ends = self.first_seq.iter().zip(&self.n_seqs).map(|(&first, &n)| (first + n as usize, n));
        if ends.any(|(end, n)| n == 0 || end > n_seqs) {
            return misuse(format!("a row belongs to no sequence or to one beyond {n_seqs}"));
        }
        Ok(())
    }

    /// The batch for llama_decode; its pointers are valid until this batch changes.
    pub(super) fn raw(&mut self) -> sys::llama_batch {
        let ids = self.seq_ids.as_mut_ptr();
        self.seq_lists.clear();
        // `wrapping_add` of an index below the length, as `push` made sure.
        self.seq_lists.extend(self.first_seq.iter().map(|&first| ids.wrapping_add(first)));
        sys::llama_batch {
            n_tokens: i32::try_from(self.tokens.len()).unwrap_or(i32::MAX),
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.n_seqs.as_mut_ptr(),
            seq_id: self.seq_lists.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(rows: &[(Token, usize, Range<usize>)]) -> Batch {
        let mut batch = Batch::default();
        for (token, position, seqs) in rows {
            batch.push(*token, *position, seqs.clone(), true);
        }
        batch
    }

    #[test]
    fn rows_name_their_sequences() {
        let mut batch = batch(&[(5, 0, 0..3), (6, 1, 0..1), (7, 1, 1..3)]);
        assert!(batch.check(3, 3, 8).is_ok());
        let raw = batch.raw();
        assert_eq!(raw.n_tokens, 3);
        // SAFETY: the pointers are into `batch`, which has three rows, the last with two sequences.
        unsafe {
            assert_eq!(*raw.token.add(2), 7);
            assert_eq!(*raw.n_seq_id.add(2), 2);
            assert_eq!(std::slice::from_raw_parts(*raw.seq_id.add(2), 2), [1, 2]);
        }
    }

    #[test]
    fn what_llama_cpp_would_abort_on_is_refused() {
        let refused = |rows: &[(Token, usize, Range<usize>)]| batch(rows).check(2, 2, 8).is_err();
        assert!(!refused(&[(0, 0, 0..1)]));
        assert!(refused(&[]));
        assert!(refused(&[(0, 0, 0..1), (0, 1, 0..1), (0, 2, 0..1)]));
        assert!(refused(&[(8, 0, 0..1)]));
        assert!(refused(&[(u32::MAX, 0, 0..1)]));
        assert!(refused(&[(0, usize::MAX, 0..1)]));
        assert!(refused(&[(0, 0, 0..3)]));
        assert!(refused(&[(0, 0, 1..1)]));
    }
}
