//! The floors of `ARCHITECTURE.md`, as a test: which module may import which.
//!
//! Reads the sources as text, because an arrow that the compiler allows is exactly what has to be found. Every path into the
//! crate counts, in expressions as well as in `use`; one through a re-export in lib.rs counts as the module that it comes from.

mod source;

use source::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Floor and rooms. The longest matching module path is a file's room; a room imports from lower floors, or from its own
/// floor without a cycle. Rooms that are not built yet have their place already.
const FLOORS: &[(u8, &[&str])] = &[
    (0, &["cancel", "error", "metrics", "row", "token"]),
    (
        1,
        &[
            "accept",
            "architecture",
            "cost",
            "draft::calibration",
            "governor",
            "growth",
            "placement",
            "placement::plan",
            "residency",
            "residency::plan",
            "tree",
        ],
    ),
    (
        2,
        &[
            "architecture::read",
            "chat",
            "draft",
            "executor",
            "gguf",
            "kv_cache",
            "prune",
            "sampling",
            "speculation",
            "stop",
            "tokenizer",
        ],
    ),
    (
        3,
        &[
            "executor::llama",
            "executor::staged",
            "kernels",
            "placement::probe",
            "residency::faulty",
            "residency::layout",
            "residency::probe",
            "residency::sidecar",
            "residency::source",
            "residency::stream",
            "residency::tests",
            "small_file",
        ],
    ),
    (4, &["decode", "session"]),
    (5, &["model"]),
];

/// The only room that may contain `unsafe`, name the C++ backend or map files.
const KERNELS: &str = "kernels";

/// What pure rules never touch: files, clocks, threads, the environment.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

