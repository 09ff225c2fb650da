//! The inner loops of `Q4_K` and `Q6_K`: 256 weights per block, runs of 32 or 16 with small integer scales, a half scale of those.
//!
//! Per row and run: the integer dot product and `block += sum · run scale`, exact as long as it stays below 2²⁴. Per row and block:
//! `accumulator += (block · weight scale) · activation scale`, and for `Q4_K` the minima, whose sum over the block is an integer dot
//! product with the sums of the activations.

use super::activations::q8k;
use super::packed::{q4_k, q6_k};
use super::simd::Simd;
use super::tile::{Format, Operands, prefetch_block, unroll};

/// Nibbles in runs of 32 with scales and minima.
pub(super) struct Q4K;
/// Six bits in runs of 16 with signed scales.
pub(super) struct Q6K;

impl Format for Q4K {
    #[inline(always)]
    unsafe fn multiply<S: Simd, const U: usize>(o: &Operands) {
        let slab = o.group * S::STEP;
        let first_row = o.first_unit * S::ROW_UNIT;
        for lane in (0..o.group).step_by(S::LANES) {
            // SAFETY: the caller's promise: lanes, blocks, runs and units are in range, so all addresses lie in the operands.
            unsafe {
                let mut sums = [S::zero(); U];
                let mut quants = o.quants.add(lane * S::STEP);
                let mut scales = o.scales;
                let mut x = o.activations;
                for _ in 0..o.blocks {
                    let mut block = [S::zero(); U];
                    for run in 0..8 {
                        if lane == 0 {
                            prefetch_block::<S>(quants, o.group * 16);
                        }
                        let w = nibbles::<S>(quants, slab);
                        quants = quants.add(o.group * 16);
                        let scale = S::lanes_u8(scales.add(o.group * (q4_k::SCALES + run) + lane));
                        let x = x.add(first_row * 256 + run * 32 * S::ROW_UNIT);
                        unroll!(unit in U => {
                            let a = x.add(unit * S::ROW_UNIT * 256).cast();
                            let dot = S::dot::<15>(S::zero_i32(), &w, 0, 32 / S::STEP, a);
                            block[unit] = S::mul_add(S::to_f32(dot), scale, block[unit]);
                        });
                    }
                    let scale = S::lanes_f16(scales.add(o.group * q4_k::SCALE + lane * 2).cast());
                    let minimum = S::lanes_f16(scales.add(o.group * q4_k::MINIMUM + lane * 2).cast());
                    let pair = |i: usize| S::lanes_u8_pairs(scales.add(o.group * (q4_k::MINIMA + 2 * i) + lane * 2));
                    let minima = [pair(0), pair(1), pair(2), pair(3)];
                    unroll!(unit in U => {
                        let row = first_row + unit * S::ROW_UNIT;
                        let mut below = S::zero_i32();
                        for (i, minima) in minima.iter().enumerate() {
                            let runs = S::rows_i32(x.add(o.stride * (q8k::SUMS + i * 4) + row * 4).cast());
                            below = S::dot_pairs(below, *minima, runs);
                        }
                        let row_scale = S::rows_f32(x.add(o.stride * q8k::SCALES + row * 4).cast());
                        let sum = S::mul_add(S::mul(block[unit], scale), row_scale, sums[unit]);
                        sums[unit] = S::mul_add(S::mul(S::to_f32(below), minimum), row_scale, sum);
                    });
                    scales = scales.add(o.group * q4_k::BYTES);
                    x = x.add(o.stride * q8k::BYTES);
                }
                unroll!(unit in U => {
                    S::store(sums[unit], o.out.add(first_row + unit * S::ROW_UNIT).cast::<f32>().add(lane));
                });
            }
        }
    }
}

