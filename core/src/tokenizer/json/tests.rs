//! Small tokenizers of the three kinds that language models use, and files that are none.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::tokenizer::DecodeStream;
use crate::tokenizer::bytes::byte_of;

const PLAIN: Encoding = Encoding { add_bos: false, parse_special: false };
const SPECIAL: Encoding = Encoding { add_bos: true, parse_special: true };

fn added(id: u32, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "special": special,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false
    })
}

fn file(added: &[Value], normalizer: Value, pre_tokenizer: Value, decoder: Value, model: Value) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": model
    })
}

/// Byte-level BPE as in GPT-2, Llama 3, Qwen, SmolLM2.
fn byte_level() -> Value {
    let mut vocab = serde_json::Map::new();
    for c in (0..0x180).filter_map(char::from_u32).filter(|&c| byte_of(c).is_some()) {
        vocab.insert(c.to_string(), json!(vocab.len()));
    }
    for merged in ["he", "ll", "hell", "hello", "Ġhello"] {
        vocab.insert(merged.to_owned(), json!(vocab.len()));
    }
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ hello"];
    file(
        &[added(261, "<|im_start|>", true), added(262, "<|im_end|>", true), added(263, "<think é>", false)],
        Value::Null,
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}),
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        json!({"type": "BPE", "vocab": vocab, "merges": merges}),
    )
}

/// SentencePiece BPE with bytes for what it does not know, as in Llama 2, Mistral, Phi-3, Gemma.
fn sentence_piece() -> Value {
    let mut vocab = serde_json::Map::new();
    for piece in ["<unk>", "<s>", "</s>"] {
        vocab.insert(piece.to_owned(), json!(vocab.len()));
    }
    for byte in 0..256 {
        vocab.insert(format!("<0x{byte:02X}>"), json!(vocab.len()));
    }
    for piece in ["▁", "h", "i", "hi", "▁hi"] {
        vocab.insert(piece.to_owned(), json!(vocab.len()));
    }
    let mut file = file(
        &[added(0, "<unk>", true), added(1, "<s>", true), added(2, "</s>", true)],
        json!({"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        ]}),
        Value::Null,
        json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}
        ]}),
        json!({
            "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": vocab, "merges": ["h i", "▁ hi"]
        }),
    );
    file["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    });
    file
}

/// Unigram behind Metaspace, as in T5-like and multilingual models.
fn metaspace() -> Value {
    let space = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true});
    let pieces = json!([["<unk>", 0.0], ["▁", -2.0], ["a", -3.0], ["b", -3.0], ["▁ab", -1.5], ["c", -3.5]]);
    file(&[], Value::Null, space.clone(), space, json!({"type": "Unigram", "unk_id": 0, "vocab": pieces}))
}

fn vocabulary(file: &Value) -> TokenizerJson {
    TokenizerJson::from_bytes(file.to_string().as_bytes()).unwrap()
}

fn streamed(vocabulary: &TokenizerJson, tokens: &[Token], special: bool) -> String {
    let (mut stream, mut text, mut bytes) = (DecodeStream::new(), String::new(), Vec::new());
    for &token in tokens {
        bytes.clear();
        vocabulary.decode_token(token, special, &mut bytes);
        text.push_str(stream.push(&bytes));
    }
    text + stream.finish()
}

#[test]
fn byte_level_pieces() {
    let vocabulary = vocabulary(&byte_level());
    assert_eq!(vocabulary.n_tokens(), 264);
    let tokens = vocabulary.encode("hello hello", PLAIN).unwrap();
    assert_eq!(tokens, [259, 260]);
    assert_eq!(streamed(&vocabulary, &tokens, false), "hello hello");
    assert_eq!(streamed(&vocabulary, &tokens[1..], false), " hello");
    assert_eq!((vocabulary.bos(), vocabulary.eos()), (None, None));
    assert!(vocabulary.is_end_of_generation(262) && !vocabulary.is_end_of_generation(261));
}

#[test]
fn special_tokens_only_where_they_are_meant() {
    let vocabulary = vocabulary(&byte_level());
    let text = "<|im_start|>hello<|im_end|>";
    for _ in 0..2 {
        assert_eq!(vocabulary.encode(text, SPECIAL).unwrap(), [261, 259, 262]);
        let plain = vocabulary.encode(text, PLAIN).unwrap();
        assert!(plain.len() > 3 && plain.iter().all(|&t| t < 261));
        assert_eq!(streamed(&vocabulary, &plain, false), text);
    }
    assert_eq!(streamed(&vocabulary, &[261, 259, 262], false), "hello");
    assert_eq!(streamed(&vocabulary, &[261, 259, 262], true), text);
    // A token that an app added is text: read and written as it stands, é and space included.
    assert_eq!(vocabulary.encode("<think é>", PLAIN).unwrap(), [263]);
    assert_eq!(streamed(&vocabulary, &[263], false), "<think é>");
}

