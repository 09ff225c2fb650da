//! What a layer looks like in memory: its matrices one behind the other, each in the layout of the kernels that multiply it.
//!
//! A *blob* is all that is read together: the matrices of a layer, or those outside the layers (embeddings, output rows). A
//! slot holds a blob, and so does a prepared file, byte for byte.

use crate::architecture::{Architecture, GlobalTensor, LayerTensor};
use crate::executor::options::Kernels;
use crate::gguf::{Gguf, TensorInfo, TensorType};
use crate::kernels::direct::BLOCK;
use crate::kernels::gemm::{Isa, PackedShape, WeightFormat};

/// The matrices of a layer, or those outside the layers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Blob {
    /// In the order of their places.
    pub(crate) parts: Vec<Part>,
    /// How it is cut to be read by several threads at once: side by side, from beginning to end.
    pub(crate) runs: Vec<Run>,
    /// A multiple of [`BLOCK`].
    pub(crate) bytes: usize,
}

/// One matrix of a blob.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    /// Which it is.
    pub(crate) role: Role,
    /// The file of the model that it is in.
    pub(crate) file: usize,
    /// Where it begins there, in bytes.
    pub(crate) offset: u64,
    /// Bytes in the file.
    pub(crate) size: usize,
    /// Where it begins in the blob, a multiple of [`BLOCK`].
    pub(crate) at: usize,
    /// Bytes in the blob.
    pub(crate) len: usize,
    /// How it lies there.
    pub(crate) form: Form,
}

/// Some of a matrix: what one read brings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Run {
    /// The file of the model that it is in.
    pub(crate) file: usize,
    /// Where it begins there, in bytes.
    pub(crate) offset: u64,
    /// Bytes in the file.
    pub(crate) size: usize,
    /// Where it begins in the blob, a multiple of [`BLOCK`].
    pub(crate) at: usize,
    /// Bytes in the blob, what fills them up to a whole block included.
    pub(crate) len: usize,
    /// How it lies there.
    pub(crate) form: Form,
}

/// Which matrix a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// One of its layer.
    Layer(LayerTensor),
    /// The rows that tokens are embedded by.
    Embedding,
    /// The rows that logits are made with.
    Output,
}

/// How a matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Packed for our kernels.
    Packed(PackedShape),
    /// As in the file: the element type by ggml's number, and the dimensions.
    Plain {
        /// ggml's number.
        element: u32,
        /// Contiguous first.
        dims: [u64; 4],
    },
}

/// Bytes of a run, about. Large enough that starting a read costs nothing beside it; small enough that a few are in flight for
/// every layer.
const RUN: usize = 2 << 20;

/// The blobs of a model: one per layer, then what is outside the layers.
pub(crate) fn blobs(arch: &Architecture, file: &Gguf<'_>, kernels: Kernels, isa: Isa) -> Vec<Blob> {
    let layer = |layer: u32| {
        let present = LayerTensor::ALL.into_iter().filter(|t| t.is_matrix() && t.spec(arch).is_some());
        let tensors = present.filter_map(|t| Some((Role::Layer(t), file.tensor(&t.name(layer))?)));
        Blob::new(tensors.map(|(role, info)| (role, info, packed_shape(&info.into(), kernels, isa))))
    };
    let mut blobs: Vec<Blob> = (0..arch.n_layers).map(layer).collect();
    let embedding = file.tensor(GlobalTensor::TokenEmbedding.name());
    let output = file.tensor(GlobalTensor::Output.name()).or(embedding);
    let tied = file.tensor(GlobalTensor::Output.name()).is_none();
    let output = output.map(|info| (Role::Output, info, packed_shape(&info.into(), kernels, isa)));
    // Where nobody wants them in another layout, tied rows are there once.
    let output = output.filter(|(_, _, packed)| !tied || packed.is_some());
    let embedding = embedding.map(|info| (Role::Embedding, info, None));
    blobs.push(Blob::new(output.into_iter().chain(embedding)));
    blobs
}

