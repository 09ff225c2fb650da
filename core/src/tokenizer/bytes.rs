//! The bytes of every token of a `tokenizer.json`, worked out once from what the file says about decoding.
//!
//! A file describes decoding as a chain of steps over pieces of text. Those that language models use come down to four things
//! that can be done to one token alone: replace `▁` by a space, read `<0x0A>` as a byte, undo the byte-level alphabet of GPT-2,
//! turn an end-of-word mark into a space. What works on the whole text only (stripping its first space) is left out.

use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokenizers::{AddedToken, Tokenizer};

use super::json::tokenizer_error;
use crate::error::Result;
use crate::token::Token;

/// What the crate does not tell about a file.
#[derive(Deserialize)]
pub(super) struct Parts {
    decoder: Option<Step>,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    vocab: LastPiece,
}

/// The largest number in a vocabulary, read without keeping the vocabulary: the crate only gives it away as a copy.
struct LastPiece(Option<Token>);

/// A step of decoding as the file writes it.
#[derive(Deserialize)]
#[serde(tag = "type")]
enum Step {
    ByteLevel {},
    ByteFallback {},
    Fuse {},
    Strip {},
    Replace {
        pattern: Pattern,
        content: String,
    },
    Metaspace {
        #[serde(default = "lower_one_eighth_block")]
        replacement: char,
    },
    #[serde(rename = "BPEDecoder")]
    Suffix {
        suffix: String,
    },
    Sequence {
        decoders: Vec<Step>,
    },
    WordPiece {},
    #[serde(rename = "CTC")]
    Ctc {},
}

#[derive(Deserialize)]
enum Pattern {
    String(String),
    Regex(String),
}

fn lower_one_eighth_block() -> char {
    '▁'
}

impl Parts {
    /// Reads the whole file, so that JSON which is damaged anywhere is an error here.
    pub(super) fn read(json: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }
}

impl<'de> Deserialize<'de> for LastPiece {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(VocabVisitor)
    }
}

/// Numbers by piece (BPE, word level), or a list of pieces in the order of their numbers (unigram).
struct VocabVisitor;

impl<'de> Visitor<'de> for VocabVisitor {
    type Value = LastPiece;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a vocabulary")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<LastPiece, A::Error> {
        let mut last = None;
        while let Some((_, token)) = map.next_entry::<IgnoredAny, Token>()? {
            last = last.max(Some(token));
        }
        Ok(LastPiece(last))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<LastPiece, A::Error> {
        let mut next: Token = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {
            next = next.checked_add(1).ok_or_else(|| A::Error::custom("too many pieces"))?;
        }
        Ok(LastPiece(next.checked_sub(1)))
    }
}

/// Bytes by token.
pub(super) struct TokenBytes {
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<u32>,
    /// Control tokens, ascending.
    special: Vec<Token>,
}

impl TokenBytes {
    /// The table of `tokenizer`, read from a file of `file_bytes`.
    pub(super) fn new(tokenizer: &Tokenizer, parts: &Parts, file_bytes: usize) -> Result<Self> {
        let decoder = parts.decoder.as_ref().ok_or_else(|| tokenizer_error("it has no decoder".to_owned()))?;
        decoder.check()?;
        let last_piece = parts.model.vocab.0.ok_or_else(|| tokenizer_error("its vocabulary is empty".to_owned()))?;
        let added = tokenizer.get_added_tokens_decoder();
        let last = added.keys().copied().fold(last_piece, Token::max);
        // A token takes more than a byte of the file, so a larger number is an error or an attack on the memory.
        if last as usize >= file_bytes {
            return Err(tokenizer_error(format!("token {last} is beyond what a file of {file_bytes} bytes can list")));
        }
        let mut table = Self { bytes: Vec::new(), ends: Vec::with_capacity(last as usize + 1), special: Vec::new() };
        for token in 0..=last {
            match added.get(&token) {
                Some(AddedToken { content, special: true, .. }) => {
                    table.special.push(token);
                    table.bytes.extend_from_slice(content.as_bytes());
                }
                // Written as it reads, so neither bytes in disguise nor in GPT-2's alphabet; `▁` is still a space.
                Some(added) => table.bytes.extend(decoder.apply_to_text(added.content.clone()).as_bytes()),
                None => {
                    let piece = tokenizer.id_to_token(token).unwrap_or_default();
                    table.bytes.extend(decoder.apply(piece.as_str().into()));
                }
            }
            let end = u32::try_from(table.bytes.len());
            table.ends.push(end.map_err(|_| tokenizer_error("its tokens are longer than 4 GiB together".to_owned()))?);
        }
        Ok(table)
    }

