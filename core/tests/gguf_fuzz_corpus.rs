//! The seeds of the fuzz target in `fuzz/`: they are what this test says, and `FULCRUM_WRITE_CORPUS=1` writes them.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::path::Path;

use common::gguf_writer::{GgufWriter, Meta};
use common::random_model::{Family, ModelOptions, random_model};
use fulcrum::gguf::Gguf;

fn values() -> Vec<u8> {
    let mut file = GgufWriter::default();
    file.set("a", 1_u8).set("b", -1_i8).set("c", 1_u16).set("d", -1_i16).set("e", 1_u32).set("f", -1_i32);
    file.set("g", 1.0_f32).set("h", true).set("i", "text").set("j", 1_u64).set("k", -1_i64).set("l", 1.0_f64);
    file.set("m", vec!["one", "two"]).set("n", vec![1_u16, 2]).set("o", vec![true, false]);
    file.set("p", Meta::Array(4, Vec::new())).set("general.alignment", 64_u32);
    file.write()
}

fn tensors() -> Vec<u8> {
    let mut file = GgufWriter::default();
    file.tensor("f32", &[3], 0, vec![1; 12]).tensor("q4_0", &[32, 2], 2, vec![2; 36]);
    file.tensor("q4_k", &[256], 12, vec![3; 144]).tensor("f16", &[1, 1, 1, 2], 1, vec![4; 4]);
    file.write()
}

fn model(family: Family) -> Vec<u8> {
    let form = ModelOptions::new(family).tied(true);
    let sizes = ModelOptions { n_layers: 1, n_embd: 4, n_head: 2, n_head_kv: 1, head_dim: 2, n_ff: 4, ..form };
    random_model(family, &sizes).write()
}

#[test]
fn the_corpus_is_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/gguf");
    let version_2 = GgufWriter { version: 2, ..GgufWriter::default() }.write();
    let split = GgufWriter::default().tensor("a", &[1], 0, vec![0; 4]).write_split(2).remove(1);
    let seeds = [
        ("values", values()),
        ("tensors", tensors()),
        ("version_2", version_2),
        ("split", split),
        ("llama", model(Family::Llama)),
        ("gemma2", model(Family::Gemma2)),
        ("phi3", model(Family::Phi3Longrope)),
    ];
    let write = std::env::var_os("FULCRUM_WRITE_CORPUS").is_some();
    for (name, bytes) in seeds {
        assert!(Gguf::parse(&bytes).is_ok(), "{name} is not sound");
        let path = folder.join(name);
        if write {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        let written = std::fs::read(&path).unwrap_or_default();
        // Random weights may differ in their last bit between mathematical libraries; what stands before them may not.
        let header = Gguf::parse(&bytes).unwrap().tensors().iter().map(|tensor| tensor.offset as usize).min();
        let header = header.unwrap_or(bytes.len());
        let same = written.len() == bytes.len() && written[..header] == bytes[..header];
        assert!(same, "{} differs: run this test with FULCRUM_WRITE_CORPUS=1", path.display());
    }
}
