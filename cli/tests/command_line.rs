//! The binary as a shell sees it: exit codes, one line of error, what goes to which stream.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Runs `fulcrum` with nothing on standard input.
fn fulcrum(arguments: &[&str]) -> Output {
    piped(arguments, b"")
}

/// Runs `fulcrum` with `input` on standard input.
fn piped(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fulcrum"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // A program that fails early does not read its input; that is its right.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("the binary ends")
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

/// The message of a failure at run time: one line, on standard error, and nothing on standard output.
fn error_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(code(output), 1, "{text}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    assert_eq!(text.lines().last(), Some(errors[0]), "{text}");
    errors[0].to_owned()
}

/// A file of `bytes` in a folder of this test's own.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("command_line");
    std::fs::create_dir_all(&folder).expect("a folder for test files");
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("a test file");
    path
}

/// The four commands with what each needs besides a model.
const COMMANDS: [&[&str]; 4] = [&["chat"], &["generate", "-p", "hi"], &["inspect"], &["bench"]];

#[test]
fn help_and_version_are_no_failure() {
    for arguments in [&["--help"][..], &["--version"], &["chat", "--help"], &["generate", "-h"], &["help", "bench"]] {
        let output = fulcrum(arguments);
        assert_eq!(code(&output), 0, "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    let wrong: [&[&str]; 16] = [
        &[],
        &["sing"],
        &["chat"],
        &["generate", "-m"],
        &["generate", "-m", "x.gguf", "-p", "hi", "-f", "hi.txt"],
        &["generate", "-m", "x.gguf", "-p", "hi", "--executor", "gpu"],
        &["generate", "-m", "x.gguf", "-p", "hi", "--temp", "-1"],
        &["generate", "-m", "x.gguf", "-p", "hi", "--temp", "warm"],
        &["generate", "-m", "x.gguf", "-p", "hi", "--top-p", "1.5"],
        &["generate", "-m", "x.gguf", "-p", "hi", "-n", "0"],
        &["generate", "-m", "x.gguf", "-p", "hi", "--ctx", "0"],
        &["generate", "-m", "x.gguf", "-p", "hi", "--threads", "many"],
        &["generate", "-m", "x.gguf", "-p", "hi", "--stop", ""],
        &["generate", "-m", "x.gguf", "-p", "hi", "--raw", "--system", "be brief"],
        &["inspect", "-m", "x.gguf", "y.gguf"],
        &["plan", "x.gguf"],
    ];
    for arguments in wrong {
        let output = fulcrum(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn every_option_of_generate_is_understood() {
    let all = "generate -m missing.gguf -p hi -n 8 --temp 0.7 --top-k 40 --top-p 0.9 --min-p 0.05 --seed 1 --stop x --stop y \
               --ctx 512 --threads 2 --executor llama.cpp --raw --json";
    let output = fulcrum(&all.split_whitespace().collect::<Vec<_>>());
    assert!(error_line(&output).contains("missing.gguf"));
    let staged = ["generate", "-m", "missing.gguf", "-p", "hi", "--executor", "staged"];
    assert!(error_line(&fulcrum(&staged)).contains("missing.gguf"));
}

#[test]
fn a_file_that_is_no_model_is_one_line_and_exit_code_1() {
    let files = [
        PathBuf::from("missing.gguf"),
        PathBuf::from(env!("CARGO_MANIFEST_DIR")),
        file("empty.gguf", b""),
        file("text.gguf", b"Dear reader,\nthis is a letter and not a model.\n"),
        file("magic.gguf", b"GGUF"),
        file("version1.gguf", b"GGUF\x01\0\0\0\0\0\0\0\0\0\0\0"),
        file("absurd.gguf", b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x7f"),
    ];
    for path in &files {
        let path = path.to_str().expect("UTF-8");
        for command in COMMANDS {
            for named in [&["-m", path][..], &[path]] {
                let line = error_line(&fulcrum(&[command, named].concat()));
                assert!(line.contains(path), "{command:?} {line}");
            }
        }
    }
}

#[test]
fn a_prompt_that_cannot_be_read_is_said_before_anything_is_loaded() {
    let line = error_line(&fulcrum(&["generate", "-m", "missing.gguf", "-f", "missing.txt"]));
    assert!(line.contains("missing.txt"), "{line}");
    let binary = file("binary.txt", b"\xff\xfe\0");
    let line = error_line(&fulcrum(&["generate", "-m", "missing.gguf", "-f", binary.to_str().expect("UTF-8")]));
    assert!(line.contains("binary.txt"), "{line}");
    let line = error_line(&piped(&["generate", "-m", "missing.gguf"], b"\xff\xfe"));
    assert!(line.contains("standard input"), "{line}");
}

#[test]
fn a_chat_calls_tools_and_takes_their_results() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/caller.gguf");
    let tools = r#"[{"type": "function", "function": {"name": "weather", "description": "Tells the weather", "parameters": {}}}]"#;
    let tools = file("tools.json", tools.as_bytes());
    let arguments = ["chat", model, "--tools", tools.to_str().expect("UTF-8")];
    let output = piped(&arguments, b"Is it warm?\n/result 21 degrees\n");
    assert_eq!(code(&output), 0, "{output:?}");
    let said = "Let me look.\n\
                {\"id\":\"call00001\",\"type\":\"function\",\"function\":{\"name\":\"weather\",\"arguments\":{\"city\":\"Zürich\"}}}\n\
                It is warm in Zürich.\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), said);

    let unsound = file("no-tools.json", b"{}");
    let error = error_line(&piped(&["chat", model, "--tools", unsound.to_str().expect("UTF-8")], b""));
    assert!(error.contains("no-tools.json") && error.contains("expected a sequence"), "{error}");
    let error = error_line(&piped(&["chat", model, "--tools", "/nowhere.json"], b""));
    assert!(error.contains("cannot read /nowhere.json"), "{error}");
}
