//! Handing out work to the threads of one graph node.
//!
//! Fixed shares stall where cores differ in speed, so threads take chunks from a counter until none is left. The counter rewinds
//! itself when the last thread leaves, because a graph node has no moment at which only one thread could rewind it.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the chunks of one graph node that have been taken. Each node owns one; it lives as long as the graph.
#[derive(Debug, Default)]
pub(crate) struct ChunkCounter(AtomicUsize);

impl ChunkCounter {
    /// A counter at the start.
    pub(crate) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }
}

/// One thread's claim to a share of a node's chunks.
///
/// All `n_threads` threads must call [`take`](Self::take) with the same `total` until it returns `None`, and no thread may begin the
/// node's next run before all have (ggml's barrier between nodes gives both).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share<'a> {
    /// The node's counter.
    pub(crate) counter: &'a ChunkCounter,
    /// Threads that run the node: `nth`, at least 1.
    pub(crate) n_threads: usize,
}

impl Share<'_> {
    /// The next chunk in `0 .. total`, or `None` when all are taken. After `None`, do not call again in this run.
    pub(crate) fn take(&self, total: usize) -> Option<usize> {
        // What a chunk's thread wrote is published by the barrier after the node; the counter itself orders nothing.
        let chunk = self.counter.0.fetch_add(1, Ordering::Relaxed);
        if chunk < total {
            return Some(chunk);
        }
        // Every thread overshoots once, so the overshoots are total ..= total + n_threads - 1 and the largest is the last one.
        if chunk + 1 == total + self.n_threads {
            self.counter.0.store(0, Ordering::Relaxed);
        }
        None
    }

    /// How many of `items` make up a chunk, so that every thread gets several and none is larger than `largest`.
    pub(crate) fn chunk_len(&self, items: usize, largest: usize) -> usize {
        (items / (self.n_threads.max(1) * 8)).clamp(1, largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn every_chunk_is_taken_once_in_every_run() {
        const TOTAL: usize = 37;
        for n_threads in 1..=8 {
            let counter = ChunkCounter::new();
            let barrier = Barrier::new(n_threads);
            let taken: Vec<AtomicUsize> = (0..TOTAL).map(|_| AtomicUsize::new(0)).collect();
            std::thread::scope(|scope| {
                for _ in 0..n_threads {
                    scope.spawn(|| {
                        for _ in 0..20 {
                            let share = Share { counter: &counter, n_threads };
                            while let Some(chunk) = share.take(TOTAL) {
                                taken[chunk].fetch_add(1, Ordering::Relaxed);
                            }
                            barrier.wait();
                        }
                    });
                }
            });
            assert!(taken.iter().all(|t| t.load(Ordering::Relaxed) == 20));
        }
    }
}
