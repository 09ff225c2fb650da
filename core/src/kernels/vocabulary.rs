//! The vocabulary in a GGUF file, read by llama.cpp.
//!
//! llama.cpp knows every tokenizer that appears in GGUF files, so it tokenizes also for the staged executor. Only the
//! vocabulary is loaded, no weights. The begin-of-sequence token is put in front here, because llama.cpp aborts the process
//! when a file asks for one and names none.
//!
//! Deliberately not known here: chat templates, streams of text, `tokenizer.json`.

use std::ffi::CStr;
use std::path::Path;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use crate::cancel::Cancel;
use crate::error::{ErrorKind, Result};
use crate::kernels::guard;
use crate::kernels::llama::{LlamaModel, LoadOptions};
use crate::token::Token;
use crate::tokenizer::cuts::{Cuts, Special};
use crate::tokenizer::{Encoding, Vocabulary};

/// Text longer than this many bytes is tokenized on a thread with its own stack (see [`LlamaVocabulary::encode`]).
const SHORT_TEXT: usize = 512;

/// Bytes of stack per byte of text. `std::regex`, which splits the text for most byte-pair vocabularies, recurses once per
/// character; measured with libstdc++: 256 to 384 bytes.
const STACK_PER_BYTE: usize = 1 << 10;

/// The longest text that is tokenized at once. Its stack is address space, of which only what is used becomes memory.
const MAX_TEXT: usize = if cfg!(target_pointer_width = "64") { 4 << 20 } else { 128 << 10 };

/// The vocabulary of a GGUF file.
pub(crate) struct LlamaVocabulary {
    model: Arc<LlamaModel>,
    n_tokens: usize,
    control_texts: Vec<String>,
    /// Of text in which only user-defined tokens are special, and of text in which all are.
    cuts: [Cuts; 2],
}

impl LlamaVocabulary {
    /// Loads the vocabulary of the model at `path`, and no weights. The file passed
    /// [`validate_vocabulary`](crate::gguf::validate::validate_vocabulary), since llama.cpp ends the process on some that do not.
    ///
    /// Fails as loading a model does, and with `Tokenizer` if the file has no vocabulary.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let options = LoadOptions { vocab_only: true, cancel: &Cancel::new(), progress: &mut |_| () };
        Self::of(Arc::new(LlamaModel::load(path, options)?))
    }

    /// The vocabulary of a model that is loaded anyway. Fails with `Tokenizer` if it has none.
    pub(crate) fn of(model: Arc<LlamaModel>) -> Result<Self> {
        // SAFETY: the model is alive.
        let kind = unsafe { sys::llama_vocab_type(model.vocab()) };
        // Without a vocabulary every function but this one aborts the process.
        if kind == sys::LLAMA_VOCAB_TYPE_NONE || model.n_vocab() == 0 {
            let reason = format!("{} has no vocabulary; pass a tokenizer.json", model.path().display());
            return Err(ErrorKind::Tokenizer { reason }.into());
        }
        let n_tokens = model.n_vocab();
        let cuts = [false, true].map(|parse_special| Cuts::new(specials(&model, parse_special)));
        let mut vocabulary = Self { model, n_tokens, control_texts: Vec::new(), cuts };
        let controls = (0..).take(n_tokens).filter(|&token| vocabulary.is_control(token));
        vocabulary.control_texts =
            controls.filter_map(|token| vocabulary.token_text(token)).filter(|text| !text.is_empty()).collect();
        Ok(vocabulary)
    }

    /// The text of `token` as the vocabulary has it, for example `<|im_end|>`. `None` if there is no such token or its text is not UTF-8.
    fn token_text(&self, token: Token) -> Option<String> {
        let id = self.id(token)?;
        // SAFETY: the id is in the vocabulary; the text is a NUL-terminated part of it.
        let text = unsafe { CStr::from_ptr(sys::llama_vocab_get_text(self.model.vocab(), id)) };
        text.to_str().ok().map(str::to_owned)
    }

    /// Whether the model wants its begin-of-sequence token in front of a prompt.
    fn wants_bos(&self) -> bool {
        // SAFETY: the model is alive and has a vocabulary.
        unsafe { sys::llama_vocab_get_add_bos(self.model.vocab()) }
    }

    /// Whether llama.cpp reads `token`'s text as the token only where special tokens are read.
    fn is_control(&self, token: Token) -> bool {
        let mask = sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN;
        // SAFETY: the model is alive and has a vocabulary; the id is in it.
        self.id(token).is_some_and(|id| unsafe { sys::llama_vocab_get_attr(self.model.vocab(), id) } & mask != 0)
    }

    /// `token` as llama.cpp writes it, if it is in the vocabulary.
    fn id(&self, token: Token) -> Option<sys::llama_token> {
        if (token as usize) < self.n_tokens { i32::try_from(token).ok() } else { None }
    }

    /// llama.cpp's token as ours; -1 and everything else outside the vocabulary is `None`.
    fn token(&self, id: sys::llama_token) -> Option<Token> {
        Token::try_from(id).ok().filter(|&token| (token as usize) < self.n_tokens)
    }

    fn tokenize(&self, text: &str, parse_special: bool) -> Result<Vec<sys::llama_token>> {
        let tokenize = |ids: &mut [sys::llama_token]| {
            // SAFETY: the model is alive and has a vocabulary. Nothing changes in it, whatever is thrown.
            unsafe { guard::tokenize(self.model.vocab(), text, parse_special, ids) }
                .map_err(|guard::Thrown(reason)| ErrorKind::Tokenizer { reason })
        };
        // A token is rarely shorter than two bytes; a vocabulary that adds a space in front needs one more.
        let mut ids = vec![0; text.len() / 2 + 8];
        let mut n = tokenize(&mut ids)?;
        if n < 0 && n != i32::MIN {
            ids.resize(n.unsigned_abs() as usize, 0);
            n = tokenize(&mut ids)?;
        }
        ids.truncate(usize::try_from(n).map_err(|_| too_long(text))?);
        Ok(ids)
    }
}

