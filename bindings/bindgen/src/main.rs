//! UniFFI's generator; `scripts/generate-bindings.sh` runs it.

fn main() {
    uniffi::uniffi_bindgen_main();
}
