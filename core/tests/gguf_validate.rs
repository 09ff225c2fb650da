//! The rules a file must keep besides the format: sound models pass, each kind of damage is named.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Mutex, PoisonError};

use common::gguf_writer::{GgufWriter, Meta};
use common::quantize::WeightType;
use common::random_model::{Family, ModelOptions, random_model};
use common::small_vocabulary;
use fulcrum::gguf::Gguf;
use fulcrum::gguf::validate::{Unusable, validate, validate_vocabulary};

fn verdict(file: &GgufWriter) -> Result<(), Unusable> {
    validate(&Gguf::parse(&file.write()).unwrap())
}

/// A model small enough to make many of.
fn tiny(family: Family) -> ModelOptions {
    ModelOptions { n_layers: 2, n_ff: 256, ..ModelOptions::new(family) }
}

/// A sound model; made once for all tests, since random numbers take their time without optimisation.
fn sound(family: Family) -> GgufWriter {
    static MADE: Mutex<Vec<(Family, GgufWriter)>> = Mutex::new(Vec::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, file)) = made.iter().find(|(of, _)| *of == family) {
        return file.clone();
    }
    let file = random_model(family, &tiny(family));
    assert_eq!(verdict(&file), Ok(()));
    made.push((family, file.clone()));
    file
}

fn set(key: &str, value: impl Into<Meta>) -> impl FnOnce(&mut GgufWriter) {
    move |file| {
        file.set(key, value);
    }
}

fn remove(key: &str) -> impl FnOnce(&mut GgufWriter) {
    move |file| {
        file.remove(key);
    }
}

/// A model in which something is set wrong, and the words the verdict must have.
fn refuse(family: Family, tamper: impl FnOnce(&mut GgufWriter), words: &str) {
    let mut file = sound(family);
    tamper(&mut file);
    let reason = verdict(&file).expect_err(words).to_string();
    assert!(reason.contains(words), "{words:?} is not in {reason:?}");
}

fn refuse_key(key: &str, value: impl Into<Meta>, words: &str) {
    refuse(Family::Llama, set(key, value), words);
}

#[test]
fn accepts_every_family_and_type() {
    for family in Family::ALL {
        let tiny = |family| ModelOptions { n_layers: 1, ..tiny(family) };
        for weights in WeightType::ALL {
            assert_eq!(
                verdict(&random_model(family, &tiny(family).weights(weights))),
                Ok(()),
                "{family:?} {weights:?}"
            );
        }
        assert_eq!(verdict(&random_model(family, &tiny(family).tied(true))), Ok(()), "{family:?} tied");
    }
}

#[test]
fn accepts_an_architecture_it_does_not_know() {
    let mut file = GgufWriter::default();
    small_vocabulary::describe(&mut file);
    file.set("general.architecture", "novel").set("novel.block_count", 2_u32).set("novel.embedding_length", 8_u32);
    file.set("novel.context_length", 8_u32).set("novel.attention.head_count", vec![1_u32, 0]);
    file.tensor("anything", &[2], 0, vec![0; 8]);
    assert_eq!(verdict(&file), Ok(()));
    file.set("novel.attention.head_count", vec![1_u32]);
    assert!(verdict(&file).unwrap_err().to_string().contains("1 elements for 2 layers"));
}

#[test]
fn refuses_duplicate_tokens() {
    let with = |id: usize, text: &str| {
        let mut tokens = small_vocabulary::tokens();
        tokens[id] = text.into();
        set("tokenizer.ggml.tokens", tokens)
    };
    refuse(Family::Llama, with(5, "the"), "two tokens \"the\"");
    // What follows a zero byte is not seen by llama.cpp, and an empty token is given a name.
    refuse(Family::Llama, with(300, "the\0really"), "two tokens \"the\"");
    let mut empty = small_vocabulary::tokens();
    empty[300].clear();
    empty[301] = "[EMPTY_300]".into();
    refuse(Family::Llama, set("tokenizer.ggml.tokens", empty), "empty token 300");
}

/// On such a one llama.cpp would tokenize for ever.
#[test]
fn refuses_a_vocabulary_whose_tokens_do_not_cover_a_text() {
    for (spelled, fault) in
        [("AA", "no token for the byte 0x41"), ("\\xA1", "no escaped text"), ("\\", "no escaped text")]
    {
        let rwkv = |file: &mut GgufWriter| {
            let mut tokens: Vec<String> = (0..=u8::MAX).map(|byte| format!("\\x{byte:02x}")).collect();
            tokens[0x41] = spelled.into();
            tokens.push("\\n".into());
            tokens.extend((tokens.len()..320).map(|id| format!("unused {id}")));
            file.set("tokenizer.ggml.model", "rwkv").set("tokenizer.ggml.tokens", tokens);
        };
        refuse(Family::Llama, rwkv, fault);
    }
}

