//! The same tensors through ggml's products and ours: integers and scales are the same, only the order of f32 sums differs.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

use super::tests::{Random, multiply, pack};
use super::*;
use llama_cpp_sys_2 as sys;
use std::ptr;

fn ggml_type(format: WeightFormat) -> sys::ggml_type {
    match format {
        WeightFormat::Q8_0 => sys::GGML_TYPE_Q8_0,
        WeightFormat::Q4_0 => sys::GGML_TYPE_Q4_0,
        WeightFormat::Q4_K => sys::GGML_TYPE_Q4_K,
        WeightFormat::Q6_K => sys::GGML_TYPE_Q6_K,
    }
}

/// `rows` rows of `k` floats as a GGUF file would hold them.
fn quantised_by_ggml(format: WeightFormat, floats: &[f32], rows: usize, k: usize) -> Vec<u8> {
    let mut bytes = vec![0_u8; rows * format.gguf_row_bytes(k)];
    // SAFETY: both buffers have the sizes of `rows` rows of `k`.
    let written = unsafe {
        sys::ggml_quantize_chunk(
            ggml_type(format),
            floats.as_ptr(),
            bytes.as_mut_ptr().cast(),
            0,
            rows as i64,
            k as i64,
            ptr::null(),
        )
    };
    assert_eq!(written, bytes.len(), "the block sizes agree");
    bytes
}

/// `y[rows, n]` by ggml's kernels for plain layouts.
fn multiplied_by_ggml(format: WeightFormat, weights: &[u8], x: &[f32], n: usize, k: usize) -> Vec<f32> {
    let rows = x.len() / k;
    let params = sys::ggml_init_params { mem_size: 32 << 20, mem_buffer: ptr::null_mut(), no_alloc: false };
    // SAFETY: the context has room for these small tensors and the graph; tensors are filled to their sizes before they are used.
    unsafe {
        let backend = sys::ggml_backend_cpu_init(); // fills ggml's tables
        let context = sys::ggml_init(params);
        let w = sys::ggml_new_tensor_2d(context, ggml_type(format), k as i64, n as i64);
        let a = sys::ggml_new_tensor_2d(context, sys::GGML_TYPE_F32, k as i64, rows as i64);
        (*w).data.cast::<u8>().copy_from_nonoverlapping(weights.as_ptr(), weights.len());
        (*a).data.cast::<f32>().copy_from_nonoverlapping(x.as_ptr(), x.len());
        let y = sys::ggml_mul_mat(context, w, a);
        let graph = sys::ggml_new_graph(context);
        sys::ggml_build_forward_expand(graph, y);
        assert_eq!(sys::ggml_graph_compute_with_ctx(context, graph, 1), sys::GGML_STATUS_SUCCESS);
        let result = std::slice::from_raw_parts((*y).data.cast::<f32>(), rows * n).to_vec();
        sys::ggml_free(context);
        sys::ggml_backend_free(backend);
        result
    }
}

#[test]
fn products_agree_with_those_of_ggml() {
    let (n, k) = (33, 2048);
    let mut random = Random(7);
    let floats: Vec<f32> = (0..n * k).map(|_| random.unit() * 0.1).collect();
    for format in WeightFormat::ALL {
        let weights = quantised_by_ggml(format, &floats, n, k);
        for rows in [1, 3, 4, 8, 17] {
            let x: Vec<f32> = (0..rows * k).map(|_| random.unit()).collect();
            let want = multiplied_by_ggml(format, &weights, &x, n, k);
            for isa in Isa::supported() {
                let got = multiply(isa, &pack(isa, format, n, k, &weights), &x, rows, 2);
                // Results are sums of 2,048 products of at most 0.1.
                let far = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
                assert!(far < 2e-5, "{isa:?} {format:?} rows {rows}: {far}");
            }
        }
    }
}
