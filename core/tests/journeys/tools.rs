//! Tools that a model calls: found in the answer, kept in the history, answered with results.

use std::sync::Arc;

use fulcrum::executor::scripted::{ByteVocabulary, Rule, Script, ScriptedWeights};
use fulcrum::{ChatSession, Event, FinishReason, GenerationOptions, Message, SessionOptions, Tool, ToolCall};
use serde_json::json;

use crate::support::*;

/// ChatML with tools, and calls in tags.
const TAGS: &str = "{% if tools %}{{ tools | tojson }}\n{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\
                    {% for c in m.tool_calls or [] %}{{ '\n<tool_call>\n' + c.function | tojson + '\n</tool_call>' }}{% endfor %}\
                    <|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

const CALL: &str =
    "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Zürich\"}}\n</tool_call>";

fn weather() -> Tool {
    let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    Tool { name: "weather".into(), description: "Tells the weather".into(), parameters }
}

fn called() -> ToolCall {
    ToolCall { id: Some("call00001".into()), name: "weather".into(), arguments: json!({ "city": "Zürich" }) }
}

/// A model that writes `call`, and with a tool's result in the prompt that it is warm.
fn calling(template: &str, call: &'static str, tools: Vec<Tool>) -> (ChatSession, Arc<ScriptedWeights>) {
    let vocabulary = ByteVocabulary::new();
    let marker = vocabulary.tokens("<|im_start|>assistant\n");
    let rule = Rule::replying(N_VOCAB, &marker, ByteVocabulary::END, move |prompt| {
        let is_answered = text_of(&vocabulary, prompt).contains("<|im_start|>tool\n");
        vocabulary.tokens(if is_answered { "It is warm." } else { call })
    });
    let weights = Script::new(rule).weights();
    let model = model_with(weights.clone(), 2000, ByteVocabulary::new(), Some(template));
    (model.session(SessionOptions { tools, ..Default::default() }).unwrap(), weights)
}

/// The events, texts joined.
fn events(session: &ChatSession, options: &GenerationOptions) -> Vec<Event> {
    let mut joined: Vec<Event> = Vec::new();
    let mut stream = session.stream_response_with("warm?", options).unwrap();
    for event in stream.events() {
        match (event.unwrap(), joined.last_mut()) {
            (Event::Text(text), Some(Event::Text(last))) => last.push_str(&text),
            (event, _) => joined.push(event),
        }
    }
    let response = stream.response().expect("it came to its end");
    let texts =
        joined.iter().filter_map(|event| if let Event::Text(text) = event { Some(text.as_str()) } else { None });
    let calls = joined.iter().filter_map(|event| if let Event::ToolCall(call) = event { Some(call) } else { None });
    assert_eq!(response.text, texts.collect::<String>());
    assert!(response.tool_calls.iter().eq(calls));
    joined
}

#[test]
fn a_call_is_answered_with_its_result() {
    for options in [plain(), GenerationOptions::default()] {
        let (session, _) = calling(TAGS, CALL, vec![weather()]);
        assert_eq!(events(&session, &options), [Event::Text("Let me see.".into()), Event::ToolCall(called())]);
        let asked =
            [Message::user("warm?"), Message { tool_calls: vec![called()], ..Message::assistant("Let me see.") }];
        assert_eq!(session.history(), asked);

        let before = session.metrics().total;
        let result = Message::tool_result(&called(), "21 degrees");
        assert_eq!((result.tool_call_id.as_deref(), result.name.as_deref()), (Some("call00001"), Some("weather")));
        let response = session.stream_messages(vec![result.clone()], &options).unwrap().finish().unwrap();
        assert_eq!((response.text.as_str(), response.tool_calls.len()), ("It is warm.", 0));
        // The template writes the call as the model did, so none of it is run again.
        assert_eq!(response.metrics.reused_tokens, before.prompt_tokens + before.decode_tokens);
        assert_eq!(session.history(), [&asked[..], &[result, Message::assistant("It is warm.")]].concat());
        let saved = serde_json::to_string(&session.history()).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Message>>(&saved).unwrap(), session.history());
    }
}

#[test]
fn text_alone_is_what_a_stream_yields() {
    let (session, _) = calling(TAGS, CALL, vec![weather()]);
    let pieces: Vec<String> = session.stream_response("warm?").unwrap().map(Result::unwrap).collect();
    assert_eq!(pieces.concat(), "Let me see.");
    let response = session.stream_messages(vec![Message::user("warm?")], &plain()).unwrap().finish().unwrap();
    assert_eq!(response.tool_calls, [ToolCall { id: Some("call00002".into()), ..called() }]);
}

#[test]
fn without_tools_there_are_no_calls() {
    let (session, _) = calling(TAGS, CALL, Vec::new());
    assert_eq!(events(&session, &plain()), [Event::Text(CALL.into())]);
    session.set_tools(vec![weather()]).unwrap();
    assert_eq!(events(&session, &plain()).last(), Some(&Event::ToolCall(called())));
    let raw = session.complete("<|im_start|>assistant\n", &plain()).unwrap().finish().unwrap();
    assert_eq!((raw.text.as_str(), raw.tool_calls.len()), (CALL, 0));
}

#[test]
fn a_control_token_may_open_a_call() {
    let template = TAGS.replace("<tool_call>", "<s>[").replace("</tool_call>", "]");
    let call = "<s>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Zürich\"}}]";
    let (session, _) = calling(&template, call, vec![weather()]);
    assert_eq!(events(&session, &plain()), [Event::ToolCall(called())]);
    let (session, _) = calling(&template, "a<s>b", Vec::new());
    assert_eq!(events(&session, &plain()), [Event::Text("ab".into())], "elsewhere they are not shown");
}

#[test]
fn a_call_that_does_not_come_to_its_end_is_text() {
    let (session, _) = calling(TAGS, CALL, vec![weather()]);
    let options = GenerationOptions { max_tokens: Some(40), ..plain() };
    assert_eq!(events(&session, &options), [Event::Text(CALL[..40].into())]);
    session.reset().unwrap();
    let options = GenerationOptions { stop: vec!["Zü".into()], ..plain() };
    let stopped = session.respond_with("warm?", &options).unwrap();
    assert_eq!(
        (stopped.finish_reason, stopped.text.as_str()),
        (FinishReason::StopString, &CALL[..CALL.find("Zü").unwrap()])
    );
}

/// Until somebody takes a call, little more is generated.
#[test]
fn a_call_that_nobody_takes_stops_the_model() {
    let call: &str = Box::leak(format!("{CALL}{}", " and on".repeat(150)).into_boxed_str());
    let (session, weights) = calling(TAGS, call, vec![weather()]);
    let mut stream = session.stream_response_with("warm?", &plain()).unwrap();
    let rows = || {
        let mut last = weights.tally().rows;
        loop {
            std::thread::sleep(std::time::Duration::from_millis(100));
            match weights.tally().rows {
                rows if rows == last => return rows,
                rows => last = rows,
            }
        }
    };
    let held_back = rows();
    let rest: Vec<Event> = stream.events().map(Result::unwrap).collect();
    assert!(rest.contains(&Event::ToolCall(called())));
    assert!(rows() > held_back + 900, "{} of {} rows with the call in the queue", held_back, rows());
}
