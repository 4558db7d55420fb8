//! Reader and writer of GGUF against each other and against bad files.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use bitnet_core::bytes::ByteView;
use bitnet_formats::{
    FormatError, GgufArray, GgufFile, GgufMetadata, GgufValue, Result, StoredType, TensorPlan, create_gguf,
    read_gguf,
};
use proptest::prelude::*;

/// A file put together by hand, so that each field can lie.
#[derive(Clone)]
struct Raw {
    version: u32,
    tensor_count: Option<u64>,
    pair_count: Option<u64>,
    pairs: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: Vec<u8>,
}

impl Raw {
    fn new() -> Self {
        Raw { version: 3, tensor_count: None, pair_count: None, pairs: vec![], tensors: vec![], data: vec![] }
    }

    /// Adds a pair of a type number and the bytes of the value.
    fn pair(mut self, key: &str, type_id: u32, value: &[u8]) -> Self {
        self.pairs.push([&string(key)[..], &type_id.to_le_bytes(), value].concat());
        self
    }

    /// Adds an array of an element type, a count and the bytes of the elements.
    fn array(self, key: &str, type_id: u32, count: u64, elements: &[u8]) -> Self {
        self.pair(key, 9, &[&type_id.to_le_bytes()[..], &count.to_le_bytes(), elements].concat())
    }

    /// Adds a tensor entry; dimensions as in the file, innermost first.
    fn tensor(mut self, name: &str, dims: &[u64], type_id: u32, offset: u64) -> Self {
        let dims: Vec<u8> = (dims.len() as u32)
            .to_le_bytes()
            .into_iter()
            .chain(dims.iter().flat_map(|d| d.to_le_bytes()))
            .collect();
        self.tensors.push([&string(name)[..], &dims, &type_id.to_le_bytes(), &offset.to_le_bytes()].concat());
        self
    }

    fn data(mut self, len: usize) -> Self {
        self.data = (0..len).map(|i| i as u8).collect();
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.pair_count.unwrap_or(self.pairs.len() as u64).to_le_bytes());
        bytes.extend(self.pairs.concat());
        bytes.extend(self.tensors.concat());
        if !self.data.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(32), 0);
            bytes.extend(&self.data);
        }
        bytes
    }

    fn read(&self) -> Result<GgufFile> {
        read_gguf(ByteView::from_vec(self.bytes()), "m.gguf")
    }

    /// Asserts that the file is refused with a message that has all the parts.
    fn refused(&self, parts: &[&str]) {
        let message = self.read().unwrap_err().to_string();
        assert!(message.starts_with("m.gguf: ") && message.lines().count() == 1, "{message}");
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// One value of every type.
fn all_types() -> Vec<(String, GgufValue)> {
    let strings = ["", "Ġthe", "Ġ t", "日本"].map(str::to_owned).to_vec();
    let values = [
        GgufValue::U8(255),
        GgufValue::I8(-128),
        GgufValue::U16(65535),
        GgufValue::I16(-32768),
        GgufValue::U32(u32::MAX),
        GgufValue::I32(i32::MIN),
        GgufValue::U64(u64::MAX),
        GgufValue::I64(i64::MIN),
        GgufValue::F32(1e-5),
        GgufValue::F64(-0.0),
        GgufValue::Bool(true),
        GgufValue::Bool(false),
        GgufValue::String("bitnet-b1.58".to_owned()),
        GgufValue::Array(GgufArray::U8(vec![0, 255])),
        GgufValue::Array(GgufArray::I8(vec![-1, 127])),
        GgufValue::Array(GgufArray::U16(vec![1, 65535])),
        GgufValue::Array(GgufArray::I16(vec![-1, 2])),
        GgufValue::Array(GgufArray::U32(vec![7])),
        GgufValue::Array(GgufArray::I32(vec![1, -3])),
        GgufValue::Array(GgufArray::U64(vec![u64::MAX])),
        GgufValue::Array(GgufArray::I64(vec![-9])),
        GgufValue::Array(GgufArray::F32(vec![0.5, f32::INFINITY])),
        GgufValue::Array(GgufArray::F64(vec![])),
        GgufValue::Array(GgufArray::Bool(vec![true, false, true])),
        GgufValue::Array(GgufArray::Strings(strings)),
    ];
    values.into_iter().enumerate().map(|(i, value)| (format!("key.{i}"), value)).collect()
}

fn write(path: &Path, metadata: &[(String, GgufValue)], tensors: &[(TensorPlan, Vec<u8>)]) {
    let plan: Vec<TensorPlan> = tensors.iter().map(|(plan, _)| plan.clone()).collect();
    let mut writer = create_gguf(path, metadata, &plan).unwrap();
    for (plan, bytes) in tensors {
        writer.begin(&plan.name).unwrap();
        bytes.chunks(50).for_each(|chunk| writer.append(chunk).unwrap());
    }
    writer.finish().unwrap();
}

#[test]
fn every_type_survives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let metadata = all_types();
    write(&path, &metadata, &[]);
    let read = read_gguf(ByteView::map_file(&path).unwrap(), "m.gguf").unwrap();
    assert_eq!((read.version, read.alignment, read.tensors.len()), (3, 32, 0));
    let pairs: Vec<(String, GgufValue)> =
        read.metadata.iter().map(|(k, v)| (k.to_owned(), v.clone())).collect();
    assert_eq!(pairs, metadata);
    assert_eq!(read.metadata.len(), metadata.len());
}

