//! A draft model guesses ahead: how well it guesses changes the number of passes, and nothing else; one that fails is done without.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fulcrum::executor::scripted::{ByteVocabulary, Call, Cost, Rule, Script, ScriptedWeights};
use fulcrum::{Drafting, ErrorKind, GenerationOptions, Model, Response, SessionOptions};

use crate::support::*;

fn chain(n: usize) -> GenerationOptions {
    let mut options = GenerationOptions { drafting: Drafting::Chain { n }, ..sampled(60) };
    options.sampler.temperature = 0.0;
    options
}

/// What it says is about its latest tokens: one that has read only the end of a prompt says the same.
fn local() -> Script {
    let rule = Rule::hashed(N_VOCAB, 3);
    Script::new(Rule::logits_from(N_VOCAB, move |history, logits| {
        rule.logits(&history[history.len().saturating_sub(16)..], logits);
    }))
}

/// A target whose every history has its own continuation, and `draft` in front of it.
fn pair(draft: Script) -> (Model, Arc<ScriptedWeights>) {
    let weights = draft.weights();
    (model(hashed().weights(), 2000).with_draft(&model(weights.clone(), 2000)).unwrap(), weights)
}

/// Three turns in one session.
fn turns(model: &Model, options: &GenerationOptions) -> Vec<Response> {
    let session = model.session(SessionOptions::default()).unwrap();
    (0..3).map(|turn| session.respond_with(&format!("message {turn}"), options).unwrap()).collect()
}

fn texts(responses: &[Response]) -> Vec<&[u32]> {
    responses.iter().map(|response| response.tokens.as_slice()).collect()
}

#[test]
fn one_that_knows_the_target_saves_passes_and_changes_nothing() {
    let plain = turns(&model(local().weights(), 2000), &GenerationOptions { drafting: Drafting::Off, ..chain(1) });
    let draft = local().weights();
    let model = model(local().weights(), 2000).with_draft(&model(draft.clone(), 2000)).unwrap();
    for n in [1, 4, 15] {
        let drafted = turns(&model, &chain(n));
        assert_eq!(texts(&drafted), texts(&plain), "chain:{n}");
        for response in &drafted {
            assert_eq!(response.metrics.accepted, response.metrics.accepted_by.model, "nothing else knows such a text");
            let passes = response.metrics.target_passes;
            assert!(passes <= 59u64.div_ceil(n as u64 + 1) + 1, "chain:{n}: {passes} passes for 59 tokens");
        }
    }
    // Nothing is read twice: what is committed is the text of the sessions, and the rows that were asked about.
    let tally = draft.tally();
    assert!(tally.rows < tally.committed + tally.committed / 5, "{tally:?}");
}

/// The second token waits for what the draft model reads of the prompt, so that is no part of prefill.
#[test]
fn all_its_time_is_a_part_of_decoding() {
    let (model, draft) = pair(hashed().cost(Cost { row: Duration::from_millis(1), real: true, ..Cost::default() }));
    for drafting in [Drafting::Auto, Drafting::Chain { n: 4 }] {
        let before = draft.tally().elapsed;
        let session = model.session(SessionOptions::default()).unwrap();
        let metrics = session.respond_with("a message", &GenerationOptions { drafting, ..chain(1) }).unwrap().metrics;
        let took = (draft.tally().elapsed - before).as_secs_f64();
        assert!(took > 0.02 && metrics.draft_model_s >= took, "{drafting}: {} of {took} s", metrics.draft_model_s);
        assert!(metrics.prefill_s <= metrics.ttft_s);
        assert!(metrics.draft_s >= metrics.draft_model_s && metrics.decode_s >= metrics.draft_s, "{metrics:?}");
    }
}

#[test]
fn it_reads_nothing_for_an_answer_that_is_over_before_it_could_help() {
    let (model, draft) = pair(hashed());
    let session = model.session(SessionOptions::default()).unwrap();
    let answer = session
        .respond_with("a message", &GenerationOptions { drafting: Drafting::Auto, max_tokens: Some(2), ..chain(1) });
    assert_eq!((answer.unwrap().tokens.len(), draft.tally().rows), (2, 0));
}

#[test]
fn one_that_knows_nothing_changes_nothing() {
    let plain = turns(&model(hashed().weights(), 2000), &GenerationOptions { drafting: Drafting::Off, ..chain(1) });
    let (model, draft) = pair(Script::new(Rule::hashed(N_VOCAB, 8)));
    for drafting in [Drafting::Auto, Drafting::Context, Drafting::Chain { n: 3 }] {
        let drafted = turns(&model, &GenerationOptions { drafting, ..chain(1) });
        assert_eq!(texts(&drafted), texts(&plain), "{drafting}");
        assert!(drafted.iter().all(|response| response.metrics.accepted < 10));
    }
    assert!(draft.tally().passes > 100);
}

#[test]
fn a_vocabulary_of_the_same_size_with_other_pieces_is_refused() {
    let with = |pieces: &[&str]| model_with(hashed().weights(), 2000, ByteVocabulary::with_pieces(pieces), None);
    let target = with(&["the ", "and "]);
    let refused = target.with_draft(&with(&["the ", "und "])).map(|_| ()).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::InvalidOption { option: "draft_model", .. }), "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains("token 261") && text.contains("und ") && text.contains("and "), "{text}");
    assert!(target.with_draft(&with(&["the ", "and "])).is_ok());
}

#[test]
fn one_that_fails_is_given_up_and_the_answer_goes_on() {
    let plain = turns(&model(hashed().weights(), 2000), &GenerationOptions { drafting: Drafting::Off, ..chain(1) });
    for first_failure in [0, 1, 2, 7, 40, 41, 42, 43] {
        let failures = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&failures);
        let (model, draft) = pair(hashed().hook(move |_: Call, n| {
            if n < first_failure {
                return Ok(());
            }
            count.fetch_add(1, Ordering::Relaxed);
            Err(ErrorKind::Backend { operation: "test", reason: "planned".into() }.into())
        }));
        let drafted = turns(&model, &chain(4));
        assert_eq!(texts(&drafted), texts(&plain), "failing from call {first_failure} on");
        assert_eq!(failures.load(Ordering::Relaxed), 1, "it was asked again after it had failed");
        assert!(draft.tally().passes <= first_failure + 1);
    }
}
