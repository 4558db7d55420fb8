//! Reader and writer of safetensors against each other, against real files, and against bad ones.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bitnet_core::bytes::ByteView;
use bitnet_formats::{FormatError, StoredType, TensorPlan, create_safetensors, detect, read_safetensors};
use proptest::prelude::*;

/// A file of this header and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn refusal(bytes: impl Into<Vec<u8>>) -> String {
    let message =
        read_safetensors(ByteView::from_vec(bytes.into()), "m.safetensors").unwrap_err().to_string();
    assert!(message.starts_with("m.safetensors: ") && message.lines().count() == 1, "{message}");
    message
}

/// Asserts that a file with this header and data is refused with a message that has all the parts.
fn refuses(header: &str, data: &[u8], parts: &[&str]) {
    let message = refusal(file(header, data));
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

const TYPES: [StoredType; 15] = [
    StoredType::F64,
    StoredType::F32,
    StoredType::F16,
    StoredType::BF16,
    StoredType::I64,
    StoredType::I32,
    StoredType::I16,
    StoredType::I8,
    StoredType::U64,
    StoredType::U32,
    StoredType::U16,
    StoredType::U8,
    StoredType::Bool,
    StoredType::F8E4M3,
    StoredType::F8E5M2,
];

fn tensors() -> impl Strategy<Value = Vec<(StoredType, Vec<u64>, u8)>> {
    let shape = proptest::collection::vec(0u64..6, 0..4);
    proptest::collection::vec((proptest::sample::select(&TYPES[..]), shape, any::<u8>()), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(
        tensors in tensors(),
        metadata in proptest::collection::btree_map(".{0,12}", ".{0,12}", 0..4),
        odd_name in ".{1,12}",
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let plan: Vec<TensorPlan> = tensors
            .iter()
            .enumerate()
            .map(|(i, (stored, shape, _))| TensorPlan::new(format!("{i} {odd_name}"), *stored, shape.clone()))
            .collect();
        let content = |i: usize| vec![tensors[i].2; plan[i].stored.byte_len(&plan[i].shape).unwrap() as usize];
        let mut writer = create_safetensors(&path, &plan, &metadata).unwrap();
        for (i, tensor) in plan.iter().enumerate() {
            if i % 2 == 0 {
                writer.write_tensor(&tensor.name, &content(i)).unwrap();
            } else {
                writer.begin(&tensor.name).unwrap();
                content(i).chunks(3).for_each(|chunk| writer.append(chunk).unwrap());
            }
        }
        writer.finish().unwrap();

        let view = ByteView::map_file(&path).unwrap();
        let bytes = view.as_slice();
        prop_assert_eq!(detect(bytes), bitnet_formats::Container::Safetensors);
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        prop_assert!(header.is_multiple_of(8));
        let read = read_safetensors(view.clone(), "m").unwrap();
        prop_assert_eq!(&read.metadata, &metadata);
        prop_assert_eq!(read.tensors.len(), plan.len());
        for (i, plan) in plan.iter().enumerate() {
            let tensor = read.tensors.get(&plan.name).unwrap();
            prop_assert_eq!((tensor.stored, &tensor.shape), (plan.stored, &plan.shape));
            prop_assert_eq!(tensor.data.as_slice(), content(i));
            let at = tensor.data.as_slice().as_ptr() as usize - bytes.as_ptr() as usize;
            prop_assert!(tensor.data.is_empty() || (at as u64).is_multiple_of(plan.stored.element_size().unwrap()));
        }
    }
}

#[test]
fn real_files_are_read_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let vectors = root.join("../../testdata/vectors");
    let models =
        ["tiny-bitnet-packed", "tiny-bitnet-bf16", "tiny-bitnet-bf16-packed", "tiny-llama-bitlinear"];
    let mut paths: Vec<PathBuf> =
        models.iter().map(|name| vectors.join(name).join("model.safetensors")).collect();
    paths.extend(models.iter().map(|name| vectors.join(name).join("reference.safetensors")));
    paths.push(root.join("../bitnet-tiny/model/model.safetensors"));
    for path in paths {
        let view = ByteView::map_file(&path).unwrap();
        let read = read_safetensors(view.clone(), "m").unwrap();
        let total: u64 = read.tensors.iter().map(|tensor| tensor.data.len() as u64).sum();
        let header = u64::from_le_bytes(view.as_slice()[..8].try_into().unwrap());
        assert_eq!(8 + header + total, view.len() as u64, "{}", path.display());
        assert!(!read.tensors.is_empty());
    }
    let view = ByteView::map_file(&vectors.join("tiny-bitnet-packed/model.safetensors")).unwrap();
    let read = read_safetensors(view, "m").unwrap();
    assert_eq!(read.metadata, BTreeMap::from([("format".to_owned(), "pt".to_owned())]));
    let packed = read.tensors.get("model.layers.1.mlp.gate_proj.weight").unwrap();
    assert_eq!(
        (packed.stored, packed.shape.as_slice(), packed.elements()),
        (StoredType::U8, &[128, 256][..], Some(32768))
    );
    let scale = read.tensors.get("model.layers.1.mlp.gate_proj.weight_scale").unwrap();
    assert_eq!((scale.stored, scale.shape.as_slice(), scale.data.len()), (StoredType::BF16, &[1][..], 2));
    assert_eq!(read.tensors.iter().next().unwrap().name, "model.embed_tokens.weight");
}

#[test]
fn bf16_values_survive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m");
    let values: Vec<half::bf16> = [1.5, -0.25, 240.0].map(half::bf16::from_f32).to_vec();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut writer =
        create_safetensors(&path, &[TensorPlan::new("w", StoredType::BF16, [3])], &BTreeMap::new()).unwrap();
    writer.write_tensor("w", &bytes).unwrap();
    writer.finish().unwrap();
    let read = read_safetensors(ByteView::map_file(&path).unwrap(), "m").unwrap();
    let tensor = read.tensors.get("w").unwrap();
    let mut out = [0.0; 3];
    tensor.stored.dense().unwrap().decode(tensor.data.as_slice(), &mut out);
    assert_eq!(out, [1.5, -0.25, 240.0]);
}

