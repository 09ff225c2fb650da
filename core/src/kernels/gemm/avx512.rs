//! AVX-512 with VNNI: sixteen weight rows per vector, unsigned weights, activations broadcast from memory.

use super::simd::Simd;
use std::arch::x86_64::*;

/// 512-bit vectors; also `bw`, `vl` and `vnni`.
#[derive(Clone, Copy)]
pub(super) struct Avx512;

// SAFETY (of every block below): the trait's contract, that the CPU has AVX-512 F, BW, VL and VNNI and that pointers reach far enough.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx512 {
    const LANES: usize = 16;
    const STEP: usize = 4;

    type W = __m512i;
    type I = __m512i;
    type F = __m512;

    #[inline(always)]
    unsafe fn load(p: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    unsafe fn low_nibbles(w: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(w, _mm512_set1_epi8(15)) }
    }

    #[inline(always)]
    unsafe fn high_nibbles(w: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(_mm512_srli_epi16::<4>(w), _mm512_set1_epi8(15)) }
    }

    #[inline(always)]
    unsafe fn with_high_bits(low: __m512i, high: __m512i, s: usize) -> __m512i {
        unsafe {
            let placed = match s {
                0 => _mm512_slli_epi16::<4>(high),
                1 => _mm512_slli_epi16::<2>(high),
                2 => high,
                _ => _mm512_srli_epi16::<2>(high),
            };
            // low | (placed & 0x30)
            _mm512_ternarylogic_epi32::<0xf8>(low, placed, _mm512_set1_epi8(0x30))
        }
    }

    #[inline(always)]
    unsafe fn dot<const LARGEST: u8>(
        mut sum: __m512i,
        w: &[__m512i; 8],
        from: usize,
        to: usize,
        a: *const i8,
    ) -> __m512i {
        unsafe {
            let a = a.cast::<i32>();
            let mut i = from;
            while i < to {
                sum = _mm512_dpbusd_epi32(sum, w[i], _mm512_set1_epi32(a.add(i).read_unaligned()));
                i += 1;
            }
            sum
        }
    }

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn zero_i32() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn rows_i32(p: *const i32) -> __m512i {
        unsafe { _mm512_set1_epi32(*p) }
    }

    #[inline(always)]
    unsafe fn rows_f32(p: *const f32) -> __m512 {
        unsafe { _mm512_set1_ps(*p) }
    }

    #[inline(always)]
    unsafe fn lanes_f16(p: *const u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    unsafe fn lanes_u8(p: *const u8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()))) }
    }

    #[inline(always)]
    unsafe fn lanes_i8(p: *const i8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
    }

    #[inline(always)]
    unsafe fn lanes_u8_pairs(p: *const u8) -> __m512i {
        unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    unsafe fn dot_pairs(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_dpwssd_epi32(sum, a, b) }
    }

    #[inline(always)]
    unsafe fn to_f32(i: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(i) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn store(f: __m512, out: *mut f32) {
        unsafe { _mm512_storeu_ps(out, f) }
    }

    #[inline(always)]
    unsafe fn largest(x: *const f32, n: usize) -> f32 {
        unsafe {
            let mut largest = _mm512_setzero_ps();
            let mut i = 0;
            while i < n {
                // Of two operands, one of which is not a number, the instruction returns the second.
                largest = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x.add(i))), largest);
                i += 16;
            }
            _mm512_reduce_max_ps(largest)
        }
    }

    #[inline(always)]
    unsafe fn quantise(x: *const f32, factor: f32) -> ([i8; 16], i32) {
        unsafe {
            let scaled = _mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(factor));
            // What is not a number becomes i32::MIN, whose last byte is zero.
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(scaled));
            let sums = _mm_sad_epu8(_mm_xor_si128(bytes, _mm_set1_epi8(-128)), _mm_setzero_si128());
            let sum = _mm_cvtsi128_si32(sums) + _mm_extract_epi32::<2>(sums) - 16 * 128;
            (std::mem::transmute::<__m128i, [i8; 16]>(bytes), sum)
        }
    }

    #[inline(always)]
    unsafe fn round_to_f16(f: f32) -> f32 {
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm_set_ss(f)))) }
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}
