//! The machine room: the only module with `unsafe`, and the only one that names `llama_cpp_*` types or maps files.
//!
//! It offers safe handles (mapped files, tensors, graphs, the CPU machine) and decides nothing: which tensor goes where and what
//! a decoder block consists of is the executors' business.
#![allow(unsafe_code)]

#[allow(dead_code, unused_imports)] // until the staged executor calls it
pub(crate) mod attention;
#[allow(dead_code, unused_imports)] // until the staged executor calls it
pub(crate) mod gemm;
