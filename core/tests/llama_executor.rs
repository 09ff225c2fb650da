//! The llama.cpp executor: the same logits as llama.cpp itself, its limits as errors, loading, and several sessions at once.
#![cfg(feature = "ggml")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;
#[path = "common/oracle.rs"]
mod oracle;

use std::path::Path;
use std::sync::Arc;

use fulcrum::executor::{Executor, Row};
use fulcrum::model::Progress;
use fulcrum::{Cancel, Error, ErrorKind, ExecutorChoice, KvType, Model, ModelOptions, Result, Token};
use oracle::Oracle;
use parking_lot::Mutex;

fn options() -> ModelOptions {
    ModelOptions { executor: ExecutorChoice::LlamaCpp, threads: Some(1), ..ModelOptions::default() }
}

fn load(path: &Path) -> Model {
    Model::load(path, options()).unwrap()
}

fn chain(tokens: &[Token]) -> Vec<Row> {
    let parents = std::iter::once(None).chain((0..).map(Some));
    tokens.iter().zip(parents).map(|(&token, parent)| Row { token, parent, wants_logits: true }).collect()
}

/// Commits `tokens` in one pass and returns the logits of all its rows.
fn feed(executor: &mut dyn Executor, tokens: &[Token]) -> Vec<f32> {
    let rows: Vec<u32> = (0..tokens.len() as u32).collect();
    executor.begin(&chain(tokens)).unwrap();
    executor.run(executor.shape().n_layers, &Cancel::new()).unwrap();
    let mut logits = vec![0.0; rows.len() * executor.shape().n_vocab];
    executor.project(&rows, &mut logits).unwrap();
    executor.commit(&rows).unwrap();
    logits
}

fn argmax(logits: &[f32]) -> Token {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as Token
}

fn greedy(executor: &mut dyn Executor, prompt: &[Token], n: usize) -> Vec<Token> {
    let n_vocab = executor.shape().n_vocab;
    let logits = feed(executor, prompt);
    let mut text = vec![argmax(&logits[logits.len() - n_vocab..])];
    while text.len() < n {
        text.push(argmax(&feed(executor, &text[text.len() - 1..])));
    }
    text
}

/// At the same shapes it is the same computation, so the logits are equal bit for bit; a rollback in between changes nothing.
#[test]
fn logits_are_those_of_llama_decode() {
    let Some(path) = common::model("logits_are_those_of_llama_decode") else { return };
    let mut oracle = Oracle::load(&path, 256, KvType::F16);
    let mut executor = load(&path).weights().executor(256).unwrap();
    let tokens: Vec<Token> = (0..150).map(|i| i * 37 % oracle.n_vocab() as Token).collect();
    for (index, piece) in [&tokens[..100], &tokens[100..101], &tokens[101..140], &tokens[140..]].into_iter().enumerate()
    {
        executor.begin(&chain(&tokens[..index + 1])).unwrap();
        executor.run(executor.shape().n_layers, &Cancel::new()).unwrap();
        executor.rollback();
        assert!(oracle.decode(piece) == feed(&mut *executor, piece), "piece {index}");
    }
}

#[test]
fn text_goes_in_and_comes_out() {
    let Some(path) = common::model("text_goes_in_and_comes_out") else { return };
    let model = load(&path);
    let vocabulary = model.vocabulary();
    let prompt = fulcrum::tokenizer::Encoding { add_bos: true, parse_special: false };
    let prompt = vocabulary.encode("Once upon a time", prompt).unwrap();
    let tokens = greedy(&mut *model.weights().executor(128).unwrap(), &prompt, 64);
    let mut bytes = Vec::new();
    tokens.iter().for_each(|&token| vocabulary.decode_token(token, false, &mut bytes));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.split_whitespace().count() > 5, "{text}");
}

#[test]
fn sessions_on_one_model_do_not_disturb_each_other() {
    let Some(path) = common::model("sessions_on_one_model_do_not_disturb_each_other") else { return };
    let model = Model::load(&path, ModelOptions { threads: Some(2), ..options() }).unwrap();
    let weights = model.weights();
    let alone: Vec<Vec<Token>> =
        (1..4).map(|prompt| greedy(&mut *weights.executor(96).unwrap(), &[1, prompt], 40)).collect();
    let together: Vec<Vec<Token>> = std::thread::scope(|scope| {
        let run = |prompt| scope.spawn(move || greedy(&mut *weights.executor(96).unwrap(), &[1, prompt], 40));
        let sessions: Vec<_> = (1..4).map(run).collect();
        sessions.into_iter().map(|session| session.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}

#[test]
fn loading_reports_and_can_be_cancelled() {
    let Some(path) = common::model("loading_reports_and_can_be_cancelled") else { return };
    let parts = Arc::new(Mutex::new(Vec::new()));
    let report = Arc::clone(&parts);
    let progress: Progress = Arc::new(move |part| report.lock().push(part));
    Model::load(&path, ModelOptions { progress: Some(progress), ..options() }).unwrap();
    assert!(parts.lock().is_sorted() && parts.lock().last() == Some(&1.0), "{parts:?}");
    let cancel = Cancel::new();
    let raise = cancel.clone();
    let progress: Progress = Arc::new(move |_| raise.cancel());
    let cancelled = Model::load(&path, ModelOptions { progress: Some(progress), cancel, ..options() });
    assert!(cancelled.is_err_and(|error| error.is_cancelled()));
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.map_err(Error::into_kind).err().unwrap()
}

/// Each of these ends the process if llama.cpp gets to see it, or takes all memory.
#[test]
fn contexts_out_of_range_are_errors() {
    let Some(path) = common::model("contexts_out_of_range_are_errors") else { return };
    let model = load(&path);
    let executor = |n_cells| kind(model.weights().executor(n_cells).map(drop));
    for n_cells in [0, 1 << 45, usize::MAX] {
        assert!(matches!(executor(n_cells), ErrorKind::InvalidOption { option: "context_length", .. }));
    }
    assert!(matches!(executor(1 << 30), ErrorKind::OutOfMemory { .. }));
}

#[test]
fn the_smallest_contexts_work() {
    let Some(path) = common::model("the_smallest_contexts_work") else { return };
    let model = load(&path);
    for n_cells in [1, 2, 3] {
        let mut executor = model.weights().executor(n_cells).unwrap();
        feed(&mut *executor, &vec![1; n_cells]);
        assert!(matches!(kind(executor.begin(&chain(&[1]))), ErrorKind::ContextFull { .. }));
    }
}

#[test]
fn a_tree_with_too_many_leaves_is_refused_and_does_no_harm() {
    let Some(path) = common::model("a_tree_with_too_many_leaves_is_refused") else { return };
    let model = load(&path);
    let mut executor = model.weights().executor(128).unwrap();
    let star = |n: u32| (0..n).map(|token| Row { token, parent: None, wants_logits: true }).collect::<Vec<_>>();
    let mut want = model.weights().executor(128).unwrap();
    assert!(matches!(kind(executor.begin(&star(65))), ErrorKind::Misuse { operation: "begin", .. }));
    assert_eq!(feed(&mut *executor, &[1, 2, 3]), feed(&mut *want, &[1, 2, 3]));
    executor.begin(&star(64)).unwrap();
    executor.run(executor.shape().n_layers, &Cancel::new()).unwrap();
    executor.commit(&[3]).unwrap();
    assert_eq!(executor.len(), 4);
}
