//! Calls in answers of models of several families, found with the syntax of their templates, however the answer is cut in pieces.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Event, ToolCallReader};
use crate::chat::tests::templates::{GEMMA, LLAMA_3, MISTRAL, QWEN_3, SMOLLM};
use crate::chat::{ChatTemplate, ToolCall};

/// Mistral's later models: the name in front of its arguments. `tools` are named, else none would be written.
const MISTRAL_3: &str = r##"{%- if tools %}{{ "[AVAILABLE_TOOLS]" ~ tools | tojson ~ "[/AVAILABLE_TOOLS]" }}{% endif %}
{%- for m in messages %}
    {%- if m.role == "user" %}{{ "[INST]" ~ m.content ~ "[/INST]" }}{% endif %}
    {%- if m.role == "assistant" %}
        {{- m.content }}
        {%- for call in m.tool_calls or [] %}
            {{- "[TOOL_CALLS]" ~ call.function.name }}{% if call.id %}{{ "[CALL_ID]" ~ call.id }}{% endif %}
            {{- "[ARGS]" ~ call.function.arguments | tojson }}
        {%- endfor %}
        {{- eos_token }}
    {%- endif %}
{%- endfor %}"##;

/// A section of calls, each with its name in front of fenced arguments.
const FENCED: &str = r##"{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}
{%- for m in messages %}
    {%- if m.role == "user" %}{{ "<|User|>" ~ m.content }}{% endif %}
    {%- if m.role == "assistant" %}
        {{- "<|Assistant|>" ~ m.content }}
        {%- for call in m.tool_calls or [] %}
            {{- "<|calls|>" if loop.first else "\n" }}
            {{- "<|call|>function<|sep|>" ~ call.function.name ~ "\n```json\n" ~ call.function.arguments | tojson ~ "\n```<|/call|>" }}
            {{- "<|/calls|>" if loop.last else "" }}
        {%- endfor %}
        {{- eos_token }}
    {%- endif %}
{%- endfor %}"##;

/// Phi 4 and Granite 3: a list between tags, of objects with the function within, arguments as text.
const LISTED: &str = r##"{% if tools %}{{ tools | tojson }}{% endif %}
{%- for m in messages %}
    {{- "<|" ~ m.role ~ "|>" ~ m.content }}
    {%- for call in m.tool_calls or [] %}
        {{- "<|tool_call|>[" if loop.first else ", " }}
        {{- {"type": "function", "function": {"name": call.function.name, "arguments": call.function.arguments | tojson}} | tojson }}
        {{- "]<|/tool_call|>" if loop.last else "" }}
    {%- endfor %}
    {{- "<|end|>" }}
{%- endfor %}"##;

/// Calls in a turn of their own, of which the model writes the rest only.
const APART: &str = r##"{% if tools %}{{ tools | tojson }}{% endif %}
{%- for m in messages %}
    {{- "<|start|>" ~ m.role ~ "<|message|>" ~ m.content ~ "<|end|>" }}
    {%- for call in m.tool_calls or [] %}
        {{- "<|start|>assistant to=functions." ~ call.function.name ~ "<|message|>" ~ call.function.arguments | tojson ~ "<|call|>" }}
    {%- endfor %}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|start|>assistant" }}{% endif %}"##;

/// Calls in Python's way, which is not read.
const PYTHONIC: &str = r##"{% if tools %}{{ tools | tojson }}{% endif %}
{%- for m in messages %}
    {{- "<|" ~ m.role ~ "|>" ~ m.content }}
    {%- for call in m.tool_calls or [] %}
        {{- "[" ~ call.function.name ~ "(" }}
        {%- for key, value in call.function.arguments.items() %}{{ key ~ "=" ~ value }}{% endfor %}{{ ")]" }}
    {%- endfor %}
{%- endfor %}"##;

fn reader(source: &str) -> ToolCallReader {
    let template = ChatTemplate::new(Some(source), "<s>", "</s>").unwrap();
    let syntax = template.tool_call_syntax().expect("the template shows calls").clone();
    ToolCallReader::new(syntax, vec!["weather".into(), "time".into()])
}

/// The text and the calls of `answer`, taken in pieces of `size` code points.
fn read(mut reader: ToolCallReader, answer: &str, size: usize) -> (String, Vec<ToolCall>) {
    let letters: Vec<char> = answer.chars().collect();
    let pieces = letters.chunks(size).map(|piece| piece.iter().collect::<String>());
    let mut events: Vec<Event> = pieces.flat_map(|piece| reader.push(&piece)).collect();
    events.extend(reader.finish());
    let (mut text, mut calls) = (String::new(), Vec::new());
    for event in events {
        match event {
            Event::Text(piece) => {
                assert!(!piece.is_empty());
                text.push_str(&piece);
            }
            Event::ToolCall(call) => calls.push(call),
        }
    }
    (text, calls)
}

