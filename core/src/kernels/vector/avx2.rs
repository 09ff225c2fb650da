//! AVX2: two registers per vector.

use super::Vector;
use std::arch::x86_64::*;

/// Two 256-bit registers, lanes 0 … 7 and 8 … 15.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx2(__m256, __m256);

impl Avx2 {
    /// Both registers through an operation.
    #[inline(always)]
    fn map(self, f: impl Fn(__m256) -> __m256) -> Self {
        Self(f(self.0), f(self.1))
    }

    /// Both pairs of registers through an operation.
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(__m256, __m256) -> __m256) -> Self {
        Self(f(self.0, other.0), f(self.1, other.1))
    }
}

// SAFETY (of every block below): the trait's contract, that the CPU has AVX2, FMA and F16C and that pointers reach far enough.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for Avx2 {
    const WIDTH: usize = 1;

    #[inline(always)]
    unsafe fn splat(f: f32) -> Self {
        let f = unsafe { _mm256_set1_ps(f) };
        Self(f, f)
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        unsafe { Self(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe {
            _mm256_storeu_ps(p, self.0);
            _mm256_storeu_ps(p.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        let eight = |p: *const u16| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) };
        Self(eight(p), eight(p.wrapping_add(8)))
    }

    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        let eight = |p: *const i8| unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) };
        Self(eight(p), eight(p.wrapping_add(8)))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_add_ps(a, b) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_mul_ps(a, b) })
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_div_ps(a, b) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, summand.0), _mm256_fmadd_ps(self.1, factor.1, summand.1)) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_max_ps(a, b) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_min_ps(a, b) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        self.map(|a| unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) })
    }

    #[inline(always)]
    unsafe fn times_power_of_two(self, exponent: Self) -> Self {
        self.zip(exponent, |a, exponent| unsafe {
            let exponent = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(exponent));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), exponent))
        })
    }

    #[inline(always)]
    unsafe fn zero_where_below(self, reference: Self, bound: f32) -> Self {
        self.zip(reference, |a, reference| unsafe {
            _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(reference, _mm256_set1_ps(bound)), a)
        })
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // at most sixteen
    unsafe fn hide_outside(self, start: usize, end: usize) -> Self {
        let eight = |a: __m256, first: i32| unsafe {
            let lanes = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(first));
            let before = _mm256_cmpgt_epi32(_mm256_set1_epi32(start as i32), lanes);
            let within = _mm256_cmpgt_epi32(_mm256_set1_epi32(end as i32), lanes);
            let keep = _mm256_castsi256_ps(_mm256_andnot_si256(before, within));
            _mm256_blendv_ps(_mm256_set1_ps(f32::NEG_INFINITY), a, keep)
        };
        Self(eight(self.0, 0), eight(self.1, 8))
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        unsafe {
            let eight = _mm256_max_ps(self.0, self.1);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn transpose(rows: [Self; 16]) -> [Self; 16] {
        let mut columns = rows;
        for half in [0, 8] {
            let quadrant = |low: bool| {
                transpose_eight(std::array::from_fn(|i| if low { rows[half + i].0 } else { rows[half + i].1 }))
            };
            let (low, high) = (quadrant(true), quadrant(false));
            for i in 0..8 {
                if half == 0 {
                    (columns[i].0, columns[i + 8].0) = (low[i], high[i]);
                } else {
                    (columns[i].1, columns[i + 8].1) = (low[i], high[i]);
                }
            }
        }
        columns
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}

/// Eight rows of eight floats become columns.
#[inline(always)]
fn transpose_eight(rows: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: only called where the CPU has AVX2; the intrinsics touch registers only.
    unsafe {
        let (mut a, mut b) = (rows, rows);
        for i in (0..8).step_by(2) {
            a[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
            a[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
        }
        for i in [0, 4] {
            for j in 0..2 {
                let (x, y) = (_mm256_castps_pd(a[i + j]), _mm256_castps_pd(a[i + j + 2]));
                b[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(x, y));
                b[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(x, y));
            }
        }
        for j in 0..4 {
            a[j] = _mm256_permute2f128_ps::<0x20>(b[j], b[j + 4]);
            a[j + 4] = _mm256_permute2f128_ps::<0x31>(b[j], b[j + 4]);
        }
        a
    }
}
