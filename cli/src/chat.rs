//! `fulcrum chat`: a conversation in the terminal, or answers to the lines of a pipe.

use crate::conversation::{Conversation, Next};
use crate::failure::{Failure, Result};
use crate::input;
use crate::interrupt::Interrupt;
use crate::loading::load;
use crate::options::{ModelArgs, SamplingArgs};
use crate::output;
use crate::profile::ProfileArgs;
use fulcrum::Tool;
use fulcrum::session::{ContextOverflow, SessionOptions};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Chat with a model; with standard input not a terminal, answer each line of it and exit
#[derive(clap::Args)]
pub(crate) struct Chat {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    profile: ProfileArgs,
    /// Instructions to the model, in front of the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Tools the model may call: a JSON list of {"type": "function", "function": {"name", "description", "parameters"}}. A call is
    /// printed as a line of JSON; /result gives its result
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
}

impl Chat {
    pub(crate) fn run(self) -> Result<()> {
        let options = SessionOptions {
            system_prompt: self.system,
            tools: self.tools.as_deref().map_or_else(|| Ok(Vec::new()), tools)?,
            // Somebody who chats for an hour should not meet an error; the model forgets the beginning instead.
            context_overflow: ContextOverflow::DropOldestTurns,
            generation: self.sampling.generation(),
            ..SessionOptions::default()
        };
        let interrupt = Interrupt::default();
        let model = load(self.model.path(), self.model.options())?.model;
        self.profile.begin(&model);
        let conversation = Conversation::new(model.session(options)?, interrupt.clone());
        let chatted = if io::stdin().is_terminal() {
            interrupt.install().and_then(|()| at_the_terminal(conversation))
        } else {
            answer_lines(conversation, io::stdin().lock(), &mut io::stdout().lock())
        };
        self.profile.end(&model)?;
        chatted
    }
}

fn tools(path: &Path) -> Result<Vec<Tool>> {
    let failed = |source| Failure::Input { from: path.into(), source };
    let text = input::text(File::open(path).map_err(failed)?).map_err(failed)?;
    serde_json::from_str(&text).map_err(|error| failed(error.into()))
}

/// Line by line with an editor; what fails is said, and the chat goes on.
fn at_the_terminal(mut conversation: Conversation) -> Result<()> {
    let terminal = |error: ReadlineError| Failure::Terminal(error.to_string());
    let mut editor = DefaultEditor::new().map_err(terminal)?;
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                hint()?;
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(terminal(error)),
        };
        if !line.trim().is_empty() {
            editor.add_history_entry(line.as_str()).map_err(terminal)?;
        }
        match conversation.take(&line, &mut io::stdout().lock()) {
            Ok(Next::GoOn) => {}
            Ok(Next::Quit) => return Ok(()),
            // Either way the turn was rolled back: the conversation is as it was before this line.
            Err(Failure::Engine(error)) if error.is_cancelled() => {}
            Err(failure @ Failure::Engine(_)) => {
                failure.report();
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Ctrl-C at the prompt clears the line; somebody who wants to leave is told how.
fn hint() -> Result<()> {
    output::write(&mut io::stdout().lock(), "(Ctrl-D or /quit ends the chat)\n")
}

/// Answers every line; the first failure ends it, because nobody is there to try again.
fn answer_lines(mut conversation: Conversation, mut lines: impl BufRead, out: &mut dyn Write) -> Result<()> {
    let unreadable = |source| Failure::Input { from: "standard input".into(), source };
    while let Some(line) = input::line(&mut lines).map_err(unreadable)? {
        if conversation.take(&line, out)? == Next::Quit {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::tests::echo;

    fn answers(lines: &str) -> Result<String> {
        let mut out = Vec::new();
        answer_lines(echo(SessionOptions::default()), lines.as_bytes(), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn every_line_of_a_pipe_is_answered() {
        assert_eq!(answers("one\n\ntwo\r\nthree").unwrap(), "ONE\nTWO\nTHREE\n");
        assert_eq!(answers("one\n/quit\ntwo\n").unwrap(), "ONE\n");
        assert_eq!(answers("").unwrap(), "");
    }

    #[test]
    fn the_first_failure_ends_a_pipe() {
        assert!(matches!(answers(&"long ".repeat(100)), Err(Failure::Engine(_))));
        let mut out = Vec::new();
        let result = answer_lines(echo(SessionOptions::default()), &b"one\n\xff\ntwo\n"[..], &mut out);
        assert!(matches!(result, Err(Failure::Input { .. })));
        assert_eq!(out, b"ONE\n");
    }
}
