//! A context that is too small: typed errors, the policy that drops turns, answers that reach the end.

use fulcrum::{ChatSession, ContextOverflow, ErrorKind, FinishReason, GenerationOptions, Message, SessionOptions};

use crate::support::*;

/// Tokens of `<s>`, one user message of `n` bytes and the head of the answer.
const fn prompt_of(n: usize) -> usize {
    1 + (1 + 5 + n + 1 + 1) + (1 + 10)
}

fn small(context_length: usize, context_overflow: ContextOverflow) -> ChatSession {
    let options = SessionOptions { context_overflow, ..Default::default() };
    model(echoing().weights(), context_length).session(options).unwrap()
}

fn context_full(result: fulcrum::Result<fulcrum::Response>) -> (usize, usize) {
    match result.unwrap_err().into_kind() {
        ErrorKind::ContextFull { needed, capacity } => (needed, capacity),
        other => panic!("{other}"),
    }
}

#[test]
fn a_prompt_that_does_not_fit_is_an_error_and_no_turn() {
    let session = small(60, ContextOverflow::Error);
    assert_eq!(context_full(session.respond(&"x".repeat(60))), (prompt_of(60), 60));
    assert!(session.history().is_empty());
    session.respond("ab").unwrap();
    assert_eq!(context_full(session.respond(&"y".repeat(20))).1, 60);
    assert_eq!(session.history(), dialogue(&[("ab", "1: ab")]));
    assert_eq!(session.metrics().failed, 2);
}

#[test]
fn an_answer_that_reaches_the_end_of_the_context_is_kept_and_says_so() {
    // The prompt takes 24 cells and each token but the last one more.
    let session = small(prompt_of(4) + 3, ContextOverflow::Error);
    let response = session.respond("abcd").unwrap();
    assert_eq!((response.text.as_str(), response.finish_reason), ("1: a", FinishReason::ContextFull));
    assert_eq!(session.history(), dialogue(&[("abcd", "1: a")]));
    // The prompt fills the context: its last row still gives one token.
    let session = small(prompt_of(4), ContextOverflow::Error);
    let response = session.respond("abcd").unwrap();
    assert_eq!((response.text.as_str(), response.finish_reason), ("1", FinishReason::ContextFull));
    assert_eq!(context_full(session.respond("abcde")).1, prompt_of(4));
}

#[test]
fn dropping_oldest_turns_goes_on_for_ever_and_keeps_the_system_prompt() {
    let options = SessionOptions {
        system_prompt: Some("sys".into()),
        context_overflow: ContextOverflow::DropOldestTurns,
        ..Default::default()
    };
    let session = model(hashed().weights(), 200).session(options.clone()).unwrap();
    let mut dropped = 0;
    for turn in 0..30 {
        let response = session.respond_with(&format!("message {turn}"), &sampled(12)).unwrap();
        assert_eq!(response.finish_reason, FinishReason::MaxTokens, "there is room for the answer");
        assert!(response.dropped_messages >= dropped && response.dropped_messages.is_multiple_of(2), "whole turns");
        dropped = response.dropped_messages;
        let history = session.history();
        assert_eq!((history.len(), &history[0]), (3 + 2 * turn, &Message::system("sys")), "all of it is still there");

        // What the model saw is what a new session sees that never had the dropped turns.
        let fresh = model(hashed().weights(), 200).session(options.clone()).unwrap();
        let mut seen = vec![Message::system("sys")];
        seen.extend_from_slice(&history[1 + dropped..history.len() - 2]);
        fresh.restore_history(seen).unwrap();
        assert_eq!(fresh.respond_with(&format!("message {turn}"), &sampled(12)).unwrap().tokens, response.tokens);
    }
    assert!(dropped > 40, "only the last few turns fit, {dropped} messages were dropped");
}

#[test]
fn a_message_that_does_not_fit_alone_is_an_error_with_dropping_too() {
    let session = small(100, ContextOverflow::DropOldestTurns);
    session.respond("ab").unwrap();
    assert_eq!(context_full(session.respond(&"x".repeat(100))), (prompt_of(100), 100));
    assert_eq!(session.history(), dialogue(&[("ab", "1: ab")]));
    let next = session.respond("cd").unwrap();
    assert_eq!((next.text.as_str(), next.dropped_messages), ("2: cd", 0), "the failed turn dropped nothing");
}

/// Else the prompt would change its beginning from turn to turn, and nothing could be reused.
#[test]
fn what_was_dropped_stays_dropped() {
    let options = SessionOptions { context_overflow: ContextOverflow::DropOldestTurns, ..Default::default() };
    let session = model(replying(|_, _| "o".into()).weights(), 100).session(options).unwrap();
    session.respond("ab").unwrap();
    assert_eq!(session.respond(&"x".repeat(32)).unwrap().dropped_messages, 2, "76 tokens, and 25 for the answer");
    let next = session.respond_with("c", &one_token()).unwrap();
    assert_eq!(next.dropped_messages, 2, "with all messages it were 99 tokens, and 1 for the answer");
}

fn one_token() -> GenerationOptions {
    GenerationOptions { max_tokens: Some(1), ..Default::default() }
}

#[test]
fn a_cancelled_turn_drops_nothing() {
    let session = small(100, ContextOverflow::DropOldestTurns);
    session.respond("ab").unwrap();
    session.respond("cd").unwrap();
    let mut stream = session.stream_response(&"x".repeat(50)).unwrap();
    stream.next().unwrap().unwrap();
    drop(stream);
    let next = session.respond_with("e", &one_token()).unwrap();
    assert_eq!((next.text.as_str(), next.dropped_messages), ("3", 0));
}

#[test]
fn a_context_of_nothing_is_refused() {
    let options = SessionOptions { context_length: Some(0), ..Default::default() };
    assert!(model(echoing().weights(), 100).session(options).is_err());
    let options = SessionOptions { context_length: Some(prompt_of(1)), ..Default::default() };
    let session = model(echoing().weights(), 100).session(options).unwrap();
    assert_eq!(session.respond("x").unwrap().finish_reason, FinishReason::ContextFull);
}
