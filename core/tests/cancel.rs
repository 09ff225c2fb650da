//! Cancelling, dropping and sharing a real model, from other threads, through both executors.
//!
//! What the scripted executor shows for sessions is in `journeys/races.rs`; here passes are really broken off in the middle of a
//! graph, and what matters is that nothing of them is left.
#![cfg(feature = "ggml")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::quantize::WeightType;
use common::random_model::{Family, ModelOptions as Sizes, random_model};
use fulcrum::executor::{Executor, Row};
use fulcrum::model::ExecutorChoice;
use fulcrum::session::{GenerationOptions, SessionOptions};
use fulcrum::{Cancel, ChatSession, Kernels, KvType, Model, ModelOptions};

const EXECUTORS: [ExecutorChoice; 2] = [ExecutorChoice::Staged, ExecutorChoice::LlamaCpp];

/// A model file that is removed with its handle, unless it is the bundled one.
struct File {
    path: PathBuf,
    is_ours: bool,
}

impl File {
    fn random(family: Family, weights: WeightType) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("fulcrum-cancel-{}-{}.gguf", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let sizes = Sizes { n_ff: 1024, n_layers: 6, ..Sizes::new(family) };
        std::fs::write(&path, random_model(family, &sizes.weights(weights)).write()).unwrap();
        Self { path, is_ours: true }
    }

