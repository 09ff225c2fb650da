//! The library's segments for 16 KB pages: what Android 15 may have, Google Play demands, and does no harm where pages are smaller.

#[allow(clippy::print_stdout, reason = "it is how a build script speaks to cargo")]
fn main() {
    let system = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if ["android", "linux"].contains(&system.as_str()) {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,max-page-size=16384");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
