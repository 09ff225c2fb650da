//! One tile of cached positions meets some queries: conversion, scores, softmax and weighted values.
//!
//! Keys are converted into columns, so that a vector spans sixteen positions and a score is one chain of multiply-adds over the
//! head's dimensions; values stay rows, and an output is one chain over positions. The chains are the same however many queries are
//! worked on side by side.

use super::super::gemm::f16_to_f32;
use super::super::vector::{Vector, exp, tanh};
use super::{AttentionShape, CacheFormat, TILE};
use std::ops::Range;

/// Queries worked on side by side.
pub(super) const QUERIES: usize = 4;

/// Positions per vector.
const LANES: usize = 16;

/// What a query has gathered: `head_dim` weighted sums, sixteen partial sums of weights, and the largest score in the first of
/// sixteen further floats.
pub(super) const fn state_len(head_dim: usize) -> usize {
    head_dim + 2 * LANES
}

/// One query in one tile.
#[derive(Clone, Debug)]
pub(super) struct Query {
    /// `head_dim` floats.
    pub(super) query: *const f32,
    /// What it has gathered, [`state_len`] floats.
    pub(super) state: *mut f32,
    /// Positions it sees, relative to the tile; never empty.
    pub(super) seen: Range<usize>,
}

/// A thread's memory for one tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct TileMemory {
    /// `[head_dim, TILE]` keys.
    pub(super) keys: *mut f32,
    /// `[TILE, head_dim]` values.
    pub(super) values: *mut f32,
    /// `[QUERIES, TILE]` scores.
    pub(super) scores: *mut f32,
}

impl TileMemory {
    /// Floats that the memory takes.
    pub(super) const fn len(head_dim: usize) -> usize {
        2 * head_dim * TILE + QUERIES * TILE
    }

    /// Memory at `p`.
    ///
    /// # Safety
    ///
    /// `p` has [`len`](Self::len) floats.
    pub(super) unsafe fn at(p: *mut f32, head_dim: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self { keys: p, values: p.add(head_dim * TILE), scores: p.add(2 * head_dim * TILE) } }
    }
}

/// The cache of keys or of values, for one KV head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cache {
    /// The head's part of cell 0.
    pub(super) cells: *const u8,
    /// Bytes from one cell to the next.
    pub(super) stride: usize,
    /// How elements are stored.
    pub(super) format: CacheFormat,
}

impl Cache {
    /// Sixteen elements of a cell from `element` on.
    ///
    /// # Safety
    ///
    /// The cell is in the cache.
    #[inline(always)]
    unsafe fn load<V: Vector>(&self, cell: usize, element: usize) -> V {
        // SAFETY: the caller's promise; blocks of 32 follow each other, a half scale before their bytes.
        unsafe {
            let cell = self.cells.add(cell * self.stride);
            match self.format {
                CacheFormat::F16 => V::load_f16(cell.add(element * 2).cast()),
                CacheFormat::Q8_0 => {
                    let block = cell.add(element / 32 * 34);
                    let scale = f16_to_f32(block.cast::<u16>().read_unaligned());
                    V::load_i8(block.add(2 + element % 32).cast()).mul(V::splat(scale))
                }
            }
        }
    }

    /// Asks for a cell that the next tile will want; it need not exist.
    ///
    /// # Safety
    ///
    /// The CPU has the instruction set.
    #[inline(always)]
    unsafe fn prefetch<V: Vector>(&self, cell: usize, head_dim: usize) {
        for line in (0..self.format.bytes(head_dim)).step_by(64) {
            // SAFETY: any address may be asked for.
            unsafe { V::prefetch(self.cells.wrapping_add(cell * self.stride + line)) }
        }
    }
}

/// Converts the keys and values of the seen positions, whose cells are in `cells`. What is not seen becomes zero.
///
/// # Safety
///
/// The CPU has the instruction set, the memory is there, and the cells are in the caches.
#[inline(always)]
pub(super) unsafe fn convert<V: Vector>(
    head_dim: usize,
    keys: &Cache,
    values: &Cache,
    cells: &[usize; TILE],
    seen: &Range<usize>,
    memory: &TileMemory,
) {
    for first in (seen.start / LANES * LANES..seen.end).step_by(LANES) {
        for element in (0..head_dim).step_by(LANES) {
            // SAFETY: the caller's promise; positions are below TILE, elements below the head's dimension.
            unsafe {
                let mut rows = [V::splat(0.0); LANES];
                for (i, row) in rows.iter_mut().enumerate() {
                    if seen.contains(&(first + i)) {
                        *row = keys.load(cells[first + i], element);
                    }
                }
                for (i, column) in V::transpose(rows).into_iter().enumerate() {
                    column.store(memory.keys.add((element + i) * TILE + first));
                }
            }
        }
    }
    for position in seen.clone() {
        for element in (0..head_dim).step_by(LANES) {
            // SAFETY: as above.
            unsafe {
                let value: V = values.load(cells[position], element);
                value.store(memory.values.add(position * head_dim + element));
            }
        }
        // SAFETY: as above.
        unsafe {
            keys.prefetch::<V>(cells[position] + TILE, head_dim);
            values.prefetch::<V>(cells[position] + TILE, head_dim);
        }
    }
}

