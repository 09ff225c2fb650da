//! The llama.cpp executor: the same logits as llama.cpp itself, its limits as errors, loading, and several sessions at once.
#![cfg(feature = "ggml")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::path::Path;

use fulcrum::executor::llama::oracle::Oracle;
use fulcrum::executor::llama::{LlamaOptions, LlamaWeights};
use fulcrum::executor::options::ThreadOptions;
use fulcrum::executor::{Executor, Row, Weights};
use fulcrum::tokenizer::Vocabulary;
use fulcrum::{Cancel, Error, ErrorKind, Result, Token};

fn options() -> LlamaOptions {
    LlamaOptions { threads: ThreadOptions::new(1), ..LlamaOptions::default() }
}

fn load(path: &Path, options: LlamaOptions) -> Result<LlamaWeights> {
    LlamaWeights::load(path, options, &Cancel::new(), &mut |_| ())
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
    let mut oracle = Oracle::load(&path, 256, &options()).unwrap();
    let mut executor = load(&path, options()).unwrap().executor(256).unwrap();
    let tokens: Vec<Token> = (0..150).map(|i| i * 37 % oracle.n_vocab() as Token).collect();
    for (index, piece) in [&tokens[..100], &tokens[100..101], &tokens[101..140], &tokens[140..]].into_iter().enumerate()
    {
        executor.begin(&chain(&tokens[..index + 1])).unwrap();
        executor.run(executor.shape().n_layers, &Cancel::new()).unwrap();
        executor.rollback();
        assert!(oracle.decode(piece).unwrap() == feed(&mut *executor, piece), "piece {index}");
    }
}

#[test]
fn text_goes_in_and_comes_out() {
    let Some(path) = common::model("text_goes_in_and_comes_out") else { return };
    let weights = load(&path, options()).unwrap();
    let vocabulary = weights.vocabulary().unwrap();
    let prompt = fulcrum::tokenizer::Encoding { add_bos: true, parse_special: false };
    let prompt = vocabulary.encode("Once upon a time", prompt).unwrap();
    let tokens = greedy(&mut *weights.executor(128).unwrap(), &prompt, 64);
    let mut bytes = Vec::new();
    tokens.iter().for_each(|&token| vocabulary.decode_token(token, false, &mut bytes));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.split_whitespace().count() > 5, "{text}");
}

#[test]
fn sessions_on_one_model_do_not_disturb_each_other() {
    let Some(path) = common::model("sessions_on_one_model_do_not_disturb_each_other") else { return };
    let weights = load(&path, LlamaOptions { threads: ThreadOptions::new(2), ..options() }).unwrap();
    let alone: Vec<Vec<Token>> =
        (1..4).map(|prompt| greedy(&mut *weights.executor(96).unwrap(), &[1, prompt], 40)).collect();
    let together: Vec<Vec<Token>> = std::thread::scope(|scope| {
        let weights = &weights;
        let run = |prompt| scope.spawn(move || greedy(&mut *weights.executor(96).unwrap(), &[1, prompt], 40));
        let sessions: Vec<_> = (1..4).map(run).collect();
        sessions.into_iter().map(|session| session.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}

#[test]
fn loading_reports_and_can_be_cancelled() {
    let Some(path) = common::model("loading_reports_and_can_be_cancelled") else { return };
    let mut parts = Vec::new();
    LlamaWeights::load(&path, options(), &Cancel::new(), &mut |part| parts.push(part)).unwrap();
    assert!(parts.is_sorted() && parts.last() == Some(&1.0), "{parts:?}");
    let cancel = Cancel::new();
    let cancelled = LlamaWeights::load(&path, options(), &cancel, &mut |_| cancel.cancel());
    assert!(cancelled.is_err_and(|error| error.is_cancelled()));
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.map_err(Error::into_kind).err().unwrap()
}

#[test]
fn files_that_are_no_models_are_errors() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(matches!(kind(load(&here.join("no such file"), options())), ErrorKind::File { .. }));
    assert!(matches!(kind(load(here, options())), ErrorKind::File { .. }));
    assert!(matches!(kind(load(&here.join("Cargo.toml"), options())), ErrorKind::InvalidModel { .. }));
}

/// Each of these ends the process if llama.cpp gets to see it, or takes all memory.
#[test]
fn numbers_out_of_range_are_errors() {
    let Some(path) = common::model("numbers_out_of_range_are_errors") else { return };
    let invalid = |kind| matches!(kind, ErrorKind::InvalidOption { .. });
    for n_threads in [0, 513, usize::MAX] {
        let options = LlamaOptions { threads: ThreadOptions::new(n_threads), ..options() };
        assert!(invalid(kind(load(&path, options))), "{n_threads} threads");
    }
    let executor = |options, n_cells| load(&path, options).unwrap().executor(n_cells);
    assert!(invalid(kind(executor(options(), 0))));
    for n_cells in [1 << 45, usize::MAX] {
        let kind = kind(executor(options(), n_cells));
        assert!(matches!(kind, ErrorKind::OutOfMemory { .. } | ErrorKind::InvalidOption { .. }), "{kind}");
    }
    assert!(invalid(kind(executor(LlamaOptions { max_rows: 0, ..options() }, 64))));
    assert!(invalid(kind(executor(LlamaOptions { max_rows: usize::MAX, ..options() }, 1 << 20))));
    assert!(invalid(kind(executor(LlamaOptions { max_leaves: 0, ..options() }, 64))));
    assert!(invalid(kind(executor(LlamaOptions { max_leaves: 257, ..options() }, 512))));
}

#[test]
fn the_smallest_contexts_work() {
    let Some(path) = common::model("the_smallest_contexts_work") else { return };
    let weights = load(&path, options()).unwrap();
    for n_cells in [1, 2, 3] {
        let mut executor = weights.executor(n_cells).unwrap();
        feed(&mut *executor, &vec![1; n_cells]);
        assert!(matches!(kind(executor.begin(&chain(&[1]))), ErrorKind::ContextFull { .. }));
    }
}

#[test]
fn a_tree_with_too_many_leaves_is_refused_and_does_no_harm() {
    let Some(path) = common::model("a_tree_with_too_many_leaves_is_refused") else { return };
    let weights = load(&path, LlamaOptions { max_leaves: 4, ..options() }).unwrap();
    let mut executor = weights.executor(64).unwrap();
    let star = |n: u32| (0..n).map(|token| Row { token, parent: None, wants_logits: true }).collect::<Vec<_>>();
    let mut want = weights.executor(64).unwrap();
    assert!(matches!(kind(executor.begin(&star(5))), ErrorKind::Misuse { operation: "begin", .. }));
    assert_eq!(feed(&mut *executor, &[1, 2, 3]), feed(&mut *want, &[1, 2, 3]));
    executor.begin(&star(4)).unwrap();
    executor.run(executor.shape().n_layers, &Cancel::new()).unwrap();
    executor.commit(&[3]).unwrap();
    assert_eq!(executor.len(), 4);
}
