//! The inner loop of `Q8_0` and `Q4_0`: 32 weights per block, a half scale each.
//!
//! Per row and block: a start that stands for the zero point, the integer dot product, and
//! `accumulator += (sum · weight scale) · activation scale`.

use super::activations::q8;
use super::simd::Simd;
use super::superblocks::nibbles;
use super::tile::{Format, Operands, prefetch_block, unroll};

/// Blocks of 32 signed bytes.
pub(super) struct Q8_0;
/// Blocks of 32 nibbles with zero point 8.
pub(super) struct Q4_0;

impl Format for Q8_0 {
    #[inline(always)]
    unsafe fn multiply<S: Simd, const U: usize>(operands: &Operands) {
        // SAFETY: the caller's promise.
        unsafe { multiply_blocks::<S, Self, U>(operands) }
    }
}

impl Format for Q4_0 {
    #[inline(always)]
    unsafe fn multiply<S: Simd, const U: usize>(operands: &Operands) {
        // SAFETY: the caller's promise.
        unsafe { multiply_blocks::<S, Self, U>(operands) }
    }
}

/// A format of 32 weights per block with a half scale.
trait Blocks {
    /// Bytes of a block's quants per weight row.
    const QUANT_BYTES: usize;
    /// The largest weight as an unsigned dot product sees it.
    const LARGEST: u8;
    /// Where the starts of the integer sums stand in a block of activations; `None` if sums start at zero.
    fn starts<S: Simd>() -> Option<usize>;
    /// One vector of 32 weights per row, as steps. `quants` is the vector's place in the block's first slab, `slab` bytes long.
    unsafe fn weights<S: Simd>(quants: *const u8, slab: usize) -> [S::W; 8];
}

impl Blocks for Q8_0 {
    const QUANT_BYTES: usize = 32;
    const LARGEST: u8 = 255;

    #[inline(always)]
    fn starts<S: Simd>() -> Option<usize> {
        (!S::SIGNED).then_some(q8::STARTS_128)
    }

    #[inline(always)]
    unsafe fn weights<S: Simd>(quants: *const u8, slab: usize) -> [S::W; 8] {
        // SAFETY: the caller's promise; a block has 32 / STEP slabs.
        unsafe {
            let mut w = [S::load(quants); 8];
            let mut i = 1;
            while i < 32 / S::STEP {
                w[i] = S::load(quants.add(i * slab));
                i += 1;
            }
            w
        }
    }
}

impl Blocks for Q4_0 {
    const QUANT_BYTES: usize = 16;
    const LARGEST: u8 = 15;

    #[inline(always)]
    fn starts<S: Simd>() -> Option<usize> {
        Some(q8::STARTS_8)
    }

    #[inline(always)]
    unsafe fn weights<S: Simd>(quants: *const u8, slab: usize) -> [S::W; 8] {
        // SAFETY: the caller's promise; a block has 16 / STEP slabs of two nibbles.
        unsafe { nibbles::<S>(quants, slab) }
    }
}

/// The inner loop of formats with 32 weights per block.
///
/// # Safety
///
/// As [`Format::multiply`].
#[inline(always)]
unsafe fn multiply_blocks<S: Simd, F: Blocks, const U: usize>(o: &Operands) {
    let slab = o.group * S::STEP;
    let block_bytes = o.group * F::QUANT_BYTES;
    let first_row = o.first_unit * S::ROW_UNIT;
    for lane in (0..o.group).step_by(S::LANES) {
        // SAFETY: `lane` is below the group, block below `blocks` and unit below `U`: all addresses lie in the operands.
        unsafe {
            let mut sums = [S::zero(); U];
            let mut quants = o.quants.add(lane * S::STEP);
            let mut scales = o.scales.cast::<u16>().add(lane);
            let mut x = o.activations;
            for _ in 0..o.blocks {
                if lane == 0 {
                    prefetch_block::<S>(quants, block_bytes);
                }
                let w = F::weights::<S>(quants, slab);
                let weight_scale = S::lanes_f16(scales);
                unroll!(unit in U => {
                    let row = first_row + unit * S::ROW_UNIT;
                    let start = match F::starts::<S>() {
                        Some(starts) => S::rows_i32(x.add(o.stride * starts + row * 4).cast()),
                        None => S::zero_i32(),
                    };
                    let a = x.add(row * 32).cast();
                    let dot = match F::LARGEST {
                        15 => S::dot::<15>(start, &w, 0, 32 / S::STEP, a),
                        _ => S::dot::<255>(start, &w, 0, 32 / S::STEP, a),
                    };
                    let scale = S::rows_f32(x.add(o.stride * q8::SCALES + row * 4).cast());
                    sums[unit] = S::mul_add(S::mul(S::to_f32(dot), weight_scale), scale, sums[unit]);
                });
                quants = quants.add(block_bytes);
                scales = scales.add(o.group);
                x = x.add(o.stride * q8::BYTES);
            }
            unroll!(unit in U => {
                S::store(sums[unit], o.out.add(first_row + unit * S::ROW_UNIT).cast::<f32>().add(lane));
            });
        }
    }
}
