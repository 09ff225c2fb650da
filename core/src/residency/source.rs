//! Where blobs are read from.
//!
//! [`ModelSource`] reads the model's own file and packs what it read; a prepared file (`sidecar`) holds blobs as they are wanted.
//! Both are cut alike, so that one can take over from the other in the middle of a blob.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::layout::{Blob, Form, Run};
use crate::error::{Error, ErrorKind, Result};
use crate::kernels::direct::{BLOCK, DirectFile};
use crate::kernels::region::{Piece, Region};

/// Something to read blocks from: a file, or what a test puts in its place.
pub(crate) trait ReadBlocks: Send + Sync {
    /// Reads from byte `offset` until `out` is full or the file ends, and says how much.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;

    /// Whether it is no longer what was opened.
    fn was_changed(&self) -> bool;

    /// Its name in messages.
    fn path(&self) -> &Path;
}

impl ReadBlocks for DirectFile {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.read_at(offset, out)
    }

    fn was_changed(&self) -> bool {
        self.was_changed()
    }

    fn path(&self) -> &Path {
        self.path()
    }
}

/// Where blobs come from.
pub(crate) trait BlobSource: Send + Sync {
    /// How blob `blob` is cut.
    fn runs(&self, blob: usize) -> &[Run];

    /// Reads a run of a blob into `out`, which has its length.
    fn read(&self, blob: usize, run: &Run, out: &mut [u8], scratch: &mut Scratch) -> Result<Read>;

    /// Fails if a file is no longer what was opened.
    fn check_unchanged(&self) -> Result<()>;
}

/// What a read came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    /// Bytes read from a file.
    pub(crate) bytes: u64,
    /// Of those, bytes that were not as they are wanted and had to be packed.
    pub(crate) packed: u64,
}

/// Memory for what is read before it is packed; one per reading thread.
pub(crate) struct Scratch(Option<Piece>);

impl Scratch {
    /// Grows when it is first used.
    pub(crate) fn new() -> Self {
        Self(None)
    }

    fn bytes(&mut self, len: usize) -> Result<&mut [u8]> {
        if self.0.as_ref().is_none_or(|piece| piece.len() < len) {
            self.0 = Some(Region::allocate("reading", len)?);
        }
        match &mut self.0 {
            Some(piece) => Ok(&mut piece.bytes_mut()[..len]),
            None => Ok(&mut []),
        }
    }
}

/// Blobs packed from the model's own file, each time they are read.
pub(crate) struct ModelSource {
    files: Vec<Arc<dyn ReadBlocks>>,
    blobs: Vec<Blob>,
}

impl ModelSource {
    /// The blobs of the model in `files`.
    pub(crate) fn new(files: Vec<Arc<dyn ReadBlocks>>, blobs: Vec<Blob>) -> Self {
        Self { files, blobs }
    }

    /// What the blobs look like.
    pub(crate) fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// Reads `len` bytes from byte `offset` of file `file`.
    pub(crate) fn bytes(&self, file: usize, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut scratch = Scratch::new();
        Ok(read_within(&*self.files[file], offset, len, &mut scratch)?.0.to_vec())
    }
}

impl BlobSource for ModelSource {
    fn runs(&self, blob: usize) -> &[Run] {
        &self.blobs[blob].runs
    }

    fn read(&self, _blob: usize, run: &Run, out: &mut [u8], scratch: &mut Scratch) -> Result<Read> {
        let (bytes, n_read) = read_within(&*self.files[run.file], run.offset, run.size, scratch)?;
        let (used, packed) = match run.form {
            Form::Plain { .. } => {
                out[..bytes.len()].copy_from_slice(bytes);
                (bytes.len(), 0)
            }
            Form::Packed(shape) => {
                let group_in = shape.interleave().group * shape.format().gguf_row_bytes(shape.k());
                let packed = out.chunks_exact_mut(shape.group_bytes());
                bytes.chunks(group_in).zip(packed).for_each(|(rows, out)| shape.pack_group(rows, out));
                (bytes.len().div_ceil(group_in) * shape.group_bytes(), n_read)
            }
        };
        out[used..].fill(0);
        Ok(Read { bytes: n_read, packed })
    }

    fn check_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| check_unchanged(&**file))
    }
}

/// Fails if the file is no longer what was opened.
pub(super) fn check_unchanged(file: &dyn ReadBlocks) -> Result<()> {
    if !file.was_changed() {
        return Ok(());
    }
    let reason = "it was changed while it was in use; load the model again";
    Err(failed(file, io::Error::other(reason)))
}

/// Reads all of `out` from byte `offset`, both aligned to blocks; says how much it read.
pub(super) fn read_exactly(file: &dyn ReadBlocks, offset: u64, out: &mut [u8], wanted: usize) -> Result<u64> {
    let n_read = file.read_at(offset, out).map_err(|error| failed(file, error))?;
    if n_read < wanted {
        let reason = format!("{wanted} bytes are to be read from byte {offset} on, and there are {n_read}: it was cut");
        return Err(failed(file, io::Error::new(io::ErrorKind::UnexpectedEof, reason)));
    }
    Ok(n_read as u64)
}

/// Reads `len` bytes from any byte `offset` on; says how many were read around them.
pub(super) fn read_within<'s>(
    file: &dyn ReadBlocks,
    offset: u64,
    len: usize,
    scratch: &'s mut Scratch,
) -> Result<(&'s [u8], u64)> {
    let start = offset / BLOCK as u64 * BLOCK as u64;
    let lead = usize::try_from(offset - start).unwrap_or(0);
    let out = scratch.bytes((lead + len).next_multiple_of(BLOCK))?;
    let n_read = read_exactly(file, start, out, lead + len)?;
    Ok((&out[lead..lead + len], n_read))
}

fn failed(file: &dyn ReadBlocks, source: io::Error) -> Error {
    ErrorKind::File { action: "read", path: file.path().to_owned(), source }.into()
}

/// Reads a whole blob into `memory` with `n_threads` threads at once.
pub(crate) fn read_blob(source: &dyn BlobSource, blob: usize, memory: Piece, n_threads: usize) -> Result<Piece> {
    let mut rest = memory;
    let mut pieces: Vec<(&Run, Piece)> = source.runs(blob).iter().map(|run| (run, rest.split_to(run.len))).collect();
    let share = pieces.len().div_ceil(n_threads.max(1)).max(1);
    let read = |pieces: &mut [(&Run, Piece)]| -> Result<()> {
        let mut scratch = Scratch::new();
        pieces
            .iter_mut()
            .try_for_each(|(run, piece)| source.read(blob, run, piece.bytes_mut(), &mut scratch).map(|_| ()))
    };
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = pieces.chunks_mut(share).map(|part| scope.spawn(move || read(part))).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    results.into_iter().collect::<Result<()>>()?;
    let mut pieces = pieces.into_iter().map(|(_, piece)| piece).chain([rest]);
    let Some(mut whole) = pieces.next() else { unreachable!("there is at least the rest") };
    pieces.for_each(|piece| whole.join(piece));
    Ok(whole)
}