/// Lets queries gather from a converted tile.
///
/// # Safety
///
/// The CPU has the instruction set; the memory was converted for at least what the queries see; their states are there.
#[inline(always)]
pub(super) unsafe fn gather<V: Vector>(shape: &AttentionShape, memory: &TileMemory, queries: &[Query]) {
    for queries in queries.chunks(QUERIES) {
        // SAFETY: the caller's promise; each arm has the number of queries it names.
        unsafe {
            match queries {
                [a, b, c, d] => gather_some::<V, 4>(shape, memory, [a, b, c, d]),
                [a, b, c] => gather_some::<V, 3>(shape, memory, [a, b, c]),
                [a, b] => gather_some::<V, 2>(shape, memory, [a, b]),
                [a] => gather_some::<V, 1>(shape, memory, [a]),
                _ => {}
            }
        }
    }
}

/// [`gather`] for `Q` queries side by side.
#[inline(always)]
unsafe fn gather_some<V: Vector, const Q: usize>(shape: &AttentionShape, memory: &TileMemory, queries: [&Query; Q]) {
    let start = queries.iter().map(|q| q.seen.start).min().unwrap_or(0);
    let end = queries.iter().map(|q| q.seen.end).max().unwrap_or(0);
    // SAFETY: the caller's promise.
    unsafe {
        for first in (start / LANES * LANES..end).step_by(LANES * V::WIDTH) {
            match V::WIDTH.min((end - first).div_ceil(LANES)) {
                4 => score::<V, Q, 4>(shape.head_dim, memory, &queries, first),
                3 => score::<V, Q, 3>(shape.head_dim, memory, &queries, first),
                2 => score::<V, Q, 2>(shape.head_dim, memory, &queries, first),
                _ => score::<V, Q, 1>(shape.head_dim, memory, &queries, first),
            }
        }
        let mut decay = [0.0; Q];
        for (i, query) in queries.iter().enumerate() {
            decay[i] = soften::<V>(shape, memory.scores.add(i * TILE), query, start..end);
        }
        for element in (0..shape.head_dim).step_by(LANES * V::WIDTH) {
            match V::WIDTH.min((shape.head_dim - element) / LANES) {
                4 => weigh::<V, Q, 4>(shape.head_dim, memory, &queries, decay, start..end, element),
                3 => weigh::<V, Q, 3>(shape.head_dim, memory, &queries, decay, start..end, element),
                2 => weigh::<V, Q, 2>(shape.head_dim, memory, &queries, decay, start..end, element),
                _ => weigh::<V, Q, 1>(shape.head_dim, memory, &queries, decay, start..end, element),
            }
        }
    }
}

/// Scores of `Q` queries at `W` vectors of positions from `first` on.
#[inline(always)]
unsafe fn score<V: Vector, const Q: usize, const W: usize>(
    head_dim: usize,
    memory: &TileMemory,
    queries: &[&Query; Q],
    first: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[V::splat(0.0); W]; Q];
        for element in 0..head_dim {
            let keys: [V; W] = load(memory.keys.add(element * TILE + first));
            for (sums, query) in sums.iter_mut().zip(queries) {
                let factor = V::splat(*query.query.add(element));
                for (sum, key) in sums.iter_mut().zip(keys) {
                    *sum = factor.mul_add(key, *sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                sum.store(memory.scores.add(i * TILE + first + j * LANES));
            }
        }
    }
}