const TYPES: [StoredType; 10] = [
    StoredType::F32,
    StoredType::F16,
    StoredType::BF16,
    StoredType::F64,
    StoredType::I8,
    StoredType::I16,
    StoredType::I32,
    StoredType::I64,
    StoredType::I2S,
    StoredType::Ggml { id: 8, name: "q8_0" },
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn tensors_survive(
        tensors in proptest::collection::vec(
            (proptest::sample::select(&TYPES[..]), proptest::collection::vec(0u64..5, 0..3), any::<u8>()), 0..8),
        with_alignment in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let tensors: Vec<(TensorPlan, Vec<u8>)> = tensors
            .into_iter()
            .enumerate()
            .map(|(i, (stored, mut shape, fill))| {
                shape.push(128);
                let plan = TensorPlan::new(format!("blk.{i}.weight"), stored, shape);
                let len = plan.stored.byte_len(&plan.shape).unwrap() as usize;
                (plan, vec![fill; len])
            })
            .collect();
        let key = ("general.alignment".to_owned(), GgufValue::U32(32));
        write(&path, if with_alignment { std::slice::from_ref(&key) } else { &[] }, &tensors);
        let view = ByteView::map_file(&path).unwrap();
        prop_assert!(tensors.is_empty() || view.len().is_multiple_of(32));
        let read = read_gguf(view.clone(), "m.gguf").unwrap();
        prop_assert_eq!(read.tensors.len(), tensors.len());
        for ((plan, bytes), tensor) in tensors.iter().zip(&read.tensors) {
            prop_assert_eq!(&tensor.name, &plan.name);
            prop_assert_eq!((tensor.stored, &tensor.shape), (plan.stored, &plan.shape));
            prop_assert_eq!(tensor.data.as_slice(), bytes.as_slice());
            let at = tensor.data.as_slice().as_ptr() as usize - view.as_slice().as_ptr() as usize;
            prop_assert!(bytes.is_empty() || at.is_multiple_of(32));
        }
    }
}

#[test]
fn dimensions_are_reversed_and_tails_belong_to_tensors() {
    let read =
        Raw::new().tensor("w", &[128, 2], 36, 0).tensor("v", &[2, 3], 1, 96).data(96 + 12).read().unwrap();
    let packed = read.tensors.get("w").unwrap();
    assert_eq!((packed.shape.as_slice(), packed.stored), (&[2, 128][..], StoredType::I2S));
    assert_eq!(packed.data.as_slice(), (0..96).collect::<Vec<u8>>());
    let dense = read.tensors.get("v").unwrap();
    assert_eq!((dense.shape.as_slice(), dense.data.as_slice()[0], dense.data.len()), (&[3, 2][..], 96, 12));
    assert_eq!(dense.origin.as_ref(), "m.gguf");
}

#[test]
fn types_of_unknown_size_end_where_the_next_begins() {
    let raw = Raw::new()
        .tensor("x", &[64], 9999, 32)
        .tensor("y", &[1], 0, 96)
        .tensor("z", &[4096], 38, 128)
        .data(140);
    let read = raw.read().unwrap();
    let x = read.tensors.get("x").unwrap();
    assert_eq!(
        (x.stored, x.data.len(), x.data.as_slice()[0]),
        (StoredType::Ggml { id: 9999, name: "unknown" }, 64, 32)
    );
    let z = read.tensors.get("z").unwrap();
    assert_eq!((z.stored.name(), z.data.len()), ("tl1", 12));
}

