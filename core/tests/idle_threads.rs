//! Threads that have nothing to compute use no processor time. Alone in its process, because it measures the process.
#![cfg(all(feature = "ggml", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use fulcrum::executor::Row;
use fulcrum::{Cancel, ExecutorChoice, Model, ModelOptions};

/// Processor time of this process so far, in ticks of 10 ms.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn idle_threads_sleep() {
    let Some(path) = common::model("idle_threads_sleep") else { return };
    let options = ModelOptions { executor: ExecutorChoice::LlamaCpp, threads: Some(2), ..ModelOptions::default() };
    let model = Model::load(&path, options).unwrap();
    let mut executor = model.weights().executor(64).unwrap();
    executor.begin(&[Row { token: 1, parent: None, wants_logits: false }]).unwrap();
    executor.run(executor.shape().n_layers, &Cancel::new()).unwrap();
    executor.commit(&[0]).unwrap();
    // The polling ends within this time; a worker that kept polling would use 500 ms after it.
    std::thread::sleep(Duration::from_millis(200));
    let before = ticks();
    std::thread::sleep(Duration::from_millis(500));
    assert!(ticks() - before <= 3, "{} ms of processor time while idle", 10 * (ticks() - before));
}