/// The shape in which our kernels take a matrix, if they take it and may.
pub(crate) fn packed_shape(matrix: &Matrix, kernels: Kernels, isa: Isa) -> Option<PackedShape> {
    let format = match matrix.ty {
        _ if kernels == Kernels::Ggml => return None,
        TensorType::Q8_0 => WeightFormat::Q8_0,
        TensorType::Q4_0 => WeightFormat::Q4_0,
        TensorType::Q4_K => WeightFormat::Q4_K,
        TensorType::Q6_K => WeightFormat::Q6_K,
        _ => return None,
    };
    PackedShape::new(format, matrix.rows, matrix.row_len, isa.interleave())
}

/// Type and size of a matrix.
pub(crate) struct Matrix {
    ty: TensorType,
    rows: usize,
    row_len: usize,
}

impl From<&TensorInfo<'_>> for Matrix {
    fn from(info: &TensorInfo<'_>) -> Self {
        Self { ty: info.ty, rows: to_usize(info.shape.n_rows()), row_len: to_usize(info.shape.row_len()) }
    }
}

impl Blob {
    fn new<'a>(tensors: impl Iterator<Item = (Role, &'a TensorInfo<'a>, Option<PackedShape>)>) -> Self {
        let (mut parts, mut runs, mut at) = (Vec::new(), Vec::new(), 0);
        for (role, info, packed) in tensors {
            let size = to_usize(info.size);
            let plain = || Form::Plain { element: info.ty.code(), dims: info.shape.extents() };
            let len = packed.map_or(size, |shape| shape.bytes());
            let form = packed.map_or_else(plain, Form::Packed);
            let part = Part { role, file: info.file, offset: info.offset, size, at, len, form };
            part.cut(&mut runs);
            at = (at + len).next_multiple_of(BLOCK);
            parts.push(part);
        }
        Self { parts, runs, bytes: at }
    }
}

impl Part {
    /// Cuts the matrix into runs of whole blocks, and of whole groups if it is packed.
    fn cut(&self, runs: &mut Vec<Run>) {
        let (unit_in, unit_out) = match self.form {
            Form::Packed(shape) => {
                (shape.interleave().group * shape.format().gguf_row_bytes(shape.k()), shape.group_bytes())
            }
            Form::Plain { .. } => (BLOCK, BLOCK),
        };
        // Groups are multiples of 64 bytes: so many of them are whole blocks.
        let whole = BLOCK / greatest_common_divisor(BLOCK, unit_out);
        let units = (RUN / unit_out / whole).max(1) * whole;
        let (mut done_in, mut done_out) = (0, 0);
        while done_out < self.len {
            let size = (units * unit_in).min(self.size - done_in);
            let used = (units * unit_out).min(self.len - done_out);
            runs.push(Run {
                file: self.file,
                offset: self.offset + done_in as u64,
                size,
                at: self.at + done_out,
                len: used.next_multiple_of(BLOCK),
                form: self.form,
            });
            (done_in, done_out) = (done_in + size, done_out + used);
        }
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The file was checked against the address space when it was mapped.
fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("a mapped file fits the address space")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn cut(format: WeightFormat, n: usize, k: usize) -> (Vec<Run>, usize) {
        let shape = PackedShape::new(format, n, k, Isa::detect().interleave()).unwrap();
        let size = n * format.gguf_row_bytes(k);
        let (len, form) = (shape.bytes(), Form::Packed(shape));
        let part = Part { role: Role::Output, file: 0, offset: 1000, size, at: BLOCK, len, form };
        let mut runs = Vec::new();
        part.cut(&mut runs);
        (runs, size)
    }

    #[test]
    fn runs_are_whole_blocks_side_by_side_and_read_every_byte_once() {
        for format in WeightFormat::ALL {
            for (n, k) in [(1, 256), (100, 512), (4096, 768), (1000, 4096), (77, 12288)] {
                let (runs, size) = cut(format, n, k);
                let (mut at, mut offset) = (BLOCK, 1000);
                for run in &runs {
                    assert!(run.at.is_multiple_of(BLOCK) && run.len.is_multiple_of(BLOCK), "{format:?} {n} {k}");
                    assert_eq!((run.at, run.offset), (at, offset), "{format:?} {n} {k}");
                    (at, offset) = (at + run.len, offset + run.size as u64);
                }
                assert_eq!(offset, 1000 + size as u64);
            }
        }
    }
}
