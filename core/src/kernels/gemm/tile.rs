//! One group of weight rows times one tile of activation rows: the loop in which all the time is spent.
//!
//! Each format writes its loop once, for every instruction set ([`Simd`]) and any number of rows ([`Format`]); here it is compiled for
//! each of them, and looked up at run time. Each block of weights is loaded and unpacked once and meets all rows of the tile.

use super::activations::TILE_ROWS;
use super::format::WeightFormat;
use super::isa::{Isa, Kind};
use super::simd::Simd;

/// A tile of results: up to [`TILE_ROWS`] activation rows of up to 16 weight rows.
#[repr(align(64))]
pub(super) struct Results(pub(super) [[f32; 16]; TILE_ROWS]);

/// What a kernel multiplies.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    /// Scales of a group of packed weights.
    pub(super) scales: *const u8,
    /// Quants of the group.
    pub(super) quants: *const u8,
    /// Weight rows of the group.
    pub(super) group: usize,
    /// Blocks of the weights' format along `k`.
    pub(super) blocks: usize,
    /// The tile of quantised activations.
    pub(super) activations: *const u8,
    /// Rows that the tile has memory for.
    pub(super) stride: usize,
    /// First unit of rows to multiply.
    pub(super) first_unit: usize,
    /// Where the results go.
    pub(super) out: *mut [f32; 16],
}

/// Multiplies a fixed number of units of activation rows.
pub(super) type Kernel = unsafe fn(&Operands);

/// The kernels of one instruction set and format, by units of rows, the first for one unit.
pub(super) type Kernels = &'static [Kernel];

/// The kernels for an instruction set and a format.
pub(super) fn kernels(isa: Isa, format: WeightFormat) -> Kernels {
    match isa.kind() {
        Kind::Portable => portable::kernels(format),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => avx2::kernels(format),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2Vnni => avx2_vnni::kernels(format),
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => avx512::kernels(format),
        #[cfg(target_arch = "aarch64")]
        Kind::Dot => dotprod::kernels(format),
        #[cfg(target_arch = "aarch64")]
        Kind::I8mm => i8mm::kernels(format),
    }
}

/// A module with a function that enables the instruction set around the generic kernel, and a table of it by units of rows.
macro_rules! instruction_set {
    ($name:ident, $simd:ty, [$($units:literal),+] $(, $features:literal)?) => {
        mod $name {
            use super::super::blocks::{Q4_0, Q8_0};
            use super::super::superblocks::{Q4K, Q6K};
            use super::{Format, Kernel, Kernels, Operands, WeightFormat};

            $(#[target_feature(enable = $features)])?
            unsafe fn kernel<F: Format, const U: usize>(operands: &Operands) {
                // SAFETY: the caller's promise; the instruction set is enabled here.
                unsafe { F::multiply::<$simd, U>(operands) }
            }

            const fn table<F: Format>() -> Kernels {
                const { &[$(kernel::<F, $units> as Kernel),+] }
            }

            pub(super) fn kernels(format: WeightFormat) -> Kernels {
                match format {
                    WeightFormat::Q8_0 => table::<Q8_0>(),
                    WeightFormat::Q4_0 => table::<Q4_0>(),
                    WeightFormat::Q4_K => table::<Q4K>(),
                    WeightFormat::Q6_K => table::<Q6K>(),
                }
            }
        }
    };
}

instruction_set!(portable, super::super::portable::Portable, [1, 2, 3, 4]);
#[cfg(target_arch = "x86_64")]
instruction_set!(avx2, super::super::avx2::Avx2<false>, [1, 2, 3, 4], "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
instruction_set!(avx2_vnni, super::super::avx2::Avx2<true>, [1, 2, 3, 4], "avx2,avxvnni,fma,f16c");
#[cfg(target_arch = "x86_64")]
instruction_set!(
    avx512,
    super::super::avx512::Avx512,
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
    "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c"
);

#[cfg(target_arch = "aarch64")]
instruction_set!(dotprod, super::super::neon::Dot, [1, 2, 3, 4, 5], "neon,dotprod");
#[cfg(target_arch = "aarch64")]
instruction_set!(i8mm, super::super::neon_i8mm::I8mm, [1, 2, 3, 4, 5], "neon,dotprod,i8mm");

/// Repeats a block for each unit below `U`, unrolled in the source: compilers give up on loops of this size, and sums that are
/// indexed by a variable live in memory.
macro_rules! unroll {
    ($unit:ident in $units:ident => $body:block) => {
        unroll!($unit $units $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    ($unit:ident $units:ident $body:block $($index:literal)+) => {
        $(
            #[allow(clippy::absurd_extreme_comparisons, unused_comparisons)]
            if $index < $units {
                let $unit: usize = $index;
                $body
            }
        )+
    };
}

pub(super) use unroll;

/// A weight format's inner loop.
pub(super) trait Format {
    /// Multiplies `U` units of activation rows with a group of weights.
    ///
    /// # Safety
    ///
    /// The CPU has the instruction set; the operands describe memory that is there: a packed group of this format, activations of the
    /// format's kind with at least `first_unit + U` units, and results for as many rows.
    unsafe fn multiply<S: Simd, const U: usize>(operands: &Operands);
}

/// How far ahead of the multiplication weights are asked for, in bytes: about the latency of memory at full bandwidth.
const PREFETCH: usize = 8192;

/// Asks for the block of quants that is [`PREFETCH`] bytes ahead.
///
/// # Safety
///
/// The CPU has the instruction set.
#[inline(always)]
pub(super) unsafe fn prefetch_block<S: Simd>(quants: *const u8, block_bytes: usize) {
    for line in (0..block_bytes).step_by(64) {
        // SAFETY: prefetching takes any address.
        unsafe { S::prefetch(quants.wrapping_add(PREFETCH + line)) }
    }
}
