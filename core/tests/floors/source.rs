//! Reads one Rust file for the names in it: paths into the crate, paths into `std`, words.
//!
//! Comments and string literals do not count. A tokenizer and a reader of use trees, no more: macros are read as they stand.

use std::collections::BTreeSet;

/// What one file names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Source {
    /// Paths into the crate, from its root, without `crate::`.
    pub paths: BTreeSet<String>,
    /// Paths into the standard library.
    pub std_paths: BTreeSet<String>,
    /// Every identifier and keyword, in order.
    pub words: Vec<String>,
}

impl Source {
    /// Reads the text of the file that is the module `module`.
    pub(crate) fn read(module: &str, text: &str) -> Self {
        let tokens = tokens(text);
        let mut source = Self::default();
        // Inline modules around the current token, with the brace depth at which each ends.
        let mut inside: Vec<(String, usize)> = Vec::new();
        let mut depth = 0;
        let children: BTreeSet<&str> =
            tokens.windows(3).filter(|w| w[0] == "mod" && w[2] == ";").map(|w| w[1].as_str()).collect();
        for (i, token) in tokens.iter().enumerate() {
            match token.as_str() {
                "{" => {
                    depth += 1;
                    if i >= 2 && tokens[i - 2] == "mod" {
                        inside.push((tokens[i - 1].clone(), depth));
                    }
                }
                "}" => {
                    if inside.last().is_some_and(|(_, end)| *end == depth) {
                        inside.pop();
                    }
                    depth = depth.saturating_sub(1);
                }
                word if is_word(word) => source.words.push(word.to_owned()),
                _ => {}
            }
            let starts_path = i == 0 || tokens[i - 1] != "::";
            let child = i > 0 && tokens[i - 1] == "use" && inside.is_empty() && children.contains(token.as_str());
            if starts_path && token == "std" {
                source.std_paths.extend(expand(&tokens[i..]).iter().map(|path| path.join("::")));
            }
            if starts_path && (matches!(token.as_str(), "crate" | "super" | "self") || child) {
                let here: Vec<_> = module
                    .split("::")
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .chain(inside.iter().map(|(name, _)| name.clone()))
                    .collect();
                for path in expand(&tokens[i..]) {
                    source.paths.extend(resolve(&here, &path).filter(|p| *p != module));
                }
            }
        }
        source
    }
}

/// The paths of the use tree, or the one path of an expression, at the start of `tokens`.
fn expand(tokens: &[String]) -> Vec<Vec<String>> {
    fn tree(tokens: &[String], at: &mut usize, prefix: &[String], out: &mut Vec<Vec<String>>) {
        let mut path = prefix.to_vec();
        loop {
            match tokens.get(*at).map(String::as_str) {
                Some("{") => {
                    *at += 1;
                    while tokens.get(*at).is_some_and(|t| t != "}") {
                        tree(tokens, at, &path, out);
                        // Over what follows a name in a group: `as other`, `,`.
                        while tokens.get(*at).is_some_and(|t| t != "}" && t != ",") {
                            *at += 1;
                        }
                        *at += usize::from(tokens.get(*at).is_some_and(|t| t == ","));
                    }
                    *at += 1;
                    return;
                }
                Some(word) if is_word(word) => path.push(word.to_owned()),
                _ => {}
            }
            *at += 1;
            if tokens.get(*at).is_none_or(|t| t != "::") {
                break;
            }
            *at += 1;
        }
        out.push(path);
    }
    let mut out = Vec::new();
    tree(tokens, &mut 0, &[], &mut out);
    out
}

