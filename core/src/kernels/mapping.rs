//! A file mapped read-only into memory.
//!
//! Mapping is for models that stay resident. What is streamed under a memory budget is read instead, because a file that shrinks
//! under a mapping raises SIGBUS. So before each pass over a mapping its user asks [`check`](Mapping::check): what shrank between two
//! passes, as a download that begins again, is an error. What shrinks in the middle of one, or of loading, still ends the process.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Result};

/// A file's bytes, paged in by the system as they are touched.
pub(crate) struct Mapping {
    bytes: memmap2::Mmap,
    file: File,
    opened: Metadata,
    path: PathBuf,
}

impl Mapping {
    /// Maps the whole of `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let fail = |action, source| ErrorKind::File { action, path: path.to_owned(), source };
        let invalid = |reason: &str| ErrorKind::InvalidModel { path: path.to_owned(), reason: reason.into() };
        // Before it is opened: whoever opens a pipe waits for a writer.
        let kind = std::fs::metadata(path).map_err(|e| fail("open", e))?;
        if !kind.is_file() {
            let reason = if kind.is_dir() { "it is a directory, not a file" } else { "it is not a regular file" };
            return Err(invalid(reason).into());
        }
        let file = File::open(path).map_err(|e| fail("open", e))?;
        let opened = file.metadata().map_err(|e| fail("open", e))?;
        if opened.len() == 0 {
            return Err(invalid("the file is empty").into());
        }
        // SAFETY: the mapping is read-only and private to this process's view. Another process that truncates the file can still
        // raise SIGBUS here, as it can for every user of mmap; models under a memory budget are read instead of mapped.
        let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| fail("map", e))?;
        Ok(Self { bytes, file, opened, path: path.to_owned() })
    }

    /// Fails with `File` if somebody has cut the file, or written to it, since it was mapped. One look at the open file, no reading.
    pub(crate) fn check(&self) -> Result<()> {
        let modified = |of: &Metadata| of.modified().ok();
        let same = |now: Metadata| now.len() == self.opened.len() && modified(&now) == modified(&self.opened);
        if self.file.metadata().is_ok_and(same) {
            return Ok(());
        }
        let source = io::Error::other("it was changed while it was in use; load the model again");
        Err(ErrorKind::File { action: "read", path: self.path.clone(), source }.into())
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
