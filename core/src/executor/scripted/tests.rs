//! The fake obeys the contract, and refuses whoever does not.

use super::*;
use crate::tokenizer::{Encoding, Vocabulary};

const N_VOCAB: usize = 32;

fn chain(tokens: &[Token]) -> Vec<Row> {
    let parent = |i: u32| i.checked_sub(1);
    (0u32..).zip(tokens).map(|(i, &token)| Row { token, parent: parent(i), wants_logits: true }).collect()
}

fn run_all(executor: &mut dyn Executor, rows: &[Row]) -> Result<()> {
    executor.begin(rows)?;
    for boundary in executor.shape().boundaries.clone() {
        executor.run(boundary, &Cancel::new())?;
    }
    Ok(())
}

fn logits_of(executor: &mut dyn Executor, row: u32) -> Vec<f32> {
    let mut logits = vec![0.0; N_VOCAB];
    executor.project(&[row], &mut logits).expect("the row ran");
    logits
}

fn expected(history: &[Token]) -> Vec<f32> {
    let mut logits = vec![0.0; N_VOCAB];
    Rule::hashed(N_VOCAB, 1).logits(history, &mut logits);
    logits
}

#[test]
fn tree_rows_see_their_own_path_before_and_after_commit() {
    let mut executor =
        Script::new(Rule::hashed(N_VOCAB, 1)).weights().executor(16).expect("a fake never fails to allocate");
    run_all(&mut *executor, &chain(&[1, 2])).expect("two rows");
    executor.commit(&[0, 1]).expect("a chain");
    let row = |token, parent| Row { token, parent, wants_logits: true };
    run_all(&mut *executor, &[row(3, None), row(4, Some(0)), row(5, Some(0)), row(6, Some(2))]).expect("a tree");
    assert_eq!(logits_of(&mut *executor, 1), expected(&[1, 2, 3, 4]));
    assert_eq!(logits_of(&mut *executor, 3), expected(&[1, 2, 3, 5, 6]));
    executor.commit(&[0, 2]).expect("a chain");
    assert_eq!(executor.len(), 4);
    run_all(&mut *executor, &chain(&[7])).expect("one row");
    assert_eq!(logits_of(&mut *executor, 0), expected(&[1, 2, 3, 5, 7]));
    executor.rollback();
    executor.truncate(1).expect("no pass is under way");
    run_all(&mut *executor, &chain(&[9])).expect("one row");
    assert_eq!(logits_of(&mut *executor, 0), expected(&[1, 9]));
}

#[test]
fn hashed_logits_depend_on_every_token_and_the_seed() {
    let base = expected(&[1, 2, 3]);
    assert!(base.iter().all(|logit| (0.0..8.0).contains(logit)));
    assert_ne!(base, expected(&[1, 2, 4]));
    assert_ne!(base, expected(&[0, 2, 3]));
    let mut other = vec![0.0; N_VOCAB];
    Rule::hashed(N_VOCAB, 2).logits(&[1, 2, 3], &mut other);
    assert_ne!(base, other);
}

#[test]
fn costs_are_counted_by_stage_row_and_projection() {
    let ms = Duration::from_millis;
    let cost = Cost { pass: ms(40), row: ms(4), projection: ms(1), real: false };
    let weights = Script::new(Rule::hashed(N_VOCAB, 1)).layers(4, 2).cost(cost).weights();
    let mut executor = weights.executor(16).expect("a fake never fails to allocate");
    executor.begin(&chain(&[1, 2])).expect("two rows");
    executor.run(2, &Cancel::new()).expect("the first stage");
    assert_eq!(weights.tally().elapsed, ms(24));
    executor.keep(&[0]).expect("the root");
    executor.run(4, &Cancel::new()).expect("the second stage");
    assert_eq!(weights.tally().elapsed, ms(24 + 22));
    logits_of(&mut *executor, 0);
    executor.commit(&[0]).expect("it ran");
    assert_eq!(weights.tally(), Tally { passes: 1, rows: 2, projected: 1, committed: 1, elapsed: ms(47) });
}

#[test]
fn a_raised_flag_stops_a_real_sleep() {
    let cost = Cost { pass: Duration::from_secs(3600), real: true, ..Cost::default() };
    let mut executor = Script::new(Rule::hashed(N_VOCAB, 1)).cost(cost).weights().executor(4).expect("a fake");
    let cancel = Cancel::new();
    executor.begin(&chain(&[1])).expect("one row");
    std::thread::scope(|scope| {
        scope.spawn(|| cancel.cancel());
        assert!(executor.run(4, &cancel).expect_err("raised").is_cancelled());
    });
}

#[test]
fn the_hook_fails_the_call_it_names() {
    let fail_second_run = |call, n| match (call, n) {
        (Call::Run, 2) => Err(ErrorKind::Backend { operation: "run", reason: "planned".into() }.into()),
        _ => Ok(()),
    };
    let mut executor =
        Script::new(Rule::hashed(N_VOCAB, 1)).hook(fail_second_run).weights().executor(4).expect("a fake");
    let error = run_all(&mut *executor, &chain(&[1])).expect_err("call 2 is the second run");
    assert!(matches!(error.kind(), ErrorKind::Backend { .. }));
    assert!(executor.commit(&[0]).is_err(), "the row has not run all layers");
    executor.rollback();
    run_all(&mut *executor, &chain(&[1])).expect("only once");
}

#[test]
fn sequences_and_replies_say_what_is_written() {
    let rule = Rule::continuing(10, vec![vec![1, 2, 3], vec![1, 4]], 9);
    let next = |rule: &Rule, history: &[Token]| {
        let mut logits = vec![0.0; rule.n_vocab()];
        rule.logits(history, &mut logits);
        logits.iter().position(|&l| l > 0.0).expect("a certain token")
    };
    assert_eq!([&[1][..], &[1, 2], &[1, 4], &[5]].map(|h| next(&rule, h)), [2, 3, 9, 9]);
    let echo = Rule::replying(10, &[7, 8], 9, |prompt| vec![prompt[0], prompt[1]]);
    assert_eq!([&[1, 2, 7, 8][..], &[1, 2, 7, 8, 1], &[1, 2, 7, 8, 1, 2]].map(|h| next(&echo, h)), [1, 2, 9]);
}

#[test]
fn bytes_pieces_and_special_tokens_round_trip() {
    let vocabulary = ByteVocabulary::with_pieces(&["ab", "abc"]);
    let tokens = vocabulary.tokens("xabcab<|im_end|>é");
    assert_eq!(tokens, [120, 261, 260, ByteVocabulary::END, 0xc3, 0xa9]);
    let decode = |special| {
        let mut bytes = Vec::new();
        tokens.iter().for_each(|&t| vocabulary.decode_token(t, special, &mut bytes));
        String::from_utf8(bytes).expect("whole code points")
    };
    assert_eq!((decode(true), decode(false)), ("xabcab<|im_end|>é".into(), "xabcabé".into()));
    let plain = Encoding { add_bos: true, parse_special: false };
    assert_eq!(vocabulary.encode("<s>", plain).expect("never fails"), [256, 60, 115, 62]);
}
