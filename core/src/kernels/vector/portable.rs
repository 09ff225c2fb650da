//! Plain Rust.

use super::super::gemm::f16_to_f32;
use super::Vector;

/// An array that the compiler may vectorise.
pub(in super::super) type Portable = [f32; 16];

// SAFETY (of every block below): the trait's contract, that pointers reach far enough.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Vector for Portable {
    const WIDTH: usize = 1;

    #[inline(always)]
    unsafe fn splat(f: f32) -> Self {
        [f; 16]
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        unsafe { p.cast::<Self>().read() }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe { p.cast::<Self>().write(self) }
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        // Cells of a quantised cache begin at any even address.
        unsafe { p.cast::<[u16; 16]>().read_unaligned() }.map(f16_to_f32)
    }

    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        unsafe { p.cast::<[i8; 16]>().read() }.map(f32::from)
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] * other[i])
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] / other[i])
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        std::array::from_fn(|i| self[i].mul_add(factor[i], summand[i]))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] < other[i] { self[i] } else { other[i] })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        self.map(f32::round_ties_even)
    }

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // whole numbers of at most three digits
    unsafe fn times_power_of_two(self, exponent: Self) -> Self {
        std::array::from_fn(|i| f32::from_bits(self[i].to_bits().wrapping_add_signed((exponent[i] as i32) << 23)))
    }

    #[inline(always)]
    unsafe fn zero_where_below(self, reference: Self, bound: f32) -> Self {
        std::array::from_fn(|i| if reference[i] < bound { 0.0 } else { self[i] })
    }

    #[inline(always)]
    unsafe fn hide_outside(self, start: usize, end: usize) -> Self {
        std::array::from_fn(|i| if (start..end).contains(&i) { self[i] } else { f32::NEG_INFINITY })
    }

    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        self.into_iter().fold(f32::NEG_INFINITY, |largest, f| if f > largest { f } else { largest })
    }

    #[inline(always)]
    unsafe fn transpose(rows: [Self; 16]) -> [Self; 16] {
        std::array::from_fn(|i| std::array::from_fn(|j| rows[j][i]))
    }
}
