//! Bytes of tokens, as they come, to pieces of valid UTF-8.
//!
//! A token may hold part of a code point, so its bytes cannot be shown until the rest has come. Bytes that can no longer become
//! a code point turn into U+FFFD as soon as that is certain, exactly where [`String::from_utf8_lossy`] would put one: the pieces
//! joined are the lossy decoding of all the bytes.

use std::str;

/// Turns the bytes of tokens into text that never splits a code point.
#[derive(Clone, Debug, Default)]
pub struct DecodeStream {
    /// At most three bytes between calls: the beginning of a code point.
    pending: Vec<u8>,
    piece: String,
}

impl DecodeStream {
    /// A stream at the beginning of a text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the bytes of the next token and returns the text that is now certain: possibly none.
    pub fn push(&mut self, bytes: &[u8]) -> &str {
        self.piece.clear();
        self.pending.extend_from_slice(bytes);
        let mut rest = self.pending.as_slice();
        while let Err(error) = str::from_utf8(rest) {
            let (valid, after) = rest.split_at(error.valid_up_to());
            self.piece.push_str(str::from_utf8(valid).unwrap_or_default());
            rest = after;
            match error.error_len() {
                Some(invalid) => {
                    self.piece.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[invalid..];
                }
                None => break,
            }
        }
        if let Ok(text) = str::from_utf8(rest) {
            self.piece.push_str(text);
            rest = &[];
        }
        let consumed = self.pending.len() - rest.len();
        self.pending.drain(..consumed);
        &self.piece
    }

    /// Ends the text: U+FFFD if a code point was left unfinished, else nothing. The stream is then as new.
    pub fn finish(&mut self) -> &str {
        self.piece.clear();
        if !self.pending.is_empty() {
            self.pending.clear();
            self.piece.push(char::REPLACEMENT_CHARACTER);
        }
        &self.piece
    }

    /// Bytes held back because they may still become a code point: 0 to 3.
    pub fn n_pending(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests {
    use super::DecodeStream;
    use proptest::prelude::*;

    fn pieces(chunks: &[&[u8]]) -> Vec<String> {
        let mut stream = DecodeStream::new();
        let mut pieces: Vec<String> = chunks.iter().map(|chunk| stream.push(chunk).to_owned()).collect();
        pieces.push(stream.finish().to_owned());
        pieces
    }

    #[test]
    fn waits_for_a_whole_code_point() {
        assert_eq!(pieces(&[b"a\xF0\x9F", b"\x98", b"\x80b"]), ["a", "", "\u{1F600}b", ""]);
    }

    #[test]
    fn replaces_as_soon_as_completion_is_impossible() {
        // F0 9F may still become an emoji, but not once an A has come.
        assert_eq!(pieces(&[b"\xF0\x9F", b"A"]), ["", "\u{FFFD}A", ""]);
        // FF and a lone continuation byte begin nothing: no waiting.
        assert_eq!(pieces(&[b"\xFF", b"\x80"]), ["\u{FFFD}", "\u{FFFD}", ""]);
        // ED A0 would be a surrogate: invalid at its second byte.
        assert_eq!(pieces(&[b"\xED", b"\xA0"]), ["", "\u{FFFD}\u{FFFD}", ""]);
    }

    #[test]
    fn finish_flushes_what_never_came_and_starts_anew() {
        let mut stream = DecodeStream::new();
        assert_eq!(stream.push(b"x\xE2\x82"), "x");
        assert_eq!(stream.n_pending(), 2);
        assert_eq!(stream.finish(), "\u{FFFD}");
        assert_eq!(stream.finish(), "");
        assert_eq!(stream.push("€".as_bytes()), "€");
    }

    /// Bytes near the interesting borders of UTF-8, so that sequences which are almost right are common.
    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![
            prop::sample::select(vec![
                0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC2, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xFF
            ]),
            any::<u8>()
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn joined_pieces_are_the_lossy_decoding(chunks in prop::collection::vec(prop::collection::vec(byte(), 0..6), 0..12)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(pieces(&chunks).concat(), String::from_utf8_lossy(&chunks.concat()).into_owned());
        }

        #[test]
        fn valid_text_comes_unharmed_and_never_late(text in any::<String>(), cut in 1usize..4) {
            let mut stream = DecodeStream::new();
            let mut seen = 0;
            let mut out = String::new();
            for chunk in text.as_bytes().chunks(cut) {
                seen += chunk.len();
                out.push_str(stream.push(chunk));
                let whole = (0..=seen).rev().find(|&end| text.is_char_boundary(end)).unwrap();
                prop_assert_eq!(&out, &text[..whole]);
            }
            prop_assert_eq!(stream.finish(), "");
        }
    }
}
