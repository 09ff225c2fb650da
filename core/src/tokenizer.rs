//! Text to tokens and back.
//!
//! [`Vocabulary`] is what the rest of the crate knows of a tokenizer. The file's own vocabulary is read by llama.cpp (in
//! `kernels`); a `tokenizer.json` is read in [`json`](TokenizerJson). Bytes become text again in [`DecodeStream`], which belongs
//! to no vocabulary: a code point may be spread over tokens, and only the stream of their bytes can tell.
//!
//! Deliberately not known here: chat templates, stop strings, files other than a `tokenizer.json`.

mod bytes;
#[cfg(feature = "ggml")]
pub(crate) mod cuts;
mod decode_stream;
mod json;

pub use decode_stream::DecodeStream;
pub use json::TokenizerJson;

use crate::error::Result;
use crate::token::Token;

/// How text becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Put the model's begin-of-sequence token in front, if the model wants one.
    pub add_bos: bool,
    /// Read special tokens written in the text (`<|im_end|>`) as tokens. Off for text that an untrusted person wrote.
    pub parse_special: bool,
}

/// A model's vocabulary.
pub trait Vocabulary: Send + Sync {
    /// Number of tokens; every token is below it.
    fn n_tokens(&self) -> usize;

    /// Tokens of `text`.
    fn encode(&self, text: &str, encoding: Encoding) -> Result<Vec<Token>>;

    /// Appends the bytes of `token` to `out`: possibly part of a code point, and nothing for a control token unless `special`.
    fn decode_token(&self, token: Token, special: bool, out: &mut Vec<u8>);

    /// Whether `token` ends a turn (end of sequence, end of turn, end of message).
    fn is_end_of_generation(&self, token: Token) -> bool;

    /// How control tokens are written, which `encode` reads as tokens only if it may. None by default: for vocabularies without.
    fn control_texts(&self) -> &[String] {
        &[]
    }

    /// The begin-of-sequence token, if there is one.
    fn bos(&self) -> Option<Token>;

    /// The end-of-sequence token, if there is one.
    fn eos(&self) -> Option<Token>;
}
