//! Attention against its definition in f64, and rows, threads, trees and instruction sets against each other, bit for bit.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use super::super::gemm::{Isa, f16_to_f32};
use super::*;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in −1 … 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }
}

const F16: AttentionShape = AttentionShape {
    n_head: 4,
    n_head_kv: 2,
    head_dim: 64,
    keys: CacheFormat::F16,
    values: CacheFormat::F16,
    scale: 0.125,
    soft_cap: 0.0,
    window: usize::MAX,
};

/// The cases that every property is checked for.
fn shapes() -> Vec<AttentionShape> {
    let q8 = CacheFormat::Q8_0;
    vec![
        F16,
        AttentionShape { n_head: 1, n_head_kv: 1, head_dim: 80, ..F16 },
        AttentionShape { n_head: 7, n_head_kv: 1, head_dim: 96, soft_cap: 5.0, ..F16 },
        AttentionShape { n_head: 6, n_head_kv: 2, head_dim: 128, window: 77, ..F16 },
        AttentionShape { n_head: 2, n_head_kv: 1, head_dim: 256, scale: 2.0, soft_cap: 50.0, window: 600, ..F16 },
        AttentionShape { keys: q8, values: q8, ..F16 },
        AttentionShape { n_head: 8, keys: q8, head_dim: 128, ..F16 },
        AttentionShape { n_head: 2, values: q8, head_dim: 96, window: 1, ..F16 },
    ]
}

/// Keys or values of some cells.
struct CacheBytes {
    format: CacheFormat,
    stride: usize,
    bytes: Vec<u8>,
}

impl CacheBytes {
    fn new(format: CacheFormat, elements: usize, cells: usize, random: &mut Random) -> Self {
        let stride = format.bytes(elements);
        let mut bytes: Vec<u8> = (0..stride * cells).map(|_| (random.next() >> 56) as u8).collect();
        // Halves of both signs from 2^-13 to 4; half scales around 2^-7.
        match format {
            CacheFormat::F16 => {
                bytes.iter_mut().skip(1).step_by(2).for_each(|b| *b = *b & 0x83 | (*b % 15) << 2 | 0x08)
            }
            CacheFormat::Q8_0 => bytes.chunks_exact_mut(34).for_each(|b| b[1] = 0x20 | b[1] & 0x03),
        }
        Self { format, stride, bytes }
    }

    fn element(&self, cell: usize, i: usize) -> f64 {
        let cell = &self.bytes[cell * self.stride..][..self.stride];
        let half = |at: usize| f64::from(f16_to_f32(u16::from_le_bytes([cell[at], cell[at + 1]])));
        match self.format {
            CacheFormat::F16 => half(i * 2),
            CacheFormat::Q8_0 => half(i / 32 * 34) * f64::from(cell[i / 32 * 34 + 2 + i % 32] as i8),
        }
    }

    /// The same cells in another order; cells that are not named hold what must never be read as a number.
    fn moved(&self, to: &[usize], cells: usize) -> Self {
        let mut bytes = vec![0xff; cells * self.stride];
        for (from, to) in to.iter().enumerate() {
            bytes[to * self.stride..][..self.stride].copy_from_slice(&self.bytes[from * self.stride..][..self.stride]);
        }
        Self { bytes, ..*self }
    }
}

struct Case {
    shape: AttentionShape,
    history: usize,
    keys: CacheBytes,
    values: CacheBytes,
}

impl Case {
    fn new(shape: AttentionShape, history: usize, pass_cells: usize, random: &mut Random) -> Self {
        let elements = shape.n_head_kv * shape.head_dim;
        let keys = CacheBytes::new(shape.keys, elements, history + pass_cells, random);
        let values = CacheBytes::new(shape.values, elements, history + pass_cells, random);
        Self { shape, history, keys, values }
    }

    fn queries(&self, rows: usize, random: &mut Random) -> Vec<f32> {
        (0..rows * self.row_len()).map(|_| random.unit() * 2.0).collect()
    }

    fn row_len(&self) -> usize {
        self.shape.n_head * self.shape.head_dim
    }

    fn run(&self, isa: Isa, q: &[f32], ancestors: &[u64], words: usize, n_threads: usize) -> Vec<f32> {
        let visibility = Visibility::new(self.history, ancestors, words).unwrap();
        let workspace = Workspace::new(&self.shape, visibility.cells(), n_threads);
        self.run_in(isa, q, &visibility, &workspace, n_threads)
    }

