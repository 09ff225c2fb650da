//! The machine room: the only module with `unsafe`, and the only one that names `llama_cpp_*` types or maps files.
//!
//! What leaves this room is safe: checked before C++ sees it, because what C++ finds wrong it answers with `abort()`. It decides
//! nothing: which tensor goes where and what a decoder block consists of is the executors' business.
#![allow(unsafe_code)]

pub(crate) mod attention;
pub(crate) mod custom;
pub(crate) mod direct;
pub(crate) mod gemm;
pub(crate) mod graph;
mod guard;
pub(crate) mod llama;
pub(crate) mod machine;
pub(crate) mod mapping;
pub(crate) mod native_log;
pub(crate) mod region;
pub(crate) mod runtime;
pub(crate) mod store;
pub(crate) mod threads;
mod vector;
mod vocabulary;

pub(crate) use vocabulary::LlamaVocabulary;
