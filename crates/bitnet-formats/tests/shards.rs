//! The index of sharded models, and files that do not agree with it.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, HashMap};

use bitnet_core::bytes::ByteView;
use bitnet_formats::{
    FormatError, Result, ShardIndex, StoredType, TensorPlan, TensorSet, create_safetensors, read_shards,
};

const INDEX: &str = "model.safetensors.index.json";

/// The bytes of a shard that holds one byte for each name.
fn shard(names: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shard");
    let plan: Vec<TensorPlan> =
        names.iter().map(|name| TensorPlan::new(*name, StoredType::U8, [1])).collect();
    let mut writer = create_safetensors(&path, &plan, &BTreeMap::new()).unwrap();
    for name in names {
        writer.write_tensor(name, &name.as_bytes()[..1]).unwrap();
    }
    writer.finish().unwrap();
    std::fs::read(&path).unwrap()
}

fn read(index: &str, files: &[(&str, Vec<u8>)]) -> Result<TensorSet> {
    let index = ShardIndex::from_json(index.as_bytes(), INDEX)?;
    let files: HashMap<&str, &Vec<u8>> = files.iter().map(|(name, bytes)| (*name, bytes)).collect();
    read_shards(&index, INDEX, &mut |name| {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let bytes = files.get(name).ok_or_else(|| FormatError::Io {
            action: "read",
            path: name.into(),
            source: missing(),
        })?;
        Ok(ByteView::from_vec((*bytes).clone()))
    })
}

#[test]
fn shards_are_joined() {
    let index = r#"{"metadata":{"total_size":3,"x":[1,{}]},"weight_map":{"a":"1.st","c":"2.st","b":"1.st"}}"#;
    let parsed = ShardIndex::from_json(index.as_bytes(), INDEX).unwrap();
    assert_eq!(parsed.files, ["1.st", "2.st"]);
    assert_eq!(parsed.weight_map["b"], "1.st");
    let all = read(index, &[("1.st", shard(&["a", "b"])), ("2.st", shard(&["c"]))]).unwrap();
    let names: Vec<(&str, &str)> = all.iter().map(|t| (t.name.as_str(), t.origin.as_ref())).collect();
    assert_eq!(names, [("a", "1.st"), ("b", "1.st"), ("c", "2.st")]);
    assert_eq!(all.get("c").unwrap().data.as_slice(), b"c");
}

#[test]
fn index_and_files_must_agree() {
    let index = r#"{"weight_map":{"a":"1.st","b":"2.st"}}"#;
    let message = |files: &[(&str, Vec<u8>)]| read(index, files).unwrap_err().to_string();
    let missing = message(&[("1.st", shard(&["a"])), ("2.st", shard(&[]))]);
    assert!(missing.starts_with("2.st: tensor \"b\" is missing"), "{missing}");
    let extra = message(&[("1.st", shard(&["a", "x"])), ("2.st", shard(&["b"]))]);
    assert!(
        extra.starts_with("1.st: tensor \"x\" is in no file according to model.safetensors.index.json"),
        "{extra}"
    );
    let elsewhere = message(&[("1.st", shard(&["a", "b"])), ("2.st", shard(&["b"]))]);
    assert!(elsewhere.starts_with("1.st: tensor \"b\" is in \"2.st\" according to"), "{elsewhere}");
    let absent = message(&[("1.st", shard(&["a"]))]);
    assert!(absent.starts_with("cannot read 2.st"), "{absent}");
    let mut cut = shard(&["b"]);
    cut.pop();
    let cut = message(&[("1.st", shard(&["a"])), ("2.st", cut)]);
    assert!(cut.starts_with("2.st: 1 bytes are missing"), "{cut}");
}

#[test]
fn file_names_stay_in_the_folder() {
    let long = "x".repeat(256);
    for name in
        [long.as_str(), "../a", "/etc/passwd", "a/b", "a\\\\b", "..", ".", "", "C:a", "a\\u0000b", "a\\nb"]
    {
        let index = format!(r#"{{"weight_map":{{"t":"{name}"}}}}"#);
        let error = ShardIndex::from_json(index.as_bytes(), INDEX).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, FormatError::Malformed { .. }), "{message}");
        assert!(
            message.starts_with(INDEX) && message.contains("file name") && message.lines().count() == 1,
            "{message}"
        );
    }
    let fine = r#"{"weight_map":{"t":"model-00001-of-00002.safetensors"}}"#;
    assert_eq!(ShardIndex::from_json(fine.as_bytes(), INDEX).unwrap().files.len(), 1);
}

#[test]
fn texts_that_are_no_index() {
    let deep = "[".repeat(200_000);
    for (text, part) in [
        ("", "empty"),
        ("<html>", "web page"),
        ("version https://git-lfs.github.com/spec/v1\nsize 9\n", "Git LFS"),
        ("{}", "missing field `weight_map`"),
        ("[]", "invalid length 0"),
        (r#"{"weight_map":{}}"#, "names no tensors"),
        (r#"{"weight_map":{"a":1}}"#, "expected a string"),
        (r#"{"weight_map":{"a":"x","a":"y"}}"#, "\"a\" occurs twice"),
        (r#"{"weight_map":{"a":"x"}"#, "JSON of the index: EOF"),
        (deep.as_str(), "invalid type: sequence"),
    ] {
        let message = ShardIndex::from_json(text.as_bytes(), INDEX).unwrap_err().to_string();
        assert!(message.starts_with(INDEX) && message.contains(part), "{part:?} is not in: {message}");
    }
}
