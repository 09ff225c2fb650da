//! The vocabulary that the product kernels are written in: what an instruction set has to offer.
//!
//! A vector spans `LANES` weight rows; a dot product multiplies `STEP` weights of each with `STEP` activations of one row (or of
//! `ROW_UNIT` rows, where the instruction multiplies matrices). Nothing here knows formats, blocks or tiles.

/// Operations of one instruction set.
///
/// # Safety
///
/// Every method may only be called where the CPU has the instruction set, with pointers to as many elements as it says. All are
/// `#[inline(always)]`, to become part of a function that enables the instruction set.
pub(super) trait Simd: Copy {
    /// Weight rows per vector.
    const LANES: usize;
    /// Weights per lane and dot product.
    const STEP: usize;
    /// Activation rows per dot product.
    const ROW_UNIT: usize = 1;
    /// Whether dot products take byte weights by their signed value; otherwise 128 more.
    const SIGNED: bool = false;

    /// `LANES × STEP` weights, a byte each.
    type W: Copy;
    /// An i32 per weight row (and row of the unit).
    type I: Copy;
    /// An f32 per weight row (and row of the unit).
    type F: Copy;

    /// Loads `LANES × STEP` bytes.
    unsafe fn load(p: *const u8) -> Self::W;
    /// The low nibbles.
    unsafe fn low_nibbles(w: Self::W) -> Self::W;
    /// The high nibbles.
    unsafe fn high_nibbles(w: Self::W) -> Self::W;
    /// Puts bits `2s` and `2s + 1` of the bytes of `high` above the nibbles in `low`.
    unsafe fn with_high_bits(low: Self::W, high: Self::W, s: usize) -> Self::W;
    /// Adds to `sum` the products of `w[from..to]` with activations `from·STEP .. to·STEP` of the run at `a`.
    ///
    /// Weights are at most `LARGEST`; some instruction sets multiply small ones faster.
    unsafe fn dot<const LARGEST: u8>(sum: Self::I, w: &[Self::W; 8], from: usize, to: usize, a: *const i8) -> Self::I;

    /// Zeros.
    unsafe fn zero() -> Self::F;
    /// Integer zeros.
    unsafe fn zero_i32() -> Self::I;
    /// The integer of each activation row of the unit, for all weight rows.
    unsafe fn rows_i32(p: *const i32) -> Self::I;
    /// The float of each activation row of the unit, for all weight rows.
    unsafe fn rows_f32(p: *const f32) -> Self::F;
    /// The half of each weight row, for all activation rows.
    unsafe fn lanes_f16(p: *const u16) -> Self::F;
    /// The float of each weight row's unsigned byte, for all activation rows.
    unsafe fn lanes_u8(p: *const u8) -> Self::F;
    /// The float of each weight row's signed byte, for all activation rows.
    unsafe fn lanes_i8(p: *const i8) -> Self::F;
    /// Each weight row's two unsigned bytes as two 16-bit integers, for all activation rows.
    unsafe fn lanes_u8_pairs(p: *const u8) -> Self::I;
    /// Adds to `sum` the products of 16-bit integers, two of each lane.
    unsafe fn dot_pairs(sum: Self::I, a: Self::I, b: Self::I) -> Self::I;
    /// The nearest floats.
    unsafe fn to_f32(i: Self::I) -> Self::F;
    /// `a · b`.
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once.
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Stores `LANES` floats for each activation row of the unit, rows 16 floats apart.
    unsafe fn store(f: Self::F, out: *mut f32);

    /// The largest magnitude of `n` floats, a multiple of 16; what is not a number does not count.
    unsafe fn largest(x: *const f32, n: usize) -> f32;
    /// The integers nearest to sixteen floats times `factor`, ties to even, and their sum. Products are at most 127 or not numbers,
    /// which give zero.
    unsafe fn quantise(x: *const f32, factor: f32) -> ([i8; 16], i32);
    /// The nearest value that a half holds.
    unsafe fn round_to_f16(f: f32) -> f32;

    /// Asks for the cache line at `p`, which need not exist.
    #[inline(always)]
    unsafe fn prefetch(_p: *const u8) {}
}
