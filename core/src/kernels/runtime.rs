//! What is done once per process before anything of ggml or llama.cpp is used: logging, the backend, and a look at whether
//! this build uses the machine it runs on.
//!
//! Backends are reached through ggml's registry, never by symbol, so that the same code works with backends that are loaded
//! at run time.

use std::collections::BTreeSet;
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::Once;

use llama_cpp_sys_2 as sys;

use super::native_log;

/// Starts ggml and llama.cpp. Every constructor in `kernels` calls this first; only the first call does anything.
pub(crate) fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        native_log::install();
        // SAFETY: called once, before any other function of llama.cpp.
        unsafe { sys::llama_backend_init() };
        warn_about_unused_simd();
    });
}

/// ggml's registry entry for the CPU, null if this build has none.
pub(crate) fn cpu_registry() -> sys::ggml_backend_reg_t {
    // SAFETY: both functions accept what they are given here and return pointers to static data, or null.
    unsafe {
        let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        if device.is_null() { ptr::null_mut() } else { sys::ggml_backend_dev_backend_reg(device) }
    }
}

/// The address of the CPU backend's function `name`, null if it has none.
pub(crate) fn cpu_function(name: &CStr) -> *mut c_void {
    let registry = cpu_registry();
    if registry.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: the registry entry is not null and `name` is NUL-terminated.
    unsafe { sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr()) }
}

/// The instruction sets this build of ggml uses, by ggml's names (`AVX2`, `DOTPROD`, …).
pub(crate) fn simd_in_use() -> BTreeSet<String> {
    let address = cpu_function(c"ggml_backend_get_features");
    // SAFETY: this is the type of the function that the registry has under this name; null becomes `None`.
    let function: sys::ggml_backend_get_features_t = unsafe { std::mem::transmute(address) };
    let mut names = BTreeSet::new();
    let Some(function) = function else { return names };
    // SAFETY: the registry entry is the CPU's, as its own function expects; the list it returns is static and ends with a
    // null name, and names and values are NUL-terminated.
    unsafe {
        let mut feature = function(cpu_registry());
        while !feature.is_null() && !(*feature).name.is_null() {
            names.insert(CStr::from_ptr((*feature).name).to_string_lossy().into_owned());
            feature = feature.add(1);
        }
    }
    names
}

/// Instruction sets of this CPU that make quantised products faster, by ggml's names.
fn simd_of_this_cpu() -> Vec<&'static str> {
    #[allow(unused_mut)]
    let mut names = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let has = [
            ("AVX", std::is_x86_feature_detected!("avx")),
            ("AVX2", std::is_x86_feature_detected!("avx2")),
            ("FMA", std::is_x86_feature_detected!("fma")),
            ("F16C", std::is_x86_feature_detected!("f16c")),
            ("AVX_VNNI", std::is_x86_feature_detected!("avxvnni")),
            ("AVX512", std::is_x86_feature_detected!("avx512f")),
            ("AVX512_VNNI", std::is_x86_feature_detected!("avx512vnni")),
        ];
        names.extend(has.into_iter().filter_map(|(name, has)| has.then_some(name)));
    }
    #[cfg(target_arch = "aarch64")]
    {
        let has = [
            ("DOTPROD", std::arch::is_aarch64_feature_detected!("dotprod")),
            ("MATMUL_INT8", std::arch::is_aarch64_feature_detected!("i8mm")),
        ];
        names.extend(has.into_iter().filter_map(|(name, has)| has.then_some(name)));
    }
    names
}

/// What the CPU has and the build does not use.
fn unused_simd(of_this_cpu: &[&'static str], in_use: &BTreeSet<String>) -> Vec<&'static str> {
    of_this_cpu.iter().copied().filter(|name| !in_use.contains(*name)).collect()
}

fn warn_about_unused_simd() {
    let in_use = simd_in_use();
    let unused = unused_simd(&simd_of_this_cpu(), &in_use);
    if in_use.is_empty() || unused.is_empty() {
        return;
    }
    log::warn!(
        "ggml is built without {} of this CPU: what it computes, models and formats without kernels of ours, may take several \
         times as long as it could. A Rust program avoids that with RUSTFLAGS=\"-C target-cpu=native\", or the same in its own \
         .cargo/config.toml; the packages for apps are built for any CPU",
        unused.join(", ")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_build_on_a_modern_cpu_is_noticed() {
        let in_use = BTreeSet::from(["SSE3".to_owned(), "AVX".to_owned()]);
        assert_eq!(unused_simd(&["AVX", "AVX2", "FMA"], &in_use), ["AVX2", "FMA"]);
    }

    #[test]
    fn the_cpu_backend_answers_through_the_registry() {
        start();
        assert!(!cpu_registry().is_null());
        assert!(cpu_function(c"no such function").is_null());
        // On the architectures we ship for, ggml always reports at least one instruction set.
        assert!(!simd_in_use().is_empty());
    }
}
