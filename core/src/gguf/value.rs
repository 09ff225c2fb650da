//! Metadata values, borrowed from the file.
//!
//! Arrays stay in the file's bytes and are decoded as they are iterated: a vocabulary of 260,000 strings costs nothing until
//! someone reads it.

use std::fmt;

use super::cursor::Cursor;
use super::error::{ParseError, ParseErrorKind};

/// Bytes a metadata entry takes at least: the length of its key, one byte of key, the type, one byte of value.
pub(super) const MIN_ENTRY_BYTES: usize = 8 + 1 + 4 + 1;

/// Characters of a string that an error message shows.
const SHOWN_CHARS: usize = 40;

/// The type of a metadata value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    fn from_code(code: u32) -> Option<Self> {
        const BY_CODE: [ValueType; 13] = {
            use ValueType::*;
            [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64]
        };
        BY_CODE.get(code as usize).copied()
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        let start = cursor.offset();
        let code = cursor.u32("the type of a metadata value")?;
        Self::from_code(code).ok_or_else(|| ParseErrorKind::ValueType { code }.at(cursor.file(), start))
    }

    /// Bytes of a value of this type; of strings and arrays, those of the length in front.
    fn min_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }
}

/// A metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// A string, which should be UTF-8 and sometimes is not (token strings in particular).
    String(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// Reads a type and a value of it.
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Self, ParseError> {
        match ValueType::read(cursor)? {
            ValueType::Array => Array::read(cursor).map(Self::Array),
            scalar => Self::read_scalar(cursor, scalar),
        }
    }

    fn read_scalar(cursor: &mut Cursor<'a>, ty: ValueType) -> Result<Self, ParseError> {
        let what = "a metadata value";
        Ok(match ty {
            ValueType::U8 => Self::U8(u8::from_le_bytes(cursor.array(what)?)),
            ValueType::I8 => Self::I8(i8::from_le_bytes(cursor.array(what)?)),
            ValueType::U16 => Self::U16(u16::from_le_bytes(cursor.array(what)?)),
            ValueType::I16 => Self::I16(i16::from_le_bytes(cursor.array(what)?)),
            ValueType::U32 => Self::U32(cursor.u32(what)?),
            ValueType::I32 => Self::I32(i32::from_le_bytes(cursor.array(what)?)),
            ValueType::F32 => Self::F32(f32::from_le_bytes(cursor.array(what)?)),
            ValueType::U64 => Self::U64(cursor.u64(what)?),
            ValueType::I64 => Self::I64(i64::from_le_bytes(cursor.array(what)?)),
            ValueType::F64 => Self::F64(f64::from_le_bytes(cursor.array(what)?)),
            ValueType::String => Self::String(cursor.string(what)?),
            ValueType::Bool => {
                let start = cursor.offset();
                match cursor.array::<1>(what)? {
                    [byte @ (0 | 1)] => Self::Bool(byte == 1),
                    [found] => return Err(ParseErrorKind::BadBool { found }.at(cursor.file(), start)),
                }
            }
            ValueType::Array => return Err(ParseErrorKind::NestedArray.at(cursor.file(), cursor.offset())),
        })
    }

    /// The value's type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// The value of an integer of any width.
    fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(v) => v.into(),
            Self::I8(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U64(v) => v.into(),
            Self::I64(v) => v.into(),
            _ => return None,
        })
    }
}

/// One line, shortened, for error messages and `inspect`: `u32 32`, `string "llama"`, `array of 32000 string`.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32(v) => write!(f, "f32 {v}"),
            Self::F64(v) => write!(f, "f64 {v}"),
            Self::Bool(v) => write!(f, "bool {v}"),
            Self::Array(array) => write!(f, "array of {} {}", array.len(), array.element_type()),
            Self::String(bytes) => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN_CHARS)]);
                let shown: String = text.chars().take(SHOWN_CHARS).collect();
                let more = if shown.len() < bytes.len() { "…" } else { "" };
                write!(f, "string {shown:?}{more}")
            }
            integer => match integer.integer() {
                Some(v) => write!(f, "{} {v}", self.value_type()),
                None => write!(f, "{}", self.value_type()),
            },
        }
    }
}

