//! Our own interleaved layout of a weight matrix, and how it is made from GGUF rows.
//!
//! Weight rows stand in groups. A group is a plane of scales followed by a plane of quants, each in ascending order of `k`, so that
//! vectors of quants are aligned, and what is asked for ahead of the quants of one group ends in the scales of the next. Inside
//! the plane of quants a *slab* is `step` consecutive weights of every row of the group; where two weights share a byte, slab `2i` has
//! the low nibbles and `2i + 1` the high ones. Missing rows of the last group are zero. The values are those of the file: nothing is
//! requantised.
//!
//! Memory is the caller's: [`PackedShape::bytes`] says how much, and groups can be packed in any order, by any thread.

use super::format::WeightFormat;
use super::isa::Interleave;

/// Alignment of every group, and of the memory that holds packed matrices, in bytes.
pub(crate) const ALIGNMENT: usize = 64;

/// The shape of a packed matrix: `n` rows of `k` weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PackedShape {
    format: WeightFormat,
    n: usize,
    k: usize,
    interleave: Interleave,
}

impl PackedShape {
    /// The shape of `n` rows of `k` weights; `None` unless `k` is a positive multiple of the format's block.
    pub(crate) fn new(format: WeightFormat, n: usize, k: usize, interleave: Interleave) -> Option<Self> {
        (k > 0 && n > 0 && k.is_multiple_of(format.block_len())).then_some(Self { format, n, k, interleave })
    }

    /// The weights' format.
    pub(crate) const fn format(&self) -> WeightFormat {
        self.format
    }

    /// Weight rows: the length of a row of the product.
    pub(crate) const fn n(&self) -> usize {
        self.n
    }

    /// Weights per row: the length of a row of activations.
    pub(crate) const fn k(&self) -> usize {
        self.k
    }

    /// The order of the weights in memory.
    pub(crate) const fn interleave(&self) -> Interleave {
        self.interleave
    }

    /// Groups of weight rows; the last may have fewer rows than `interleave().group`.
    pub(crate) const fn groups(&self) -> usize {
        self.n.div_ceil(self.interleave.group)
    }

    /// Blocks per row.
    pub(crate) const fn blocks(&self) -> usize {
        self.k / self.format.block_len()
    }

    /// Bytes of a row's scales and of its quants in one block.
    const fn block_bytes(&self) -> (usize, usize) {
        match self.format {
            WeightFormat::Q8_0 => (2, 32),
            WeightFormat::Q4_0 => (2, 16),
            WeightFormat::Q4_K => (q4_k::BYTES, 128),
            WeightFormat::Q6_K => (q6_k::BYTES, 192),
        }
    }

    /// Bytes of a group's scales, which come first, a multiple of [`ALIGNMENT`].
    pub(super) const fn scales_bytes(&self) -> usize {
        (self.blocks() * self.interleave.group * self.block_bytes().0).next_multiple_of(ALIGNMENT)
    }

    /// Bytes of a group, a multiple of [`ALIGNMENT`].
    pub(crate) const fn group_bytes(&self) -> usize {
        let quants = self.blocks() * self.interleave.group * self.block_bytes().1;
        self.scales_bytes() + quants.next_multiple_of(ALIGNMENT)
    }

    /// Bytes of the whole matrix.
    pub(crate) const fn bytes(&self) -> usize {
        self.groups() * self.group_bytes()
    }

    /// Packs one group.
    ///
    /// `rows` are the GGUF bytes of the group's rows (`interleave().group` rows, fewer only in the last group), `out` its
    /// [`group_bytes`](Self::group_bytes).
    ///
    /// # Panics
    ///
    /// If the lengths are not those.
    pub(crate) fn pack_group(&self, rows: &[u8], out: &mut [u8]) {
        let row_bytes = self.format.gguf_row_bytes(self.k);
        assert_eq!(out.len(), self.group_bytes(), "a group's memory");
        assert!(
            rows.len() <= row_bytes * self.interleave.group && rows.len().is_multiple_of(row_bytes),
            "a group's rows"
        );
        if rows.len() < row_bytes * self.interleave.group {
            out.fill(0); // rows that are not there multiply as zeros
        }
        match self.interleave.step {
            4 => self.pack_rows::<4>(rows, out),
            8 => self.pack_rows::<8>(rows, out),
            step => unreachable!("no instruction set multiplies {step} weights per lane"),
        }
    }

