//! Which cell of the K/V cache holds which position, and who may see whom.
//!
//! One invariant carries everything: committed positions `0..len` sit in cells `0..len`, in position order. The rows of a pass
//! take the cells `len..len + rows`, in row order. Committing an accepted path moves its cells down so that the invariant holds
//! again; every later sum over the cache then runs in the order in which plain decoding would have run it.
//!
//! Deliberately not here: K and V themselves (the executor's), tokens (the session's ledger), layers, and any choice of what to
//! accept. Between passes and within one, nothing allocates after [`KvCache::new`].

use std::ops::Range;

use crate::error::{ErrorKind, Result};

/// Half-precision bits of `0.0`: added to a score, it leaves a visible cell as it is.
pub const MASK_VISIBLE: u16 = 0x0000;
/// Half-precision bits of `-inf`: added to a score, it hides the cell.
pub const MASK_HIDDEN: u16 = 0xfc00;

/// A cell whose K and V are to be copied to another, in every layer. `to < from` always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The cell to read.
    pub from: usize,
    /// The cell to overwrite.
    pub to: usize,
}

/// A row of the pass under way.
#[derive(Clone, Copy, Debug)]
struct PassRow {
    parent: Option<u32>,
    /// Rows between this one and the committed history: 0 for a row without a parent.
    depth: usize,
}

/// The cells of one sequence's K/V cache.
#[derive(Debug)]
pub struct KvCache {
    n_cells: usize,
    max_rows: usize,
    len: usize,
    rows: Vec<PassRow>,
}

impl KvCache {
    /// An empty cache of `n_cells` cells, for passes of at most `max_rows` rows.
    pub fn new(n_cells: usize, max_rows: usize) -> Self {
        Self { n_cells, max_rows, len: 0, rows: Vec::with_capacity(max_rows) }
    }

    /// Committed positions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is committed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rows of the pass under way; 0 if there is none.
    pub fn n_rows(&self) -> usize {
        self.rows.len()
    }

    /// Cells that hold something: history, then the rows of the pass.
    pub fn n_used(&self) -> usize {
        self.len + self.rows.len()
    }

    /// Begins a pass. `parents` has one entry per row: the earlier row it continues, or `None` for the committed history.
    ///
    /// # Errors
    ///
    /// `Misuse` if a pass is under way, there are no rows or more than `max_rows`, or a parent does not come before its child;
    /// `ContextFull` if the rows do not fit. Nothing has changed then.
    pub fn begin(&mut self, parents: impl ExactSizeIterator<Item = Option<u32>>) -> Result<()> {
        let n = parents.len();
        if !self.rows.is_empty() {
            return misuse("begin", "a pass is under way; commit it or roll it back".into());
        }
        if n == 0 || n > self.max_rows {
            return misuse("begin", format!("a pass has 1 to {} rows, not {n}", self.max_rows));
        }
        if self.len + n > self.n_cells {
            return Err(ErrorKind::ContextFull { needed: self.len + n, capacity: self.n_cells }.into());
        }
        for (row, parent) in parents.enumerate() {
            let depth = match parent {
                None => 0,
                Some(p) if (p as usize) < row => self.rows[p as usize].depth + 1,
                Some(p) => {
                    self.rows.clear();
                    return misuse("begin", format!("row {row} has parent {p}; a parent comes before its child"));
                }
            };
            self.rows.push(PassRow { parent, depth });
        }
        Ok(())
    }

    /// The cell of row `row` of the pass.
    pub fn cell(&self, row: u32) -> usize {
        self.len + row as usize
    }

    /// The position of row `row` of the pass: the history's length plus the row's depth in the tree.
    ///
    /// # Panics
    ///
    /// If the pass has no such row.
    pub fn position(&self, row: u32) -> usize {
        self.len + self.rows[row as usize].depth
    }

    /// The history that row `row` sees: cells, which are also positions. A sliding window of `w` positions counts the row itself.
    pub fn visible_history(&self, row: u32, window: Option<usize>) -> Range<usize> {
        let first = window.map_or(0, |w| (self.position(row) + 1).saturating_sub(w));
        first.min(self.len)..self.len
    }