fn call(id: &str, name: &str, arguments: Value) -> ToolCall {
    ToolCall { id: Some(id.into()), name: name.into(), arguments }
}

/// `answer` is `text` and calls with these names and arguments, however it is cut.
#[track_caller]
fn assert_read(source: &str, answer: &str, text: &str, calls: &[(&str, Value)]) {
    for size in [1, 2, 7, usize::MAX] {
        let numbered = (1..).zip(calls).map(|(n, (name, value))| call(&format!("call{n:05}"), name, value.clone()));
        let expected = (text.to_owned(), numbered.collect::<Vec<_>>());
        assert_eq!(read(reader(source), answer, size), expected, "{answer:?} in pieces of {size}");
    }
}

fn paris() -> Value {
    json!({ "city": "Paris {\"}\"} </tool_call>", "days": [1, 2] })
}

#[test]
fn calls_in_tags() {
    let call = format!("<tool_call>\n{{\"name\": \"weather\", \"arguments\": {}}}\n</tool_call>", paris());
    assert_read(QWEN_3, &call, "", &[("weather", paris())]);
    assert_read(QWEN_3, &format!("Let me see.\n\n{call}\n"), "Let me see.", &[("weather", paris())]);
    let two = format!("{call}\n<tool_call>{{\"name\":\"time\"}}</tool_call>");
    assert_read(QWEN_3, &two, "", &[("weather", paris()), ("time", json!({}))]);
    assert_read(
        QWEN_3,
        &format!("Both:\n{two}\n\nDone. "),
        "Both:\n\nDone. ",
        &[("weather", paris()), ("time", json!({}))],
    );
    // Nobody else knows what an unknown tool is: the app says so.
    let unknown = "<tool_call>\n{\"name\": \"fly\", \"arguments\": null}";
    assert_read(QWEN_3, unknown, "", &[("fly", json!({}))]);
}

#[test]
fn what_is_no_call_is_text() {
    for text in [
        "",
        " a ",
        "a < b and <tool> and <tool_cal",
        "<tool_call>",
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Par",
        "<tool_call>\nweather\n</tool_call>",
        "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": 1}</tool_call>",
        "<tool_call>{\"name\": \"weather\", \"arguments\": 7}</tool_call>",
        "<tool_call>{\"name\": 3}</tool_call> ",
        "<tool_call>{\"name\": \"\"}</tool_call>",
        "{\"name\": \"weather\", \"arguments\": {}}",
        "⁂ fulcrum probe",
    ] {
        assert_read(QWEN_3, text, text, &[]);
    }
    let behind = "<tool_call>{\"name\": \"time\"}</tool_call>\n<tool_call>{oh}";
    assert_read(QWEN_3, behind, "\n<tool_call>{oh}", &[("time", json!({}))]);
    let unsound = "<tool_call>{oh}<tool_call>{\"name\": \"time\"}</tool_call>";
    assert_read(QWEN_3, unsound, "<tool_call>{oh}", &[("time", json!({}))]);
}

#[test]
fn a_call_without_a_tag_begins_the_answer_and_names_a_tool() {
    let call = format!("{{\"name\": \"weather\", \"parameters\": {}}}", paris());
    assert_read(LLAMA_3, &call, "", &[("weather", paris())]);
    assert_read(LLAMA_3, &format!("\n{}\n", call.replace("parameters", "arguments")), "", &[("weather", paris())]);
    // The template has room for one.
    assert_read(LLAMA_3, &format!("{call}; {call}"), &format!("; {call}"), &[("weather", paris())]);
    for text in ["{\"name\": \"Ada\", \"born\": 1815} ", "{\"a\": [1", "Is {\"name\": \"weather\"} JSON?", "{ no"] {
        assert_read(LLAMA_3, text, text, &[]);
    }
    let behind_text = format!("So: {call}");
    assert_read(LLAMA_3, &behind_text, &behind_text, &[]);
}

