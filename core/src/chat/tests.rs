//! Prompts of the families' formats, from small templates in the manner of theirs, and templates that misbehave.

pub(super) mod templates;

use proptest::prelude::*;
use serde_json::json;

use self::templates::{GEMMA, LLAMA_3, MISTRAL, PHI_3, QWEN_3, SMOLLM};
use super::*;
use crate::error::ErrorKind;

fn template(source: &str, bos: &str, eos: &str) -> ChatTemplate {
    ChatTemplate::new(Some(source), bos, eos).unwrap().with_time(1_721_952_000)
}

fn greeting() -> Vec<Message> {
    vec![Message::system("Be brief."), Message::user("Hi "), Message::assistant("Hello!"), Message::user("Why?")]
}

fn weather() -> Tool {
    let parameters = json!({
        "type": "object",
        "properties": {"city": {"type": "string"}, "at": {"type": "string", "enum": ["<now>", "später"]}},
        "required": ["city"]
    });
    Tool { name: "weather".into(), description: "Tells the weather".into(), parameters }
}

const WEATHER_JSON: &str = r#"{"type": "function", "function": {"name": "weather", "description": "Tells the weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "at": {"type": "string", "enum": ["<now>", "später"]}}, "required": ["city"]}}}"#;

/// A question, the call, its result.
fn with_call() -> Vec<Message> {
    let call = ToolCall {
        id: Some("abcdefghi".into()),
        name: "weather".into(),
        arguments: json!({"city": "Zürich", "at": "<now>"}),
    };
    let result = Message::tool_result(&call, "12");
    vec![Message::user("Weather?"), Message { tool_calls: vec![call], ..Message::assistant("") }, result]
}