    /// The bundled model where it is there.
    fn best() -> Self {
        match common::model("nothing: a random model stands in") {
            Some(path) => Self { path, is_ours: false },
            None => Self::random(Family::Llama, WeightType::Q8_0),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn load(file: &File, options: ModelOptions) -> Model {
    let options = ModelOptions { context_length: Some(1024), threads: options.threads.or(Some(1)), ..options };
    Model::load(&file.path, options).unwrap()
}

fn session(model: &Model) -> ChatSession {
    model.session(SessionOptions::default()).unwrap()
}

fn tokens(max_tokens: usize) -> GenerationOptions {
    GenerationOptions { max_tokens: Some(max_tokens), ..GenerationOptions::default() }
}

fn chain(n: usize, n_vocab: usize) -> Vec<Row> {
    let row = |i: usize| Row {
        token: (i * 37 % n_vocab) as u32,
        parent: i.checked_sub(1).map(|p| p as u32),
        wants_logits: true,
    };
    (0..n).map(row).collect()
}

/// Logits of a pass that is run through and rolled back.
fn pass(executor: &mut dyn Executor, rows: &[Row]) -> Vec<u32> {
    executor.begin(rows).unwrap();
    executor.run(executor.shape().n_layers, &Cancel::new()).unwrap();
    let mut logits = vec![0.0; rows.len() * executor.shape().n_vocab];
    executor.project(&(0..rows.len() as u32).collect::<Vec<_>>(), &mut logits).unwrap();
    executor.rollback();
    logits.into_iter().map(f32::to_bits).collect()
}

/// Breaks passes off wherever it happens; the next pass has the same bits as if nothing had been.
fn broken_off_passes_leave_nothing(family: Family, options: &ModelOptions, weights: WeightType) {
    let file = File::random(family, weights);
    let model = load(&file, ModelOptions { threads: Some(2), ..options.clone() });
    let mut executor = model.weights().executor(1024).unwrap();
    let n_vocab = executor.shape().n_vocab;
    let (long, short) = (chain(200, n_vocab), chain(3, n_vocab));
    // Something to be harmed: a history.
    executor.begin(&chain(70, n_vocab)).unwrap();
    executor.run(executor.shape().n_layers, &Cancel::new()).unwrap();
    executor.commit(&(0..70).collect::<Vec<_>>()).unwrap();
    let started = Instant::now();
    let wanted = pass(&mut *executor, &long);
    let whole = started.elapsed();
    let wanted_short = pass(&mut *executor, &short);
    // The delay follows what it brings about, so that passes are broken off everywhere, up to their end, on a machine of any load.
    let (mut broken_off, mut delay) = (0, whole / 2);
    for round in 0..24 {
        let cancel = Cancel::new();
        executor.begin(&long).unwrap();
        let is_started = Barrier::new(2);
        let ran = std::thread::scope(|scope| {
            scope.spawn(|| {
                is_started.wait();
                std::thread::sleep(delay);
                cancel.cancel();
            });
            is_started.wait();
            executor.run(executor.shape().n_layers, &cancel)
        });
        let is_broken_off = ran.is_err_and(|error| error.is_cancelled());
        broken_off += u32::from(is_broken_off);
        delay = if is_broken_off { delay * 3 / 2 } else { delay / 4 };
        executor.rollback();
        assert!(pass(&mut *executor, &short) == wanted_short, "round {round}: a short pass differs");
        assert!(pass(&mut *executor, &long) == wanted, "round {round}: the same pass differs");
    }
    assert!(broken_off >= 4, "only {broken_off} passes were broken off");
}

#[test]
fn broken_off_passes_leave_nothing_with_our_kernels() {
    for (family, weights) in [(Family::Llama, WeightType::Q8_0), (Family::Gemma3, WeightType::Q4_K)] {
        let options = ModelOptions { executor: ExecutorChoice::Staged, ..ModelOptions::default() };
        broken_off_passes_leave_nothing(family, &options, weights);
    }
    let options = ModelOptions { executor: ExecutorChoice::Staged, kv_type: KvType::Q8_0, ..ModelOptions::default() };
    broken_off_passes_leave_nothing(Family::Qwen3, &options, WeightType::Q4_0);
}

#[test]
fn broken_off_passes_leave_nothing_with_ggmls_kernels() {
    let options = ModelOptions { executor: ExecutorChoice::Staged, kernels: Kernels::Ggml, ..ModelOptions::default() };
    broken_off_passes_leave_nothing(Family::Llama, &options, WeightType::Q8_0);
}

#[test]
fn broken_off_passes_leave_nothing_with_llama_cpp() {
    let options = ModelOptions { executor: ExecutorChoice::LlamaCpp, ..ModelOptions::default() };
    broken_off_passes_leave_nothing(Family::Llama, &options, WeightType::Q8_0);
}

/// Rows that are dropped when there is no stage left to spare are gone, and the others' logits are their own.
#[test]
fn rows_dropped_after_the_last_layer_do_not_move_the_others() {
    let file = File::random(Family::Llama, WeightType::F32);
    for executor in EXECUTORS {
        let model = load(&file, ModelOptions { executor, ..ModelOptions::default() });
        let mut executor = model.weights().executor(64).unwrap();
        let n_vocab = executor.shape().n_vocab;
        // 0 → {1, 2}, 2 → 3; logits of 2 and 3 only.
        let rows: Vec<Row> = [(None, false), (Some(0), false), (Some(0), true), (Some(2), true)]
            .into_iter()
            .zip(5..)
            .map(|((parent, wants_logits), token)| Row { token, parent, wants_logits })
            .collect();
        let mut wanted = vec![0.0; n_vocab];
        executor.begin(&rows).unwrap();
        executor.run(executor.shape().n_layers, &Cancel::new()).unwrap();
        executor.project(&[3], &mut wanted).unwrap();
        executor.keep(&[0, 2, 3]).unwrap();
        let mut logits = vec![0.0; n_vocab];
        executor.project(&[3], &mut logits).unwrap();
        assert!(logits == wanted);
    }
}

/// A hundred answers begun and given up in every way there is; afterwards the session answers as if nothing had been.
#[test]
fn a_hundred_answers_are_begun_and_given_up() {
    let file = File::best();
    for executor in EXECUTORS {
        let model = load(&file, ModelOptions { executor, ..ModelOptions::default() });
        let wanted = session(&model).respond_with("Tell me a story.", &tokens(12)).unwrap().text;
        let session = session(&model);
        for round in 0..100_u64 {
            let mut stream = session.stream_response_with("Tell me a story.", &tokens(200)).unwrap();
            let canceller = stream.canceller();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_micros(round * 150));
                    canceller.cancel();
                });
                match round % 4 {
                    // Read to the end, which may be before the cancel.
                    0 => {
                        let ends = stream.by_ref().filter(Result::is_err).count();
                        assert!(ends <= 1, "one end");
                        assert!(stream.next().is_none(), "nothing comes after the end");
                    }
                    1 => drop(stream.next()),
                    2 => session.cancel(),
                    _ => drop(stream),
                }
            });
            if round % 4 == 0 {
                session.reset().unwrap();
            }
        }
        assert!(session.history().is_empty());
        assert_eq!(session.respond_with("Tell me a story.", &tokens(12)).unwrap().text, wanted);
    }
}

