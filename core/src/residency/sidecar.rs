//! The prepared file: a model's layers as the kernels want them, ready to be streamed.
//!
//! Packing a layer each time it is read costs more than reading it from fast flash. So the layers are packed once and written
//! to a file beside the model (or where the app says), in the order of use, every run of them on a block boundary for direct reads.
//!
//! The file says what it was made from: model, layout, instruction set, library. Whatever differs, it is made again. It is
//! written under another name, layer by layer, with the number of layers that are safely there; making it goes on from
//! there after an interruption, and only a complete file gets its name. A file that cannot be read later, or is shorter than it
//! says, is given up, and the model's own file is read instead. The layers' own bytes carry no checksum: who changes them changes the text.

use std::ffi::OsString;
use std::fs::TryLockError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::layout::{Form, Run};
use super::source::{BlobSource, ModelSource, Read, ReadBlocks, Scratch, read_blob, read_exactly};
use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};
use crate::kernels::direct::{BLOCK, DirectFile, free_space, rename};
use crate::kernels::gemm::Isa;
use crate::kernels::region::Region;

/// Raised whenever the bytes of a prepared file change their meaning.
const LAYOUT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"FULCRUM\x01";

/// What is added to the model's file name.
const EXTENSION: &str = ".packed";

/// Free space to leave on the disk, in bytes.
const SPARE: u64 = 64 << 20;

/// Where a model's prepared file is, and what it must have been made from.
pub(crate) struct Sidecar {
    path: PathBuf,
    key: u64,
    /// Where each layer begins; behind the last, the length of the file.
    starts: Vec<u64>,
}

/// The layers of a prepared file, and the model it was made from, should it fail.
pub(crate) struct PreparedSource {
    file: Box<dyn ReadBlocks>,
    starts: Vec<u64>,
    model: Arc<ModelSource>,
    given_up: AtomicBool,
}

impl Sidecar {
    /// The prepared file of the model at `model`, whose first `n_layers` blobs are its layers. It is in `folder`, or beside the model.
    ///
    /// # Errors
    ///
    /// `File` if the model cannot be read.
    pub(crate) fn of(model: &Path, source: &ModelSource, n_layers: usize, folder: Option<&Path>) -> Result<Self> {
        let mut name = model.file_name().map_or_else(|| OsString::from("model"), OsString::from);
        name.push(EXTENSION);
        let path = folder.map_or_else(|| model.with_file_name(&name), |folder| folder.join(&name));
        let mut starts = vec![BLOCK as u64];
        for blob in &source.blobs()[..n_layers] {
            starts.push(starts[starts.len() - 1] + blob.bytes as u64);
        }
        Ok(Self { path, key: key(source, n_layers)?, starts })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    fn n_layers(&self) -> usize {
        self.starts.len() - 1
    }

    /// The file, if it is there, complete, and made from this model for this machine.
    pub(crate) fn open(&self, model: Arc<ModelSource>) -> Option<PreparedSource> {
        let file = DirectFile::open(&self.path).ok()?;
        let done = self.layers_done(&file);
        if file.len() != self.bytes() || done != Some(self.n_layers()) {
            log::info!("{}: made from something else; it is made again", self.path.display());
            return None;
        }
        let (file, starts) = (Box::new(file), self.starts.clone());
        Some(PreparedSource { file, starts, model, given_up: AtomicBool::new(false) })
    }

    /// Makes the file. `progress` is told the share done, 0 to 1.
    ///
    /// # Errors
    ///
    /// `File` if the model cannot be read, or the file not be written, for example because the disk has no room: said before anything
    /// is written; `Cancelled`. What was written is taken up by the next attempt.
    pub(crate) fn make(&self, source: &ModelSource, progress: &mut dyn FnMut(f32), cancel: &Cancel) -> Result<()> {
        let mut unfinished = OsString::from(&self.path);
        unfinished.push(".part");
        let unfinished = PathBuf::from(unfinished);
        let failed = |action, source| ErrorKind::File { action, path: self.path.clone(), source };
        let file = DirectFile::create(&unfinished)?;
        file.file().try_lock().map_err(|error| {
            failed(
                "prepare",
                match error {
                    TryLockError::WouldBlock => io::Error::new(io::ErrorKind::WouldBlock, "another process is at it"),
                    TryLockError::Error(error) => error,
                },
            )
        })?;
        let first = self.layers_done(&file).unwrap_or(0);
        self.check_space(self.bytes() - self.starts[first])?;
        let largest = source.blobs()[..self.n_layers()].iter().map(|blob| blob.bytes).max().unwrap_or(0);
        let mut memory = Region::allocate("preparing the model", largest)?;
        for layer in first..self.n_layers() {
            if cancel.is_cancelled() {
                return Err(ErrorKind::Cancelled.into());
            }
            let len = source.blobs()[layer].bytes;
            let rest = memory.len() - len;
            let blob = memory.split_to(len);
            let mut blob = read_blob(source, layer, blob, WRITERS)?;
            file.write_at(self.starts[layer], blob.bytes_mut()).map_err(|error| failed("write", error))?;
            file.sync().map_err(|error| failed("write", error))?;
            self.write_header(&file, layer + 1).map_err(|error| failed("write", error))?;
            debug_assert_eq!(memory.len(), rest);
            blob.join(memory);
            memory = blob;
            #[allow(clippy::cast_precision_loss)] // a share for a progress bar
            progress((layer + 1) as f32 / self.n_layers() as f32);
        }
        rename(&unfinished, &self.path).map_err(|error| failed("write", error).into())
    }

    fn check_space(&self, needed: u64) -> Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match free_space(folder) {
            Some(free) if free < needed + SPARE => {
                let reason = format!("it takes {needed} bytes, and the disk has {free} left");
                let source = io::Error::new(io::ErrorKind::StorageFull, reason);
                Err(ErrorKind::File { action: "prepare", path: self.path.clone(), source }.into())
            }
            _ => Ok(()),
        }
    }