/// Turns one query's scores into weights relative to the largest so far, and returns what earlier weights are worth now.
#[inline(always)]
unsafe fn soften<V: Vector>(shape: &AttentionShape, scores: *mut f32, query: &Query, computed: Range<usize>) -> f32 {
    let state = query.state.wrapping_add(shape.head_dim);
    // SAFETY: the caller's promise; the computed positions include what the query sees.
    unsafe {
        let largest_so_far = *state.add(LANES);
        let mut largest = V::splat(largest_so_far);
        for first in vectors(&query.seen) {
            let mut score = V::load(scores.add(first)).mul(V::splat(shape.scale));
            if shape.soft_cap > 0.0 {
                score = tanh(score.mul(V::splat(1.0 / shape.soft_cap))).mul(V::splat(shape.soft_cap));
            }
            if first < query.seen.start || first + LANES > query.seen.end {
                let start = query.seen.start.saturating_sub(first);
                score = score.hide_outside(start, (query.seen.end - first).min(LANES));
            }
            score.store(scores.add(first));
            largest = largest.max(score);
        }
        let largest = largest.largest();
        let decay = exp(V::splat(largest_so_far - largest)).largest();
        let mut sums = V::load(state).mul(V::splat(decay));
        for first in vectors(&computed) {
            if first + LANES <= query.seen.start || first >= query.seen.end {
                V::splat(0.0).store(scores.add(first));
                continue;
            }
            let weights = exp(V::load(scores.add(first)).add(V::splat(-largest)));
            weights.store(scores.add(first));
            sums = sums.add(weights);
        }
        sums.store(state);
        *state.add(LANES) = largest;
        decay
    }
}

/// Adds the values of the positions, weighted, to `W` vectors of `Q` queries' sums from `element` on.
#[inline(always)]
unsafe fn weigh<V: Vector, const Q: usize, const W: usize>(
    head_dim: usize,
    memory: &TileMemory,
    queries: &[&Query; Q],
    decay: [f32; Q],
    positions: Range<usize>,
    element: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[V::splat(0.0); W]; Q];
        for (i, sums) in sums.iter_mut().enumerate() {
            let gathered: [V; W] = load(queries[i].state.add(element));
            for (sum, gathered) in sums.iter_mut().zip(gathered) {
                *sum = gathered.mul(V::splat(decay[i]));
            }
        }
        for position in positions {
            let values: [V; W] = load(memory.values.add(position * head_dim + element));
            for (i, sums) in sums.iter_mut().enumerate() {
                let weight = V::splat(*memory.scores.add(i * TILE + position));
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = weight.mul_add(value, *sum);
                }
            }
        }
        for (query, sums) in queries.iter().zip(sums) {
            for (i, sum) in sums.into_iter().enumerate() {
                sum.store(query.state.add(element + i * LANES));
            }
        }
    }
}

/// The first positions of the vectors that touch a range.
fn vectors(positions: &Range<usize>) -> impl Iterator<Item = usize> + use<> {
    (positions.start / LANES * LANES..positions.end).step_by(LANES)
}

/// Loads `W` vectors.
#[inline(always)]
unsafe fn load<V: Vector, const W: usize>(p: *const f32) -> [V; W] {
    // SAFETY: the caller promises W · 16 floats.
    unsafe {
        let mut vectors = [V::load(p); W];
        for (i, vector) in vectors.iter_mut().enumerate().skip(1) {
            *vector = V::load(p.add(i * LANES));
        }
        vectors
    }
}

/// Empties a query's state.
///
/// # Safety
///
/// `state` has [`state_len`] floats.
pub(super) unsafe fn clear(state: *mut f32, head_dim: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        state.write_bytes(0, state_len(head_dim));
        *state.add(head_dim + LANES) = f32::NEG_INFINITY;
    }
}

/// Joins what a query gathered in one range to what it gathered in the ranges before. Both are [`state_len`] floats.
///
/// # Safety
///
/// The CPU has the instruction set; both states are there.
#[inline(always)]
pub(super) unsafe fn join<V: Vector>(head_dim: usize, joined: *mut f32, range: *const f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let (mine, theirs) = (*joined.add(head_dim + LANES), *range.add(head_dim + LANES));
        if theirs == f32::NEG_INFINITY {
            return; // nothing seen in the range
        }
        let largest = if mine > theirs { mine } else { theirs };
        let (keep, take) = (exp(V::splat(mine - largest)), exp(V::splat(theirs - largest)));
        for i in (0..head_dim + LANES).step_by(LANES) {
            let kept = V::load(joined.add(i)).mul(keep);
            V::load(range.add(i)).mul_add(take, kept).store(joined.add(i));
        }
        *joined.add(head_dim + LANES) = largest;
    }
}

/// Writes a query's result: its sums over the sum of its weights.
///
/// # Safety
///
/// The CPU has the instruction set; `out` has `head_dim` floats.
#[inline(always)]
pub(super) unsafe fn finish<V: Vector>(head_dim: usize, state: *const f32, out: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut lanes = [0.0_f32; LANES];
        V::load(state.add(head_dim)).store(lanes.as_mut_ptr());
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        for i in (0..head_dim).step_by(LANES) {
            V::load(state.add(i)).div(V::splat(lanes[0])).store(out.add(i));
        }
    }
}