/// What llama.cpp looks for in texts before it tokenizes what is between, where special tokens are read and where not.
fn specials(model: &LlamaModel, parse_special: bool) -> impl Iterator<Item = Special> {
    const UNREAD: sys::llama_token_attr = sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN;
    let n_tokens = i32::try_from(model.n_vocab()).unwrap_or(i32::MAX);
    (0..n_tokens).filter_map(move |id| {
        // SAFETY: the model is alive and has a vocabulary; the id is in it.
        let attributes = unsafe { sys::llama_vocab_get_attr(model.vocab(), id) };
        let is_special = attributes & (UNREAD | sys::LLAMA_TOKEN_ATTR_USER_DEFINED) != 0;
        if !is_special || !parse_special && attributes & UNREAD != 0 {
            return None;
        }
        // SAFETY: as above; the text is a NUL-terminated part of the vocabulary.
        let text = unsafe { CStr::from_ptr(sys::llama_vocab_get_text(model.vocab(), id)) };
        let strips_before = attributes & sys::LLAMA_TOKEN_ATTR_LSTRIP != 0;
        Some(Special { text: text.to_bytes().into(), strips_before })
    })
}

fn too_long(text: &str) -> ErrorKind {
    let reason = format!("a text of {} bytes is too long; {MAX_TEXT} are tokenized at once", text.len());
    ErrorKind::Tokenizer { reason }
}

impl Vocabulary for LlamaVocabulary {
    fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// A long text is tokenized on a thread with a stack in proportion: for most byte-pair vocabularies llama.cpp splits text
    /// with `std::regex`, whose recursion would overflow the caller's stack and end the process (4,096 letters do on a stack of
    /// 1 MiB), in [`Cuts`]. Fails with `Tokenizer` for a text of more than 4 MiB (128 KiB on 32-bit systems).
    fn encode(&self, text: &str, encoding: Encoding) -> Result<Vec<Token>> {
        if text.len() > MAX_TEXT {
            return Err(too_long(text).into());
        }
        let pieces = self.cuts[usize::from(encoding.parse_special)].pieces(text);
        let tokenize = || -> Result<Vec<_>> {
            let tokenized = pieces.iter().map(|piece| self.tokenize(piece, encoding.parse_special));
            Ok(tokenized.collect::<Result<Vec<_>>>()?.concat())
        };
        let ids = if text.len() <= SHORT_TEXT {
            tokenize()?
        } else {
            let longest = pieces.iter().map(|piece| piece.len()).max().unwrap_or(0);
            let stack = (1 << 20) + longest * STACK_PER_BYTE;
            std::thread::scope(|scope| {
                std::thread::Builder::new()
                    .name("tokenize".to_owned())
                    .stack_size(stack)
                    .spawn_scoped(scope, tokenize)
                    .map_err(|error| ErrorKind::Tokenizer { reason: format!("cannot start a thread: {error}") })?
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })?
        };
        let bos = if encoding.add_bos && self.wants_bos() { self.bos() } else { None };
        Ok(bos.into_iter().chain(ids.into_iter().filter_map(|id| self.token(id))).collect())
    }

    fn decode_token(&self, token: Token, special: bool, out: &mut Vec<u8>) {
        let Some(id) = self.id(token) else { return };
        let piece = |buffer: &mut [u8]| {
            // SAFETY: the id is in the vocabulary and the buffer is as long as stated.
            unsafe {
                sys::llama_token_to_piece(
                    self.model.vocab(),
                    id,
                    buffer.as_mut_ptr().cast(),
                    i32::try_from(buffer.len()).unwrap_or(i32::MAX),
                    0,
                    special,
                )
            }
        };
        // Nearly every piece fits; a longer one is announced as the negative length.
        let start = out.len();
        out.resize(start + 32, 0);
        let mut n = piece(&mut out[start..]);
        if n < 0 {
            out.resize(start + n.unsigned_abs() as usize, 0);
            n = piece(&mut out[start..]);
        }
        out.truncate(start + usize::try_from(n).unwrap_or(0));
    }

    fn is_end_of_generation(&self, token: Token) -> bool {
        // SAFETY: the model is alive and has a vocabulary; the id is in it.
        self.id(token).is_some_and(|id| unsafe { sys::llama_vocab_is_eog(self.model.vocab(), id) })
    }

    fn control_texts(&self) -> &[String] {
        &self.control_texts
    }

    fn bos(&self) -> Option<Token> {
        // SAFETY: the model is alive and has a vocabulary.
        self.token(unsafe { sys::llama_vocab_bos(self.model.vocab()) })
    }

    fn eos(&self) -> Option<Token> {
        // SAFETY: the model is alive and has a vocabulary.
        self.token(unsafe { sys::llama_vocab_eos(self.model.vocab()) })
    }
}
