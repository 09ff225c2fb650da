//! A fake chat model, and the words to ask it.

use std::sync::Arc;

use fulcrum::executor::Weights;
use fulcrum::executor::scripted::{ByteVocabulary, Call, Rule, Script, ScriptedWeights};
use fulcrum::tokenizer::Vocabulary;
use fulcrum::{
    ChatSession, ChatTemplate, Drafting, ErrorKind, GenerationOptions, Message, Model, ModelInfo, Result,
    SamplerSettings, SessionOptions, Token,
};

pub(crate) const N_VOCAB: usize = 260;

/// A model that answers the last user message with `reply(message, number of user messages in the prompt)`.
pub(crate) fn replying(reply: impl Fn(&str, usize) -> String + Send + Sync + 'static) -> Script {
    let vocabulary = ByteVocabulary::new();
    let marker = vocabulary.tokens("<|im_start|>assistant\n");
    let rule = Rule::replying(N_VOCAB, &marker, ByteVocabulary::END, move |prompt| {
        let text = text_of(&vocabulary, prompt);
        let turns: Vec<&str> = text.split("<|im_start|>user\n").skip(1).collect();
        let last = turns.last().and_then(|turn| turn.split("<|im_end|>").next()).unwrap_or_default();
        vocabulary.tokens(&reply(last, turns.len()))
    });
    Script::new(rule)
}

/// "1: hello" to "hello" as the first message.
pub(crate) fn echoing() -> Script {
    replying(|message, turn| format!("{turn}: {message}"))
}

/// Every history has its own pseudo-random continuation, mostly no valid UTF-8: whatever is wrong in the cache shows.
pub(crate) fn hashed() -> Script {
    Script::new(Rule::hashed(N_VOCAB, 7))
}

pub(crate) fn text_of(vocabulary: &dyn Vocabulary, tokens: &[Token]) -> String {
    let mut bytes = Vec::new();
    tokens.iter().for_each(|&token| vocabulary.decode_token(token, true, &mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn model(weights: Arc<dyn Weights>, context_length: usize) -> Model {
    model_with(weights, context_length, ByteVocabulary::new(), None)
}

pub(crate) fn model_with(
    weights: Arc<dyn Weights>,
    context_length: usize,
    vocabulary: ByteVocabulary,
    template: Option<&str>,
) -> Model {
    let template = ChatTemplate::new(template, "<s>", "</s>").unwrap();
    let mut info = ModelInfo::default();
    info.context_length = context_length;
    Model::from_parts(weights, Arc::new(vocabulary), template, info)
}

/// A session of 2,000 tokens with default settings, and the model's tally.
pub(crate) fn session(script: Script) -> (ChatSession, Arc<ScriptedWeights>) {
    let weights = script.weights();
    (model(weights.clone(), 2000).session(SessionOptions::default()).unwrap(), weights)
}

/// Default settings, one row per pass after the prompt: for tests that count passes.
pub(crate) fn plain() -> GenerationOptions {
    GenerationOptions { drafting: Drafting::Off, ..Default::default() }
}

/// Exactly `n` tokens, sampled with a fixed seed: the tokens that end a turn are forbidden.
pub(crate) fn sampled(n: usize) -> GenerationOptions {
    let logit_bias = [ByteVocabulary::EOS, ByteVocabulary::END].map(|token| (token, f32::NEG_INFINITY)).to_vec();
    let sampler = SamplerSettings { temperature: 1.0, seed: Some(11), logit_bias, ..Default::default() };
    GenerationOptions { sampler, max_tokens: Some(n), ..Default::default() }
}

pub(crate) fn dialogue(turns: &[(&str, &str)]) -> Vec<Message> {
    turns.iter().flat_map(|(user, answer)| [Message::user(*user), Message::assistant(*answer)]).collect()
}

/// A hook that fails the `k`-th call.
pub(crate) fn fail_at(k: u64) -> impl Fn(Call, u64) -> Result<()> + Send + Sync {
    move |_, n| match n == k {
        true => Err(ErrorKind::Backend { operation: "test", reason: "planned".into() }.into()),
        false => Ok(()),
    }
}
