//! Drafts that outlive the session: stored context and recycled rows as bytes.
//!
//! Little-endian: magic, version, a hash of the vocabulary the tokens belong to, counts, the sections, and a checksum of all
//! that. The bytes contain what was read and written, token by token, so they are as private as the conversation.
//! They are read as data that anybody may have written: every count is checked against the bytes that are there before
//! anything is allocated, every token against the vocabulary.
//!
//! Deliberately not here: files (`session` reads and writes), and calibration, which is soon learnt again.

use super::TopK;
use crate::error::{ErrorKind, Result};
use crate::token::Token;
use crate::tokenizer::Vocabulary;

const MAGIC: [u8; 8] = *b"FLCMDRFT";
const VERSION: u32 = 1;
const HEADER: usize = MAGIC.len() + 4 + 8 + 4 + 4;

/// Entries of either section beyond which bytes are refused: 6 MB of text with its rows.
const MAX_ENTRIES: usize = 1 << 18;

/// Bytes of the longest encoding.
pub const MAX_BYTES: usize = HEADER + 2 * MAX_ENTRIES * (4 + TopK::ENCODED) + 8;

/// What a session saves and another starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedDrafts {
    /// Stored text with what the target said behind each token; `Token::MAX` stands between texts.
    pub context: Vec<(Token, TopK)>,
    /// Recycled rows by token.
    pub recycled: Vec<(Token, TopK)>,
}

impl SavedDrafts {
    /// The bytes. Of what is too much, the oldest entries are left out.
    pub fn encode(&self, vocabulary_hash: u64) -> Vec<u8> {
        let sections = [newest(&self.context), newest(&self.recycled)];
        let n_entries = sections[0].len() + sections[1].len();
        let mut bytes = Vec::with_capacity(HEADER + n_entries * (4 + TopK::ENCODED) + 8);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(vocabulary_hash.to_le_bytes());
        for section in sections {
            bytes.extend(super::index(section.len()).to_le_bytes());
        }
        for (token, top) in sections.into_iter().flatten() {
            bytes.extend(token.to_le_bytes());
            top.encode(&mut bytes);
        }
        let sum = checksum(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    /// Reads what [`SavedDrafts::encode`] wrote for a vocabulary of `n_vocab` tokens with this hash.
    ///
    /// Fails with `InvalidOption` if the bytes are something else, damaged, of another version or of another vocabulary. Saved
    /// drafts only make things faster: a caller may go on without them.
    pub fn decode(bytes: &[u8], vocabulary_hash: u64, n_vocab: usize) -> Result<Self> {
        let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(|| refused("they are too short"))?;
        let mut reader = Reader(body);
        if reader.take::<8>()? != MAGIC {
            return Err(refused("these are not saved drafts"));
        }
        let version = u32::from_le_bytes(reader.take()?);
        if version != VERSION {
            return Err(refused(&format!("they have version {version}, this build reads version {VERSION}")));
        }
        if checksum(body) != u64::from_le_bytes(*sum) {
            return Err(refused("they are damaged: the checksum does not match"));
        }
        if u64::from_le_bytes(reader.take()?) != vocabulary_hash {
            return Err(refused("they were saved with another model's vocabulary"));
        }
        let n_context = reader.count()?;
        let n_recycled = reader.count()?;
        let context = reader.entries(n_context, |token| token == Token::MAX || (token as usize) < n_vocab, n_vocab)?;
        let recycled = reader.entries(n_recycled, |token| (token as usize) < n_vocab, n_vocab)?;
        if !reader.0.is_empty() {
            return Err(refused("they are damaged: there is something behind the end"));
        }
        Ok(Self { context, recycled })
    }
}

/// Differs, but for an accident in 2⁶⁴, between vocabularies that are not the same token for token.
pub fn vocabulary_hash(vocabulary: &dyn Vocabulary) -> u64 {
    let mut bytes = Vec::new();
    for token in (0..).take(vocabulary.n_tokens()) {
        vocabulary.decode_token(token, true, &mut bytes);
        // Ends a token: no byte of UTF-8.
        bytes.push(0xff - u8::from(vocabulary.is_end_of_generation(token)));
    }
    checksum(&bytes)
}

fn newest(section: &[(Token, TopK)]) -> &[(Token, TopK)] {
    &section[section.len().saturating_sub(MAX_ENTRIES)..]
}

fn refused(reason: &str) -> crate::Error {
    ErrorKind::InvalidOption { option: "saved drafts", reason: format!("{reason}; delete them and go on") }.into()
}

/// FNV-1a, 64 bits: against damage, not against intent.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| refused("they end too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn count(&mut self) -> Result<usize> {
        let count = u32::from_le_bytes(self.take()?) as usize;
        if count > MAX_ENTRIES {
            return Err(refused(&format!("they hold {count} entries, at most {MAX_ENTRIES} are read")));
        }
        Ok(count)
    }

