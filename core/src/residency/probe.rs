//! How fast flash and memory are, measured for a moment: what a prediction rests on.

use std::time::{Duration, Instant};

use super::source::{ReadBlocks, Scratch, read_within};
use crate::error::Result;
use crate::kernels::region::Region;

/// How long each measurement takes, about.
const MOMENT: Duration = Duration::from_millis(500);

/// Bytes of one read.
const REQUEST: usize = 2 << 20;

/// Bytes per second of large reads of `file`, `in_flight` at a time, from its beginning to byte `len` at most.
///
/// # Errors
///
/// `File` if it cannot be read.
pub(crate) fn flash_bandwidth(file: &dyn ReadBlocks, len: u64, in_flight: usize) -> Result<f64> {
    let start = Instant::now();
    let read = |first: u64| -> Result<u64> {
        let (mut scratch, mut sum, mut offset) = (Scratch::new(), 0, first * REQUEST as u64);
        while offset + REQUEST as u64 <= len && start.elapsed() < MOMENT {
            sum += read_within(file, offset, REQUEST, &mut scratch)?.1;
            offset += (in_flight * REQUEST) as u64;
        }
        Ok(sum)
    };
    let sums: Vec<Result<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..in_flight as u64).map(|first| scope.spawn(move || read(first))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let bytes: u64 = sums.into_iter().sum::<Result<u64>>()?;
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}

/// Bytes per second that `n_threads` threads read from memory.
///
/// # Errors
///
/// `OutOfMemory`.
pub(crate) fn memory_bandwidth(n_threads: usize) -> Result<f64> {
    const LEN: usize = 64 << 20;
    let mut memory = Region::allocate("measuring", LEN)?;
    memory.bytes_mut().fill(1);
    let bytes: &[u8] = memory.bytes_mut();
    let share = LEN / n_threads.max(1);
    let sum = |bytes: &[u8]| bytes.as_chunks::<8>().0.iter().fold(0, |sum: u64, word| sum ^ u64::from_le_bytes(*word));
    let (start, mut rounds) = (Instant::now(), 0_u32);
    while start.elapsed() < MOMENT / 2 {
        std::thread::scope(|scope| {
            for part in bytes.chunks(share) {
                scope.spawn(move || std::hint::black_box(sum(part)));
            }
        });
        rounds += 1;
    }
    Ok(f64::from(rounds) * LEN as f64 / start.elapsed().as_secs_f64())
}
