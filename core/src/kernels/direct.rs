//! Files read and written past the page cache.
//!
//! What is streamed on every pass would push everything else out of the cache and be gone before it is wanted again. So it is read
//! directly (`O_DIRECT`) where the file system allows it, and elsewhere with the cache dropped behind each read (`fadvise`), or
//! with caching off (`F_NOCACHE`, Apple).

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{ErrorKind, Result};

/// What offsets, lengths and addresses of direct reads are multiples of: the largest block that devices in use have.
pub(crate) const BLOCK: usize = 4096;

/// A file past the page cache.
pub(crate) struct DirectFile {
    file: File,
    path: PathBuf,
    direct: bool,
    len: u64,
    modified: Option<SystemTime>,
}

impl DirectFile {
    /// Opens `path` for reading.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::with(path, OpenOptions::new().read(true), "open")
    }

    /// Opens `path` for reading and writing, and makes it if it is not there.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        Self::with(path, OpenOptions::new().read(true).write(true).create(true).truncate(false), "create")
    }

    fn with(path: &Path, options: &mut OpenOptions, action: &'static str) -> Result<Self> {
        let failed = |source| ErrorKind::File { action, path: path.to_owned(), source };
        // Whoever opens a pipe waits for its other end.
        if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")).into());
        }
        let (file, direct) = open(path, options).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let (len, modified) = (metadata.len(), metadata.modified().ok());
        Ok(Self { file, path: path.to_owned(), direct, len, modified })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes, when it was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The open file, to lock it.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether somebody has cut it, or written to it, since it was opened. One look at the open file, no reading.
    pub(crate) fn was_changed(&self) -> bool {
        self.file.metadata().map_or(true, |now| now.len() != self.len || now.modified().ok() != self.modified)
    }

    /// Reads from byte `offset` until `out` is full or the file ends, and says how much. Offset, length and address of `out` are
    /// multiples of [`BLOCK`].
    pub(crate) fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        debug_assert!(offset.is_multiple_of(BLOCK as u64) && out.len().is_multiple_of(BLOCK));
        let mut done = 0;
        while done < out.len() {
            match read_some(&self.file, &mut out[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            // A direct read that ends inside a block has met the end of the file.
            if self.direct && !done.is_multiple_of(BLOCK) {
                break;
            }
        }
        self.drop_cached(offset, done);
        Ok(done)
    }

    /// Writes all of `bytes` at byte `offset`; alignment as for [`read_at`](Self::read_at).
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match write_some(&self.file, &bytes[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Has the device keep what was written, and the cache forget it.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.drop_cached(0, 0);
        Ok(())
    }

    /// Drops `len` bytes from `offset` on from the cache, if they can be there; all for a length of 0.
    fn drop_cached(&self, offset: u64, len: usize) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if !self.direct {
            let len = std::num::NonZeroU64::new(len as u64);
            if let Err(error) = rustix::fs::fadvise(&self.file, offset, len, rustix::fs::Advice::DontNeed) {
                log::debug!("{}: the cache is not dropped: {error}", self.path.display());
            }
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = (offset, len, self.direct);
    }
}

/// Opens the file, and says whether what is read and written passes the cache by.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn open(path: &Path, options: &mut OpenOptions) -> io::Result<(File, bool)> {
    use std::os::unix::fs::OpenOptionsExt;

    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
    match options.clone().custom_flags(direct).open(path) {
        Ok(file) if reads_directly(&file) => Ok((file, true)),
        Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(error),
        _ => {
            let file = options.open(path)?;
            // Without this the kernel reads ahead into the cache, which is to stay empty.
            if let Err(error) = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random) {
                log::debug!("{}: readahead stays on: {error}", path.display());
            }
            log::info!("{}: its file system has no direct reads", path.display());
            Ok((file, false))
        }
    }
}

/// Some file systems take the flag and refuse the reads.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn reads_directly(file: &File) -> bool {
    super::region::Region::allocate("a block", BLOCK)
        .is_ok_and(|mut block| read_some(file, block.bytes_mut(), 0).is_ok())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn open(path: &Path, options: &mut OpenOptions) -> io::Result<(File, bool)> {
    let file = options.open(path)?;
    #[cfg(target_vendor = "apple")]
    let direct = rustix::fs::fcntl_nocache(&file, true).is_ok();
    #[cfg(not(target_vendor = "apple"))]
    let direct = false;
    Ok((file, direct))
}

#[cfg(unix)]
pub(super) fn read_some(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, out, offset)
}

#[cfg(unix)]
fn write_some(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, bytes, offset)
}

#[cfg(windows)]
pub(super) fn read_some(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, out, offset)
}

#[cfg(windows)]
fn write_some(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, offset)
}

/// Bytes that may still be written where `folder` is, if the system says so.
pub(crate) fn free_space(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let space = rustix::fs::statvfs(folder).ok()?;
        space.f_bavail.checked_mul(space.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// Gives a file its final name, for good.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    // The name is safe when its folder is.
    #[cfg(unix)]
    if let Some(folder) = to.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
