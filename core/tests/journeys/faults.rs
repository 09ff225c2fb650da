//! Errors and cancels at every step: the turn leaves no trace and the next one works.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fulcrum::executor::scripted::{Call, Script};
use fulcrum::{ChatSession, ErrorKind, Message, Response, Token};
use parking_lot::Mutex;

use crate::support::*;

const PROMPTS: [&str; 3] = ["the first message", "the second one", "the third"];

/// The tokens of all three answers when nothing goes wrong.
fn reference() -> Vec<Vec<Token>> {
    let (session, _) = session(hashed());
    PROMPTS.map(|prompt| session.respond_with(prompt, &sampled(6)).unwrap().tokens).to_vec()
}

/// Asks the three prompts, each again until it is answered, and returns the answers and the errors in between.
fn persevere(session: &ChatSession) -> (Vec<Response>, Vec<fulcrum::Error>) {
    let (mut answers, mut errors) = (Vec::new(), Vec::new());
    for prompt in PROMPTS {
        loop {
            let before = session.history();
            match session.respond_with(prompt, &sampled(6)) {
                Ok(answer) => {
                    assert_eq!(session.history().len(), before.len() + 2);
                    answers.push(answer);
                    break;
                }
                Err(error) => {
                    assert_eq!(session.history(), before, "the turn left a trace");
                    assert!(errors.len() < 10, "no turn comes to its end any more: {error}");
                    errors.push(error);
                }
            }
        }
    }
    (answers, errors)
}

fn tokens(answers: &[Response]) -> Vec<Vec<Token>> {
    answers.iter().map(|answer| answer.tokens.clone()).collect()
}

#[test]
fn an_error_in_any_call_undoes_its_turn_only() {
    let reference = reference();
    for k in 0.. {
        let (session, _) = session(hashed().hook(fail_at(k)));
        let (answers, errors) = persevere(&session);
        assert_eq!(tokens(&answers), reference, "after a fault in call {k}");
        if errors.is_empty() {
            assert!(k > 100, "all calls were tried");
            break;
        }
        assert!(matches!(errors[..], [ref error] if matches!(error.kind(), ErrorKind::Backend { .. })), "call {k}");
        assert_eq!((session.metrics().failed, session.metrics().completed), (1, 3));
    }
}

/// Also when undoing fails as well: the executor is given up then.
#[test]
fn errors_in_a_row_from_any_call_on_leave_the_session_usable() {
    let reference = reference();
    for k in (0..100).step_by(3) {
        let outage = move |_, n: u64| match (k..k + 4).contains(&n) {
            true => Err(ErrorKind::Backend { operation: "test", reason: "planned".into() }.into()),
            false => Ok(()),
        };
        let (session, _) = session(hashed().hook(outage));
        let (answers, errors) = persevere(&session);
        assert_eq!(tokens(&answers), reference, "after an outage from call {k} on");
        assert!(!errors.is_empty());
    }
}

/// Nothing can be undone in such an executor; each turn that needs it fails once and the next try has a new one.
#[test]
fn an_executor_that_cannot_be_rolled_back_is_given_up() {
    let (session, _) = session(hashed().hook(|call, _| match call {
        Call::Truncate => Err(ErrorKind::Backend { operation: "test", reason: "planned".into() }.into()),
        _ => Ok(()),
    }));
    let (answers, errors) = persevere(&session);
    assert_eq!(tokens(&answers), reference());
    assert!(!errors.is_empty() && errors.len() < 3, "{errors:?}");
}

/// A hook that cancels whatever the session is doing at the `k`-th call.
struct CancelAt {
    session: Arc<Mutex<Option<Arc<ChatSession>>>>,
    passes_after: Arc<AtomicU64>,
}

impl CancelAt {
    fn script(k: u64) -> (Script, Self) {
        let this = Self { session: Arc::default(), passes_after: Arc::default() };
        let (session, passes_after) = (Arc::clone(&this.session), Arc::clone(&this.passes_after));
        let script = hashed().hook(move |call, n| {
            if n == k
                && let Some(session) = &*session.lock()
            {
                session.cancel();
            }
            if n > k && n < k + 10 && matches!(call, Call::Begin) {
                passes_after.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        (script, this)
    }
}

#[test]
fn a_cancel_at_any_call_undoes_its_turn_only() {
    let reference = reference();
    for k in 0.. {
        let (script, cancel_at) = CancelAt::script(k);
        let session = Arc::new(session(script).0);
        *cancel_at.session.lock() = Some(Arc::clone(&session));
        let (answers, errors) = persevere(&session);
        cancel_at.session.lock().take();
        assert_eq!(tokens(&answers), reference, "after a cancel in call {k}");
        if errors.is_empty() {
            assert!(k > 100, "all calls were tried");
            break;
        }
        assert!(errors.len() == 1 && errors[0].is_cancelled(), "call {k}: {errors:?}");
    }
}

/// Cancels at the fifth call of one kind, and returns the session, closed, and the passes that were begun.
fn cancelled_at_fifth(kind: Call, message: &str) -> (Arc<ChatSession>, u64) {
    let slot: Arc<Mutex<Option<Arc<ChatSession>>>> = Arc::default();
    let (inner, seen) = (Arc::clone(&slot), AtomicU64::new(0));
    let script = hashed().hook(move |call, _| {
        if call == kind && seen.fetch_add(1, Ordering::Relaxed) == 4 {
            inner.lock().iter().for_each(|session| session.cancel());
        }
        Ok(())
    });
    let (session, weights) = session(script);
    let session = Arc::new(session);
    *slot.lock() = Some(Arc::clone(&session));
    assert!(session.respond_with(message, &sampled(500)).unwrap_err().is_cancelled());
    session.close();
    slot.lock().take();
    (session, weights.tally().passes)
}

#[test]
fn after_a_cancel_no_further_pass_is_begun() {
    for kind in [Call::Begin, Call::Commit] {
        let (_, passes_of_prefill) = cancelled_at_fifth(kind, &"a long message ".repeat(20));
        assert_eq!(passes_of_prefill, 5, "{kind:?}");
        let (session, passes) = cancelled_at_fifth(kind, "a message");
        assert_eq!(passes, 5, "{kind:?}");
        assert_eq!((session.metrics().cancelled, session.metrics().completed), (1, 0));
        let after_prefill = session.metrics().total.target_passes;
        assert_eq!(after_prefill, if kind == Call::Begin { 2 } else { 3 }, "two of the passes are prefill's");
    }
}

#[test]
fn an_executor_that_panics_closes_the_session_and_nobody_waits_for_ever() {
    let (session, _) = session(echoing().hook(|call, n| match (call, n) {
        (Call::Run, 9..) => panic!("planned"),
        _ => Ok(()),
    }));
    let error = session.respond("a longer message than one chunk").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
    let error = session.respond("x").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed), "{error}");
    assert_eq!(session.history(), Vec::<Message>::new());
}

#[test]
fn a_template_that_fails_is_a_typed_error() {
    let template = "{{ raise_exception('no') }}";
    let vocabulary = fulcrum::executor::scripted::ByteVocabulary::new();
    let model = model_with(echoing().weights(), 100, vocabulary, Some(template));
    let session = model.session(Default::default()).unwrap();
    assert!(matches!(session.respond("x").unwrap_err().kind(), ErrorKind::Template { .. }));
    session.complete("without it", &Default::default()).unwrap().finish().unwrap();
}
