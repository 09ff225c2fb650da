//! Prompts to answer, from files of one JSON object per line, as `models/README.md` describes them.

use crate::failure::{Failure, Result};
use crate::input;
use fulcrum::chat::Message;
use serde::Deserialize;
use std::fs::File;
use std::io;
use std::path::Path;

/// The prompts of one file.
pub(crate) struct Workload {
    /// The file's name without its ending.
    pub(crate) name: String,
    pub(crate) prompts: Vec<Prompt>,
}

/// Messages, the last of them to be answered.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Prompt {
    pub(crate) messages: Vec<Message>,
}

impl Workload {
    /// Reads the first `limit` prompts of the file at `path`.
    pub(crate) fn read(path: &Path, limit: usize) -> Result<Self> {
        let unreadable = |source| Failure::Input { from: path.to_owned(), source };
        let text = File::open(path).and_then(input::text).map_err(unreadable)?;
        let lines = text.lines().filter(|line| !line.trim().is_empty()).take(limit);
        let prompts = parse(lines).map_err(unreadable)?;
        if prompts.is_empty() {
            return Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, "there is no prompt in it")));
        }
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
        Ok(Self { name: name.unwrap_or_default(), prompts })
    }
}

fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> io::Result<Vec<Prompt>> {
    let prompt = |(i, line): (usize, &str)| {
        let wrong =
            |error: serde_json::Error| io::Error::new(io::ErrorKind::InvalidData, format!("prompt {}: {error}", i + 1));
        serde_json::from_str(line).map_err(wrong)
    };
    lines.enumerate().map(prompt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_prompt_and_what_else_it_says_is_ignored() {
        let line =
            r#"{"id": "ui-1", "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}"#;
        let prompts = parse([line].into_iter()).unwrap();
        assert_eq!(prompts[0].messages, [Message::system("a"), Message::user("b")]);
        let wrong = parse([line, r#"{"messages": "hello"}"#].into_iter()).unwrap_err();
        assert!(wrong.to_string().starts_with("prompt 2: "), "{wrong}");
    }

    #[test]
    fn a_file_without_prompts_is_a_failure() {
        let path = std::env::temp_dir().join(format!("fulcrum-workload-{}.jsonl", std::process::id()));
        std::fs::write(&path, "\n\n").unwrap();
        let read = Workload::read(&path, 5);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read, Err(Failure::Input { .. })));
    }
}
