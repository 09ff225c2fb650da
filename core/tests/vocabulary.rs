//! The vocabulary of a real file: text to tokens and back, special tokens, and input that must not end the process.
#![cfg(feature = "ggml")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;
#[path = "common/oracle.rs"]
mod oracle;

use std::path::Path;
use std::sync::Arc;

use common::gguf_writer::{GgufWriter, Meta};
use common::random_model::{Family, ModelOptions as Sizes, random_model};
use common::small_vocabulary;
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

/// What is special in the vocabularies made here. Some share bytes with others, some begin or end with a space.
const SPECIALS: [&str; 16] = [
    "<unk>",
    "<s>",
    "</s>",
    "<|endoftext|>",
    "<mask>",
    "<|im_start|>",
    "<|im_end|>",
    "<|im_end|>x",
    "x<|x|>",
    "<|x|>",
    "[A]B",
    "B[C]",
    "aba",
    " <sp>",
    "<nl>\n",
    "<|sep|>",
];
/// Special wherever they stand.
const USER_DEFINED: [&str; 4] = ["  ", "\n\n", "<div>", "<tag>"];

/// A model with a vocabulary of `kind` that is called `name`.
fn with_vocabulary(kind: &str, pre: &str, name: &str) -> GgufWriter {
    let mut file =
        random_model(Family::Llama, &Sizes { n_layers: 1, n_embd: 64, n_ff: 64, ..Sizes::new(Family::Llama) });
    let mut tokens: Vec<String> = SPECIALS.iter().chain(&USER_DEFINED).map(|&text| text.to_owned()).collect();
    let mut types: Vec<i32> = SPECIALS.iter().map(|_| 3).chain(USER_DEFINED.iter().map(|_| 4)).collect();
    types[0] = 2;
    if kind == "gpt2" || kind == "gemma4" {
        tokens.extend(small_vocabulary::tokens().into_iter().take(small_vocabulary::BOS as usize));
    } else {
        let spelled = |byte| if kind == "rwkv" { format!("\\x{byte:02x}") } else { format!("<0x{byte:02X}>") };
        tokens.extend((0..=u8::MAX).map(spelled));
        types.resize(tokens.len(), if kind == "rwkv" { 1 } else { 6 });
        tokens.extend(["▁", "a", "▁a", "aa", "the", "\\n"].map(str::to_owned));
    }
    types.resize(tokens.len(), 1);
    tokens.extend((tokens.len()..small_vocabulary::N_VOCAB).map(|id| format!("unused {id}")));
    types.resize(tokens.len(), 5);
    file.set("general.name", name).set("tokenizer.ggml.model", kind).set("tokenizer.ggml.pre", pre);
    file.set("tokenizer.ggml.scores", (0..tokens.len()).map(|i| -(i as f32)).collect::<Vec<_>>());
    file.set("tokenizer.ggml.tokens", tokens).set("tokenizer.ggml.token_type", types);
    file.set("tokenizer.ggml.bos_token_id", 1_u32).set("tokenizer.ggml.eos_token_id", 2_u32);
    file.set("tokenizer.ggml.merges", Meta::from(vec!["a a", "t h", "th e"]));
    file
}

/// A reproducible text of special tokens and what can be beside them or make others of them. The plain ones are often there, so that it
/// can be cut.
fn text_of_specials(seed: u64, plain: &str) -> String {
    let mut random = seed;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let beside = ["", " ", "   ", "\n", "\n\n\n", "\t", "a", "ba", "aaa the ", "x", "<", ">", "<|", "🦀", "\u{a0}"];
    let mut text = String::new();
    while text.len() < 50_000 {
        text += match next(8) {
            0 => SPECIALS[next(SPECIALS.len())],
            1 => USER_DEFINED[next(USER_DEFINED.len())],
            2..4 => plain,
            _ => beside[next(beside.len())],
        };
    }
    text
}

/// Long texts are encoded in pieces.
#[test]
fn a_long_text_has_the_tokens_that_llama_cpp_gives_the_whole() {
    let folder = std::env::temp_dir().join(format!("fulcrum-pieces-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut paths = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/pocket.gguf")];
    let vocabularies = [
        ("llama", "default", "plain"),
        ("llama", "default", "spaceless"),
        // llama.cpp takes the whitespace behind all special tokens of this one, and before the mask of the next.
        ("llama", "default", "phi-3"),
        ("gpt2", "jina-v2-de", "plain"),
        ("gpt2", "llama-bpe", "plain"),
        ("gpt2", "gpt-2", "plain"),
        ("gemma4", "default", "plain"),
        ("plamo2", "default", "plain"),
        ("rwkv", "default", "plain"),
    ];
    for (kind, pre, name) in vocabularies {
        let mut file = with_vocabulary(kind, pre, name);
        if name == "spaceless" {
            file.set("tokenizer.ggml.add_space_prefix", false);
        }
        paths.push(folder.join(format!("{kind}-{pre}-{name}.gguf")));
        std::fs::write(paths.last().unwrap(), file.write()).unwrap();
    }
    for path in &paths {
        let (vocabulary, whole) = (load(path), oracle::Vocabulary::load(path));
        for (i, plain) in ["<|im_start|>", "<div>", "</s>", "<mask>"].into_iter().cycle().take(8).enumerate() {
            let text = text_of_specials(i as u64, plain);
            for parse_special in [true, false] {
                let tokens = vocabulary.encode(&text, Encoding { add_bos: false, parse_special }).unwrap();
                assert!(tokens == whole.tokenize(&text, parse_special), "{} {i} {parse_special}", path.display());
            }
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
