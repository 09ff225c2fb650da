//! Which sequences a row of a tree belongs to.
//!
//! llama.cpp has no trees: a cell belongs to sequences, and a row sees the cells of its own. So every leaf is a sequence, and a
//! row belongs to the sequences of the leaves below it. Numbered depth first, these are a contiguous range for every row; a
//! chain is the single sequence 0. Deliberately not known here: positions, cells, llama.cpp.

use std::ops::Range;

/// The sequences of each row of a pass.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    /// Leaves below each row; a leaf has itself.
    below: Vec<usize>,
    /// First sequence of each row.
    first: Vec<usize>,
    /// The sequence that a row's next child starts at.
    next: Vec<usize>,
    n_leaves: usize,
}

impl Leaves {
    /// Numbers the leaves of the tree with these `parents`; each parent comes before its children.
    pub(super) fn number(&mut self, parents: impl DoubleEndedIterator<Item = Option<u32>> + ExactSizeIterator + Clone) {
        self.below.clear();
        self.below.resize(parents.len(), 0);
        for (row, parent) in parents.clone().enumerate().rev() {
            self.below[row] = self.below[row].max(1);
            if let Some(parent) = parent {
                self.below[parent as usize] += self.below[row];
            }
        }
        self.first.clear();
        self.next.clear();
        self.n_leaves = 0;
        for (row, parent) in parents.enumerate() {
            let next = match parent {
                Some(parent) => &mut self.next[parent as usize],
                None => &mut self.n_leaves,
            };
            let first = *next;
            *next += self.below[row];
            self.first.push(first);
            self.next.push(first);
        }
    }

    /// The sequences of `row`, never empty.
    pub(super) fn of(&self, row: usize) -> Range<usize> {
        self.first[row]..self.first[row] + self.below[row]
    }

    /// Leaves, and so sequences, of the whole tree.
    pub(super) fn len(&self) -> usize {
        self.n_leaves
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(parents: &[Option<u32>]) -> (Vec<Range<usize>>, usize) {
        let mut leaves = Leaves::default();
        leaves.number(parents.iter().copied());
        ((0..parents.len()).map(|row| leaves.of(row)).collect(), leaves.len())
    }

    #[test]
    fn a_chain_is_the_sequence_zero() {
        assert_eq!(ranges(&[None, Some(0), Some(1)]), (vec![0..1, 0..1, 0..1], 1));
    }

    #[test]
    fn a_tree_breadth_first() {
        // 0 ─┬─ 1 ─┬─ 3
        //    │     └─ 4      5 ── 6 is a second root.
        //    └─ 2
        let parents = [None, Some(0), Some(0), Some(1), Some(1), None, Some(5)];
        assert_eq!(ranges(&parents), (vec![0..3, 0..2, 2..3, 0..1, 1..2, 3..4, 3..4], 4));
    }

    proptest! {
        #[test]
        fn every_leaf_has_its_own_sequence_and_is_seen_by_its_ancestors_only(
            picks in prop::collection::vec(prop::option::weighted(0.9, 0..1000usize), 1..40),
        ) {
            let parents: Vec<Option<u32>> = picks
                .iter()
                .enumerate()
                .map(|(row, pick)| pick.filter(|_| row > 0).map(|pick| u32::try_from(pick % row).unwrap()))
                .collect();
            let (ranges, n_leaves) = ranges(&parents);
            let is_leaf = |row: usize| !parents.contains(&Some(u32::try_from(row).unwrap()));
            let leaf_rows: Vec<usize> = (0..parents.len()).filter(|&row| is_leaf(row)).collect();
            prop_assert_eq!(n_leaves, leaf_rows.len());
            for (row, range) in ranges.iter().enumerate() {
                for &leaf in &leaf_rows {
                    prop_assert_eq!(ranges[leaf].len(), 1);
                    let mut ancestor = Some(leaf);
                    while ancestor.is_some_and(|a| a != row) {
                        ancestor = ancestor.and_then(|a| parents[a]).map(|a| a as usize);
                    }
                    prop_assert_eq!(range.contains(&ranges[leaf].start), ancestor.is_some(), "row {} leaf {}", row, leaf);
                }
            }
        }
    }
}
