//! Arm with matrix multiplication instructions: two weight rows times two activation rows, eight steps of `k` at a time.
//!
//! A vector is two registers: weight rows 0 and 1, then 2 and 3, each with both activation rows of the unit. The instruction is
//! assembly because its intrinsic is not stable in Rust.

use super::neon::{self, Dot};
use super::simd::Simd;
use std::arch::aarch64::*;
use std::arch::asm;

/// Pairs of 128-bit vectors and `smmla`.
#[derive(Clone, Copy)]
pub(super) struct I8mm;

/// `sum + w · aᵀ`, two rows by two rows.
macro_rules! smmla {
    ($sum:expr, $w:expr, $a:expr) => {
        asm!(
            "smmla {sum:v}.4s, {w:v}.16b, {a:v}.16b",
            sum = inout(vreg) $sum,
            w = in(vreg) $w,
            a = in(vreg) $a,
            options(pure, nomem, nostack, preserves_flags)
        )
    };
}

// SAFETY (of every block below): the trait's contract, that the CPU has Advanced SIMD with 8-bit matrix multiplication and that
// pointers reach far enough.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for I8mm {
    const LANES: usize = 4;
    const STEP: usize = 8;
    const ROW_UNIT: usize = 2;
    const SIGNED: bool = true;

    type W = [int8x16_t; 2];
    type I = [int32x4_t; 2];
    type F = [float32x4_t; 2];

    #[inline(always)]
    unsafe fn load(p: *const u8) -> Self::W {
        unsafe { [vld1q_s8(p.cast()), vld1q_s8(p.add(16).cast())] }
    }

    #[inline(always)]
    unsafe fn low_nibbles(w: Self::W) -> Self::W {
        w.map(|w| unsafe { neon::low_nibbles(w) })
    }

    #[inline(always)]
    unsafe fn high_nibbles(w: Self::W) -> Self::W {
        w.map(|w| unsafe { neon::high_nibbles(w) })
    }

    #[inline(always)]
    unsafe fn with_high_bits(low: Self::W, high: Self::W, s: usize) -> Self::W {
        unsafe { [neon::with_high_bits(low[0], high[0], s), neon::with_high_bits(low[1], high[1], s)] }
    }

    #[inline(always)]
    unsafe fn dot<const LARGEST: u8>(sum: Self::I, w: &[Self::W; 8], from: usize, to: usize, a: *const i8) -> Self::I {
        unsafe {
            let [mut s0, mut s1] = sum;
            let mut i = from;
            while i < to {
                // Eight activations of one row, then eight of the other.
                let a = vld1q_s8(a.add(i * 16));
                smmla!(s0, w[i][0], a);
                smmla!(s1, w[i][1], a);
                i += 1;
            }
            [s0, s1]
        }
    }

    #[inline(always)]
    unsafe fn zero() -> Self::F {
        unsafe { [vdupq_n_f32(0.0); 2] }
    }

    #[inline(always)]
    unsafe fn zero_i32() -> Self::I {
        unsafe { [vdupq_n_s32(0); 2] }
    }

    #[inline(always)]
    unsafe fn rows_i32(p: *const i32) -> Self::I {
        unsafe { [vreinterpretq_s32_s64(vld1q_dup_s64(p.cast())); 2] }
    }

    #[inline(always)]
    unsafe fn rows_f32(p: *const f32) -> Self::F {
        unsafe { [vreinterpretq_f32_s64(vld1q_dup_s64(p.cast())); 2] }
    }

    #[inline(always)]
    unsafe fn lanes_f16(p: *const u16) -> Self::F {
        unsafe { twice(neon::four_halves(p)) }
    }

    #[inline(always)]
    unsafe fn lanes_u8(p: *const u8) -> Self::F {
        unsafe {
            let words = vmovl_u8(vreinterpret_u8_u32(vld1_dup_u32(p.cast())));
            twice(vcvtq_f32_u32(vmovl_u16(vget_low_u16(words))))
        }
    }

    #[inline(always)]
    unsafe fn lanes_i8(p: *const i8) -> Self::F {
        unsafe {
            let words = vmovl_s8(vreinterpret_s8_u32(vld1_dup_u32(p.cast())));
            twice(vcvtq_f32_s32(vmovl_s16(vget_low_s16(words))))
        }
    }

    #[inline(always)]
    unsafe fn lanes_u8_pairs(p: *const u8) -> Self::I {
        unsafe {
            let pairs = vreinterpretq_s32_u16(vmovl_u8(vld1_u8(p)));
            [vzip1q_s32(pairs, pairs), vzip2q_s32(pairs, pairs)]
        }
    }

    #[inline(always)]
    unsafe fn dot_pairs(sum: Self::I, a: Self::I, b: Self::I) -> Self::I {
        unsafe { Dot::dot_pairs(sum, a, b) }
    }

    #[inline(always)]
    unsafe fn to_f32(i: Self::I) -> Self::F {
        unsafe { Dot::to_f32(i) }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        unsafe { Dot::mul(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        unsafe { Dot::mul_add(a, b, c) }
    }

    #[inline(always)]
    unsafe fn store(f: Self::F, out: *mut f32) {
        unsafe {
            vst1q_f32(out, vuzp1q_f32(f[0], f[1]));
            vst1q_f32(out.add(16), vuzp2q_f32(f[0], f[1]));
        }
    }

    #[inline(always)]
    unsafe fn largest(x: *const f32, n: usize) -> f32 {
        unsafe { Dot::largest(x, n) }
    }

    #[inline(always)]
    unsafe fn quantise(x: *const f32, factor: f32) -> ([i8; 16], i32) {
        unsafe { Dot::quantise(x, factor) }
    }

    #[inline(always)]
    unsafe fn round_to_f16(f: f32) -> f32 {
        unsafe { Dot::round_to_f16(f) }
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { neon::prefetch(p) }
    }
}

/// The float of each weight row for both activation rows.
#[inline(always)]
unsafe fn twice(rows: float32x4_t) -> [float32x4_t; 2] {
    // SAFETY: registers only, on a CPU with Advanced SIMD.
    unsafe { [vzip1q_f32(rows, rows), vzip2q_f32(rows, rows)] }
}