    /// [`pack_group`](Self::pack_group) for a step that the compiler knows: bytes then move as words.
    fn pack_rows<const STEP: usize>(&self, rows: &[u8], out: &mut [u8]) {
        let row_bytes = self.format.gguf_row_bytes(self.k);
        let (scales, quants) = out.split_at_mut(self.scales_bytes());
        for (row, bytes) in rows.chunks_exact(row_bytes).enumerate() {
            for (block, bytes) in bytes.chunks_exact(self.format.gguf_block_bytes()).enumerate() {
                match self.format {
                    WeightFormat::Q8_0 => self.pack_q8_0::<STEP>(scales, quants, row, block, bytes),
                    WeightFormat::Q4_0 => self.pack_q4_0::<STEP>(scales, quants, row, block, bytes),
                    WeightFormat::Q4_K => self.pack_q4_k::<STEP>(scales, quants, row, block, bytes),
                    WeightFormat::Q6_K => self.pack_q6_k::<STEP>(scales, quants, row, block, bytes),
                }
            }
        }
    }

    /// Packs the whole matrix from its GGUF bytes on this thread.
    ///
    /// # Panics
    ///
    /// If `source` is not `n` rows or `out` not [`bytes`](Self::bytes) long.
    #[cfg(test)]
    pub(crate) fn pack(&self, source: &[u8], out: &mut [u8]) {
        let row_bytes = self.format.gguf_row_bytes(self.k);
        assert_eq!(source.len(), self.n * row_bytes, "a matrix in the file");
        assert_eq!(out.len(), self.bytes(), "a packed matrix");
        let groups = source.chunks(row_bytes * self.interleave.group);
        for (rows, out) in groups.zip(out.chunks_exact_mut(self.group_bytes())) {
            self.pack_group(rows, out);
        }
    }

    /// Where in a slab-ordered plane of bytes the weight `k` of `row` stands.
    const fn slab_offset(&self, row: usize, k: usize) -> usize {
        let Interleave { group, step, .. } = self.interleave;
        k / step * (group * step) + row * step + k % step
    }

    fn pack_q8_0<const STEP: usize>(
        &self,
        scales: &mut [u8],
        quants: &mut [u8],
        row: usize,
        block: usize,
        bytes: &[u8],
    ) {
        let flip = if self.interleave.signed { 0 } else { 0x80 };
        for (i, weights) in bytes[2..].as_chunks::<STEP>().0.iter().enumerate() {
            let at = self.slab_offset(row, block * 32 + i * STEP);
            quants[at..at + STEP].copy_from_slice(&weights.map(|weight| weight ^ flip));
        }
        write(scales, (block * self.interleave.group + row) * 2, &bytes[..2]);
    }

    fn pack_q4_0<const STEP: usize>(
        &self,
        scales: &mut [u8],
        quants: &mut [u8],
        row: usize,
        block: usize,
        bytes: &[u8],
    ) {
        // In the file a byte holds weights i and i + 16 of its block.
        let nibbles = &bytes[2..];
        let weight = |k: usize| if k < 16 { nibbles[k] & 15 } else { nibbles[k - 16] >> 4 };
        let group = self.interleave.group;
        self.pack_nibbles::<STEP, 32>(&mut quants[group * block * 16..], row, std::array::from_fn(weight));
        write(scales, (block * group + row) * 2, &bytes[..2]);
    }

    fn pack_q4_k<const STEP: usize>(
        &self,
        scales: &mut [u8],
        quants: &mut [u8],
        row: usize,
        block: usize,
        bytes: &[u8],
    ) {
        let (in_file, nibbles) = (&bytes[4..16], &bytes[16..]);
        // In the file 32 bytes hold two runs of 32 weights, the first in the low nibbles.
        let weight = |k: usize| nibbles[k / 64 * 32 + k % 32] >> (k / 32 % 2 * 4) & 15;
        let group = self.interleave.group;
        self.pack_nibbles::<STEP, 256>(&mut quants[group * block * 128..], row, std::array::from_fn(weight));
        let scales = &mut scales[group * block * q4_k::BYTES..];
        for run in 0..8 {
            // Six bits each: the first four runs in a byte's low bits, the others' upper two bits above those.
            let (scale, minimum) = if run < 4 {
                (in_file[run] & 63, in_file[run + 4] & 63)
            } else {
                let upper = |i: usize| in_file[i] >> 6 << 4;
                (in_file[run + 4] & 15 | upper(run - 4), in_file[run + 4] >> 4 | upper(run))
            };
            scales[group * (q4_k::SCALES + run) + row] = scale;
            scales[group * (q4_k::MINIMA + run / 2 * 2) + row * 2 + run % 2] = minimum;
        }
        write(scales, group * q4_k::SCALE + row * 2, &bytes[..2]);
        write(scales, group * q4_k::MINIMUM + row * 2, &bytes[2..4]);
    }

