//! A vocabulary from a `tokenizer.json`, the file that comes with a model on the Hugging Face hub.
//!
//! Encoding is the crate `tokenizers`. Decoding is a table of bytes made once: the crate decodes whole texts and has already
//! replaced broken code points by then, while a stream needs each token's own bytes. For the same reason the space that
//! SentencePiece puts before the first word is kept: a token does not know whether it is the first, and in the middle of a
//! conversation it is not.
//!
//! Deliberately not known here: `tokenizer_config.json` and other files. Which tokens begin and end a text is guessed from the
//! post-processor and the names that models use, and whoever knows better (the GGUF does) says so.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parking_lot::{RwLock, RwLockWriteGuard};
use tokenizers::Tokenizer;

use super::bytes::TokenBytes;
use super::{Encoding, Vocabulary};
use crate::error::{Error, ErrorKind, Result};
use crate::token::Token;

/// The largest known files have 35 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// The longest text that is tokenized at once, in bytes: more than any context holds. The crate takes minutes for some that are longer, and
/// cannot be stopped.
const MAX_TEXT: usize = 4 << 20;

/// Begin-of-sequence tokens by name, for files whose post-processor adds none.
const BOS_NAMES: [&str; 6] =
    ["<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<｜begin▁of▁sentence｜>", "[BOS]"];
/// End-of-sequence tokens by name, the usual one first.
const EOS_NAMES: [&str; 7] =
    ["</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<｜end▁of▁sentence｜>", "<|return|>", "[EOS]"];
/// Tokens that end a turn without ending the text.
const END_OF_TURN_NAMES: [&str; 8] =
    ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<turn|>", "<|end|>", "<|EOT|>", "<|end_of_turn|>"];

/// A vocabulary read from a `tokenizer.json`.
pub struct TokenizerJson {
    /// Behind a lock because reading special tokens or not is a property of the crate's tokenizer and not of the call; it is
    /// written only when that changes.
    tokenizer: RwLock<Tokenizer>,
    bytes: TokenBytes,
    bos: Option<Token>,
    eos: Option<Token>,
    /// Ascending.
    end_of_generation: Vec<Token>,
    control_texts: Vec<String>,
}

impl TokenizerJson {
    /// Reads the file at `path`.
    ///
    /// Fails with `Tokenizer` if it is not there, is not a `tokenizer.json`, or is of a kind that no language model here uses.
    pub fn load(path: &Path) -> Result<Self> {
        let at = |reason: String| tokenizer_error(format!("{}: {reason}", path.display()));
        let size =
            fs::metadata(path).map_err(|e| at(format!("{e}; pass the tokenizer.json that belongs to the model")))?;
        if !size.is_file() || size.len() > MAX_FILE_BYTES {
            return Err(at("not a tokenizer.json (a file of JSON of at most 256 MiB)".to_owned()));
        }
        let bytes = fs::read(path).map_err(|e| at(e.to_string()))?;
        Self::from_bytes(&bytes).map_err(|error| match error.into_kind() {
            ErrorKind::Tokenizer { reason } => at(reason),
            other => other.into(),
        })
    }

    /// Reads the contents of such a file.
    ///
    /// Fails as [`load`](Self::load) does.
    pub fn from_bytes(json: &[u8]) -> Result<Self> {
        // The crate panics on some damaged files, so the JSON is checked as a whole first, and what panics anyway is caught.
        let parts =
            super::bytes::Parts::read(json).map_err(|e| tokenizer_error(format!("not a tokenizer.json: {e}")))?;
        let mut tokenizer = guarded("reading it", || Tokenizer::from_bytes(json))?;
        // Padding and truncation are for training batches.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| tokenizer_error(e.to_string()))?;
        let bytes = TokenBytes::new(&tokenizer, &parts, json.len())?;

        let named = |names: &[&str]| -> Vec<Token> { names.iter().filter_map(|n| tokenizer.token_to_id(n)).collect() };
        let mut end_of_generation = named(&EOS_NAMES);
        let eos = end_of_generation.first().copied();
        end_of_generation.extend(named(&END_OF_TURN_NAMES));
        let bos = post_processor_bos(&tokenizer)?.or_else(|| named(&BOS_NAMES).first().copied());
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.values().filter(|token| token.special && !token.content.is_empty());
        let control_texts = special.map(|token| token.content.clone()).collect();
        let end = Vec::new();
        let vocabulary =
            Self { tokenizer: RwLock::new(tokenizer), bytes, bos, eos, end_of_generation: end, control_texts };
        Ok(vocabulary.with_end_of_generation(end_of_generation))
    }