#[test]
fn empty_tensors_and_files() {
    assert!(Raw::new().read().unwrap().tensors.is_empty());
    let read = Raw::new()
        .tensor("a", &[0], 0, 0)
        .tensor("b", &[], 0, 0)
        .tensor("c", &[5, 0], 0, 0)
        .data(4)
        .read()
        .unwrap();
    assert_eq!(read.tensors.get("b").unwrap().data.as_slice(), [0, 1, 2, 3]);
    assert!(Raw::new().tensor("a", &[0], 0, 0).read().unwrap().tensors.get("a").unwrap().data.is_empty());
    let mut version_two = Raw::new();
    version_two.version = 2;
    assert_eq!(version_two.read().unwrap().version, 2);
}

#[test]
fn versions_and_kinds() {
    let version = |version| Raw { version, ..Raw::new() };
    version(0).refused(&["version 0", "corrupt"]);
    version(1).refused(&["GGUF version 1 is not supported", "convert"]);
    version(4).refused(&["GGUF version 4 is not supported"]);
    version(3 << 24).refused(&["big-endian GGUF (version 3) is not supported", "little-endian"]);
    let message =
        |bytes: &[u8]| read_gguf(ByteView::from_vec(bytes.to_vec()), "m.gguf").unwrap_err().to_string();
    assert!(message(b"").contains("empty"));
    assert!(message(b"version https://git-lfs.github.com/spec/v1\n").contains("Git LFS"));
    assert!(message(b"<html>").contains("web page"));
    assert!(message(b"GGUF").contains("4 bytes are missing: version"));
    assert!(message(b"ABCD").contains("begins with \"ABCD\""));
    let split = Raw::new().pair("split.no", 2, &[1, 0]).pair("split.count", 2, &[3, 0]);
    split.refused(&["(this is part 2 of 3) is not supported", "-00001-of-0000N.gguf"]);
    assert!(Raw::new().pair("split.count", 2, &[1, 0]).read().is_ok());
}

#[test]
fn counts_that_lie() {
    let counts = |tensor_count, pair_count| Raw { tensor_count, pair_count, ..Raw::new() };
    counts(None, Some(3)).refused(&["metadata_kv_count of 3", "39 bytes are missing", "incomplete"]);
    counts(None, Some(u64::MAX)).refused(&["metadata_kv_count: 18446744073709551615; at most"]);
    counts(Some(1), None).refused(&["tensor_count of 1", "24 bytes are missing"]);
    counts(Some(1 << 40), None).refused(&["tensor_count: 1099511627776; at most"]);
    let string_array = |count| Raw::new().array("tokens", 8, count, &string("abc"));
    string_array(3).refused(&["metadata \"tokens\"", "13 bytes are missing"]);
    string_array(1 << 24).refused(&["metadata \"tokens\"", "bytes are missing"]);
    string_array((1 << 24) + 1).refused(&["metadata \"tokens\"", "an array of 16777217 elements"]);
    string_array(u64::MAX).refused(&["metadata \"tokens\"", "an array of 18446744073709551615 elements"]);
    Raw::new().array("scores", 6, 2, &[0; 7]).refused(&["metadata \"scores\"", "1 bytes are missing"]);
    Raw::new().array("scores", 12, u64::MAX / 8 + 1, &[0; 7]).refused(&["metadata \"scores\"", "elements"]);
    let long = |len: u64| Raw::new().pair("name", 8, &len.to_le_bytes());
    long(9).refused(&["metadata \"name\"", "9 bytes are missing"]);
    long(u64::MAX).refused(&["metadata \"name\"", "a string of 18446744073709551615 bytes"]);
    let mut key = Raw::new();
    key.pairs.push([&70_000u64.to_le_bytes()[..], &[0; 20]].concat());
    key.refused(&["key of metadata pair 0", "a string of 70000 bytes; at most 65535"]);
}

