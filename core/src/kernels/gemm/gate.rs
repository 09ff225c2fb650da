//! Gated activations, `f(gate) · up`, in the epilogue of the two products that they join.

#[cfg(target_arch = "x86_64")]
use super::super::vector::{Avx2, Avx512};
use super::super::vector::{Portable, Vector, exp, tanh};
use super::isa::{Isa, Kind};
use super::tile::Results;

/// The function of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Gate {
    /// `x / (1 + e^−x)`.
    Silu,
    /// `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`.
    Gelu,
}

/// Replaces the first `rows` rows of `up` by `gate(g) · up`.
pub(super) fn apply(isa: Isa, gate: Gate, g: &Results, up: &mut Results, rows: usize) {
    match isa.kind() {
        // SAFETY: plain Rust runs everywhere.
        Kind::Portable => unsafe { apply_rows::<Portable>(gate, g, up, rows) },
        // SAFETY: the `Isa` exists on this CPU.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 | Kind::Avx2Vnni => unsafe { apply_avx2(gate, g, up, rows) },
        // SAFETY: the `Isa` exists on this CPU.
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => unsafe { apply_avx512(gate, g, up, rows) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn apply_avx2(gate: Gate, g: &Results, up: &mut Results, rows: usize) {
    // SAFETY: the instruction set is enabled here.
    unsafe { apply_rows::<Avx2>(gate, g, up, rows) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn apply_avx512(gate: Gate, g: &Results, up: &mut Results, rows: usize) {
    // SAFETY: the instruction set is enabled here.
    unsafe { apply_rows::<Avx512>(gate, g, up, rows) }
}

/// [`apply`] with an instruction set.
///
/// # Safety
///
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn apply_rows<V: Vector>(gate: Gate, g: &Results, up: &mut Results, rows: usize) {
    for (g, up) in g.0.iter().zip(&mut up.0).take(rows) {
        // SAFETY: the caller's promise; rows are sixteen floats long.
        unsafe {
            let x = V::load(g.as_ptr());
            let factor = match gate {
                Gate::Silu => silu(x),
                Gate::Gelu => gelu(x),
            };
            factor.mul(V::load(up.as_ptr())).store(up.as_mut_ptr());
        }
    }
}

/// # Safety
///
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn silu<V: Vector>(x: V) -> V {
    // SAFETY: the caller's promise. Beyond 87 the exponential leaves f32's range, and the result is zero anyway.
    unsafe { x.div(exp(V::splat(87.0).min(x.mul(V::splat(-1.0)))).add(V::splat(1.0))) }
}

/// # Safety
///
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn gelu<V: Vector>(x: V) -> V {
    // SAFETY: the caller's promise.
    unsafe {
        let cubic = x.mul(x).mul_add(V::splat(0.044_715), V::splat(1.0)).mul(x);
        let inner = cubic.mul(V::splat(0.797_884_6));
        x.mul(V::splat(0.5)).mul(tanh(inner).add(V::splat(1.0)))
    }
}
