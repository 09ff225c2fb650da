//! The staged executor against llama.cpp: same file, same tokens, same batch shapes, same logits.
//!
//! Shapes have to match because llama.cpp's own logits of a position depend on the rows beside it (by 5.7e-3 between one-by-one
//! and batched evaluation in F32).
#![cfg(feature = "ggml")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;
#[path = "common/oracle.rs"]
mod oracle;

use std::path::{Path, PathBuf};

use common::quantize::WeightType;
use common::random_model::{self, Family, random_model};
use fulcrum::executor::{Executor, Row};
use fulcrum::model::ExecutorChoice;
use fulcrum::{Cancel, Kernels, KvType, Model, ModelOptions, Token};
use oracle::Oracle;

const N_CELLS: usize = 512;

/// Largest difference, as a share of the row's largest logit. The kernels are ggml's on both sides and the shapes match, so
/// even quantised types differ only where an operation is ordered differently.
const TOLERANCE: f32 = 1e-3;

/// A model file in a folder of its own, removed with it.
struct File(PathBuf);

impl File {
    fn write(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("fulcrum-parity-{}-{name}.gguf", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

struct Pair {
    staged: Box<dyn Executor>,
    llama: Oracle,
    name: String,
}

impl Pair {
    fn load(path: &Path, name: String, kernels: Kernels, kv_type: KvType) -> Self {
        let options = ModelOptions {
            executor: ExecutorChoice::Staged,
            threads: Some(1),
            kernels,
            kv_type,
            ..ModelOptions::default()
        };
        let model = Model::load(path, options).unwrap_or_else(|e| panic!("{name}: {e}"));
        let staged = model.weights().executor(N_CELLS).unwrap();
        Self { staged, llama: Oracle::load(path, N_CELLS, kv_type), name }
    }

    /// Runs `tokens` as one batch through both and compares the logits of every row.
    fn batch(&mut self, tokens: &[Token], what: &str, tolerance: f32) {
        let ours = pass(&mut *self.staged, tokens);
        commit(&mut *self.staged, tokens.len());
        let theirs = self.llama.decode(tokens);
        let n_vocab = self.llama.n_vocab();
        for (row, (a, b)) in ours.chunks(n_vocab).zip(theirs.chunks(n_vocab)).enumerate() {
            let largest = b.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
            let difference = a.iter().zip(b).fold(0.0_f32, |m, (x, y)| m.max((x - y).abs()));
            assert!(
                difference <= tolerance * largest,
                "{}, {what}, row {row}: differs by {difference} of {largest}",
                self.name
            );
            assert!(largest > 0.1, "{}, {what}, row {row}: the logits are all near 0", self.name);
        }
    }

    fn truncate(&mut self, len: usize) {
        self.staged.truncate(len).unwrap();
        self.llama.truncate(len);
    }
}

/// Logits of all rows of a chain; the pass is left to be settled.
fn pass(executor: &mut dyn Executor, tokens: &[Token]) -> Vec<f32> {
    let row = |(i, &token): (usize, &Token)| Row { token, parent: (i as u32).checked_sub(1), wants_logits: true };
    let rows: Vec<Row> = tokens.iter().enumerate().map(row).collect();
    let n_layers = executor.shape().n_layers;
    executor.begin(&rows).unwrap();
    executor.run(n_layers, &Cancel::new()).unwrap();
    let mut logits = vec![0.0; tokens.len() * executor.shape().n_vocab];
    let all: Vec<u32> = (0..tokens.len() as u32).collect();
    executor.project(&all, &mut logits).unwrap();
    logits
}

fn commit(executor: &mut dyn Executor, n: usize) {
    let path: Vec<u32> = (0..n as u32).collect();
    executor.commit(&path).unwrap();
}

/// Tokens that repeat too rarely for the model to settle.
fn tokens(n: usize, n_vocab: usize) -> Vec<Token> {
    (0..n).map(|i| ((i * 37 + i * i * 11 + 5) % n_vocab) as Token).collect()
}

/// One batch, chunks, token by token, after a rollback, after a truncation.
fn compare(pair: &mut Pair, tolerance: f32) {
    let tokens = tokens(120, pair.llama.n_vocab());
    pair.batch(&tokens[..40], "one batch", tolerance);
    for chunk in [40..47, 47..64, 64..65, 65..72] {
        pair.batch(&tokens[chunk], "chunks", tolerance);
    }
    for i in 72..84 {
        pair.batch(&tokens[i..=i], "token by token", tolerance);
    }
    pass(&mut *pair.staged, &tokens[100..108]);
    pair.staged.rollback();
    pair.batch(&tokens[84..90], "after a rollback", tolerance);
    pair.truncate(50);
    pair.batch(&tokens[90..120], "after a truncation", tolerance);
}

fn check_family(family: Family) {
    for weights in WeightType::ALL {
        for tied in [false, true] {
            let name = format!("{family:?}-{weights:?}{}", if tied { "-tied" } else { "" });
            let options = random_model::ModelOptions::new(family).weights(weights).tied(tied);
            let file = File::write(&name, &random_model(family, &options).write());
            compare(&mut Pair::load(&file.0, name, Kernels::Ggml, KvType::F16), TOLERANCE);
        }
    }
}

macro_rules! families {
    ($($test:ident: $family:ident,)*) => {
        $(#[test]
        fn $test() {
            check_family(Family::$family);
        })*

        #[test]
        fn every_family_has_a_test() {
            assert_eq!(Family::ALL, [$(Family::$family),*]);
        }
    };
}

families! {
    llama: Llama,
    llama_3: Llama3,
    mistral: Mistral,
    qwen2: Qwen2,
    qwen3: Qwen3,
    gemma2: Gemma2,
    gemma3: Gemma3,
    phi3: Phi3,
    phi3_longrope: Phi3Longrope,
}

/// llama.cpp rotates K and V before it quantises them to 8 bits and we do not, so both are near the same exact values and not
/// equal: each errs by about 1/254 of a block's largest element per cached number.
#[test]
fn a_q8_0_cache_stays_near_llama_cpps() {
    for family in [Family::Llama, Family::Gemma3] {
        let options = random_model::ModelOptions::new(family);
        let name = format!("{family:?}-q8_0-cache");
        let file = File::write(&name, &random_model(family, &options).write());
        compare(&mut Pair::load(&file.0, name, Kernels::Ggml, KvType::Q8_0), 5e-2);
    }
}

/// Where the weights are not quantised, only attention is ours: ggml rounds queries to 16 bits before it multiplies them with keys,
/// ours stay at 32.
#[test]
fn our_attention_stays_near_llama_cpps() {
    for family in Family::ALL {
        for weights in [WeightType::F32, WeightType::F16] {
            let name = format!("{family:?}-{weights:?}-own");
            let options = random_model::ModelOptions::new(family).weights(weights);
            let file = File::write(&name, &random_model(family, &options).write());
            compare(&mut Pair::load(&file.0, name, Kernels::Auto, KvType::F16), 5e-3);
        }
    }
}

/// Products with quantised weights round activations to 8 bits, in our kernels and in ggml's, and the two round some of them
/// differently; random weights have no margin to hide that in. What can be asked is that ours are as near as ggml's to the exact
/// logits: those of the same weights as floats, which need no rounding.
#[test]
fn our_products_are_as_exact_as_llama_cpps() {
    for family in Family::ALL {
        for weights in [WeightType::Q8_0, WeightType::Q4_0, WeightType::Q4_K, WeightType::Q6_K] {
            let name = format!("{family:?}-{weights:?}-exact");
            let mut model = random_model(family, &random_model::ModelOptions::new(family).weights(weights));
            let file = File::write(&name, &model.write());
            model.tensors.iter_mut().for_each(to_floats);
            let floats = File::write(&format!("{name}-floats"), &model.write());
            let mut pair = Pair::load(&file.0, name.clone(), Kernels::Auto, KvType::F16);
            let tokens = tokens(64, pair.llama.n_vocab());
            let ours = pass(&mut *pair.staged, &tokens);
            let theirs = pair.llama.decode(&tokens);
            let exact = Oracle::load(&floats.0, N_CELLS, KvType::F16).decode(&tokens);
            let (ours, theirs) = (distance(&ours, &exact), distance(&theirs, &exact));
            assert!(ours <= 1.1 * theirs, "{name}: ours err by {ours}, llama.cpp's by {theirs} of the logits' size");
            assert!(theirs < 0.1, "{name}: the reference is another model");
        }
    }
}

/// Root of the mean squared difference, as a share of the root mean square of `exact`.
fn distance(logits: &[f32], exact: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = logits.iter().zip(exact).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    (difference / exact.iter().map(|&b| square(b.into())).sum::<f64>()).sqrt()
}

/// The same numbers as F32, by ggml's own conversion.
#[allow(unsafe_code)]
fn to_floats(tensor: &mut common::gguf_writer::Tensor) {
    let n: usize = tensor.dims.iter().product::<u64>() as usize;
    if tensor.ty == 0 {
        return;
    }
    let mut floats = vec![0.0_f32; n];
    // SAFETY: the type is one of ggml's, the data are whole blocks of it, and the result has a place for every number.
    unsafe {
        let convert = (*llama_cpp_sys_2::ggml_get_type_traits(tensor.ty)).to_float.unwrap();
        convert(tensor.data.as_ptr().cast(), floats.as_mut_ptr(), n as i64);
    }
    tensor.ty = 0;
    tensor.data = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
}

/// Batch invariance of the whole pass: the bits of a row's logits are those of decoding its path token by token, whatever rows
/// stand beside it, as a branch of a tree or in a chunk.
#[test]
fn our_kernels_give_a_row_the_same_bits_in_any_company() {
    for family in Family::ALL {
        for weights in [WeightType::Q8_0, WeightType::Q4_0, WeightType::Q4_K, WeightType::Q6_K] {
            let name = format!("{family:?}-{weights:?}-company");
            let options = random_model::ModelOptions::new(family).weights(weights);
            let file = File::write(&name, &random_model(family, &options).write());
            // Two threads spin at each other's barriers where tests share the cores: one family is enough for them.
            let threads = Some(if family == Family::Llama { 2 } else { 1 });
            let options = ModelOptions { executor: ExecutorChoice::Staged, threads, ..ModelOptions::default() };
            let model = Model::load(&file.0, options).unwrap();
            let mut executor = model.weights().executor(N_CELLS).unwrap();
            let n_vocab = executor.shape().n_vocab;
            let tokens = tokens(100, n_vocab);
            let mut alone = Vec::new();
            for token in &tokens {
                alone.extend(pass(&mut *executor, &[*token]));
                commit(&mut *executor, 1);
            }
            for n in [2, 3, 5, 7, 16, 33, 100] {
                executor.truncate(0).unwrap();
                for (i, chunk) in tokens.chunks(n).enumerate() {
                    let together = pass(&mut *executor, chunk);
                    commit(&mut *executor, chunk.len());
                    let expected = &alone[i * n * n_vocab..][..together.len()];
                    assert!(together == expected, "{name}: rows of chunks of {n}");
                }
            }
        }
    }
}

/// A branch of a tree sees its ancestors and not its siblings: its logits are those of the same path run as a chain.
#[test]
fn a_tree_gives_each_path_the_logits_of_a_chain() {
    let file =
        File::write("tree", &random_model(Family::Gemma3, &random_model::ModelOptions::new(Family::Gemma3)).write());
    let mut pair = Pair::load(&file.0, "tree".into(), Kernels::Ggml, KvType::F16);
    let history = tokens(20, pair.llama.n_vocab());
    pair.batch(&history, "history", TOLERANCE);
    let (n_vocab, n_layers) = (pair.llama.n_vocab(), pair.staged.shape().n_layers);
    let parents = [None, Some(0), Some(0), Some(1), Some(2), Some(4), Some(3)];
    let rows: Vec<Row> = parents
        .iter()
        .enumerate()
        .map(|(i, &parent)| Row { token: 11 + 3 * i as Token, parent, wants_logits: true })
        .collect();
    pair.staged.begin(&rows).unwrap();
    pair.staged.run(n_layers, &Cancel::new()).unwrap();
    let mut tree = vec![0.0; rows.len() * n_vocab];
    pair.staged.project(&[0, 1, 2, 3, 4, 5, 6], &mut tree).unwrap();
    for path in [vec![0, 1, 3, 6], vec![0, 2, 4, 5]] {
        let chain: Vec<Token> = path.iter().map(|&row| rows[row as usize].token).collect();
        let expected = pair.llama.decode(&chain);
        pair.llama.truncate(history.len());
        for (row, expected) in path.iter().zip(expected.chunks(n_vocab)) {
            let row = &tree[*row as usize * n_vocab..][..n_vocab];
            let largest = expected.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
            let difference = row.iter().zip(expected).fold(0.0_f32, |m, (x, y)| m.max((x - y).abs()));
            // Another batch shape than the chain's: llama.cpp's own noise between shapes.
            assert!(difference <= 6e-3 * largest, "differs by {difference} of {largest}");
        }
    }
    // What was accepted is history in position order: going on from it equals having decoded the chain.
    pair.staged.commit(&[0, 2, 4, 5]).unwrap();
    let chain: Vec<Token> = [0, 2, 4, 5].iter().map(|&row: &u32| rows[row as usize].token).collect();
    pair.llama.decode(&chain);
    pair.batch(&history[3..9], "after a commit", 6e-3);
}