#[test]
fn sentence_piece_keeps_the_space_of_a_first_word() {
    let vocabulary = vocabulary(&sentence_piece());
    assert_eq!((vocabulary.bos(), vocabulary.eos()), (Some(1), Some(2)));
    let tokens = vocabulary.encode("hi hi", SPECIAL).unwrap();
    assert_eq!(tokens, [1, 263, 263]);
    assert_eq!(streamed(&vocabulary, &tokens, false), " hi hi");
    // é has no piece: its two bytes come as two tokens and leave as one character.
    let tokens = vocabulary.encode("é", PLAIN).unwrap();
    assert_eq!(tokens, [259, 3 + 0xC3, 3 + 0xA9]);
    assert_eq!(streamed(&vocabulary, &tokens, false), " é");
    assert_eq!(streamed(&vocabulary, &[3 + 0xC3], false), "\u{FFFD}");
}

#[test]
fn metaspace_pieces() {
    let vocabulary = vocabulary(&metaspace());
    let tokens = vocabulary.encode("ab ab c", PLAIN).unwrap();
    assert_eq!(streamed(&vocabulary, &tokens, false), " ab ab c");
    assert_eq!(streamed(&vocabulary, &[4], false), " ab");
}

#[test]
fn unknown_tokens_are_silent_and_callers_know_better() {
    let vocabulary = vocabulary(&byte_level()).with_bos(Some(261)).with_eos(263);
    assert_eq!(streamed(&vocabulary, &[264, u32::MAX], true), "");
    assert_eq!(vocabulary.encode("", SPECIAL).unwrap(), [261]);
    assert_eq!((vocabulary.eos(), vocabulary.is_end_of_generation(263)), (Some(263), true));
    let vocabulary = vocabulary.with_end_of_generation(vec![5, 3, 5]);
    assert!([3, 5].iter().all(|&t| vocabulary.is_end_of_generation(t)) && !vocabulary.is_end_of_generation(262));
}

fn refused(json: &[u8]) -> String {
    let error = TokenizerJson::from_bytes(json).err().expect("accepted");
    assert!(matches!(error.kind(), ErrorKind::Tokenizer { .. }), "{error}");
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn files_that_are_none() {
    refused(b"");
    refused(b"GGUF\x03\0\0\0");
    refused(br#"{"bos_token": "<s>", "model_max_length": 4096}"#);
    let with = |key: &str, value: Value| {
        let mut file = byte_level();
        file[key] = value;
        refused(file.to_string().as_bytes())
    };
    assert!(with("decoder", Value::Null).contains("no decoder"));
    assert!(with("decoder", json!({"type": "WordPiece", "prefix": "##", "cleanup": true})).contains("WordPiece"));
    with("decoder", json!({"type": "Surprise"}));
    with("model", json!({"type": "BPE", "vocab": {}, "merges": []}));
    with("model", json!({"type": "BPE", "vocab": {"a": 0}, "merges": ["b c"]}));
    let far = with("model", json!({"type": "BPE", "vocab": {"a": 0, "b": 4_000_000_000u32}, "merges": []}));
    assert!(far.contains("4000000000"), "{far}");
}

#[test]
fn every_truncation_and_many_changes_are_errors_or_work() {
    for file in [byte_level(), sentence_piece(), metaspace()] {
        let json = file.to_string().into_bytes();
        for cut in 0..100 {
            refused(&json[..json.len() * cut / 100]);
        }
        // A changed byte may leave a usable file; nothing may panic, then or in use.
        for at in (0..json.len()).step_by(97) {
            let mut changed = json.clone();
            changed[at] ^= 1 << (at % 7);
            if let Ok(vocabulary) = TokenizerJson::from_bytes(&changed) {
                let tokens = vocabulary.encode("hello hi ab", SPECIAL).unwrap_or_default();
                streamed(&vocabulary, &tokens, true);
            }
        }
    }
}

#[test]
fn paths_are_named() {
    let directory = std::env::temp_dir();
    for path in [directory.join("no such tokenizer.json"), directory] {
        let error = TokenizerJson::load(&path).err().expect("loaded");
        assert!(matches!(error.kind(), ErrorKind::Tokenizer { .. }), "{error}");
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_text_survives(text in any::<String>()) {
        let vocabulary = vocabulary(&byte_level());
        prop_assert_eq!(streamed(&vocabulary, &vocabulary.encode(&text, PLAIN).unwrap(), false), text);
    }

    #[test]
    fn sentence_piece_adds_one_space(text in "[hi é世\u{1F600}]{1,12}") {
        let vocabulary = vocabulary(&sentence_piece());
        let expected = format!(" {text}");
        prop_assert_eq!(streamed(&vocabulary, &vocabulary.encode(&text, PLAIN).unwrap(), false), expected);
    }
}
