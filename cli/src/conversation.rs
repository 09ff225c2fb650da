//! What a line means in a chat: a message to answer, or a command.
//!
//! Deliberately not known here: where lines come from. The terminal and the pipe are in `chat`.

use crate::failure::Result;
use crate::interrupt::Interrupt;
use crate::output::{self, human_bytes};
use fulcrum::metrics::GenerationMetrics;
use fulcrum::session::ChatSession;
use fulcrum::{Event, Message, ToolCall};
use std::collections::VecDeque;
use std::io::Write;

/// A session and what is known of its last answer.
pub(crate) struct Conversation {
    session: ChatSession,
    interrupt: Interrupt,
    /// Tools that the last answer called, which have no result yet.
    calls: VecDeque<ToolCall>,
    /// Results of the others.
    results: Vec<Message>,
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
/result   what a tool gave back that the model called: /result TEXT; the model is told that a tool was not run if you go on without
/quit     end the chat (so does Ctrl-D)
/help     this
Ctrl-C ends an answer. Anything else is a message to the model.
";

impl Conversation {
    /// A conversation on a session; `interrupt` ends answers.
    pub(crate) fn new(session: ChatSession, interrupt: Interrupt) -> Self {
        Self { session, interrupt, calls: VecDeque::new(), results: Vec::new(), last: None, forgets: false }
    }

    /// Takes a line: answers it, or does what it commands.
    ///
    /// An answer that was cancelled is a failure of kind `Cancelled`; its text so far has been written.
    pub(crate) fn take(&mut self, line: &str, out: &mut dyn Write) -> Result<Next> {
        let line = line.trim();
        match line {
            "" => {}
            _ if line.split_whitespace().next() == Some("/result") => {
                self.take_result(line["/result".len()..].trim_start(), out)?;
            }
            "/quit" | "/exit" => return Ok(Next::Quit),
            "/help" => output::write(out, HELP)?,
            "/reset" => {
                self.session.reset()?;
                self.forget_calls();
            }
            "/metrics" => output::write(out, &self.metrics())?,
            // A single word, so that a message may begin with a slash.
            command if command.starts_with('/') && !command.contains(char::is_whitespace) => {
                output::write(out, &format!("there is no command {command}\n{HELP}"))?;
            }
            message => {
                // Some templates refuse a call without a result.
                let unanswered = self.calls.iter().map(|call| Message::tool_result(call, "the tool was not run"));
                let user = [Message::user(message)];
                self.answer(self.results.iter().cloned().chain(unanswered).chain(user).collect(), out)?;
            }
        }
        Ok(Next::GoOn)
    }

    /// The result of the first call that has none. The model goes on when all of them are there.
    fn take_result(&mut self, result: &str, out: &mut dyn Write) -> Result<()> {
        let Some(call) = self.calls.front() else {
            return output::write(out, "no tool was called that waits for a result\n");
        };
        self.results.push(Message::tool_result(call, result));
        if let Some(next) = self.calls.get(1) {
            output::write(out, &format!("and the result of {}?\n", next.name))?;
            self.calls.pop_front();
            return Ok(());
        }
        // Without an answer the call still waits.
        self.answer(self.results.clone(), out).inspect_err(|_| drop(self.results.pop()))
    }

    fn forget_calls(&mut self) {
        self.calls.clear();
        self.results.clear();
    }