    /// The header: magic, layout version, layers that are there, key; the same again inverted, so that a torn one is none.
    fn header(&self, done: usize) -> [u8; 48] {
        let mut header = [0; 48];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&LAYOUT_VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&u32::try_from(done).unwrap_or(u32::MAX).to_le_bytes());
        header[16..24].copy_from_slice(&self.key.to_le_bytes());
        let (first, again) = header.split_at_mut(24);
        again.iter_mut().zip(first).for_each(|(again, byte)| *again = !*byte);
        header
    }

    fn write_header(&self, file: &DirectFile, done: usize) -> io::Result<()> {
        let mut block = Region::allocate("a block", BLOCK).map_err(|_| io::ErrorKind::OutOfMemory)?;
        block.bytes_mut()[..48].copy_from_slice(&self.header(done));
        file.write_at(0, block.bytes_mut())?;
        file.sync()
    }

    /// How many layers are safely there; `None` if it is not this file's header.
    fn layers_done(&self, file: &DirectFile) -> Option<usize> {
        let mut block = Region::allocate("a block", BLOCK).ok()?;
        file.read_at(0, block.bytes_mut()).ok().filter(|&n| n >= 48)?;
        let header: &[u8] = &block.bytes_mut()[..48];
        let done = u32::from_le_bytes(header.get(12..16)?.try_into().ok()?) as usize;
        (header == self.header(done) && done <= self.n_layers()).then_some(done)
    }
}

/// Threads that read and pack while the file is made.
const WRITERS: usize = 4;

impl BlobSource for PreparedSource {
    fn runs(&self, blob: usize) -> &[Run] {
        self.model.runs(blob)
    }

    fn read(&self, blob: usize, run: &Run, out: &mut [u8], scratch: &mut Scratch) -> Result<Read> {
        if blob + 1 < self.starts.len() && !self.given_up.load(Ordering::Relaxed) {
            let wanted = out.len();
            match read_exactly(&*self.file, self.starts[blob] + run.at as u64, out, wanted) {
                Ok(bytes) => return Ok(Read { bytes, packed: 0 }),
                Err(error) => self.give_up(&error.to_string()),
            }
        }
        self.model.read(blob, run, out, scratch)
    }

    fn check_unchanged(&self) -> Result<()> {
        if !self.given_up.load(Ordering::Relaxed) {
            if !self.file.was_changed() {
                return Ok(());
            }
            self.give_up("it was changed while it was in use");
        }
        self.model.check_unchanged()
    }
}

impl PreparedSource {
    fn give_up(&self, why: &str) {
        if !self.given_up.swap(true, Ordering::Relaxed) {
            log::warn!("{}: {why}; the model's own file is read from now on", self.file.path().display());
        }
    }
}

/// What a prepared file depends on, as a number: library, layout, instruction set, kinds and places of all matrices, and of each
/// some bytes. That a model is another one shows in every matrix, so a few blocks of each tell; all of them would take as long as
/// reading the model.
fn key(source: &ModelSource, n_layers: usize) -> Result<u64> {
    let mut hash = Fnv::new();
    hash.add(env!("CARGO_PKG_VERSION").as_bytes());
    let interleave = Isa::detect().interleave();
    hash.add_all([interleave.group, interleave.step, usize::from(interleave.signed)]);
    for blob in &source.blobs()[..n_layers] {
        for part in &blob.parts {
            hash.add(format!("{:?}", part.role).as_bytes());
            hash.add_all([part.file, part.at, part.len, part.size]);
            hash.add(&part.offset.to_le_bytes());
            match part.form {
                Form::Packed(shape) => hash.add(format!("{:?}", shape.format()).as_bytes()),
                Form::Plain { element, .. } => hash.add(&element.to_le_bytes()),
            }
            let sample = part.size.min(256);
            for at in [0, part.size / 2, part.size - sample] {
                let at = at.min(part.size - sample) as u64;
                hash.add(&source.bytes(part.file, part.offset + at, sample)?);
            }
        }
    }
    Ok(hash.0)
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo): not against forgery, for which nobody has a reason here.
struct Fnv(u64);

impl Fnv {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn add_all<const N: usize>(&mut self, numbers: [usize; N]) {
        numbers.iter().for_each(|n| self.add(&(*n as u64).to_le_bytes()));
    }
}