#[test]
fn llama_3() {
    let template = template(LLAMA_3, "<|begin_of_text|>", "<|eot_id|>");
    assert_eq!(
        template.render(&greeting(), &[], true).unwrap(),
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\nBe brief.<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    let prompt = template.render(&with_call(), &[weather()], false).unwrap();
    assert!(
        prompt.contains(
            "Functions:\n\n{\n    \"type\": \"function\",\n    \"function\": {\n        \"name\": \"weather\","
        )
    );
    assert!(prompt.ends_with(
        "<|start_header_id|>assistant<|end_header_id|>\n\n{\"name\": \"weather\", \"parameters\": {\"city\": \"Zürich\", \
         \"at\": \"<now>\"}}<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n12<|eot_id|>"
    ));
    let mut two_calls = with_call();
    let call = two_calls[1].tool_calls[0].clone();
    two_calls[1].tool_calls.push(call);
    let error = template.render(&two_calls, &[weather()], true).unwrap_err();
    assert!(error.to_string().contains("one tool call at a time"), "{error}");
}

#[test]
fn qwen_3() {
    let template = template(QWEN_3, "", "<|im_end|>");
    assert!(template.reads_tools());
    let mut messages = greeting();
    messages[2].content = "<think>\nA greeting.\n</think>\n\nHello!".into();
    assert_eq!(
        template.render(&messages, &[], true).unwrap(),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n\
         <|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        template.render(&with_call(), &[weather()], true).unwrap(),
        format!(
            "<|im_start|>system\n# Tools\n\n<tools>\n{WEATHER_JSON}\n</tools><|im_end|>\n<|im_start|>user\nWeather?<|im_end|>\n\
             <|im_start|>assistant\n<tool_call>\n{{\"name\": \"weather\", \"arguments\": {{\"city\": \"Zürich\", \"at\": \"<now>\"}}}}\n\
             </tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n12\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
        )
    );
    let quick = template.with_variable("enable_thinking", &json!(false));
    assert!(quick.render(&messages, &[], true).unwrap().ends_with("assistant\n<think>\n\n</think>\n\n"));
}

#[test]
fn gemma_is_given_the_system_text_by_the_user() {
    let template = template(GEMMA, "<bos>", "<eos>");
    assert_eq!(
        template.render(&greeting(), &[], true).unwrap(),
        "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n\
         <start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n"
    );
    // What folding does not mend is reported in the template's own words.
    let error = template.render(&[Message::system("Be brief.")], &[], true).unwrap_err();
    assert!(error.to_string().contains("no system role here"), "{error}");
    let error = template.render(&[Message::user("a"), Message::user("b")], &[], true).unwrap_err();
    assert!(
        error.to_string().contains("expected a turn of the assistant")
            && matches!(error.kind(), ErrorKind::Template { .. }),
        "{error}"
    );
}

#[test]
fn a_system_text_that_would_be_lost_is_folded_too() {
    let deaf =
        template("{% for m in messages if m.role != 'system' %}[{{ m.role }}: {{ m.content }}]{% endfor %}", "", "");
    assert_eq!(deaf.render(&greeting()[..2], &[], true).unwrap(), "[user: Be brief.\n\nHi ]");
    assert_eq!(deaf.render(&greeting()[1..2], &[], true).unwrap(), "[user: Hi ]");
}

#[test]
fn phi_3_needs_trimmed_blocks() {
    let template = template(PHI_3, "<s>", "<|endoftext|>");
    assert_eq!(
        template.render(&greeting(), &[], true).unwrap(),
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHi <|end|>\n<|assistant|>\nHello!<|end|>\n<|user|>\nWhy?<|end|>\n<|assistant|>\n"
    );
    assert!(template.render(&greeting(), &[], false).unwrap().ends_with("Why?<|end|>\n<|endoftext|>"));
}

#[test]
fn mistral() {
    let template = template(MISTRAL, "<s>", "</s>");
    assert_eq!(
        template.render(&greeting(), &[], true).unwrap(),
        "<s>[INST] Hi [/INST] Hello!</s>[INST] Be brief.\n\nWhy?[/INST]"
    );
    assert_eq!(
        template.render(&with_call(), &[weather()], true).unwrap(),
        format!(
            "<s>[AVAILABLE_TOOLS] [{WEATHER_JSON}][/AVAILABLE_TOOLS][INST] Weather?[/INST][TOOL_CALLS] [{{\"name\": \"weather\", \
             \"arguments\": {{\"city\": \"Zürich\", \"at\": \"<now>\"}}, \"id\": \"abcdefghi\"}}]</s>\
             [TOOL_RESULTS] {{\"content\": 12, \"call_id\": \"abcdefghi\"}}[/TOOL_RESULTS]"
        )
    );
}

#[test]
fn smollm() {
    let template = template(SMOLLM, "<|im_start|>", "<|im_end|>");
    assert_eq!(
        template.render(&[Message::user("Hi")], &[], true).unwrap(),
        "<|im_start|>system\nYou are SmolLM.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn chatml_where_there_is_none() {
    for source in [None, Some(""), Some(" \n")] {
        let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
        assert!(template.is_default() && !template.reads_tools());
        assert_eq!(
            template.render(&greeting(), &[], true).unwrap(),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n\
             <|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
        );
        assert_eq!(template.render(&greeting()[1..2], &[], false).unwrap(), "<|im_start|>user\nHi <|im_end|>\n");
        let error = template.render(&greeting(), &[weather()], true).unwrap_err();
        assert!(error.to_string().contains("does not know tools"), "{error}");
    }
}

#[test]
fn loop_controls_and_python_methods() {
    let source = "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}{% if loop.index0 == 3 %}{% break %}{% endif %}\
                  {{ m.content.upper().strip() }}{{ m.get('name', '-') }}{{ m.items()|list|length }}{% endfor %}\
                  {{ ' a b '.strip().split(' ')|join('+') }}{{ 'ab'[::-1] }}{{ none }}{{ true }}{{ '%s=%d'|format('x', 3) }}";
    assert_eq!(template(source, "", "").render(&greeting(), &[], true).unwrap(), "BE BRIEF.-2HELLO!-2a+bbaNoneTruex=3");
}

fn refused(source: &str) -> String {
    let rendered = ChatTemplate::new(Some(source), "", "").and_then(|t| t.render(&greeting(), &[], true));
    let error = rendered.expect_err("rendered");
    assert!(matches!(error.kind(), ErrorKind::Template { .. }), "{error}");
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn templates_that_are_none_are_refused() {
    assert!(refused("line\n{% for m in messages %}").contains("template:2"));
    refused("{{ messages[0].content | no_such_filter }}");
    refused("{{ messages[0].nothing.at_all }}");
    refused("{{ messages.no_such_method() }}");
    refused("{{ raise_exception('line\nbreak') }}");
    refused("{% include 'elsewhere' %}");
    refused(&"x".repeat(2 << 20));
}

#[test]
fn templates_that_do_not_end_are_stopped() {
    let fuel = refused(
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
    );
    assert!(fuel.contains("fuel"), "{fuel}");
    refused("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}");
    refused("{% include 'template' %}");
    refused("{% for i in range(9999) %}{{ 'a' * 1000000 }}{% endfor %}");
    refused(&format!("{}1{}", "{{ (".repeat(20_000), ") }}".repeat(20_000)));
    refused(&format!("{{{{ {}1{} }}}}", "[".repeat(100_000), "]".repeat(100_000)));
}

#[test]
fn values_as_deep_as_fuel_allows_do_not_overflow_the_stack() {
    // 60 levels for about 70 steps; 1,500 rounds just fit.
    let nest = |rounds: usize, end: &str| {
        let (open, close) = ("[".repeat(60), "]".repeat(60));
        let source = format!(
            "{{% set ns = namespace(x=[]) %}}{{% for i in range({rounds}) %}}{{% set ns.x = {open}ns.x{close} %}}{{% endfor %}}{end}"
        );
        ChatTemplate::new(Some(&source), "", "").unwrap().render(&[Message::user("Hi")], &[], true)
    };
    for (end, length) in
        [("built", 5), ("{{ ns.x }}", 180_002), ("{{ ns.x | tojson }}", 180_002), ("{{ ns.x == [ns.x] }}", 5)]
    {
        assert_eq!(nest(1500, end).unwrap().len(), length, "{end}");
    }
    assert!(nest(1600, "").unwrap_err().to_string().contains("fuel"));
}

#[test]
fn a_long_conversation_has_fuel() {
    let messages: Vec<Message> = (0..2000).flat_map(|_| [Message::user("a"), Message::assistant("b")]).collect();
    for source in [LLAMA_3, QWEN_3, GEMMA, MISTRAL] {
        assert!(template(source, "", "").render(&messages, &[], true).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Anything that can be pieced together is rendered or refused, in bounded time and without a panic of ours.
    #[test]
    fn arbitrary_templates_come_back(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..14)) {
        if let Err(error) = ChatTemplate::new(Some(&pieces.concat()), "<s>", "</s>").and_then(|t| t.render(&with_call(), &[], true)) {
            let is_template = matches!(error.kind(), ErrorKind::Template { .. });
            prop_assert!(is_template && !error.to_string().contains("panicked"), "{}", error);
        }
    }
}

const PIECES: &[&str] = &[
    "{%",
    "%}",
    "{{",
    "}}",
    "{#",
    "#}",
    "-",
    "+",
    " for m in messages ",
    " endfor ",
    " if m.content ",
    " else ",
    " endif ",
    " generation ",
    " endgeneration ",
    " set x = ",
    "[",
    "]",
    "(",
    ")",
    "messages",
    "m.content",
    "|tojson",
    "|trim",
    "[::-1]",
    "[-1]",
    ".split('</think>')",
    "'",
    "\"",
    "\n",
    "é",
    "x",
    " ~ ",
    " in ",
    " macro x() ",
    " endmacro ",
    "x()",
    "range(99999)",
    " break ",
    "namespace(a=1)",
    "{{ messages | tojson(indent=9) }}",
    "{% for m in messages %}",
    "{% endfor %}",
    "*99999999",
];

#[test]
fn messages_and_tools_have_the_usual_json() {
    let call = ToolCall { id: None, name: "f".into(), arguments: json!({"b": 1, "a": 2}) };
    let message = Message { tool_calls: vec![call], ..Message::assistant("x") };
    let text = r#"{"role":"assistant","content":"x","tool_calls":[{"type":"function","function":{"name":"f","arguments":{"b":1,"a":2}}}]}"#;
    assert_eq!(serde_json::to_string(&message).unwrap(), text);
    assert_eq!(serde_json::from_str::<Message>(text).unwrap(), message);
    assert_eq!(serde_json::from_str::<Message>(r#"{"role":"user"}"#).unwrap(), Message::user(""));
    assert_eq!(serde_json::from_str::<Tool>(WEATHER_JSON).unwrap(), weather());
    assert!(serde_json::from_str::<Message>(r#"{"role":"sytem","content":""}"#).is_err());
}
