//! Activations as the product kernels read them: quantised per block as ggml does, rows of a tile side by side.
//!
//! One call serves all matrices that take the same input. The integers and scales are those of ggml's `q8_0` (scale rounded to a
//! half) and `q8_K`, so products differ from ggml's only in the order of f32 sums. Beside the scale stands what a kernel starts
//! its integer sum with: minus the weights' zero point times the sum of the block.
//!
//! A tile has up to [`TILE_ROWS`] rows; rows are dealt evenly to as few tiles as possible. Inside a tile, block by block: the rows'
//! bytes, then their scales, then their starts, so that a kernel walks one ascending stream.

use super::chunks::Share;
use super::isa::{Interleave, Isa, Kind};
#[cfg(target_arch = "aarch64")]
use super::neon::Dot;
use super::portable::Portable;
use super::simd::Simd;
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

/// Rows of the largest tile.
pub(crate) const TILE_ROWS: usize = 16;

/// How activations are quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ActivationKind {
    /// Blocks of 32 with a scale each: ggml's `q8_0`.
    Q8,
    /// Blocks of 256 with a scale each: ggml's `q8_K`.
    Q8K,
}

impl ActivationKind {
    /// Activations per block.
    pub(crate) const fn block_len(self) -> usize {
        match self {
            Self::Q8 => 32,
            Self::Q8K => 256,
        }
    }

