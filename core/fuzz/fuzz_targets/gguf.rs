//! Any bytes: the GGUF reader and the validation neither panic, nor overflow, nor allocate without bound.
#![no_main]

use fulcrum::gguf::validate::validate;
use fulcrum::gguf::{Gguf, Value};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::parse(bytes) else { return };
    for (key, value) in gguf.metadata() {
        assert!(gguf.get(key).is_some());
        if let Value::Array(array) = value {
            assert_eq!(array.values().count(), array.len());
        }
        drop(value.to_string());
    }
    for tensor in gguf.tensors() {
        assert!(tensor.offset < tensor.end() && tensor.end() <= bytes.len() as u64);
    }
    drop(validate(&gguf));
    // As two parts of a split model, which are hardly ever both sound; the first decides how far it gets.
    drop(Gguf::parse_files(&[bytes, bytes]));
});
