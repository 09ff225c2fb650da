//! The product as a graph node calls it: several matrices with one input, chunk by chunk, from any number of threads.
//!
//! A chunk is a few groups of weight rows. For each group all tiles of activations are multiplied while the group is in the
//! nearest cache; a long prompt goes through in runs of tiles, so that its activations stay in the second cache meanwhile.

use super::activations::{ActivationShape, TILE_ROWS, Tile};
use super::chunks::Share;
use super::gate::{self, Gate};
use super::isa::Isa;
use super::packed::PackedMatrix;
use super::tile::{Kernels, Operands, Results, kernels};

/// One matrix of a product, and where its results go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The weights.
    pub(crate) weights: PackedMatrix,
    /// `y[row · stride + column]`, one row per activation row, `weights.shape().n()` columns.
    pub(crate) y: *mut f32,
    /// Floats from one row of `y` to the next.
    pub(crate) stride: usize,
    /// Added to the product, laid out as `y` (it may be `y` itself); null for none.
    pub(crate) residual: *const f32,
}

/// Groups of the largest chunk: enough to keep the counter quiet and the hardware's prefetchers running.
const CHUNK_GROUPS: usize = 8;

/// Tiles multiplied per visit of a group.
const RUN_TILES: usize = 4;

/// Multiplies the activations at `x` with every part's weights.
///
/// # Safety
///
/// `x` holds activations of shape `activations`, quantised for this `isa`. Every part's weights are packed in `isa.interleave()`, have
/// the same `k` and take the same kind of activations. Every part's `y` (and residual, if any) has room for
/// `activations.rows()` rows, and nobody else touches it meanwhile except the other threads of `share` in this same call.
pub(crate) unsafe fn product(isa: Isa, parts: &[Part], activations: &ActivationShape, x: *const u8, share: Share<'_>) {
    let groups: usize = parts.iter().map(|part| part.weights.shape().groups()).sum();
    let len = share.chunk_len(groups, CHUNK_GROUPS);
    let mut results = Results([[0.0; 16]; TILE_ROWS]);
    while let Some(chunk) = share.take(groups.div_ceil(len)) {
        for tiles in runs(activations) {
            let mut first = 0;
            for part in parts {
                let shape = part.weights.shape();
                debug_assert!(shape.interleave() == isa.interleave() && shape.k() == activations.k());
                debug_assert!(shape.format().activations() == activations.kind());
                let kernels = kernels(isa, shape.format());
                let here = (chunk * len).max(first)..(chunk * len + len).min(first + shape.groups());
                for group in here.map(|group| group - first) {
                    for tile in tiles.iter() {
                        // SAFETY: the caller's promise; a group belongs to one chunk, so no two threads write the same results.
                        unsafe {
                            multiply_tile(kernels, &part.weights, group, tile, x, &mut results);
                            write_tile(&results, part, group, tile);
                        }
                    }
                }
                first += shape.groups();
            }
        }
    }
}

/// Two matrices of the same shape whose products are joined by a gate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatedPart {
    /// The gate's weights.
    pub(crate) gate: PackedMatrix,
    /// The weights of what is gated.
    pub(crate) up: PackedMatrix,
    /// The gate's function.
    pub(crate) function: Gate,
    /// `y[row · stride + column]`, one row per activation row, `up.shape().n()` columns.
    pub(crate) y: *mut f32,
    /// Floats from one row of `y` to the next.
    pub(crate) stride: usize,
}