    fn run_in(
        &self,
        isa: Isa,
        q: &[f32],
        visibility: &Visibility<'_>,
        workspace: &Workspace,
        n_threads: usize,
    ) -> Vec<f32> {
        assert!(self.shape.is_supported());
        let mut out = vec![f32::NAN; q.len()];
        let address = out.as_mut_ptr().expose_provenance();
        std::thread::scope(|scope| {
            for thread in 0..n_threads {
                scope.spawn(move || {
                    let operands = Operands {
                        q: q.as_ptr(),
                        q_row_stride: self.row_len(),
                        q_head_stride: self.shape.head_dim,
                        k: self.keys.bytes.as_ptr(),
                        k_stride: self.keys.stride,
                        k_head_stride: self.keys.format.bytes(self.shape.head_dim),
                        v: self.values.bytes.as_ptr(),
                        v_stride: self.values.stride,
                        v_head_stride: self.values.format.bytes(self.shape.head_dim),
                        out: std::ptr::with_exposed_provenance_mut(address),
                        out_stride: self.row_len(),
                    };
                    // SAFETY: everything has the size that the shape says.
                    unsafe { attention(isa, &self.shape, visibility, &operands, workspace, thread) }
                });
            }
        });
        out
    }

    /// The definition.
    fn expected(&self, q: &[f32], cells: &[usize]) -> Vec<f64> {
        let AttentionShape { n_head, head_dim, scale, soft_cap, window, .. } = self.shape;
        let cells = &cells[cells.len().saturating_sub(window)..];
        let mut out = Vec::new();
        for head in 0..n_head {
            let element = |i: usize| head / self.shape.group() * head_dim + i;
            let q = &q[head * head_dim..][..head_dim];
            let scores: Vec<f64> = cells
                .iter()
                .map(|&cell| {
                    let dot: f64 = (0..head_dim).map(|i| f64::from(q[i]) * self.keys.element(cell, element(i))).sum();
                    let (score, cap) = (dot * f64::from(scale), f64::from(soft_cap));
                    if soft_cap > 0.0 { cap * (score / cap).tanh() } else { score }
                })
                .collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let sum: f64 = weights.iter().sum();
            out.extend((0..head_dim).map(|i| {
                let values = cells.iter().zip(&weights).map(|(&cell, w)| w * self.values.element(cell, element(i)));
                values.sum::<f64>() / sum
            }));
        }
        out
    }
}

/// A tree: each row continues an earlier one or the history. Returns `[rows, words]` ancestors.
fn tree(rows: usize, words: usize, random: &mut Random) -> Vec<u64> {
    let mut ancestors = vec![0; rows * words];
    for row in 0..rows {
        if row > 0 && random.below(8) > 0 {
            // Near parents more often, for deep paths.
            let parent = row - 1 - random.below(row.min(3));
            ancestors.copy_within(parent * words..(parent + 1) * words, row * words);
        }
        ancestors[row * words + row / 64] |= 1 << (row % 64);
    }
    ancestors
}

/// A row's cells in position order.
fn cells_of(history: usize, bits: &[u64]) -> Vec<usize> {
    (0..history)
        .chain((0..bits.len() * 64).filter(|j| bits[j / 64] >> (j % 64) & 1 == 1).map(|j| history + j))
        .collect()
}

/// Each row continues the one before.
fn chain(rows: usize, words: usize) -> Vec<u64> {
    let mut ancestors = vec![0; rows * words];
    for (row, bits) in ancestors.chunks_exact_mut(words).enumerate() {
        for j in 0..=row {
            bits[j / 64] |= 1 << (j % 64);
        }
    }
    ancestors
}

fn bits(y: &[f32]) -> Vec<u32> {
    y.iter().map(|y| y.to_bits()).collect()
}

