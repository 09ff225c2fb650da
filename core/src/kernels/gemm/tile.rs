//! One group of weight rows times one tile of activation rows: the loop in which all the time is spent.
//!
//! Written once for every instruction set ([`Simd`]) and compiled for every number of rows. Each block of weights is loaded and
//! unpacked once and meets all rows of the tile; per row and block there are one integer start, the integer dot products, and
//! `accumulator += (sum · weight scale) · activation scale`.

use super::activations::{TILE_ROWS, q8};
use super::format::WeightFormat;
use super::isa::{Isa, Kind};
use super::portable::Portable;
use super::simd::Simd;

/// A tile of results: up to [`TILE_ROWS`] activation rows of up to 16 weight rows.
#[repr(align(64))]
pub(super) struct Results(pub(super) [[f32; 16]; TILE_ROWS]);

/// What a kernel multiplies.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    /// A group of packed weights.
    pub(super) weights: *const u8,
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
    match (isa.kind(), format) {
        (Kind::Portable, WeightFormat::Q8_0) => portable::Table::<Q8_0>::KERNELS,
        (Kind::Portable, WeightFormat::Q4_0) => portable::Table::<Q4_0>::KERNELS,
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, WeightFormat::Q8_0) => avx512::Table::<Q8_0>::KERNELS,
        #[cfg(target_arch = "x86_64")]
        (Kind::Avx512, WeightFormat::Q4_0) => avx512::Table::<Q4_0>::KERNELS,
    }
}

