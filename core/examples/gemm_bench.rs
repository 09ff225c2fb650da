//! How many rows a pass over a 1B-shaped model's products costs, beside a plain read of as many bytes in the same run.
//!
//! `cargo run --release --example gemm_bench -- [threads] [format …]`. Milliseconds are medians (and minima) over interleaved
//! rounds; compare ratios of one run, because memory bandwidth swings with the neighbours. With 0 threads, arithmetic alone:
//! a matrix in the second cache, one thread, the best of many runs too short to be interrupted. The kernels are compiled into
//! the example itself: they are no part of the public API. `HUGE_PAGES=1` asks Linux for huge pages.
#![allow(
    unsafe_code,
    dead_code,
    unused_imports,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::unwrap_used
)]

#[path = "../src/kernels/gemm/mod.rs"]
mod gemm;
#[path = "../src/kernels/vector/mod.rs"]
mod vector;

use gemm::{
    ActivationShape, ChunkCounter, Isa, PackedMatrix, PackedShape, Part, Share, WeightFormat, product, quantise,
};
use std::hint::black_box;
use std::time::Instant;

/// Weight matrices (n, k) of one decoder layer; a run holds 16 layers and an output matrix.
const LAYER: [(usize, usize); 4] = [(3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192)];
const LAYERS: usize = 16;
const OUTPUT: (usize, usize) = (32768, 2048);
const ROWS: [usize; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 64];

struct Model {
    matrices: Vec<PackedMatrix>,
    memory: Vec<u64>,
}

impl Model {
    /// Random quants and plausible scales, packed.
    fn new(format: WeightFormat, isa: Isa, shapes: impl Iterator<Item = (usize, usize)>) -> Self {
        let shapes: Vec<PackedShape> =
            shapes.map(|(n, k)| PackedShape::new(format, n, k, isa.interleave()).unwrap()).collect();
        let bytes: usize = shapes.iter().map(PackedShape::bytes).sum();
        let mut memory = vec![0_u64; bytes / 8 + 8];
        #[cfg(target_os = "linux")]
        if std::env::var_os("HUGE_PAGES").is_some() {
            unsafe extern "C" {
                fn madvise(address: *mut u8, len: usize, advice: i32) -> i32;
            }
            // SAFETY: whole pages inside the fresh allocation, and advice does not change what they hold.
            unsafe {
                let start = memory.as_mut_ptr().cast::<u8>();
                let skip = start.align_offset(4096);
                madvise(start.add(skip), (bytes - skip) & !4095, 14);
            }
        }
        let mut state = 88_172_645_463_325_252_u64;
        for word in &mut memory {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Every half of the word is a small number if a kernel takes it for a scale.
            *word = state & 0xbfff_bfff_bfff_bfff;
        }
        let mut at = memory.as_ptr().cast::<u8>();
        at = at.wrapping_add(at.align_offset(64));
        let matrices = shapes
            .into_iter()
            .map(|shape| {
                // SAFETY: the memory holds all shapes one after another, and lives as long as the model.
                let matrix = unsafe { PackedMatrix::from_raw(shape, at) };
                at = at.wrapping_add(shape.bytes());
                matrix
            })
            .collect();
        Self { matrices, memory }
    }

    fn bytes(&self) -> usize {
        self.matrices.iter().map(|m| m.shape().bytes()).sum()
    }

    /// Quantises an input for every matrix and multiplies it: one thread's part of a pass.
    fn pass(&self, isa: Isa, rows: usize, buffers: &Buffers, thread: &Thread<'_>) {
        for (i, matrix) in self.matrices.iter().enumerate() {
            let shape = matrix.shape();
            let x = ActivationShape::new(shape.format().activations(), rows, shape.k(), isa.interleave()).unwrap();
            let share = |counter| Share { counter, n_threads: thread.n_threads };
            let (xq, y) = (buffers.quantised.as_ptr().cast_mut().cast::<u8>(), buffers.y.as_ptr().cast_mut());
            let part = Part { weights: *matrix, y, stride: shape.n(), residual: std::ptr::null() };
            // SAFETY: the buffers are large enough for the largest matrix and row count, and the barriers keep nodes apart.
            unsafe {
                quantise(isa, &x, buffers.x.as_ptr(), shape.k(), xq, share(&thread.counters[2 * i]));
                thread.barrier.wait();
                product(isa, &[part], &x, xq, share(&thread.counters[2 * i + 1]));
                thread.barrier.wait();
            }
        }
    }

    /// One thread's part of reading every byte once.
    fn read(&self, thread: usize, n_threads: usize) {
        let len = self.memory.len() / n_threads;
        // One word of each cache line brings the line.
        let words = &self.memory[thread * len..(thread + 1) * len];
        black_box(words.iter().step_by(8).fold(0, |sum, word| sum ^ word));
    }
}

struct Buffers {
    x: Vec<f32>,
    quantised: Vec<u64>,
    y: Vec<f32>,
}

