//! The files of a model, found and mapped, and which executor they are for.
//!
//! A model is one file or several (`-00001-of-00003.gguf`); any of them stands for all. Nothing is loaded here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ExecutorChoice, ModelOptions};
use crate::architecture::Architecture;
use crate::error::{Error, ErrorKind, Result};
use crate::gguf::validate::knows;
use crate::gguf::{Gguf, SplitName};
use crate::kernels::direct::DirectFile;
use crate::kernels::mapping::Mapping;
use crate::residency::source::ReadBlocks;

/// A model's files. Opening checks that they are there; [`gguf`](Self::gguf) checks what is in them.
pub struct ModelFile {
    path: PathBuf,
    parts: Vec<Arc<Mapping>>,
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
        let split = Gguf::parse(part.bytes()).map_err(|error| error.in_file(path))?.split();
        let parts = match split {
            None => vec![part],
            Some(split) => {
                let name = SplitName::parse(path).filter(|name| name.count == split.count).ok_or_else(|| {
                    let reason = format!(
                        "it is one of {0} files of a model and must be called like *-{1:05}-of-{0:05}.gguf",
                        split.count,
                        u32::from(split.index) + 1
                    );
                    ErrorKind::InvalidModel { path: path.to_owned(), reason }
                })?;
                name.paths().map(|path| Mapping::open(&path).map(Arc::new)).collect::<Result<_>>()?
            }
        };
        Ok(Self { path: path.to_owned(), parts })
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
        let bytes: Vec<&[u8]> = self.parts.iter().map(|part| part.bytes()).collect();
        Gguf::parse_files(&bytes)
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

    /// The mapped parts, in order.
    pub(crate) fn parts(&self) -> &[Arc<Mapping>] {
        &self.parts
    }
}