#[test]
fn metadata_that_is_wrong() {
    Raw::new().pair("a", 13, &[0]).refused(&["metadata \"a\": value type 13 is not one of 0 to 12"]);
    Raw::new().pair("a", 7, &[2]).refused(&["metadata \"a\": a bool of 2"]);
    Raw::new().array("a", 7, 2, &[1, 9]).refused(&["metadata \"a\": a bool of 9"]);
    Raw::new().array("a", 9, 1, &[0; 20]).refused(&["metadata \"a\": an array of arrays is not supported"]);
    Raw::new().array("a", 14, 1, &[0; 20]).refused(&["metadata \"a\": element type 14"]);
    let twice = Raw::new().pair("a", 0, &[1]).pair("b", 0, &[1]).pair("a", 0, &[2]);
    twice.refused(&["metadata \"a\": the key occurs twice"]);
    let mut bad_text = string("ab");
    bad_text[9] = 0xff;
    Raw::new()
        .pair("a", 8, &bad_text)
        .refused(&["metadata \"a\": the string is not UTF-8", "0xff at its position 1"]);
    let texts = [string("fine"), bad_text].concat();
    Raw::new().array("a", 8, 2, &texts).refused(&["metadata \"a\"[1]: the string is not UTF-8"]);
    let alignment = |value: u32| Raw::new().pair("general.alignment", 4, &value.to_le_bytes());
    alignment(0).refused(&["general.alignment", "0 is not a power of two"]);
    alignment(24).refused(&["24 is not a power of two"]);
    alignment(1 << 31).refused(&["2147483648 is not a power of two up to 1048576"]);
    assert_eq!(alignment(64).read().unwrap().alignment, 64);
    Raw::new()
        .pair("general.alignment", 8, &string("32"))
        .refused(&["\"general.alignment\" is string \"32\""]);
}

#[test]
fn tensors_that_are_wrong() {
    let one = |dims: &[u64], id, offset| Raw::new().tensor("w", dims, id, offset).data(64);
    one(&[1; 5], 0, 0).refused(&["tensor \"w\": it has 5 dimensions; at most 4"]);
    one(&[4], 0, 16).refused(&["tensor \"w\": offset 16 is not a multiple of the alignment 32"]);
    one(&[17], 0, 0).refused(&["tensor \"w\"", "4 bytes are missing", "incomplete"]);
    one(&[1], 0, 64).refused(&["tensor \"w\"", "4 bytes are missing"]);
    one(&[4], 0, 1 << 63).refused(&["tensor \"w\": it would end at byte", "corrupt"]);
    one(&[4], 0, u64::MAX - 31).refused(&["tensor \"w\": it would end at byte"]);
    one(&[1 << 63, 4], 0, 0).refused(&["tensor \"w\": shape [4, 9223372036854775808] is too large"]);
    one(&[1 << 62], 0, 0).refused(&["tensor \"w\": shape [4611686018427387904] is too large"]);
    one(&[48], 8, 0).refused(&["tensor \"w\": shape [48] of type q8_0 is not in whole blocks of 32"]);
    one(&[130], 36, 0).refused(&["tensor \"w\": shape [130] of type i2_s is not a multiple of 4"]);
    one(&[132], 36, 0).refused(&["tensor \"w\"", "1 bytes are missing"]);
    let same = Raw::new().tensor("a", &[4], 0, 0).tensor("b", &[4], 0, 0).data(64);
    same.refused(&["tensor \"a\": its bytes 0..16 of the data overlap tensor \"b\" at 0"]);
    let overlap = Raw::new().tensor("b", &[4], 0, 32).tensor("a", &[9], 0, 0).data(64);
    overlap.refused(&["tensor \"a\": its bytes 0..36 of the data overlap tensor \"b\" at 32"]);
    let twice = Raw::new().tensor("a", &[4], 0, 0).tensor("a", &[4], 0, 32).data(64);
    let message = twice.read().unwrap_err().to_string();
    assert!(message.contains("tensor \"a\" occurs twice, in m.gguf and in m.gguf"), "{message}");
}

#[test]
fn every_truncation_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    write(&path, &all_types(), &[(TensorPlan::new("w", StoredType::F32, [8]), vec![1; 32])]);
    let bytes = std::fs::read(&path).unwrap();
    for len in 4..bytes.len() {
        let error = read_gguf(ByteView::from_vec(bytes[..len].to_vec()), "m").unwrap_err();
        let FormatError::Truncated { needed, len: found, missing, .. } = error else {
            panic!("{len}: {error}")
        };
        assert!(
            found == len as u64 && needed == found + missing && needed <= bytes.len() as u64,
            "{len}: {needed}"
        );
    }
}

