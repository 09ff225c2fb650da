//! Arm's Advanced SIMD: four registers per vector.

use super::Vector;
use std::arch::aarch64::*;
use std::arch::asm;
use std::array::from_fn;

/// Four 128-bit registers.
#[derive(Clone, Copy)]
pub(in super::super) struct Neon([float32x4_t; 4]);

impl Neon {
    /// All registers through an operation.
    #[inline(always)]
    fn map(self, f: impl Fn(float32x4_t) -> float32x4_t) -> Self {
        Self(self.0.map(f))
    }

    /// All pairs of registers through an operation.
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> Self {
        Self(from_fn(|i| f(self.0[i], other.0[i])))
    }
}

// SAFETY (of every block below): the trait's contract, that the CPU has Advanced SIMD and that pointers reach far enough.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for Neon {
    const WIDTH: usize = 1;

    #[inline(always)]
    unsafe fn splat(f: f32) -> Self {
        Self([unsafe { vdupq_n_f32(f) }; 4])
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Self(from_fn(|i| unsafe { vld1q_f32(p.add(i * 4)) }))
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        for (i, register) in self.0.into_iter().enumerate() {
            unsafe { vst1q_f32(p.add(i * 4), register) }
        }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        Self(from_fn(|i| unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p.add(i * 4)))) }))
    }

    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        unsafe {
            let bytes = vld1q_s8(p);
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            Self([
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ])
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { vaddq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { vmulq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { vdivq_f32(a, b) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        Self(from_fn(|i| unsafe { vfmaq_f32(summand.0[i], self.0[i], factor.0[i]) }))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // Not the instruction, which treats what is not a number differently from other CPUs.
        self.zip(other, |a, b| unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { vbslq_f32(vcltq_f32(a, b), a, b) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        self.map(|a| unsafe { vrndnq_f32(a) })
    }

    #[inline(always)]
    unsafe fn times_power_of_two(self, exponent: Self) -> Self {
        self.zip(exponent, |a, exponent| unsafe {
            let exponent = vshlq_n_s32::<23>(vcvtq_s32_f32(exponent));
            vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a), exponent))
        })
    }

    #[inline(always)]
    unsafe fn zero_where_below(self, reference: Self, bound: f32) -> Self {
        self.zip(reference, |a, reference| unsafe {
            let below = vcltq_f32(reference, vdupq_n_f32(bound));
            vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), below))
        })
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // at most sixteen
    unsafe fn hide_outside(self, start: usize, end: usize) -> Self {
        const LANES: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        Self(from_fn(|i| unsafe {
            let lanes = vld1q_u32(LANES.as_ptr().add(i * 4));
            let from = vcgeq_u32(lanes, vdupq_n_u32(start as u32));
            let keep = vandq_u32(from, vcltq_u32(lanes, vdupq_n_u32(end as u32)));
            vbslq_f32(keep, self.0[i], vdupq_n_f32(f32::NEG_INFINITY))
        }))
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        let [a, b, c, d] = self.0;
        unsafe { vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(a, b), vmaxnmq_f32(c, d))) }
    }

    #[inline(always)]
    unsafe fn transpose(rows: [Self; 16]) -> [Self; 16] {
        let mut columns = rows;
        for i in 0..4 {
            for j in 0..4 {
                // Rows 4i … 4i + 3 of columns 4j … 4j + 3.
                let block = unsafe { transpose_four(from_fn(|r| rows[4 * i + r].0[j])) };
                for (c, register) in block.into_iter().enumerate() {
                    columns[4 * j + c].0[i] = register;
                }
            }
        }
        columns
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { asm!("prfm pldl1keep, [{p}]", p = in(reg) p, options(readonly, nostack, preserves_flags)) }
    }
}

/// Four rows of four floats become columns.
#[inline(always)]
unsafe fn transpose_four(rows: [float32x4_t; 4]) -> [float32x4_t; 4] {
    // SAFETY: registers only, on a CPU with Advanced SIMD.
    unsafe {
        let pairs = |a, b| (vreinterpretq_f64_f32(vtrn1q_f32(a, b)), vreinterpretq_f64_f32(vtrn2q_f32(a, b)));
        let (even01, odd01) = pairs(rows[0], rows[1]);
        let (even23, odd23) = pairs(rows[2], rows[3]);
        [
            vreinterpretq_f32_f64(vtrn1q_f64(even01, even23)),
            vreinterpretq_f32_f64(vtrn1q_f64(odd01, odd23)),
            vreinterpretq_f32_f64(vtrn2q_f64(even01, even23)),
            vreinterpretq_f32_f64(vtrn2q_f64(odd01, odd23)),
        ]
    }
}
