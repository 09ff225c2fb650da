//! The speed of reading memory and nothing else, by which a table of decoding speeds is to be read.

use std::time::Instant;

/// Words of 8 bytes per thread: far more than caches hold.
const WORDS: usize = 32 << 20;

/// GB/s that `threads` threads read together, the best of five tries.
pub(crate) fn read_bandwidth(threads: usize) -> f64 {
    let blocks: Vec<Vec<u64>> = (0..threads.max(1)).map(|i| vec![i as u64 + 1; WORDS]).collect();
    let seconds = (0..5).map(|_| {
        let start = Instant::now();
        let mixed: u64 = std::thread::scope(|scope| {
            let read = |block: &'_ Vec<u64>| block.iter().fold(0, |mixed, word| mixed ^ word);
            let threads: Vec<_> = blocks.iter().map(|block| scope.spawn(move || read(block))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).fold(0, |mixed, word| mixed ^ word)
        });
        std::hint::black_box(mixed);
        start.elapsed().as_secs_f64()
    });
    (blocks.len() * WORDS * 8) as f64 / seconds.fold(f64::INFINITY, f64::min) / 1e9
}
