//! GGUF files over bytes: header, metadata and tensor table, versions 2 and 3, little-endian.
//!
//! The reader is strict. Every length is checked against the bytes that are there before it is believed, so a damaged or
//! hostile file gives a [`ParseError`] that says where; it cannot panic, and nothing is allocated that the file is not long
//! enough to justify (metadata values are borrowed from the bytes). Offsets and sizes that a [`TensorInfo`] states lie within
//! the file and overlap nothing.
//!
//! Deliberately not known here: how bytes come from a file (mapping lives in `kernels`), what the keys mean (that is
//! `architecture`), and what llama.cpp asks of a file beyond the format (that is [`validate`]).
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod cursor;
mod error;
mod split;
mod tensor;
pub mod validate;
mod value;

use std::collections::HashMap;

use cursor::Cursor;
pub use error::{KeyError, ParseError, ParseErrorKind};
pub use split::{Split, SplitName};
pub use tensor::{Shape, TensorInfo, TensorType};
pub use value::{Array, FromValue, Strings, Value, ValueType, Values};

const MAGIC: &[u8; 4] = b"GGUF";

/// Alignment of tensor data in bytes where `general.alignment` does not say otherwise.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// A parsed GGUF file, or the union of the files of a split model. Borrows the bytes it was parsed from.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    version: u32,
    alignment: u64,
    metadata: Vec<(&'a str, Value<'a>)>,
    keys: HashMap<&'a str, usize>,
    tensors: Vec<TensorInfo<'a>>,
    names: HashMap<&'a str, usize>,
    split: Option<Split>,
    n_files: usize,
}

