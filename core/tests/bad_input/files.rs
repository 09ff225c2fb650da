//! Files that are no models, damaged models, models that change while they are used.

use super::common::gguf_writer::{GgufWriter, Meta};
use super::common::isolated;
use super::common::quantize::WeightType;
use super::common::random_model::{Family, random_model};
use super::{EXECUTORS, File, answer, checked, gentle, sizes, small};
use fulcrum::session::{GenerationOptions, SessionOptions};
use fulcrum::{ErrorKind, ExecutorChoice, Kernels, MemoryBudget, Model, ModelOptions};

#[test]
fn what_is_no_model_is_refused_by_name() {
    let folder = std::env::temp_dir();
    let (empty, text) = (File::new(b""), File::new(b"Dear reader,\nthis is a letter.\n"));
    for executor in EXECUTORS {
        for path in [&folder.join("there is no such file.gguf"), &folder, &empty.0, &text.0] {
            let error = checked(answer(path, gentle(executor)).unwrap_err());
            assert!(matches!(error, ErrorKind::File { .. } | ErrorKind::InvalidModel { .. }), "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }
}

/// Whoever opens a pipe waits for its other end, and a device may never end.
#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_is_no_file() {
    isolated::each("files::a_pipe_or_a_device_is_no_file", 0..6, |i| {
        let (file, pipe) = (File::new(&small().write()), File::new(b""));
        std::fs::remove_file(pipe.path()).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(pipe.path()).status().unwrap().success());
        let path = [pipe.path(), "/dev/zero".as_ref(), "/dev/null".as_ref()][i / 2];
        let options = || gentle(EXECUTORS[i % 2]);
        for answered in [
            answer(path, options()),
            answer(file.path(), ModelOptions { draft_model: Some(path.to_owned()), ..options() }),
            answer(file.path(), ModelOptions { tokenizer: Some(path.to_owned()), ..options() }),
        ] {
            assert!(checked(answered.unwrap_err()).to_string().contains(path.to_str().unwrap()));
        }
        let session = Model::load(file.path(), options()).unwrap().session(SessionOptions::default()).unwrap();
        assert!(matches!(checked(session.load_drafts(path).unwrap_err()), ErrorKind::File { .. }));
    });
}

#[test]
fn a_file_with_an_odd_name_is_a_file() {
    let folder = std::env::temp_dir().join(format!("fulcrum bäd {}\n", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("mødel \"1\" 🦀.gguf");
    std::fs::write(&path, small().write()).unwrap();
    for executor in EXECUTORS {
        answer(&path, gentle(executor)).unwrap();
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(Model::load("a\0b", gentle(EXECUTORS[0])).is_err());
}

#[test]
fn a_file_cut_anywhere_is_invalid() {
    isolated::each("files::a_file_cut_anywhere_is_invalid", 0..100, |percent| {
        let whole = small().write();
        let file = File::new(&whole[..whole.len() * percent / 100]);
        for executor in EXECUTORS {
            let error = checked(answer(file.path(), gentle(executor)).unwrap_err());
            assert!(matches!(error, ErrorKind::InvalidModel { .. }), "{error}");
        }
    });
}

/// A flipped bit may go unnoticed (in a name, in a token); it must not end the process.
#[test]
fn flipped_bits_in_the_header_are_survived() {
    isolated::each("files::flipped_bits_in_the_header_are_survived", 0..300, |seed| {
        let mut bytes = small().write();
        let header = bytes.len() - small().tensors.iter().map(|t| t.data.len().next_multiple_of(32)).sum::<usize>();
        // The vocabulary is most of the header; half of the flips are in what is around it.
        let vocabulary = bytes.windows(21).position(|w| w == b"tokenizer.ggml.tokens").unwrap();
        let table = bytes.windows(17).rposition(|w| w == b"token_embd.weight").unwrap();
        let mut state = seed as u64;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..=seed % 3 {
            let at = match draw(4) {
                0 => draw(vocabulary),
                1 => table + draw(header - table),
                _ => draw(header),
            };
            bytes[at] ^= 1 << draw(8);
        }
        survives(&bytes);
    });
}

/// Each of these is wrong in one way.
#[test]
fn a_vocabulary_with_a_part_wrong_or_missing_is_survived() {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let mut models: Vec<GgufWriter> = Vec::new();
    let mut with = |change: &dyn Fn(&mut GgufWriter)| {
        let mut model = small();
        change(&mut model);
        models.push(model);
    };
    for name in ["model", "pre", "tokens", "token_type", "merges", "bos_token_id", "eos_token_id", "add_bos_token"] {
        with(&|m| _ = m.remove(&key(name)));
        with(&|m| _ = m.set(&key(name), "nonsense"));
        with(&|m| _ = m.set(&key(name), 77_777_u32));
        with(&|m| _ = m.set(&key(name), vec![1_i32, 2, 3]));
        with(&|m| _ = m.set(&key(name), Meta::Array(8, Vec::new())));
        with(&|m| _ = m.set(&key(name), vec!["a", "b"]));
        with(&|m| _ = m.set(&key(name), vec![1.0_f32]));
    }
    for kind in ["llama", "bert", "t5", "rwkv", "plamo2", "no_vocab", "none", ""] {
        with(&|m| _ = m.set(&key("model"), kind));
    }
    with(&|m| _ = m.set(&key("add_bos_token"), true).remove(&key("bos_token_id")));
    with(&|m| _ = m.set(&key("merges"), vec!["", " ", "a", "a b c", "\u{0}"]));
    with(&|m| _ = m.set(&key("tokens"), vec![""; 320]));
    with(&|m| _ = m.set(&key("tokens"), (0..321).map(|i| format!("t{i}")).collect::<Vec<_>>()));
    with(&|m| _ = m.set(&key("tokens"), (0..319).map(|i| format!("t{i}")).collect::<Vec<_>>()));
    with(&|m| _ = m.set("tokenizer.chat_template", "{% for %}"));
    with(&|m| _ = m.set("tokenizer.chat_template", "{% for x in range(1000000000) %}{{ x }}{% endfor %}"));
    with(&|m| _ = m.set("tokenizer.chat_template", 7_u32));
    isolated::each("files::a_vocabulary_with_a_part_wrong_or_missing_is_survived", 0..models.len(), |i| {
        survives(&models[i].write());
    });
}

/// Metadata that is no count, or an absurd one, or does not fit the tensors.
#[test]
fn absurd_hyperparameters_are_survived() {
    let keys: Vec<String> =
        small().metadata.iter().map(|(key, _)| key.clone()).filter(|k| k.starts_with("llama.")).collect();
    let extra =
        ["rope.scaling.factor", "rope.scaling.original_context_length", "attention.sliding_window", "expert_count"];
    let keys: Vec<String> = keys.into_iter().chain(extra.map(|name| format!("llama.{name}"))).collect();
    let values: [Meta; 9] = [
        0_u32.into(),
        1_u32.into(),
        3_u32.into(),
        u32::MAX.into(),
        0.0_f32.into(),
        f32::NAN.into(),
        f32::MIN_POSITIVE.into(),
        (-1.0_f32).into(),
        f32::MAX.into(),
    ];
    isolated::each("files::absurd_hyperparameters_are_survived", 0..keys.len() * values.len(), |i| {
        let mut model = small();
        model.set(&keys[i / values.len()], values[i % values.len()].clone());
        survives(&model.write());
    });
}

/// Weights that are no numbers give logits that are none.
#[test]
fn weights_that_are_no_numbers_are_survived() {
    let types =
        [WeightType::F32, WeightType::F16, WeightType::Q8_0, WeightType::Q4_0, WeightType::Q4_K, WeightType::Q6_K];
    let fills = [0xff_u8, 0x7c, 0x00];
    isolated::each("files::weights_that_are_no_numbers_are_survived", 0..types.len() * fills.len(), |i| {
        let family = if i % 2 == 0 { Family::Llama } else { Family::Gemma3 };
        let wide = super::Sizes { n_embd: 256, n_ff: 256, head_dim: 64, ..sizes(family) };
        let mut model = random_model(family, &wide.weights(types[i / fills.len()]));
        for tensor in &mut model.tensors {
            tensor.data.fill(fills[i % fills.len()]);
        }
        survives(&model.write());
    });
}

/// With our kernels one broken matrix is an error where tokens are chosen, and not an answer that means nothing. (llama.cpp's swallow it in
/// K-quants.)
#[test]
fn one_broken_matrix_is_an_error() {
    for weights in [WeightType::Q8_0, WeightType::Q4_0, WeightType::Q4_K, WeightType::Q6_K] {
        for name in ["blk.0.ffn_down.weight", "blk.1.attn_v.weight", "blk.1.ffn_up.weight"] {
            let wide = super::Sizes { n_embd: 256, n_ff: 256, head_dim: 64, ..sizes(Family::Llama) };
            let mut model = random_model(Family::Llama, &wide.weights(weights));
            let broken = model.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap();
            broken.data.fill(0xff);
            let path =
                std::env::temp_dir().join(format!("fulcrum-broken-{}-{weights:?}-{name}.gguf", std::process::id()));
            std::fs::write(&path, model.write()).unwrap();
            let error = answer(&path, gentle(ExecutorChoice::Staged)).map(|answer| answer.text).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Backend { operation: "sampling", .. }),
                "{weights:?} {name}: {error}"
            );
            std::fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn any_part_of_a_split_model_stands_for_all() {
    let folder = std::env::temp_dir().join(format!("fulcrum-split-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let paths: Vec<_> = (1..=3).map(|i| folder.join(format!("m-0000{i}-of-00003.gguf"))).collect();
    for (path, bytes) in paths.iter().zip(small().write_split(3)) {
        std::fs::write(path, bytes).unwrap();
    }
    for executor in EXECUTORS {
        let texts: Vec<String> = paths.iter().map(|path| answer(path, gentle(executor)).unwrap().text).collect();
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    }
    std::fs::remove_file(&paths[1]).unwrap();
    for executor in EXECUTORS {
        let error = checked(answer(&paths[0], gentle(executor)).unwrap_err()).to_string();
        assert!(error.contains("m-00002-of-00003.gguf"), "{error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// The file may go, or another may take its name; what was loaded stays.
#[test]
fn a_file_removed_or_replaced_after_loading_changes_nothing() {
    isolated::each("files::a_file_removed_or_replaced_after_loading_changes_nothing", 0..4, |i| {
        let file = File::new(&small().write());
        let options = GenerationOptions { max_tokens: Some(16), ..GenerationOptions::default() };
        let model = Model::load(file.path(), gentle(EXECUTORS[i % 2])).unwrap();
        let before = model.session(SessionOptions::default()).unwrap().respond_with("hi", &options).unwrap();
        if i < 2 {
            std::fs::remove_file(file.path()).unwrap();
        } else {
            let other = File::new(b"another file");
            std::fs::rename(other.path(), file.path()).unwrap();
        }
        let after = model.session(SessionOptions::default()).unwrap().respond_with("hi", &options).unwrap();
        assert_eq!(before.text, after.text);
    });
}

/// Cut or written over: an error of every turn from then on, and no signal. What was said before stays.
#[test]
fn a_file_changed_while_it_is_in_use_is_an_error() {
    isolated::each("files::a_file_changed_while_it_is_in_use_is_an_error", 0..6, |i| {
        let file = File::new(&small().write());
        let model = Model::load(file.path(), gentle(EXECUTORS[i % 2])).unwrap();
        let session = model.session(SessionOptions::default()).unwrap();
        let short = GenerationOptions { max_tokens: Some(4), ..GenerationOptions::default() };
        session.respond_with("hello", &short).unwrap();
        let history = session.history();
        let handle = std::fs::OpenOptions::new().write(true).open(file.path()).unwrap();
        let len = handle.metadata().unwrap().len();
        match i / 2 {
            0 => handle.set_len(0).unwrap(),
            1 => handle.set_len(len / 2).unwrap(),
            _ => std::fs::write(file.path(), vec![7; len as usize]).unwrap(),
        }
        for session in [&session, &model.session(SessionOptions::default()).unwrap(), &session] {
            let error = checked(session.respond_with("hello", &short).unwrap_err());
            assert!(matches!(&error, ErrorKind::File { path, .. } if path == file.path()), "{error}");
        }
        assert_eq!(session.history(), history);
    });
}

/// A header is read a piece at a time; what only claims to be one is refused before memory is taken for it.
#[test]
fn a_long_header_is_read_and_an_endless_one_refused() {
    let file = File::new(&small().set("long", "x".repeat(5 << 20)).write());
    answer(file.path(), gentle(ExecutorChoice::Staged)).unwrap();
    let mut claims = small().set("long", "x").write();
    let at = claims.windows(4).position(|bytes| bytes == b"long").unwrap() + 8;
    claims[at..at + 8].copy_from_slice(&(1_u64 << 30).to_le_bytes());
    let file = File::new(&claims);
    std::fs::OpenOptions::new().write(true).open(file.path()).unwrap().set_len(2 << 30).unwrap();
    let error = checked(answer(file.path(), gentle(ExecutorChoice::Staged)).unwrap_err()).to_string();
    assert!(error.contains("header") && error.contains("1073"), "{error}");
}

/// The first tensors are in memory when it is cut: the next one is an error, and no signal. So is a turn, where all had been read.
#[test]
fn a_file_cut_while_it_is_loaded_is_an_error() {
    // Packed for our kernels, in a layout of ggml's, and as it is in the file.
    let forms =
        [(WeightType::Q8_0, Kernels::Auto), (WeightType::Q4_0, Kernels::Ggml), (WeightType::F32, Kernels::Auto)];
    isolated::each("files::a_file_cut_while_it_is_loaded_is_an_error", 0..forms.len() * 6, |i| {
        let (weights, kernels) = forms[i / 6];
        let wide = super::Sizes { n_embd: 256, n_ff: 256, head_dim: 64, ..sizes(Family::Llama) };
        let whole = random_model(Family::Llama, &wide.weights(weights)).write();
        let (file, cut) = (File::new(&whole), [0, 8192, whole.len() * 3 / 4][i % 3] as u64);
        let budget = if i % 6 < 3 { MemoryBudget::Unlimited } else { MemoryBudget::Bytes(1 << 30) };
        let path = file.path().to_owned();
        let progress = move |_| std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
        let options = ModelOptions {
            kernels,
            memory_budget: budget,
            progress: Some(std::sync::Arc::new(progress)),
            ..gentle(ExecutorChoice::Staged)
        };
        let error = checked(answer(file.path(), options).unwrap_err());
        assert!(matches!(&error, ErrorKind::File { path, .. } if path == file.path()), "{error}");
    });
}

fn survives(bytes: &[u8]) {
    let file = File::new(bytes);
    for executor in EXECUTORS {
        let _ = answer(file.path(), gentle(executor)).map_err(checked);
    }
}
