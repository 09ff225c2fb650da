//! The GGUF reader: what is in a sound file, and what is said of an unsound one.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::path::{Path, PathBuf};

use common::gguf_writer::{GgufWriter, Meta};
use fulcrum::ErrorKind;
use fulcrum::gguf::{Array, Gguf, KeyError, ParseErrorKind, SplitName, TensorType, Value, ValueType};

const F32: u32 = 0;
const Q8_0: u32 = 8;

fn floats(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

fn small() -> GgufWriter {
    let mut file = GgufWriter::default();
    file.set("general.architecture", "llama").set("llama.block_count", 2_u32).set("tokens", vec!["a", "bc"]);
    file.tensor("one", &[3], F32, floats(3)).tensor("two", &[32, 2], Q8_0, vec![7; 68]);
    file
}

fn kind(bytes: &[u8]) -> ParseErrorKind {
    Gguf::parse(bytes).expect_err("a damaged file was read").kind().clone()
}

/// The start of a file says all that the file says, or how much more of it is needed; what it says of damage does not depend on it either.
#[test]
fn the_start_of_a_file_is_enough_or_says_what_is_missing() {
    let whole = small().write();
    let all = Gguf::parse(&whole).unwrap();
    let header = whole.len() - 128; // the data: 12 bytes and 68, each to the next multiple of 32
    for len in 0..=whole.len() {
        match Gguf::parse_start(&whole[..len], whole.len() as u64).map_err(|error| error.kind().clone()) {
            Ok(gguf) => assert_eq!((gguf.metadata(), gguf.tensors()), (all.metadata(), all.tensors())),
            Err(ParseErrorKind::LongHeader { needed }) => assert!((len + 1..=header).contains(&(needed as usize))),
            Err(other) => panic!("{len}: {other}"),
        }
    }
    for (start, file_len) in [(header, whole.len() - 64), (header - 40, header - 40)] {
        let error = Gguf::parse_start(&whole[..start], file_len as u64).unwrap_err();
        assert_eq!(error.to_string(), Gguf::parse(&whole[..file_len]).unwrap_err().to_string());
    }
}

#[test]
fn reads_every_kind_of_value() {
    let mut file = GgufWriter::default();
    file.set("u8", 200_u8).set("i8", -100_i8).set("u16", 60_000_u16).set("i16", -30_000_i16);
    file.set("u32", 4_000_000_000_u32).set("i32", -2_000_000_000_i32).set("f32", 0.5_f32).set("bool", true);
    file.set("str", "grüß").set("u64", u64::MAX).set("i64", i64::MIN).set("f64", 0.25_f64);
    file.set("strings", vec!["", "a", "bc"]).set("floats", vec![1.0_f32, f32::NAN]).set("none", Vec::<u32>::new());
    let bytes = file.write();
    let gguf = Gguf::parse(&bytes).unwrap();

    assert_eq!(gguf.version(), 3);
    assert_eq!(gguf.get("u8"), Some(&Value::U8(200)));
    assert_eq!(gguf.get("i8"), Some(&Value::I8(-100)));
    assert_eq!(gguf.get("u16"), Some(&Value::U16(60_000)));
    assert_eq!(gguf.get("i16"), Some(&Value::I16(-30_000)));
    assert_eq!(gguf.get("u32"), Some(&Value::U32(4_000_000_000)));
    assert_eq!(gguf.get("i32"), Some(&Value::I32(-2_000_000_000)));
    assert_eq!(gguf.get("f32"), Some(&Value::F32(0.5)));
    assert_eq!(gguf.get("bool"), Some(&Value::Bool(true)));
    assert_eq!(gguf.get("str"), Some(&Value::String("grüß".as_bytes())));
    assert_eq!(gguf.get("u64"), Some(&Value::U64(u64::MAX)));
    assert_eq!(gguf.get("i64"), Some(&Value::I64(i64::MIN)));
    assert_eq!(gguf.get("f64"), Some(&Value::F64(0.25)));
    let strings: Array<'_> = gguf.require("strings").unwrap();
    assert_eq!(strings.strings().unwrap().collect::<Vec<_>>(), [b"".as_slice(), b"a", b"bc"]);
    assert_eq!(strings.to_vec::<&str>().unwrap(), ["", "a", "bc"]);
    assert_eq!(strings.to_vec::<u32>(), None);
    let floats: Array<'_> = gguf.require("floats").unwrap();
    assert_eq!(floats.strings().map(Iterator::count), None);
    assert!(floats.to_vec::<f32>().unwrap()[1].is_nan());
    let none: Array<'_> = gguf.require("none").unwrap();
    assert_eq!((none.element_type(), none.len(), none.values().count()), (ValueType::U32, 0, 0));
    let keys: Vec<&str> = gguf.metadata().iter().map(|(key, _)| *key).collect();
    assert_eq!(keys.len(), 15);
    assert_eq!(keys[..3], ["u8", "i8", "u16"]);
}

#[test]
fn typed_access_converts_widths_and_names_what_is_wrong() {
    let mut file = GgufWriter::default();
    file.set("n", 7_i64).set("negative", -1_i32).set("name", "llama").set("latin1", Meta::Str(vec![0xe4]));
    let bytes = file.write();
    let gguf = Gguf::parse(&bytes).unwrap();

    assert_eq!(gguf.find::<u32>("n"), Ok(Some(7)));
    assert_eq!(gguf.find::<u16>("n"), Ok(Some(7)));
    assert_eq!(gguf.find::<i32>("negative"), Ok(Some(-1)));
    assert_eq!(gguf.find::<u32>("absent"), Ok(None));
    assert_eq!(gguf.require::<&str>("name"), Ok("llama"));
    assert_eq!(gguf.require::<&[u8]>("latin1"), Ok([0xe4].as_slice()));
    assert_eq!(gguf.require::<u32>("absent"), Err(KeyError::Missing { key: "absent".into() }));
    let message = |error: KeyError| error.to_string();
    assert_eq!(
        gguf.require::<u32>("negative").map_err(message),
        Err(r#"the metadata key "negative" is i32 -1 where a non-negative integer (u32) is expected"#.into())
    );
    assert!(gguf.require::<&str>("latin1").is_err());
    assert!(gguf.require::<f32>("n").is_err());
    assert!(gguf.require::<bool>("n").is_err());
}

#[test]
fn tensors_have_absolute_places() {
    for version in [2, 3] {
        let bytes = GgufWriter { version, ..small() }.write();
        let gguf = Gguf::parse(&bytes).unwrap();
        assert_eq!((gguf.version(), gguf.alignment(), gguf.n_files(), gguf.split()), (version, 32, 1, None));
        let [one, two] = gguf.tensors() else { panic!("two tensors were written") };
        assert_eq!(gguf.tensor("one"), Some(one));
        assert_eq!(gguf.tensor("three"), None);
        assert_eq!((one.ty, one.shape.dims(), one.size), (TensorType::F32, [3].as_slice(), 12));
        assert_eq!((two.ty, two.shape.dims(), two.size), (TensorType::Q8_0, [32, 2].as_slice(), 68));
        assert_eq!((two.shape.extents(), two.shape.row_len(), two.shape.n_rows()), ([32, 2, 1, 1], 32, 2));
        assert_eq!(bytes[one.offset as usize..one.end() as usize], floats(3));
        assert_eq!(bytes[two.offset as usize..two.end() as usize], [7; 68]);
    }
}

#[test]
fn alignment_is_taken_from_the_file() {
    let mut file = GgufWriter { alignment: 128, ..small() };
    file.set("general.alignment", 128_u32);
    let bytes = file.write();
    let gguf = Gguf::parse(&bytes).unwrap();
    assert_eq!(gguf.alignment(), 128);
    assert!(gguf.tensors().iter().all(|tensor| tensor.offset.is_multiple_of(128)));
    assert_eq!(bytes[gguf.tensors()[1].offset as usize], 7);

    for bad in [Meta::U32(0), Meta::U32(48), Meta::U64(32), Meta::I32(-32)] {
        let bytes = small().set("general.alignment", bad).write();
        assert!(matches!(kind(&bytes), ParseErrorKind::BadAlignment { .. }));
    }
}

#[test]
fn refuses_what_is_not_gguf() {
    assert!(matches!(kind(b""), ParseErrorKind::Truncated { needed: 4, available: 0, .. }));
    assert!(matches!(kind(b"GG"), ParseErrorKind::Truncated { .. }));
    assert_eq!(kind(b"Once upon a time"), ParseErrorKind::NotGguf { found: *b"Once" });
    for version in [0, 1, 4, 0x1234] {
        assert_eq!(kind(&GgufWriter { version, ..small() }.write()), ParseErrorKind::Version { version });
    }
    assert_eq!(kind(&GgufWriter { version: 3_u32.swap_bytes(), ..small() }.write()), ParseErrorKind::BigEndian);
}

#[test]
fn refuses_counts_that_the_file_cannot_hold() {
    let bytes = small().write();
    for (at, absurd) in [(8, "tensors"), (16, "metadata entries")] {
        for count in [bytes.len() as u64, u64::MAX, 1 << 63, i64::MAX as u64] {
            let mut bytes = bytes.clone();
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            assert!(matches!(kind(&bytes), ParseErrorKind::AbsurdCount { what, .. } if what == absurd));
        }
    }
    let mut array = GgufWriter::default().set("a", vec![1_u64, 2]).write();
    let len_at = array.len() - 24;
    array[len_at] = 3;
    assert!(matches!(kind(&array), ParseErrorKind::AbsurdCount { what: "array elements", count: 3, fits: 2 }));
}

#[test]
fn refuses_a_file_that_ends_anywhere_early() {
    let bytes = small().write();
    // The padding behind the last tensor may be missing.
    let data_end = Gguf::parse(&bytes).unwrap().tensors()[1].end() as usize;
    for len in 0..data_end {
        let error = Gguf::parse(&bytes[..len]).expect_err("half a file was read");
        assert!(error.offset() <= len as u64);
    }
    assert!(Gguf::parse(&bytes[..data_end]).is_ok());
}

#[test]
fn refuses_unsound_metadata() {
    let mut twice = small();
    twice.metadata.push(("general.architecture".into(), Meta::U32(1)));
    assert_eq!(kind(&twice.write()), ParseErrorKind::DuplicateKey { key: "general.architecture".into() });
    assert_eq!(kind(&small().set("", 1_u32).write()), ParseErrorKind::BadKey);
    assert_eq!(kind(&small().set("a\0b", 1_u32).write()), ParseErrorKind::BadKey);
    let nested = Meta::Array(9, vec![Meta::Array(4, vec![])]);
    assert_eq!(kind(&small().set("nested", nested).write()), ParseErrorKind::NestedArray);
    assert_eq!(kind(&small().set("a", Meta::Array(13, vec![])).write()), ParseErrorKind::ValueType { code: 13 });
    let mut truth = GgufWriter::default().set("flag", true).write();
    *truth.last_mut().unwrap() = 2;
    assert_eq!(kind(&truth), ParseErrorKind::BadBool { found: 2 });
}

#[test]
fn refuses_unsound_tensors() {
    let with = |tamper: fn(&mut GgufWriter)| {
        let mut file = small();
        tamper(&mut file);
        kind(&file.write())
    };
    assert_eq!(with(|f| f.tensors[1].name = "one".into()), ParseErrorKind::DuplicateTensor { name: "one".into() });
    assert_eq!(with(|f| f.tensors[1].name = String::new()), ParseErrorKind::BadTensorName);
    assert_eq!(with(|f| f.tensors[1].name = "x".repeat(64)), ParseErrorKind::BadTensorName);
    assert_eq!(with(|f| f.tensors[1].name = "a\0".into()), ParseErrorKind::BadTensorName);
    assert!(matches!(with(|f| f.tensors[1].dims = vec![32, 1, 1, 1, 2]), ParseErrorKind::Dimensions { n_dims: 5, .. }));
    // 4, 31 and 36 are formats that ggml has given up; 43 is the first it does not have yet.
    for code in [4, 5, 31, 36, 38, 43, u32::MAX] {
        let mut file = small();
        file.tensors[1].ty = code;
        assert_eq!(kind(&file.write()), ParseErrorKind::TensorType { name: "two".into(), code });
    }
    for dims in [vec![32, 0], vec![33, 2], vec![u64::MAX, 2], vec![1 << 32, 1 << 32], vec![32, 1 << 62]] {
        let mut file = small();
        file.tensors[1].dims = dims;
        assert!(matches!(kind(&file.write()), ParseErrorKind::BadShape { .. }));
    }
    assert!(matches!(with(|f| f.tensors[1].offset = Some(33)), ParseErrorKind::Misaligned { start: 33, .. }));
    for offset in [1 << 20, u64::MAX - 31] {
        let mut file = small();
        file.tensors[1].offset = Some(offset);
        assert!(matches!(kind(&file.write()), ParseErrorKind::OutOfRange { .. }));
    }
    let overlap = ParseErrorKind::Overlap { first: "one".into(), second: "two".into() };
    assert_eq!(with(|f| (f.tensors[0].dims, f.tensors[1].offset) = (vec![9], Some(32))), overlap);
}

#[test]
fn names_the_place_and_the_file() {
    let error = Gguf::parse(b"Once upon a time").unwrap_err();
    assert_eq!(error.to_string(), r#"it begins with "Once" where "GGUF" is expected (at byte 0)"#);
    let error = error.in_file(Path::new("tale.gguf"));
    assert!(matches!(error.kind(), ErrorKind::InvalidModel { path, .. } if path == Path::new("tale.gguf")));
    assert_eq!(
        error.to_string(),
        r#"tale.gguf: not a usable GGUF file: it begins with "Once" where "GGUF" is expected (at byte 0)"#
    );
}

#[test]
fn unites_split_files() {
    let parts = small().write_split(2);
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let gguf = Gguf::parse_files(&parts).unwrap();
    assert_eq!(gguf.n_files(), 2);
    assert_eq!(gguf.require::<&str>("general.architecture"), Ok("llama"));
    let places: Vec<_> = gguf.tensors().iter().map(|tensor| (tensor.name, tensor.file)).collect();
    assert_eq!(places, [("one", 0), ("two", 1)]);
    let two = gguf.tensor("two").unwrap();
    assert_eq!(parts[1][two.offset as usize..two.end() as usize], [7; 68]);

    let alone = Gguf::parse(parts[1]).unwrap().split().unwrap();
    assert_eq!((alone.index, alone.count, alone.n_tensors), (1, 2, Some(2)));

    let refused = |files: &[&[u8]]| {
        let error = Gguf::parse_files(files).unwrap_err();
        assert!(matches!(error.kind(), ParseErrorKind::Split { .. }), "{error}");
    };
    let whole = small().write();
    refused(&parts[..1]);
    refused(&[parts[1], parts[0]]);
    refused(&[parts[0], parts[0]]);
    refused(&[parts[0], &whole]);
    refused(&[&whole, parts[1]]);
    refused(&[parts[0], parts[1], parts[1]]);
    assert!(Gguf::parse_files(&[]).is_err());

    let mut other = small();
    other.tensors.reverse();
    let other = other.write_split(2);
    let error = Gguf::parse_files(&[parts[0], &other[1]]).unwrap_err();
    assert_eq!((error.kind(), error.file()), (&ParseErrorKind::DuplicateTensor { name: "one".into() }, 1));
}

#[test]
fn split_files_announce_their_tensors() {
    let mut file = small();
    file.tensors.pop();
    file.set("split.no", 0_u16).set("split.count", 2_u16).set("split.tensors.count", 3_i32);
    let mut second = GgufWriter::default();
    second.set("split.no", 1_u16).set("split.count", 2_u16);
    let error = Gguf::parse_files(&[&file.write(), &second.write()]).unwrap_err();
    assert_eq!(error.kind(), &ParseErrorKind::Split { reason: "3 tensors are announced, the files have 1".into() });
}

#[test]
fn split_names() {
    let name = SplitName::parse(Path::new("models/big-00002-of-00003.gguf")).unwrap();
    assert_eq!((name.index, name.count), (1, 3));
    let paths: Vec<PathBuf> = name.paths().collect();
    assert_eq!(paths[0], Path::new("models/big-00001-of-00003.gguf"));
    assert_eq!(paths[2], Path::new("models/big-00003-of-00003.gguf"));
    for not_split in
        ["big.gguf", "big-1-of-3.gguf", "big-00004-of-00003.gguf", "big-00000-of-00003.gguf", "-00001-of-00003.gguf"]
    {
        assert_eq!(SplitName::parse(Path::new(not_split)), None, "{not_split}");
    }
}

#[test]
fn type_sizes() {
    let bytes = |ty: TensorType, len| ty.row_bytes(len);
    assert_eq!(TensorType::ALL.len(), 35);
    for ty in TensorType::ALL {
        assert_eq!(TensorType::from_code(ty.code()), Some(*ty));
    }
    assert_eq!(bytes(TensorType::F16, 10), Some(20));
    assert_eq!(bytes(TensorType::Q4_K, 512), Some(288));
    assert_eq!(bytes(TensorType::Q4_K, 500), None);
}
