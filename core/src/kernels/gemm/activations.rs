//! Activations as the product kernels read them: quantised per block as ggml does, rows of a tile side by side.
//!
//! One call serves all matrices that take the same input. The integers and scales are those of ggml's `q8_0` (scale rounded to a
//! half) and `q8_K`, so products differ from ggml's only in the order of f32 sums. Beside the scale stands what a kernel starts
//! its integer sum with: minus the weights' zero point times the sum of the block.
//!
//! A tile has up to [`TILE_ROWS`] rows; rows are dealt evenly to as few tiles as possible. Inside a tile, block by block: the rows'
//! bytes, then their scales, then their starts, so that a kernel walks one ascending stream.

use super::chunks::Share;
use super::half::{f16_to_f32, f32_to_f16};
use super::isa::{Interleave, Isa, Kind};

/// Rows of the largest tile.
pub(crate) const TILE_ROWS: usize = 16;

/// How activations are quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ActivationKind {
    /// Blocks of 32 with a scale each: ggml's `q8_0`.
    Q8,
}

impl ActivationKind {
    /// Activations per block.
    pub(crate) const fn block_len(self) -> usize {
        match self {
            Self::Q8 => 32,
        }
    }

    /// Bytes of one row's share of a block.
    pub(crate) const fn block_bytes(self) -> usize {
        match self {
            Self::Q8 => q8::BYTES,
        }
    }
}

/// Offsets inside a block of [`ActivationKind::Q8`], per row of the tile: multiply by the tile's stride.
pub(super) mod q8 {
    /// f32 scales.
    pub(crate) const SCALES: usize = 32;
    /// i32, −8 × sum: the start of a sum over weights with zero point 8.
    pub(crate) const STARTS_8: usize = 36;
    /// i32, −128 × sum: the start of a sum over signed bytes with the sign bit flipped.
    pub(crate) const STARTS_128: usize = 40;
    /// The whole block.
    pub(crate) const BYTES: usize = 44;
}

/// The shape of quantised activations: `rows` rows of `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ActivationShape {
    kind: ActivationKind,
    rows: usize,
    k: usize,
    row_unit: usize,
}

/// One tile of quantised activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// First row.
    pub(super) first: usize,
    /// Rows.
    pub(super) rows: usize,
    /// Rows there is memory for: `rows` rounded up to the dot product's unit.
    pub(super) stride: usize,
    /// Offset of the tile in bytes.
    pub(super) offset: usize,
}

impl ActivationShape {
    /// The shape of `rows` rows of `k` activations; `None` unless `k` is a positive multiple of the block.
    pub(crate) fn new(kind: ActivationKind, rows: usize, k: usize, interleave: Interleave) -> Option<Self> {
        let fits = rows > 0 && k > 0 && k.is_multiple_of(kind.block_len());
        fits.then_some(Self { kind, rows, k, row_unit: interleave.row_unit })
    }

    /// How the activations are quantised.
    pub(crate) const fn kind(&self) -> ActivationKind {
        self.kind
    }

    /// Rows.
    pub(crate) const fn rows(&self) -> usize {
        self.rows
    }

    /// Activations per row.
    pub(crate) const fn k(&self) -> usize {
        self.k
    }

    /// Bytes of the whole, for a buffer aligned to at least 4 bytes (64 is better).
    pub(crate) const fn bytes(&self) -> usize {
        let last = self.tile(self.tiles() - 1);
        last.offset + last.stride * self.row_bytes()
    }

    const fn blocks(&self) -> usize {
        self.k / self.kind.block_len()
    }

    const fn row_bytes(&self) -> usize {
        self.blocks() * self.kind.block_bytes()
    }

    /// Tiles.
    pub(super) const fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE_ROWS)
    }

    /// Tile `index`. The first tiles have one row more than the others where the rows do not go up evenly.
    pub(super) const fn tile(&self, index: usize) -> Tile {
        let (small, larger) = (self.rows / self.tiles(), self.rows % self.tiles());
        let large_before = if index < larger { index } else { larger };
        let small_before = index - large_before;
        let rows = small + (index < larger) as usize;
        let stride_before = large_before * self.stride(small + 1) + small_before * self.stride(small);
        Tile {
            first: large_before * (small + 1) + small_before * small,
            rows,
            stride: self.stride(rows),
            offset: stride_before * self.row_bytes(),
        }
    }

    const fn stride(&self, rows: usize) -> usize {
        rows.next_multiple_of(self.row_unit)
    }
}

