//! Which cells a row sees, in the order of their positions.

use super::TILE;
use std::ops::Range;

/// What the rows of an operation see, besides the history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visibility<'a> {
    /// Committed positions, which lie in cells of the same numbers.
    history: usize,
    /// `[rows, words]` bits.
    ancestors: &'a [u64],
    words: usize,
}

/// Where the cells of one tile are for one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TileCells {
    /// The row sees nothing in the tile.
    None,
    /// Cells have the numbers of their positions.
    InPlace,
    /// Some ancestors lie elsewhere.
    Scattered,
}

impl<'a> Visibility<'a> {
    /// Rows over a history of `history` positions. Bit `j` of a row's `words` words: the row sees cell `history + j`. The bits of a row
    /// in ascending order are its path from the root, itself last, so its position is `history` + bits − 1.
    ///
    /// `None` if the words do not divide into rows, or a row does not see even itself.
    pub(crate) fn new(history: usize, ancestors: &'a [u64], words: usize) -> Option<Self> {
        let fits = words > 0 && !ancestors.is_empty() && ancestors.len().is_multiple_of(words);
        let all_see = fits && ancestors.chunks_exact(words).all(|row| row.iter().any(|&word| word != 0));
        all_see.then_some(Self { history, ancestors, words })
    }

    /// Rows.
    pub(crate) fn rows(&self) -> usize {
        self.ancestors.len() / self.words
    }

    /// The number of the highest cell that any row sees, plus one.
    #[cfg(test)]
    pub(crate) fn cells(&self) -> usize {
        let highest = |row: &[u64]| {
            let word = row.iter().rposition(|&word| word != 0).unwrap_or(0);
            word * 64 + 64 - row[word].leading_zeros() as usize
        };
        self.history + self.ancestors.chunks_exact(self.words).map(highest).max().unwrap_or(0)
    }

    /// What one row sees.
    pub(super) fn row(&self, row: usize, window: usize) -> RowCells<'a> {
        let bits = &self.ancestors[row * self.words..(row + 1) * self.words];
        let end = self.history + bits.iter().map(|word| word.count_ones() as usize).sum::<usize>();
        let full = bits.iter().take_while(|&&word| word == u64::MAX).count();
        let in_place = full * 64 + bits.get(full).map_or(0, |word| word.trailing_ones() as usize);
        RowCells {
            bits,
            history: self.history,
            in_place: self.history + in_place,
            seen: end.saturating_sub(window)..end,
        }
    }
}

/// What one row sees.
#[derive(Clone, Debug)]
pub(super) struct RowCells<'a> {
    bits: &'a [u64],
    history: usize,
    /// Positions before this lie in cells of the same numbers.
    in_place: usize,
    /// Positions seen.
    pub(super) seen: Range<usize>,
}

impl RowCells<'_> {
    /// The positions seen in the tile from position `first` on, relative to it.
    pub(super) fn seen_in(&self, first: usize) -> Range<usize> {
        let start = self.seen.start.clamp(first, first + TILE) - first;
        let end = self.seen.end.clamp(first, first + TILE) - first;
        start..end.max(start)
    }

    /// Where the cells of the tile from position `first` on are.
    pub(super) fn tile(&self, first: usize) -> TileCells {
        if self.seen_in(first).is_empty() {
            TileCells::None
        } else if self.seen.end.min(first + TILE) <= self.in_place {
            TileCells::InPlace
        } else {
            TileCells::Scattered
        }
    }

    /// The cells of the positions seen in the tile from position `first` on, written to where they are seen.
    pub(super) fn gather(&self, first: usize, cells: &mut [usize; TILE]) {
        let seen = self.seen_in(first);
        for (i, cell) in cells.iter_mut().enumerate().take(seen.end).skip(seen.start) {
            *cell = first + i;
        }
        let mut position = self.history;
        for (word, &bits) in self.bits.iter().enumerate() {
            let mut bits = bits;
            while bits != 0 {
                if (first + seen.start..first + seen.end).contains(&position) {
                    cells[position - first] = self.history + word * 64 + bits.trailing_zeros() as usize;
                }
                bits &= bits - 1;
                position += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_lies_in_place() {
        let ancestors = [0b1, 0b11, 0b111];
        let visibility = Visibility::new(100, &ancestors, 1).expect("rows see themselves");
        assert_eq!((visibility.rows(), visibility.cells()), (3, 103));
        let row = visibility.row(2, usize::MAX);
        assert_eq!(row.seen, 0..103);
        assert_eq!(row.seen_in(64), 0..39);
        assert_eq!(row.tile(0), TileCells::InPlace);
        assert_eq!(row.tile(64), TileCells::InPlace);
        assert_eq!(row.tile(128), TileCells::None);
    }

    #[test]
    fn a_branch_is_gathered_by_position() {
        // Cells 0, 2 and 65 of the pass, the last in the second word.
        let ancestors = [0b101, 0b10];
        let visibility = Visibility::new(62, &ancestors, 2).expect("rows see themselves");
        assert_eq!(visibility.cells(), 128);
        let row = visibility.row(0, usize::MAX);
        assert_eq!(row.seen, 0..65);
        assert_eq!((row.tile(0), row.tile(64)), (TileCells::Scattered, TileCells::Scattered));
        let mut cells = [usize::MAX; TILE];
        row.gather(0, &mut cells);
        assert_eq!(cells[60..], [60, 61, 62, 64]);
        row.gather(64, &mut cells);
        assert_eq!(cells[0], 127);
    }

    #[test]
    fn a_window_hides_the_oldest() {
        let visibility = Visibility::new(100, &[0b1], 1).expect("a row sees itself");
        let row = visibility.row(0, 70);
        assert_eq!(row.seen, 31..101);
        assert_eq!(row.seen_in(0), 31..64);
        let row = visibility.row(0, 10);
        assert_eq!((row.tile(0), row.tile(64)), (TileCells::None, TileCells::InPlace));
    }

    #[test]
    fn rows_that_see_nothing_are_refused() {
        assert!(Visibility::new(1, &[1, 0], 1).is_none());
        assert!(Visibility::new(1, &[1, 0, 1], 2).is_none());
        assert!(Visibility::new(1, &[], 1).is_none());
    }
}
