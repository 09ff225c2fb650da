//! Small files of the library's own: read up to a bound, written whole or not at all.
//!
//! What is written goes to a file beside it first, which then takes its place, so that neither a crash nor a full disk leaves half a
//! file. What is read may be anybody's: its length is bounded here, its content is the reader's to check.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{ErrorKind, Result};

/// The bytes of the file at `path`, if they are at most `max_bytes`.
///
/// Fails with `File`.
pub(crate) fn read(path: &Path, max_bytes: usize) -> Result<Vec<u8>> {
    let failed = |source| ErrorKind::File { action: "read", path: path.to_owned(), source };
    // Whoever opens a pipe waits for a writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")).into());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(max_bytes as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > max_bytes {
        let reason = format!("it is larger than {max_bytes} bytes");
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, reason)).into());
    }
    Ok(bytes)
}

/// Makes `bytes` the content of the file at `path`.
///
/// Fails with `File`; the file is then as before.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    // Of its own, as two threads may write the same file.
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{}.tmp", std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed)));
    let beside = path.with_file_name(name);
    let written = File::create(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    written.map_err(|source| {
        // Nothing more can be done about what is left of it.
        let _ = fs::remove_file(&beside);
        ErrorKind::File { action: "write", path: path.to_owned(), source }.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("fulcrum-small-file-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    #[test]
    fn what_is_written_is_read_and_nothing_is_left_beside_it() {
        let folder = folder("whole");
        let path = folder.join("drafts");
        write(&path, b"first").expect("written");
        write(&path, b"second").expect("written over");
        assert_eq!(read(&path, 6).expect("read"), b"second");
        assert!(read(&path, 5).is_err(), "one byte too many");
        assert_eq!(fs::read_dir(&folder).expect("listed").count(), 1);
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn of_several_who_write_one_wins_whole() {
        let folder = folder("several");
        let path = folder.join("drafts");
        std::thread::scope(|scope| {
            for i in 0..4_u8 {
                let path = &path;
                scope.spawn(move || (0..50).for_each(|_| write(path, &[i; 10_000]).expect("written")));
            }
        });
        let bytes = read(&path, 10_000).expect("read");
        assert!(bytes.len() == 10_000 && bytes.iter().all(|byte| *byte == bytes[0]));
        assert_eq!(fs::read_dir(&folder).expect("listed").count(), 1);
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let folder = folder("failed");
        let path = folder.join("drafts");
        fs::create_dir(&path).expect("a folder in the way");
        let error = write(&path, b"bytes").expect_err("it cannot be replaced");
        assert!(matches!(error.kind(), ErrorKind::File { action: "write", .. }));
        assert!(path.is_dir() && fs::read_dir(&folder).expect("listed").count() == 1);
        assert!(write(&folder.join("missing").join("drafts"), b"").is_err());
        fs::remove_dir_all(folder).expect("removed");
    }
}
