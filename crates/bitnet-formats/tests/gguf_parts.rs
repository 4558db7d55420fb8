//! Models in several GGUF files.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::path::Path;

use bitnet_core::bytes::ByteView;
use bitnet_formats::{
    FormatError, GgufFile, GgufValue, Result, StoredType, TensorPlan, create_gguf, gguf_part_of, read_gguf,
    read_gguf_parts,
};

/// Files by name.
type Files = BTreeMap<String, Vec<u8>>;

/// A file with tensors of these names and contents.
fn file(folder: &Path, metadata: &[(&str, GgufValue)], tensors: &[(&str, u8)]) -> Vec<u8> {
    let metadata: Vec<(String, GgufValue)> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let plan: Vec<TensorPlan> =
        tensors.iter().map(|(name, _)| TensorPlan::new(*name, StoredType::I8, [5])).collect();
    let path = folder.join("part");
    let mut writer = create_gguf(&path, &metadata, &plan).unwrap();
    tensors.iter().for_each(|(name, byte)| writer.write_tensor(name, &[*byte; 5]).unwrap());
    writer.finish().unwrap();
    std::fs::read(path).unwrap()
}

fn split(number: u16, count: u16) -> [(&'static str, GgufValue); 3] {
    let total = GgufValue::I32(4);
    [
        ("split.no", GgufValue::U16(number)),
        ("split.count", GgufValue::U16(count)),
        ("split.tensors.count", total),
    ]
}

/// Three parts with four tensors.
fn three(folder: &Path) -> Files {
    let mut first = split(0, 3).to_vec();
    first.push(("general.name", GgufValue::String("whole".to_owned())));
    let parts = [
        file(folder, &first, &[("a", 1), ("b", 2)]),
        file(folder, &split(1, 3), &[("c", 3)]),
        file(folder, &split(2, 3), &[("d", 4)]),
    ];
    (1..).zip(parts).map(|(number, bytes)| (format!("m-0000{number}-of-00003.gguf"), bytes)).collect()
}

fn read(files: &Files, name: &str) -> Result<GgufFile> {
    let view = ByteView::from_vec(files[name].clone());
    read_gguf_parts(view, name, &format!("folder/{name}"), &mut |name| {
        Ok(files.get(name).map(|bytes| (ByteView::from_vec(bytes.clone()), format!("folder/{name}"))))
    })
}

#[test]
fn any_part_finds_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let files = three(folder.path());
    for name in files.keys() {
        let whole = read(&files, name).unwrap();
        let tensors: Vec<(&str, u8, &str)> = whole
            .tensors
            .iter()
            .map(|t| (t.name.as_str(), t.data.as_slice()[4], t.origin.as_ref()))
            .collect();
        let place = |number| format!("folder/m-0000{number}-of-00003.gguf");
        let (one, two, three) = (place(1), place(2), place(3));
        assert_eq!(tensors, [("a", 1, &*one), ("b", 2, &one), ("c", 3, &two), ("d", 4, &three)]);
        assert_eq!(whole.metadata.string("general.name").unwrap(), Some("whole"));
        assert_eq!(whole.file_bytes, files.values().map(|bytes| bytes.len() as u64).sum::<u64>());
    }
    // A file with one part of one is whole, whatever it is called.
    let one = Files::from([("x".to_owned(), file(folder.path(), &split(0, 1), &[("a", 1)]))]);
    assert_eq!(read(&one, "x").unwrap().tensors.len(), 1);
}

#[test]
fn parts_that_are_missing_or_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = three(folder.path());
    let (first, second) = ("m-00001-of-00003.gguf", "m-00002-of-00003.gguf");
    let message = |files: &Files, name: &str| {
        let message = read(files, name).unwrap_err().to_string();
        assert!(message.contains(".gguf") && message.lines().count() == 1, "{message}");
        message
    };
    let mut missing = files.clone();
    missing.remove(second);
    assert!(matches!(read(&missing, first), Err(FormatError::MissingPart { part: 2, count: 3, .. })));
    assert!(message(&missing, first).contains("\"m-00002-of-00003.gguf\" is missing, which is part 2 of 3"));

    let mut renamed = files.clone();
    renamed.insert("other.gguf".to_owned(), files[first].clone());
    let text = message(&renamed, "other.gguf");
    assert!(text.contains("\"other.gguf\"") && text.contains("-00001-of-00003.gguf"), "{text}");
    // The third part under the name of the second.
    let mut swapped = files.clone();
    swapped.insert(second.to_owned(), files["m-00003-of-00003.gguf"].clone());
    let text = message(&swapped, first);
    assert!(text.contains("by its name it is part 2 of 3, but it says it is part 3 of 3"), "{text}");

    let mut whole = files.clone();
    whole.insert(second.to_owned(), file(folder.path(), &[], &[("c", 3)]));
    assert!(message(&whole, first).contains("it is a whole file"));
    let mut fewer = files.clone();
    fewer.insert(second.to_owned(), file(folder.path(), &split(1, 3), &[]));
    assert!(message(&fewer, first).contains("it tells of 4 tensors, but all parts together have 3"));
    let mut twice = files.clone();
    twice.insert(second.to_owned(), file(folder.path(), &split(1, 3), &[("a", 3)]));
    assert!(matches!(read(&twice, first), Err(FormatError::DuplicateTensor { .. })));
    let mut damaged = files.clone();
    damaged.get_mut(second).unwrap().truncate(40);
    assert!(message(&damaged, first).contains(second));

    let bad = |metadata: &[(&str, GgufValue)]| {
        let files = Files::from([("m.gguf".to_owned(), file(folder.path(), metadata, &[]))]);
        message(&files, "m.gguf")
    };
    assert!(bad(&split(3, 3)).contains("3 is beyond the 3 parts"));
    assert!(bad(&split(0, 60_000)).contains("60000 parts"));
    assert!(bad(&[("split.count", GgufValue::U16(2))]).contains("\"split.no\": it is missing"));
    let alone = read_gguf(ByteView::from_vec(files[first].clone()), "m.gguf").unwrap_err().to_string();
    assert!(alone.contains("(this is part 1 of 3)"), "{alone}");
}

#[test]
fn names_of_parts() {
    assert_eq!(gguf_part_of("a-b-00002-of-00010.gguf"), Some(("a-b", 2)));
    for other in
        ["a.gguf", "a-2-of-10.gguf", "a-00002-of-00010.bin", "-00001-of-00002.gguf", "a-0000x-of-00002.gguf"]
    {
        assert_eq!(gguf_part_of(other), None, "{other}");
    }
}
