//! AVX2, with and without its VNNI extension: eight weight rows per vector, a group of sixteen in two halves.

use super::simd::Simd;
use std::arch::x86_64::*;

/// 256-bit vectors. `VNNI` says whether the CPU has the dot product instructions of AVX-VNNI.
#[derive(Clone, Copy)]
pub(super) struct Avx2<const VNNI: bool>;

// SAFETY (of every block below): the trait's contract, that the CPU has AVX2, FMA and F16C (and AVX-VNNI, if so claimed) and that
// pointers reach far enough.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const VNNI: bool> Simd for Avx2<VNNI> {
    const LANES: usize = 8;
    const SIGNED: bool = !VNNI;
    const STEP: usize = 4;

    type W = __m256i;
    type I = __m256i;
    type F = __m256;

    #[inline(always)]
    unsafe fn load(p: *const u8) -> __m256i {
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    #[inline(always)]
    unsafe fn low_nibbles(w: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(w, _mm256_set1_epi8(15)) }
    }

    #[inline(always)]
    unsafe fn high_nibbles(w: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(_mm256_srli_epi16::<4>(w), _mm256_set1_epi8(15)) }
    }

    #[inline(always)]
    unsafe fn with_high_bits(low: __m256i, high: __m256i, s: usize) -> __m256i {
        unsafe {
            let placed = match s {
                0 => _mm256_slli_epi16::<4>(high),
                1 => _mm256_slli_epi16::<2>(high),
                2 => high,
                _ => _mm256_srli_epi16::<2>(high),
            };
            _mm256_or_si256(low, _mm256_and_si256(placed, _mm256_set1_epi8(0x30)))
        }
    }

    #[inline(always)]
    unsafe fn dot<const LARGEST: u8>(sum: __m256i, w: &[__m256i; 8], from: usize, to: usize, a: *const i8) -> __m256i {
        unsafe {
            let activations = |i: usize| _mm256_set1_epi32(a.cast::<i32>().add(i).read_unaligned());
            let ones = _mm256_set1_epi16(1);
            // Products of pairs are summed in sixteen bits, as many steps as cannot overflow, and then widened.
            let steps = if LARGEST > 63 { 1 } else { 32_767 / (2 * 127 * LARGEST as usize) };
            let mut sum = sum;
            let mut i = from;
            while i < to {
                if VNNI {
                    sum = _mm256_dpbusd_avx_epi32(sum, w[i], activations(i));
                    i += 1;
                    continue;
                }
                let mut pairs = _mm256_setzero_si256();
                let mut step = 0;
                while step < steps && i < to {
                    // Bytes up to 255 would overflow even one step: they are made signed again, and their signs moved to the activations.
                    let (w, a) = if LARGEST > 63 {
                        let signed = _mm256_xor_si256(w[i], _mm256_set1_epi8(-128));
                        (_mm256_abs_epi8(signed), _mm256_sign_epi8(activations(i), signed))
                    } else {
                        (w[i], activations(i))
                    };
                    let products = _mm256_maddubs_epi16(w, a);
                    pairs = if step == 0 { products } else { _mm256_add_epi16(pairs, products) };
                    (i, step) = (i + 1, step + 1);
                }
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
            }
            sum
        }
    }

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn zero_i32() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn rows_i32(p: *const i32) -> __m256i {
        unsafe { _mm256_set1_epi32(*p) }
    }

    #[inline(always)]
    unsafe fn rows_f32(p: *const f32) -> __m256 {
        unsafe { _mm256_set1_ps(*p) }
    }

    #[inline(always)]
    unsafe fn lanes_f16(p: *const u16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn lanes_u8(p: *const u8) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()))) }
    }

    #[inline(always)]
    unsafe fn lanes_i8(p: *const i8) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) }
    }

    #[inline(always)]
    unsafe fn lanes_u8_pairs(p: *const u8) -> __m256i {
        unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    unsafe fn dot_pairs(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)) }
    }

    #[inline(always)]
    unsafe fn to_f32(i: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(i) }
    }

    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn store(f: __m256, out: *mut f32) {
        unsafe { _mm256_storeu_ps(out, f) }
    }

    #[inline(always)]
    unsafe fn largest(x: *const f32, n: usize) -> f32 {
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            let mut largest = _mm256_setzero_ps();
            for i in (0..n).step_by(8) {
                // Of two operands, one of which is not a number, the instruction returns the second.
                largest = _mm256_max_ps(_mm256_andnot_ps(sign, _mm256_loadu_ps(x.add(i))), largest);
            }
            let four = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps::<1>(largest));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn quantise(x: *const f32, factor: f32) -> ([i8; 16], i32) {
        unsafe {
            let factor = _mm256_set1_ps(factor);
            let eight = |i| {
                let scaled = _mm256_mul_ps(_mm256_loadu_ps(x.add(i)), factor);
                // What is not a number would become i32::MIN; here it becomes zero.
                let numbers = _mm256_and_ps(scaled, _mm256_cmp_ps::<_CMP_ORD_Q>(scaled, scaled));
                _mm256_cvtps_epi32(numbers)
            };
            // Packing works within halves: the last step puts their quarters in order.
            let words = _mm256_permute4x64_epi64::<0xd8>(_mm256_packs_epi32(eight(0), eight(8)));
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
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