#[test]
fn attention_is_what_its_definition_says() {
    let mut random = Random(1);
    for shape in shapes() {
        for history in [0, 1, 63, 64, 200, 700] {
            let case = Case::new(shape, history, 20, &mut random);
            let (ancestors, q) = (tree(20, 1, &mut random), case.queries(20, &mut random));
            for isa in Isa::supported() {
                let out = case.run(isa, &q, &ancestors, 1, 2);
                for (row, out) in out.chunks_exact(case.row_len()).enumerate() {
                    let cells = cells_of(history, &ancestors[row..=row]);
                    let expected = case.expected(&q[row * case.row_len()..][..case.row_len()], &cells);
                    for (i, (got, want)) in out.iter().zip(expected).enumerate() {
                        let near = (f64::from(*got) - want).abs() < 2e-5;
                        assert!(near, "{isa:?} {shape:?} history {history} row {row} element {i}: {got} {want}");
                    }
                }
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_company_threads_place_or_instruction_set() {
    let mut random = Random(2);
    let portable = Isa::supported()[0];
    for shape in shapes() {
        for history in [0, 10, 600, 2000] {
            let (rows, words) = (65, 2);
            let case = Case::new(shape, history, rows, &mut random);
            let (ancestors, q) = (tree(rows, words, &mut random), case.queries(rows, &mut random));
            // Plain decoding: each row alone, its path compacted behind the history.
            let mut want = Vec::new();
            for (row, bits) in ancestors.chunks_exact(words).enumerate() {
                let path = cells_of(history, bits);
                let mut to = vec![path.len(); history + rows];
                path.iter().enumerate().for_each(|(position, &cell)| to[cell] = position);
                let plain = Case {
                    history: path.len() - 1,
                    keys: case.keys.moved(&to, path.len() + 1),
                    values: case.values.moved(&to, path.len() + 1),
                    ..case
                };
                want.extend(plain.run(portable, &q[row * case.row_len()..][..case.row_len()], &[1], 1, 1));
            }
            for isa in Isa::supported() {
                for (rows, n_threads) in [(1, 1), (1, 8), (2, 3), (5, 2), (16, 8), (17, 1), (33, 5), (64, 4), (65, 2)] {
                    let out = case.run(isa, &q[..rows * case.row_len()], &ancestors[..rows * words], words, n_threads);
                    let same = bits(&out) == bits(&want[..out.len()]);
                    assert!(same, "{isa:?} {shape:?} history {history} rows {rows} threads {n_threads}");
                }
                // Only some of the rows, as after dropping others.
                let kept = [3, 17, 18, 40, 64];
                let ancestors: Vec<u64> =
                    kept.iter().flat_map(|&row| ancestors[row * words..][..words].to_vec()).collect();
                let pick = |y: &[f32]| {
                    kept.iter()
                        .flat_map(|&row| y[row * case.row_len()..][..case.row_len()].to_vec())
                        .collect::<Vec<_>>()
                };
                assert_eq!(
                    bits(&case.run(isa, &pick(&q), &ancestors, words, 3)),
                    bits(&pick(&want)),
                    "{isa:?} {shape:?}"
                );
            }
        }
    }
}

#[test]
fn a_long_prompt_has_the_bits_of_its_tokens_one_by_one() {
    let mut random = Random(3);
    let shape = AttentionShape { n_head: 2, n_head_kv: 1, ..F16 };
    let (history, rows, words) = (37, 300, 5);
    let case = Case::new(shape, history, rows, &mut random);
    let q = case.queries(rows, &mut random);
    let isa = Isa::detect();
    let out = case.run(isa, &q, &chain(rows, words), words, 2);
    let in_place: Vec<usize> = (0..history + rows).collect();
    for row in 0..rows {
        let (keys, values) = (case.keys.moved(&in_place, history + rows), case.values.moved(&in_place, history + rows));
        let plain = Case { history: history + row, keys, values, ..case };
        let one = plain.run(isa, &q[row * case.row_len()..][..case.row_len()], &[1], 1, 1);
        assert_eq!(bits(&one), bits(&out[row * case.row_len()..][..case.row_len()]), "row {row}");
    }
}

#[test]
fn a_workspace_serves_one_node_after_another() {
    let mut random = Random(4);
    let case = Case::new(F16, 1500, 4, &mut random);
    let q = case.queries(2, &mut random);
    let visibility = Visibility::new(case.history, &[1, 0b1001], 1).unwrap();
    let workspace = Workspace::new(&AttentionShape { head_dim: 128, ..F16 }, 4096, 4);
    let first = case.run_in(Isa::detect(), &q, &visibility, &workspace, 4);
    for _ in 0..50 {
        assert_eq!(bits(&case.run_in(Isa::detect(), &q, &visibility, &workspace, 4)), bits(&first));
    }
}

#[test]
fn large_scores_and_values_stay_finite() {
    let mut random = Random(5);
    let shape = AttentionShape { scale: 1e4, ..F16 };
    let case = Case::new(shape, 300, 1, &mut random);
    let q = case.queries(1, &mut random);
    for isa in Isa::supported() {
        let out = case.run(isa, &q, &[1], 1, 1);
        let expected = case.expected(&q, &cells_of(300, &[1]));
        assert!(out.iter().zip(expected).all(|(got, want)| (f64::from(*got) - want).abs() < 1e-2), "{isa:?}");
    }
}

#[test]
fn shapes_that_the_kernels_cannot_do_are_refused() {
    assert!(!AttentionShape { head_dim: 72, ..F16 }.is_supported());
    assert!(!AttentionShape { head_dim: 80, keys: CacheFormat::Q8_0, ..F16 }.is_supported());
    assert!(!AttentionShape { n_head: 5, ..F16 }.is_supported());
}