/// Quantises `shape.rows()` rows at `x`, `x_stride` floats apart, into `out`.
///
/// An infinite activation gives an infinite or undefined product, as it should; one that is not a number counts as zero.
///
/// # Safety
///
/// Each row has `shape.k()` floats to read, and `out` has `shape.bytes()` bytes to write, aligned to 4, that nobody else touches
/// except the other threads of `share` in this same call.
pub(crate) unsafe fn quantise(
    isa: Isa,
    shape: &ActivationShape,
    x: *const f32,
    x_stride: usize,
    out: *mut u8,
    share: Share<'_>,
) {
    let blocks = shape.blocks();
    let total = shape.rows * blocks;
    let len = share.chunk_len(total, 4 * blocks).max(32);
    while let Some(chunk) = share.take(total.div_ceil(len)) {
        for item in chunk * len..(chunk * len + len).min(total) {
            let (row, block) = (item / blocks, item % blocks);
            let place = Place::of(shape, row, block);
            // SAFETY: row and block are in range, so the caller's promise covers the block read and the block written; each
            // (row, block) is one item of one chunk, so no two threads write the same bytes. The `Isa` exists on this CPU.
            unsafe {
                let x = x.add(row * x_stride + block * shape.kind.block_len());
                let out = out.add(place.block);
                match isa.0 {
                    Kind::Portable => quantise_block(shape.kind, x, out, &place),
                    #[cfg(target_arch = "x86_64")]
                    Kind::Avx512 => quantise_block_avx512(shape.kind, x, out, &place),
                }
            }
        }
    }
}

/// Where one row's share of one block is written.
struct Place {
    /// Offset of the block of all the tile's rows.
    block: usize,
    row: usize,
    stride: usize,
    row_unit: usize,
}

impl Place {
    fn of(shape: &ActivationShape, row: usize, block: usize) -> Self {
        let (small, larger) = (shape.rows / shape.tiles(), shape.rows % shape.tiles());
        let boundary = larger * (small + 1);
        let index = if row < boundary { row / (small + 1) } else { larger + (row - boundary) / small };
        let tile = shape.tile(index);
        Self {
            block: tile.offset + block * tile.stride * shape.kind.block_bytes(),
            row: row - tile.first,
            stride: tile.stride,
            row_unit: shape.row_unit,
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn quantise_block_avx512(kind: ActivationKind, x: *const f32, out: *mut u8, place: &Place) {
    // SAFETY: the caller's promise is passed on.
    unsafe { quantise_block(kind, x, out, place) }
}

/// Quantises one block. Plain Rust that compilers vectorise; every instruction set runs it, so every one gives the same bits.
///
/// # Safety
///
/// `x` has a block of floats to read; `out` is the block of the row's tile, with the row's bytes to write.
#[inline(always)]
unsafe fn quantise_block(kind: ActivationKind, x: *const f32, out: *mut u8, place: &Place) {
    match kind {
        // SAFETY: the caller's promise.
        ActivationKind::Q8 => unsafe {
            let (quants, amax) = to_bytes(&*x.cast::<[f32; 32]>());
            let sum: i32 = quants.iter().map(|&q| i32::from(q)).sum();
            write_bytes(&quants, out, place, 32);
            let Place { row, stride, .. } = *place;
            let scale = f16_to_f32(f32_to_f16(amax / 127.0));
            out.add(stride * q8::SCALES + row * 4).cast::<f32>().write(scale);
            out.add(stride * q8::STARTS_8 + row * 4).cast::<i32>().write(-8 * sum);
            out.add(stride * q8::STARTS_128 + row * 4).cast::<i32>().write(-128 * sum);
        },
    }
}

/// Below this the reciprocal could overflow; products with such activations are zero in f32 for any weight scale a half holds.
const SMALLEST: f32 = 1e-30;

/// The integers nearest to `127 x / amax`, ties to even, and `amax`, the largest magnitude.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // at most 127 by construction
fn to_bytes<const N: usize>(x: &[f32; N]) -> ([i8; N], f32) {
    // Sixteen running maxima, so that no order of comparisons stands in the way of vectors.
    let mut lanes = [0.0_f32; 16];
    for x in x.chunks_exact(16) {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane = if x.abs() > *lane { x.abs() } else { *lane };
        }
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = if lanes[i + half] > lanes[i] { lanes[i + half] } else { lanes[i] };
        }
    }
    let amax = lanes[0];
    if amax < SMALLEST {
        return ([0; N], 0.0);
    }
    let factor = 127.0 / amax;
    (x.map(|x| (x * factor).round_ties_even() as i8), amax)
}

/// Writes a run of one row's bytes: rows whole, or in units of rows whose steps of eight alternate.
///
/// # Safety
///
/// `out` is the start of the tile's bytes in this block, with room for `row_len` bytes per row of the tile's stride.
#[inline(always)]
unsafe fn write_bytes<const N: usize>(quants: &[i8; N], out: *mut u8, place: &Place, row_len: usize) {
    // SAFETY: the row is within the stride, and a unit's rows share the unit's bytes without overlap.
    unsafe {
        if place.row_unit == 1 {
            out.add(place.row * row_len).cast::<[i8; N]>().write(*quants);
        } else {
            let out = out.add(place.row / 2 * 2 * row_len + place.row % 2 * 8).cast::<i8>();
            for (step, quants) in quants.chunks_exact(8).enumerate() {
                out.add(step * 16).copy_from_nonoverlapping(quants.as_ptr(), 8);
            }
        }
    }
}
