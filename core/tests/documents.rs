//! README.md, ARCHITECTURE.md and docs/ speak of files that exist, and ARCHITECTURE.md of every module.

use std::path::{Path, PathBuf};

#[test]
fn paths_in_documents_exist() {
    let root = root();
    let mut checked = 0;
    for document in documents(&root) {
        let text = std::fs::read_to_string(&document).expect("a readable document");
        let folder = document.parent().unwrap_or(&root);
        for link in links(&text) {
            assert!(folder.join(link).exists(), "{}: links to {link}, which is not there", document.display());
            checked += 1;
        }
        for path in code_spans(&text).filter(|span| names_a_file(span)) {
            assert!(root.join(path).exists(), "{}: speaks of `{path}`, which is not there", document.display());
            checked += 1;
        }
    }
    assert!(checked > 10, "the reader of documents found almost nothing");
}

#[test]
fn architecture_names_every_module() {
    let root = root();
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let lib = std::fs::read_to_string(root.join("core/src/lib.rs")).expect("lib.rs");
    let modules: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert!(modules.contains(&"executor"), "found no modules in lib.rs");
    for module in modules {
        assert!(code_spans(&text).any(|span| span == module), "ARCHITECTURE.md does not say where `{module}` stands");
    }
}

#[test]
fn the_readers_find_what_they_should() {
    let text = "See [the log](CHANGELOG.md#top), [it](https://example.org) and `core/src/lib.rs`, not `a / b`.\n\
                ```sh\nscripts/none.sh `x/y.rs`\n```\n`.ci/run`";
    assert_eq!(links(text).collect::<Vec<_>>(), ["CHANGELOG.md"]);
    let named: Vec<_> = code_spans(text).filter(|span| names_a_file(span)).collect();
    assert_eq!(named, ["core/src/lib.rs", ".ci/run"]);
    assert!(names_a_file("deny.toml"));
    assert!(!names_a_file("MODEL.gguf"));
    assert!(!names_a_file("executor::staged"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn documents(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    for folder in [root.join("docs"), root.join("docs/adr")] {
        let entries = std::fs::read_dir(folder).expect("a readable folder");
        let files = entries.map(|entry| entry.expect("a readable entry").path());
        found.extend(files.filter(|file| file.extension().is_some_and(|e| e == "md")));
    }
    found
}

/// Targets of links within the repository, without fragments.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.contains("://"))
        .filter_map(|target| target.split('#').next())
        .filter(|t| !t.is_empty())
}

/// What stands between single backticks, outside code blocks.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|part| part.split('`').skip(1).step_by(2))
}

/// Whether a code span is the path of a file of ours rather than a command, a type or an example.
fn names_a_file(span: &str) -> bool {
    let plain =
        !span.contains(|c: char| c.is_whitespace() || "<>*(){}$:~\"".contains(c)) && !span.starts_with(['/', '-']);
    let known_end = [".md", ".toml", ".rs", ".sh"].iter().any(|end| span.ends_with(end));
    let example = span.starts_with(|c: char| c.is_uppercase()) && !span.ends_with(".md");
    plain && !example && (known_end || span.contains('/'))
}
