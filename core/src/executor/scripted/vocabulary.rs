//! A vocabulary for tests: every byte is a token, so every text has tokens and code points split.

use crate::error::Result;
use crate::token::Token;
use crate::tokenizer::{Encoding, Vocabulary};

/// Bytes 0 – 255, then four special tokens in the manner of ChatML, then pieces of several bytes, longest match first.
///
/// With pieces a text has several tokenisations, of which `encode` yields one: what a model generates and what re-encoding
/// its text gives can differ, as with real vocabularies.
#[derive(Clone, Debug)]
pub struct ByteVocabulary {
    pieces: Vec<String>,
    special: [String; SPECIAL.len()],
}

const SPECIAL: [&str; 4] = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"];
const FIRST_PIECE: usize = 256 + SPECIAL.len();

impl ByteVocabulary {
    /// `<s>`, the begin-of-sequence token.
    pub const BOS: Token = 256;
    /// `</s>`, the end-of-sequence token.
    pub const EOS: Token = 257;
    /// `<|im_start|>`, which begins a message.
    pub const START: Token = 258;
    /// `<|im_end|>`, which ends a message and the generation.
    pub const END: Token = 259;

    /// Bytes and special tokens only.
    pub fn new() -> Self {
        Self::with_pieces(&[])
    }

    /// With `pieces` as further tokens, in order from 260; empty ones are never matched.
    pub fn with_pieces(pieces: &[&str]) -> Self {
        Self { pieces: pieces.iter().map(ToString::to_string).collect(), special: SPECIAL.map(str::to_owned) }
    }

    /// The tokens of `text`, special tokens read as such, without a begin-of-sequence token.
    pub fn tokens(&self, text: &str) -> Vec<Token> {
        self.encode_bytes(text.as_bytes(), true)
    }

    fn encode_bytes(&self, mut rest: &[u8], parse_special: bool) -> Vec<Token> {
        let mut tokens = Vec::new();
        while let [byte, ..] = rest {
            let (token, n) = self
                .match_special(rest, parse_special)
                .or_else(|| self.match_piece(rest))
                .unwrap_or((u32::from(*byte), 1));
            tokens.push(token);
            rest = &rest[n..];
        }
        tokens
    }

    fn match_special(&self, rest: &[u8], parse_special: bool) -> Option<(Token, usize)> {
        let mut numbered = (256u32..).zip(SPECIAL);
        numbered
            .find(|(_, text)| parse_special && rest.starts_with(text.as_bytes()))
            .map(|(token, text)| (token, text.len()))
    }

    fn match_piece(&self, rest: &[u8]) -> Option<(Token, usize)> {
        let numbered =
            (260u32..).zip(&self.pieces).filter(|(_, piece)| !piece.is_empty() && rest.starts_with(piece.as_bytes()));
        numbered.max_by_key(|(_, piece)| piece.len()).map(|(token, piece)| (token, piece.len()))
    }
}

impl Default for ByteVocabulary {
    fn default() -> Self {
        Self::new()
    }
}

impl Vocabulary for ByteVocabulary {
    fn n_tokens(&self) -> usize {
        FIRST_PIECE + self.pieces.len()
    }

    fn encode(&self, text: &str, encoding: Encoding) -> Result<Vec<Token>> {
        let mut tokens = if encoding.add_bos { vec![Self::BOS] } else { Vec::new() };
        tokens.extend(self.encode_bytes(text.as_bytes(), encoding.parse_special));
        Ok(tokens)
    }

    fn decode_token(&self, token: Token, special: bool, out: &mut Vec<u8>) {
        let index = token as usize;
        match u8::try_from(token) {
            Ok(byte) => out.push(byte),
            Err(_) if index >= FIRST_PIECE => {
                out.extend(self.pieces.get(index - FIRST_PIECE).into_iter().flat_map(|p| p.bytes()))
            }
            Err(_) if special => out.extend(SPECIAL[index - 256].bytes()),
            Err(_) => {}
        }
    }

    fn is_end_of_generation(&self, token: Token) -> bool {
        token == Self::EOS || token == Self::END
    }

    fn control_texts(&self) -> &[String] {
        &self.special
    }

    fn bos(&self) -> Option<Token> {
        Some(Self::BOS)
    }

    fn eos(&self) -> Option<Token> {
        Some(Self::EOS)
    }
}
