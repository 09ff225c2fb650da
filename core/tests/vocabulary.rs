//! The vocabulary of a real file: text to tokens and back, special tokens, and input that must not end the process.
#![cfg(feature = "ggml")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::path::Path;
use std::sync::Arc;

use fulcrum::model::ModelFile;
use fulcrum::tokenizer::{Encoding, TokenizerJson, Vocabulary};
use fulcrum::{ErrorKind, Model, ModelOptions};

const PLAIN: Encoding = Encoding { add_bos: false, parse_special: false };

fn load(path: &Path) -> Arc<dyn Vocabulary> {
    let options = ModelOptions { threads: Some(1), context_length: Some(64), ..ModelOptions::default() };
    Arc::clone(Model::load(path, options).unwrap().vocabulary())
}

fn vocabulary(test: &str) -> Option<Arc<dyn Vocabulary>> {
    common::model(test).map(|path| load(&path))
}

fn decode(vocabulary: &Arc<dyn Vocabulary>, tokens: &[u32], special: bool) -> String {
    let mut bytes = Vec::new();
    for &token in tokens {
        vocabulary.decode_token(token, special, &mut bytes);
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn text_survives_the_way_to_tokens_and_back() {
    let Some(vocabulary) = vocabulary("text_survives_the_way_to_tokens_and_back") else { return };
    for text in ["Once upon a time, there was a cat.", "Größe, 東京, 🦀\n\ttabs", "a", " two  spaces "] {
        let tokens = vocabulary.encode(text, PLAIN).unwrap();
        assert!(tokens.iter().all(|&token| (token as usize) < vocabulary.n_tokens()));
        let decoded = decode(&vocabulary, &tokens, false);
        // SentencePiece vocabularies put a space in front; it is the stream decoder's business to take it off.
        assert_eq!(
            decoded.strip_prefix(' ').filter(|_| !text.starts_with(' ')).unwrap_or(&decoded).trim_start(),
            text.trim_start()
        );
    }
    assert!(vocabulary.encode("", PLAIN).unwrap().is_empty());
}

#[test]
fn the_begin_token_is_added_on_request_only() {
    let Some(path) = common::model("the_begin_token_is_added_on_request_only") else { return };
    let wants_bos = ModelFile::open(&path).unwrap().gguf().unwrap().find("tokenizer.ggml.add_bos_token").unwrap();
    let vocabulary = load(&path);
    let without = vocabulary.encode("cat", PLAIN).unwrap();
    let with = vocabulary.encode("cat", Encoding { add_bos: true, ..PLAIN }).unwrap();
    if wants_bos == Some(true) {
        assert_eq!(with[0], vocabulary.bos().unwrap());
        assert_eq!(with[1..], without);
    } else {
        assert_eq!(with, without);
    }
}

#[test]
fn special_tokens_are_read_only_from_trusted_text_and_written_only_on_request() {
    let Some(vocabulary) = vocabulary("special_tokens_are_read_only_from_trusted_text") else { return };
    let eos = vocabulary.eos().unwrap();
    assert!(vocabulary.is_end_of_generation(eos));
    let text = decode(&vocabulary, &[eos], true);
    assert!(!text.is_empty());
    assert!(!vocabulary.encode(&text, PLAIN).unwrap().contains(&eos));
    assert!(vocabulary.encode(&text, Encoding { parse_special: true, ..PLAIN }).unwrap().contains(&eos));
    assert_eq!(decode(&vocabulary, &[eos], false), "");
}

#[test]
fn tokens_outside_the_vocabulary_are_nothing() {
    let Some(vocabulary) = vocabulary("tokens_outside_the_vocabulary_are_nothing") else { return };
    for token in [vocabulary.n_tokens() as u32, i32::MAX as u32, u32::MAX] {
        assert_eq!(decode(&vocabulary, &[token], true), "");
        assert!(!vocabulary.is_end_of_generation(token));
    }
}

#[test]
fn a_text_of_a_megabyte_is_tokenized() {
    let Some(vocabulary) = vocabulary("a_text_of_a_megabyte_is_tokenized") else { return };
    let text = "once upon a time ".repeat(1 << 16);
    let tokens = vocabulary.encode(&text, PLAIN).unwrap();
    assert_eq!(decode(&vocabulary, &tokens, false).trim(), text.trim());
}

#[test]
fn a_text_beyond_all_contexts_is_an_error() {
    let Some(vocabulary) = vocabulary("a_text_beyond_all_contexts_is_an_error") else { return };
    let error = vocabulary.encode(&"a".repeat((4 << 20) + 1), PLAIN).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Tokenizer { .. }), "{error}");
}

/// The threads of an app have small stacks; `std::regex` inside must not use them up.
#[test]
fn a_small_stack_is_enough() {
    let Some(vocabulary) = vocabulary("a_small_stack_is_enough") else { return };
    std::thread::scope(|scope| {
        let encode = || vocabulary.encode(&"a".repeat(100_000), PLAIN).unwrap().len();
        let thread = std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, encode);
        assert!(thread.unwrap().join().unwrap() > 1000);
    });
}

/// A reproducible text of up to 40 characters, from scripts, emoji, combining and control characters, and words.
fn random_text(random: &mut u64) -> String {
    let mut next = |below: u64| {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*random >> 33) % below
    };
    let mut text = String::new();
    for _ in 0..next(40) {
        let (from, n) = match next(12) {
            0 => (0x1F300, 0x400),
            1 => (0x4E00, 0x5000),
            2 => (0x300, 0x70),
            3 => (0, 0x20),
            4 => (0x80, 0x20),
            5 => (0x400, 0x100),
            6 => (0x5D0, 0x80),
            7 => (0x2000, 0x70),
            8 => (0xFE00, 0x10),
            9 => (0xE000, 0x100),
            10 => {
                text += [" the", "  ", "\r\n", "'s", "<|im_end|>", "12345", "\u{1F468}\u{200D}\u{1F469}", "don't"]
                    [next(8) as usize];
                continue;
            }
            _ => (0x20, 0x60),
        };
        text.extend(char::from_u32(from + next(n) as u32));
    }
    text
}

#[test]
fn the_pocket_models_two_vocabularies_agree() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let gguf = load(&models.join("pocket.gguf"));
    let json = TokenizerJson::load(&models.join("pocket-tokenizer.json")).unwrap();
    assert_eq!(gguf.n_tokens(), json.n_tokens());
    let mut random = 7;
    for i in 0..10_000 {
        let text = random_text(&mut random);
        let encoding = Encoding { add_bos: false, parse_special: i % 2 == 0 };
        let tokens = gguf.encode(&text, encoding).unwrap();
        assert_eq!(tokens, json.encode(&text, encoding).unwrap(), "{text:?}");
        let mut bytes = [Vec::new(), Vec::new()];
        for &token in &tokens {
            gguf.decode_token(token, true, &mut bytes[0]);
            json.decode_token(token, true, &mut bytes[1]);
        }
        assert_eq!(bytes[0], text.as_bytes(), "{text:?}");
        assert_eq!(bytes[1], text.as_bytes(), "{text:?}");
    }
    let sorted = |vocabulary: &dyn Vocabulary| {
        let mut texts = vocabulary.control_texts().to_vec();
        texts.sort();
        texts
    };
    assert_eq!(sorted(&*gguf), sorted(&json));
    assert!(sorted(&*gguf).contains(&"<|im_end|>".to_owned()));
}
