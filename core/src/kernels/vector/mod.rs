//! Sixteen floats and what attention and activation functions do with them, on any instruction set.
//!
//! Sixteen wherever the hardware has fewer, too: so every sum has the same order everywhere. Elementary functions are built here
//! from operations that IEEE 754 defines to the bit.

mod portable;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::Avx512;
pub(super) use portable::Portable;

/// Operations on sixteen floats.
///
/// # Safety
///
/// Every method may only be called where the CPU has the instruction set, with pointers to as many elements as it says. All are
/// `#[inline(always)]`, to become part of a function that enables the instruction set.
pub(super) trait Vector: Copy {
    /// Vectors of scores that are summed at the same time for each of up to four queries; registers are the limit.
    const WIDTH: usize;

    /// The same float in all lanes.
    unsafe fn splat(f: f32) -> Self;
    /// Loads sixteen floats.
    unsafe fn load(p: *const f32) -> Self;
    /// Stores sixteen floats.
    unsafe fn store(self, p: *mut f32);
    /// Loads sixteen halves.
    unsafe fn load_f16(p: *const u16) -> Self;
    /// Loads sixteen signed bytes.
    unsafe fn load_i8(p: *const i8) -> Self;
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self · other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// `self / other`.
    unsafe fn div(self, other: Self) -> Self;
    /// `self · factor + summand`, rounded once.
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self;
    /// The larger of each pair.
    unsafe fn max(self, other: Self) -> Self;
    /// The smaller of each pair.
    unsafe fn min(self, other: Self) -> Self;
    /// The nearest integers, ties to even.
    unsafe fn round(self) -> Self;
    /// `self · 2^exponent` for whole exponents that leave it a normal number.
    unsafe fn times_power_of_two(self, exponent: Self) -> Self;
    /// Zero in lanes where `reference < bound`.
    unsafe fn zero_where_below(self, reference: Self, bound: f32) -> Self;
    /// Minus infinity in lanes outside `start .. end`.
    unsafe fn hide_outside(self, start: usize, end: usize) -> Self;
    /// The largest lane.
    unsafe fn largest(self) -> f32;
    /// Sixteen rows of sixteen floats become columns.
    unsafe fn transpose(rows: [Self; 16]) -> [Self; 16];
    /// Asks for the cache line at `p`, which need not exist.
    #[inline(always)]
    unsafe fn prefetch(_p: *const u8) {}
}

/// e to the power of each lane, which is at most 88; 0 below −86. Within 2 units in the last place.
///
/// # Safety
///
/// The CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn exp<V: Vector>(x: V) -> V {
    // 2^t = 2^whole · 2^fraction with |fraction| ≤ 1/2, the latter by Taylor's series in fraction · ln 2.
    const COEFFICIENTS: [f32; 6] =
        [1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 2.402_265e-1, std::f32::consts::LN_2, 1.0];
    // SAFETY: the caller's promise.
    unsafe {
        let log2_e = V::splat(std::f32::consts::LOG2_E);
        // In this order what is not a number stays that.
        let bounded = V::splat(-87.0).max(x);
        let whole = bounded.mul(log2_e).round();
        let fraction = bounded.mul_add(log2_e, whole.mul(V::splat(-1.0)));
        let mut power = V::splat(1.540_353e-4);
        let mut i = 0;
        while i < COEFFICIENTS.len() {
            power = power.mul_add(fraction, V::splat(COEFFICIENTS[i]));
            i += 1;
        }
        power.times_power_of_two(whole).zero_where_below(x, -86.0)
    }
}

/// The hyperbolic tangent of each lane, within 2e-7.
///
/// # Safety
///
/// The CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn tanh<V: Vector>(x: V) -> V {
    // 1 − 2 / (e^2x + 1); beyond ±10 the result is ±1 in f32.
    // SAFETY: the caller's promise.
    unsafe {
        let bounded = V::splat(-10.0).max(V::splat(10.0).min(x));
        let power = exp(bounded.add(bounded));
        V::splat(-2.0).div(power.add(V::splat(1.0))).add(V::splat(1.0))
    }
}
