//! Streams: pieces, stop strings, one end, consumers that are slow or go away.

use std::time::{Duration, Instant};

use fulcrum::executor::scripted::Cost;
use fulcrum::{ChatSession, ErrorKind, FinishReason, GenerationOptions, ResponseStream, SessionOptions};

use crate::support::*;

fn stops(stop: &[&str]) -> GenerationOptions {
    GenerationOptions { stop: stop.iter().map(ToString::to_string).collect(), ..Default::default() }
}

fn assert_ended(stream: &mut ResponseStream) {
    assert!((0..3).all(|_| stream.next().is_none()), "something came after the end");
}

#[test]
fn pieces_are_whole_code_points_and_join_to_the_text() {
    let reply = "Grüße 😀👩‍👩‍👧 漢字 ✓";
    let (session, _) = session(replying(move |_, _| reply.into()));
    let mut stream = session.stream_response("x").unwrap();
    let pieces: Vec<String> = stream.by_ref().map(|piece| piece.unwrap()).collect();
    assert!(pieces.iter().all(|piece| !piece.is_empty()));
    assert_eq!(pieces.concat(), reply);
    assert_ended(&mut stream);
    let response = stream.response().unwrap();
    assert_eq!((response.text.as_str(), response.tokens.len()), (reply, reply.len()));
    assert_eq!(stream.finish().unwrap().text, reply);
}

#[test]
fn a_stop_string_ends_the_answer_and_is_never_shown() {
    let (session, weights) = session(replying(|_, _| "one two three four".into()));
    for stop in [&["two"][..], &["nope", " two "], &["three", "two"]] {
        let response = session.respond_with("x", &stops(stop)).unwrap();
        assert_eq!(response.finish_reason, FinishReason::StopString);
        assert_eq!(response.text.trim_end(), "one", "{stop:?}");
        assert_eq!(session.history().last().unwrap().content, response.text);
        session.reset().unwrap();
    }
    let response = session.respond_with("x", &stops(&["four!"])).unwrap();
    assert_eq!((response.text.as_str(), response.finish_reason), ("one two three four", FinishReason::EndOfTurn));
    let passes = weights.tally().passes;
    assert_eq!(session.respond_with("x", &stops(&["o"])).unwrap().text, "");
    assert!(weights.tally().passes - passes < 10, "it stopped at the first token");
}

#[test]
fn max_tokens_counts_tokens_and_shows_what_was_held_back() {
    let (session, _) = session(replying(|_, _| "abcdef".into()));
    let options = GenerationOptions { max_tokens: Some(4), ..stops(&["de"]) };
    let response = session.respond_with("x", &options).unwrap();
    assert_eq!((response.text.as_str(), response.finish_reason), ("abcd", FinishReason::MaxTokens));
    assert_eq!(response.metrics.decode_tokens, 4);
    let (session, _) = crate::support::session(replying(|_, _| "é".into()));
    let half = GenerationOptions { max_tokens: Some(1), ..Default::default() };
    assert_eq!(session.respond_with("x", &half).unwrap().text, "\u{fffd}", "half a code point");
}

#[test]
fn an_empty_answer_has_no_pieces_and_an_end() {
    let (session, _) = session(replying(|_, _| String::new()));
    let mut stream = session.stream_response("x").unwrap();
    assert_ended(&mut stream);
    let response = stream.finish().unwrap();
    assert_eq!((response.text.as_str(), response.metrics.decode_tokens, response.metrics.target_passes), ("", 0, 0));
    assert_eq!(session.history(), dialogue(&[("x", "")]));
}

#[test]
fn an_error_comes_once_and_is_the_end() {
    let (session, _) = session(echoing().hook(fail_at(25)));
    let mut stream = session.stream_response_with("x", &plain()).unwrap();
    let ends = stream.by_ref().filter(Result::is_err).count();
    assert_eq!(ends, 1);
    assert_ended(&mut stream);
    assert!(stream.response().is_none());
    assert!(matches!(stream.finish().unwrap_err().kind(), ErrorKind::Misuse { .. }), "not the error again");
}

fn long_answer() -> (ChatSession, std::sync::Arc<fulcrum::executor::scripted::ScriptedWeights>) {
    let weights = replying(|_, _| "0123456789".repeat(150)).weights();
    let options = SessionOptions { generation: plain(), ..Default::default() };
    (model(weights.clone(), 2000).session(options).unwrap(), weights)
}

/// Passes of this long answer before the model has to wait for its consumer: two for the prompt, the second of which gives the
/// first of 1,024 tokens that may wait, and one more whose token does not fit.
const AHEAD: u64 = 2 + 1023 + 1;

fn wait_until(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it never came to that");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_slow_consumer_holds_the_model_back_and_gets_everything() {
    let (session, weights) = long_answer();
    let mut stream = session.stream_response("x").unwrap();
    wait_until(|| weights.tally().passes >= AHEAD);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(weights.tally().passes, AHEAD, "without a reader");
    let pieces: Vec<String> = stream.by_ref().map(|piece| piece.unwrap()).collect();
    assert_eq!(pieces.concat(), "0123456789".repeat(150));
    assert!(pieces[0].len() >= 1024, "what waited comes at once");
    assert_eq!(stream.finish().unwrap().metrics.decode_tokens, 1500);
}

