//! What is worth knowing of a GGUF file, as values: for people as lines, for programs as JSON.
//!
//! Reads what the file says of itself and adds up its tensor table. Whether anything can run it is not decided here.

use crate::output::{human_bytes, human_count};
use fulcrum::gguf::{Array, Gguf};
use serde::Serialize;
use std::collections::BTreeMap;

/// What the file says, and what its tensors add up to. What it does not say is absent.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) gguf_version: u32,
    pub(crate) files: usize,
    pub(crate) name: Option<String>,
    pub(crate) architecture: Option<String>,
    pub(crate) parameters: u64,
    pub(crate) tensors: usize,
    pub(crate) tensor_bytes: u64,
    /// By bytes, largest first.
    pub(crate) quantisation: Vec<Share>,
    pub(crate) context_length: Option<u64>,
    pub(crate) layers: Option<u64>,
    pub(crate) embedding_length: Option<u64>,
    pub(crate) heads: Option<u64>,
    pub(crate) kv_heads: Option<u64>,
    pub(crate) tokenizer: Option<String>,
    pub(crate) vocabulary: Option<usize>,
    pub(crate) chat_template: bool,
}

/// The tensors of one type.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Share {
    #[serde(rename = "type")]
    pub(crate) ty: &'static str,
    pub(crate) tensors: usize,
    pub(crate) parameters: u64,
    pub(crate) bytes: u64,
}

impl Summary {
    /// Reads the summary of a parsed file.
    pub(crate) fn of(gguf: &Gguf<'_>) -> Self {
        let text = |key: &str| gguf.find::<&str>(key).ok().flatten().map(str::to_owned);
        let architecture = text("general.architecture");
        let number = |key: &str| {
            let key = format!("{}.{key}", architecture.as_deref()?);
            gguf.find::<u64>(&key).ok().flatten()
        };
        let quantisation = quantisation(gguf);
        Self {
            gguf_version: gguf.version(),
            files: gguf.n_files(),
            name: text("general.name"),
            parameters: quantisation.iter().map(|share| share.parameters).sum(),
            tensors: gguf.tensors().len(),
            tensor_bytes: quantisation.iter().map(|share| share.bytes).sum(),
            quantisation,
            context_length: number("context_length"),
            layers: number("block_count"),
            embedding_length: number("embedding_length"),
            heads: number("attention.head_count"),
            kv_heads: number("attention.head_count_kv"),
            tokenizer: text("tokenizer.ggml.model"),
            vocabulary: gguf.find::<Array<'_>>("tokenizer.ggml.tokens").ok().flatten().map(|tokens| tokens.len()),
            chat_template: text("tokenizer.chat_template").is_some(),
            architecture,
        }
    }

    /// Label and value of each line to print; what the file does not say is left out.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let shares = self.quantisation.iter().map(|share| share.line(self.tensor_bytes));
        let heads = self.heads.map(|heads| match self.kv_heads {
            Some(kv) if kv != heads => format!("{heads}, {kv} for keys and values"),
            _ => heads.to_string(),
        });
        let vocabulary = self.vocabulary.map(|n| {
            let kind = self.tokenizer.as_ref().map(|kind| format!(" ({kind})"));
            format!("{n} tokens{}", kind.unwrap_or_default())
        });
        let files = if self.files > 1 { format!(", {} files", self.files) } else { String::new() };
        let lines = [
            ("name", self.name.clone()),
            ("architecture", Some(self.architecture.clone().unwrap_or_else(|| "the file does not say".to_owned()))),
            ("format", Some(format!("GGUF version {}{files}", self.gguf_version))),
            ("parameters", Some(format!("{} in {} tensors", human_count(self.parameters), self.tensors))),
            ("weights", Some(human_bytes(self.tensor_bytes))),
            ("quantisation", Some(shares.collect::<Vec<_>>().join(", "))),
            ("layers", self.layers.map(|n| n.to_string())),
            ("width", self.embedding_length.map(|n| n.to_string())),
            ("heads", heads),
            ("context", self.context_length.map(|n| format!("{n} tokens"))),
            ("vocabulary", vocabulary),
            ("chat template", Some(if self.chat_template { "yes" } else { "no" }.to_owned())),
        ];
        lines.into_iter().filter_map(|(label, value)| Some((label, value?))).collect()
    }
}

