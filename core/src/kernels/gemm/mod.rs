//! Matrix products for few activation rows: `y[rows, n] = x[rows, k] · Wᵀ` with quantised weights, many rows at the price of one.
//!
//! Verifying a draft multiplies 2 … 64 rows with every weight of the model. The weights come from memory once in either case, so
//! the extra rows cost arithmetic only, if each weight that was loaded meets all rows before the next is loaded. Weights are
//! therefore kept interleaved ([`PackedMatrix`]), activations quantised once per input ([`quantise`]) and laid out so that the
//! rows of a tile are read in one stream ([`ActivationShape`]), and the product of one group of weight rows with one tile of
//! activation rows is one loop without calls ([`tile`]), monomorphised per instruction set, format and row count.
//!
//! **Batch invariance.** Every element of `y` is one chain of f32 operations over the blocks of `k` in ascending order; what is
//! summed inside a block is integer and exact. The chain is the same for every row count, tile, thread and instruction set, so a
//! row's bits depend on nothing but that row and the weights — also across CPUs.
//!
//! Deliberately not known here: ggml, tensors, graphs, threads (they call in), and which weights should be packed at all.

mod activations;
mod blocks;
mod chunks;
mod format;
mod gate;
mod half;
mod isa;
mod packed;
mod product;
mod simd;
mod superblocks;
mod tile;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_i8mm;
mod portable;

#[cfg(all(test, feature = "ggml"))]
mod against_ggml;
#[cfg(test)]
mod tests;

pub(crate) use activations::{ActivationShape, quantise};
pub(crate) use chunks::{ChunkCounter, Share};
pub(crate) use format::WeightFormat;
pub(crate) use gate::Gate;
pub(crate) use half::f16_to_f32;
pub(crate) use isa::{Isa, Kind};
pub(crate) use packed::{PackedMatrix, PackedShape};
pub(crate) use product::{GatedPart, Part, gated_product, product};
