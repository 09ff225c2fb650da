//! The unit of text a model reads and writes.

/// Index of a token in the model's vocabulary, `0 .. n_vocab`.
pub type Token = u32;
