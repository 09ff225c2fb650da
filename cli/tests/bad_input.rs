//! The binary with bad models, bad options and bad prompts: one line, the right exit code, never a signal.
#![allow(clippy::unwrap_used)]

#[path = "../../core/tests/common/mod.rs"]
mod common;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use common::quantize::WeightType;
use common::random_model::{Family, ModelOptions, random_model};

const EXECUTORS: [&str; 2] = ["staged", "llama.cpp"];

/// A file of `bytes` in a folder of this test's own.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bad_input");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn small() -> Vec<u8> {
    let sizes = ModelOptions { n_layers: 2, n_embd: 64, n_head: 4, n_ff: 128, ..ModelOptions::new(Family::Llama) };
    random_model(Family::Llama, &sizes.weights(WeightType::Q8_0)).write()
}

fn fulcrum(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fulcrum"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that fails early does not read its input; that is its right.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

/// The one line of a failure at run time.
fn error_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(code(output), 1, "{text}");
    let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!((errors.len(), text.lines().last()), (1, errors.first().copied()), "{text}");
    errors[0].to_owned()
}

#[test]
fn a_truncated_model_is_one_line_from_every_command() {
    let whole = small();
    for percent in (1..100).step_by(7) {
        let path = file("truncated.gguf", &whole[..whole.len() * percent / 100]);
        let path = path.to_str().unwrap();
        for command in [&["inspect"][..], &["chat"], &["generate", "-p", "hi"], &["generate", "-p", "hi", "--json"]] {
            let output = fulcrum(&[command, &["-m", path]].concat(), b"hello\n");
            assert!(error_line(&output).contains(path), "{percent} % {command:?}");
            assert!(output.stdout.is_empty(), "{percent} % {command:?}");
        }
    }
}

/// A model of an architecture that llama.cpp knows and nothing here checks.
fn unchecked() -> Vec<u8> {
    let sizes = ModelOptions { n_layers: 2, n_embd: 64, n_head: 4, n_ff: 128, ..ModelOptions::new(Family::Llama) };
    let mut model = random_model(Family::Llama, &sizes.weights(WeightType::Q8_0));
    for (key, _) in &mut model.metadata {
        *key = key.replace("llama.", "mistral3.");
    }
    model.set("general.architecture", "mistral3").write()
}

#[test]
fn an_architecture_that_nothing_checks_is_loaded_on_request_by_every_command() {
    let path = file("unchecked.gguf", &unchecked());
    let path = path.to_str().unwrap();
    let short = ["--threads", "1"];
    for command in [
        &["chat", "-m", path, "-n", "4", "--ctx", "128"][..],
        &["generate", "-m", path, "-p", "hi", "-n", "4", "--ctx", "128"],
        &["bench", "-m", path, "--prefill", "4", "--decode", "2", "--rounds", "1"],
    ] {
        let refused = error_line(&fulcrum(&[command, &short].concat(), b"hello\n"));
        assert!(refused.contains("`mistral3`") && refused.contains("--unchecked-architecture"), "{refused}");
        let loaded = fulcrum(&[command, &short, &["--unchecked-architecture"]].concat(), b"hello\n");
        assert_eq!(code(&loaded), 0, "{command:?} {loaded:?}");
    }
    let inspected = fulcrum(&["inspect", "-m", path], b"");
    assert_eq!(code(&inspected), 0);
    let text = String::from_utf8_lossy(&inspected.stdout).into_owned();
    assert!(text.contains("none: ") && text.contains("--unchecked-architecture"), "{text}");
    let plan = ["plan", path, "--memory-budget", "100M"];
    assert!(error_line(&fulcrum(&plan, b"")).contains("--unchecked-architecture"));
    assert!(error_line(&fulcrum(&[&plan[..], &["--unchecked-architecture"]].concat(), b"")).contains("memory_budget"));
}

#[test]
fn options_out_of_range_are_one_line() {
    let path = file("sound.gguf", &small());
    let path = path.to_str().unwrap();
    for executor in EXECUTORS {
        for (option, value, said) in [
            ("--ctx", "18446744073709551615", "context_length"),
            ("--ctx", "2147483648", "context_length"),
            ("--ctx", "2147483000", "memory"),
            ("--threads", "100000", "threads"),
        ] {
            let output = fulcrum(&["generate", "-m", path, "-p", "hi", "--executor", executor, option, value], b"");
            assert!(error_line(&output).contains(said), "{executor} {option} {value}: {}", error_line(&output));
        }
        for wrong in
            [["--threads", "0"], ["--temp", "NaN"], ["--top-p", "NaN"], ["--temp", "-1"], ["-n", "0"], ["--stop", ""]]
        {
            let all = [&["generate", "-m", path, "-p", "hi", "--executor", executor][..], &wrong].concat();
            assert_eq!(code(&fulcrum(&all, b"")), 2, "{wrong:?}");
        }
    }
}

#[test]
fn a_benchmark_of_too_many_tokens_is_one_line() {
    let path = file("bench.gguf", &small());
    let endless = ["--prefill", "18446744073709551615", "--decode", "65", "--rounds", "1"];
    let line = error_line(&fulcrum(&[&["bench", "-m", path.to_str().unwrap()], &endless[..]].concat(), b""));
    assert!(line.contains("context_length"), "{line}");
}

#[test]
fn prompts_of_every_kind_are_answered_or_refused() {
    let path = file("prompts.gguf", &small());
    let path = path.to_str().unwrap();
    for executor in EXECUTORS {
        for raw in [&["--raw"][..], &[]] {
            let all =
                [&["generate", "-m", path, "-n", "4", "--ctx", "256", "--threads", "1", "--executor", executor], raw]
                    .concat();
            for prompt in ["\0", "a\0b\n", "🦀🧑‍🚀", "<|im_start|><|im_end|>", "\n\n"] {
                let output = fulcrum(&all, prompt.as_bytes());
                assert_eq!(code(&output), 0, "{prompt:?} {output:?}");
            }
            let long = error_line(&fulcrum(&all, "hello the ".repeat(100_000).as_bytes()));
            assert!(long.contains("context is full"), "{long}");
        }
        let empty = fulcrum(&["generate", "-m", path, "-p", "", "--raw", "--ctx", "64", "--executor", executor], b"");
        assert!(error_line(&empty).contains("prompt"));
    }
}

#[cfg(unix)]
#[test]
fn a_prompt_that_does_not_end_is_one_line() {
    let path = file("endless.gguf", &small());
    let path = path.to_str().unwrap();
    let read = error_line(&fulcrum(&["generate", "-m", path, "-f", "/dev/zero"], b""));
    assert!(read.contains("/dev/zero") && read.contains("longer than"), "{read}");
    assert!(error_line(&fulcrum(&["inspect", "/dev/zero"], b"")).contains("not a regular file"));
}

/// A chat goes on after a message that cannot be answered.
#[test]
fn a_chat_survives_a_message_that_is_too_long() {
    let path = file("chat.gguf", &small());
    let lines = format!("{}\n\0\n🦀\n/quit\n", "hello the ".repeat(10_000));
    for executor in EXECUTORS {
        let arguments =
            ["chat", "-m", path.to_str().unwrap(), "--ctx", "256", "-n", "4", "--threads", "1", "--executor", executor];
        let output = fulcrum(&arguments, lines.as_bytes());
        assert!([0, 1].contains(&code(&output)), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("context is full"), "{output:?}");
    }
}
