//! A position in the start of one file that never passes its end.
//!
//! Knows how numbers and strings are laid out in GGUF, not what they mean.

use super::error::{ParseError, ParseErrorKind};

/// Reads forward through one file, of which the first bytes are at hand, or all.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    file_len: u64,
    position: usize,
    file: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], file_len: u64, file: usize) -> Self {
        Self { bytes, file_len, position: 0, file }
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
        self.file_len
    }

    fn remaining(&self) -> u64 {
        self.file_len - self.offset()
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64, what: &'static str) -> Result<&'a [u8], ParseError> {
        let available = self.remaining();
        if len > available {
            return Err(ParseErrorKind::Truncated { what, needed: len, available }.at(self.file, self.offset()));
        }
        let taken = usize::try_from(len).ok().and_then(|len| self.bytes[self.position..].get(..len));
        let Some(taken) = taken else {
            return Err(ParseErrorKind::LongHeader { needed: self.offset() + len }.at(self.file, self.offset()));
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
        let fits = self.remaining() / min_bytes as u64;
        match usize::try_from(count) {
            Ok(n) if count <= fits => Ok(n),
            _ => Err(ParseErrorKind::AbsurdCount { what, count, fits }.at(self.file, start)),
        }
    }

    /// A string: its length, then its bytes, which need not be UTF-8.
    pub(super) fn string(&mut self, what: &'static str) -> Result<&'a [u8], ParseError> {
        let len = self.u64(what)?;
        self.take(len, what)
    }
}