    fn answer(&mut self, messages: Vec<Message>, out: &mut dyn Write) -> Result<()> {
        let options = &self.session.options().generation;
        let mut stream = self.session.stream_messages(messages, options)?;
        let (mut at_start, mut ends_with_call) = (true, false);
        let ended = self.interrupt.during(stream.canceller(), || {
            stream.events().try_for_each(|event| {
                let text = match event? {
                    Event::Text(text) => {
                        ends_with_call = false;
                        text
                    }
                    Event::ToolCall(call) => {
                        ends_with_call = true;
                        let json = serde_json::to_string(&call).unwrap_or_default();
                        format!("{}{json}\n", if at_start { "" } else { "\n" })
                    }
                };
                at_start = text.ends_with('\n');
                output::write(out, &text)
            })
        });
        if !ends_with_call {
            output::write(out, "\n")?;
        }
        ended?;
        if let Some(response) = stream.response() {
            self.last = Some(response.metrics);
            let (calls, dropped) = (response.tool_calls.clone(), response.dropped_messages);
            self.forget_calls();
            self.calls.extend(calls);
            self.say_what_is_forgotten(dropped);
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
    use crate::failure::Failure;
    use fulcrum::chat::ChatTemplate;
    use fulcrum::executor::scripted::{ByteVocabulary, Rule, Script};
    use fulcrum::session::{ModelParts, SessionOptions};
    use fulcrum::tokenizer::Vocabulary;
    use fulcrum::{ErrorKind, Token, Tool};
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

    /// A fake that calls two tools, then counts the results it was given.
    fn caller() -> Conversation {
        let template = "{% if tools %}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\
                        {% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}{% endfor %}<|im_end|>{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
        let vocabulary = ByteVocabulary::new();
        let marker = vocabulary.tokens("<|im_start|>assistant\n");
        let result = vocabulary.tokens("<|im_start|>tool\n");
        let reply = move |prompt: &[Token]| {
            let results = prompt.windows(result.len()).filter(|w| *w == result).count();
            let calls = r#"Hm.<call>{"name": "a", "arguments": {"x": 1}}<call>{"name": "b"}"#.to_owned();
            ByteVocabulary::new().tokens(&if results == 0 { calls } else { format!("{results} results") })
        };
        let rule = Rule::replying(vocabulary.n_tokens(), &marker, ByteVocabulary::END, reply);
        let template = Arc::new(ChatTemplate::new(Some(template), "", "").unwrap());
        let parts = ModelParts::new(Script::new(rule).weights(), Arc::new(vocabulary), template, 400);
        let tool = Tool { name: "a".into(), description: String::new(), parameters: serde_json::Value::Null };
        let options = SessionOptions { tools: vec![tool], ..Default::default() };
        Conversation::new(ChatSession::new(parts, options).unwrap(), Interrupt::default())
    }

    const CALLS: &str = r#"Hm.
{"id":"call00001","type":"function","function":{"name":"a","arguments":{"x":1}}}
{"id":"call00002","type":"function","function":{"name":"b","arguments":{}}}
"#;

    #[test]
    fn calls_are_lines_and_wait_for_their_results() {
        let mut chat = caller();
        assert_eq!(said(&mut chat, "/result 1"), "no tool was called that waits for a result\n");
        assert_eq!(said(&mut chat, "go"), CALLS);
        assert_eq!(said(&mut chat, "/result one"), "and the result of b?\n");
        // An answer that fails leaves the call waiting.
        assert!(chat.take(&format!("/result {}", "long ".repeat(100)), &mut Vec::new()).is_err());
        assert_eq!(said(&mut chat, "/result  two"), "2 results\n");
        let results: Vec<_> = chat.session.history().into_iter().filter(|m| m.role == fulcrum::Role::Tool).collect();
        let told = results.iter().map(|m| (m.tool_call_id.as_deref(), m.name.as_deref(), m.content.as_str()));
        assert!(told.eq([(Some("call00001"), Some("a"), "one"), (Some("call00002"), Some("b"), "two")]));
        assert!(said(&mut chat, "/result three").starts_with("no tool"));
    }

    #[test]
    fn calls_without_results_are_answered_for() {
        let mut chat = caller();
        said(&mut chat, "go");
        said(&mut chat, "/result\tone");
        assert_eq!(said(&mut chat, "never mind"), "2 results\n");
        let told: Vec<_> = chat.session.history().into_iter().skip(2).map(|message| message.content).collect();
        assert_eq!(told, ["one", "the tool was not run", "never mind", "2 results"]);
        assert!(said(&mut chat, "/result").starts_with("no tool"));

        let mut chat = caller();
        said(&mut chat, "go");
        assert_eq!(said(&mut chat, "/result"), "and the result of b?\n");
        said(&mut chat, "/reset");
        assert!(said(&mut chat, "/result two").starts_with("no tool"));
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
