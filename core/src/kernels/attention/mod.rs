//! Attention of many rows over the cell cache, at little more than the price of one.
//!
//! A tile of cached keys and values is converted to f32 once and meets all rows and all query heads that share its KV head.
//! Rows form a tree below a linear history; each row sees the history (or a window of it), its ancestors and itself.
//!
//! **A row's bits depend only on what it sees.** Arithmetic is laid out by *position*, not by cell: tiles of [`TILE`] positions are
//! joined within ranges of [`RANGE`] positions, ranges are joined in ascending order, and an ancestor counts at its position
//! wherever its cell is. So a row has the same bits among any other rows, on any number of threads, on any instruction set,
//! and as a branch of a tree the bits that plain decoding would give it.
//!
//! The history lies in cells `0 .. history` in position order; row `j` of the pass lies in cell `history + j`. Positions beyond
//! the window do not count, as llama.cpp has it: a row at position `p` sees positions above `p − window`.
//!
//! Deliberately not known here: ggml's tensors and masks, rotary embedding, writing the cache, who the ancestors are.
//! The idea of joining partial softmaxes is from Dao et al., "FlashAttention" (2022), section 3.1.

mod cells;
mod run;
mod tile;

#[cfg(test)]
mod tests;

pub(crate) use cells::Visibility;
pub(crate) use run::{Operands, Workspace, attention};

/// Positions of a tile: what is converted at a time, and what one softmax step joins.
pub(crate) const TILE: usize = 64;

/// Positions of a range: what one thread must work through alone. A multiple of [`TILE`].
pub(crate) const RANGE: usize = 512;

/// How keys and values are cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CacheFormat {
    /// Halves.
    F16,
    /// GGUF's `Q8_0`: blocks of 32 with a half scale.
    Q8_0,
}

impl CacheFormat {
    /// Bytes of `len` elements.
    pub(crate) const fn bytes(self, len: usize) -> usize {
        match self {
            Self::F16 => len * 2,
            Self::Q8_0 => len / 32 * 34,
        }
    }
}

/// What attention is like in a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AttentionShape {
    /// Query heads; a multiple of `n_head_kv`.
    pub(crate) n_head: usize,
    /// Heads of keys and values.
    pub(crate) n_head_kv: usize,
    /// Elements of a head: a multiple of 16, and of 32 for a quantised cache.
    pub(crate) head_dim: usize,
    /// How keys are cached.
    pub(crate) keys: CacheFormat,
    /// How values are cached.
    pub(crate) values: CacheFormat,
    /// Factor of the scores, usually `1 / √head_dim`.
    pub(crate) scale: f32,
    /// Scores become `cap · tanh(score / cap)`; 0 for no cap.
    pub(crate) soft_cap: f32,
    /// Positions that a row sees, itself included; `usize::MAX` for all.
    pub(crate) window: usize,
}

impl AttentionShape {
    /// Whether the kernels can do it; if not, ggml must.
    pub(crate) const fn is_supported(&self) -> bool {
        let step = match (self.keys, self.values) {
            (CacheFormat::F16, CacheFormat::F16) => 16,
            _ => 32,
        };
        self.n_head_kv > 0
            && self.n_head > 0
            && self.n_head.is_multiple_of(self.n_head_kv)
            && self.head_dim > 0
            && self.head_dim.is_multiple_of(step)
            && self.window > 0
    }

    /// Query heads per KV head.
    pub(crate) const fn group(&self) -> usize {
        self.n_head / self.n_head_kv
    }
}
