//! What a line means in a chat: a message to answer, or a command.
//!
//! Deliberately not known here: where lines come from. The terminal and the pipe are in `chat`.

use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::output::{self, human_bytes};
use fulcrum::metrics::GenerationMetrics;
use fulcrum::session::ChatSession;
use std::io::Write;

/// A session and what is known of its last answer.
pub(crate) struct Conversation {
    session: ChatSession,
    interrupt: Interrupt,
    last: Option<GenerationMetrics>,
    /// Whether the last answer was given without the beginning of the conversation.
    forgets: bool,
}

/// Whether the chat goes on after a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    GoOn,
    Quit,
}

const HELP: &str = "\
/reset    forget the conversation
/metrics  how fast the last answer came, and all of them
/quit     end the chat (so does Ctrl-D)
/help     this
Ctrl-C ends an answer. Anything else is a message to the model.
";

impl Conversation {
    /// A conversation on a session; `interrupt` ends answers.
    pub(crate) fn new(session: ChatSession, interrupt: Interrupt) -> Self {
        Self { session, interrupt, last: None, forgets: false }
    }

    /// Takes a line: answers it, or does what it commands.
    ///
    /// An answer that was cancelled is a failure of kind `Cancelled`; its text so far has been written.
    pub(crate) fn take(&mut self, line: &str, out: &mut dyn Write) -> Result<Next> {
        let line = line.trim();
        match line {
            "" => {}
            "/quit" | "/exit" => return Ok(Next::Quit),
            "/help" => output::write(out, HELP)?,
            "/reset" => self.session.reset()?,
            "/metrics" => output::write(out, &self.metrics())?,
            // A single word, so that a message may begin with a slash.
            command if command.starts_with('/') && !command.contains(char::is_whitespace) => {
                output::write(out, &format!("there is no command {command}\n{HELP}"))?;
            }
            message => self.answer(message, out)?,
        }
        Ok(Next::GoOn)
    }

    fn answer(&mut self, message: &str, out: &mut dyn Write) -> Result<()> {
        let mut stream = self.session.stream_response(message)?;
        let ended = self.interrupt.during(stream.canceller(), || {
            stream.try_for_each(|piece| piece.map_err(Failure::from).and_then(|piece| output::write(out, &piece)))
        });
        output::write(out, "\n")?;
        ended?;
        if let Some(response) = stream.response() {
            self.last = Some(response.metrics);
            self.say_what_is_forgotten(response.dropped_messages);
        }
        Ok(())
    }

    /// A warning once, because from then on it would come with every answer; details on request.
    fn say_what_is_forgotten(&mut self, messages: usize) {
        if messages > 0 {
            let level = if self.forgets { log::Level::Info } else { log::Level::Warn };
            log::log!(level, "the context is full: the model no longer sees the first {messages} messages");
        }
        self.forgets = messages > 0;
    }

    fn metrics(&self) -> String {
        let all = self.session.metrics();
        let answers = all.completed + all.cancelled + all.failed;
        let mut text = match &self.last {
            Some(last) => format!("last answer: {}\n", figures(last)),
            None => String::new(),
        };
        text.push_str(&format!("answers: {answers}, {} cancelled, {} failed", all.cancelled, all.failed));
        if answers > 0 {
            let GenerationMetrics { decode_tokens, decode_tokens_per_s, .. } = all.total;
            text.push_str(&format!("; {decode_tokens} tokens at {decode_tokens_per_s:.1} tokens/s"));
        }
        if let Some(peak) = all.total.peak_rss_bytes {
            text.push_str(&format!("\npeak memory {}", human_bytes(peak)));
        }
        text.push('\n');
        text
    }
}

