//! The stream under every fault that a file can have: right bytes or a typed error, and the next pass works.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::faulty::{Bytes, Faulty};
use super::layout::{Blob, Form, Run};
use super::source::ModelSource;
use super::stream::Stream;
use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};
use crate::kernels::direct::BLOCK;
use crate::kernels::region::Region;

/// Runs per layer.
const RUNS: usize = 5;

/// Bytes in the file per layer: the last run is not a whole block.
const LAYER: usize = RUNS * BLOCK - 100;

/// Byte `i` of layer `layer`.
fn byte(layer: usize, i: usize) -> u8 {
    (layer * 31 + i * 7 + i / 256) as u8
}

struct Rig {
    file: Arc<Faulty<Bytes>>,
    stream: Stream,
    streamed: Vec<usize>,
}

impl Rig {
    fn new(n_layers: usize, streamed: Vec<usize>, n_slots: usize) -> Self {
        let data = (0..n_layers).flat_map(|layer| (0..LAYER).map(move |i| byte(layer, i))).collect();
        let file = Arc::new(Faulty::new(Bytes("weights.gguf".into(), data)));
        let run = |layer: usize, i: usize| {
            let size = BLOCK.min(LAYER - i * BLOCK);
            let form = Form::Plain { element: 0, dims: [1; 4] };
            Run { file: 0, offset: (layer * LAYER + i * BLOCK) as u64, size, at: i * BLOCK, len: BLOCK, form }
        };
        let blob =
            |layer| Blob { parts: Vec::new(), runs: (0..RUNS).map(|i| run(layer, i)).collect(), bytes: RUNS * BLOCK };
        let source = Arc::new(ModelSource::new(vec![Arc::clone(&file) as _], (0..n_layers).map(blob).collect()));
        let mut memory = Region::allocate("a test", n_slots * RUNS * BLOCK).unwrap();
        let slots = (0..n_slots).map(|_| memory.split_to(RUNS * BLOCK)).collect();
        Self { file, stream: Stream::start(source, streamed.clone(), slots).unwrap(), streamed }
    }

    /// One pass over the first `n` streamed layers, whose bytes must be right.
    fn pass(&self, n: usize) -> Result<()> {
        let cancel = Cancel::new();
        let pass = self.stream.pass(&cancel)?;
        for &layer in &self.streamed[..n] {
            let lease = pass.layer(layer, &cancel)?;
            let right = lease.memory().bytes()[..LAYER].iter().enumerate().all(|(i, &b)| b == byte(layer, i));
            assert!(right, "layer {layer} has other bytes");
        }
        Ok(())
    }
}

fn is_read_error(result: Result<()>) -> bool {
    match result.map_err(crate::Error::into_kind) {
        Err(ErrorKind::File { action: "read", path, .. }) => path.ends_with("weights.gguf"),
        Ok(()) => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn layers_come_in_order_round_and_round() {
    for (streamed, n_slots) in [(vec![0, 2, 3, 5, 6], 2), (vec![4], 1), (vec![0, 1, 2], 3), ((0..8).collect(), 3)] {
        let rig = Rig::new(8, streamed, n_slots);
        for _ in 0..50 {
            rig.pass(rig.streamed.len()).unwrap();
        }
        let read = rig.stream.figures();
        let used = (50 * rig.streamed.len() * LAYER) as u64;
        // Runs do not begin on block boundaries here, so a run of a block is two blocks read; and the slots are filled ahead.
        let most = ((50 * rig.streamed.len() + n_slots) * RUNS * 2 * BLOCK) as u64;
        assert!(read.bytes >= used && read.bytes <= most, "{} bytes for {used}", read.bytes);
        assert_eq!(read.packed_bytes, 0);
    }
}

#[test]
fn a_pass_that_is_given_up_leaves_nothing_behind() {
    let rig = Rig::new(8, (0..8).collect(), 3);
    for n in (0..=8).chain([1, 7, 2, 8, 3, 0, 5, 8]) {
        rig.pass(n).unwrap();
    }
}

#[test]
fn every_kth_read_fails_and_the_pass_after_works() {
    for every in [1, 2, 3, 5, 7, 11, 40] {
        let rig = Rig::new(8, (0..8).collect(), 2);
        rig.pass(8).unwrap();
        rig.file.fail_every.store(every, Relaxed);
        // More reads than one pass has, so that each kind of read gets its error.
        let failures = (0..20).filter(|_| is_read_error(rig.pass(8))).count();
        assert!(failures > 0, "every {every}: nothing failed");
        assert!(every > 1 || failures == 20, "every read fails and a pass works");
        rig.file.fail_every.store(0, Relaxed);
        // What was being read ahead meanwhile may still fail; it is read again.
        rig.pass(8).unwrap();
    }
}

#[test]
fn a_file_that_was_cut_is_an_error_that_names_it() {
    let rig = Rig::new(8, (0..8).collect(), 2);
    rig.pass(8).unwrap();
    rig.file.end.store(5 * LAYER as u64, Relaxed);
    assert!(is_read_error(rig.pass(8).and_then(|()| rig.pass(8))));
    rig.file.end.store(u64::MAX, Relaxed);
    rig.pass(8).unwrap();
    rig.file.changed.store(true, Relaxed);
    assert!(is_read_error(rig.pass(8)));
}

#[test]
fn a_stalled_device_is_waited_for_and_can_be_cancelled() {
    let rig = Rig::new(4, (0..4).collect(), 2);
    rig.pass(4).unwrap();
    // Longer than any machine is too busy to notice the cancel.
    rig.file.stall_ms.store(60_000, Relaxed);
    let cancel = Cancel::new();
    let (start, stop) = (Instant::now(), cancel.clone());
    let cancelled = std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(60));
            stop.cancel();
        });
        let pass = rig.stream.pass(&cancel).unwrap();
        (0..4).find_map(|layer| pass.layer(layer, &cancel).map(drop).err())
    });
    assert!(cancelled.is_some_and(|error| error.is_cancelled()));
    assert!(start.elapsed() < Duration::from_secs(30), "cancelling waited for the device");
    rig.file.stall_ms.store(300, Relaxed);
    let before = rig.stream.figures();
    rig.pass(4).unwrap();
    let waited = rig.stream.figures().since(&before);
    assert!(waited.stalled_s > 0.2 && waited.busy_s >= waited.stalled_s, "{waited:?}");
}

#[test]
fn passes_of_two_sessions_take_turns() {
    let rig = Rig::new(8, (0..8).collect(), 2);
    std::thread::scope(|scope| {
        for n in [8, 3] {
            let rig = &rig;
            scope.spawn(move || (0..100).for_each(|_| rig.pass(n).unwrap()));
        }
    });
    assert!(rig.file.reads() > 0);
}