    /// The cells of the pass that row `row` sees: itself first, then its ancestors upwards, as far as the window reaches.
    pub fn visible_rows(&self, row: u32, window: Option<usize>) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(row), |&r| self.rows[r as usize].parent)
            .take(window.unwrap_or(usize::MAX))
            .map(|r| self.cell(r))
    }

    /// Writes the attention mask of `rows` (rows of the pass, any subset) as half-precision bits, `[out.len() / n_cols, n_cols]`.
    ///
    /// `n_cols` is at least [`n_used`](Self::n_used); columns beyond are hidden. Lines of `out` beyond `rows` are padding of a
    /// shape bucket: they see cell 0 and nothing else, so that their softmax is finite; nobody reads their result.
    ///
    /// # Panics
    ///
    /// If `n_cols` is too small, or `out` is not whole lines or has fewer than `rows`.
    pub fn write_mask(&self, rows: &[u32], window: Option<usize>, n_cols: usize, out: &mut [u16]) {
        assert!(n_cols >= self.n_used(), "the mask has {n_cols} columns for {} cells", self.n_used());
        assert!(out.len().is_multiple_of(n_cols) && out.len() / n_cols >= rows.len(), "the mask has too few lines");
        out.fill(MASK_HIDDEN);
        let mut lines = out.chunks_exact_mut(n_cols);
        for (&row, line) in rows.iter().zip(&mut lines) {
            line[self.visible_history(row, window)].fill(MASK_VISIBLE);
            for cell in self.visible_rows(row, window) {
                line[cell] = MASK_VISIBLE;
            }
        }
        for padding in lines {
            padding[0] = MASK_VISIBLE;
        }
    }

    /// Writes which rows of the pass each of `rows` sees, itself included, as bits: `[rows.len(), words]`, bit `j` for row `j`.
    ///
    /// # Panics
    ///
    /// If `out` has fewer than `rows.len() · words` words, or the pass more rows than `words` have bits.
    pub fn write_ancestors(&self, rows: &[u32], words: usize, out: &mut [u64]) {
        assert!(self.rows.len() <= words * 64 && out.len() >= rows.len() * words, "too few words");
        for (&row, bits) in rows.iter().zip(out.chunks_exact_mut(words)) {
            bits.fill(0);
            for cell in self.visible_rows(row, None) {
                let seen = cell - self.len;
                bits[seen / 64] |= 1 << (seen % 64);
            }
        }
    }

    /// Ends the pass: `path`, a chain of rows from one without a parent downwards, becomes history; the others are forgotten.
    ///
    /// `copy` is called for every cell that has to move, in ascending order, and no call overwrites a cell that a later one
    /// reads. If a copy fails, the pass is still under way and the history unharmed: all targets lie beyond it.
    ///
    /// # Errors
    ///
    /// `Misuse` if no pass is under way or `path` is not such a chain (nothing was copied then), or what `copy` returned.
    pub fn commit(&mut self, path: &[u32], mut copy: impl FnMut(Move) -> Result<()>) -> Result<()> {
        self.check_chain(path)?;
        for (i, &row) in path.iter().enumerate() {
            let (from, to) = (self.cell(row), self.len + i);
            if from != to {
                copy(Move { from, to })?;
            }
        }
        self.len += path.len();
        self.rows.clear();
        Ok(())
    }

    /// Ends the pass, if there is one, and forgets its rows.
    pub fn rollback(&mut self) {
        self.rows.clear();
    }

    /// Forgets committed positions from `len` on.
    ///
    /// # Errors
    ///
    /// `Misuse` while a pass is under way, or if `len` is beyond the history.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        if !self.rows.is_empty() {
            return misuse("truncate", "a pass is under way; commit it or roll it back".into());
        }
        if len > self.len {
            return misuse("truncate", format!("position {len} is beyond the history of {}", self.len));
        }
        self.len = len;
        Ok(())
    }

    fn check_chain(&self, path: &[u32]) -> Result<()> {
        if self.rows.is_empty() {
            return misuse("commit", "no pass is under way".into());
        }
        let mut above = None;
        for &row in path {
            match self.rows.get(row as usize) {
                Some(r) if r.parent == above => above = Some(row),
                Some(r) => {
                    return misuse(
                        "commit",
                        format!("row {row} continues {:?}, not {above:?} as the path says", r.parent),
                    );
                }
                None => return misuse("commit", format!("row {row} of a pass of {} rows", self.rows.len())),
            }
        }
        Ok(())
    }
}