    /// Says which token begins a text, for a caller that knows it from the model.
    #[must_use]
    pub fn with_bos(mut self, bos: Option<Token>) -> Self {
        self.bos = bos;
        self
    }

    /// Says which token ends a text, for a caller that knows it from the model. It then ends a generation, too.
    #[must_use]
    pub fn with_eos(mut self, eos: Token) -> Self {
        self.eos = Some(eos);
        let mut tokens = std::mem::take(&mut self.end_of_generation);
        tokens.push(eos);
        self.with_end_of_generation(tokens)
    }

    /// Says which tokens end a generation, instead of those whose names say so.
    #[must_use]
    pub fn with_end_of_generation(mut self, mut tokens: Vec<Token>) -> Self {
        tokens.sort_unstable();
        tokens.dedup();
        self.end_of_generation = tokens;
        self
    }

    /// The token that is written `text`, if there is one.
    pub fn token(&self, text: &str) -> Option<Token> {
        self.tokenizer.read().token_to_id(text)
    }

    fn encode_plain(&self, text: &str, parse_special: bool) -> Result<Vec<Token>> {
        if text.len() > MAX_TEXT {
            let reason = format!("a text of {} bytes is too long; {MAX_TEXT} are tokenized at once", text.len());
            return Err(tokenizer_error(reason));
        }
        let mut tokenizer = self.tokenizer.read();
        if tokenizer.get_encode_special_tokens() == parse_special {
            drop(tokenizer);
            let mut writer = self.tokenizer.write();
            writer.set_encode_special_tokens(!parse_special);
            // Without a gap in which another thread could change it back.
            tokenizer = RwLockWriteGuard::downgrade(writer);
        }
        guarded("encoding a text", || tokenizer.encode_fast(text, false)).map(|e| e.get_ids().to_vec())
    }
}

impl Vocabulary for TokenizerJson {
    fn n_tokens(&self) -> usize {
        self.bytes.n_tokens()
    }

    fn encode(&self, text: &str, encoding: Encoding) -> Result<Vec<Token>> {
        let mut tokens = self.encode_plain(text, encoding.parse_special)?;
        if let Some(bos) = self.bos.filter(|_| encoding.add_bos) {
            tokens.insert(0, bos);
        }
        Ok(tokens)
    }

    fn decode_token(&self, token: Token, special: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(self.bytes.get(token, special));
    }

    fn is_end_of_generation(&self, token: Token) -> bool {
        self.end_of_generation.binary_search(&token).is_ok()
    }

    fn control_texts(&self) -> &[String] {
        &self.control_texts
    }

    fn bos(&self) -> Option<Token> {
        self.bos
    }

    fn eos(&self) -> Option<Token> {
        self.eos
    }
}

/// The single token that the post-processor puts before a text.
fn post_processor_bos(tokenizer: &Tokenizer) -> Result<Option<Token>> {
    let encode = |add| guarded("encoding a text", || tokenizer.encode_fast("a", add));
    let (with, without) = (encode(true)?, encode(false)?);
    let (with, without) = (with.get_ids(), without.get_ids());
    let before = with.windows(without.len().max(1)).position(|window| window == without);
    Ok((before == Some(1)).then(|| with[0]))
}

/// Calls into the crate. It is written for files that its own tools made and panics on some others; a panic leaves nothing behind
/// that is used later. (This needs panics that unwind, the default everywhere.)
fn guarded<T>(action: &str, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(tokenizer_error(format!("{action} failed: {error}").replace('\n', " "))),
        Err(_) => Err(tokenizer_error(format!("{action} failed: the tokenizer panicked; the file is damaged"))),
    }
}

pub(super) fn tokenizer_error(reason: String) -> Error {
    ErrorKind::Tokenizer { reason }.into()
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "the tests' numbers are small")]
mod tests;