    fn pack_q6_k<const STEP: usize>(
        &self,
        scales: &mut [u8],
        quants: &mut [u8],
        row: usize,
        block: usize,
        bytes: &[u8],
    ) {
        let (low, high, in_file) = (&bytes[..128], &bytes[128..192], &bytes[192..]);
        // In the file each half of 128 weights is four runs of 32: nibbles low, low, high, high; two bits each in turn.
        let nibble = |k: usize| low[k / 128 * 64 + k % 64] >> (k / 64 % 2 * 4) & 15;
        let bits = |k: usize| high[k / 128 * 32 + k % 32] >> (k / 32 % 4 * 2) & 3;
        let group = self.interleave.group;
        let (high, low) = quants[group * block * 192..].split_at_mut(group * 64);
        self.pack_nibbles::<STEP, 256>(low, row, std::array::from_fn(nibble));
        // Four slabs share a byte of upper bits.
        for k in (0..256).step_by(4 * STEP) {
            let at = self.slab_offset(row, k / 4);
            for i in 0..STEP {
                high[at + i] = (0..4).map(|slab| bits(k + slab * STEP + i) << (2 * slab)).sum();
            }
        }
        let scales = &mut scales[group * block * q6_k::BYTES..];
        for run in 0..16 {
            scales[group * (q6_k::SCALES + run) + row] = in_file[run];
        }
        write(scales, group * q6_k::SCALE + row * 2, &in_file[16..]);
    }

    /// Writes the nibbles of a block of `row`, slabs in pairs of low and high nibbles.
    fn pack_nibbles<const STEP: usize, const LEN: usize>(&self, quants: &mut [u8], row: usize, weights: [u8; LEN]) {
        let slabs = weights.as_chunks::<STEP>().0;
        for (pair, [low, high]) in slabs.as_chunks::<2>().0.iter().enumerate() {
            let at = self.slab_offset(row, pair * STEP);
            let joined: [u8; STEP] = std::array::from_fn(|i| low[i] | high[i] << 4);
            quants[at..at + STEP].copy_from_slice(&joined);
        }
    }
}

fn write(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Offsets in a block of the scales of `Q4_K`, per row of the group: multiply by the group.
pub(super) mod q4_k {
    /// Scales of the eight runs, each for all rows.
    pub(crate) const SCALES: usize = 0;
    /// Minima of the eight runs in four pairs, each for all rows.
    pub(crate) const MINIMA: usize = 8;
    /// Half scales of the scales.
    pub(crate) const SCALE: usize = 16;
    /// Half scales of the minima.
    pub(crate) const MINIMUM: usize = 18;
    /// The whole block.
    pub(crate) const BYTES: usize = 20;
}

/// Offsets in a block of the scales of `Q6_K`, per row of the group: multiply by the group.
pub(super) mod q6_k {
    /// Scales of the sixteen runs, each for all rows.
    pub(crate) const SCALES: usize = 0;
    /// Half scales of the scales.
    pub(crate) const SCALE: usize = 16;
    /// The whole block.
    pub(crate) const BYTES: usize = 18;
}

/// A packed matrix in memory that somebody else owns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedMatrix {
    shape: PackedShape,
    data: *const u8,
}

// SAFETY: a packed matrix is only ever read, and `from_raw` demands that nobody writes it meanwhile.
unsafe impl Send for PackedMatrix {}
// SAFETY: as above.
unsafe impl Sync for PackedMatrix {}

impl PackedMatrix {
    /// The matrix of `shape` at `data`.
    ///
    /// # Safety
    ///
    /// `data` is aligned to [`ALIGNMENT`], and `shape.bytes()` bytes written by [`PackedShape::pack_group`] of the same shape can be
    /// read there, unchanged, while this value or a copy of it is used.
    pub(crate) unsafe fn from_raw(shape: PackedShape, data: *const u8) -> Self {
        debug_assert!(data.addr().is_multiple_of(ALIGNMENT));
        Self { shape, data }
    }

    /// The shape.
    pub(crate) const fn shape(&self) -> &PackedShape {
        &self.shape
    }

    /// The first byte of a group.
    pub(super) fn group(&self, group: usize) -> *const u8 {
        debug_assert!(group < self.shape.groups());
        self.data.wrapping_add(group * self.shape.group_bytes())
    }
}
