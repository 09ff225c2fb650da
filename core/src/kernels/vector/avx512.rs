//! AVX-512: one register per vector.

use super::Vector;
use std::arch::x86_64::*;

/// A 512-bit register.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512(__m512);

// SAFETY (of every block below): the trait's contract, that the CPU has AVX-512 F, BW, VL and DQ and that pointers reach far enough.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for Avx512 {
    const WIDTH: usize = 4;

    #[inline(always)]
    unsafe fn splat(f: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(f) })
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Self(unsafe { _mm512_loadu_ps(p) })
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { _mm512_storeu_ps(p, self.0) }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) })
    }

    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) })
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, summand.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(unsafe { _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(self.0) })
    }

    #[inline(always)]
    unsafe fn times_power_of_two(self, exponent: Self) -> Self {
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_cvtps_epi32(exponent.0));
            Self(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self.0), exponent)))
        }
    }

    #[inline(always)]
    unsafe fn zero_where_below(self, reference: Self, bound: f32) -> Self {
        unsafe {
            let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(reference.0, _mm512_set1_ps(bound));
            Self(_mm512_maskz_mov_ps(!below, self.0))
        }
    }

    #[inline(always)]
    unsafe fn hide_outside(self, start: usize, end: usize) -> Self {
        let keep = (1_u32 << end) - (1_u32 << start);
        #[allow(clippy::cast_possible_truncation)] // sixteen lanes, sixteen bits
        Self(unsafe { _mm512_mask_mov_ps(_mm512_set1_ps(f32::NEG_INFINITY), keep as u16, self.0) })
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        unsafe { _mm512_reduce_max_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn transpose(rows: [Self; 16]) -> [Self; 16] {
        unsafe {
            let mut a = rows;
            // Elements within pairs, pairs within quarters, then quarters within halves, and halves.
            for i in (0..16).step_by(2) {
                let (x, y) = (rows[i].0, rows[i + 1].0);
                a[i] = Self(_mm512_unpacklo_ps(x, y));
                a[i + 1] = Self(_mm512_unpackhi_ps(x, y));
            }
            let mut b = a;
            for i in (0..16).step_by(4) {
                for j in 0..2 {
                    let (x, y) = (_mm512_castps_pd(a[i + j].0), _mm512_castps_pd(a[i + j + 2].0));
                    b[i + 2 * j] = Self(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)));
                    b[i + 2 * j + 1] = Self(_mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
                }
            }
            for j in 0..4 {
                let low = _mm512_shuffle_f32x4::<0x88>(b[j].0, b[j + 4].0);
                let high = _mm512_shuffle_f32x4::<0xdd>(b[j].0, b[j + 4].0);
                let low2 = _mm512_shuffle_f32x4::<0x88>(b[j + 8].0, b[j + 12].0);
                let high2 = _mm512_shuffle_f32x4::<0xdd>(b[j + 8].0, b[j + 12].0);
                a[j] = Self(_mm512_shuffle_f32x4::<0x88>(low, low2));
                a[j + 8] = Self(_mm512_shuffle_f32x4::<0xdd>(low, low2));
                a[j + 4] = Self(_mm512_shuffle_f32x4::<0x88>(high, high2));
                a[j + 12] = Self(_mm512_shuffle_f32x4::<0xdd>(high, high2));
            }
            a
        }
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}
