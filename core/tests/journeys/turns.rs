//! Turns that come to their end: history, reuse of the cache, exactness of what is reused.

use fulcrum::executor::scripted::ByteVocabulary;
use fulcrum::{ErrorKind, FinishReason, GenerationOptions, Message, Role, SamplerSettings, SessionOptions, Tool};

use crate::support::*;

#[test]
fn answers_become_history_and_only_the_new_part_is_run() {
    let (session, weights) = session(echoing());
    let first = session.respond_with("hello", &plain()).unwrap();
    assert_eq!((first.text.as_str(), first.finish_reason), ("1: hello", FinishReason::EndOfTurn));
    assert_eq!(first.metrics.reused_tokens, 0);
    assert_eq!((first.metrics.decode_tokens, first.metrics.target_passes), (8, 8), "the ending token took a pass too");
    let run_so_far = weights.tally().rows;
    assert_eq!(run_so_far, first.metrics.prompt_tokens + 8);

    let second = session.respond_with("again", &plain()).unwrap();
    assert_eq!(second.text, "2: again");
    assert_eq!(second.metrics.reused_tokens, run_so_far, "all that was in the cache");
    let new = second.metrics.prompt_tokens - second.metrics.reused_tokens;
    assert_eq!(weights.tally().rows, run_so_far + new + 8);
    assert_eq!(session.history(), dialogue(&[("hello", "1: hello"), ("again", "2: again")]));

    let total = session.metrics();
    assert_eq!((total.completed, total.cancelled, total.failed), (2, 0, 0));
    assert_eq!(total.total.prompt_tokens, first.metrics.prompt_tokens + second.metrics.prompt_tokens);
    assert!(first.metrics.ttft_s >= first.metrics.prefill_s && first.metrics.prefill_s > 0.0);
    assert!(first.metrics.decode_s > 0.0 && first.metrics.decode_tokens_per_s > 0.0);
}

/// What is generated is mostly no UTF-8, so its text encodes to other tokens than were generated: reuse has to end there, and the
/// answer has to be that of a session that never had a cache.
#[test]
fn a_text_that_encodes_differently_is_run_again_from_the_first_difference() {
    let (session, _) = session(hashed());
    let options = sampled(24);
    for turn in 0..6 {
        let before = session.history();
        let response = session.respond_with(&format!("turn {turn}"), &options).unwrap();
        let (fresh, _) = crate::support::session(hashed());
        fresh.restore_history(before).unwrap();
        let without_cache = fresh.respond_with(&format!("turn {turn}"), &options).unwrap();
        assert_eq!(response.tokens, without_cache.tokens, "turn {turn}");
        assert_eq!(without_cache.metrics.reused_tokens, 0);
        assert_eq!(response.metrics.prompt_tokens, without_cache.metrics.prompt_tokens);
        if turn > 0 {
            let reused = response.metrics.reused_tokens;
            assert!(reused > 0 && reused < response.metrics.prompt_tokens, "{reused} tokens reused");
        }
    }
}

#[test]
fn pieces_that_join_when_encoded_again_end_reuse_exactly_there() {
    let vocabulary = ByteVocabulary::with_pieces(&["ab"]);
    let marker = vocabulary.tokens("<|im_start|>assistant\n");
    let rule = fulcrum::executor::scripted::Rule::replying(261, &marker, ByteVocabulary::END, |_| {
        b"xab".iter().map(|&byte| u32::from(byte)).collect()
    });
    let weights = fulcrum::executor::scripted::Script::new(rule).weights();
    let session = model_with(weights, 500, vocabulary, None).session(SessionOptions::default()).unwrap();
    let first = session.respond("q").unwrap();
    assert_eq!(first.tokens.len(), 3);
    let second = session.respond("q").unwrap();
    assert_eq!(second.metrics.reused_tokens, first.metrics.prompt_tokens + 1, "the x, but not a and b apart");
}

/// Templates strip thinking and white space from earlier answers.
#[test]
fn a_template_that_rewrites_earlier_answers_costs_only_reuse() {
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}\
                    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    let weights = replying(|message, turn| format!("  {turn} {message}  ")).weights();
    let session =
        model_with(weights, 500, ByteVocabulary::new(), Some(template)).session(SessionOptions::default()).unwrap();
    let first = session.respond("a").unwrap();
    assert_eq!(first.text, "  1 a  ");
    let second = session.respond("b").unwrap();
    assert_eq!(second.text, "  2 b  ");
    assert_eq!(second.metrics.reused_tokens, first.metrics.prompt_tokens);
}

#[test]
fn the_same_seed_gives_the_same_answer_whatever_the_chunks() {
    let answer = |max_rows| {
        let (session, _) = session(hashed().max_rows(max_rows));
        let first = session.respond_with("one", &sampled(40)).unwrap();
        let second = session.respond_with("two", &sampled(40)).unwrap();
        assert_eq!((first.seed, first.tokens.len()), (11, 40));
        [first.tokens, second.tokens]
    };
    let reference = answer(512);
    assert!([1, 2, 7, 64].iter().all(|&max_rows| answer(max_rows) == reference));
    let (session, _) = session(hashed());
    let other_seed =
        GenerationOptions { sampler: SamplerSettings { seed: Some(12), ..sampled(40).sampler }, ..sampled(40) };
    assert_ne!(session.respond_with("one", &other_seed).unwrap().tokens, reference[0]);
}

