//! A position in the bytes of one file that never passes their end.
//!
//! Knows how numbers and strings are laid out in GGUF, not what they mean.

use super::error::{ParseError, ParseErrorKind};

/// Reads forward through the bytes of one file.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    file: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], file: usize) -> Self {
        Self { bytes, position: 0, file }
    }

    /// Index of the file among those of a split model; errors carry it.
    pub(super) fn file(&self) -> usize {
        self.file
    }

    /// Bytes read so far.
    pub(super) fn offset(&self) -> u64 {
        self.position as u64
    }

    /// Length of the file in bytes.
    pub(super) fn file_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64, what: &'static str) -> Result<&'a [u8], ParseError> {
        let taken = usize::try_from(len).ok().and_then(|len| self.bytes[self.position..].get(..len));
        let Some(taken) = taken else {
            let available = self.remaining() as u64;
            return Err(ParseErrorKind::Truncated { what, needed: len, available }.at(self.file, self.offset()));
        };
        self.position += taken.len();
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ParseError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, ParseError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, ParseError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A number of things of which each takes at least `min_bytes` in what is left of the file.
    pub(super) fn count(&mut self, what: &'static str, min_bytes: usize) -> Result<usize, ParseError> {
        let start = self.offset();
        let count = self.u64(what)?;
        let fits = self.remaining() / min_bytes;
        match usize::try_from(count) {
            Ok(count) if count <= fits => Ok(count),
            _ => Err(ParseErrorKind::AbsurdCount { what, count, fits: fits as u64 }.at(self.file, start)),
        }
    }

    /// A string: its length, then its bytes, which need not be UTF-8.
    pub(super) fn string(&mut self, what: &'static str) -> Result<&'a [u8], ParseError> {
        let len = self.u64(what)?;
        self.take(len, what)
    }
}
