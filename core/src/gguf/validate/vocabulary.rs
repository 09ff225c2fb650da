//! The rules for `tokenizer.ggml.*`.

use std::collections::HashSet;

use super::super::{Array, Gguf, ValueType};
use super::{Checked, Unusable};

/// Tokens a vocabulary may have. The largest known have about 260,000; ids must fit `i32` with room to spare.
const MAX_TOKENS: usize = 1 << 24;

/// Bytes a token may have. Building a tokenizer takes time in the square of this for some kinds.
const MAX_TOKEN_BYTES: usize = 4096;

/// A kind of vocabulary, by `tokenizer.ggml.model`.
struct Kind {
    name: &'static str,
    needs_merges: bool,
    /// What is not in the vocabulary is spelled in byte tokens, and a missing byte token is an exception that nobody catches.
    needs_byte_tokens: bool,
    /// The token used where the file names none, if there is one.
    default_bos: Option<u32>,
    default_eos: Option<u32>,
}

const KINDS: [Kind; 5] = [
    Kind { name: "llama", needs_merges: false, needs_byte_tokens: true, default_bos: Some(1), default_eos: Some(2) },
    Kind { name: "gpt2", needs_merges: true, needs_byte_tokens: false, default_bos: Some(11), default_eos: Some(11) },
    Kind { name: "gemma4", needs_merges: true, needs_byte_tokens: false, default_bos: None, default_eos: None },
    Kind { name: "plamo2", needs_merges: false, needs_byte_tokens: true, default_bos: Some(1), default_eos: Some(2) },
    Kind { name: "rwkv", needs_merges: false, needs_byte_tokens: false, default_bos: None, default_eos: None },
];

/// Checks the vocabulary and returns the number of tokens.
pub(super) fn check(gguf: &Gguf<'_>) -> Result<usize, Unusable> {
    let name: &str = gguf.require("tokenizer.ggml.model")?;
    let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else {
        return Err(Unusable::unsupported(format!(
            "its vocabulary is of the kind {name:?}, which no generating model has"
        )));
    };
    let tokens: Array<'_> = gguf.require("tokenizer.ggml.tokens")?;
    let n_tokens = tokens.len();
    if tokens.element_type() != ValueType::String || n_tokens == 0 || n_tokens > MAX_TOKENS {
        return Err(Unusable::invalid(format!(
            "tokenizer.ggml.tokens has {n_tokens} elements of type {}; 1 to {MAX_TOKENS} strings are possible",
            tokens.element_type()
        )));
    }
    check_tokens(&tokens, kind)?;
    check_parallel(gguf, "tokenizer.ggml.scores", n_tokens, &[ValueType::F32, ValueType::I32])?;
    check_parallel(gguf, "tokenizer.ggml.token_type", n_tokens, &[ValueType::I32])?;
    check_merges(gguf, kind)?;
    check_ends(gguf, kind, n_tokens)?;
    Ok(n_tokens)
}

/// No two tokens may be the same, else llama.cpp asserts. It reads them as C strings and gives empty ones a name.
fn check_tokens(tokens: &Array<'_>, kind: &Kind) -> Checked {
    let mut seen: HashSet<&[u8]> = HashSet::with_capacity(tokens.len());
    let mut empty = Vec::new();
    for (id, text) in tokens.strings().into_iter().flatten().enumerate() {
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        if text.len() > MAX_TOKEN_BYTES {
            let len = text.len();
            return Err(Unusable::invalid(format!(
                "token {id} has {len} bytes; at most {MAX_TOKEN_BYTES} are possible"
            )));
        }
        if text.is_empty() {
            empty.push(id);
        } else if !seen.insert(text) {
            let text = String::from_utf8_lossy(text);
            return Err(Unusable::invalid(format!("the vocabulary has two tokens {text:?}, the second is {id}")));
        }
    }
    if let Some(id) = empty.iter().find(|id| seen.contains(format!("[EMPTY_{id}]").as_bytes())) {
        return Err(Unusable::invalid(format!(
            "the vocabulary has an empty token {id} and one called \"[EMPTY_{id}]\""
        )));
    }
    if kind.needs_byte_tokens {
        let missing = (0..=u8::MAX).find(|&byte| {
            let spelled = seen.contains(format!("<0x{byte:02X}>").as_bytes());
            !spelled && (kind.name != "llama" || !seen.contains([byte].as_slice()))
        });
        if let Some(byte) = missing {
            return Err(Unusable::invalid(format!("the vocabulary has no token for the byte 0x{byte:02X}")));
        }
    }
    if kind.name == "rwkv" && !seen.contains(br"\n".as_slice()) && !seen.contains(b"\n".as_slice()) {
        return Err(Unusable::invalid("the vocabulary has no token for a line break"));
    }
    if kind.name == "rwkv" {
        check_progress(&seen)?;
    }
    Ok(())
}

