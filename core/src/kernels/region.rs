//! Memory that weights are read into: one region of whole pages, handed around in pieces.
//!
//! A [`Piece`] is the right to a range of the region: whoever has it reads and writes there, and nobody else does. So threads can
//! fill one slot at once, and what they filled changes hands without a copy. Pages that are never touched cost nothing.

use std::sync::Arc;

use crate::error::{ErrorKind, Result};

/// The memory. It goes back to the system with the last piece of it and the last store over it.
pub(crate) struct Region {
    memory: memmap2::MmapRaw,
}

impl Region {
    /// `len` bytes at the start of a page, all in one piece.
    pub(crate) fn allocate(what: &'static str, len: usize) -> Result<Piece> {
        let map = memmap2::MmapOptions::new().len(len.max(1)).map_anon();
        let map = map.map_err(|_| ErrorKind::OutOfMemory { what, needed: len as u64, available: None })?;
        // Weights are read from one end to the other: large pages spare the walks through page tables.
        #[cfg(target_os = "linux")]
        if let Err(error) = map.advise(memmap2::Advice::HugePage) {
            log::debug!("large pages for {what}: {error}");
        }
        Ok(Piece { region: Arc::new(Self { memory: map.into() }), start: 0, len })
    }

    /// First byte and length.
    pub(super) fn extent(&self) -> (*mut u8, usize) {
        (self.memory.as_mut_ptr(), self.memory.len())
    }
}

/// The only right to a range of a [`Region`]; not to be had twice.
pub(crate) struct Piece {
    region: Arc<Region>,
    start: usize,
    len: usize,
}

impl Piece {
    /// Bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The memory it is a piece of.
    pub(super) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// The first byte, to be read as long as the piece is not written.
    pub(super) fn as_ptr(&self) -> *const u8 {
        self.region.memory.as_ptr().wrapping_add(self.start)
    }

    /// Takes the first `len` bytes off.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub(crate) fn split_to(&mut self, len: usize) -> Self {
        assert!(len <= self.len, "{len} of {} bytes", self.len);
        let first = Self { region: Arc::clone(&self.region), start: self.start, len };
        self.start += len;
        self.len -= len;
        first
    }

    /// Puts the piece behind this one back.
    ///
    /// # Panics
    ///
    /// If `next` is another one.
    pub(crate) fn join(&mut self, next: Self) {
        let adjacent = Arc::ptr_eq(&self.region, &next.region) && self.start + self.len == next.start;
        assert!(adjacent, "pieces that are not side by side");
        self.len += next.len;
    }

    /// The bytes, to look at.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: as in `bytes_mut`; nobody writes while the piece is borrowed.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) }
    }

    /// The bytes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the range lies in the region, which the piece keeps alive, and pieces never overlap: the first one was the whole,
        // and splitting gives each byte to one of two. What reads through `as_ptr` does so while nobody has the piece mutably.
        unsafe { std::slice::from_raw_parts_mut(self.region.memory.as_mut_ptr().add(self.start), self.len) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_split_filled_apart_and_joined() {
        let mut whole = Region::allocate("a test", 10_000).unwrap();
        assert!(whole.as_ptr().addr().is_multiple_of(4096));
        let mut first = whole.split_to(4096);
        std::thread::scope(|scope| {
            scope.spawn(|| first.bytes_mut().fill(1));
            scope.spawn(|| whole.bytes_mut().fill(2));
        });
        first.join(whole);
        assert_eq!(first.len(), 10_000);
        assert_eq!((first.bytes_mut()[4095], first.bytes_mut()[4096]), (1, 2));
    }

    #[test]
    #[should_panic(expected = "side by side")]
    fn strangers_are_not_joined() {
        let mut one = Region::allocate("a test", 8).unwrap();
        one.join(Region::allocate("a test", 8).unwrap());
    }
}
