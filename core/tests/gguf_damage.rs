//! Whatever is done to a file, the reader and the validation neither panic nor allocate more than the file justifies.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::gguf_writer::{GgufWriter, Meta};
use common::random_model::{Family, ModelOptions, random_model};
use fulcrum::gguf::validate::validate;
use fulcrum::gguf::{Gguf, ParseError, Value};
use proptest::prelude::*;

/// Bytes that may be allocated at once for each byte of a file. An entry of the metadata takes 14 bytes in the file at least,
/// and about 80 in memory with its place in the hash table; both tables are twice as large when they have just grown.
const BYTES_PER_BYTE: usize = 32;
/// Bytes that any file may have allocated: error messages, arrays as long as the number of layers.
const BASE_BYTES: usize = 64 << 10;

/// The system's allocator, and what this thread has of it.
struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn grew(bytes: usize) {
    LIVE.set(LIVE.get().saturating_add(bytes));
    PEAK.set(PEAK.get().max(LIVE.get()));
}

fn shrank(bytes: usize) {
    LIVE.set(LIVE.get().saturating_sub(bytes));
}

#[allow(unsafe_code, reason = "an allocator is unsafe by its nature")]
// SAFETY: every call is passed on to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrank(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both blocks exist while the bytes are moved.
        grew(new_size);
        shrank(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Reads and validates `bytes`, watching memory, and checks what the reader promises of files it accepts.
fn read(bytes: &[u8]) -> Result<bool, ParseError> {
    let before = LIVE.get();
    PEAK.set(before);
    let verdict = Gguf::parse(bytes).map(|gguf| {
        check_promises(&gguf, bytes);
        validate(&gguf).is_ok()
    });
    let used = PEAK.get() - before;
    let allowed = BASE_BYTES + BYTES_PER_BYTE * bytes.len();
    assert!(used <= allowed, "{used} bytes were allocated for a file of {}", bytes.len());
    verdict
}

fn check_promises(gguf: &Gguf<'_>, bytes: &[u8]) {
    for (key, value) in gguf.metadata() {
        assert_eq!(gguf.get(key).map(Value::value_type), Some(value.value_type()));
        if let Value::Array(array) = value {
            assert_eq!(array.values().count(), array.len());
        }
        assert!(value.to_string().len() < 400);
    }
    let mut places: Vec<_> = gguf.tensors().iter().map(|tensor| (tensor.offset, tensor.end())).collect();
    places.sort_unstable();
    assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0), "tensors overlap");
    for tensor in gguf.tensors() {
        assert_eq!(gguf.tensor(tensor.name), Some(tensor));
        assert!(tensor.end() <= bytes.len() as u64 && tensor.offset < tensor.end());
        assert_eq!(tensor.ty.row_bytes(tensor.shape.row_len()).unwrap() * tensor.shape.n_rows(), tensor.size);
    }
}

fn model(family: Family) -> Vec<u8> {
    let sizes = ModelOptions {
        n_layers: 1,
        n_embd: 16,
        n_head: 2,
        n_head_kv: 1,
        head_dim: 8,
        n_ff: 16,
        ..ModelOptions::new(family)
    };
    random_model(family, &sizes).write()
}

/// Where the metadata and the tensor table end.
fn header_len(bytes: &[u8]) -> usize {
    Gguf::parse(bytes).unwrap().tensors().iter().map(|tensor| tensor.offset).min().unwrap() as usize
}

#[test]
fn sound_models_are_read() {
    for family in Family::ALL {
        assert_eq!(read(&model(family)), Ok(true), "{family:?}");
    }
}

#[test]
fn truncated_models_are_refused() {
    let bytes = model(Family::Gemma2);
    for percent in 0..100 {
        assert!(read(&bytes[..bytes.len() * percent / 100]).is_err(), "{percent} % of a file were read");
    }
}

#[test]
fn flipped_bits_are_survived() {
    let sound = model(Family::Llama);
    let mut refused = 0;
    let mut bytes = sound.clone();
    // Every bit of the first bytes, where counts and lengths are dense, and every seventh after that.
    let header = header_len(&sound) * 8;
    for bit in (0..header).filter(|bit| *bit < 8192 || bit % 7 == 0) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        refused += usize::from(read(&bytes) != Ok(true));
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(refused > 1000, "only {refused} flipped bits were noticed");
    assert_eq!(read(&sound), Ok(true));
}

#[test]
fn absurd_numbers_are_survived() {
    let sound = model(Family::Phi3Longrope);
    let header = header_len(&sound);
    for absurd in [0_u64, 1 << 31, u64::from(u32::MAX), 1 << 32, i64::MAX as u64, 1 << 63, u64::MAX - 7, u64::MAX] {
        for at in (0..header - 8).filter(|at| *at < 1024 || at % 5 == 0) {
            let mut bytes = sound.clone();
            bytes[at..at + 8].copy_from_slice(&absurd.to_le_bytes());
            drop(read(&bytes));
        }
    }
}

#[test]
fn the_densest_files_stay_within_bounds() {
    let metadata = (0..40_000_u32).map(|i| (format!("{i:x}"), Meta::U8(0))).collect();
    let keys = GgufWriter { metadata, ..GgufWriter::default() };
    assert_eq!(read(&keys.write()), Ok(false));
    let mut strings = GgufWriter::default();
    strings.set("tokenizer.ggml.model", "gpt2").set("tokenizer.ggml.merges", vec![""; 40_000]);
    strings.set("tokenizer.ggml.tokens", (0..40_000_u32).map(|i| format!("{i:x}")).collect::<Vec<_>>());
    assert_eq!(read(&strings.write()), Ok(false));
    let mut empty = GgufWriter::default();
    empty.set("tokenizer.ggml.model", "gpt2").set("tokenizer.ggml.tokens", vec![""; 40_000]);
    assert_eq!(read(&empty.write()), Ok(false));
    let mut tensors = GgufWriter { alignment: 1, ..GgufWriter::default() };
    tensors.set("general.alignment", 1_u32);
    for i in 0..40_000_u32 {
        tensors.tensor(&format!("{i:x}"), &[], 24, vec![0]);
    }
    assert_eq!(read(&tensors.write()), Ok(false));
}

proptest! {
    #[test]
    fn random_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        drop(read(&bytes));
    }

    #[test]
    fn random_bytes_behind_a_sound_beginning_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600), n in 0_u8..20) {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend([n, 0, 0, 0, 0, 0, 0, 0, n / 2, 0, 0, 0, 0, 0, 0, 0]);
        // Small numbers are likelier to be lengths, types and counts that make sense.
        file.extend(bytes.iter().map(|byte| if byte % 3 == 0 { byte % 13 } else { 0 }));
        drop(read(&file));
    }

    #[test]
    fn spoiled_models_are_survived(spots in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = model(Family::Qwen3);
        let header = header_len(&bytes);
        for (spot, byte) in spots {
            bytes[spot.index(header)] = byte;
        }
        drop(read(&bytes));
    }
}
