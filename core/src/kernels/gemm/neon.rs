//! Arm with dot product instructions: eight weight rows per pair of vectors, signed weights, activations by lane.
//!
//! The instructions are assembly because their intrinsics are not stable in Rust.

use super::simd::Simd;
use std::arch::aarch64::*;
use std::arch::asm;

/// Pairs of 128-bit vectors and `sdot`.
#[derive(Clone, Copy)]
pub(super) struct Dot;

/// `sum + w · a[lane]`, four bytes per lane of the sum.
macro_rules! sdot {
    ($sum:expr, $w:expr, $a:expr, $lane:literal) => {
        asm!(
            concat!("sdot {sum:v}.4s, {w:v}.16b, {a:v}.4b[", $lane, "]"),
            sum = inout(vreg) $sum,
            w = in(vreg) $w,
            a = in(vreg) $a,
            options(pure, nomem, nostack, preserves_flags)
        )
    };
}

// SAFETY (of every block below): the trait's contract, that the CPU has Advanced SIMD with dot products and that pointers reach far
// enough.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Dot {
    const LANES: usize = 8;
    const STEP: usize = 4;
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
        w.map(|w| unsafe { low_nibbles(w) })
    }

    #[inline(always)]
    unsafe fn high_nibbles(w: Self::W) -> Self::W {
        w.map(|w| unsafe { high_nibbles(w) })
    }

    #[inline(always)]
    unsafe fn with_high_bits(low: Self::W, high: Self::W, s: usize) -> Self::W {
        unsafe { [with_high_bits(low[0], high[0], s), with_high_bits(low[1], high[1], s)] }
    }

    #[inline(always)]
    unsafe fn dot<const LARGEST: u8>(
        mut sum: Self::I,
        w: &[Self::W; 8],
        from: usize,
        to: usize,
        a: *const i8,
    ) -> Self::I {
        unsafe {
            let mut i = from;
            while i < to {
                let a = vld1q_s8(a.add(i * 4));
                let [mut s0, mut s1] = sum;
                sdot!(s0, w[i][0], a, 0);
                sdot!(s1, w[i][1], a, 0);
                sdot!(s0, w[i + 1][0], a, 1);
                sdot!(s1, w[i + 1][1], a, 1);
                sdot!(s0, w[i + 2][0], a, 2);
                sdot!(s1, w[i + 2][1], a, 2);
                sdot!(s0, w[i + 3][0], a, 3);
                sdot!(s1, w[i + 3][1], a, 3);
                sum = [s0, s1];
                i += 4;
            }
            sum
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
        unsafe { [vld1q_dup_s32(p); 2] }
    }

    #[inline(always)]
    unsafe fn rows_f32(p: *const f32) -> Self::F {
        unsafe { [vld1q_dup_f32(p); 2] }
    }

    #[inline(always)]
    unsafe fn lanes_f16(p: *const u16) -> Self::F {
        unsafe { [four_halves(p), four_halves(p.add(4))] }
    }

    #[inline(always)]
    unsafe fn lanes_u8(p: *const u8) -> Self::F {
        unsafe {
            let words = vmovl_u8(vld1_u8(p));
            [vcvtq_f32_u32(vmovl_u16(vget_low_u16(words))), vcvtq_f32_u32(vmovl_high_u16(words))]
        }
    }

    #[inline(always)]
    unsafe fn lanes_i8(p: *const i8) -> Self::F {
        unsafe {
            let words = vmovl_s8(vld1_s8(p));
            [vcvtq_f32_s32(vmovl_s16(vget_low_s16(words))), vcvtq_f32_s32(vmovl_high_s16(words))]
        }
    }

    #[inline(always)]
    unsafe fn lanes_u8_pairs(p: *const u8) -> Self::I {
        unsafe {
            let bytes = vld1q_u8(p);
            [vreinterpretq_s32_u16(vmovl_u8(vget_low_u8(bytes))), vreinterpretq_s32_u16(vmovl_high_u8(bytes))]
        }
    }

    #[inline(always)]
    unsafe fn dot_pairs(sum: Self::I, a: Self::I, b: Self::I) -> Self::I {
        unsafe { [dot_pairs(sum[0], a[0], b[0]), dot_pairs(sum[1], a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn to_f32(i: Self::I) -> Self::F {
        unsafe { [vcvtq_f32_s32(i[0]), vcvtq_f32_s32(i[1])] }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        unsafe { [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn store(f: Self::F, out: *mut f32) {
        unsafe {
            vst1q_f32(out, f[0]);
            vst1q_f32(out.add(4), f[1]);
        }
    }

    #[inline(always)]
    unsafe fn largest(x: *const f32, n: usize) -> f32 {
        unsafe {
            let mut largest = [vdupq_n_f32(0.0); 4];
            for i in (0..n).step_by(16) {
                for (j, largest) in largest.iter_mut().enumerate() {
                    // Of two operands, one of which is not a number, the instruction returns the other.
                    *largest = vmaxnmq_f32(*largest, vabsq_f32(vld1q_f32(x.add(i + 4 * j))));
                }
            }
            let [a, b, c, d] = largest;
            vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(a, b), vmaxnmq_f32(c, d)))
        }
    }

    #[inline(always)]
    unsafe fn quantise(x: *const f32, factor: f32) -> ([i8; 16], i32) {
        unsafe {
            // What is not a number becomes zero.
            let four = |i| vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x.add(i)), factor)));
            let eight = |i| vmovn_s16(vcombine_s16(four(i), four(i + 4)));
            let bytes = vcombine_s8(eight(0), eight(8));
            let mut out = [0; 16];
            vst1q_s8(out.as_mut_ptr(), bytes);
            (out, i32::from(vaddlvq_s8(bytes)))
        }
    }

    #[inline(always)]
    unsafe fn round_to_f16(f: f32) -> f32 {
        unsafe { vgetq_lane_f32::<0>(vcvt_f32_f16(vcvt_f16_f32(vdupq_n_f32(f)))) }
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { prefetch(p) }
    }
}

/// The low nibbles of sixteen bytes.
#[inline(always)]
pub(super) unsafe fn low_nibbles(w: int8x16_t) -> int8x16_t {
    // SAFETY: registers only, on a CPU with Advanced SIMD.
    unsafe { vandq_s8(w, vdupq_n_s8(15)) }
}

/// The high nibbles of sixteen bytes.
#[inline(always)]
pub(super) unsafe fn high_nibbles(w: int8x16_t) -> int8x16_t {
    // SAFETY: registers only, on a CPU with Advanced SIMD.
    unsafe { vreinterpretq_s8_u8(vshrq_n_u8::<4>(vreinterpretq_u8_s8(w))) }
}

/// Bits `2s` and `2s + 1` of the bytes of `high` above nibbles.
#[inline(always)]
pub(super) unsafe fn with_high_bits(low: int8x16_t, high: int8x16_t, s: usize) -> int8x16_t {
    // SAFETY: registers only, on a CPU with Advanced SIMD.
    unsafe {
        let high = vreinterpretq_u8_s8(high);
        let placed = match s {
            0 => vshlq_n_u8::<4>(high),
            1 => vshlq_n_u8::<2>(high),
            2 => high,
            _ => vshrq_n_u8::<2>(high),
        };
        vorrq_s8(low, vreinterpretq_s8_u8(vandq_u8(placed, vdupq_n_u8(0x30))))
    }
}

/// Four halves as floats.
///
/// # Safety
///
/// They can be read.
#[inline(always)]
pub(super) unsafe fn four_halves(p: *const u16) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))) }
}

/// `sum` plus the products of 16-bit integers, two of each lane.
#[inline(always)]
pub(super) unsafe fn dot_pairs(sum: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // SAFETY: registers only, on a CPU with Advanced SIMD.
    unsafe {
        let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
        let products = vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b));
        vaddq_s32(sum, products)
    }
}

/// Asks for a cache line.
#[inline(always)]
pub(super) unsafe fn prefetch(p: *const u8) {
    // SAFETY: prefetching takes any address.
    unsafe { asm!("prfm pldl1keep, [{p}]", p = in(reg) p, options(readonly, nostack, preserves_flags)) }
}
