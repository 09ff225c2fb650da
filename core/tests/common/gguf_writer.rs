//! Writes GGUF files, sound ones and, where a test asks for it, unsound ones. It checks nothing.

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Meta {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(Vec<u8>),
    U64(u64),
    I64(i64),
    F64(f64),
    /// Elements of one type, and the type's number where there are none to tell it.
    Array(u32, Vec<Meta>),
}

impl Meta {
    pub fn code(&self) -> u32 {
        match self {
            Meta::U8(_) => 0,
            Meta::I8(_) => 1,
            Meta::U16(_) => 2,
            Meta::I16(_) => 3,
            Meta::U32(_) => 4,
            Meta::I32(_) => 5,
            Meta::F32(_) => 6,
            Meta::Bool(_) => 7,
            Meta::Str(_) => 8,
            Meta::Array(..) => 9,
            Meta::U64(_) => 10,
            Meta::I64(_) => 11,
            Meta::F64(_) => 12,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Meta::U8(v) => out.push(*v),
            Meta::I8(v) => out.extend(v.to_le_bytes()),
            Meta::U16(v) => out.extend(v.to_le_bytes()),
            Meta::I16(v) => out.extend(v.to_le_bytes()),
            Meta::U32(v) => out.extend(v.to_le_bytes()),
            Meta::I32(v) => out.extend(v.to_le_bytes()),
            Meta::F32(v) => out.extend(v.to_le_bytes()),
            Meta::Bool(v) => out.push(u8::from(*v)),
            Meta::U64(v) => out.extend(v.to_le_bytes()),
            Meta::I64(v) => out.extend(v.to_le_bytes()),
            Meta::F64(v) => out.extend(v.to_le_bytes()),
            Meta::Str(v) => string(out, v),
            Meta::Array(code, elements) => {
                out.extend(code.to_le_bytes());
                out.extend((elements.len() as u64).to_le_bytes());
                elements.iter().for_each(|element| element.write(out));
            }
        }
    }
}

macro_rules! meta_from {
    ($($from:ty => $variant:ident),*) => {$(
        impl From<$from> for Meta {
            fn from(value: $from) -> Self {
                Meta::$variant(value.into())
            }
        }

        impl From<Vec<$from>> for Meta {
            fn from(values: Vec<$from>) -> Self {
                Meta::Array(Meta::$variant(Default::default()).code(), values.into_iter().map(Meta::from).collect())
            }
        }
    )*};
}

meta_from!(u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, f32 => F32, bool => Bool);
meta_from!(u64 => U64, i64 => I64, f64 => F64, &str => Str, String => Str);

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    pub dims: Vec<u64>,
    /// ggml's number of the type.
    pub ty: u32,
    pub data: Vec<u8>,
    /// Offset to claim, where it is not the true one.
    pub offset: Option<u64>,
}

/// A GGUF file to be written.
#[derive(Clone, Debug)]
pub struct GgufWriter {
    pub version: u32,
    pub alignment: usize,
    pub metadata: Vec<(String, Meta)>,
    pub tensors: Vec<Tensor>,
}

impl Default for GgufWriter {
    fn default() -> Self {
        Self { version: 3, alignment: 32, metadata: Vec::new(), tensors: Vec::new() }
    }
}

impl GgufWriter {
    /// Sets a key, in place if it is there.
    pub fn set(&mut self, key: &str, value: impl Into<Meta>) -> &mut Self {
        let value = value.into();
        match self.metadata.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key.to_owned(), value)),
        }
        self
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.metadata.retain(|(k, _)| k != key);
        self
    }

    pub fn get(&self, key: &str) -> Option<&Meta> {
        self.metadata.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// Adds a tensor; `dims` with the row length first.
    pub fn tensor(&mut self, name: &str, dims: &[u64], ty: u32, data: Vec<u8>) -> &mut Self {
        self.tensors.push(Tensor { name: name.to_owned(), dims: dims.to_vec(), ty, data, offset: None });
        self
    }

    /// The tensor called `name`, to be tampered with.
    pub fn tensor_mut(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).expect("no such tensor")
    }

    /// The file's bytes.
    pub fn write(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            string(&mut out, key.as_bytes());
            out.extend(value.code().to_le_bytes());
            value.write(&mut out);
        }
        let mut offset = 0_usize;
        for tensor in &self.tensors {
            string(&mut out, tensor.name.as_bytes());
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.ty.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(offset as u64).to_le_bytes());
            offset = (offset + tensor.data.len()).next_multiple_of(self.alignment);
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&tensor.data);
        }
        if !self.tensors.is_empty() {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
        }
        out
    }

    /// The file cut into `n_parts` files of a split model, tensors dealt out in order.
    pub fn write_split(&self, n_parts: u16) -> Vec<Vec<u8>> {
        let per_part = self.tensors.len().div_ceil(usize::from(n_parts));
        (0..n_parts)
            .map(|part| {
                let mut file = Self { version: self.version, alignment: self.alignment, ..Self::default() };
                if part == 0 {
                    file.metadata = self.metadata.clone();
                }
                file.set("split.no", part).set("split.count", n_parts);
                file.set("split.tensors.count", self.tensors.len() as i32);
                file.tensors = self.tensors.iter().skip(usize::from(part) * per_part).take(per_part).cloned().collect();
                file.write()
            })
            .collect()
    }
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}
