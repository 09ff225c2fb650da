//! The files of a model, found and mapped, and which executor they are for.
//!
//! A model is one file or several (`-00001-of-00003.gguf`); any of them stands for all. Nothing is loaded here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ExecutorChoice, ModelOptions};
use crate::architecture::Architecture;
use crate::error::{Error, ErrorKind, Result};
use crate::gguf::validate::knows;
use crate::gguf::{Gguf, ParseErrorKind, Split, SplitName};
use crate::kernels::direct::DirectFile;
use crate::kernels::mapping::Mapping;
use crate::residency::source::ReadBlocks;

/// A model's files. Opening checks that they are there; [`gguf`](Self::gguf) checks what is in them.
pub struct ModelFile {
    path: PathBuf,
    parts: Vec<Arc<Mapping>>,
    /// The start of each part, up to where the tensors' data begin or a little further.
    headers: Vec<Vec<u8>>,
}

/// What is to run a model, and why.
pub(crate) enum Route {
    /// The staged executor: it describes the model.
    Staged(Box<Architecture>),
    /// llama.cpp's context.
    LlamaCpp,
}

impl Route {
    /// The choice that leads here.
    pub(crate) fn choice(&self) -> ExecutorChoice {
        match self {
            Self::Staged(_) => ExecutorChoice::Staged,
            Self::LlamaCpp => ExecutorChoice::LlamaCpp,
        }
    }

    /// The executor's name in output.
    pub(crate) fn name(&self) -> &'static str {
        self.choice().name()
    }
}

impl ModelFile {
    /// Maps the file at `path`, and the others if it is one of a split model's.
    ///
    /// # Errors
    ///
    /// `File` if one cannot be opened, `InvalidModel` if it is a directory, empty, or no GGUF file.
    pub fn open(path: &Path) -> Result<Self> {
        let part = Arc::new(Mapping::open(path)?);
        let (header, split) = read_header(&part)?;
        let parts = match split {
            None => return Ok(Self { path: path.to_owned(), parts: vec![part], headers: vec![header] }),
            Some(split) => {
                let name = SplitName::parse(path).filter(|name| name.count == split.count).ok_or_else(|| {
                    let reason = format!(
                        "it is one of {0} files of a model and must be called like *-{1:05}-of-{0:05}.gguf",
                        split.count,
                        u32::from(split.index) + 1
                    );
                    ErrorKind::InvalidModel { path: path.to_owned(), reason }
                })?;
                name.paths().map(|path| Mapping::open(&path).map(Arc::new)).collect::<Result<Vec<_>>>()?
            }
        };
        let headers = parts.iter().map(|part| Ok(read_header(part)?.0)).collect::<Result<_>>()?;
        Ok(Self { path: path.to_owned(), parts, headers })
    }

    /// The path it was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The first part, which is the one that llama.cpp finds the others from.
    pub(crate) fn first(&self) -> &Path {
        self.parts.first().map_or(&self.path, |part| part.path())
    }

    /// Reads header, metadata and tensor table.
    ///
    /// # Errors
    ///
    /// `InvalidModel`, naming the file and the byte.
    pub fn gguf(&self) -> Result<Gguf<'_>> {
        let starts = self.headers.iter().zip(&self.parts).map(|(header, part)| (&header[..], part.len()));
        Gguf::parse_starts(&starts.collect::<Vec<_>>())
            .map_err(|error| error.in_file(self.parts.get(error.file()).map_or(&self.path, |part| part.path())))
    }

    /// What would run the model with these options, and why, in one line.
    ///
    /// # Errors
    ///
    /// `InvalidModel`, and `UnsupportedModel` if the staged executor is wanted and does not describe the model, or if only llama.cpp
    /// knows its architecture and `unchecked_architecture` is not set.
    pub fn executor(&self, options: &ModelOptions) -> Result<(ExecutorChoice, String)> {
        let (route, reason) = self.route(&self.gguf()?, options)?;
        Ok((route.choice(), reason))
    }

    /// As [`executor`](Self::executor), of the file as already read.
    pub(crate) fn route(&self, gguf: &Gguf<'_>, options: &ModelOptions) -> Result<(Route, String)> {
        let described = Architecture::read(gguf);
        let reason = match (described, options.executor) {
            (Ok(architecture), ExecutorChoice::Staged) => {
                return Ok((Route::Staged(Box::new(architecture)), "asked for".to_owned()));
            }
            (Ok(architecture), ExecutorChoice::Auto) => {
                let reason = format!("it describes this model's architecture, `{}`", architecture.family.name);
                return Ok((Route::Staged(Box::new(architecture)), reason));
            }
            (Err(reason), ExecutorChoice::Staged) => return Err(self.unsupported(format!("{reason}; try llama.cpp"))),
            (Err(reason), ExecutorChoice::Auto) => format!("the staged executor does not run this model: {reason}"),
            (_, ExecutorChoice::LlamaCpp) => "asked for".to_owned(),
        };
        let name: &str = gguf.find("general.architecture").ok().flatten().unwrap_or_default();
        if !options.unchecked_architecture && !knows(name) {
            return Err(self.unsupported(format!(
                "files of the architecture `{name}` are not checked here, and llama.cpp, which would run it, ends the process on some \
                 that are damaged; if you trust the file, set unchecked_architecture (--unchecked-architecture)"
            )));
        }
        Ok((Route::LlamaCpp, reason))
    }

    fn unsupported(&self, reason: String) -> Error {
        ErrorKind::UnsupportedModel { path: self.path.clone(), reason }.into()
    }

    /// The parts in order, to be read past the page cache.
    pub(crate) fn direct(&self) -> Result<Vec<Arc<dyn ReadBlocks>>> {
        self.parts.iter().map(|part| Ok(Arc::new(DirectFile::open(part.path())?) as Arc<dyn ReadBlocks>)).collect()
    }

    /// Fails with `File` if somebody has cut a part, or written to it, since it was opened.
    pub(crate) fn check(&self) -> Result<()> {
        self.parts.iter().try_for_each(|part| part.check())
    }

    /// The mapped parts, in order.
    pub(crate) fn parts(&self) -> &[Arc<Mapping>] {
        &self.parts
    }
}

/// Bytes of a file that are read at first; the header of a large vocabulary is longer.
const FIRST_READ: usize = 1 << 20;

/// The longest header that is read. Those of the largest vocabularies there are have some 30 MB.
const MAX_HEADER: u64 = 256 << 20;

/// The start of a file, with all of its header, and what it says about being part of a split model. It is in memory and not mapped, because
/// it is looked at all through loading, and the file may be cut meanwhile.
fn read_header(part: &Mapping) -> Result<(Vec<u8>, Option<Split>)> {
    let mut header = Vec::new();
    let mut wanted = FIRST_READ as u64;
    loop {
        let have = header.len();
        header.resize(usize::try_from(wanted.min(part.len())).expect("a mapped file fits the address space"), 0);
        part.read_at(have as u64, &mut header[have..])?;
        let error = match Gguf::parse_start(&header, part.len()) {
            Ok(gguf) => {
                let split = gguf.split();
                return Ok((header, split));
            }
            Err(error) => error,
        };
        wanted = match error.kind() {
            ParseErrorKind::LongHeader { needed } if *needed <= MAX_HEADER => (*needed).max(2 * wanted).min(MAX_HEADER),
            _ => return Err(error.in_file(part.path())),
        };
    }
}
