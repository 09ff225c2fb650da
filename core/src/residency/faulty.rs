//! A file that fails when a test says so: reads that err, an end that comes too early, a device that stalls.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::source::ReadBlocks;

/// A file in memory, or another file, with faults.
pub(crate) struct Faulty<F> {
    file: F,
    reads: AtomicUsize,
    /// Every read of this number fails; 0 for none.
    pub(crate) fail_every: AtomicUsize,
    /// Where the file ends.
    pub(crate) end: AtomicU64,
    /// Whether it looks changed.
    pub(crate) changed: AtomicBool,
    /// What a read takes at least, in ms; a shorter time counts for the reads under way, too.
    pub(crate) stall_ms: AtomicU64,
}

impl<F> Faulty<F> {
    pub(crate) fn new(file: F) -> Self {
        Self {
            file,
            reads: AtomicUsize::new(0),
            fail_every: AtomicUsize::new(0),
            end: AtomicU64::new(u64::MAX),
            changed: AtomicBool::new(false),
            stall_ms: AtomicU64::new(0),
        }
    }

    /// Reads so far.
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Relaxed)
    }
}

impl<F: ReadBlocks> ReadBlocks for Faulty<F> {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let n = self.reads.fetch_add(1, Relaxed) + 1;
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(self.stall_ms.load(Relaxed)) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let every = self.fail_every.load(Relaxed);
        if every > 0 && n.is_multiple_of(every) {
            return Err(io::Error::other("injected"));
        }
        let left = usize::try_from(self.end.load(Relaxed).saturating_sub(offset)).unwrap_or(usize::MAX);
        Ok(self.file.read_at(offset, out)?.min(left))
    }

    fn was_changed(&self) -> bool {
        self.changed.load(Relaxed) || self.file.was_changed()
    }

    fn path(&self) -> &Path {
        self.file.path()
    }
}

/// A file in memory.
pub(crate) struct Bytes(pub(crate) PathBuf, pub(crate) Vec<u8>);

impl ReadBlocks for Bytes {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.1.len());
        let n = out.len().min(self.1.len() - start);
        out[..n].copy_from_slice(&self.1[start..start + n]);
        Ok(n)
    }

    fn was_changed(&self) -> bool {
        false
    }

    fn path(&self) -> &Path {
        &self.0
    }
}
