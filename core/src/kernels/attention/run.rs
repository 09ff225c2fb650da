//! The attention operation as a graph node calls it: who works on which heads, rows and ranges.
//!
//! A unit is one KV head and some rows. Where there are enough units each is one piece of work; where there are few (few rows, few
//! heads, many threads) each range of a unit is one, and the thread that finishes a unit's last range joins them. Either way
//! ranges are gathered from nothing and joined in ascending order, so the bits are the same.

use super::super::gemm::{ChunkCounter, Isa, Kind, Share};
#[cfg(target_arch = "aarch64")]
use super::super::vector::Neon;
#[cfg(target_arch = "x86_64")]
use super::super::vector::{Avx2, Avx512};
use super::super::vector::{Portable, Vector};
use super::cells::{RowCells, TileCells, Visibility};
use super::tile::{Cache, Query, TileMemory, clear, convert, finish, gather, join, state_len};
use super::{AttentionShape, RANGE, TILE};
use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where queries, cache and results are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operands {
    /// Queries, `[rows, n_head, head_dim]`.
    pub(crate) q: *const f32,
    /// Floats from one row of queries to the next.
    pub(crate) q_row_stride: usize,
    /// Floats from one head of a row's queries to the next.
    pub(crate) q_head_stride: usize,
    /// Keys of a head and a cell, at any strides. One thread reads one head, so it is fast where a head's cells follow each other.
    pub(crate) k: *const u8,
    /// Bytes from one cell's keys to the next.
    pub(crate) k_stride: usize,
    /// Bytes from one head's keys to the next.
    pub(crate) k_head_stride: usize,
    /// Values, like keys.
    pub(crate) v: *const u8,
    /// Bytes from one cell's values to the next.
    pub(crate) v_stride: usize,
    /// Bytes from one head's values to the next.
    pub(crate) v_head_stride: usize,
    /// Results, `[rows, n_head, head_dim]`; a row's heads follow each other.
    pub(crate) out: *mut f32,
    /// Floats from one row of results to the next.
    pub(crate) out_stride: usize,
}

/// Queries that a unit may have: their states stay in the first or second cache.
const UNIT_QUERIES: usize = 64;

/// A cache line of floats.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] UnsafeCell<[f32; 16]>); // reached through pointers

/// Memory of the operation, for any number of nodes that run one after another.
#[derive(Debug)]
pub(crate) struct Workspace {
    memory: Vec<Line>,
    /// Finished ranges of each unit, where units are split.
    finished: Vec<AtomicUsize>,
    counter: ChunkCounter,
    n_threads: usize,
    /// Ranges that there is memory for.
    ranges: usize,
    shape: AttentionShape,
}

// SAFETY: each thread writes its own part of the memory; a split range's part is written by the thread that took it and read by
// the one that saw, by an acquiring read-modify-write, that all are finished.
unsafe impl Sync for Workspace {}

impl Workspace {
    /// Memory for layers of this shape or with fewer heads, up to `cells` cells, and `n_threads` threads.
    pub(crate) fn new(shape: &AttentionShape, cells: usize, n_threads: usize) -> Self {
        let floats = Self::floats(shape, cells, n_threads);
        Self {
            memory: (0..floats.div_ceil(16)).map(|_| Line::default()).collect(),
            finished: (0..Self::splittable_units(n_threads)).map(|_| AtomicUsize::new(0)).collect(),
            counter: ChunkCounter::new(),
            n_threads,
            ranges: Self::ranges(cells),
            shape: *shape,
        }
    }

    /// Bytes that [`new`](Self::new) takes.
    pub(crate) fn bytes(shape: &AttentionShape, cells: usize, n_threads: usize) -> u64 {
        (Self::floats(shape, cells, n_threads) as u64).saturating_mul(size_of::<f32>() as u64)
    }

    fn floats(shape: &AttentionShape, cells: usize, n_threads: usize) -> usize {
        let states = Self::splittable_units(n_threads).saturating_mul(Self::ranges(cells));
        let split = states.saturating_mul(UNIT_QUERIES.max(shape.group()) * state_len(shape.head_dim));
        split.saturating_add(n_threads * Self::thread_len(shape))
    }