    fn entries(&mut self, n: usize, is_known: impl Fn(Token) -> bool, n_vocab: usize) -> Result<Vec<(Token, TopK)>> {
        // Nothing is reserved for entries that the bytes cannot hold.
        let mut entries = Vec::with_capacity(n.min(self.0.len() / 4));
        for _ in 0..n {
            let token = Token::from_le_bytes(self.take()?);
            let top = TopK::decode(self.take()?).filter(|top| top.iter().all(|(token, _)| (token as usize) < n_vocab));
            let Some(top) = top.filter(|_| is_known(token)) else {
                return Err(refused("they are damaged: a token is not in the vocabulary"));
            };
            entries.push((token, top));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn saved() -> SavedDrafts {
        let top = TopK::from_weights([(7, 0.75), (99, 0.25)]);
        SavedDrafts {
            context: vec![(1, top), (2, TopK::default()), (Token::MAX, TopK::default()), (3, top)],
            recycled: vec![(5, top), (0, TopK::from_weights([(1, 1.0)]))],
        }
    }

    fn reason(bytes: &[u8], hash: u64, n_vocab: usize) -> String {
        SavedDrafts::decode(bytes, hash, n_vocab).unwrap_err().to_string()
    }

    #[test]
    fn comes_back_as_it_was() {
        let bytes = saved().encode(42);
        assert_eq!(bytes.len(), HEADER + 6 * (4 + TopK::ENCODED) + 8);
        assert_eq!(SavedDrafts::decode(&bytes, 42, 100).unwrap(), saved());
        assert_eq!(SavedDrafts::decode(&SavedDrafts::default().encode(0), 0, 0).unwrap(), SavedDrafts::default());
    }

    #[test]
    fn other_models_versions_and_files_are_refused() {
        let bytes = saved().encode(42);
        assert!(reason(&bytes, 43, 100).contains("another model's vocabulary"));
        assert!(reason(&bytes, 42, 99).contains("not in the vocabulary"));
        assert!(reason(b"GGUFGGUFGGUFGGUFGGUF", 42, 100).contains("not saved drafts"));
        let mut newer = bytes.clone();
        newer[8] = 9;
        assert!(reason(&newer, 42, 100).contains("version 9"));
    }

    #[test]
    fn an_absurd_count_with_a_right_checksum_is_refused() {
        for count in [u32::MAX, 100_000] {
            let mut bytes = saved().encode(42);
            bytes.truncate(bytes.len() - 8);
            bytes[20..24].copy_from_slice(&count.to_le_bytes());
            let sum = checksum(&bytes);
            bytes.extend(sum.to_le_bytes());
            assert!(SavedDrafts::decode(&bytes, 42, 100).is_err());
        }
    }

    /// An entry as bytes, mostly one that may be read.
    fn any_entry() -> impl Strategy<Value = Vec<u8>> {
        let token = || prop_oneof![20 => 0u32..100, 1 => 100u32..102, 1 => Just(Token::MAX)];
        let len = prop_oneof![20 => 0u8..5, 1 => any::<u8>()];
        let n = (TopK::ENCODED - 1) / 5;
        (token(), len, prop::collection::vec(token(), n), prop::collection::vec(any::<u8>(), n)).prop_map(
            |(token, len, tokens, weights)| {
                let mut bytes = token.to_le_bytes().to_vec();
                bytes.push(len);
                tokens.iter().for_each(|token| bytes.extend(token.to_le_bytes()));
                bytes.extend(weights);
                bytes
            },
        )
    }

    proptest! {
        #[test]
        fn any_damage_is_noticed(at in 0usize..200, bit in 0u8..8, cut in 0usize..200) {
            let bytes = saved().encode(42);
            let mut flipped = bytes.clone();
            flipped[at % bytes.len()] ^= 1 << bit;
            prop_assert!(SavedDrafts::decode(&flipped, 42, 100).is_err());
            prop_assert!(SavedDrafts::decode(&bytes[..cut % bytes.len()], 42, 100).is_err());
        }

        #[test]
        fn what_a_right_checksum_hides_is_refused_or_sound(
            sections in prop::array::uniform2(prop::collection::vec(any_entry(), 0..4)),
            more in prop::array::uniform2(-1i8..2), cut in prop::sample::select(vec![0usize, 0, 0, 1, 30])
        ) {
            let mut bytes = saved().encode(42);
            bytes.truncate(HEADER - 8);
            let counts: Vec<usize> =
                sections.iter().zip(more).map(|(entries, more)| entries.len().saturating_add_signed(more.into())).collect();
            counts.iter().for_each(|&count| bytes.extend(crate::draft::index(count).to_le_bytes()));
            bytes.extend(sections.concat().concat());
            bytes.truncate(bytes.len().saturating_sub(cut).max(HEADER));
            bytes.extend(checksum(&bytes).to_le_bytes());
            if let Ok(saved) = SavedDrafts::decode(&bytes, 42, 100) {
                prop_assert_eq!(vec![saved.context.len(), saved.recycled.len()], counts);
                let known = |token: Token| token < 100;
                prop_assert!(saved.context.iter().all(|&(token, _)| known(token) || token == Token::MAX));
                prop_assert!(saved.recycled.iter().all(|&(token, _)| known(token)));
                let mut tops = saved.context.iter().chain(&saved.recycled).flat_map(|(_, top)| top.iter());
                prop_assert!(tops.all(|(token, weight)| known(token) && (0.0..=1.0).contains(&weight)));
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(SavedDrafts::decode(&bytes, 42, 100).is_err());
        }
    }
}
