//! One pass from begin to commit, and what may be asked of it when: the executor contract as checks.
//!
//! Every executor keeps one [`Pass`] beside its [`KvCache`] and asks it first, so that all of them
//! refuse the same things in the same words. It knows which rows are still there and how many layers they have run; cells,
//! masks and tensors it does not know. Nothing allocates after [`Pass::new`].

use std::ops::Range;

use super::{ExecutorShape, Row};
use crate::error::{ErrorKind, Result};
use crate::kv_cache::KvCache;

/// The rows of the pass under way, if there is one.
#[derive(Debug)]
pub struct Pass {
    rows: Vec<Row>,
    kept: Vec<u32>,
    layers_done: usize,
}

impl Pass {
    /// No pass yet; room for `max_rows` rows.
    pub fn new(max_rows: usize) -> Self {
        Self { rows: Vec::with_capacity(max_rows), kept: Vec::with_capacity(max_rows), layers_done: 0 }
    }

    /// The rows as they were begun.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The rows that were not dropped: indices of [`rows`](Self::rows), ascending.
    pub fn kept(&self) -> &[u32] {
        &self.kept
    }

    /// Layers that the kept rows have run.
    pub fn layers_done(&self) -> usize {
        self.layers_done
    }

    /// Begins a pass here and in `cache`, which gives every row its cell.
    ///
    /// # Errors
    ///
    /// `Misuse` for a token that is not in the vocabulary, or what [`KvCache::begin`] returns; nothing has changed then.
    pub fn begin(&mut self, rows: &[Row], shape: &ExecutorShape, cache: &mut KvCache) -> Result<()> {
        if let Some(row) = rows.iter().find(|row| row.token as usize >= shape.n_vocab) {
            return misuse("begin", format!("token {} is not in a vocabulary of {}", row.token, shape.n_vocab));
        }
        cache.begin(rows.iter().map(|row| row.parent))?;
        self.end();
        self.rows.extend_from_slice(rows);
        self.kept.extend((0u32..).take(rows.len()));
        Ok(())
    }

    /// The layers between where the rows are and `boundary`: one stage or several.
    ///
    /// # Errors
    ///
    /// `Misuse` if there is no pass, or `boundary` is not a boundary or not ahead.
    pub fn layers_to(&self, boundary: usize, shape: &ExecutorShape) -> Result<Range<usize>> {
        self.check_under_way("run")?;
        if !shape.boundaries.contains(&boundary) || boundary <= self.layers_done {
            return misuse("run", format!("{boundary} is no layer boundary after layer {}", self.layers_done));
        }
        Ok(self.layers_done..boundary)
    }

    /// Notes that the kept rows have run all layers below `boundary`.
    pub fn ran(&mut self, boundary: usize) {
        self.layers_done = boundary;
    }

    /// Drops every row but `rows`.
    ///
    /// # Errors
    ///
    /// `Misuse` if there is no pass, or `rows` is empty, not ascending, holds a dropped row or a row without its parent.
    pub fn keep(&mut self, rows: &[u32]) -> Result<()> {
        self.check_under_way("keep")?;
        if rows.is_empty() || !rows.is_sorted_by(|a, b| a < b) {
            return misuse("keep", "the rows to keep are ascending, and at least one".into());
        }
        for row in rows {
            if self.kept.binary_search(row).is_err() {
                return misuse("keep", format!("row {row} is not there, or was dropped before"));
            }
            if self.rows[*row as usize].parent.is_some_and(|p| rows.binary_search(&p).is_err()) {
                return misuse("keep", format!("row {row} is kept without its parent"));
            }
        }
        self.kept.clear();
        self.kept.extend_from_slice(rows);
        Ok(())
    }

    /// Checks that `rows` may be projected into `n_logits` numbers.
    ///
    /// # Errors
    ///
    /// `Misuse` if a row has not run all layers, was dropped or wants no logits, or the buffer has another size.
    pub fn check_project(&self, rows: &[u32], n_logits: usize, shape: &ExecutorShape) -> Result<()> {
        self.check_finished("project", rows, shape)?;
        if let Some(row) = rows.iter().find(|&&row| !self.rows[row as usize].wants_logits) {
            return misuse("project", format!("row {row} was begun without wants_logits"));
        }
        if n_logits != rows.len() * shape.n_vocab {
            return misuse("project", format!("{} rows do not fit into {n_logits} logits", rows.len()));
        }
        Ok(())
    }

    /// Checks that the rows of `path` may be committed. That they are a chain is [`KvCache::commit`]'s to check.
    ///
    /// # Errors
    ///
    /// `Misuse` if there is no pass, or a row has not run all layers or was dropped.
    pub fn check_commit(&self, path: &[u32], shape: &ExecutorShape) -> Result<()> {
        self.check_under_way("commit")?;
        if path.is_empty() { Ok(()) } else { self.check_finished("commit", path, shape) }
    }

