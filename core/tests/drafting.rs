//! The staged executor says the same with every way of drafting, to the last token: its kernels give a row the same logits
//! whatever rows stand beside it.
#![cfg(feature = "ggml")]
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::quantize::WeightType;
use common::random_model::{self, Family, random_model};
use fulcrum::{
    Drafting, ErrorKind, ExecutorChoice, GenerationOptions, Model, ModelOptions, Response, SamplerSettings,
    SessionOptions,
};

/// A model file that is removed again.
struct File(PathBuf);

impl File {
    fn write(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("fulcrum-drafting-{}-{name}.gguf", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn load(path: &Path) -> Model {
    let options = ModelOptions { executor: ExecutorChoice::Staged, threads: Some(1), ..ModelOptions::default() };
    Model::load(path, options).unwrap()
}

const TEXT: &str = "the hellos and the things he used there, and then the hellos and the things he used there again. ";

/// Two steps on a phone, in the words the pocket model was trained on: its answers quote the screen.
const SCREENS: [&str; 2] = [
    "Control this phone. My goal: Send a message to \"Helor Garvane\" saying \"I need a place to live.\".\nScreen: Home\n + \
     \"Notes #1\" / app\n + \"Maps #2\" / app\n + \"Music #3\" / app\n + \"Messages #4\" / app\n + \"Camera #5\" / app",
    "Screen: Messages\n + \"Helor Garvane #1\" / item\n + \"Tota Darrick #2\" / item\n + \"Sort #3\" / button\n + \"Back #4\" / \
     button",
];

/// Two answers of a new session.
fn answers(model: &Model, prompts: [&str; 2], drafting: Drafting, sampler: &SamplerSettings) -> [Response; 2] {
    let session = model.session(SessionOptions { context_length: Some(1024), ..Default::default() }).unwrap();
    session.add_context(TEXT).unwrap();
    let options = GenerationOptions { sampler: sampler.clone(), max_tokens: Some(64), drafting, ..Default::default() };
    prompts.map(|prompt| session.respond_with(prompt, &options).unwrap())
}

/// Compares all ways of drafting with plain decoding, greedy and sampled; returns rows drafted and tokens accepted.
fn compare(model: &Model, prompts: [&str; 2], name: &str) -> (u64, u64) {
    let warm = SamplerSettings { temperature: 1.0, seed: Some(7), ..Default::default() };
    let (mut drafted, mut accepted) = (0, 0);
    for sampler in [SamplerSettings::default(), warm] {
        let plain = answers(model, prompts, Drafting::Off, &sampler);
        for drafting in [Drafting::Auto, Drafting::Context, Drafting::Chain { n: 4 }, Drafting::Chain { n: 15 }] {
            let answers = answers(model, prompts, drafting, &sampler);
            for (answer, plain) in answers.iter().zip(&plain) {
                assert_eq!(answer.tokens, plain.tokens, "{name}, {drafting}, temperature {}", sampler.temperature);
                assert_eq!((&answer.text, answer.finish_reason), (&plain.text, plain.finish_reason));
                assert_eq!(answer.metrics.reused_tokens, plain.metrics.reused_tokens, "the ledgers differ");
                drafted += answer.metrics.drafted;
                accepted += answer.metrics.accepted;
            }
        }
    }
    (drafted, accepted)
}

#[test]
fn random_models_say_the_same_with_every_way_of_drafting() {
    for family in [Family::Llama, Family::Qwen3, Family::Gemma3] {
        for weights in [WeightType::Q8_0, WeightType::Q4_0] {
            let options = random_model::ModelOptions::new(family).weights(weights);
            let name = format!("{family:?}-{weights:?}");
            let file = File::write(&name, &random_model(family, &options).write());
            let (drafted, _) = compare(&load(&file.0), [&TEXT.repeat(2), "and the things again"], &name);
            assert!(drafted > 200, "{name}: hardly anything was drafted: {drafted}");
        }
    }
}

#[test]
fn a_model_that_makes_sense_says_the_same_with_every_way_of_drafting() {
    let Some(path) = common::model("a_model_that_makes_sense_says_the_same_with_every_way_of_drafting") else { return };
    let (drafted, accepted) = compare(&load(&path), SCREENS, "the test model");
    assert!(drafted > 50 && accepted > 0, "of {drafted} drafted rows {accepted} were accepted");
}

#[test]
fn a_draft_model_of_the_same_family_says_the_same_and_is_believed() {
    let test = "a_draft_model_of_the_same_family_says_the_same_and_is_believed";
    let (Some(target), Some(draft)) = (common::model(test), common::draft_model(test)) else { return };
    let options = ModelOptions { threads: Some(1), draft_model: Some(draft), ..ModelOptions::default() };
    let model = Model::load(&target, options).unwrap();
    let (drafted, accepted) = compare(&model, SCREENS, "the pocket pair");
    assert!(drafted > 50 && accepted > 0, "of {drafted} drafted rows {accepted} were accepted");
    let chain = answers(&model, SCREENS, Drafting::Chain { n: 4 }, &SamplerSettings::default());
    assert!(chain.iter().all(|answer| answer.metrics.accepted_by.model > 0), "{:?}", chain[0].metrics);
}

#[test]
fn a_draft_model_of_another_vocabulary_is_refused() {
    let Some(target) = common::model("a_draft_model_of_another_vocabulary_is_refused") else { return };
    let options = random_model::ModelOptions::new(Family::Llama);
    let file = File::write("other-vocabulary", &random_model(Family::Llama, &options).write());
    let refused = Model::load(&target, ModelOptions { draft_model: Some(file.0.clone()), ..Default::default() });
    let error = refused.map(|_| ()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidOption { option: "draft_model", .. }), "{error}");
}