fn metadata() -> GgufMetadata {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    write(&path, &all_types(), &[]);
    read_gguf(ByteView::map_file(&path).unwrap(), "m.gguf").unwrap().metadata
}

#[test]
fn metadata_is_asked_for_by_type() {
    let metadata = metadata();
    assert_eq!(metadata.u64("absent").unwrap(), None);
    for (key, value) in
        [("key.0", 255), ("key.2", 65535), ("key.4", u64::from(u32::MAX)), ("key.6", u64::MAX)]
    {
        assert_eq!(metadata.u64(key).unwrap(), Some(value));
    }
    assert_eq!(metadata.f64("key.8").unwrap(), Some(f64::from(1e-5f32)));
    assert_eq!(metadata.f64("key.9").unwrap(), Some(-0.0));
    assert_eq!(metadata.bool("key.10").unwrap(), Some(true));
    assert_eq!(metadata.string("key.12").unwrap(), Some("bitnet-b1.58"));
    assert_eq!(metadata.i32s("key.18").unwrap(), Some(&[1, -3][..]));
    assert_eq!(metadata.f32s("key.21").unwrap(), Some(&[0.5, f32::INFINITY][..]));
    assert_eq!(metadata.strings("key.24").unwrap().unwrap()[1], "Ġthe");
    assert!(matches!(metadata.get("key.13"), Some(GgufValue::Array(GgufArray::U8(v))) if v.len() == 2));
}

#[test]
fn wrong_types_are_named() {
    let metadata = metadata();
    let check = |message: String, parts: [&str; 2]| {
        assert!(
            message.starts_with("m.gguf: metadata") && parts.iter().all(|part| message.contains(part)),
            "{message}"
        );
    };
    check(
        metadata.u64("key.1").unwrap_err().to_string(),
        ["\"key.1\" is i8 -128", "must be a non-negative integer"],
    );
    check(metadata.u64("key.12").unwrap_err().to_string(), ["is string \"bitnet-b1.58\"", "integer"]);
    check(metadata.f64("key.4").unwrap_err().to_string(), ["is u32 4294967295", "must be a float"]);
    check(metadata.bool("key.8").unwrap_err().to_string(), ["is f32 0.00001", "must be a bool"]);
    check(
        metadata.string("key.24").unwrap_err().to_string(),
        ["is array of string with 4 elements", "a string"],
    );
    check(metadata.strings("key.12").unwrap_err().to_string(), ["\"key.12\"", "must be an array of string"]);
    check(metadata.f32s("key.22").unwrap_err().to_string(), ["array of f64 with 0", "array of f32"]);
    check(metadata.i32s("key.17").unwrap_err().to_string(), ["array of u32", "array of i32"]);
}

#[test]
fn writers_refuse_what_the_format_cannot_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let refuse =
        |metadata: &[(String, GgufValue)], plan: &[TensorPlan]| match create_gguf(&path, metadata, plan) {
            Err(error @ FormatError::BadPlan { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
    let plan = |name: &str, stored, shape: &[u64]| TensorPlan::new(name, stored, shape);
    assert!(refuse(&[], &[plan("a", StoredType::U8, &[1])]).contains("tensor \"a\": GGUF has no type u8"));
    assert!(refuse(&[], &[plan("a", StoredType::I2S, &[3])]).contains("the size of i2_s [3] is not known"));
    assert!(refuse(&[], &[plan("a", StoredType::F32, &[1; 5])]).contains("more than 4 dimensions"));
    assert!(refuse(&[], &[plan(&"a".repeat(64), StoredType::F32, &[1])]).contains("64 bytes"));
    assert!(
        refuse(&[], &[plan("a", StoredType::F32, &[1]), plan("a", StoredType::F32, &[1])]).contains("twice")
    );
    let huge = plan("a", StoredType::I8, &[u64::MAX]);
    assert!(refuse(&[], &[huge]).contains("too large"));
    let pair = |key: &str, value| (key.to_owned(), value);
    assert!(refuse(&[pair("general.alignment", GgufValue::U32(64))], &[]).contains("alignment u32 32 only"));
    let twice = [pair("k", GgufValue::Bool(true)), pair("k", GgufValue::Bool(true))];
    assert!(refuse(&twice, &[]).contains("metadata \"k\": the key occurs twice"));

    let writer = create_gguf(&path, &[], &[plan("a", StoredType::F32, &[1])]).unwrap();
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