impl Format for Q6K {
    #[inline(always)]
    unsafe fn multiply<S: Simd, const U: usize>(o: &Operands) {
        let slab = o.group * S::STEP;
        let first_row = o.first_unit * S::ROW_UNIT;
        for lane in (0..o.group).step_by(S::LANES) {
            // SAFETY: the caller's promise: lanes, blocks, runs and units are in range, so all addresses lie in the operands.
            unsafe {
                let mut sums = [S::zero(); U];
                let mut quants = o.quants.add(lane * S::STEP);
                let mut scales = o.scales;
                let mut x = o.activations;
                for _ in 0..o.blocks {
                    let mut block = [S::zero(); U];
                    for pair in 0..8 {
                        if lane == 0 {
                            prefetch_block::<S>(quants.add(o.group * 24 * pair), o.group * 24);
                        }
                        let low = quants.add(o.group * (64 + 16 * pair));
                        let w = six_bits::<S>(low, quants.add(o.group * 8 * pair), slab);
                        let run = 2 * pair;
                        let scale = |run| S::lanes_i8(scales.add(o.group * (q6_k::SCALES + run) + lane).cast());
                        let scales = [scale(run), scale(run + 1)];
                        unroll!(unit in U => {
                            let row = first_row + unit * S::ROW_UNIT;
                            let a = x.add(row * 256 + pair * 32 * S::ROW_UNIT).cast();
                            let start = |run| S::rows_i32(x.add(o.stride * (q8k::STARTS + run * 4) + row * 4).cast());
                            let dots = [
                                S::dot::<63>(start(run), &w, 0, 16 / S::STEP, a),
                                S::dot::<63>(start(run + 1), &w, 16 / S::STEP, 32 / S::STEP, a),
                            ];
                            let sum = S::mul_add(S::to_f32(dots[0]), scales[0], block[unit]);
                            block[unit] = S::mul_add(S::to_f32(dots[1]), scales[1], sum);
                        });
                    }
                    let scale = S::lanes_f16(scales.add(o.group * q6_k::SCALE + lane * 2).cast());
                    unroll!(unit in U => {
                        let row = first_row + unit * S::ROW_UNIT;
                        let row_scale = S::rows_f32(x.add(o.stride * q8k::SCALES + row * 4).cast());
                        sums[unit] = S::mul_add(S::mul(block[unit], scale), row_scale, sums[unit]);
                    });
                    quants = quants.add(o.group * 192);
                    scales = scales.add(o.group * q6_k::BYTES);
                    x = x.add(o.stride * q8k::BYTES);
                }
                unroll!(unit in U => {
                    S::store(sums[unit], o.out.add(first_row + unit * S::ROW_UNIT).cast::<f32>().add(lane));
                });
            }
        }
    }
}

/// 32 nibbles per row, as steps.
///
/// # Safety
///
/// The CPU has the instruction set; 16 / STEP slabs follow each other from `quants` on.
#[inline(always)]
pub(super) unsafe fn nibbles<S: Simd>(quants: *const u8, slab: usize) -> [S::W; 8] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut w = [S::load(quants); 8];
        let mut i = 0;
        while i < 16 / S::STEP {
            let both = S::load(quants.add(i * slab));
            w[2 * i] = S::low_nibbles(both);
            w[2 * i + 1] = S::high_nibbles(both);
            i += 1;
        }
        w
    }
}

/// 32 six-bit weights per row, as steps.
///
/// # Safety
///
/// The CPU has the instruction set; 16 / STEP slabs follow each other from `low` on, 8 / STEP from `high` on.
#[inline(always)]
unsafe fn six_bits<S: Simd>(low: *const u8, high: *const u8, slab: usize) -> [S::W; 8] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut w = nibbles::<S>(low, slab);
        let mut i = 0;
        while i < 8 / S::STEP {
            let high = S::load(high.add(i * slab));
            let mut s = 0;
            while s < 4 {
                w[4 * i + s] = S::with_high_bits(w[4 * i + s], high, s);
                s += 1;
            }
            i += 1;
        }
        w
    }
}