#[test]
fn a_waiting_model_is_released_by_cancel_and_by_drop() {
    let (session, weights) = long_answer();
    let mut stream = session.stream_response("x").unwrap();
    wait_until(|| weights.tally().passes >= AHEAD);
    stream.canceller().cancel();
    assert!(stream.next().unwrap().unwrap_err().is_cancelled(), "the text that waited is not shown");
    assert_ended(&mut stream);
    wait_until(|| session.metrics().cancelled == 1);
    let stream = session.stream_response("x").unwrap();
    wait_until(|| weights.tally().passes >= 2 * AHEAD - 1);
    drop(stream);
    wait_until(|| session.metrics().cancelled == 2);
    assert!(session.history().is_empty());
    assert_eq!(session.respond("x").unwrap().tokens.len(), 1500);
}

#[test]
fn dropping_a_stream_undoes_its_turn_even_if_all_of_it_was_generated() {
    let (session, _) = session(echoing());
    let mut stream = session.stream_response("hello").unwrap();
    stream.next().unwrap().unwrap();
    wait_until(|| session.metrics().completed == 1);
    drop(stream);
    assert!(session.history().is_empty(), "its end was never seen");
    assert_eq!(session.respond("hello").unwrap().text, "1: hello");
}

#[test]
fn an_end_that_is_left_open_is_decided_by_who_asks_for_it() {
    let (session, _) = session(replying(|_, _| "yes".into()));
    let ask = || {
        let mut stream = session.stream_response("x").unwrap();
        while stream.next_part().is_some() {}
        assert!(stream.next_part().is_none() && stream.response().is_none());
        stream
    };
    drop(ask());
    assert_eq!(session.history(), []);
    let mut cancelled = ask();
    cancelled.canceller().cancel();
    assert!(cancelled.end().unwrap_err().is_cancelled());
    assert!(cancelled.next_part().is_none() && cancelled.events().next().is_none());
    assert!(matches!(cancelled.end().unwrap_err().kind(), ErrorKind::Misuse { .. }));
    let mut stream = ask();
    assert_eq!(stream.end().unwrap().text, "yes");
    assert!(stream.next_part().is_none() && stream.events().next().is_none());
    assert_eq!(session.history().len(), 2);
}

#[test]
fn cancel_before_the_end_is_seen_wins_and_after_it_does_nothing() {
    let (session, _) = session(echoing());
    let mut stream = session.stream_response("a").unwrap();
    stream.next().unwrap().unwrap();
    wait_until(|| session.metrics().completed == 1);
    session.cancel();
    assert!(stream.finish().unwrap_err().is_cancelled());
    assert!(session.history().is_empty());

    let mut stream = session.stream_response("b").unwrap();
    let canceller = stream.canceller();
    assert!(stream.by_ref().all(|piece| piece.is_ok()));
    canceller.cancel();
    session.cancel();
    assert_eq!(stream.finish().unwrap().text, "1: b");
    assert_eq!(session.respond("c").unwrap().text, "2: c", "an old handle cancels no later turn");
    canceller.cancel();
    assert_eq!(session.history().len(), 4);
}

#[test]
fn a_session_answers_one_prompt_at_a_time() {
    let (session, _) = session(echoing());
    let busy = |result: fulcrum::Result<()>| matches!(result.unwrap_err().kind(), ErrorKind::Busy);
    let stream = session.stream_response("a").unwrap();
    assert!(busy(session.stream_response("b").map(drop)));
    assert!(busy(session.reset()) && busy(session.restore_history(Vec::new())));
    assert!(busy(session.set_system_prompt(None)) && busy(session.set_tools(Vec::new())));
    assert!(session.history().is_empty());
    stream.canceller().cancel();
    assert_eq!(session.respond("c").unwrap().text, "1: c", "while the cancelled stream still exists");
    drop(stream);
    assert_eq!(session.history(), dialogue(&[("c", "1: c")]));
}

#[test]
fn a_stream_outlives_its_session() {
    let (session, _) = session(echoing());
    let stream = session.stream_response("a").unwrap();
    drop(session);
    assert_eq!(stream.finish().unwrap().text, "1: a");
}

#[test]
fn closing_ends_the_answer_and_the_session() {
    let slow = Cost { pass: Duration::from_secs(1000), real: true, ..Cost::default() };
    let (session, _) = session(echoing().cost(slow));
    let mut stream = session.stream_response("a").unwrap();
    session.close();
    session.close();
    assert!(stream.next().unwrap().unwrap_err().is_cancelled());
    assert_ended(&mut stream);
    assert!(matches!(session.respond("x").unwrap_err().kind(), ErrorKind::Closed));
    assert_eq!((session.history().len(), session.metrics().cancelled), (0, 1));
}