#[test]
fn refuses_an_unsound_vocabulary() {
    refuse_key("tokenizer.ggml.model", "bert", "no generating model");
    refuse_key("tokenizer.ggml.tokens", Vec::<String>::new(), "0 elements");
    refuse_key("tokenizer.ggml.tokens", vec![1_u32], "elements of type u32");
    refuse_key("tokenizer.ggml.tokens", "a", "where an array is expected");
    refuse_key("tokenizer.ggml.token_type", vec![1_i32; 319], "319 elements for 320 tokens");
    refuse_key("tokenizer.ggml.token_type", vec![1_u32; 320], "array of u32");
    refuse_key("tokenizer.ggml.scores", vec![1.0_f32; 3], "3 elements for 320 tokens");
    refuse_key("tokenizer.ggml.scores", vec![1.0_f64; 320], "array of f64");
    refuse_key("tokenizer.ggml.merges", vec![1_u32], "array of u32");
    refuse_key("tokenizer.ggml.bos_token_id", 320_u32, "there are 320 tokens");
    refuse_key("tokenizer.ggml.eos_token_id", u32::MAX, "there are 320 tokens");
    refuse_key("tokenizer.ggml.model", "llama", "no token for the byte 0x00");
    for key in ["model", "tokens", "merges"].map(|key| format!("tokenizer.ggml.{key}")) {
        refuse(Family::Llama, remove(&key), &key);
    }
    let no_bos = |file: &mut GgufWriter| {
        file.set("tokenizer.ggml.model", "gemma4").remove("tokenizer.ggml.bos_token_id");
        file.set("tokenizer.ggml.add_bos_token", true);
    };
    refuse(Family::Llama, no_bos, "asks for a token");
}

#[test]
fn checks_a_vocabulary_alone() {
    let mut file = GgufWriter::default();
    small_vocabulary::describe(&mut file);
    assert_eq!(validate_vocabulary(&Gguf::parse(&file.write()).unwrap()), Ok(()));
    file.set("tokenizer.ggml.tokens", vec!["a", "a"]);
    assert!(validate_vocabulary(&Gguf::parse(&file.write()).unwrap()).is_err());
}

#[test]
fn refuses_absurd_counts() {
    for layers in [0_u32, 513, u32::MAX] {
        refuse_key("llama.block_count", layers, "llama.block_count is");
    }
    refuse_key("llama.block_count", "two", "where a non-negative integer");
    refuse_key("llama.embedding_length", 0_u32, "embedding_length is 0");
    refuse_key("llama.context_length", 0_u32, "context_length is 0");
    refuse_key("llama.feed_forward_length", 0_u32, "feed_forward_length is 0");
    refuse_key("llama.attention.head_count", 0_u32, "head_count is 0");
    refuse_key("llama.attention.head_count_kv", 0_u32, "head_count_kv is 0");
    refuse_key("llama.attention.head_count_kv", 3_u32, "cannot share 3");
    refuse_key("llama.attention.head_count", u32::MAX, "head_count is 4294967295");
    refuse_key("llama.attention.head_count_kv", vec![2_u32, 4], "differs between layers");
    refuse_key("llama.attention.value_length", 64_u32, "different widths");
    refuse_key("llama.nextn_predict_layers", 2_u32, "predict further tokens");
    refuse_key("llama.expert_used_count", 2_u32, "2 of 0 experts");
    refuse_key("llama.expert_count", 2000_u32, "of 2000 experts");
    refuse_key("llama.attention.causal", false, "not causal");
    refuse(Family::Llama, remove("general.architecture"), "general.architecture");
    refuse(Family::Llama, remove("llama.attention.head_count"), "head_count\" is missing");
    let indivisible = |file: &mut GgufWriter| {
        file.remove("llama.attention.key_length").set("llama.attention.head_count", 12_u32);
        file.set("llama.attention.head_count_kv", 2_u32);
    };
    refuse(Family::Llama, indivisible, "cannot be divided among 12 heads");
}