#[test]
fn asking_the_same_again_runs_one_row() {
    let (session, weights) = session(echoing());
    let text = "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n";
    let once = session.complete(text, &plain()).unwrap().finish().unwrap();
    let rows = weights.tally().rows;
    let again = session.complete(text, &plain()).unwrap().finish().unwrap();
    assert_eq!((&once.text, &again.text), (&"1: x".to_owned(), &"1: x".to_owned()));
    assert_eq!(again.metrics.reused_tokens, again.metrics.prompt_tokens - 1);
    assert_eq!(weights.tally().rows, rows + 1 + 4);
    assert!(session.history().is_empty(), "a completion is outside the conversation");
    assert_eq!(session.respond("y").unwrap().text, "1: y");
}

#[test]
fn one_begin_of_sequence_token_with_any_template() {
    let prompt_tokens = |template| {
        let weights = echoing().weights();
        let session =
            model_with(weights, 500, ByteVocabulary::new(), Some(template)).session(SessionOptions::default()).unwrap();
        session.respond("x").unwrap().metrics.prompt_tokens
    };
    let turn = "<|im_start|>user\n{{ messages[0].content }}<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(prompt_tokens(turn), prompt_tokens(&format!("{{{{ bos_token }}}}{turn}")));
}

#[test]
fn system_prompt_tools_and_history_reach_the_template() {
    let template = "{% for t in tools %}[{{ t.function.name }}]{% endfor %}\
                    {% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                    <|im_start|>assistant{{ '\\n' }}";
    let weights = hashed().weights();
    let model = model_with(weights, 1000, ByteVocabulary::new(), Some(template));
    let tool = Tool { name: "clock".into(), description: String::new(), parameters: serde_json::json!({}) };
    let options = SessionOptions {
        system_prompt: Some("Be brief.".into()),
        tools: vec![tool],
        generation: sampled(4),
        ..Default::default()
    };
    let session = model.session(options).unwrap();
    let n_tokens = |text: &str| 1 + ByteVocabulary::new().tokens(text).len() as u64;
    let prompt = |session: &fulcrum::ChatSession| session.respond("x").unwrap().metrics.prompt_tokens;
    let user = "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(prompt(&session), n_tokens(&format!("[clock]<|im_start|>system\nBe brief.<|im_end|>\n{user}")));
    let history = session.history();
    assert_eq!(history.iter().map(|m| m.role).collect::<Vec<_>>(), [Role::System, Role::User, Role::Assistant]);

    session.reset().unwrap();
    session.set_tools(Vec::new()).unwrap();
    session.set_system_prompt(None).unwrap();
    assert_eq!(prompt(&session), n_tokens(user));
    session.restore_history(vec![Message::system("Hm"), Message::user("a"), Message::assistant("b")]).unwrap();
    let restored =
        "<|im_start|>system\nHm<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n";
    assert_eq!(prompt(&session), n_tokens(&format!("{restored}{user}")));
    let saved = serde_json::to_string(&session.history()).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Message>>(&saved).unwrap(), session.history());
}

#[test]
fn results_of_tools_continue_the_turn() {
    let (session, _) = session(echoing());
    session.respond("what time is it?").unwrap();
    let stream = session.stream_messages(vec![Message::tool("12:00")], &GenerationOptions::default()).unwrap();
    stream.finish().unwrap();
    let roles: Vec<Role> = session.history().iter().map(|m| m.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool, Role::Assistant]);
}

#[test]
fn options_that_cannot_be_used_are_refused_before_anything_runs() {
    let (session, weights) = session(echoing());
    let refused = |options: GenerationOptions| match session.respond_with("x", &options).unwrap_err().into_kind() {
        ErrorKind::InvalidOption { option, .. } => option,
        other => panic!("{other}"),
    };
    assert_eq!(refused(GenerationOptions { max_tokens: Some(0), ..Default::default() }), "max_tokens");
    assert_eq!(refused(GenerationOptions { stop: vec![String::new()], ..Default::default() }), "stop");
    let sampler = SamplerSettings { temperature: -1.0, ..Default::default() };
    assert_eq!(refused(GenerationOptions { sampler, ..Default::default() }), "temperature");
    assert!(session.stream_messages(Vec::new(), &GenerationOptions::default()).is_err());
    assert_eq!(weights.tally().passes, 0);
    assert_eq!(session.respond("x").unwrap().text, "1: x", "nothing of it left the session busy");
}

#[test]
fn log_probabilities_come_one_per_token_if_asked_for() {
    let (session, _) = session(echoing());
    let sampler = SamplerSettings { logprobs: Some(2), ..Default::default() };
    let response = session.respond_with("x", &GenerationOptions { sampler, ..Default::default() }).unwrap();
    assert_eq!(response.logprobs.iter().map(|choice| choice.token).collect::<Vec<_>>(), response.tokens);
    assert!(response.logprobs.iter().all(|choice| choice.top.len() == 2 && choice.logprob.unwrap() > -1e-3));
    assert!(session.respond("x").unwrap().logprobs.is_empty());
}