/// A path as written in the module `here`, from the crate's root; none for the root itself and for plain `self`.
fn resolve(here: &[String], path: &[String]) -> Option<String> {
    let mut at = match path.first()?.as_str() {
        "crate" => Vec::new(),
        _ => here.to_vec(),
    };
    for segment in path {
        match segment.as_str() {
            "crate" | "self" => {}
            "super" => {
                at.pop();
            }
            name => at.push(name.to_owned()),
        }
    }
    (!at.is_empty()).then(|| at.join("::"))
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::` and single characters of Rust source, without comments, literals and white space.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let (c, next) = (chars[i], chars.get(i + 1).copied().unwrap_or(' '));
        i = match c {
            '/' if next == '/' => position(&chars, i, |at| chars[at] == '\n'),
            '/' if next == '*' => end_of_block_comment(&chars, i),
            '"' => end_of_string(&chars, i),
            'r' | 'b' if is_raw_string(&chars, i) => end_of_raw_string(&chars, i),
            // A character literal closes after one character or an escape; a lifetime does not close.
            '\'' if next == '\\' => position(&chars, i + 3, |at| chars[at] == '\'') + 1,
            '\'' if chars.get(i + 2) == Some(&'\'') => i + 3,
            c if c.is_alphanumeric() || c == '_' => {
                let end = position(&chars, i, |at| !chars[at].is_alphanumeric() && chars[at] != '_');
                tokens.push(chars[i..end].iter().collect());
                end
            }
            ':' if next == ':' => {
                tokens.push("::".to_owned());
                i + 2
            }
            c => {
                tokens.extend((!c.is_whitespace()).then(|| c.to_string()));
                i + 1
            }
        };
    }
    tokens
}

fn position(chars: &[char], from: usize, found: impl Fn(usize) -> bool) -> usize {
    (from..chars.len()).find(|at| found(*at)).unwrap_or(chars.len())
}

fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let (mut i, mut depth) = (start, 0_usize);
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') if depth == 1 => return i + 2,
            ('*', '/') => depth -= 1,
            _ => {
                i += 1;
                continue;
            }
        }
        i += 2;
    }
    chars.len()
}

fn end_of_string(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// Start of the quoted part and number of hashes of `r"`, `br#"` and their like.
fn raw_quote(chars: &[char], start: usize) -> Option<(usize, usize)> {
    let r = start + usize::from(chars[start] == 'b');
    let quote = position(chars, r + 1, |at| chars[at] != '#');
    let starts_word = start == 0 || !(chars[start - 1].is_alphanumeric() || chars[start - 1] == '_');
    (starts_word && chars.get(r) == Some(&'r') && chars.get(quote) == Some(&'"')).then(|| (quote, quote - r - 1))
}

fn is_raw_string(chars: &[char], start: usize) -> bool {
    raw_quote(chars, start).is_some()
}

fn end_of_raw_string(chars: &[char], start: usize) -> usize {
    let (quote, hashes) = raw_quote(chars, start).unwrap_or((start, 0));
    let closes = |at: usize| chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    position(chars, quote + 1, closes) + 1 + hashes
}

mod the_reader_itself {
    use super::*;

    fn paths(module: &str, text: &str) -> Vec<String> {
        Source::read(module, text).paths.into_iter().collect()
    }

    #[test]
    fn reads_plain_nested_and_renamed_imports() {
        let text = "use crate::{error::{Error, Result as R}, tree, token::*};\nuse crate::cost::Cost;";
        assert_eq!(paths("growth", text), ["cost::Cost", "error::Error", "error::Result", "token", "tree"]);
    }

    #[test]
    fn reads_paths_in_expressions() {
        let text = "pub(crate) fn f(x: Vec<crate::token::Token>) { let y = crate::kernels::map(x)?; }";
        assert_eq!(paths("session", text), ["kernels::map", "token::Token"]);
    }

    #[test]
    fn resolves_super_and_self_also_from_inline_modules() {
        assert_eq!(paths("executor::llama", "use super::Row;"), ["executor::Row"]);
        assert_eq!(paths("executor", "mod tests { use super::super::session::S; use super::*; }"), ["session::S"]);
        assert_eq!(
            paths("executor", "pub mod staged; pub use staged::Staged; use self::scripted::S;"),
            ["executor::scripted::S", "executor::staged::Staged"]
        );
        assert_eq!(paths("tree", "mod a { fn f() { g(); } } use super::kernels::K;"), ["kernels::K"]);
    }

    #[test]
    fn ignores_comments_literals_and_lifetimes() {
        let text = "//! crate::kernels\n/* crate::model /* nested */ crate::model */ fn f<'a>(s: &'a str) -> char {\n\
                    let _ = \"crate::session \\\" unsafe\"; let _ = r#\"crate::decode \" unsafe\"#; '\\'' }\nuse crate::tree::T;";
        let source = Source::read("cost", text);
        assert_eq!(source.paths.into_iter().collect::<Vec<_>>(), ["tree::T"]);
        assert!(!source.words.contains(&"unsafe".to_owned()));
        assert!(Source::read("cost", "fn f() { unsafe { g() } }").words.contains(&"unsafe".to_owned()));
        assert!(!Source::read("cost", "#![deny(unsafe_code)]").words.contains(&"unsafe".to_owned()));
    }
}
