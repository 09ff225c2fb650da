//! Many threads: cancels, drops and closes at any moment, several sessions at once.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fulcrum::executor::scripted::Cost;
use fulcrum::{ChatSession, ContextOverflow, ErrorKind, SessionOptions};

use crate::support::*;

/// A few microseconds per pass, so that a cancel falls anywhere.
fn quick() -> Cost {
    Cost { pass: Duration::from_micros(20), row: Duration::from_micros(1), real: true, ..Cost::default() }
}

/// How a cycle ends its stream, by the number of the cycle.
fn one_cycle(session: &ChatSession, i: u64) {
    let mut stream = session.stream_response("a message of some length").unwrap();
    let canceller = stream.canceller();
    let delay = Duration::from_micros(i * 7919 % 600);
    let other = thread::spawn(move || {
        thread::sleep(delay);
        canceller.cancel();
    });
    match i % 4 {
        0 => drop(stream),
        1 => drop(stream.next()),
        2 => {
            let ends = stream.by_ref().filter(Result::is_err).count();
            assert_eq!(ends + usize::from(stream.response().is_some()), 1, "one end");
            assert!(stream.next().is_none());
        }
        _ => match stream.finish() {
            Ok(response) => assert!(response.text.ends_with("a message of some length")),
            Err(error) => assert!(error.is_cancelled(), "{error}"),
        },
    }
    other.join().unwrap();
}

#[test]
fn a_thousand_starts_cancels_and_drops() {
    let (session, _) = session(echoing().cost(quick()));
    for i in 0..1000 {
        one_cycle(&session, i);
        // Drafted echoes are quick: half of the cycles come to their end, and their turns have to fit into the context.
        if i % 20 == 19 {
            session.reset().unwrap();
        }
    }
    session.reset().unwrap();
    assert_eq!(session.respond("after all that").unwrap().text, "1: after all that");
    let metrics = session.metrics();
    assert_eq!(metrics.failed, 0);
    assert!(metrics.cancelled > 0 && metrics.completed > 0, "{metrics:?}");
}

#[test]
fn threads_that_share_a_session_get_an_answer_or_busy() {
    let options = SessionOptions { context_overflow: ContextOverflow::DropOldestTurns, ..Default::default() };
    let session = model(echoing().cost(quick()).weights(), 1000).session(options).unwrap();
    let answered: usize = thread::scope(|scope| {
        let ask = |i: usize| {
            let session = &session;
            move || {
                let mut answered = 0;
                for round in 0..100 {
                    match session.respond("m") {
                        Ok(response) => {
                            assert!(response.text.ends_with(": m"));
                            answered += 1;
                        }
                        Err(error) => assert!(matches!(error.kind(), ErrorKind::Busy | ErrorKind::Cancelled)),
                    }
                    if round % 10 == i {
                        session.cancel();
                    }
                }
                answered
            }
        };
        let threads: Vec<_> = (0..4).map(|i| scope.spawn(ask(i))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(answered > 0);
    assert_eq!(session.history().len(), 2 * answered, "every answer is history, and nothing else");
}

#[test]
fn sessions_of_one_model_are_independent() {
    let expected: Vec<_> = (0..4).map(|i| conversation(&session(hashed()).0, i)).collect();
    let model = model(hashed().cost(quick()).weights(), 2000);
    let sessions: Vec<_> = (0..4).map(|_| model.session(SessionOptions::default()).unwrap()).collect();
    thread::scope(|scope| {
        for (i, session) in sessions.iter().enumerate() {
            let expected = &expected[i];
            scope.spawn(move || assert_eq!(&conversation(session, i), expected));
        }
    });
}

fn conversation(session: &ChatSession, i: usize) -> Vec<Vec<fulcrum::Token>> {
    (0..3).map(|turn| session.respond_with(&format!("{i} {turn}"), &sampled(20)).unwrap().tokens).collect()
}

#[test]
fn sessions_close_and_drop_at_any_moment() {
    let weights = echoing().cost(quick()).weights();
    let model = model(weights, 500);
    for i in 0..200u64 {
        let session = Arc::new(model.session(SessionOptions::default()).unwrap());
        let stream = session.stream_response("a message").unwrap();
        let closer = Arc::clone(&session);
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_micros(i * 13 % 400));
            if i % 2 == 0 {
                closer.close();
            }
        });
        drop(session);
        match stream.finish() {
            Ok(response) => assert_eq!(response.text, "1: a message"),
            Err(error) => assert!(error.is_cancelled() && i % 2 == 0, "{error}"),
        }
        thread.join().unwrap();
    }
}
