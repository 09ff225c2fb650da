//! The binary drafts: the same text in every way, a wrong way is an error that names the right ones, and the benchmark of workloads
//! prints what it promises.
#![allow(clippy::unwrap_used)]

#[path = "../../core/tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn fulcrum(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fulcrum")).args(arguments).env_remove("RUST_LOG").output().unwrap()
}

/// What it prints, if it succeeds.
fn printed(arguments: &[&str]) -> String {
    let output = fulcrum(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The models' files, or `None` after saying which test is skipped.
fn pair(test: &str) -> Option<[String; 2]> {
    let text = |path: PathBuf| path.into_os_string().into_string().unwrap();
    Some([text(common::model(test)?), text(common::draft_model(test)?)])
}

const PROMPT: &str = "Control this phone. My goal: Send a message to \"Helor Garvane\" saying \"I need a place to live.\".\nScreen: \
    Home\n + \"Notes #1\" / app\n + \"Maps #2\" / app\n + \"Messages #3\" / app\n + \"Camera #4\" / app";

#[test]
fn an_answer_is_the_same_in_every_way_of_drafting() {
    let Some([model, draft]) = pair("an_answer_is_the_same_in_every_way_of_drafting") else { return };
    let answer = |way: &str| {
        let all = [
            "generate",
            "-m",
            &model,
            "-d",
            &draft,
            "-p",
            PROMPT,
            "-n",
            "40",
            "--threads",
            "1",
            "--json",
            "--drafting",
            way,
        ];
        serde_json::from_str::<serde_json::Value>(&printed(&all)).unwrap()
    };
    let [off, auto, context, chain] = ["off", "auto", "context", "chain:4"].map(answer);
    assert!(off["text"].as_str().is_some_and(|text| text.len() > 20), "{off}");
    for (way, drafted) in [("auto", &auto), ("context", &context), ("chain:4", &chain)] {
        assert_eq!((&drafted["text"], &drafted["tokens"]), (&off["text"], &off["tokens"]), "{way}");
        assert_eq!(drafted["metrics"]["drafting"], true, "{way}");
        assert!(drafted["metrics"]["drafted"].as_u64().unwrap() > 0, "{way}: {drafted}");
    }
    assert_eq!((&off["metrics"]["drafting"], &off["metrics"]["drafted"]), (&false.into(), &0.into()));
    assert_eq!(context["metrics"]["draft_model_s"], 0.0, "the draft model was not asked");
    assert!(chain["metrics"]["accepted_by"]["model"].as_u64().unwrap() > 0, "{chain}");
    // Without --json the same text is all that is printed.
    let shown = printed(&["generate", "-m", &model, "-d", &draft, "-p", PROMPT, "-n", "40", "--drafting", "chain:4"]);
    assert_eq!(shown.strip_suffix('\n'), off["text"].as_str());
}

#[test]
fn a_way_of_drafting_that_there_is_not_is_answered_with_those_that_there_are() {
    let modes = Path::new("missing.jsonl").to_str().unwrap();
    for wrong in ["sometimes", "chain", "chain:0", "chain:64", "chain:-1", "Auto", ""] {
        let generate = ["generate", "-m", "missing.gguf", "-p", "hi", "--drafting", wrong];
        let bench = ["bench", "-m", "missing.gguf", "--workload", modes, "--modes", wrong];
        for arguments in [&generate, &bench] {
            let output = fulcrum(arguments);
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
            assert!(output.stdout.is_empty());
            let said = String::from_utf8(output.stderr).unwrap();
            for choice in ["auto", "context", "off", "chain:N", "1 to 63"] {
                assert!(said.contains(choice), "{choice} is not in: {said}");
            }
        }
    }
}

/// Runs the benchmark on one prompt of a workload, in two modes.
fn bench(model: &str, draft: &str, more: &[&str]) -> String {
    let workload = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/workloads/chat.jsonl");
    let short =
        ["--threads", "1", "--modes", "off,auto", "--limit", "1", "--rounds", "1", "-n", "8", "--workload", workload];
    printed(&[&["bench", "-m", model, "-d", draft], &short[..], more].concat())
}

#[test]
fn the_benchmark_of_a_workload_prints_a_line_per_mode() {
    let Some([model, draft]) = pair("the_benchmark_of_a_workload_prints_a_line_per_mode") else { return };
    let table = bench(&model, &draft, &[]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(table.starts_with("1 prompts, at most 8 tokens each, median of 1 rounds"), "{table}");
    let columns =
        "workload mode tok/s ×plain ×llama ×first ×total length | model draft verify proj. sample | predicted differ";
    assert_eq!(lines[1], columns.split(' ').collect::<Vec<_>>(), "{table}");
    for (line, mode) in lines[2..4].iter().zip(["off", "auto"]) {
        assert_eq!((line.len(), &line[..2]), (lines[1].len(), &["chat", mode][..]), "{table}");
        // How fast is another matter: on a busy machine eight tokens may take a thousand times as long.
        assert!(line[2..4].iter().all(|figure| figure.parse::<f64>().unwrap() >= 0.0), "{table}");
        // llama.cpp was not asked for; the texts are the same.
        assert_eq!((line[4], line.last()), ("-", Some(&"0")), "{table}");
    }
    assert_eq!(lines[2][3], "1.00", "plain decoding is as fast as itself: {table}");
    let means: Vec<&[&str]> = lines[4..].iter().map(|line| &line[..3]).collect();
    assert_eq!(means, [["geo.", "mean", "off"], ["geo.", "mean", "auto"]], "{table}");
}

#[test]
fn the_benchmark_of_a_workload_prints_json_with_all_columns() {
    let Some([model, draft]) = pair("the_benchmark_of_a_workload_prints_json_with_all_columns") else { return };
    let report: serde_json::Value = serde_json::from_str(&bench(&model, &draft, &["--json"])).unwrap();
    assert_eq!((&report["prompts"], &report["max_tokens"], &report["rounds"]), (&1.into(), &8.into(), &1.into()));
    assert_eq!((&report["model"], &report["draft"]), (&model.into(), &draft.into()));
    let rows = report["rows"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| (&row["workload"], &row["name"])).collect();
    assert_eq!(names, [(&"chat".into(), &"off".into()), (&"chat".into(), &"auto".into())]);
    let tokens = |field: &str| report[field].as_u64().unwrap();
    assert!(tokens("prefill_tokens") > 8 && tokens("decode_tokens") > 1 && tokens("decode_tokens") <= 8, "{report}");
    let figures = "prefill_tokens decode_tokens prefill_tokens_per_s decode_tokens_per_s ratio prefill_ratio ttft_ratio total_ratio accepted_length drafted accepted \
        draft_model_share draft_share verify_share project_share sample_share predicted_over_measured different";
    for row in rows {
        for figure in figures.split_whitespace() {
            assert!(row[figure].as_f64().is_some_and(|value| value >= 0.0), "{figure}: {row}");
        }
        for source in ["context", "aligned", "recycle", "reuse", "model"] {
            assert!(row["accepted_by"][source].is_u64(), "{source}: {row}");
        }
        assert!(row["decode_tokens_per_s"].as_f64() > Some(0.0) && row["different"] == 0, "{row}");
        assert!(row["ratio_llama"].is_null(), "{row}");
    }
    assert_eq!((&rows[0]["accepted_length"], &rows[0]["drafted"]), (&1.0.into(), &0.into()));
    assert_eq!(report["geometric_means"].as_array().unwrap().len(), 2);
}

#[test]
fn prices_are_kept_from_run_to_run() {
    let Some([model, draft]) = pair("prices_are_kept_from_run_to_run") else { return };
    let file = std::env::temp_dir().join(format!("fulcrum-cli-profile-{}", std::process::id()));
    let profile = file.to_str().unwrap();
    let run = |more: &[&str]| {
        let all = [
            &["generate", "-m", &model, "-p", PROMPT, "-n", "24", "--threads", "1", "--json", "--profile", profile],
            more,
        ]
        .concat();
        let output = fulcrum(&all);
        assert!(output.status.success(), "{output:?}");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (answer, String::from_utf8(output.stderr).unwrap())
    };
    let (first, _) = run(&[]);
    let (second, said) = run(&[]);
    assert!(!said.contains("profile"), "{said}");
    assert_eq!(first["tokens"], second["tokens"]);
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(kept["verify"].as_object().is_some_and(|buckets| !buckets.is_empty()), "{kept}");
    // Measured with another draft model: said, and written over.
    let (third, said) = run(&["-d", &draft]);
    assert_eq!(third["tokens"], first["tokens"]);
    assert!(said.contains("measured by another version, or with something else"), "{said}");
    let (_, said) = run(&["-d", &draft]);
    assert!(!said.contains("something else"), "{said}");
    std::fs::remove_file(&file).unwrap();
}
