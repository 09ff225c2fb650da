//! The products against plain arithmetic, and every instruction set, row count and thread count against every other, bit for bit.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use super::activations::ActivationKind;
use super::half::f16_to_f32;
use super::*;

/// xorshift64*: the tests need many bytes, not good ones.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn byte(&mut self) -> u8 {
        (self.next() >> 56) as u8
    }

    /// Uniform in −1 … 1.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// What the bytes of a test matrix look like.
#[derive(Clone, Copy, Debug)]
enum Weights {
    /// Random quants, scales of trained models.
    Usual,
    /// Random quants, any finite half as scale.
    AnyScale,
    /// Random quants, subnormal halves as scales.
    Subnormal,
    /// Every quant byte the same.
    AllEqual(u8),
    /// Scales of zero.
    Zero,
}

const WEIGHTS: [Weights; 8] = [
    Weights::Usual,
    Weights::AnyScale,
    Weights::Subnormal,
    Weights::AllEqual(0x80),
    Weights::AllEqual(0x7f),
    Weights::AllEqual(0x00),
    Weights::AllEqual(0xff),
    Weights::Zero,
];

/// Where a format's blocks hold halves.
fn scale_offsets(format: WeightFormat) -> &'static [usize] {
    match format {
        WeightFormat::Q8_0 | WeightFormat::Q4_0 => &[0],
        WeightFormat::Q4_K => &[0, 2],
        WeightFormat::Q6_K => &[208],
    }
}

/// The bytes of a GGUF tensor of `n` rows of `k`.
fn tensor(format: WeightFormat, n: usize, k: usize, weights: Weights, random: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..n * format.gguf_row_bytes(k)).map(|_| random.byte()).collect();
    if let Weights::AllEqual(value) = weights {
        bytes.fill(value);
    }
    for block in bytes.chunks_exact_mut(format.gguf_block_bytes()) {
        for &at in scale_offsets(format) {
            let bits = random.next() as u16;
            let scale = match weights {
                Weights::Usual | Weights::AllEqual(_) => 0x1000 | bits & 0x8fff,
                Weights::AnyScale if bits & 0x7c00 == 0x7c00 => bits & 0x83ff,
                Weights::AnyScale => bits,
                Weights::Subnormal => bits & 0x83ff,
                Weights::Zero => 0,
            };
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes
}

/// One block's weights, from the format's definition.
fn dequantise(format: WeightFormat, block: &[u8]) -> Vec<f64> {
    let half = |at: usize| f64::from(f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]])));
    match format {
        WeightFormat::Q8_0 => block[2..].iter().map(|&q| half(0) * f64::from(q as i8)).collect(),
        WeightFormat::Q4_0 => {
            let nibbles = block[2..].iter().map(|q| q & 15).chain(block[2..].iter().map(|q| q >> 4));
            nibbles.map(|q| half(0) * (f64::from(q) - 8.0)).collect()
        }
        WeightFormat::Q4_K => (0..256)
            .map(|k| {
                let (run, s) = (k / 32, &block[4..16]);
                let (scale, minimum) = match run {
                    0..4 => (s[run] & 63, s[run + 4] & 63),
                    _ => (s[run + 4] & 15 | s[run - 4] >> 6 << 4, s[run + 4] >> 4 | s[run] >> 6 << 4),
                };
                let q = block[16 + k / 64 * 32 + k % 32] >> (run % 2 * 4) & 15;
                half(0) * f64::from(scale) * f64::from(q) - half(2) * f64::from(minimum)
            })
            .collect(),
        WeightFormat::Q6_K => (0..256)
            .map(|k| {
                let low = block[k / 128 * 64 + k % 64] >> (k % 128 / 64 * 4) & 15;
                let high = block[128 + k / 128 * 32 + k % 32] >> (k % 128 / 32 * 2) & 3;
                half(208) * f64::from(block[192 + k / 16] as i8) * (f64::from(low | high << 4) - 32.0)
            })
            .collect(),
    }
}

/// What quantisation makes of a row of activations, from ggml's definition.
fn round_trip(kind: ActivationKind, x: &[f32]) -> Vec<f64> {
    x.chunks_exact(kind.block_len())
        .flat_map(|x| {
            let amax = x.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
            let factor = if amax == 0.0 { 0.0 } else { 127.0 / amax };
            let scale = match kind {
                ActivationKind::Q8 => f16_to_f32(half::f32_to_f16(amax / 127.0)),
                ActivationKind::Q8K if factor == 0.0 => 0.0,
                ActivationKind::Q8K => 1.0 / factor,
            };
            x.iter().map(move |x| f64::from((x * factor).round_ties_even()) * f64::from(scale)).collect::<Vec<_>>()
        })
        .collect()
}

