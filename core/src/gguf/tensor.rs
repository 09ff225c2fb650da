//! The tensor table: what each tensor is called, its type and shape, and where its bytes lie.

use std::fmt;

use super::cursor::Cursor;
use super::error::{ParseError, ParseErrorKind};

/// Bytes an entry of the table takes at least: the length of its name, one byte of name, number of dimensions, type, offset.
pub(super) const MIN_ENTRY_BYTES: usize = 8 + 1 + 4 + 4 + 8;

/// ggml keeps names in 64 bytes with a terminating zero (`GGML_MAX_NAME`).
const MAX_NAME_BYTES: usize = 63;

macro_rules! tensor_types {
    ($($variant:ident = $code:literal, $name:literal, $block:literal, $bytes:literal;)*) => {
        /// How the numbers of a tensor are stored: the types of ggml that may stand in a file.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[expect(missing_docs, non_camel_case_types, reason = "these are ggml's names")]
        pub enum TensorType {
            $($variant = $code,)*
        }

        impl TensorType {
            /// Every type.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The type with ggml's number `code`.
            pub fn from_code(code: u32) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// ggml's name, for example `q4_K`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Numbers in a block. The rows of a tensor are whole blocks.
            pub fn block_len(self) -> u64 {
                match self {
                    $(Self::$variant => $block,)*
                }
            }

            /// Bytes of a block.
            pub fn block_bytes(self) -> u64 {
                match self {
                    $(Self::$variant => $bytes,)*
                }
            }
        }
    };
}

tensor_types! {
    F32 = 0, "f32", 1, 4;
    F16 = 1, "f16", 1, 2;
    Q4_0 = 2, "q4_0", 32, 18;
    Q4_1 = 3, "q4_1", 32, 20;
    Q5_0 = 6, "q5_0", 32, 22;
    Q5_1 = 7, "q5_1", 32, 24;
    Q8_0 = 8, "q8_0", 32, 34;
    Q8_1 = 9, "q8_1", 32, 36;
    Q2_K = 10, "q2_K", 256, 84;
    Q3_K = 11, "q3_K", 256, 110;
    Q4_K = 12, "q4_K", 256, 144;
    Q5_K = 13, "q5_K", 256, 176;
    Q6_K = 14, "q6_K", 256, 210;
    Q8_K = 15, "q8_K", 256, 292;
    IQ2_XXS = 16, "iq2_xxs", 256, 66;
    IQ2_XS = 17, "iq2_xs", 256, 74;
    IQ3_XXS = 18, "iq3_xxs", 256, 98;
    IQ1_S = 19, "iq1_s", 256, 50;
    IQ4_NL = 20, "iq4_nl", 32, 18;
    IQ3_S = 21, "iq3_s", 256, 110;
    IQ2_S = 22, "iq2_s", 256, 82;
    IQ4_XS = 23, "iq4_xs", 256, 136;
    I8 = 24, "i8", 1, 1;
    I16 = 25, "i16", 1, 2;
    I32 = 26, "i32", 1, 4;
    I64 = 27, "i64", 1, 8;
    F64 = 28, "f64", 1, 8;
    IQ1_M = 29, "iq1_m", 256, 56;
    BF16 = 30, "bf16", 1, 2;
    TQ1_0 = 34, "tq1_0", 256, 54;
    TQ2_0 = 35, "tq2_0", 256, 66;
    MXFP4 = 39, "mxfp4", 32, 17;
    NVFP4 = 40, "nvfp4", 64, 36;
    Q1_0 = 41, "q1_0", 128, 18;
    Q2_0 = 42, "q2_0", 64, 18;
}

impl TensorType {
    /// ggml's number.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// Bytes of a row of `len` numbers; `None` if that is not whole blocks, or overflows.
    pub fn row_bytes(self, len: u64) -> Option<u64> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Extents of a tensor, the contiguous dimension (row length) first, as ggml counts: the weights of a product that makes
/// `n_out` numbers of `n_in` have the shape `[n_in, n_out]`. Each extent is at least 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    extents: [u64; 4],
    n_dims: usize,
}

impl Shape {
    /// The extents that stand in the file, at most four.
    pub fn dims(&self) -> &[u64] {
        &self.extents[..self.n_dims]
    }

    /// All four extents, 1 where the file has none.
    pub fn extents(&self) -> [u64; 4] {
        self.extents
    }

    /// Length of a row: the first extent.
    pub fn row_len(&self) -> u64 {
        self.extents[0]
    }