fn misuse<T>(operation: &'static str, reason: String) -> Result<T> {
    Err(ErrorKind::Misuse { operation, reason }.into())
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // a handful of rows
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn begin(cache: &mut KvCache, parents: &[Option<u32>]) -> Result<()> {
        cache.begin(parents.iter().copied())
    }

    fn commit(cache: &mut KvCache, path: &[u32]) -> Vec<(usize, usize)> {
        let mut moves = Vec::new();
        cache
            .commit(path, |m| {
                moves.push((m.from, m.to));
                Ok(())
            })
            .expect("the path is a chain");
        moves
    }

    /// Three committed positions, then the tree 0 → {1, 2}, 2 → 3.
    fn forked() -> KvCache {
        let mut cache = KvCache::new(16, 8);
        begin(&mut cache, &[None, Some(0), Some(1)]).expect("fits");
        assert_eq!(commit(&mut cache, &[0, 1, 2]), []);
        begin(&mut cache, &[None, Some(0), Some(0), Some(2)]).expect("fits");
        cache
    }

    fn mask(cache: &KvCache, rows: &[u32], window: Option<usize>, lines: usize) -> Vec<String> {
        let mut out = vec![1; lines * 8];
        cache.write_mask(rows, window, 8, &mut out);
        let draw = |&bits: &u16| match bits {
            MASK_VISIBLE => 'x',
            MASK_HIDDEN => '.',
            _ => '?',
        };
        out.chunks(8).map(|line| line.iter().map(draw).collect()).collect()
    }

    #[test]
    fn ancestors_are_the_bits_of_the_path() {
        let cache = forked();
        let mut words = [u64::MAX; 4];
        cache.write_ancestors(&[0, 1, 2, 3], 1, &mut words);
        assert_eq!(words, [0b1, 0b11, 0b101, 0b1101]);
        cache.write_ancestors(&[3], 2, &mut words[..2]);
        assert_eq!(words[..2], [0b1101, 0]);
    }

    #[test]
    fn rows_see_history_ancestors_and_themselves() {
        let cache = forked();
        assert_eq!(mask(&cache, &[0, 1, 2, 3], None, 4), ["xxxx....", "xxxxx...", "xxxx.x..", "xxxx.xx."]);
        assert_eq!([0, 1, 2, 3].map(|r| cache.position(r)), [3, 4, 4, 5]);
    }

    #[test]
    fn a_window_counts_the_row_itself_and_hides_far_ancestors_too() {
        let cache = forked();
        assert_eq!(mask(&cache, &[0, 3], Some(4), 2), ["xxxx....", "..xx.xx."]);
        assert_eq!(mask(&cache, &[3], Some(2), 1), [".....xx."]);
        assert_eq!(mask(&cache, &[3], Some(1), 1), ["......x."]);
    }

    #[test]
    fn padding_lines_see_one_cell() {
        assert_eq!(mask(&forked(), &[1], None, 3), ["xxxxx...", "x.......", "x......."]);
    }

    #[test]
    fn commit_moves_the_path_down_in_order() {
        let mut cache = forked();
        assert_eq!(commit(&mut cache, &[0, 2, 3]), [(5, 4), (6, 5)]);
        assert_eq!((cache.len(), cache.n_used()), (6, 6));
    }

    #[test]
    fn a_failed_copy_leaves_the_pass_and_the_history() {
        let mut cache = forked();
        let error = cache.commit(&[0, 2], |_| Err(ErrorKind::Cancelled.into())).expect_err("the copy fails");
        assert!(error.is_cancelled());
        assert_eq!((cache.len(), cache.n_rows()), (3, 4));
        cache.rollback();
        assert_eq!((cache.len(), cache.n_rows()), (3, 0));
    }

    #[test]
    fn broken_rules_are_refused_and_change_nothing() {
        let mut cache = KvCache::new(4, 3);
        assert!(begin(&mut cache, &[]).is_err());
        assert!(begin(&mut cache, &[None; 4]).is_err());
        assert!(begin(&mut cache, &[None, Some(1)]).is_err());
        assert!(cache.commit(&[], |_| Ok(())).is_err(), "no pass is under way");
        begin(&mut cache, &[None, Some(0), Some(0)]).expect("fits");
        assert!(begin(&mut cache, &[None]).is_err());
        assert!(cache.truncate(0).is_err());
        for path in [&[1][..], &[0, 0], &[1, 2], &[0, 1, 2], &[0, 3]] {
            assert!(cache.commit(path, |_| Ok(())).is_err(), "{path:?} is not a chain");
        }
        assert_eq!(commit(&mut cache, &[0, 2]), [(2, 1)]);
        let full = begin(&mut cache, &[None; 3]).expect_err("two cells are left").into_kind();
        assert!(matches!(full, ErrorKind::ContextFull { needed: 5, capacity: 4 }));
        assert!(cache.truncate(3).is_err());
        cache.truncate(1).expect("within the history");
        assert_eq!((cache.len(), cache.n_used()), (1, 1));
    }

    /// What a pass does, with its tree and the row whose path is accepted (`None`: rolled back), and a truncation after it.
    #[derive(Clone, Debug)]
    struct Step {
        parents: Vec<Option<u32>>,
        accepted: Option<usize>,
        keep_len: Option<usize>,
    }

    fn step() -> impl Strategy<Value = Step> {
        let parents = proptest::collection::vec(any::<prop::sample::Index>(), 1..12).prop_map(|picks| {
            picks.iter().enumerate().map(|(row, pick)| pick.index(row + 1).checked_sub(1).map(|p| p as u32)).collect()
        });
        (parents, proptest::option::weighted(0.8, 0usize..12), proptest::option::weighted(0.2, 0usize..40))
            .prop_map(|(parents, accepted, keep_len)| Step { parents, accepted, keep_len })
    }

    /// The naive model: a cell holds the whole path of row names that leads to it.
    fn path_to(parents: &[Option<u32>], row: u32) -> Vec<u32> {
        let mut path: Vec<u32> = std::iter::successors(Some(row), |&r| parents[r as usize]).collect();
        path.reverse();
        path
    }

    proptest! {
        #[test]
        fn cells_hold_what_a_naive_model_says(steps in proptest::collection::vec(step(), 1..12), window in proptest::option::of(1usize..20)) {
            let mut cache = KvCache::new(64, 12);
            let mut cells: Vec<Option<(usize, u32)>> = vec![None; 64];
            let mut history: Vec<(usize, u32)> = Vec::new();
            for (pass, Step { parents, accepted, keep_len }) in steps.iter().enumerate() {
                let begun = begin(&mut cache, parents);
                prop_assert_eq!(begun.is_ok(), history.len() + parents.len() <= 64);
                if begun.is_err() {
                    break;
                }
                for row in 0..parents.len() {
                    cells[cache.cell(row as u32)] = Some((pass, row as u32));
                }
                let rows: Vec<u32> = (0..parents.len() as u32).collect();
                let mut mask = vec![7u16; rows.len() * 64];
                cache.write_mask(&rows, window, 64, &mut mask);
                let mut ancestors = vec![u64::MAX; rows.len()];
                cache.write_ancestors(&rows, 1, &mut ancestors);
                for &row in &rows {
                    let path = path_to(parents, row);
                    prop_assert_eq!(ancestors[row as usize], path.iter().fold(0, |bits, &r| bits | 1u64 << r));
                    let mut sequence = history.clone();
                    sequence.extend(path.iter().map(|&r| (pass, r)));
                    prop_assert_eq!(cache.position(row) + 1, sequence.len());
                    let first = window.map_or(0, |w| sequence.len().saturating_sub(w));
                    let line = &mask[row as usize * 64..][..64];
                    let mut seen: Vec<_> = (0..64).filter(|&c| line[c] == MASK_VISIBLE).map(|c| cells[c].expect("a used cell")).collect();
                    let mut wanted = sequence[first..].to_vec();
                    seen.sort_unstable();
                    wanted.sort_unstable();
                    prop_assert_eq!(seen, wanted);
                }
                match accepted {
                    Some(row) => {
                        let path = path_to(parents, (row % parents.len()) as u32);
                        cache.commit(&path, |m| {
                            assert!(m.to < m.from);
                            cells[m.to] = cells[m.from];
                            Ok(())
                        }).expect("a chain");
                        history.extend(path.iter().map(|&r| (pass, r)));
                    }
                    None => cache.rollback(),
                }
                if let Some(len) = keep_len.filter(|&len| len <= history.len()) {
                    cache.truncate(len).expect("within the history");
                    history.truncate(len);
                }
                prop_assert_eq!(cache.len(), history.len());
                for (cell, held) in history.iter().enumerate() {
                    prop_assert_eq!(cells[cell], Some(*held));
                }
            }
        }
    }
}
