//! What is wrong with a GGUF file, and where.
//!
//! These errors do not know the file's path; whoever does turns them into the crate's [`Error`](crate::error::Error).

use std::fmt;
use std::path::Path;

use super::value::ValueType;
use crate::error::{Error, ErrorKind};

/// The file is not GGUF, or is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    kind: ParseErrorKind,
    file: usize,
    offset: u64,
}

impl ParseError {
    /// What is wrong.
    pub fn kind(&self) -> &ParseErrorKind {
        &self.kind
    }

    /// Index of the file it was found in: 0, or among the files of a split model.
    pub fn file(&self) -> usize {
        self.file
    }

    /// Byte in the file where it was noticed.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The crate's error, naming the file.
    pub fn in_file(&self, path: &Path) -> Error {
        ErrorKind::InvalidModel { path: path.to_owned(), reason: self.to_string() }.into()
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.kind, self.offset)
    }
}

impl std::error::Error for ParseError {}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// The file ends too early.
    #[error("the file ends within {what}: {needed} bytes are needed, {available} are left; was the download complete?")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Bytes it takes.
        needed: u64,
        /// Bytes that are left.
        available: u64,
    },
    /// The header is longer than what was read of the file.
    #[error("its header takes {needed} bytes or more, which no model's does")]
    LongHeader {
        /// Bytes from the start of the file on that it takes at least.
        needed: u64,
    },
    /// The file does not begin with `GGUF`.
    #[error("it begins with \"{}\" where \"GGUF\" is expected", found.escape_ascii())]
    NotGguf {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The file was written for a big-endian machine.
    #[error("it was written for big-endian machines; convert it to little-endian")]
    BigEndian,
    /// A version of the format that is not read.
    #[error("it has version {version} of the GGUF format and only 2 and 3 are read; convert the model again")]
    Version {
        /// The file's version.
        version: u32,
    },
    /// A count that the rest of the file cannot hold.
    #[error("it claims {count} {what} where the rest of the file has room for at most {fits}")]
    AbsurdCount {
        /// What is counted.
        what: &'static str,
        /// The count in the file.
        count: u64,
        /// How many there can be at most.
        fits: u64,
    },
    /// A metadata key is empty or not text.
    #[error("a metadata key is empty or not text")]
    BadKey,
    /// A metadata key occurs twice.
    #[error("the metadata key {key:?} occurs twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A metadata value has a type that is not known.
    #[error("a metadata value has the unknown type {code}")]
    ValueType {
        /// The type's number.
        code: u32,
    },
    /// A metadata value is an array of arrays.
    #[error("a metadata value is an array of arrays, which no model uses")]
    NestedArray,
    /// A truth value is neither 0 nor 1.
    #[error("a truth value in the metadata is {found}, neither 0 nor 1")]
    BadBool {
        /// The byte.
        found: u8,
    },
    /// `general.alignment` is not a power of two, or not a `u32`.
    #[error("general.alignment is {found} where a power of two (u32) is expected")]
    BadAlignment {
        /// The value.
        found: String,
    },
    /// A tensor's name is empty, longer than 63 bytes, or not text.
    #[error("a tensor's name is empty, longer than 63 bytes, or not text")]
    BadTensorName,
    /// A tensor name occurs twice.
    #[error("the tensor {name:?} occurs twice")]
    DuplicateTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor has more than four dimensions.
    #[error("tensor {name:?} has {n_dims} dimensions; at most 4 are possible")]
    Dimensions {
        /// The tensor.
        name: String,
        /// Its number of dimensions.
        n_dims: u32,
    },
    /// A tensor's shape has a zero, overflows, or its rows are not whole blocks of its type.
    #[error("tensor {name:?} has the impossible shape {shape} for type {ty}")]
    BadShape {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: String,
        /// Its type.
        ty: &'static str,
    },
    /// A tensor's type is not known.
    #[error(
        "tensor {name:?} has the unknown type {code}; it may need a newer version, or another quantisation of the model"
    )]
    TensorType {
        /// The tensor.
        name: String,
        /// The type's number.
        code: u32,
    },
    /// A tensor's data does not begin at a multiple of the file's alignment.
    #[error("tensor {name:?} begins at byte {start} of the data, not a multiple of {alignment}")]
    Misaligned {
        /// The tensor.
        name: String,
        /// Its offset within the data section, in bytes.
        start: u64,
        /// The alignment in bytes.
        alignment: u64,
    },
    /// A tensor's data ends beyond the file.
    #[error("tensor {name:?} ends beyond the file, which has {file_len} bytes; was the download complete?")]
    OutOfRange {
        /// The tensor.
        name: String,
        /// Length of the file in bytes.
        file_len: u64,
    },
    /// Two tensors share bytes.
    #[error("the tensors {first:?} and {second:?} overlap")]
    Overlap {
        /// The tensor that begins earlier.
        first: String,
        /// The tensor that begins within it.
        second: String,
    },
    /// The files of a split model do not belong together.
    #[error("the parts of a split model do not fit together: {reason}")]
    Split {
        /// What does not fit.
        reason: String,
    },
    /// A key that the reader itself needs has the wrong type.
    #[error(transparent)]
    Key(KeyError),
}

impl ParseErrorKind {
    pub(super) fn at(self, file: usize, offset: u64) -> ParseError {
        ParseError { kind: self, file, offset }
    }
}

/// A metadata key is missing or has the wrong type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key is not there.
    #[error("the metadata key {key:?} is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// The value is of another type, or does not fit the wanted one.
    #[error("the metadata key {key:?} is {found} where {expected} is expected")]
    WrongType {
        /// The key.
        key: String,
        /// What was wanted.
        expected: &'static str,
        /// What is there.
        found: String,
    },
}

impl KeyError {
    /// The crate's error, naming the file.
    pub fn in_file(&self, path: &Path) -> Error {
        ErrorKind::InvalidModel { path: path.to_owned(), reason: self.to_string() }.into()
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
