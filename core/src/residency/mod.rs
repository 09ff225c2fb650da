//! Which weights stay in memory, and how the others come from flash in time.
//!
//! A model under a memory budget keeps some layers (*pinned*) and reads the others (*streamed*) anew for every pass, ahead of their
//! use, into a few *slots*. `plan` decides which, as a pure rule; `layout` says what a layer looks like in memory, `source` and
//! `sidecar` where it is read from, `stream` reads it, `probe` measures how fast that is.
//!
//! After Lever (arXiv 2605.16786: target in flash, pinned layers, draft in memory) and FlexInfer (asynchronous reading ahead,
//! pinned layers spread evenly).

mod budget;
#[cfg(all(test, feature = "ggml"))]
pub(crate) mod faulty;
#[cfg(feature = "ggml")]
pub(crate) mod layout;
pub mod plan;
#[cfg(feature = "ggml")]
pub(crate) mod probe;
#[cfg(feature = "ggml")]
pub(crate) mod sidecar;
#[cfg(feature = "ggml")]
pub(crate) mod source;
#[cfg(feature = "ggml")]
pub(crate) mod stream;
#[cfg(all(test, feature = "ggml"))]
mod tests;

pub use budget::{MemoryBudget, ResidencyInfo};