/// Memory aligned as packed matrices want it.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code)] [u8; 64]);

struct Memory(Vec<Line>);

impl Memory {
    fn new(bytes: usize) -> Self {
        Self(vec![Line([0xa5; 64]); bytes.div_ceil(64)])
    }

    fn bytes(&mut self, len: usize) -> &mut [u8] {
        // SAFETY: that many bytes were allocated and initialised, and u8 has no alignment.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }
}

/// A pointer that the threads of a test share.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);
// SAFETY: the kernels' threads write disjoint elements; that they do is what the tests check.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

/// Runs `work` on `n_threads` threads with one counter.
fn on_threads(n_threads: usize, work: impl Fn(Share<'_>) + Sync) {
    let counter = ChunkCounter::new();
    std::thread::scope(|scope| {
        for _ in 1..n_threads {
            scope.spawn(|| work(Share { counter: &counter, n_threads }));
        }
        work(Share { counter: &counter, n_threads });
    });
}

/// A packed matrix and its memory.
pub(super) struct Packed {
    matrix: PackedMatrix,
    _memory: Memory,
}

pub(super) fn pack(isa: Isa, format: WeightFormat, n: usize, k: usize, source: &[u8]) -> Packed {
    let shape = PackedShape::new(format, n, k, isa.interleave()).unwrap();
    let mut memory = Memory::new(shape.bytes());
    shape.pack(source, memory.bytes(shape.bytes()));
    // SAFETY: just packed, and the memory lives beside it.
    let matrix = unsafe { PackedMatrix::from_raw(shape, memory.0.as_ptr().cast()) };
    Packed { matrix, _memory: memory }
}

/// `x[rows, k]` quantised.
fn quantised(isa: Isa, kind: ActivationKind, x: &[f32], rows: usize, n_threads: usize) -> (ActivationShape, Memory) {
    let shape = ActivationShape::new(kind, rows, x.len() / rows, isa.interleave()).unwrap();
    let mut memory = Memory::new(shape.bytes());
    let out = Shared(memory.0.as_mut_ptr());
    // SAFETY: the memory has the shape's size.
    on_threads(n_threads, |share| unsafe {
        quantise(isa, &shape, x.as_ptr(), shape.k(), out.get().cast(), share);
    });
    (shape, memory)
}

/// `y[rows, n]` for one matrix.
pub(super) fn multiply(isa: Isa, packed: &Packed, x: &[f32], rows: usize, n_threads: usize) -> Vec<f32> {
    let n = packed.matrix.shape().n();
    let (shape, memory) = quantised(isa, packed.matrix.shape().format().activations(), x, rows, n_threads);
    let mut y = vec![f32::NAN; rows * n];
    let (out, quants) = (Shared(y.as_mut_ptr()), Shared(memory.0.as_ptr().cast_mut().cast::<u8>()));
    on_threads(n_threads, |share| {
        let part = Part { weights: packed.matrix, y: out.get(), stride: n, residual: std::ptr::null() };
        // SAFETY: everything has the size its shape says.
        unsafe { product(isa, &[part], &shape, quants.get(), share) }
    });
    y
}

/// Activations with ordinary rows, large ones, tiny ones, zeros and rows of one value.
fn activations(rows: usize, k: usize, random: &mut Random) -> Vec<f32> {
    let mut x = Vec::with_capacity(rows * k);
    for row in 0..rows {
        let magnitude = [1.0, 1e4, 1e-4, 0.0, 3.0][row % 5];
        x.extend((0..k).map(|i| match row % 7 {
            5 => magnitude,
            6 if i % 32 < 16 => 0.0,
            _ => random.unit() * magnitude,
        }));
    }
    x
}

fn bits(y: &[f32]) -> Vec<u32> {
    y.iter().map(|y| y.to_bits()).collect()
}

#[test]
fn products_agree_with_plain_arithmetic() {
    let mut random = Random(1);
    for format in WeightFormat::ALL {
        let k = 3 * format.block_len();
        for weights in WEIGHTS {
            let (n, rows) = (21, 7);
            let source = tensor(format, n, k, weights, &mut random);
            let x = activations(rows, k, &mut random);
            for isa in Isa::supported() {
                let y = multiply(isa, &pack(isa, format, n, k, &source), &x, rows, 1);
                for (row, x) in x.chunks_exact(k).enumerate() {
                    let x = round_trip(format.activations(), x);
                    for (column, w) in source.chunks_exact(format.gguf_row_bytes(k)).enumerate() {
                        let w = w.chunks_exact(format.gguf_block_bytes()).flat_map(|block| dequantise(format, block));
                        let (mut want, mut size) = (0.0, 0.0);
                        for (w, x) in w.zip(&x) {
                            want += w * x;
                            size += (w * x).abs();
                        }
                        let got = f64::from(y[row * n + column]);
                        // A handful of f32 roundings per block.
                        let near = (got - want).abs() <= size * 1e-6 + 1e-37;
                        assert!(near, "{isa:?} {format:?} {weights:?} row {row} column {column}: {got} {want}");
                    }
                }
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_company_threads_or_instruction_set() {
    let mut random = Random(2);
    let portable = Isa::supported()[0];
    for format in WeightFormat::ALL {
        for (n, blocks) in [(1, 1), (16, 2), (50, 3), (131, 5)] {
            let k = blocks * format.block_len();
            let source = tensor(format, n, k, Weights::Usual, &mut random);
            let x = activations(67, k, &mut random);
            let alone = pack(portable, format, n, k, &source);
            let want: Vec<u32> =
                x.chunks_exact(k).flat_map(|row| bits(&multiply(portable, &alone, row, 1, 1))).collect();
            for isa in Isa::supported() {
                let packed = pack(isa, format, n, k, &source);
                for rows in (1..=64).chain([65, 67]) {
                    let n_threads = rows % 8 + 1;
                    // The same rows in another place: the last ones rather than the first.
                    let from = 67 - rows;
                    let y = multiply(isa, &packed, &x[from * k..], rows, n_threads);
                    assert_eq!(
                        bits(&y),
                        want[from * n..],
                        "{isa:?} {format:?} n {n} k {k} rows {rows} threads {n_threads}"
                    );
                }
            }
        }
    }
}

#[test]
fn several_matrices_and_a_residual_in_one_walk() {
    let mut random = Random(3);
    let (k, rows, stride) = (256, 5, 100);
    for isa in Isa::supported() {
        let sources = [(WeightFormat::Q8_0, 40), (WeightFormat::Q4_0, 17), (WeightFormat::Q8_0, 1)]
            .map(|(format, n)| (format, n, tensor(format, n, k, Weights::Usual, &mut random)));
        let packed: Vec<Packed> = sources.iter().map(|(format, n, source)| pack(isa, *format, *n, k, source)).collect();
        let x = activations(rows, k, &mut random);
        let (shape, memory) = quantised(isa, ActivationKind::Q8, &x, rows, 2);
        let residual: Vec<f32> = (0..rows * stride).map(|_| random.unit()).collect();
        for n_threads in 1..=8 {
            let mut y = residual.clone();
            let (out, quants) = (Shared(y.as_mut_ptr()), Shared(memory.0.as_ptr().cast_mut().cast::<u8>()));
            on_threads(n_threads, |share| {
                let mut column = 0;
                let parts: Vec<Part> = packed
                    .iter()
                    .enumerate()
                    .map(|(i, packed)| {
                        // SAFETY: 40 + 17 + 1 columns fit the stride.
                        let y = unsafe { out.get().add(column) };
                        column += packed.matrix.shape().n();
                        let residual = if i == 1 { y.cast_const() } else { std::ptr::null() };
                        Part { weights: packed.matrix, y, stride, residual }
                    })
                    .collect();
                // SAFETY: everything has the size its shape says.
                unsafe { product(isa, &parts, &shape, quants.get(), share) }
            });
            let mut want = residual.clone();
            let mut column = 0;
            for (i, packed) in packed.iter().enumerate() {
                let n = packed.matrix.shape().n();
                for (row, result) in multiply(isa, packed, &x, rows, 1).chunks_exact(n).enumerate() {
                    for (j, result) in result.iter().enumerate() {
                        let at = row * stride + column + j;
                        want[at] = if i == 1 { result + residual[at] } else { *result };
                    }
                }
                column += n;
            }
            assert_eq!(bits(&y), bits(&want), "{isa:?} threads {n_threads}");
        }
    }
}

#[test]
fn gated_products_are_what_their_definition_says() {
    let mut random = Random(5);
    let (n, k) = (37, 256);
    for (format, function) in [(WeightFormat::Q8_0, Gate::Silu), (WeightFormat::Q4_K, Gate::Gelu)] {
        let sources = [0, 1].map(|_| tensor(format, n, k, Weights::Usual, &mut random));
        let x = activations(35, k, &mut random);
        let mut want: Option<Vec<u32>> = None;
        for isa in Isa::supported() {
            let [gate, up] = sources.each_ref().map(|source| pack(isa, format, n, k, source));
            for (rows, n_threads) in [(35, 1), (35, 4), (1, 2), (7, 8)] {
                let (shape, memory) = quantised(isa, format.activations(), &x[..rows * k], rows, 1);
                let mut y = vec![f32::NAN; rows * n];
                let (out, quants) = (Shared(y.as_mut_ptr()), Shared(memory.0.as_ptr().cast_mut().cast::<u8>()));
                on_threads(n_threads, |share| {
                    let part = GatedPart { gate: gate.matrix, up: up.matrix, function, y: out.get(), stride: n };
                    // SAFETY: everything has the size its shape says.
                    unsafe { gated_product(isa, &part, &shape, quants.get(), share) }
                });
                let same = &want.get_or_insert_with(|| bits(&y))[..y.len()];
                assert_eq!(bits(&y), same, "{isa:?} {function:?} rows {rows} threads {n_threads}");
                let gates = multiply(isa, &gate, &x[..rows * k], rows, 1);
                let ups = multiply(isa, &up, &x[..rows * k], rows, 1);
                for ((y, gate), up) in y.iter().zip(gates).zip(ups) {
                    let (g, up) = (f64::from(gate), f64::from(up));
                    let factor = match function {
                        Gate::Silu => g / (1.0 + (-g).exp()),
                        Gate::Gelu => g / 2.0 * (1.0 + (0.797_884_560_802_865_4 * (g + 0.044_715 * g * g * g)).tanh()),
                    };
                    let allowed = (factor.abs() * 1e-6 + g.abs() * 3e-7) * up.abs() + 1e-30;
                    let near = (f64::from(*y) - factor * up).abs() <= allowed;
                    assert!(near, "{isa:?} {function:?} gate {gate} up {up}: {y}");
                }
            }
        }
    }
}

#[test]
fn tiles_cover_the_rows_evenly() {
    for rows in 1..=200 {
        let shape = ActivationShape::new(ActivationKind::Q8, rows, 64, Isa::supported()[0].interleave()).unwrap();
        let tiles: Vec<_> = (0..shape.tiles()).map(|i| shape.tile(i)).collect();
        assert_eq!(tiles.iter().map(|t| t.rows).sum::<usize>(), rows);
        assert!(tiles.windows(2).all(|t| t[1].first == t[0].first + t[0].rows && t[0].rows - t[1].rows <= 1));
        assert!(tiles.windows(2).all(|t| t[1].offset == t[0].offset + t[0].stride * 2 * 44));
        assert!(tiles[0].rows <= 16);
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let interleave = Isa::detect().interleave();
    assert!(PackedShape::new(WeightFormat::Q8_0, 16, 48, interleave).is_none());
    assert!(PackedShape::new(WeightFormat::Q8_0, 0, 32, interleave).is_none());
    assert!(ActivationShape::new(ActivationKind::Q8, 0, 32, interleave).is_none());
    assert!(ActivationShape::new(ActivationKind::Q8, 1, 33, interleave).is_none());
}

#[test]
fn odd_activations_give_what_arithmetic_gives() {
    for isa in Isa::supported() {
        for format in [WeightFormat::Q4_K, WeightFormat::Q6_K] {
            let packed = pack(isa, format, 4, 256, &tensor(format, 4, 256, Weights::Usual, &mut Random(4)));
            let mut x = vec![1.0_f32; 256];
            x[200] = f32::NAN;
            assert!(multiply(isa, &packed, &x, 1, 1).iter().all(|y| y.is_nan()), "{isa:?}, {format:?}");
        }
        let source = tensor(WeightFormat::Q8_0, 4, 32, Weights::Usual, &mut Random(4));
        let packed = pack(isa, WeightFormat::Q8_0, 4, 32, &source);
        let mut x = vec![1.0_f32; 32];
        x[3] = f32::INFINITY;
        assert!(multiply(isa, &packed, &x, 1, 1).iter().all(|y| !y.is_finite()));
        assert!(multiply(isa, &packed, &[1e-38; 32], 1, 1).iter().all(|y| *y == 0.0));
        for at in [0, 15, 31] {
            let mut x = vec![1.0_f32; 32];
            x[at] = f32::NAN;
            assert!(multiply(isa, &packed, &x, 1, 1).iter().all(|y| y.is_nan()), "{isa:?}, {at}");
        }
    }
}

/// Small enough for Miri.
#[test]
fn a_small_product_is_sound_and_keeps_its_bits() {
    for format in [WeightFormat::Q8_0, WeightFormat::Q4_0, WeightFormat::Q4_K, WeightFormat::Q6_K] {
        for isa in Isa::supported() {
            let packed = pack(isa, format, 17, 256, &tensor(format, 17, 256, Weights::Usual, &mut Random(4)));
            let x = activations(5, 256, &mut Random(9));
            let (together, alone) = (multiply(isa, &packed, &x, 5, 2), multiply(isa, &packed, &x[..256], 1, 1));
            assert_eq!(bits(&together[..17]), bits(&alone), "{isa:?}, {format:?}");
        }
    }
}
