//! Drafting changes how many passes an answer takes, and nothing else: text, ledger, ends, undoing are those of plain decoding.

use std::time::Duration;

use fulcrum::executor::scripted::{Cost, Rule, Script};
use fulcrum::{
    ChatSession, ContextOverflow, Drafting, DrySettings, FinishReason, GenerationOptions, Response, SamplerSettings,
    SessionOptions, TokenLogprob,
};

use crate::support::*;

const WAYS: [Drafting; 5] =
    [Drafting::Off, Drafting::Auto, Drafting::Context, Drafting::Chain { n: 3 }, Drafting::Chain { n: 16 }];

/// A model that writes with eight letters, mostly what followed the last two tokens before, and has its own ideas.
fn repeating() -> Script {
    let hashed = Rule::hashed(N_VOCAB, 3);
    Script::new(Rule::logits_from(N_VOCAB, move |history, logits| {
        hashed.logits(&history[history.len().saturating_sub(3)..], logits);
        let others = (0u32..).zip(logits.iter_mut()).filter(|(token, _)| !(97..=104).contains(token));
        others.for_each(|(_, logit)| *logit -= 20.0);
        let (earlier, last) = history.split_at(history.len().saturating_sub(2));
        let mut places = earlier.windows(3).filter(|window| window.starts_with(last));
        if let Some(window) = places.next_back() {
            logits[window[2] as usize] += 9.0;
        }
    }))
}

fn with(drafting: Drafting, options: GenerationOptions) -> GenerationOptions {
    GenerationOptions { drafting, ..options }
}

/// Everything of an answer that drafting must not change.
fn essence(response: &Response) -> impl PartialEq + std::fmt::Debug + use<> {
    let logprobs: Vec<(Option<f32>, Vec<TokenLogprob>)> =
        response.logprobs.iter().map(|choice| (choice.logprob, choice.top.clone())).collect();
    let counts = (response.metrics.prompt_tokens, response.metrics.reused_tokens, response.metrics.decode_tokens);
    (response.text.clone(), response.tokens.clone(), response.finish_reason, logprobs, counts)
}

/// Asks the same of a session per way of drafting, and returns the tokens accepted in all.
fn all_the_same(script: impl Fn() -> Script, context: usize, options: &GenerationOptions, prompts: &[&str]) -> u64 {
    let mut reference = Vec::new();
    let mut accepted = 0;
    for drafting in WAYS {
        let weights = script().weights();
        let settings = SessionOptions { context_overflow: ContextOverflow::DropOldestTurns, ..Default::default() };
        let session = model(weights.clone(), context).session(settings).unwrap();
        for (turn, prompt) in prompts.iter().enumerate() {
            let response = session.respond_with(prompt, &with(drafting, options.clone())).unwrap();
            // As many positions committed: the ledgers are the same after every turn.
            let got = (essence(&response), weights.tally().committed);
            match drafting {
                Drafting::Off => reference.push(got),
                _ => assert_eq!(got, reference[turn], "{drafting}, turn {turn}"),
            }
            accepted += response.metrics.accepted;
        }
    }
    accepted
}

#[test]
fn sampled_answers_with_penalties_and_log_probabilities_are_the_same() {
    let mut options = sampled(60);
    options.sampler.temperature = 0.9;
    options.sampler.repetition_penalty = 1.02;
    options.sampler.dry = DrySettings { multiplier: 0.2, allowed_length: 8, ..Default::default() };
    options.sampler.logprobs = Some(2);
    let accepted = all_the_same(repeating, 2000, &options, &["the first message", "the second one", "the third"]);
    assert!(accepted > 100, "hardly anything was accepted: {accepted}");
}

#[test]
fn greedy_answers_are_the_same_up_to_the_end_of_a_context_that_is_too_small() {
    let mut options = sampled(1000);
    options.sampler.temperature = 0.0;
    for context in [70, 71, 97, 200] {
        let accepted = all_the_same(repeating, context, &options, &["abcabcabcabcabcabc", "abcabc"]);
        assert!(accepted > 20, "hardly anything was accepted: {accepted}");
    }
}

#[test]
fn an_answer_that_ends_amid_accepted_tokens_ends_there() {
    let text = "one two three one two three one two three";
    let quoting = || replying(move |_, _| text.into());
    let prompts = [text, text];
    let mut accepted = 0;
    for n in 1..20 {
        let options = GenerationOptions { max_tokens: Some(n), ..Default::default() };
        accepted += all_the_same(quoting, 2000, &options, &prompts);
        let stop = vec![text[..20 + n].to_owned()];
        accepted += all_the_same(quoting, 2000, &GenerationOptions { stop, ..Default::default() }, &prompts);
    }
    accepted += all_the_same(quoting, 2000, &GenerationOptions::default(), &prompts);
    assert!(accepted > 1000, "hardly anything was accepted: {accepted}");
}

#[test]
fn drafting_may_differ_from_turn_to_turn() {
    let (changing, _) = session(repeating());
    let (plain, _) = session(repeating());
    for turn in 0..10 {
        let prompt = format!("message {turn}");
        let expected = plain.respond_with(&prompt, &with(Drafting::Off, sampled(20))).unwrap();
        let response = changing.respond_with(&prompt, &with(WAYS[turn % WAYS.len()], sampled(20))).unwrap();
        assert_eq!(essence(&response), essence(&expected), "turn {turn}");
    }
}