#[test]
fn calls_in_a_list_with_ids() {
    let first = "{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}, \"id\": \"a1B2c3D4e\"}";
    let second = "{\"name\": \"time\", \"arguments\": {}}";
    let calls = vec![call("a1B2c3D4e", "weather", json!({"city": "Rome"})), call("call00001", "time", json!({}))];
    for size in [1, 3, usize::MAX] {
        for answer in [format!("[TOOL_CALLS] [{first}, {second}]"), format!(" [TOOL_CALLS][{first},\n{second}")] {
            assert_eq!(read(reader(MISTRAL), &answer, size), (String::new(), calls.clone()), "{answer}");
        }
    }
    // An id of another shape would make the template fail at the next turn.
    let short = first.replace("a1B2c3D4e", "1");
    assert_read(MISTRAL, &format!("[TOOL_CALLS] [{short}] Wait."), " Wait.", &[("weather", json!({"city": "Rome"}))]);
    let listed = r#"Fine. <|tool_call|>[{"type": "function", "function": {"name": "time", "arguments": "{\"zone\": 2}"}}]<|/tool_call|>"#;
    assert_read(LISTED, listed, "Fine.", &[("time", json!({"zone": 2}))]);
    let plain = r#"<|tool_call|>[{"name": "time", "arguments": {"zone": 2}}, {"name": "time", "arguments": " "}]"#;
    assert_read(LISTED, plain, "", &[("time", json!({"zone": 2})), ("time", json!({}))]);
}

#[test]
fn names_in_front_of_their_arguments() {
    let rome = json!({"city": "Rome"});
    let answer = "Here:[TOOL_CALLS]weather[ARGS]{\"city\": \"Rome\"}[TOOL_CALLS]time [ARGS] {}";
    assert_read(MISTRAL_3, answer, "Here:", &[("weather", rome.clone()), ("time", json!({}))]);
    let with_id = "[TOOL_CALLS]weather[CALL_ID]a1B2c3D4e[ARGS]{\"city\": \"Rome\"}";
    let calls = vec![call("a1B2c3D4e", "weather", rome.clone())];
    assert_eq!(read(reader(MISTRAL_3), with_id, 1), (String::new(), calls));
    assert_read(MISTRAL_3, "[TOOL_CALLS]weather{", "[TOOL_CALLS]weather{", &[]);
    let fenced =
        |name: &str, arguments: &str| format!("<|call|>function<|sep|>{name}\n```json\n{arguments}\n```<|/call|>");
    let two = [fenced("weather", "{\"city\": \"Rome\"}"), fenced("time", "{}")].join("\n");
    assert_read(FENCED, &format!("<|calls|>{two}<|/calls|>"), "", &[("weather", rome), ("time", json!({}))]);
}

#[test]
fn templates_that_show_no_calls_or_others_have_no_syntax() {
    for source in [GEMMA, SMOLLM, PYTHONIC, APART, "{{ tools }}", "{{ raise_exception('never') }} tools"] {
        let template = ChatTemplate::new(Some(source), "", "").unwrap();
        assert_eq!(template.tool_call_syntax(), None, "{source}");
    }
    assert_eq!(ChatTemplate::new(None, "", "").unwrap().tool_call_syntax(), None);
}

#[test]
fn no_two_calls_have_one_id() {
    let called = |id: &str| format!("{{\"name\": \"time\", \"arguments\": {{}}, \"id\": \"{id}\"}}");
    let answer = format!("[TOOL_CALLS] [{}, {}, {}]", called("call00002"), called("a1B2c3D4e"), called("a1B2c3D4e"));
    let reader = reader(MISTRAL).with_ids(["call00001", "call00002"]);
    let (_, calls) = read(reader, &answer, 4);
    let ids: Vec<_> = calls.iter().filter_map(|call| call.id.as_deref()).collect();
    assert_eq!(ids, ["call00003", "a1B2c3D4e", "call00004"]);
}

#[test]
fn what_is_called_in_a_thought_is_not_called() {
    let call = "<tool_call>{\"name\": \"time\"}</tool_call>";
    let thought = format!("<think>\nMaybe {call}? < No.\n</think>");
    assert_read(QWEN_3, &format!("{thought}\n\n{call}"), &thought, &[("time", json!({}))]);
    assert_read(QWEN_3, &format!("\n{thought}\n"), &format!("\n{thought}\n"), &[]);
    assert_read(QWEN_3, "<think>endless </think", "<think>endless </think", &[]);
    let bare = "<think>Hm.</think>{\"name\": \"time\", \"parameters\": {}}";
    assert_read(LLAMA_3, bare, "<think>Hm.</think>", &[("time", json!({}))]);
    let opened = reader(QWEN_3).behind("<|im_start|>assistant\n<think>\n");
    let (text, calls) = read(opened, &format!("Maybe {call}?</think>{call}"), 2);
    assert_eq!((text, calls.len()), (format!("Maybe {call}?</think>"), 1));
}