fn figures(metrics: &GenerationMetrics) -> String {
    format!(
        "{} tokens at {:.1} tokens/s, {:.1} per pass; prompt {} tokens, {} of them reused; first token after {:.2} s",
        metrics.decode_tokens,
        metrics.decode_tokens_per_s,
        metrics.accepted_length,
        metrics.prompt_tokens,
        metrics.reused_tokens,
        metrics.ttft_s
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use fulcrum::chat::ChatTemplate;
    use fulcrum::executor::scripted::{ByteVocabulary, Rule, Script};
    use fulcrum::session::{ModelParts, SessionOptions};
    use fulcrum::tokenizer::Vocabulary;
    use fulcrum::{ErrorKind, Token};
    use std::sync::Arc;

    /// A conversation with a fake that answers a message with itself in capitals.
    pub(crate) fn echo(options: SessionOptions) -> Conversation {
        Conversation::new(ChatSession::new(echo_parts(), options).unwrap(), Interrupt::default())
    }

    /// That fake.
    pub(crate) fn echo_parts() -> ModelParts {
        let vocabulary = ByteVocabulary::new();
        let marker = vocabulary.tokens("<|im_start|>assistant\n");
        let question = vocabulary.tokens("<|im_start|>user\n");
        let reply = move |prompt: &[Token]| {
            let start = prompt.windows(question.len()).rposition(|w| w == question).map_or(0, |at| at + question.len());
            let message = prompt[start..].iter().take_while(|&&token| token < 128);
            message.map(|&token| if (97..=122).contains(&token) { token - 32 } else { token }).collect()
        };
        let rule = Rule::replying(vocabulary.n_tokens(), &marker, ByteVocabulary::END, reply);
        let template = Arc::new(ChatTemplate::new(None, "", "").unwrap());
        ModelParts::new(Script::new(rule).weights(), Arc::new(vocabulary), template, 256)
    }

    /// What a line makes the chat write.
    fn said(chat: &mut Conversation, line: &str) -> String {
        let mut out = Vec::new();
        assert_eq!(chat.take(line, &mut out).unwrap(), Next::GoOn);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_message_is_answered_and_remembered() {
        let mut chat = echo(SessionOptions::default());
        assert_eq!(said(&mut chat, "hello there"), "HELLO THERE\n");
        assert_eq!(said(&mut chat, "/dev/null is a file"), "/DEV/NULL IS A FILE\n");
        assert_eq!(chat.session.history().len(), 4);
        assert_eq!(said(&mut chat, "/reset"), "");
        assert!(chat.session.history().is_empty());
    }

    #[test]
    fn commands_are_no_messages() {
        let mut chat = echo(SessionOptions::default());
        assert_eq!(said(&mut chat, "  "), "");
        assert_eq!(said(&mut chat, " /help "), HELP);
        assert!(said(&mut chat, "/rest").starts_with("there is no command /rest"));
        assert_eq!(chat.take("/quit", &mut Vec::new()).unwrap(), Next::Quit);
        assert!(chat.session.history().is_empty());
    }

    #[test]
    fn metrics_are_of_the_last_answer_and_of_all() {
        let mut chat = echo(SessionOptions::default());
        assert!(said(&mut chat, "/metrics").starts_with("answers: 0"));
        said(&mut chat, "abc");
        said(&mut chat, "de");
        let metrics = said(&mut chat, "/metrics");
        assert!(metrics.starts_with("last answer: 2 tokens"), "{metrics}");
        assert!(metrics.contains("answers: 2, 0 cancelled, 0 failed; 5 tokens"), "{metrics}");
    }

    #[test]
    fn a_turn_that_fails_leaves_the_chat_as_it_was() {
        let mut chat = echo(SessionOptions::default());
        let failure = chat.take(&"long ".repeat(100), &mut Vec::new()).unwrap_err();
        assert!(matches!(failure, Failure::Engine(error) if matches!(error.kind(), ErrorKind::ContextFull { .. })));
        assert_eq!(said(&mut chat, "short"), "SHORT\n");
    }

    #[test]
    fn a_reader_that_went_away_ends_the_answer() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut chat = echo(SessionOptions::default());
        assert!(matches!(chat.take("hello", &mut Gone), Err(Failure::Output(_))));
    }
}
