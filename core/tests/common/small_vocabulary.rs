//! A small working vocabulary: byte-level BPE with every byte, a few merges, and ChatML's special tokens.

use super::gguf_writer::{GgufWriter, Meta};

/// Tokens in the vocabulary.
pub const N_VOCAB: usize = 320;
/// `<|endoftext|>`, the begin-of-sequence token.
pub const BOS: u32 = (256 + MERGES.len()) as u32;
/// `<|im_start|>`.
pub const IM_START: u32 = BOS + 1;
/// `<|im_end|>`, the end-of-sequence token.
pub const IM_END: u32 = BOS + 2;

const SPECIALS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// `Ġ` is how GPT-2 writes a space.
const MERGES: [&str; 24] = [
    "t h", "i n", "e r", "a n", "o n", "r e", "Ġ t", "Ġ a", "Ġ s", "Ġ w", "o u", "e n", "th e", "Ġ the", "Ġt he",
    "an d", "Ġa nd", "in g", "l l", "l o", "h e", "he ll", "hell o", "u s",
];

const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// GPT-2's printable stand-in for a byte.
fn stand_in(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(256 + before).unwrap()
}

/// The tokens, by id.
pub fn tokens() -> Vec<String> {
    let mut tokens: Vec<String> = (0..=u8::MAX).map(|byte| stand_in(byte).to_string()).collect();
    for merge in MERGES {
        let merged = merge.replace(' ', "");
        // Two merges make "Ġthe"; a token may stand there once.
        tokens.push(if tokens.contains(&merged) { format!("<unused-{}>", tokens.len()) } else { merged });
    }
    tokens.extend(SPECIALS.map(str::to_owned));
    tokens.extend((tokens.len()..N_VOCAB).map(|id| format!("<|unused-{id}|>")));
    tokens
}

/// Writes the vocabulary's metadata.
pub fn describe(file: &mut GgufWriter) {
    let control = |id: usize| id >= BOS as usize;
    let types: Vec<i32> = (0..N_VOCAB).map(|id| if control(id) { 3 } else { 1 }).collect();
    file.set("tokenizer.ggml.model", "gpt2").set("tokenizer.ggml.pre", "gpt-2");
    file.set("tokenizer.ggml.tokens", tokens()).set("tokenizer.ggml.token_type", types);
    file.set("tokenizer.ggml.merges", Meta::from(MERGES.to_vec()));
    file.set("tokenizer.ggml.bos_token_id", BOS).set("tokenizer.ggml.eos_token_id", IM_END);
    file.set("tokenizer.ggml.add_bos_token", false).set("tokenizer.chat_template", CHAT_TEMPLATE);
}