impl Share {
    /// Type and share of the bytes: `q8_0 99.1 %`.
    fn line(&self, all_bytes: u64) -> String {
        format!("{} {:.1} %", self.ty, 100.0 * self.bytes as f64 / all_bytes.max(1) as f64)
    }
}

fn quantisation(gguf: &Gguf<'_>) -> Vec<Share> {
    let mut shares: BTreeMap<&'static str, Share> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let ty = tensor.ty.name();
        let share = shares.entry(ty).or_insert(Share { ty, tensors: 0, parameters: 0, bytes: 0 });
        share.tensors += 1;
        share.parameters += tensor.shape.n_elements();
        share.bytes += tensor.size;
    }
    let mut shares: Vec<_> = shares.into_values().collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.bytes));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    }

    /// A string or a `u32` of metadata, after the format's description: type 8 is a string, type 4 a `u32`.
    fn text_entry(key: &str, value: &str) -> Vec<u8> {
        [string(key), 8_u32.to_le_bytes().to_vec(), string(value)].concat()
    }

    fn number_entry(key: &str, value: u32) -> Vec<u8> {
        [string(key), 4_u32.to_le_bytes().to_vec(), value.to_le_bytes().to_vec()].concat()
    }

    /// Version 3, two F32 tensors of 32 numbers and one Q8_0 tensor of 64.
    fn file() -> Vec<u8> {
        let tensor = |name: &str, len: u64, ty: u32, offset: u64| {
            let numbers =
                [1_u32.to_le_bytes().to_vec(), len.to_le_bytes().to_vec(), ty.to_le_bytes().to_vec()].concat();
            [string(name), numbers, offset.to_le_bytes().to_vec()].concat()
        };
        let mut bytes = [&b"GGUF"[..], &3_u32.to_le_bytes(), &3_u64.to_le_bytes(), &4_u64.to_le_bytes()].concat();
        bytes.extend(text_entry("general.architecture", "llama"));
        bytes.extend(number_entry("llama.context_length", 2048));
        bytes.extend(number_entry("llama.attention.head_count", 8));
        bytes.extend(number_entry("llama.attention.head_count_kv", 2));
        bytes.extend([tensor("a", 32, 0, 0), tensor("b", 32, 0, 128), tensor("c", 64, 8, 256)].concat());
        bytes.resize(bytes.len().next_multiple_of(32) + 256 + 68, 0);
        bytes
    }

    #[test]
    fn adds_up_the_tensors_and_reads_the_keys() {
        let bytes = file();
        let summary = Summary::of(&Gguf::parse(&bytes).unwrap());
        assert_eq!((summary.parameters, summary.tensors, summary.tensor_bytes), (128, 3, 324));
        assert_eq!(
            summary.quantisation,
            [
                Share { ty: "f32", tensors: 2, parameters: 64, bytes: 256 },
                Share { ty: "q8_0", tensors: 1, parameters: 64, bytes: 68 },
            ]
        );
        assert_eq!(summary.architecture.as_deref(), Some("llama"));
        assert_eq!((summary.context_length, summary.heads, summary.kv_heads), (Some(2048), Some(8), Some(2)));
        assert_eq!((summary.vocabulary, summary.chat_template), (None, false));
    }

    #[test]
    fn lines_leave_out_what_the_file_does_not_say() {
        let bytes = file();
        let lines = Summary::of(&Gguf::parse(&bytes).unwrap()).lines();
        let value = |label| lines.iter().find(|line| line.0 == label).map(|line| line.1.as_str());
        assert_eq!(value("heads"), Some("8, 2 for keys and values"));
        assert_eq!(value("quantisation"), Some("f32 79.0 %, q8_0 21.0 %"));
        assert_eq!(value("layers"), None);
    }
}