/// A module with a function that enables the instruction set around the generic kernel, and a table of it by units of rows.
macro_rules! instruction_set {
    ($name:ident, $simd:ty, [$($units:literal),+] $(, $features:literal)?) => {
        mod $name {
            use super::{Format, Kernel, Kernels, Operands};

            $(#[target_feature(enable = $features)])?
            unsafe fn kernel<F: Format, const U: usize>(operands: &Operands) {
                // SAFETY: the caller's promise; the instruction set is enabled here.
                unsafe { F::multiply::<$simd, U>(operands) }
            }

            pub(super) struct Table<F>(std::marker::PhantomData<F>);

            impl<F: Format> Table<F> {
                pub(super) const KERNELS: Kernels = const { &[$(kernel::<F, $units> as Kernel),+] };
            }
        }
    };
}

instruction_set!(portable, super::Portable, [1, 2, 3, 4]);
#[cfg(target_arch = "x86_64")]
instruction_set!(
    avx512,
    super::super::avx512::Avx512,
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
    "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c"
);

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

/// Blocks of 32 signed bytes.
pub(super) struct Q8_0;
/// Blocks of 32 nibbles with zero point 8.
pub(super) struct Q4_0;

impl Format for Q8_0 {
    #[inline(always)]
    unsafe fn multiply<S: Simd, const U: usize>(operands: &Operands) {
        // SAFETY: the caller's promise.
        unsafe { multiply_blocks::<S, Self, U>(operands) }
    }
}

impl Format for Q4_0 {
    #[inline(always)]
    unsafe fn multiply<S: Simd, const U: usize>(operands: &Operands) {
        // SAFETY: the caller's promise.
        unsafe { multiply_blocks::<S, Self, U>(operands) }
    }
}

/// A format of 32 weights per block with a half scale.
trait Blocks {
    /// Bytes of a block's quants per weight row.
    const QUANT_BYTES: usize;
    /// Whether every weight is below 64 as the dot product sees it.
    const SMALL: bool;
    /// Where the starts of the integer sums stand in a block of activations; `None` if sums start at zero.
    fn starts<S: Simd>() -> Option<usize>;
    /// One vector of 32 weights per row, as steps. `quants` is the vector's place in the block's first slab, `slab` bytes long.
    unsafe fn weights<S: Simd>(quants: *const u8, slab: usize) -> [S::W; 8];
}

impl Blocks for Q8_0 {
    const QUANT_BYTES: usize = 32;
    const SMALL: bool = false;

    #[inline(always)]
    fn starts<S: Simd>() -> Option<usize> {
        (!S::SIGNED).then_some(q8::STARTS_128)
    }

    #[inline(always)]
    unsafe fn weights<S: Simd>(quants: *const u8, slab: usize) -> [S::W; 8] {
        // SAFETY: the caller's promise; a block has 32 / STEP slabs.
        unsafe {
            let mut w = [S::load(quants); 8];
            let mut i = 1;
            while i < 32 / S::STEP {
                w[i] = S::load(quants.add(i * slab));
                i += 1;
            }
            w
        }
    }
}

impl Blocks for Q4_0 {
    const QUANT_BYTES: usize = 16;
    const SMALL: bool = true;

    #[inline(always)]
    fn starts<S: Simd>() -> Option<usize> {
        Some(q8::STARTS_8)
    }

    #[inline(always)]
    unsafe fn weights<S: Simd>(quants: *const u8, slab: usize) -> [S::W; 8] {
        // SAFETY: the caller's promise; a block has 16 / STEP slabs of two nibbles.
        unsafe {
            let mut w = [S::load(quants); 8];
            let mut i = 0;
            while i < 16 / S::STEP {
                let both = S::load(quants.add(i * slab));
                w[2 * i] = S::low_nibbles(both);
                w[2 * i + 1] = S::high_nibbles(both);
                i += 1;
            }
            w
        }
    }
}

/// How far ahead of the multiplication weights are asked for, in bytes: about the latency of memory at full bandwidth.
const PREFETCH: usize = 3072;

/// The inner loop of formats with 32 weights per block.
///
/// # Safety
///
/// As [`Format::multiply`].
#[inline(always)]
unsafe fn multiply_blocks<S: Simd, F: Blocks, const U: usize>(o: &Operands) {
    let slab = o.group * S::STEP;
    let block_bytes = o.group * F::QUANT_BYTES;
    let first_row = o.first_unit * S::ROW_UNIT;
    for lane in (0..o.group).step_by(S::LANES) {
        // SAFETY: `lane` is below the group, block below `blocks` and unit below `U`: all addresses lie in the operands.
        unsafe {
            let mut sums = [S::zero(); U];
            let mut quants = o.weights.add(lane * S::STEP);
            let mut scales = o.weights.add(o.blocks * block_bytes).cast::<u16>().add(lane);
            let mut x = o.activations;
            for _ in 0..o.blocks {
                if lane == 0 {
                    prefetch_block::<S>(quants, block_bytes);
                }
                let w = F::weights::<S>(quants, slab);
                let weight_scale = S::lanes_f16(scales);
                unroll!(unit in U => {
                    let row = first_row + unit * S::ROW_UNIT;
                    let start = match F::starts::<S>() {
                        Some(starts) => S::rows_i32(x.add(o.stride * starts + row * 4).cast()),
                        None => S::zero_i32(),
                    };
                    let dot = if F::SMALL {
                        S::dot::<true>(start, &w, 0, 32 / S::STEP, x.add(row * 32).cast())
                    } else {
                        S::dot::<false>(start, &w, 0, 32 / S::STEP, x.add(row * 32).cast())
                    };
                    let scale = S::rows_f32(x.add(o.stride * q8::SCALES + row * 4).cast());
                    sums[unit] = S::mul_add(S::mul(S::to_f32(dot), weight_scale), scale, sums[unit]);
                });
                quants = quants.add(block_bytes);
                scales = scales.add(o.group);
                x = x.add(o.stride * q8::BYTES);
            }
            unroll!(unit in U => {
                S::store(sums[unit], o.out.add(first_row + unit * S::ROW_UNIT).cast::<f32>().add(lane));
            });
        }
    }
}

/// Asks for the block of quants that is [`PREFETCH`] bytes ahead.
///
/// # Safety
///
/// The CPU has the instruction set.
#[inline(always)]
unsafe fn prefetch_block<S: Simd>(quants: *const u8, block_bytes: usize) {
    for line in (0..block_bytes).step_by(64) {
        // SAFETY: prefetching takes any address.
        unsafe { S::prefetch(quants.wrapping_add(PREFETCH + line)) }
    }
}
