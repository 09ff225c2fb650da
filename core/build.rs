//! Compiles the C++ that catches exceptions; the C++ of llama.cpp is built by its own crate, which also links the C++ library.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "ggml")]
    {
        let source = "src/kernels/guard.cpp";
        println!("cargo::rerun-if-changed={source}");
        cc::Build::new().cpp(true).std("c++17").cpp_link_stdlib(None).file(source).compile("fulcrum_guard");
    }
}
