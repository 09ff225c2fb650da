//! What the metrics say was read from flash is what the system counted. Alone in its process: the counters are the process's.
#![cfg(all(feature = "ggml", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

mod common;

use fulcrum::session::{GenerationOptions, SessionOptions};
use fulcrum::{Drafting, ErrorKind, ExecutorChoice, MemoryBudget, Model, ModelOptions, SamplerSettings};

/// Bytes that this process has read with system calls, wherever they came from.
fn bytes_read() -> u64 {
    let counters = std::fs::read_to_string("/proc/self/io").unwrap();
    counters.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn reported_bytes_are_the_systems_within_one_per_cent() {
    let Some(path) = common::model("reported_bytes_are_the_systems_within_one_per_cent") else { return };
    let folder = std::env::temp_dir().join(format!("fulcrum-counters-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let load = |budget| {
        let memory_budget = MemoryBudget::Bytes(budget);
        let executor = ExecutorChoice::Staged;
        let cache_dir = Some(folder.clone());
        let options =
            ModelOptions { executor, memory_budget, cache_dir, context_length: Some(512), ..Default::default() };
        Model::load(&path, options)
    };
    let Err(ErrorKind::OutOfMemory { needed, .. }) = load(1).map_err(fulcrum::Error::into_kind) else {
        panic!("a model in one byte");
    };
    let model = load(needed).unwrap();
    let session = model.session(SessionOptions::default()).unwrap();
    let vocabulary = model.vocabulary();
    let ends = (0..).take(vocabulary.n_tokens()).filter(|&token| vocabulary.is_end_of_generation(token));
    let sampler =
        SamplerSettings { logit_bias: ends.map(|end| (end, f32::NEG_INFINITY)).collect(), ..Default::default() };
    let options = GenerationOptions { max_tokens: Some(200), drafting: Drafting::Off, sampler, ..Default::default() };
    let before = bytes_read();
    // What is read ahead behind the end of a turn is no turn's, up to a megabyte each time: so few turns, and long ones.
    for _ in 0..2 {
        session.complete("Once upon a time there was a little", &options).unwrap().finish().unwrap();
    }
    let counted = bytes_read() - before;
    let metrics = session.metrics().total;
    let reported = metrics.prefill_flash.bytes + metrics.decode_flash.bytes;
    drop((session, model));
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(reported > 64 << 20, "{reported} bytes are too few to compare");
    assert!(reported.abs_diff(counted) * 100 <= counted, "{reported} bytes reported, {counted} counted");
}
