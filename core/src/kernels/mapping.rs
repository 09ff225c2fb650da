//! A file mapped read-only into memory.
//!
//! Mapping is for models that stay resident. What is streamed under a memory budget is read instead, because a file that shrinks
//! under a mapping raises SIGBUS.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Result};

/// A file's bytes, paged in by the system as they are touched.
pub(crate) struct Mapping {
    bytes: memmap2::Mmap,
    path: PathBuf,
}

impl Mapping {
    /// Maps the whole of `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fail = |action, source| ErrorKind::File { action, path: path.to_owned(), source };
        let file = File::open(path).map_err(|e| fail("open", e))?;
        let kind = file.metadata().map_err(|e| fail("open", e))?;
        if !kind.is_file() {
            let reason = if kind.is_dir() { "it is a directory, not a file" } else { "it is not a regular file" };
            return Err(ErrorKind::InvalidModel { path: path.to_owned(), reason: reason.into() }.into());
        }
        if kind.len() == 0 {
            return Err(ErrorKind::InvalidModel { path: path.to_owned(), reason: "the file is empty".into() }.into());
        }
        // SAFETY: the mapping is read-only and private to this process's view. Another process that truncates the file can still
        // raise SIGBUS here, as it can for every user of mmap; models under a memory budget are read instead of mapped.
        let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| fail("map", e))?;
        Ok(Self { bytes, path: path.to_owned() })
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Lets go of the pages of `len` bytes from `offset` on, which were copied and will hardly be read again. Reading them is still
    /// right, and reads the file.
    pub(crate) fn release(&self, offset: u64, len: u64) {
        #[cfg(unix)]
        {
            const PAGE: u64 = 64 << 10; // a multiple of every page size there is
            let (start, end) = (offset.next_multiple_of(PAGE), (offset + len) / PAGE * PAGE);
            if let (Ok(start), Ok(len)) = (usize::try_from(start), usize::try_from(end.saturating_sub(start))) {
                // SAFETY: the mapping is read-only and backed by the file, so dropped pages come back as they were.
                let dropped =
                    unsafe { self.bytes.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, len) };
                if let Err(error) = dropped {
                    log::debug!("{}: pages are not dropped: {error}", self.path.display());
                }
            }
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
