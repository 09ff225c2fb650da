//! A file mapped read-only into memory.
//!
//! Mapping is for models that stay resident. What is streamed under a memory budget is read instead, because a file that shrinks
//! under a mapping raises SIGBUS. So what is looked at once, header and weights that are packed, is read
//! ([`read_at`](Mapping::read_at)), and before each pass over a mapping its user asks [`check`](Mapping::check): what shrank while it was
//! loaded or between two passes, as a download that begins again, is an error. What shrinks in the middle of a pass still ends the
//! process.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use super::direct::read_some;
use crate::error::{Error, ErrorKind, Result};

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
        Err(self.changed())
    }

    /// Reads all of `out` from byte `offset` on, beside the mapping, so that what is no longer there is an error (`File`) and no signal.
    pub(crate) fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < out.len() {
            match read_some(&self.file, &mut out[done..], offset + done as u64) {
                Ok(0) => return Err(self.changed()),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(error)),
            }
        }
        Ok(())
    }

    fn changed(&self) -> Error {
        self.unreadable(io::Error::other("it was changed while it was in use; load the model again"))
    }

    fn unreadable(&self, source: io::Error) -> Error {
        ErrorKind::File { action: "read", path: self.path.clone(), source }.into()
    }

    /// Bytes of the file when it was mapped.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The file's bytes. Whoever looks at them has [checked](Self::check) that they are there.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