#[test]
fn refuses_numbers_that_are_none() {
    for (key, value) in [
        ("llama.rope.freq_base", f32::NAN),
        ("llama.rope.freq_base", 0.0),
        ("llama.rope.scaling.factor", f32::INFINITY),
        ("llama.rope.scaling.factor", -1.0),
        ("llama.attention.layer_norm_rms_epsilon", -1e-6),
        ("llama.attention.layer_norm_rms_epsilon", f32::NAN),
    ] {
        refuse_key(key, value, key);
    }
    refuse_key("llama.rope.scaling.type", "dynamic", "\"dynamic\", which is not known");
    refuse_key("llama.rope.dimension_count", 16_u32, "16 with heads of width 32");
    refuse(Family::Phi3, set("phi3.rope.dimension_count", 31_u32), "odd or absurd");
    refuse(Family::Phi3, set("phi3.rope.dimension_count", 34_u32), "34 with heads of width 32");
}

#[test]
fn refuses_a_window_that_no_layer_uses() {
    let pattern = "gemma2.attention.sliding_window_pattern";
    refuse(Family::Gemma2, set(pattern, 1_u32), "no layer that uses");
    refuse(Family::Gemma2, set(pattern, vec![false, false]), "no layer that uses");
    refuse(Family::Gemma2, set(pattern, vec![false; 513]), "513 elements");
    refuse(Family::Gemma2, set("gemma2.attention.sliding_window", 0_u32), "sliding_window is 0");
    let mut file = sound(Family::Gemma2);
    assert_eq!(verdict(file.set(pattern, vec![true, false])), Ok(()));
}

#[test]
fn refuses_tensors_that_contradict_the_metadata() {
    let tamper = |name: &'static str, tamper: fn(&mut GgufWriter, &str), words: &str| {
        refuse(Family::Llama, |file| tamper(file, name), words);
    };
    let transpose = |file: &mut GgufWriter, name: &str| file.tensor_mut(name).dims.reverse();
    tamper("token_embd.weight", transpose, "\"token_embd.weight\" has the shape [320, 256]");
    tamper("blk.1.ffn_down.weight", |f, name| f.tensor_mut(name).dims = vec![512, 128], "[256, 256] is expected");
    let remove_tensor = |file: &mut GgufWriter, name: &str| file.tensors.retain(|tensor| tensor.name != name);
    tamper("blk.1.ffn_norm.weight", remove_tensor, "\"blk.1.ffn_norm.weight\" is missing");
    tamper("blk.0.attn_k.weight", remove_tensor, "layer 0 has no weights for queries, keys and values");
    let half = |file: &mut GgufWriter, name: &str| {
        file.tensor_mut(name).ty = 1;
        file.tensor_mut(name).data.truncate(512);
    };
    tamper("blk.0.attn_norm.weight", half, "has the type f16");
    tamper("blk.0.attn_q.weight", |f, name| f.tensor_mut(name).ty = 26, "has the type i32");
    refuse(Family::Llama, |file| file.tensors.clear(), "no tensors");
    refuse(Family::Qwen3, |file| remove_tensor(file, "blk.1.attn_q_norm.weight"), "attn_q_norm.weight\" is missing");
    refuse(Family::Phi3, |file| remove_tensor(file, "blk.1.attn_qkv.weight"), "layer 1 has no weights");
    refuse(
        Family::Gemma3,
        |file| remove_tensor(file, "blk.0.post_ffw_norm.weight"),
        "post_ffw_norm.weight\" is missing",
    );
}

/// llama.cpp multiplies by a scale that it finds, and ends the process where that is not F32.
#[test]
fn refuses_tensors_that_a_family_has_not() {
    let mut file = sound(Family::Llama);
    file.tensor("blk.0.attn_q.scale", &[1], 0, 1.0_f32.to_le_bytes().to_vec());
    assert_eq!(verdict(&file), Ok(()));
    for (name, words) in [
        ("blk.0.attn_q.scale", "has the type i32"),
        ("blk.1.ffn_down.input_scale", "has the type i32"),
        ("blk.0.ssm_in.scale", "none that its architecture has"),
        ("blk.2.attn_q.scale", "none that its architecture has"),
        ("cls.output.weight", "none that its architecture has"),
    ] {
        refuse(Family::Llama, |file| _ = file.tensor(name, &[1], 26, vec![0; 4]), words);
    }
    // Tied: the embeddings are not scaled as the output.
    refuse(Family::Gemma2, |file| _ = file.tensor("output.scale", &[1], 0, vec![0; 4]), "none that its");
}

#[test]
fn refuses_tensors_that_cannot_be_mapped() {
    // Alignment 8 keeps to the format, but ggml asserts that mapped buffers begin at multiples of 32.
    let mut file = sound(Family::Llama);
    file.alignment = 8;
    file.set("general.alignment", 8_u32);
    while file.write().len().is_multiple_of(32) {
        file.set("padding", "x");
        file.set("general.description", "y".repeat(file.metadata.len()));
    }
    assert!(verdict(&file).unwrap_err().to_string().contains("not a multiple of 32"));
}