    pub(super) fn n_tokens(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of `token`; none for an unknown one, and for a control token unless `special`.
    pub(super) fn get(&self, token: Token, special: bool) -> &[u8] {
        let at = token as usize;
        let Some(&end) = self.ends.get(at) else { return &[] };
        if !special && self.special.binary_search(&token).is_ok() {
            return &[];
        }
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..end as usize]
    }
}

impl Step {
    fn check(&self) -> Result<()> {
        let unsupported = |what: &str| {
            Err(tokenizer_error(format!("its decoder has a step ({what}) that no supported language model uses")))
        };
        match self {
            Self::Sequence { decoders } => decoders.iter().try_for_each(Self::check),
            Self::Replace { pattern: Pattern::Regex(regex), .. } => unsupported(&format!("Replace by regex {regex}")),
            Self::WordPiece {} => unsupported("WordPiece"),
            Self::Ctc {} => unsupported("CTC"),
            _ => Ok(()),
        }
    }

    /// The bytes of a piece of the vocabulary.
    fn apply(&self, piece: Piece) -> Vec<u8> {
        self.step(piece).into_bytes()
    }

    fn step(&self, piece: Piece) -> Piece {
        let Piece::Text(text) = piece else { return piece };
        match self {
            Self::Sequence { decoders } => decoders.iter().fold(Piece::Text(text), |piece, step| step.step(piece)),
            Self::ByteLevel {} => match text.chars().map(byte_of).collect() {
                Some(bytes) => Piece::Bytes(bytes),
                None => Piece::Text(text),
            },
            Self::ByteFallback {} => match escaped_byte(&text) {
                Some(byte) => Piece::Bytes(vec![byte]),
                None => Piece::Text(text),
            },
            _ => Piece::Text(self.apply_to_text(text)),
        }
    }

    /// What the step does to text, bytes in disguise apart.
    fn apply_to_text(&self, text: String) -> String {
        match self {
            Self::Sequence { decoders } => decoders.iter().fold(text, |text, step| step.apply_to_text(text)),
            Self::Replace { pattern: Pattern::String(from), content } if !from.is_empty() => {
                text.replace(from, content)
            }
            Self::Metaspace { replacement } => text.replace(*replacement, " "),
            Self::Suffix { suffix } if !suffix.is_empty() => text.replace(suffix, " "),
            _ => text,
        }
    }
}

/// A token under way through the steps.
enum Piece {
    Text(String),
    /// Final.
    Bytes(Vec<u8>),
}

impl From<&str> for Piece {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Piece {
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// The byte of `<0x0A>`.
fn escaped_byte(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_byte.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// The byte that a character of GPT-2's byte-level alphabet stands for: printable Latin-1 stands for itself, the 68 bytes that do
/// not print are U+0100 and up in their order.
pub(super) fn byte_of(c: char) -> Option<u8> {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(c) {
        code @ 0..=0xFF => u8::try_from(code).ok().filter(|&byte| prints(byte)),
        code @ 0x100..=0x143 => (0..=u8::MAX).filter(|&byte| !prints(byte)).nth((code - 0x100) as usize),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{byte_of, escaped_byte};

    #[test]
    fn byte_level_alphabet() {
        // From GPT-2's encoder.py: space, newline, é's bytes C3 A9, soft hyphen.
        assert_eq!(
            ['Ġ', 'Ċ', 'Ã', '©', 'Ń', 'A'].map(byte_of).map(Option::unwrap),
            [0x20, 0x0A, 0xC3, 0xA9, 0xAD, 0x41]
        );
        assert_eq!([' ', '\u{AD}', 'ń', '▁'].map(byte_of), [None; 4]);
        let mut bytes: Vec<u8> = (0..0x180).filter_map(char::from_u32).filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn bytes_in_disguise() {
        assert_eq!(
            ["<0x0A>", "<0xff>", "<0x0>", "<0xG0>", "0x0A", "<0x+1>"].map(escaped_byte),
            [Some(10), Some(255), None, None, None, None]
        );
    }
}
