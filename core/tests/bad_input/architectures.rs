//! Architectures that only llama.cpp knows: an error, unless the caller vouches for the file.

use std::path::Path;

use super::common::gguf_writer::GgufWriter;
use super::common::isolated;
use super::common::random_model::{Family, with_experts};
use super::{EXECUTORS, File, answer, checked, gentle, sizes, small};
use fulcrum::model::{ExecutorChoice, ModelFile, ModelOptions};
use fulcrum::{ErrorKind, Model};

/// Mistral 3 computes as Llama does and has the same tensors; the staged executor has no row for it, and nothing checks it.
fn unchecked() -> GgufWriter {
    let mut model = small();
    for (key, _) in &mut model.metadata {
        if let Some(name) = key.strip_prefix("llama.") {
            *key = format!("mistral3.{name}");
        }
    }
    model.set("general.architecture", "mistral3");
    model
}

/// llama.cpp asserts that whole heads are rotated, when it makes a context.
fn damaged() -> GgufWriter {
    let mut model = unchecked();
    model.set("mistral3.rope.dimension_count", 16_u32);
    model
}

fn vouched(executor: ExecutorChoice) -> ModelOptions {
    ModelOptions { unchecked_architecture: true, ..gentle(executor) }
}

fn refused(path: &Path, options: ModelOptions) -> String {
    match checked(answer(path, options).unwrap_err()) {
        ErrorKind::UnsupportedModel { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

#[test]
fn an_architecture_that_nothing_checks_is_refused_sound_or_damaged() {
    isolated::each("architectures::an_architecture_that_nothing_checks_is_refused_sound_or_damaged", 0..4, |i| {
        let file = File::new(&if i % 2 == 0 { unchecked() } else { damaged() }.write());
        let reason = refused(file.path(), gentle([ExecutorChoice::Auto, ExecutorChoice::LlamaCpp][i / 2]));
        for said in ["`mistral3`", "ends the process", "unchecked_architecture"] {
            assert!(reason.contains(said), "{reason}");
        }
        let asked = ModelFile::open(file.path()).unwrap().executor(&ModelOptions::default());
        assert_eq!(checked(asked.unwrap_err()).to_string().split(": ").nth(2), reason.split(": ").next());
    });
}

#[test]
fn whoever_vouches_for_a_file_has_it_answered() {
    isolated::each("architectures::whoever_vouches_for_a_file_has_it_answered", 0..1, |_| {
        let (model, llama) = (File::new(&unchecked().write()), File::new(&small().write()));
        let expected = answer(llama.path(), gentle(ExecutorChoice::LlamaCpp)).unwrap().text;
        for executor in [ExecutorChoice::Auto, ExecutorChoice::LlamaCpp] {
            assert_eq!(answer(model.path(), vouched(executor)).unwrap().text, expected);
        }
        let (choice, _) = ModelFile::open(model.path()).unwrap().executor(&vouched(ExecutorChoice::Auto)).unwrap();
        assert_eq!(choice, ExecutorChoice::LlamaCpp);
        // A draft model is loaded with the same options, and is asked for the same word.
        let drafting = |options| ModelOptions { draft_model: Some(model.path().to_owned()), ..options };
        assert!(refused(llama.path(), drafting(gentle(ExecutorChoice::Auto))).contains("`mistral3`"));
        answer(llama.path(), drafting(vouched(ExecutorChoice::Auto))).unwrap();
        // The staged executor is not talked into anything.
        assert!(refused(model.path(), vouched(ExecutorChoice::Staged)).contains("mistral3"));
    });
}

/// Why the word is asked for. Where this fails, llama.cpp has become kinder, and the option may go.
#[test]
fn what_is_vouched_for_and_damaged_ends_the_process() {
    let died = std::panic::catch_unwind(|| {
        isolated::each("architectures::what_is_vouched_for_and_damaged_ends_the_process", 0..1, |_| {
            let file = File::new(&damaged().write());
            let _ = answer(file.path(), vouched(ExecutorChoice::Auto));
        });
    });
    assert!(died.is_err(), "llama.cpp loaded it");
}

#[test]
fn a_family_that_is_checked_is_checked_with_its_experts() {
    isolated::each("architectures::a_family_that_is_checked_is_checked_with_its_experts", 0..9, |i| {
        let mut model = with_experts(small(), &sizes(Family::Llama));
        let name = format!("blk.1.ffn_{}.weight", ["gate_inp", "gate_exps", "up_exps", "down_exps"][i % 4]);
        match i / 4 {
            0 => model.tensor_mut(&name).ty = 26, // I32
            1 => model.tensor_mut(&name).dims.reverse(),
            _ => {
                let file = File::new(&model.write());
                answer(file.path(), gentle(ExecutorChoice::Auto)).unwrap();
                assert!(refused(file.path(), gentle(ExecutorChoice::Staged)).contains("experts"));
                return;
            }
        }
        let file = File::new(&model.write());
        let error = checked(answer(file.path(), gentle(ExecutorChoice::Auto)).unwrap_err());
        assert!(matches!(&error, ErrorKind::InvalidModel { reason, .. } if reason.contains(&name)), "{error}");
    });
}

#[test]
fn an_architecture_that_nobody_knows_is_refused_either_way() {
    isolated::each("architectures::an_architecture_that_nobody_knows_is_refused_either_way", 0..8, |i| {
        let names = ["novel", "", "a\nb", &"x".repeat(5000)];
        let mut model = unchecked();
        for (key, _) in &mut model.metadata {
            *key = key.replace("mistral3.", &format!("{}.", names[i / 2]));
        }
        model.set("general.architecture", names[i / 2]);
        let file = File::new(&model.write());
        for executor in EXECUTORS {
            let options = if i % 2 == 0 { gentle(executor) } else { vouched(executor) };
            let error = checked(Model::load(file.path(), options).map(drop).unwrap_err());
            assert!(matches!(error, ErrorKind::UnsupportedModel { .. } | ErrorKind::InvalidModel { .. }), "{error}");
            // llama.cpp's own reason, and not that it failed.
            let asked = executor == ExecutorChoice::LlamaCpp && i == 1;
            assert!(!asked || error.to_string().contains("unknown model architecture: 'novel'"), "{error}");
        }
    });
}