    fn ranges(cells: usize) -> usize {
        cells.div_ceil(RANGE).max(1)
    }

    /// Threads that it serves.
    pub(crate) fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// Fewer units than this are split into their ranges.
    const fn splittable_units(n_threads: usize) -> usize {
        if n_threads == 1 { 0 } else { 2 * n_threads }
    }

    /// Floats of one thread: a tile, and two states per query of a unit.
    const fn thread_len(shape: &AttentionShape) -> usize {
        let queries = if shape.group() > UNIT_QUERIES { shape.group() } else { UNIT_QUERIES };
        TileMemory::len(shape.head_dim) + 2 * queries * state_len(shape.head_dim)
    }

    fn at(&self, float: usize) -> *mut f32 {
        self.memory.as_ptr().cast_mut().cast::<f32>().wrapping_add(float)
    }
}

/// Attention of the rows of `visibility`.
///
/// # Safety
///
/// `shape` is supported and no larger in heads and dimension than the workspace's; the workspace was made for at least
/// `visibility.cells()` cells and for exactly the `n_threads` threads that call this, each with its own `thread` below that number.
/// The operands describe memory that is there for all rows, and for all cells of the history and of the rows' ancestors. Nobody else
/// writes any of it meanwhile, or reads the results, and the workspace serves one node at a time.
pub(crate) unsafe fn attention(
    isa: Isa,
    shape: &AttentionShape,
    visibility: &Visibility<'_>,
    operands: &Operands,
    workspace: &Workspace,
    thread: usize,
) {
    let node = Node::new(shape, visibility, operands, workspace);
    // SAFETY: the caller's promise; the `Isa` exists on this CPU.
    unsafe {
        match isa.kind() {
            Kind::Portable => run::<Portable>(&node, thread),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 | Kind::Avx2Vnni => run_avx2(&node, thread),
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => run_avx512(&node, thread),
            #[cfg(target_arch = "aarch64")]
            Kind::Dot | Kind::I8mm => run::<Neon>(&node, thread),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2(node: &Node<'_>, thread: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe { run::<Avx2>(node, thread) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn run_avx512(node: &Node<'_>, thread: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe { run::<Avx512>(node, thread) }
}

/// One run of the operation.
struct Node<'a> {
    shape: &'a AttentionShape,
    visibility: &'a Visibility<'a>,
    operands: &'a Operands,
    workspace: &'a Workspace,
    rows_per_unit: usize,
    units: usize,
    /// Ranges that any row sees.
    ranges: Range<usize>,
}

impl<'a> Node<'a> {
    fn new(
        shape: &'a AttentionShape,
        visibility: &'a Visibility<'a>,
        operands: &'a Operands,
        workspace: &'a Workspace,
    ) -> Self {
        debug_assert!(shape.is_supported() && shape.head_dim <= workspace.shape.head_dim);
        debug_assert!(shape.group() <= workspace.shape.group().max(UNIT_QUERIES));
        let rows = visibility.rows();
        let rows_per_unit = (UNIT_QUERIES / shape.group()).max(1);
        let units = shape.n_head_kv * rows.div_ceil(rows_per_unit);
        let seen = (0..rows).map(|row| visibility.row(row, shape.window).seen);
        let (start, end) = seen.fold((usize::MAX, 0), |(start, end), seen| (start.min(seen.start), end.max(seen.end)));
        let ranges = start / RANGE..end.div_ceil(RANGE);
        debug_assert!(ranges.end <= workspace.ranges);
        Self { shape, visibility, operands, workspace, rows_per_unit, units, ranges }
    }

    /// Whether each range of a unit is a piece of work of its own.
    fn is_split(&self) -> bool {
        self.units < Workspace::splittable_units(self.workspace.n_threads) && self.ranges.len() > 1
    }

    /// The KV head and the rows of a unit.
    fn unit(&self, unit: usize) -> (usize, Range<usize>) {
        let first = unit / self.shape.n_head_kv * self.rows_per_unit;
        (unit % self.shape.n_head_kv, first..(first + self.rows_per_unit).min(self.visibility.rows()))
    }

    /// The states of a split unit's range.
    fn split_states(&self, unit: usize, range: usize) -> *mut f32 {
        let (workspace, shape) = (self.workspace, &self.workspace.shape);
        let len = UNIT_QUERIES.max(shape.group()) * state_len(shape.head_dim);
        let first = workspace.n_threads * Workspace::thread_len(shape);
        workspace.at(first + (unit * workspace.ranges + range) * len)
    }
}

/// One thread's part of a node.
#[inline(always)]
unsafe fn run<V: Vector>(node: &Node<'_>, thread: usize) {
    let workspace = node.workspace;
    let share = Share { counter: &workspace.counter, n_threads: workspace.n_threads };
    let own = workspace.at(thread * Workspace::thread_len(&workspace.shape));
    // SAFETY: the caller's promise; the memory has a part for each thread and for each range of a split unit.
    unsafe {
        let memory = TileMemory::at(own, node.shape.head_dim);
        let joined = own.add(TileMemory::len(node.shape.head_dim));
        let mut unit = Unit::new(node, memory, joined);
        if node.is_split() {
            let ranges = node.ranges.len();
            while let Some(item) = share.take(node.units * ranges) {
                let (index, range) = (item / ranges, node.ranges.start + item % ranges);
                unit.begin(index);
                unit.gather_range::<V>(range, node.split_states(index, range));
                let finished = &workspace.finished[index];
                // What the other threads gathered becomes visible with their increments.
                if finished.fetch_add(1, Ordering::AcqRel) + 1 == ranges {
                    finished.store(0, Ordering::Relaxed);
                    unit.clear_joined();
                    for range in node.ranges.clone() {
                        unit.join_range::<V>(node.split_states(index, range));
                    }
                    unit.finish::<V>();
                }
            }
        } else {
            let states = joined.add(UNIT_QUERIES.max(node.shape.group()) * state_len(node.shape.head_dim));
            while let Some(index) = share.take(node.units) {
                unit.begin(index);
                unit.clear_joined();
                for range in node.ranges.clone() {
                    unit.gather_range::<V>(range, states);
                    unit.join_range::<V>(states);
                }
                unit.finish::<V>();
            }
        }
    }
}

/// A unit that a thread works on.
struct Unit<'a> {
    node: &'a Node<'a>,
    memory: TileMemory,
    joined: *mut f32,
    head: usize,
    rows: Range<usize>,
    cells: Vec<RowCells<'a>>,
    queries: Vec<Query>,
}

impl<'a> Unit<'a> {
    fn new(node: &'a Node<'a>, memory: TileMemory, joined: *mut f32) -> Self {
        Self { node, memory, joined, head: 0, rows: 0..0, cells: Vec::new(), queries: Vec::new() }
    }

    fn begin(&mut self, unit: usize) {
        (self.head, self.rows) = self.node.unit(unit);
        let visibility = self.node.visibility;
        self.cells.clear();
        self.cells.extend(self.rows.clone().map(|row| visibility.row(row, self.node.shape.window)));
    }

    /// Queries of the unit.
    fn len(&self) -> usize {
        self.rows.len() * self.node.shape.group()
    }

    fn cache(&self, cells: *const u8, stride: usize, head_stride: usize, format: super::CacheFormat) -> Cache {
        Cache { cells: cells.wrapping_add(self.head * head_stride), stride, format }
    }

    /// Gathers a range, from nothing, into `states`.
    ///
    /// # Safety
    ///
    /// As [`attention`]; `states` has [`state_len`] floats per query.
    #[inline(always)]
    unsafe fn gather_range<V: Vector>(&mut self, range: usize, states: *mut f32) {
        let (shape, operands) = (self.node.shape, self.node.operands);
        let keys = self.cache(operands.k, operands.k_stride, operands.k_head_stride, shape.keys);
        let values = self.cache(operands.v, operands.v_stride, operands.v_head_stride, shape.values);
        let mut cells = [0; TILE];
        // SAFETY: the caller's promise; the positions that rows see are in cells of the caches.
        unsafe {
            for query in 0..self.len() {
                clear(states.add(query * state_len(shape.head_dim)), shape.head_dim);
            }
            for first in (range * RANGE..(range + 1) * RANGE).step_by(TILE) {
                let seen = self.queries_in_place(first, states);
                if !seen.is_empty() {
                    for (i, cell) in cells.iter_mut().enumerate() {
                        *cell = first + i;
                    }
                    convert::<V>(shape.head_dim, &keys, &values, &cells, &seen, &self.memory);
                    gather::<V>(shape, &self.memory, &self.queries);
                }
                for row in 0..self.cells.len() {
                    if self.cells[row].tile(first) == TileCells::Scattered {
                        self.queries.clear();
                        let seen = self.push_queries(row, first, states);
                        self.cells[row].gather(first, &mut cells);
                        convert::<V>(shape.head_dim, &keys, &values, &cells, &seen, &self.memory);
                        gather::<V>(shape, &self.memory, &self.queries);
                    }
                }
            }
        }
    }

    /// Collects the queries of all rows for which the tile's cells lie in place, and returns what they see together.
    fn queries_in_place(&mut self, first: usize, states: *mut f32) -> Range<usize> {
        self.queries.clear();
        let mut together = Range { start: TILE, end: 0 };
        for row in 0..self.cells.len() {
            if self.cells[row].tile(first) == TileCells::InPlace {
                let seen = self.push_queries(row, first, states);
                together = together.start.min(seen.start)..together.end.max(seen.end);
            }
        }
        together
    }

    /// Appends the queries of one row of the unit, and returns what they see.
    fn push_queries(&mut self, row: usize, first: usize, states: *mut f32) -> Range<usize> {
        let (shape, operands) = (self.node.shape, self.node.operands);
        let seen = self.cells[row].seen_in(first);
        let group = shape.group();
        for i in 0..group {
            let q = (self.rows.start + row) * operands.q_row_stride + (self.head * group + i) * operands.q_head_stride;
            self.queries.push(Query {
                query: operands.q.wrapping_add(q),
                state: states.wrapping_add((row * group + i) * state_len(shape.head_dim)),
                seen: seen.clone(),
            });
        }
        seen
    }

    /// Empties what was joined.
    ///
    /// # Safety
    ///
    /// As [`attention`].
    unsafe fn clear_joined(&mut self) {
        let head_dim = self.node.shape.head_dim;
        for query in 0..self.len() {
            // SAFETY: the memory has a state for each query of a unit.
            unsafe { clear(self.joined.add(query * state_len(head_dim)), head_dim) }
        }
    }

    /// Joins a gathered range.
    ///
    /// # Safety
    ///
    /// As [`attention`]; `states` was gathered.
    #[inline(always)]
    unsafe fn join_range<V: Vector>(&mut self, states: *const f32) {
        let head_dim = self.node.shape.head_dim;
        for query in 0..self.len() {
            let at = query * state_len(head_dim);
            // SAFETY: both have a state for each query of the unit.
            unsafe { join::<V>(head_dim, self.joined.add(at), states.add(at)) }
        }
    }

    /// Writes the results.
    ///
    /// # Safety
    ///
    /// As [`attention`].
    #[inline(always)]
    unsafe fn finish<V: Vector>(&mut self) {
        let (shape, operands) = (self.node.shape, self.node.operands);
        for query in 0..self.len() {
            let (row, head) = (query / shape.group(), self.head * shape.group() + query % shape.group());
            // SAFETY: row and head are in the results.
            unsafe {
                let out = operands.out.add((self.rows.start + row) * operands.out_stride + head * shape.head_dim);
                finish::<V>(shape.head_dim, self.joined.add(query * state_len(shape.head_dim)), out);
            }
        }
    }
}
