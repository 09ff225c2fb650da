//! Plain Rust: runs everywhere, is what the others are compared with, and what Miri can read.

use super::half::{f16_to_f32, f32_to_f16};
use super::simd::Simd;

/// Arrays of sixteen that the compiler may vectorise.
#[derive(Clone, Copy)]
pub(super) struct Portable;

// SAFETY (of every block below): the trait's contract, that pointers reach far enough.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Portable {
    const LANES: usize = 16;
    const STEP: usize = 4;

    type W = [u8; 64];
    type I = [i32; 16];
    type F = [f32; 16];

    #[inline(always)]
    unsafe fn load(p: *const u8) -> [u8; 64] {
        unsafe { p.cast::<[u8; 64]>().read() }
    }

    #[inline(always)]
    unsafe fn low_nibbles(w: [u8; 64]) -> [u8; 64] {
        w.map(|w| w & 15)
    }

    #[inline(always)]
    unsafe fn high_nibbles(w: [u8; 64]) -> [u8; 64] {
        w.map(|w| w >> 4)
    }

    #[inline(always)]
    unsafe fn with_high_bits(low: [u8; 64], high: [u8; 64], s: usize) -> [u8; 64] {
        std::array::from_fn(|i| low[i] | (high[i] >> (2 * s) & 3) << 4)
    }

    #[inline(always)]
    unsafe fn dot<const LARGEST: u8>(
        mut sum: [i32; 16],
        w: &[[u8; 64]; 8],
        from: usize,
        to: usize,
        a: *const i8,
    ) -> [i32; 16] {
        for (i, w) in w.iter().enumerate().take(to).skip(from) {
            let a = unsafe { a.add(i * 4).cast::<[i8; 4]>().read() };
            for (lane, sum) in sum.iter_mut().enumerate() {
                for (j, &a) in a.iter().enumerate() {
                    *sum += i32::from(w[lane * 4 + j]) * i32::from(a);
                }
            }
        }
        sum
    }

    #[inline(always)]
    unsafe fn zero() -> [f32; 16] {
        [0.0; 16]
    }

    #[inline(always)]
    unsafe fn zero_i32() -> [i32; 16] {
        [0; 16]
    }

    #[inline(always)]
    unsafe fn rows_i32(p: *const i32) -> [i32; 16] {
        [unsafe { *p }; 16]
    }

    #[inline(always)]
    unsafe fn rows_f32(p: *const f32) -> [f32; 16] {
        [unsafe { *p }; 16]
    }

    #[inline(always)]
    unsafe fn lanes_f16(p: *const u16) -> [f32; 16] {
        unsafe { p.cast::<[u16; 16]>().read() }.map(f16_to_f32)
    }

    #[inline(always)]
    unsafe fn lanes_u8(p: *const u8) -> [f32; 16] {
        unsafe { p.cast::<[u8; 16]>().read() }.map(f32::from)
    }

    #[inline(always)]
    unsafe fn lanes_i8(p: *const i8) -> [f32; 16] {
        unsafe { p.cast::<[i8; 16]>().read() }.map(f32::from)
    }

    #[inline(always)]
    unsafe fn lanes_u8_pairs(p: *const u8) -> [i32; 16] {
        unsafe { p.cast::<[[u8; 2]; 16]>().read() }.map(|[a, b]| i32::from(a) | i32::from(b) << 16)
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // the low half is what is wanted
    unsafe fn dot_pairs(sum: [i32; 16], a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        let (low, high) = (|i: i32| i32::from(i as i16), |i: i32| i >> 16);
        std::array::from_fn(|i| sum[i] + low(a[i]) * low(b[i]) + high(a[i]) * high(b[i]))
    }

    #[inline(always)]
    #[allow(clippy::cast_precision_loss)] // rounding to nearest is what is wanted
    unsafe fn to_f32(i: [i32; 16]) -> [f32; 16] {
        i.map(|i| i as f32)
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        std::array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn mul_add(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        // A true fused operation even where the CPU has none: slow there, but the same bits.
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    unsafe fn store(f: [f32; 16], out: *mut f32) {
        unsafe { out.cast::<[f32; 16]>().write(f) }
    }

    #[inline(always)]
    unsafe fn largest(x: *const f32, n: usize) -> f32 {
        let x = unsafe { std::slice::from_raw_parts(x, n) };
        x.iter().fold(0.0, |largest, x| if x.abs() > largest { x.abs() } else { largest })
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // at most 127
    unsafe fn quantise(x: *const f32, factor: f32) -> ([i8; 16], i32) {
        let x = unsafe { x.cast::<[f32; 16]>().read() };
        let quants = x.map(|x| (x * factor).round_ties_even() as i8);
        (quants, quants.iter().map(|&quant| i32::from(quant)).sum())
    }

    #[inline(always)]
    unsafe fn round_to_f16(f: f32) -> f32 {
        f16_to_f32(f32_to_f16(f))
    }
}