/// The answers to two prompts, each asked again until it is answered.
fn persevere(session: &ChatSession, drafting: Drafting) -> (Vec<Vec<u32>>, usize) {
    let mut errors = 0;
    let mut answer = |prompt| loop {
        match session.respond_with(prompt, &with(drafting, sampled(24))) {
            Ok(response) => return response.tokens,
            Err(_) => errors += 1,
        }
        assert!(errors < 10, "no turn comes to its end any more");
    };
    (vec![answer("the first message"), answer("the first message again")], errors)
}

#[test]
fn an_error_in_any_call_of_a_drafted_turn_leaves_no_trace() {
    let (reference, _) = persevere(&session(repeating()).0, Drafting::Off);
    for drafting in [Drafting::Chain { n: 6 }, Drafting::Auto] {
        for k in 0.. {
            let (session, _) = session(repeating().hook(fail_at(k)));
            let (answers, errors) = persevere(&session, drafting);
            assert_eq!(answers, reference, "{drafting}, after a fault in call {k}");
            if errors == 0 {
                assert!(k > 50, "all calls were tried");
                break;
            }
        }
    }
}

#[test]
fn text_that_was_handed_in_is_quoted_in_fewer_passes() {
    let text = "What the model is going to say stands in no message of this conversation.";
    let passes = |handed_in: bool| {
        let (session, _) = session(replying(move |_, _| text.into()));
        if handed_in {
            session.add_context(text).unwrap();
        }
        let response = session.respond_with("?", &with(Drafting::Chain { n: 8 }, Default::default())).unwrap();
        assert_eq!((response.text.as_str(), response.finish_reason), (text, FinishReason::EndOfTurn));
        assert_eq!(response.metrics.accepted_by.context > 40, handed_in);
        response.metrics.target_passes
    };
    let (without, with) = (passes(false), passes(true));
    assert!(with * 2 < without, "{with} passes, {without} without");
    let (session, _) = session(echoing());
    session.close();
    assert!(session.add_context("too late").is_err());
}

#[test]
fn nothing_is_drafted_for_a_model_with_a_running_state() {
    let (session, weights) = session(echoing().with_running_state());
    let response = session.respond_with("hello hello hello", &with(Drafting::Chain { n: 4 }, Default::default()));
    let metrics = response.unwrap().metrics;
    assert!(!metrics.drafting && metrics.drafted == 0);
    assert_eq!(weights.tally().rows, metrics.prompt_tokens + metrics.target_passes);
}

#[test]
fn where_rows_depend_on_those_beside_them_nothing_is_drafted_but_a_chain() {
    let text = "one two three one two three one two three one two three";
    // A pass costs and its rows do not: drafting pays.
    let cost = Cost { pass: Duration::from_millis(4), real: true, ..Cost::default() };
    let script = || replying(move |_, _| text.into()).cost(cost);
    let answer = |script: Script, drafting| {
        let (session, weights) = session(script);
        let response = session.respond_with(text, &with(drafting, Default::default())).unwrap();
        assert_eq!(response.text, text, "{drafting}");
        (response.metrics, weights.tally().rows)
    };
    for drafting in [Drafting::Auto, Drafting::Context] {
        let (plain, rows) = answer(script().with_varying_rows(), drafting);
        assert!(!plain.drafting && plain.drafted == 0 && plain.accepted == 0, "{drafting}: {plain:?}");
        assert_eq!((plain.rows_per_pass[0], rows), (plain.target_passes, plain.prompt_tokens + plain.target_passes));
        let (invariant, _) = answer(script(), drafting);
        assert!(invariant.drafting && invariant.accepted > 0, "{drafting}, it is the flag that decides: {invariant:?}");
    }
    let (chain, _) = answer(script().with_varying_rows(), Drafting::Chain { n: 4 });
    assert!(chain.drafting && chain.accepted > 0, "{chain:?}");
}

#[test]
fn the_figures_of_an_answer_fit_together() {
    let (session, weights) = session(repeating());
    let metrics = session.respond_with("abcabcabc", &with(Drafting::Chain { n: 4 }, sampled(50))).unwrap().metrics;
    assert!(metrics.drafting && metrics.accepted > 10);
    assert_eq!(metrics.rows_per_pass.iter().sum::<u64>(), metrics.target_passes);
    assert_eq!(weights.tally().rows, metrics.prompt_tokens + metrics.target_passes + metrics.drafted);
    // The first token is prefill's.
    assert_eq!(metrics.accepted + metrics.target_passes, metrics.decode_tokens - 1);
    assert!((metrics.accepted_length - 49.0 / metrics.target_passes as f64).abs() < 1e-9);
    let parts = metrics.draft_s + metrics.verify_s + metrics.project_s + metrics.sample_s;
    assert!(parts > 0.5 * metrics.decode_s && parts <= metrics.decode_s, "{metrics:?}");
    assert!(metrics.draft_model_s <= metrics.draft_s && metrics.prefill_s <= metrics.ttft_s);
    let sampler = SamplerSettings::default();
    let off = session.respond_with("x", &GenerationOptions { sampler, max_tokens: Some(5), ..plain() }).unwrap();
    assert!(!off.metrics.drafting && off.metrics.rows_per_pass[1..].iter().all(|n| *n == 0));
}