    /// Number of rows: the product of the other extents.
    pub fn n_rows(&self) -> u64 {
        self.extents[1..].iter().product()
    }

    /// Number of elements. Fits `i64`.
    pub fn n_elements(&self) -> u64 {
        self.extents.iter().product()
    }

    /// Bytes of a tensor of this shape; `None` if the shape is impossible for the type.
    fn byte_size(&self, ty: TensorType) -> Option<u64> {
        let mut n_elements = 1_u64;
        for &extent in &self.extents {
            n_elements = n_elements.checked_mul(extent)?;
        }
        if n_elements == 0 || i64::try_from(n_elements).is_err() {
            return None;
        }
        ty.row_bytes(self.row_len())?.checked_mul(self.n_rows()).filter(|&size| i64::try_from(size).is_ok())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

/// One tensor of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    /// Its name, at most 63 bytes.
    pub name: &'a str,
    /// How its numbers are stored.
    pub ty: TensorType,
    /// Its shape.
    pub shape: Shape,
    /// Index of the file it is in: 0, or among the files of a split model.
    pub file: usize,
    /// Where its data begins, in bytes from the beginning of that file.
    pub offset: u64,
    /// Bytes of its data. `offset + size` is within the file.
    pub size: u64,
}

impl<'a> TensorInfo<'a> {
    /// Reads an entry; `offset` is relative to the data section until [`place`] has run.
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Self, ParseError> {
        let (file, start) = (cursor.file(), cursor.offset());
        let name = match std::str::from_utf8(cursor.string("a tensor's name")?) {
            Ok(name) if (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.contains('\0') => name,
            _ => return Err(ParseErrorKind::BadTensorName.at(file, start)),
        };
        let n_dims = cursor.u32("a tensor's number of dimensions")?;
        if n_dims > 4 {
            return Err(ParseErrorKind::Dimensions { name: name.to_owned(), n_dims }.at(file, start));
        }
        let mut shape = Shape { extents: [1; 4], n_dims: n_dims as usize };
        for extent in &mut shape.extents[..n_dims as usize] {
            *extent = cursor.u64("a tensor's shape")?;
        }
        let code = cursor.u32("a tensor's type")?;
        let Some(ty) = TensorType::from_code(code) else {
            return Err(ParseErrorKind::TensorType { name: name.to_owned(), code }.at(file, start));
        };
        let Some(size) = shape.byte_size(ty) else {
            let (name, shape) = (name.to_owned(), shape.to_string());
            return Err(ParseErrorKind::BadShape { name, shape, ty: ty.name() }.at(file, start));
        };
        let offset = cursor.u64("a tensor's offset")?;
        Ok(Self { name, ty, shape, file, offset, size })
    }

    /// End of its data, in bytes from the beginning of its file.
    pub fn end(&self) -> u64 {
        self.offset + self.size
    }
}

/// Makes offsets absolute, `table_end` being where the cursor stands, and checks that every tensor is aligned, within the
/// file, and alone in its bytes.
pub(super) fn place(tensors: &mut [TensorInfo<'_>], table_end: &Cursor<'_>, alignment: u64) -> Result<(), ParseError> {
    let (file, file_len) = (table_end.file(), table_end.file_len());
    // Cannot overflow: a position in memory plus less than 2^32.
    let data_start = table_end.offset().next_multiple_of(alignment);
    for tensor in tensors.iter_mut() {
        let name = || tensor.name.to_owned();
        let start = tensor.offset;
        if !start.is_multiple_of(alignment) {
            return Err(ParseErrorKind::Misaligned { name: name(), start, alignment }.at(file, table_end.offset()));
        }
        let end = data_start.checked_add(start).and_then(|offset| offset.checked_add(tensor.size));
        if end.is_none_or(|end| end > file_len) {
            return Err(ParseErrorKind::OutOfRange { name: name(), file_len }.at(file, file_len));
        }
        tensor.offset += data_start;
    }
    let mut by_offset: Vec<&TensorInfo<'_>> = tensors.iter().collect();
    by_offset.sort_unstable_by_key(|tensor| tensor.offset);
    for pair in by_offset.windows(2) {
        if pair[0].end() > pair[1].offset {
            let (first, second) = (pair[0].name.to_owned(), pair[1].name.to_owned());
            return Err(ParseErrorKind::Overlap { first, second }.at(file, pair[1].offset));
        }
    }
    Ok(())
}