    /// Bytes of one row's share of a block.
    pub(crate) const fn block_bytes(self) -> usize {
        match self {
            Self::Q8 => q8::BYTES,
            Self::Q8K => q8k::BYTES,
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

/// Offsets inside a block of [`ActivationKind::Q8K`], per row of the tile: multiply by the tile's stride.
pub(super) mod q8k {
    /// f32 scales.
    pub(crate) const SCALES: usize = 256;
    /// Pairs of i16, minus the sums of neighbouring runs of 32: for weights with minima. Four pairs, each for all rows.
    pub(crate) const SUMS: usize = 260;
    /// i32, −32 × sums of 16: the starts of sums over weights with zero point 32. Sixteen, each for all rows.
    pub(crate) const STARTS: usize = 276;
    /// The whole block.
    pub(crate) const BYTES: usize = 340;
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
/// An infinite activation gives an infinite or undefined product, as it should, and one that is not a number gives products that are none:
/// broken weights then show as an error where tokens are chosen, not as a text that means nothing.
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
    let (blocks, block_len) = (shape.blocks(), shape.kind.block_len());
    let runs = blocks.div_ceil(RUN_BLOCKS);
    while let Some(item) = share.take(shape.rows * runs) {
        let (row, first) = (item / runs, item % runs * RUN_BLOCKS);
        let place = Place::of(shape, row);
        let run = Run {
            // SAFETY: the row and its blocks are in range, by the caller's promise.
            x: unsafe { x.add(row * x_stride + first * block_len) },
            // SAFETY: as above.
            out: unsafe { out.add(place.tile + first * place.block_bytes) },
            blocks: RUN_BLOCKS.min(blocks - first),
            place,
        };
        // SAFETY: each run is one item of one thread, so no two threads write the same bytes. The `Isa` exists on this CPU.
        unsafe {
            match isa.kind() {
                Kind::Portable => quantise_run::<Portable>(shape.kind, &run),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 | Kind::Avx2Vnni => quantise_run_avx2(shape.kind, &run),
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => quantise_run_avx512(shape.kind, &run),
                #[cfg(target_arch = "aarch64")]
                Kind::Dot | Kind::I8mm => quantise_run::<Dot>(shape.kind, &run),
            }
        }
    }
}

/// Blocks of one row that a thread quantises at a time.
const RUN_BLOCKS: usize = 16;

/// Consecutive blocks of one row.
struct Run {
    x: *const f32,
    out: *mut u8,
    blocks: usize,
    place: Place,
}

/// Where a row stands in its tile.
struct Place {
    /// Offset of the tile.
    tile: usize,
    /// Bytes of a block of all the tile's rows.
    block_bytes: usize,
    row: usize,
    stride: usize,
    row_unit: usize,
}

impl Place {
    fn of(shape: &ActivationShape, row: usize) -> Self {
        let (small, larger) = (shape.rows / shape.tiles(), shape.rows % shape.tiles());
        let boundary = larger * (small + 1);
        let index = if row < boundary { row / (small + 1) } else { larger + (row - boundary) / small };
        let tile = shape.tile(index);
        Self {
            tile: tile.offset,
            block_bytes: tile.stride * shape.kind.block_bytes(),
            row: row - tile.first,
            stride: tile.stride,
            row_unit: shape.row_unit,
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn quantise_run_avx2(kind: ActivationKind, run: &Run) {
    // SAFETY: the caller's promise is passed on.
    unsafe { quantise_run::<Avx2<false>>(kind, run) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn quantise_run_avx512(kind: ActivationKind, run: &Run) {
    // SAFETY: the caller's promise is passed on.
    unsafe { quantise_run::<Avx512>(kind, run) }
}

/// Quantises a run of blocks.
///
/// # Safety
///
/// `run.x` has that many blocks of floats to read, and `run.out` those of the row's tile, with the row's bytes to write.
#[inline(always)]
unsafe fn quantise_run<S: Simd>(kind: ActivationKind, run: &Run) {
    for block in 0..run.blocks {
        // SAFETY: the caller's promise.
        unsafe {
            let (x, out) = (run.x.add(block * kind.block_len()), run.out.add(block * run.place.block_bytes));
            match kind {
                ActivationKind::Q8 => quantise_q8::<S>(x, out, &run.place),
                ActivationKind::Q8K => quantise_q8k::<S>(x, out, &run.place),
            }
        }
    }
}

/// Quantises a block of [`ActivationKind::Q8`].
///
/// # Safety
///
/// `x` has 32 floats to read; `out` is the block of the row's tile, with the row's bytes to write.
#[inline(always)]
unsafe fn quantise_q8<S: Simd>(x: *const f32, out: *mut u8, place: &Place) {
    let Place { row, stride, row_unit, .. } = *place;
    // SAFETY: the caller's promise.
    unsafe {
        let amax = largest::<S>(x, 32);
        let factor = factor(amax);
        let mut sum = 0;
        for at in [0, 16] {
            let (quants, run_sum) = S::quantise(x.add(at), factor);
            sum += run_sum;
            write_bytes(quants, out.add(at * row_unit), row, row_unit, 32);
        }
        out.add(stride * q8::SCALES + row * 4).cast::<f32>().write(S::round_to_f16(amax / 127.0));
        out.add(stride * q8::STARTS_8 + row * 4).cast::<i32>().write(-8 * sum);
        out.add(stride * q8::STARTS_128 + row * 4).cast::<i32>().write(-128 * sum);
    }
}

/// Quantises a block of [`ActivationKind::Q8K`].
///
/// # Safety
///
/// `x` has 256 floats to read; `out` is the block of the row's tile, with the row's bytes to write.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // sums of 32 bytes
unsafe fn quantise_q8k<S: Simd>(x: *const f32, out: *mut u8, place: &Place) {
    let Place { row, stride, row_unit, .. } = *place;
    // SAFETY: the caller's promise.
    unsafe {
        let factor = factor(largest::<S>(x, 256));
        let mut sums = [0; 16];
        for (run, sum) in sums.iter_mut().enumerate() {
            let (quants, run_sum) = S::quantise(x.add(run * 16), factor);
            *sum = run_sum;
            write_bytes(quants, out.add(run * 16 * row_unit), row, row_unit, 256);
            out.add(stride * (q8k::STARTS + run * 4) + row * 4).cast::<i32>().write(-32 * run_sum);
        }
        for (pair, sums) in sums.chunks_exact(4).enumerate() {
            let pair_sums = [-(sums[0] + sums[1]) as i16, -(sums[2] + sums[3]) as i16];
            out.add(stride * (q8k::SUMS + pair * 4) + row * 4).cast::<[i16; 2]>().write(pair_sums);
        }
        let scale = if factor == 0.0 { 0.0 } else { 1.0 / factor };
        out.add(stride * q8k::SCALES + row * 4).cast::<f32>().write(scale);
    }
}

/// The largest magnitude of `n` floats, a multiple of 16; not a number if one of them is none.
///
/// # Safety
///
/// `x` has `n` floats to read.
#[inline(always)]
unsafe fn largest<S: Simd>(x: *const f32, n: usize) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let is_broken = (0..n).fold(false, |is_broken, i| is_broken | (*x.add(i)).is_nan());
        if is_broken { f32::NAN } else { S::largest(x, n) }
    }
}

/// What makes integers up to 127 of floats up to `amax`.
#[inline(always)]
fn factor(amax: f32) -> f32 {
    // Below, the reciprocal could overflow. Such blocks count as zero: their products are far below what f32 sums can show.
    if amax < 1e-30 { 0.0 } else { 127.0 / amax }
}

/// Writes sixteen of one row's bytes: together, or in eights that alternate with the other row of the unit.
///
/// # Safety
///
/// `out` is where the sixteen of the tile's first row go, in an area of `row_len` bytes per row with room for `row`.
#[inline(always)]
unsafe fn write_bytes(quants: [i8; 16], out: *mut u8, row: usize, row_unit: usize, row_len: usize) {
    // SAFETY: the caller's promise; a unit's rows share the unit's bytes without overlap.
    unsafe {
        if row_unit == 1 {
            out.add(row * row_len).cast::<[i8; 16]>().write(quants);
        } else {
            let out = out.add(row / 2 * 2 * row_len + row % 2 * 8).cast::<i8>();
            out.copy_from_nonoverlapping(quants.as_ptr(), 8);
            out.add(16).copy_from_nonoverlapping(quants.as_ptr().add(8), 8);
        }
    }
}
