//! Greedy text of the bundled model: the staged executor's is llama.cpp's.
//!
//! With ggml's kernels both do the same arithmetic in the same order, so text is the same, and so are the logits' bits. Our
//! kernels round elsewhere: there both are fed llama.cpp's text, and where they would choose differently the two choices must be
//! as good as equal.
#![cfg(feature = "ggml")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::path::Path;

use fulcrum::executor::{Executor, Row};
use fulcrum::model::ExecutorChoice;
use fulcrum::session::{GenerationOptions, SessionOptions};
use fulcrum::tokenizer::Encoding;
use fulcrum::{Cancel, Kernels, Model, ModelOptions, Token};

const N_TOKENS: usize = 256;
const PROMPTS: [&str; 2] = ["Once upon a time", "The capital of France is"];

fn load(path: &Path, executor: ExecutorChoice, kernels: Kernels) -> Model {
    let context_length = Some(512);
    Model::load(path, ModelOptions { executor, kernels, context_length, threads: Some(1), ..ModelOptions::default() })
        .unwrap()
}

fn text(model: &Model, prompt: &str) -> (String, Vec<Token>) {
    let options = GenerationOptions { max_tokens: Some(N_TOKENS), ..GenerationOptions::default() };
    let session = model.session(SessionOptions::default()).unwrap();
    let response = session.complete(prompt, &options).unwrap().finish().unwrap();
    (response.text, response.tokens)
}

/// Logits after `tokens`, which become history.
fn feed(executor: &mut dyn Executor, tokens: &[Token]) -> Vec<f32> {
    let last = tokens.len() as u32 - 1;
    let parents = std::iter::once(None).chain((0..).map(Some));
    let rows: Vec<Row> = (0..)
        .zip(tokens.iter().zip(parents))
        .map(|(i, (&token, parent))| Row { token, parent, wants_logits: i == last })
        .collect();
    let mut logits = vec![0.0; executor.shape().n_vocab];
    executor.begin(&rows).unwrap();
    executor.run(executor.shape().n_layers, &Cancel::new()).unwrap();
    executor.project(&[last], &mut logits).unwrap();
    executor.commit(&(0..=last).collect::<Vec<_>>()).unwrap();
    logits
}

fn best(logits: &[f32]) -> usize {
    // The lowest of equals, as the sampler has it.
    (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap()
}

#[test]
fn with_ggmls_kernels_greedy_text_is_llama_cpps() {
    let Some(path) = common::model("with_ggmls_kernels_greedy_text_is_llama_cpps") else { return };
    let staged = load(&path, ExecutorChoice::Staged, Kernels::Ggml);
    let llama = load(&path, ExecutorChoice::LlamaCpp, Kernels::Auto);
    for prompt in PROMPTS {
        assert_eq!(text(&staged, prompt), text(&llama, prompt), "{prompt:?}");
    }
}

#[test]
fn with_our_kernels_choices_differ_only_between_near_ties() {
    /// The difference that may decide otherwise, as a share of the largest logit's size.
    const NEAR: f32 = 0.02;
    /// Choices of all prompts that may differ.
    const FLIPS: usize = 8;
    let Some(path) = common::model("with_our_kernels_choices_differ_only_between_near_ties") else { return };
    let staged = load(&path, ExecutorChoice::Staged, Kernels::Auto);
    let llama = load(&path, ExecutorChoice::LlamaCpp, Kernels::Auto);
    let mut flips = 0;
    for prompt in PROMPTS {
        let prompt = llama.vocabulary().encode(prompt, Encoding { add_bos: true, parse_special: true }).unwrap();
        let [mut ours, mut theirs] = [&staged, &llama].map(|model| model.weights().executor(512).unwrap());
        let mut next = prompt;
        for step in 0..N_TOKENS {
            let (a, b) = (feed(&mut *ours, &next), feed(&mut *theirs, &next));
            let (chosen, wanted) = (best(&a), best(&b));
            let largest = b.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
            if chosen != wanted {
                flips += 1;
                let gap = (b[wanted] - b[chosen]).max(a[chosen] - a[wanted]);
                assert!(gap <= NEAR * largest, "step {step}: {chosen} for {wanted} over a gap of {gap} of {largest}");
            }
            next = vec![wanted as Token];
        }
    }
    assert!(flips <= FLIPS, "{flips} of {} choices differ", PROMPTS.len() * N_TOKENS);
}

#[test]
fn a_tokenizer_json_answers_as_the_files_own_vocabulary() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let tokenizer = |path: &Path| {
        let options = ModelOptions { tokenizer: Some(path.to_owned()), threads: Some(1), ..ModelOptions::default() };
        Model::load(models.join("pocket.gguf"), options)
    };
    let own = load(&models.join("pocket.gguf"), ExecutorChoice::Staged, Kernels::Own);
    let json = tokenizer(&models.join("pocket-tokenizer.json")).unwrap();
    assert_eq!(text(&own, PROMPTS[1]), text(&json, PROMPTS[1]));
    let wrong = [(models.join("README.md"), "not a tokenizer.json"), (models.join("absent.json"), "absent.json")];
    for (path, said) in wrong {
        let error = tokenizer(&path).err().unwrap().to_string();
        assert!(error.contains(said), "{error}");
    }
}