/// Each piece of a long call is looked at once, and white space is no place where a call may begin.
#[test]
fn long_answers_take_no_long_time() {
    let start = std::time::Instant::now();
    let long =
        format!("<tool_call>{{\"name\": \"time\", \"arguments\": {{\"a\": \"{}\"}}}}</tool_call>", "x".repeat(1 << 20));
    assert_eq!(read(reader(QWEN_3), &long, 3).1.len(), 1);
    let blank = format!("a{}b", " \n".repeat(1 << 19));
    assert_eq!(read(reader(QWEN_3), &blank, usize::MAX).0, blank);
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

/// What was written by a template is read again.
#[test]
fn what_templates_write_is_read() {
    for source in [QWEN_3, LLAMA_3, MISTRAL, MISTRAL_3, FENCED, LISTED] {
        let template = ChatTemplate::new(Some(source), "<s>", "</s>").unwrap();
        let calls = vec![call("a1B2c3D4e", "weather", json!({"city": "Zürich \"}\\", "at": null, "n": [1.5, {}]}))];
        let question = [crate::Message::user("?"), crate::Message::assistant("")];
        let prompt = |question: &[crate::Message]| template.render(question, &[], false).unwrap();
        let (without, mut answered) = (prompt(&question[..1]), question.to_vec());
        answered[1].tool_calls.clone_from(&calls);
        let with = prompt(&answered);
        let answer = with.strip_prefix(&without).expect("the question is the same").trim_end_matches("</s>");
        let answer = answer.trim_start_matches("<|start_header_id|>assistant<|end_header_id|>\n\n");
        let (_, read) = read(reader(source), answer, 5);
        assert_eq!((&read[0].name, &read[0].arguments), (&calls[0].name, &calls[0].arguments), "{answer}");
    }
}

/// Words near calls, so that what is almost one is common.
fn words() -> impl Strategy<Value = Vec<&'static str>> {
    let words = [
        "<tool_call>",
        "</tool_call>",
        "<tool",
        "{\"name\": \"time\"",
        ", \"arguments\": {\"a\": \"}\"}",
        "}",
        "{",
        " ",
        "\n",
        "é",
        "[TOOL_CALLS]",
        "[",
        "]",
        ", ",
        "weather",
        "[ARGS]",
        "\"",
        "{\"name\": \"time\", \"parameters\": {}}",
        "a",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn cuts_change_nothing(words in words(), size in 1usize..6, source in prop::sample::select(vec![QWEN_3, LLAMA_3, MISTRAL, MISTRAL_3, LISTED, FENCED])) {
        let answer = words.concat();
        prop_assert_eq!(read(reader(source), &answer, size), read(reader(source), &answer, usize::MAX));
    }

    #[test]
    fn nothing_but_calls_is_lost(words in words()) {
        let answer = words.concat();
        prop_assume!(!answer.contains("<think>"));
        let (text, calls) = read(reader(QWEN_3), &answer, 3);
        let (expected, n_calls) = naive(&answer);
        prop_assert_eq!((text, calls.len()), (expected, n_calls), "{:?}", answer);
    }
}

/// The text and the number of calls, by looking for a call at every place of the whole answer.
fn naive(answer: &str) -> (String, usize) {
    let (mut text, mut rest, mut n_calls, mut last_call) = (String::new(), answer, 0, None);
    while let Some(first) = rest.chars().next() {
        if let Some(behind) = behind_a_call(rest) {
            rest = behind.trim_start().strip_prefix("</tool_call>").unwrap_or(behind);
            text.truncate(text.trim_end().len());
            (n_calls, last_call) = (n_calls + 1, Some(text.len()));
        } else {
            text.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    if let Some(end) = last_call.filter(|&end| text[end..].trim().is_empty()) {
        text.truncate(end);
    }
    (text, n_calls)
}

fn behind_a_call(text: &str) -> Option<&str> {
    let body = text.strip_prefix("<tool_call>")?;
    let mut values = serde_json::Deserializer::from_str(body).into_iter::<serde_json::Map<String, Value>>();
    let call = values.next()?.ok()?;
    let has_name = call.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    let arguments = call.get("arguments").or_else(|| call.get("parameters")).unwrap_or(&Value::Null);
    let has_arguments = match arguments {
        Value::Null | Value::Object(_) => true,
        Value::String(text) => text.trim().is_empty(),
        _ => false,
    };
    (has_name && has_arguments).then(|| &body[values.byte_offset()..])
}