/// `f(x · gateᵀ) · (x · upᵀ)`: gate and up projection in one walk.
///
/// # Safety
///
/// As [`product`], for both matrices; they have as many rows.
pub(crate) unsafe fn gated_product(
    isa: Isa,
    part: &GatedPart,
    activations: &ActivationShape,
    x: *const u8,
    share: Share<'_>,
) {
    let (gate, up) = (part.gate.shape(), part.up.shape());
    debug_assert!(gate.n() == up.n() && gate.k() == up.k() && up.k() == activations.k());
    let (gate_kernels, up_kernels) = (kernels(isa, gate.format()), kernels(isa, up.format()));
    let out = Part { weights: part.up, y: part.y, stride: part.stride, residual: std::ptr::null() };
    let mut gates = Results([[0.0; 16]; TILE_ROWS]);
    let mut ups = Results([[0.0; 16]; TILE_ROWS]);
    let len = share.chunk_len(up.groups(), CHUNK_GROUPS / 2);
    while let Some(chunk) = share.take(up.groups().div_ceil(len)) {
        for tiles in runs(activations) {
            for group in chunk * len..(chunk * len + len).min(up.groups()) {
                for tile in tiles.iter() {
                    // SAFETY: the caller's promise; a group belongs to one chunk, so no two threads write the same results.
                    unsafe {
                        multiply_tile(gate_kernels, &part.gate, group, tile, x, &mut gates);
                        multiply_tile(up_kernels, &part.up, group, tile, x, &mut ups);
                        gate::apply(isa, part.function, &gates, &mut ups, tile.rows);
                        write_tile(&ups, &out, group, tile);
                    }
                }
            }
        }
    }
}

/// Some tiles in a row. Where they lie is worked out once for all groups that meet them.
struct Run {
    tiles: [Tile; RUN_TILES],
    len: usize,
}

impl Run {
    fn iter(&self) -> impl Iterator<Item = &Tile> {
        self.tiles[..self.len].iter()
    }
}

/// Splits tiles into runs whose activations fit the second cache.
fn runs(activations: &ActivationShape) -> impl Iterator<Item = Run> + '_ {
    let tiles = activations.tiles();
    (0..tiles).step_by(RUN_TILES).map(move |first| Run {
        tiles: std::array::from_fn(|i| activations.tile((first + i).min(tiles - 1))),
        len: RUN_TILES.min(tiles - first),
    })
}

/// Multiplies a tile with a group, in as few kernels as the instruction set's registers allow, evenly.
///
/// # Safety
///
/// As [`product`].
unsafe fn multiply_tile(
    kernels: Kernels,
    weights: &PackedMatrix,
    group: usize,
    tile: &Tile,
    x: *const u8,
    results: &mut Results,
) {
    let shape = weights.shape();
    let mut operands = Operands {
        scales: weights.group(group),
        quants: weights.group(group).wrapping_add(shape.scales_bytes()),
        group: shape.interleave().group,
        blocks: shape.blocks(),
        // SAFETY: the tile lies in the activations.
        activations: unsafe { x.add(tile.offset) },
        stride: tile.stride,
        first_unit: 0,
        out: results.0.as_mut_ptr(),
    };
    let units = tile.stride / shape.interleave().row_unit;
    let passes = units.div_ceil(kernels.len());
    for pass in 0..passes {
        let here = units / passes + usize::from(pass < units % passes);
        // SAFETY: the operands were made for this tile; `here` is at least 1 and at most the number of kernels, and the passes
        // together cover `units` units.
        unsafe { kernels[here - 1](&operands) }
        operands.first_unit += here;
    }
}

/// Writes a tile's results, with the residual added if there is one.
///
/// # Safety
///
/// As [`product`], for a group of the part that no other thread works on.
unsafe fn write_tile(results: &Results, part: &Part, group: usize, tile: &Tile) {
    let shape = part.weights.shape();
    let first_column = group * shape.interleave().group;
    let columns = (shape.n() - first_column).min(shape.interleave().group);
    for (row, results) in results.0.iter().enumerate().take(tile.rows) {
        let at = (tile.first + row) * part.stride + first_column;
        // SAFETY: row and columns lie in `y` and in the residual, by the caller's promise.
        unsafe {
            let y = part.y.add(at);
            if part.residual.is_null() && columns == results.len() {
                y.cast::<[f32; 16]>().write(*results);
            } else if part.residual.is_null() {
                y.copy_from_nonoverlapping(results.as_ptr(), columns);
            } else {
                let residual = part.residual.add(at);
                for (i, result) in results.iter().enumerate().take(columns) {
                    *y.add(i) = result + *residual.add(i);
                }
            }
        }
    }
}