    /// Ends the pass, if there is one.
    pub fn end(&mut self) {
        self.rows.clear();
        self.kept.clear();
        self.layers_done = 0;
    }

    fn check_under_way(&self, operation: &'static str) -> Result<()> {
        if self.rows.is_empty() { misuse(operation, "no pass is under way".into()) } else { Ok(()) }
    }

    fn check_finished(&self, operation: &'static str, rows: &[u32], shape: &ExecutorShape) -> Result<()> {
        self.check_under_way(operation)?;
        if self.layers_done < shape.n_layers {
            return misuse(operation, format!("the rows have run {} of {} layers", self.layers_done, shape.n_layers));
        }
        match rows.iter().find(|row| self.kept.binary_search(row).is_err()) {
            Some(row) => misuse(operation, format!("row {row} is not there, or was dropped")),
            None => Ok(()),
        }
    }
}

fn misuse<T>(operation: &'static str, reason: String) -> Result<T> {
    Err(ErrorKind::Misuse { operation, reason }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> ExecutorShape {
        ExecutorShape {
            n_vocab: 10,
            n_layers: 4,
            n_cells: 32,
            max_rows: 8,
            boundaries: vec![2, 4],
            forgets_rows: true,
            invariant_rows: true,
        }
    }

    /// 0 → {1, 2}, 2 → 3; row 1 wants no logits.
    fn begun() -> Pass {
        let mut pass = Pass::new(8);
        let row = |token, parent| Row { token, parent, wants_logits: token != 1 };
        let rows = [row(0, None), row(1, Some(0)), row(2, Some(0)), row(3, Some(2))];
        pass.begin(&rows, &shape(), &mut KvCache::new(32, 8)).expect("known tokens");
        pass
    }

    #[test]
    fn stages_run_forwards_only() {
        let mut pass = begun();
        assert!(pass.layers_to(1, &shape()).is_err(), "not a boundary");
        assert_eq!(pass.layers_to(4, &shape()).expect("both stages"), 0..4);
        pass.ran(2);
        assert!(pass.layers_to(2, &shape()).is_err(), "not ahead");
        assert_eq!(pass.layers_to(4, &shape()).expect("the second stage"), 2..4);
    }

    #[test]
    fn rows_are_projected_and_committed_only_after_all_layers() {
        let mut pass = begun();
        pass.ran(2);
        assert!(pass.check_project(&[0], 10, &shape()).is_err());
        assert!(pass.check_commit(&[0], &shape()).is_err());
        pass.check_commit(&[], &shape()).expect("nothing is accepted");
        pass.ran(4);
        pass.check_project(&[3, 0], 20, &shape()).expect("in any order");
        pass.check_commit(&[0, 2], &shape()).expect("they ran");
        assert!(pass.check_project(&[1], 10, &shape()).is_err(), "wants no logits");
        assert!(pass.check_project(&[0], 9, &shape()).is_err(), "buffer too small");
        assert!(pass.check_project(&[4], 10, &shape()).is_err(), "no such row");
    }

    #[test]
    fn dropped_rows_are_gone() {
        let mut pass = begun();
        assert!(pass.keep(&[]).is_err());
        assert!(pass.keep(&[2, 0]).is_err(), "not ascending");
        assert!(pass.keep(&[0, 3]).is_err(), "without its parent");
        assert!(pass.keep(&[0, 4]).is_err(), "no such row");
        pass.keep(&[0, 2, 3]).expect("closed under parents");
        assert!(pass.keep(&[0, 1]).is_err(), "dropped before");
        pass.ran(4);
        assert!(pass.check_commit(&[0, 1], &shape()).is_err());
        assert_eq!(pass.kept(), [0, 2, 3]);
    }

    #[test]
    fn without_a_pass_nothing_may_be_asked() {
        let mut pass = begun();
        pass.end();
        assert!(pass.layers_to(2, &shape()).is_err());
        assert!(pass.keep(&[0]).is_err());
        assert!(pass.check_project(&[], 0, &shape()).is_err());
        assert!(pass.check_commit(&[], &shape()).is_err());
    }

    #[test]
    fn a_refused_begin_changes_nothing() {
        let (mut pass, mut cache) = (Pass::new(2), KvCache::new(32, 2));
        let row = |token| Row { token, parent: None, wants_logits: false };
        assert!(pass.begin(&[row(10)], &shape(), &mut cache).is_err(), "not in the vocabulary");
        assert!(pass.begin(&[row(1); 3], &shape(), &mut cache).is_err(), "too many rows");
        assert_eq!((pass.rows().len(), cache.n_rows()), (0, 0));
        pass.begin(&[row(1)], &shape(), &mut cache).expect("fits");
        assert!(pass.begin(&[row(2)], &shape(), &mut cache).is_err(), "a pass is under way");
        assert_eq!((pass.rows(), cache.n_rows()), (&[row(1)][..], 1));
    }
}
