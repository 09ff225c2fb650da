//! What attention over a long cache costs per row, for the heads of a 1B model.
//!
//! `cargo run --release --example attention_bench -- [threads]`. Microseconds per layer, the best of many runs; the rows are a chain
//! and, for comparison, a tree of two branches. The kernels are compiled into the example itself: they are no part of the
//! public API.
#![allow(
    unsafe_code,
    dead_code,
    unused_imports,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::unwrap_used
)]

#[path = "../src/kernels/attention/mod.rs"]
mod attention;
#[path = "../src/kernels/gemm/mod.rs"]
mod gemm;
#[path = "../src/kernels/vector/mod.rs"]
mod vector;

use attention::{AttentionShape, CacheFormat, Operands, Visibility, Workspace, attention};
use gemm::Isa;
use std::time::Instant;

const CELLS: [usize; 3] = [256, 1024, 2048];
const ROWS: [usize; 6] = [1, 2, 4, 8, 16, 64];

fn main() {
    let n_threads: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1);
    let isa = Isa::detect();
    println!("{}, {n_threads} threads", isa.name());
    for format in [CacheFormat::F16, CacheFormat::Q8_0] {
        let shape = AttentionShape {
            n_head: 32,
            n_head_kv: 8,
            head_dim: 64,
            keys: format,
            values: format,
            scale: 0.125,
            soft_cap: 0.0,
            window: usize::MAX,
        };
        for cells in CELLS {
            print!("{format:?}, {cells} cells:");
            for rows in ROWS {
                let chain: Vec<u64> = (0..rows).map(|row| u64::MAX >> (63 - row)).collect();
                // Rows alternate between two branches.
                let tree: Vec<u64> =
                    (0..rows).map(|row| (u64::MAX >> (63 - row)) & (0x5555_5555_5555_5555 << (row % 2))).collect();
                let times = [chain, tree].map(|ancestors| best(isa, &shape, cells, &ancestors, n_threads));
                print!("  {rows} rows {:.0} ({:.0})", times[0], times[1]);
            }
            println!();
        }
    }
}

/// Microseconds.
fn best(isa: Isa, shape: &AttentionShape, cells: usize, ancestors: &[u64], n_threads: usize) -> f64 {
    let rows = ancestors.len();
    let stride = shape.keys.bytes(shape.head_dim);
    // Halves of 0.01 and bytes of 0x21.
    let cache = vec![0x21_u8; stride * cells * shape.n_head_kv];
    let q = vec![0.25_f32; rows * shape.n_head * shape.head_dim];
    let mut out = vec![0.0_f32; q.len()];
    let visibility = Visibility::new(cells - rows, ancestors, 1).unwrap();
    let workspace = Workspace::new(shape, cells, n_threads);
    let address = out.as_mut_ptr().expose_provenance();
    let work = |thread| {
        let operands = Operands {
            q: q.as_ptr(),
            q_row_stride: shape.n_head * shape.head_dim,
            q_head_stride: shape.head_dim,
            k: cache.as_ptr(),
            k_stride: stride,
            k_head_stride: stride * cells,
            v: cache.as_ptr(),
            v_stride: stride,
            v_head_stride: stride * cells,
            out: std::ptr::with_exposed_provenance_mut(address),
            out_stride: shape.n_head * shape.head_dim,
        };
        // SAFETY: everything has the size that the shape says.
        unsafe { attention(isa, shape, &visibility, &operands, &workspace, thread) }
    };
    let barrier = std::sync::Barrier::new(n_threads);
    let run = || {
        std::thread::scope(|scope| {
            for thread in 1..n_threads {
                let (work, barrier) = (&work, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    work(thread);
                });
            }
            barrier.wait();
            let start = Instant::now();
            work(0);
            start.elapsed().as_secs_f64() * 1e6
        })
    };
    (0..100).map(|_| run()).fold(f64::INFINITY, f64::min)
}
