//! Models split over several files, `name-00001-of-00003.gguf` and so on.
//!
//! Each file is a GGUF file with its own tensor table; metadata is complete only in the first.

use std::path::{Path, PathBuf};

use super::Gguf;
use super::error::{KeyError, ParseError, ParseErrorKind};
use super::value::Value;

/// What a file says about its place in a split model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Index of the file, from 0.
    pub index: u16,
    /// Files of the model, at least 2.
    pub count: u16,
    /// Tensors in all files together, where the file says.
    pub n_tensors: Option<u32>,
}

/// The keys `split.*`; a model in one file has none, or the count 1.
pub(super) fn read(gguf: &Gguf<'_>) -> Result<Option<Split>, KeyError> {
    let count = if gguf.get("split.count").is_some() { require_u16(gguf, "split.count")? } else { 0 };
    if count < 2 {
        return Ok(None);
    }
    Ok(Some(Split { index: require_u16(gguf, "split.no")?, count, n_tensors: gguf.find("split.tensors.count")? }))
}

/// llama.cpp reads these as `u16` unasked, and aborts if they are anything else.
fn require_u16(gguf: &Gguf<'_>, key: &str) -> Result<u16, KeyError> {
    match gguf.get(key) {
        Some(Value::U16(value)) => Ok(*value),
        Some(other) => Err(KeyError::WrongType { key: key.to_owned(), expected: "u16", found: other.to_string() }),
        None => Err(KeyError::Missing { key: key.to_owned() }),
    }
}

/// Whether a file with this place may be the `file`-th of `n_files`.
pub(super) fn check(split: Option<Split>, file: usize, n_files: usize) -> Result<(), ParseError> {
    let (index, count) = split.map_or((0, 1), |split| (usize::from(split.index), usize::from(split.count)));
    if count != n_files {
        let reason = format!("the model has {count} files, {n_files} are given");
        return Err(ParseErrorKind::Split { reason }.at(file, 0));
    }
    if index != file {
        let reason = format!("file {} of {count} stands where file {} is expected", index + 1, file + 1);
        return Err(ParseErrorKind::Split { reason }.at(file, 0));
    }
    Ok(())
}

/// Whether all tensors that the first file announces were found.
pub(super) fn check_tensor_count(split: Option<Split>, found: usize) -> Result<(), ParseError> {
    match split.and_then(|split| split.n_tensors) {
        Some(n_tensors) if n_tensors as usize != found => {
            let reason = format!("{n_tensors} tensors are announced, the files have {found}");
            Err(ParseErrorKind::Split { reason }.at(0, 0))
        }
        _ => Ok(()),
    }
}

/// The name of one file of a split model, taken apart: `dir/name-00001-of-00003.gguf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitName {
    prefix: PathBuf,
    /// Index of the file, from 0.
    pub index: u16,
    /// Files of the model.
    pub count: u16,
}

impl SplitName {
    /// Takes a path apart; `None` if it is not named like a part of a split model.
    pub fn parse(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = name.rsplit_once("-of-")?;
        let (prefix, number) = rest.rsplit_once('-')?;
        let (number, count) = (five_digits(number)?, five_digits(count)?);
        if prefix.is_empty() || number == 0 || number > count {
            return None;
        }
        Some(Self { prefix: path.with_file_name(prefix), index: number - 1, count })
    }

    /// Paths of all files of the model, in order.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        (1..=self.count).map(|number| {
            let mut path = self.prefix.clone().into_os_string();
            path.push(format!("-{number:05}-of-{:05}.gguf", self.count));
            path.into()
        })
    }
}

fn five_digits(text: &str) -> Option<u16> {
    let digits = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}