impl Buffers {
    fn new() -> Self {
        Self {
            x: (0..64 * 8192).map(|i: u32| f64::from(i.wrapping_mul(2_654_435_761)) as f32 / 4e9 - 0.5).collect(),
            quantised: vec![0; 64 * 8192 / 4],
            y: vec![0.0; 64 * OUTPUT.0],
        }
    }
}

struct Thread<'a> {
    n_threads: usize,
    counters: &'a [ChunkCounter],
    barrier: &'a SpinBarrier,
}

/// A barrier like ggml's: threads that wait spin.
struct SpinBarrier {
    n_threads: usize,
    arrived: std::sync::atomic::AtomicUsize,
}

impl SpinBarrier {
    fn wait(&self) {
        use std::sync::atomic::Ordering;
        let ticket = self.arrived.fetch_add(1, Ordering::AcqRel);
        let round = ticket / self.n_threads + 1;
        while self.arrived.load(Ordering::Acquire) < round * self.n_threads {
            std::hint::spin_loop();
        }
    }
}

/// Milliseconds that `work` takes on `n_threads` threads.
fn timed(n_threads: usize, work: impl Fn(usize, &SpinBarrier) + Sync) -> f64 {
    let barrier = SpinBarrier { n_threads, arrived: 0.into() };
    std::thread::scope(|scope| {
        for thread in 1..n_threads {
            let (work, barrier) = (&work, &barrier);
            scope.spawn(move || {
                barrier.wait();
                work(thread, barrier);
                barrier.wait();
            });
        }
        barrier.wait();
        let start = Instant::now();
        work(0, &barrier);
        barrier.wait();
        start.elapsed().as_secs_f64() * 1e3
    })
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let n_threads: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(2);
    let wanted: Vec<String> = arguments.collect();
    let isa = Isa::detect();
    println!("{}, {n_threads} threads", isa.name());
    for format in WeightFormat::ALL {
        if wanted.is_empty() || wanted.contains(&format!("{format:?}")) {
            if n_threads == 0 { bench_cached(format, isa) } else { bench(format, isa, n_threads) }
        }
    }
}

/// Billions of multiplications per second on one core with everything in its caches.
fn bench_cached(format: WeightFormat, isa: Isa) {
    let model = Model::new(format, isa, [(64, 2048)].into_iter());
    let (counter, buffers) = (ChunkCounter::new(), Buffers::new());
    let matrix = model.matrices[0];
    let best = |work: &dyn Fn()| {
        let run = || {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e6
        };
        (0..3000).map(|_| run()).fold(f64::INFINITY, f64::min)
    };
    let xq = buffers.quantised.as_ptr().cast_mut().cast::<u8>();
    for rows in ROWS {
        let shape = ActivationShape::new(format.activations(), rows, 2048, isa.interleave()).unwrap();
        let share = Share { counter: &counter, n_threads: 1 };
        // SAFETY: the buffers are large enough.
        let quantising = best(&|| unsafe { quantise(isa, &shape, buffers.x.as_ptr(), 2048, xq, share) });
        let part = Part { weights: matrix, y: buffers.y.as_ptr().cast_mut(), stride: 64, residual: std::ptr::null() };
        // SAFETY: as above.
        let multiplying = best(&|| unsafe { product(isa, &[part], &shape, xq, share) });
        println!(
            "{format:?} rows {rows:2}: product {multiplying:6.2} us, {:.3} us a row, {:.0} G/s; quantise {:.3} us a row",
            multiplying / rows as f64,
            (rows * 64 * 2048) as f64 / multiplying / 1e3,
            quantising / rows as f64
        );
    }
}

fn bench(format: WeightFormat, isa: Isa, n_threads: usize) {
    let model = Model::new(format, isa, (0..LAYERS).flat_map(|_| LAYER).chain([OUTPUT]));
    let counters: Vec<ChunkCounter> = (0..2 * model.matrices.len()).map(|_| ChunkCounter::new()).collect();
    let buffers = Buffers::new();
    let mut times = vec![Vec::new(); ROWS.len() + 1];
    for _ in 0..7 {
        times[0].push(timed(n_threads, |thread, _| model.read(thread, n_threads)));
        for (rows, times) in ROWS.iter().zip(&mut times[1..]) {
            times.push(timed(n_threads, |_, barrier| {
                model.pass(isa, *rows, &buffers, &Thread { n_threads, counters: &counters, barrier });
            }));
        }
    }
    for times in &mut times {
        times.sort_by(f64::total_cmp);
    }
    let (median, gigabytes) = (|i: usize| times[i][times[i].len() / 2], model.bytes() as f64 / 1e6);
    println!("{format:?}: {:.0} MB", model.bytes() as f64 / 1e6);
    println!("  plain read {:7.1} ms (min {:.1}), {:.1} GB/s", median(0), times[0][0], gigabytes / median(0));
    for (i, rows) in ROWS.iter().enumerate() {
        println!(
            "  rows {rows:2}  {:7.1} ms (min {:.1}), x{:.2} of one row, {:.1} GB/s",
            median(i + 1),
            times[i + 1][0],
            median(i + 1) / median(1),
            gigabytes / median(i + 1)
        );
    }
}