/// An array of values of one type, still in the file's bytes.
#[derive(Clone, Copy, PartialEq)]
pub struct Array<'a> {
    element_type: ValueType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Reads the element type, the length and the extent, checking every element.
    fn read(cursor: &mut Cursor<'a>) -> Result<Self, ParseError> {
        let start = cursor.offset();
        let element_type = ValueType::read(cursor)?;
        if element_type == ValueType::Array {
            return Err(ParseErrorKind::NestedArray.at(cursor.file(), start));
        }
        let len = cursor.count("array elements", element_type.min_bytes())?;
        let mut elements = cursor.clone();
        match element_type {
            // Only these can be malformed one by one.
            ValueType::String | ValueType::Bool => {
                for _ in 0..len {
                    Value::read_scalar(cursor, element_type)?;
                }
            }
            _ => drop(cursor.take(len as u64 * element_type.min_bytes() as u64, "an array")?),
        }
        let bytes = elements.take(cursor.offset() - elements.offset(), "an array")?;
        Ok(Self { element_type, len, bytes })
    }

    /// Type of the elements; never [`ValueType::Array`].
    pub fn element_type(&self) -> ValueType {
        self.element_type
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements.
    pub fn values(&self) -> Values<'a> {
        Values {
            element_type: self.element_type,
            left: self.len,
            cursor: Cursor::new(self.bytes, self.bytes.len() as u64, 0),
        }
    }

    /// The elements of an array of strings; `None` for other arrays.
    pub fn strings(&self) -> Option<Strings<'a>> {
        (self.element_type == ValueType::String).then(|| Strings(self.values()))
    }

    /// The elements as `T`s; `None` if one of them is something else or does not fit.
    pub fn to_vec<T: FromValue<'a>>(&self) -> Option<Vec<T>> {
        self.values().map(|value| T::from_value(&value)).collect()
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}; {}]", self.element_type, self.len)
    }
}

/// Iterator over the elements of an [`Array`].
#[derive(Clone, Debug)]
pub struct Values<'a> {
    element_type: ValueType,
    left: usize,
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        // Every element was read once when the array was; it reads again.
        Value::read_scalar(&mut self.cursor, self.element_type).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Values<'_> {}

/// Iterator over the elements of an [`Array`] of strings: bytes that should be UTF-8.
#[derive(Clone, Debug)]
pub struct Strings<'a>(Values<'a>);

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match self.0.next()? {
            Value::String(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Strings<'_> {}

/// What a metadata value can be read as.
pub trait FromValue<'a>: Sized {
    /// The wanted type in an error message.
    const EXPECTED: &'static str;

    /// The value, if it is one of these.
    fn from_value(value: &Value<'a>) -> Option<Self>;
}

macro_rules! from_integer {
    ($($ty:ident: $expected:literal),*) => {$(
        impl FromValue<'_> for $ty {
            const EXPECTED: &'static str = $expected;

            fn from_value(value: &Value<'_>) -> Option<Self> {
                value.integer()?.try_into().ok()
            }
        }
    )*};
}

from_integer!(u16: "an integer from 0 to 65535", u32: "a non-negative integer (u32)", i32: "an integer (i32)");
from_integer!(u64: "a non-negative integer (u64)", usize: "a non-negative integer");

impl FromValue<'_> for f32 {
    const EXPECTED: &'static str = "a number (f32)";

    #[expect(clippy::cast_possible_truncation, reason = "a hyperparameter has no more digits than an f32")]
    fn from_value(value: &Value<'_>) -> Option<Self> {
        match *value {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        }
    }
}

impl FromValue<'_> for bool {
    const EXPECTED: &'static str = "a truth value";

    fn from_value(value: &Value<'_>) -> Option<Self> {
        if let Value::Bool(v) = *value { Some(v) } else { None }
    }
}

impl<'a> FromValue<'a> for &'a [u8] {
    const EXPECTED: &'static str = "a string";

    fn from_value(value: &Value<'a>) -> Option<Self> {
        if let Value::String(v) = *value { Some(v) } else { None }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const EXPECTED: &'static str = "a string of valid UTF-8";

    fn from_value(value: &Value<'a>) -> Option<Self> {
        std::str::from_utf8(FromValue::from_value(value)?).ok()
    }
}

impl<'a> FromValue<'a> for Array<'a> {
    const EXPECTED: &'static str = "an array";

    fn from_value(value: &Value<'a>) -> Option<Self> {
        if let Value::Array(v) = *value { Some(v) } else { None }
    }
}