#[test]
fn every_arrow_points_down() {
    let (mut faults, re_exports) = (Vec::new(), re_exports());
    let mut level: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (module, text) in sources() {
        let source = Source::read(&module, &text);
        let Some((floor, room)) = room_of(&module) else {
            faults.push(format!(
                "{module}: stands on no floor; give it one in core/tests/floors/main.rs and ARCHITECTURE.md"
            ));
            continue;
        };
        for path in &source.paths {
            let origin = path.split("::").next().and_then(|name| re_exports.get(name));
            match room_of(path).or_else(|| room_of(origin?)) {
                None => faults.push(format!("{module}: crate::{path} names no room")),
                Some((_, KERNELS)) if floor == 4 => {
                    faults.push(format!("{module}: names kernels; only floors 3 and 5 do"))
                }
                Some((to, target)) if to > floor => {
                    faults.push(format!("{module} (floor {floor}) imports {target} (floor {to})"));
                }
                Some((to, target)) if to == floor && target != room => {
                    level.entry(room).or_default().insert(target);
                }
                Some(_) => {}
            }
        }
    }
    if let Some(cycle) = cycle_in(&level) {
        faults.push(format!("rooms of one floor import each other in a circle: {}", cycle.join(" -> ")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn only_kernels_are_unsafe_or_name_the_backend() {
    for (module, text) in sources().into_iter().filter(|(module, _)| !within(module, KERNELS)) {
        let source = Source::read(&module, &text);
        for word in &source.words {
            let foreign = word == "unsafe" || word.starts_with("llama_cpp") || word.starts_with("memmap");
            assert!(!foreign, "{module}: `{word}` belongs in {KERNELS}");
        }
    }
}

#[test]
fn rules_are_pure() {
    for (module, text) in sources() {
        if !matches!(room_of(&module), Some((1, _))) {
            continue;
        }
        for path in Source::read(&module, &text).std_paths {
            assert!(!IMPURE.iter().any(|name| within(&path, name)), "{module}: a rule of floor 1 names {path}");
        }
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    // But tests in a file of their own: what they are for is the file they stand beside.
    for (module, text) in sources().into_iter().filter(|(module, _)| !module.ends_with("::tests")) {
        assert!(text.starts_with("//! "), "{module}: begins without a `//!` line");
    }
}

/// Where the names at the crate root come from: `Error` is `error::Error`.
fn re_exports() -> BTreeMap<String, String> {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let text = std::fs::read_to_string(lib).expect("a readable lib.rs");
    let paths = Source::read("", &text).paths;
    paths.into_iter().filter_map(|path| Some((path.rsplit("::").next()?.to_owned(), path))).collect()
}

/// Module path and text of every file of the crate but `lib.rs`, which is a table of contents.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let sources: Vec<_> = files
        .iter()
        .filter(|file| **file != root.join("lib.rs"))
        .map(|file| {
            let module = module_of(file.strip_prefix(&root).expect("a file under src"));
            (module, std::fs::read_to_string(file).expect("a readable source file"))
        })
        .collect();
    assert!(sources.len() > 3, "found almost no sources under {}", root.display());
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// `draft/calibration.rs` is `draft::calibration`, `draft/mod.rs` is `draft`.
fn module_of(file: &Path) -> String {
    let mut parts: Vec<_> = file.with_extension("").iter().map(|p| p.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts.join("::")
}

fn within(module: &str, room: &str) -> bool {
    module.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Floor and name of the room that a module, or an item in it, belongs to.
fn room_of(path: &str) -> Option<(u8, &'static str)> {
    let rooms = FLOORS.iter().flat_map(|(floor, rooms)| rooms.iter().map(|room| (*floor, *room)));
    rooms.filter(|(_, room)| within(path, room)).max_by_key(|(_, room)| room.len())
}

/// Some circle among the arrows, as the rooms along it.
fn cycle_in<'a>(arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    fn walk<'a>(at: &'a str, arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>, trail: &mut Vec<&'a str>) -> bool {
        let met = trail.contains(&at);
        trail.push(at);
        if met || arrows.get(at).is_some_and(|next| next.iter().any(|n| walk(n, arrows, trail))) {
            return true;
        }
        trail.pop();
        false
    }
    arrows.keys().find_map(|start| {
        let mut trail = Vec::new();
        walk(start, arrows, &mut trail).then_some(trail)
    })
}

mod the_rules_themselves {
    use super::*;

    #[test]
    fn follows_re_exports() {
        assert_eq!(re_exports().get("Error").map(String::as_str), Some("error::Error"));
        assert_eq!(re_exports().get("error"), None);
    }

    #[test]
    fn finds_the_longest_room() {
        assert_eq!(room_of("executor::staged::graph"), Some((3, "executor::staged")));
        assert_eq!(room_of("executor::Row"), Some((2, "executor")));
        assert_eq!(room_of("draft::calibration"), Some((1, "draft::calibration")));
        assert_eq!(room_of("executor_pool"), None);
        assert_eq!(room_of("Error"), None);
    }

    #[test]
    fn names_modules_after_files() {
        assert_eq!(module_of(Path::new("draft/mod.rs")), "draft");
        assert_eq!(module_of(Path::new("draft/calibration.rs")), "draft::calibration");
    }

    #[test]
    fn finds_circles() {
        let arrows = |pairs: &[(&'static str, &'static str)]| {
            let mut map: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
            for (from, to) in pairs {
                map.entry(from).or_default().insert(*to);
            }
            map
        };
        assert_eq!(cycle_in(&arrows(&[("chat", "tokenizer"), ("draft", "tokenizer"), ("draft", "chat")])), None);
        assert!(cycle_in(&arrows(&[("chat", "tokenizer"), ("tokenizer", "draft"), ("draft", "chat")])).is_some());
    }

    #[test]
    fn finds_impure_names() {
        let impure =
            |text| Source::read("cost", text).std_paths.iter().any(|path| IMPURE.iter().any(|name| within(path, name)));
        assert!(impure("use std::{collections::BTreeMap, fs};"));
        assert!(impure("fn f() { std::env::var(NAME); }"));
        assert!(impure("use std::time::{Duration, Instant};"));
        assert!(!impure("use std::time::Duration; use std::iter;"));
    }
}
