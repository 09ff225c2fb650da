//! More than there is memory: a typed error before anything is taken, not the system's killer.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};

use super::common::isolated;
use super::common::quantize::WeightType;
use super::common::random_model::{Family, random_model};
use super::{EXECUTORS, File, answer, checked, gentle, sizes, small};
use fulcrum::{ErrorKind, Kernels, KvType, ModelOptions};

fn out_of_memory(path: &std::path::Path, options: ModelOptions) {
    let error = checked(answer(path, options).map(|response| response.text).unwrap_err());
    let ErrorKind::OutOfMemory { needed, .. } = error else { panic!("{error}") };
    assert!(needed > 1 << 30, "{needed} bytes are not too many");
}

/// A cache of terabytes.
#[test]
fn a_context_larger_than_memory_is_out_of_memory() {
    isolated::each("memory::a_context_larger_than_memory_is_out_of_memory", 0..8, |i| {
        let executor = EXECUTORS[i % 2];
        // Large enough that a hundred million positions are terabytes, small enough to be written.
        let shape =
            super::Sizes { n_layers: 8, n_embd: 64, n_head: 32, n_head_kv: 32, head_dim: 64, ..sizes(Family::Llama) };
        let file = File::new(&random_model(Family::Llama, &shape.weights(WeightType::F16)).write());
        let kv_type = if i < 4 { KvType::F16 } else { KvType::Q8_0 };
        let kernels = if i % 4 < 2 { Kernels::Auto } else { Kernels::Ggml };
        let options = ModelOptions { context_length: Some(100_000_000), kv_type, kernels, ..gentle(executor) };
        out_of_memory(file.path(), options);
    });
}

/// The cache is small; the masks that ggml's attention reads are not.
#[test]
fn the_inputs_of_a_long_context_count_too() {
    isolated::each("memory::the_inputs_of_a_long_context_count_too", 0..1, |_| {
        let file = File::new(&small().write());
        let (context_length, batch_size) = (Some(4_000_000), 65_536);
        let kernels = Kernels::Ggml;
        out_of_memory(file.path(), ModelOptions { context_length, batch_size, kernels, ..gentle(EXECUTORS[0]) });
    });
}

/// A file of a few kilobytes that claims, sparsely, to hold a model of half a terabyte.
fn sparse(weights: WeightType) -> File {
    let shape = super::Sizes { n_embd: 256, n_ff: 256, ..sizes(Family::Llama) };
    let mut model = random_model(Family::Llama, &shape.weights(weights));
    let n_ff = 1_u64 << 20;
    let n_embd = 1_u64 << 16;
    model.set("llama.feed_forward_length", n_ff as u32).set("llama.embedding_length", n_embd as u32);
    let mut end = 0;
    for tensor in &mut model.tensors {
        let (len, values) = (tensor.data.len() as u64, tensor.dims.iter().product::<u64>());
        let is_ffn = tensor.name.contains("ffn_") && !tensor.name.contains("norm");
        tensor.dims.iter_mut().filter(|dim| **dim == 256).for_each(|dim| *dim = n_embd);
        if is_ffn {
            tensor.dims = if tensor.name.contains("down") { vec![n_ff, n_embd] } else { vec![n_embd, n_ff] };
        }
        tensor.offset = Some(end);
        tensor.data.clear();
        end = (end + tensor.dims.iter().product::<u64>() / values * len).next_multiple_of(32);
    }
    let header = model.write();
    let file = File::new(&header);
    let mut tail = OpenOptions::new().write(true).open(file.path()).unwrap();
    tail.seek(SeekFrom::Start(header.len() as u64 + end)).unwrap();
    tail.write_all(&[0; 32]).unwrap();
    file
}

/// What would be copied into another layout does not fit.
#[test]
fn a_model_larger_than_memory_is_out_of_memory() {
    let types = [WeightType::F16, WeightType::Q8_0, WeightType::Q4_0];
    isolated::each("memory::a_model_larger_than_memory_is_out_of_memory", 0..2 * types.len(), |i| {
        out_of_memory(sparse(types[i / 2]).path(), gentle(EXECUTORS[i % 2]));
    });
}