#[test]
fn wrong_kinds_of_files() {
    assert!(refusal("").contains("empty"));
    assert!(refusal("version https://git-lfs.github.com/spec/v1\n").contains("Git LFS pointer"));
    assert!(refusal("<!doctype html>").contains("web page"));
    assert!(refusal(*b"GGUF\x03\0\0\0").contains("not a safetensors file but a GGUF file"));
    assert!(refusal([0; 100]).contains("unknown content"));
    let mut absurd = file("{}", b"");
    absurd[7] = 0x80;
    assert!(refusal(absurd).contains("unknown content"));
}

#[test]
fn short_files_say_how_much_is_missing() {
    let mut header_cut = file("{      }", b"");
    header_cut.truncate(13);
    assert!(
        refusal(header_cut)
            .contains("3 bytes are missing: the header reaches to byte 16, but the file ends at 13")
    );
    let header = r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    refuses(header, &[0; 10], &["6 bytes are missing", "tensor \"a\"", "download is incomplete"]);
    let header =
        r#"{"a":{"dtype":"U8","shape":[4611686018427387904],"data_offsets":[0,4611686018427387904]}}"#;
    refuses(header, &[0; 10], &["tensor \"a\"", "it would end at byte", "corrupt"]);
}

#[test]
fn headers_that_lie() {
    let one = |fields: &str| format!("{{\"a\":{{{fields}}}}}");
    let check = |fields: &str, data: &[u8], parts: &[&str]| refuses(&one(fields), data, parts);
    check(
        r#""dtype":"F32","shape":[2],"data_offsets":[0,4]"#,
        &[0; 4],
        &["\"a\"", "takes 8 bytes", "have 4"],
    );
    check(r#""dtype":"F32","shape":[1],"data_offsets":[4,0]"#, &[0; 4], &["\"a\"", "[4, 0] run backwards"]);
    check(
        r#""dtype":"F4","shape":[1],"data_offsets":[0,4]"#,
        &[0; 4],
        &["\"a\"", "type \"F4\" is not supported"],
    );
    check(
        r#""dtype":"U8","shape":[8589934592,8589934592],"data_offsets":[0,4]"#,
        &[0; 4],
        &["\"a\"", "too large"],
    );
    check(r#""dtype":"U8","shape":[-1],"data_offsets":[0,4]"#, &[0; 4], &["\"a\"", "-1"]);
    check(r#""dtype":"U8","shape":[1.5],"data_offsets":[0,4]"#, &[0; 4], &["\"a\"", "1.5"]);
    check(r#""dtype":"U8","shape":[1e3],"data_offsets":[0,4]"#, &[0; 4], &["\"a\""]);
    check(r#""dtype":"U8","shape":"4","data_offsets":[0,4]"#, &[0; 4], &["\"a\"", "a shape"]);
    check(r#""dtype":"U8","shape":[4],"data_offsets":[0]"#, &[0; 4], &["\"a\"", "length 1"]);
    check(r#""dtype":"U8","shape":[4]"#, &[0; 4], &["\"a\"", "data_offsets"]);
    check(r#""dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]"#, &[0; 4], &["\"a\"", "duplicate"]);
    let many = format!(r#""dtype":"U8","shape":[{}1],"data_offsets":[0,1]"#, "1,".repeat(16));
    check(&many, &[0; 1], &["\"a\"", "more than 16 dimensions"]);
    refuses("{\"a\": ", b"", &["JSON header", "EOF"]);
    refuses("{\"a\":1}", b"", &["the JSON header: tensor \"a\": invalid type: integer `1`", "column 6"]);
    refuses("{} x", b"", &["JSON header", "trailing"]);
    refuses(r#"{"__metadata__":{"a":1}}"#, b"", &["__metadata__"]);
    refuses(r#"{"__metadata__":{"a":"1","a":"2"}}"#, b"", &["\"a\" occurs twice"]);
    refuses(r#"{"__metadata__":{},"__metadata__":{}}"#, b"", &["__metadata__ occurs twice"]);
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    refuses(&deep, b"", &["JSON header"]);
    let deep = format!(r#"{{"a":{{"x":{}"#, r#"{"x":"#.repeat(100_000));
    refuses(&deep, b"", &["JSON header"]);
    let mut not_utf8 = file("{\"a\":1}", b"");
    not_utf8[10] = 0xff;
    assert!(refusal(not_utf8).contains("JSON header"));
}

#[test]
fn data_is_covered_exactly_once() {
    let two = |a: [u64; 2], b: [u64; 2]| {
        let entry = |[start, end]: [u64; 2]| {
            format!(r#"{{"dtype":"U8","shape":[{}],"data_offsets":[{start},{end}]}}"#, end - start)
        };
        format!(r#"{{"a":{},"b":{}}}"#, entry(a), entry(b))
    };
    refuses(&two([0, 4], [5, 8]), &[0; 8], &["tensor \"b\"", "leaves a gap", "begins at 5 instead of 4"]);
    refuses(&two([0, 4], [3, 8]), &[0; 8], &["tensor \"b\"", "overlaps"]);
    refuses(&two([0, 4], [0, 4]), &[0; 4], &["overlaps"]);
    refuses(&two([1, 4], [4, 8]), &[0; 8], &["tensor \"a\"", "leaves a gap"]);
    refuses(&two([0, 4], [4, 8]), &[0; 9], &["1 bytes after the last tensor"]);
    refuses("{}", &[0; 9], &["9 bytes after the last tensor"]);
    let twice = file(&two([0, 4], [4, 8]).replace("\"b\"", "\"a\""), &[0; 8]);
    let error = read_safetensors(ByteView::from_vec(twice), "m").unwrap_err().to_string();
    assert!(error.contains("tensor \"a\" occurs twice, in m and in m"), "{error}");
    let swapped =
        read_safetensors(ByteView::from_vec(file(&two([4, 8], [0, 4]), &[0, 0, 0, 0, 1, 1, 1, 1])), "m");
    assert_eq!(swapped.unwrap().tensors.get("a").unwrap().data.as_slice(), [1; 4]);
    assert!(read_safetensors(ByteView::from_vec(file("{}", b"")), "m").unwrap().tensors.is_empty());
}

#[test]
fn writers_refuse_what_the_format_cannot_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let refuse = |plan: &[TensorPlan]| match create_safetensors(&path, plan, &BTreeMap::new()) {
        Err(error @ FormatError::BadPlan { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let plan = |name: &str, stored, shape: &[u64]| TensorPlan::new(name, stored, shape);
    assert!(
        refuse(&[plan("a", StoredType::I2S, &[128])]).contains("tensor \"a\": safetensors has no type i2_s")
    );
    assert!(refuse(&[plan("a", StoredType::U8, &[1]), plan("a", StoredType::U8, &[1])]).contains("twice"));
    assert!(refuse(&[plan("__metadata__", StoredType::U8, &[1])]).contains("reserved"));
    assert!(refuse(&[plan("a", StoredType::F32, &[1 << 62])]).contains("too large"));
    let most = plan("a", StoredType::U8, &[u64::MAX]);
    assert!(refuse(&[most, plan("b", StoredType::U8, &[1])]).contains("too many bytes"));
    let empty_folder = std::fs::read_dir(folder.path()).unwrap().count() == 0;
    assert!(empty_folder);

    let mut writer = create_safetensors(&path, &[plan("a", StoredType::U8, &[2])], &BTreeMap::new()).unwrap();
    writer.begin("a").unwrap();
    writer.append(&[1]).unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("1 bytes were given"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