/// llama.cpp takes the longest token of this kind that text begins with. Where a token has the first byte, and none that fits is shorter, it
/// begins again at the start of the text, for ever.
fn check_progress(tokens: &HashSet<&[u8]>) -> Checked {
    let (mut begins, mut is_token) = ([false; 256], [false; 256]);
    for text in tokens {
        let bytes = unescape(text).ok_or_else(|| {
            Unusable::invalid(format!("the token {:?} is no escaped text", String::from_utf8_lossy(text)))
        })?;
        if let Some(&first) = bytes.first() {
            begins[usize::from(first)] = true;
            is_token[usize::from(first)] |= bytes.len() == 1;
        }
    }
    match (0..=u8::MAX).find(|&byte| begins[usize::from(byte)] && !is_token[usize::from(byte)]) {
        Some(byte) => Err(Unusable::invalid(format!("the vocabulary has no token for the byte 0x{byte:02X}"))),
        None => Ok(()),
    }
}

/// The bytes of an RWKV token: `\x` and two digits are a byte, `\t`, `\n` and `\r` what they are everywhere. `None` for other digits, of which
/// llama.cpp makes what the machine makes of them.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.iter());
    while let Some(&byte) = rest.next() {
        bytes.push(match (byte, if byte == b'\\' { *rest.next()? } else { byte }) {
            (b'\\', b'x') => digit(*rest.next()?)? << 4 | digit(*rest.next()?)?,
            (b'\\', b't') => b'\t',
            (b'\\', b'n') => b'\n',
            (b'\\', b'r') => b'\r',
            (_, other) => other,
        });
    }
    Some(bytes)
}

/// An array with an element for each token, if it is there.
fn check_parallel(gguf: &Gguf<'_>, key: &str, n_tokens: usize, types: &[ValueType]) -> Checked {
    let Some(array) = gguf.find::<Array<'_>>(key)? else { return Ok(()) };
    if !types.contains(&array.element_type()) {
        return Err(Unusable::invalid(format!("{key} is an array of {}", array.element_type())));
    }
    if array.len() < n_tokens {
        return Err(Unusable::invalid(format!("{key} has {} elements for {n_tokens} tokens", array.len())));
    }
    Ok(())
}

fn check_merges(gguf: &Gguf<'_>, kind: &Kind) -> Checked {
    if !kind.needs_merges {
        return Ok(());
    }
    let merges = gguf.find::<Array<'_>>("tokenizer.ggml.merges")?;
    // One vocabulary of this kind does without.
    if merges.is_none() && gguf.find::<&str>("tokenizer.ggml.pre")? == Some("kimi-k2") {
        return Ok(());
    }
    match merges.map(|merges| merges.element_type()) {
        Some(ValueType::String) => Ok(()),
        Some(other) => Err(Unusable::invalid(format!("tokenizer.ggml.merges is an array of {other}"))),
        None => Err(Unusable::invalid("tokenizer.ggml.merges is missing")),
    }
}

/// A token that is put before or behind every text must exist, else llama.cpp asserts when it reads the first text.
fn check_ends(gguf: &Gguf<'_>, kind: &Kind, n_tokens: usize) -> Checked {
    let ends = [
        ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token", kind.default_bos),
        ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_eos_token", kind.default_eos),
    ];
    for (id_key, add_key, default) in ends {
        let named: Option<u32> = gguf.find(id_key)?;
        if let Some(id) = named.filter(|&id| id as usize >= n_tokens) {
            return Err(Unusable::invalid(format!("{id_key} is {id} and there are {n_tokens} tokens")));
        }
        let exists = named.or(default).is_some_and(|id| (id as usize) < n_tokens);
        // Where the file does not say, llama.cpp decides by the kind of vocabulary; only kinds without a default never do.
        let adds = gguf.find(add_key)?.unwrap_or(default.is_some() || kind.name == "gemma4" && add_key.contains("bos"));
        if adds && !exists {
            return Err(Unusable::invalid(format!("{add_key} asks for a token that {id_key} does not name")));
        }
    }
    Ok(())
}