impl<'a> Gguf<'a> {
    /// Parses one file. Of a split model this may be any of its files; [`split`](Self::split) tells.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with the file, with the byte offset at which it was noticed.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_start(bytes, bytes.len() as u64)
    }

    /// As [`parse`](Self::parse), of a file of `file_len` bytes of which only the first are at hand.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), and [`LongHeader`](ParseErrorKind::LongHeader) if they do not reach to the end of the tensor table.
    pub fn parse_start(bytes: &'a [u8], file_len: u64) -> Result<Self, ParseError> {
        Self::parse_file((bytes, file_len), 0)
    }

    /// Parses the files of a split model, in order. Metadata is the first file's; the tensor table is the union of all, and
    /// [`TensorInfo::file`] says which file a tensor is in. With one file this is [`parse`](Self::parse), except that a
    /// missing part is an error.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse), and if files are missing, out of order, of different models, or share a tensor name.
    pub fn parse_files(files: &[&'a [u8]]) -> Result<Self, ParseError> {
        Self::parse_starts(&files.iter().map(|bytes| (*bytes, bytes.len() as u64)).collect::<Vec<_>>())
    }

    /// As [`parse_files`](Self::parse_files), of files of which only the first bytes are at hand; with them the length of each file.
    ///
    /// # Errors
    ///
    /// As [`parse_files`](Self::parse_files) and [`parse_start`](Self::parse_start).
    pub fn parse_starts(files: &[(&'a [u8], u64)]) -> Result<Self, ParseError> {
        let first = files.first().copied().unwrap_or_default();
        let mut whole = Self::parse_file(first, 0)?;
        split::check(whole.split, 0, files.len())?;
        for (file, start) in files.iter().enumerate().skip(1) {
            let part = Self::parse_file(*start, file)?;
            split::check(part.split, file, files.len())?;
            for tensor in part.tensors {
                let index = whole.tensors.len();
                if whole.names.insert(tensor.name, index).is_some() {
                    let name = tensor.name.to_owned();
                    return Err(ParseErrorKind::DuplicateTensor { name }.at(file, tensor.offset));
                }
                whole.tensors.push(tensor);
            }
        }
        split::check_tensor_count(whole.split, whole.tensors.len())?;
        whole.n_files = files.len();
        Ok(whole)
    }

    fn parse_file((bytes, file_len): (&'a [u8], u64), file: usize) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(bytes, file_len, file);
        let version = read_version(&mut cursor)?;
        let n_tensors = cursor.count("tensors", tensor::MIN_ENTRY_BYTES)?;
        let n_keys = cursor.count("metadata entries", value::MIN_ENTRY_BYTES)?;

        let mut metadata = Vec::new();
        let mut keys = HashMap::new();
        for index in 0..n_keys {
            let start = cursor.offset();
            let (key, value) = read_entry(&mut cursor)?;
            if keys.insert(key, index).is_some() {
                return Err(ParseErrorKind::DuplicateKey { key: key.to_owned() }.at(file, start));
            }
            metadata.push((key, value));
        }

        let alignment = keys.get("general.alignment").map(|&index| &metadata[index].1);
        let alignment = read_alignment(alignment).map_err(|kind| kind.at(file, cursor.offset()))?;

        let mut tensors = Vec::new();
        let mut names = HashMap::new();
        for index in 0..n_tensors {
            let start = cursor.offset();
            let tensor = TensorInfo::read(&mut cursor)?;
            if names.insert(tensor.name, index).is_some() {
                let name = tensor.name.to_owned();
                return Err(ParseErrorKind::DuplicateTensor { name }.at(file, start));
            }
            tensors.push(tensor);
        }
        tensor::place(&mut tensors, &cursor, alignment)?;

        let mut gguf = Self { version, alignment, metadata, keys, tensors, names, split: None, n_files: 1 };
        gguf.split = split::read(&gguf).map_err(|error| ParseErrorKind::Key(error).at(file, 0))?;
        Ok(gguf)
    }

    /// Version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Bytes to which the tensor data of the (first) file is aligned, a power of two.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// What the (first) file says about being part of a split model; `None` for a model in one file.
    pub fn split(&self) -> Option<Split> {
        self.split
    }

    /// Files that were parsed.
    pub fn n_files(&self) -> usize {
        self.n_files
    }

    /// All metadata, in the order of the file.
    pub fn metadata(&self) -> &[(&'a str, Value<'a>)] {
        &self.metadata
    }

    /// The value of a metadata key.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.keys.get(key).map(|&index| &self.metadata[index].1)
    }

    /// The value of a key as a `T` (`u32`, `f32`, `bool`, `&str`, [`Array`], …); `None` if the key is not there.
    ///
    /// # Errors
    ///
    /// [`KeyError::WrongType`] if the value is something else. Integers of any width are read into any type they fit.
    pub fn find<T: FromValue<'a>>(&self, key: &str) -> Result<Option<T>, KeyError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match T::from_value(value) {
            Some(wanted) => Ok(Some(wanted)),
            None => Err(KeyError::WrongType { key: key.to_owned(), expected: T::EXPECTED, found: value.to_string() }),
        }
    }

    /// The value of a key that must be there, as a `T`.
    ///
    /// # Errors
    ///
    /// [`KeyError::Missing`], or as [`find`](Self::find).
    pub fn require<T: FromValue<'a>>(&self, key: &str) -> Result<T, KeyError> {
        self.find(key)?.ok_or_else(|| KeyError::Missing { key: key.to_owned() })
    }

    /// The tensor table, in the order of the files.
    pub fn tensors(&self) -> &[TensorInfo<'a>] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo<'a>> {
        self.names.get(name).map(|&index| &self.tensors[index])
    }
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, ParseError> {
    let magic = cursor.array::<4>("the magic number")?;
    if &magic != MAGIC {
        return Err(ParseErrorKind::NotGguf { found: magic }.at(cursor.file(), 0));
    }
    let offset = cursor.offset();
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        // Small numbers read with the wrong byte order have their low half empty.
        _ if version != 0 && version & 0xffff == 0 => Err(ParseErrorKind::BigEndian.at(cursor.file(), offset)),
        _ => Err(ParseErrorKind::Version { version }.at(cursor.file(), offset)),
    }
}

fn read_entry<'a>(cursor: &mut Cursor<'a>) -> Result<(&'a str, Value<'a>), ParseError> {
    let start = cursor.offset();
    let key = cursor.string("a metadata key")?;
    let key = match std::str::from_utf8(key) {
        Ok(key) if !key.is_empty() && !key.contains('\0') => key,
        _ => return Err(ParseErrorKind::BadKey.at(cursor.file(), start)),
    };
    Ok((key, Value::read(cursor)?))
}

fn read_alignment(value: Option<&Value<'_>>) -> Result<u64, ParseErrorKind> {
    match value {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(alignment)) if alignment.is_power_of_two() => Ok(u64::from(*alignment)),
        Some(other) => Err(ParseErrorKind::BadAlignment { found: other.to_string() }),
    }
}