/// The prompt is in chunks of a few rows: a cancel ends it after a few of them, not after all.
#[test]
fn a_cancel_ends_the_prefill_of_a_long_prompt() {
    let file = File::random(Family::Llama, WeightType::Q8_0);
    for executor in EXECUTORS {
        let model = load(&file, ModelOptions { executor, batch_size: 8, ..ModelOptions::default() });
        let session = session(&model);
        let prompt = "a b c d ".repeat(100);
        let whole = session.complete(&prompt, &tokens(1)).unwrap().finish().unwrap().metrics;
        session.complete("z", &tokens(1)).unwrap().finish().unwrap();
        let stream = session.complete(&prompt, &tokens(1)).unwrap();
        std::thread::sleep(Duration::from_secs_f64(whole.prefill_s / 8.0));
        stream.canceller().cancel();
        assert!(stream.finish().unwrap_err().is_cancelled());
        // The worker counts the turn when it has stopped; the next turn begins only then.
        let next = session.complete("z", &tokens(1)).unwrap().finish().unwrap().metrics;
        assert!(next.ttft_s < whole.prefill_s, "the next answer waited {} of {} s", next.ttft_s, whole.prefill_s);
        assert_eq!(session.metrics().cancelled, 1);
    }
}

/// They take turns, pass by pass, and share graph memory; neither sees anything of the other.
#[test]
fn two_sessions_of_one_model_answer_as_each_would_alone() {
    let file = File::best();
    for executor in EXECUTORS {
        let model = load(&file, ModelOptions { executor, ..ModelOptions::default() });
        let alone = ["One day", "The cat"]
            .map(|prompt| session(&model).complete(prompt, &tokens(24)).unwrap().finish().unwrap().text);
        let together = std::thread::scope(|scope| {
            let answers = ["One day", "The cat"].map(|prompt| {
                let session = session(&model);
                scope.spawn(move || session.complete(prompt, &tokens(24)).unwrap().finish().unwrap().text)
            });
            answers.map(|answer| answer.join().unwrap())
        });
        assert_eq!(together, alone);
    }
}

/// A session that waits for the processors, because another one is in a long pass, can be cancelled while it waits.
#[test]
fn a_session_that_waits_for_another_can_be_cancelled() {
    let file = File::random(Family::Llama, WeightType::F32);
    for executor in EXECUTORS {
        let model = load(&file, ModelOptions { executor, batch_size: 1000, ..ModelOptions::default() });
        let [mut long, mut waiting] = [1024, 64].map(|cells| model.weights().executor(cells).unwrap());
        let n_vocab = long.shape().n_vocab;
        long.begin(&chain(1000, n_vocab)).unwrap();
        waiting.begin(&chain(1, n_vocab)).unwrap();
        let n_layers = long.shape().n_layers;
        let (cancel, stop) = (Cancel::new(), Cancel::new());
        std::thread::scope(|scope| {
            let pass = scope.spawn(|| long.run(n_layers, &stop));
            std::thread::sleep(Duration::from_millis(40));
            let turn = scope.spawn(|| waiting.run(n_layers, &cancel));
            std::thread::sleep(Duration::from_millis(10));
            cancel.cancel();
            let ended = turn.join().unwrap();
            if !pass.is_finished() {
                assert!(ended.unwrap_err().is_cancelled(), "it waited until it had its turn");
            }
            stop.cancel();
        });
    }
}

/// Whatever goes first, what is left works to its end.
#[test]
fn model_and_session_may_go_while_a_stream_is_alive() {
    let file = File::best();
    for executor in EXECUTORS {
        let model = load(&file, ModelOptions { executor, ..ModelOptions::default() });
        let wanted = session(&model).complete("One day", &tokens(16)).unwrap().finish().unwrap().text;
        let session = session(&model);
        let stream = session.complete("One day", &tokens(16)).unwrap();
        drop(model);
        drop(session);
        let text = std::thread::spawn(move || stream.finish().unwrap().text).join().unwrap();
        assert_eq!(text, wanted);
    }
}
