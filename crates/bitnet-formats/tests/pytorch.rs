//! Files written by torch itself, and such as torch never wrote.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use bitnet_core::bytes::ByteView;
use bitnet_formats::{FormatError, PytorchFile, ShardIndex, read_pytorch, read_pytorch_shards};
use serde_json::Value;

fn testdata(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/pytorch")).join(name)
}

fn read(name: &str) -> Result<PytorchFile, FormatError> {
    read_pytorch(ByteView::map_file(&testdata(name)).unwrap(), name)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn files_of_torch_hold_what_torch_says() {
    let text = std::fs::read_to_string(testdata("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    for (file, tensors) in expected["files"].as_object().unwrap() {
        let found = read(file).unwrap().tensors;
        let names: Vec<&str> = found.iter().map(|tensor| tensor.name.as_str()).collect();
        let wanted: Vec<&String> = tensors.as_object().unwrap().keys().collect();
        assert_eq!(names, wanted, "{file}");
        for (tensor, wanted) in found.iter().zip(tensors.as_object().unwrap().values()) {
            let case = format!("{file}: {}", tensor.name);
            assert_eq!(tensor.stored.name(), wanted["dtype"], "{case}");
            assert_eq!(serde_json::json!(tensor.shape), wanted["shape"], "{case}");
            assert_eq!(hex(tensor.data.as_slice()), wanted["hex"], "{case}");
        }
    }
}

#[test]
fn what_is_in_order_stays_in_the_mapped_file() {
    for file in ["zip.pt", "legacy.pt", "protocol4.pt"] {
        let tensors = read(file).unwrap().tensors;
        let tensor = |name: &str| tensors.get(name).unwrap();
        for name in ["plain.bf16", "base", "tied", "rows", "scalar", "parameter"] {
            assert!(tensor(name).data.is_mapped(), "{file}: {name}");
        }
        for name in ["transposed", "column", "corner", "expanded", "permuted"] {
            assert!(!tensor(name).data.is_mapped(), "{file}: {name}");
        }
        let start = |name: &str| tensor(name).data.as_slice().as_ptr() as usize;
        assert_eq!(start("base"), start("tied"));
        assert_eq!(start("rows") - start("base"), 2 * 8 * 4);
    }
}

#[test]
fn what_is_beside_the_state_dict_is_named() {
    for file in ["checkpoint.pt", "checkpoint-legacy.pt"] {
        let skipped = read(file).unwrap().skipped;
        for key in ["epoch", "optimizer", "args", "rng_state"] {
            assert!(skipped.iter().any(|skipped| skipped == key), "{file}: {key} in {skipped:?}");
        }
    }
    assert!(read("zip.pt").unwrap().skipped.is_empty());
}

#[test]
fn a_pickled_model_is_refused_by_the_name_of_its_class() {
    let error = read("module.pt").unwrap_err();
    assert!(matches!(error, FormatError::ForbiddenGlobal { .. }), "{error}");
    let message = error.to_string();
    assert!(
        message.contains("torch.nn.modules.container.Sequential") && message.contains("state dict"),
        "{message}"
    );
}

#[test]
fn truncated_files_are_errors() {
    for file in ["zip.pt", "legacy.pt", "checkpoint.pt"] {
        let whole = std::fs::read(testdata(file)).unwrap();
        for len in 0..whole.len() {
            let Err(error) = read_pytorch(ByteView::from_vec(whole[..len].to_vec()), file) else {
                panic!("{file} cut to {len} bytes is read");
            };
            let message = error.to_string();
            assert!(message.contains(file) && !message.contains('\n'), "{message}");
        }
    }
}

/// A stored zip archive of these entries.
fn zip(entries: &[(&str, &[u8])], method: u16) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let sizes =
            [&(content.len() as u32).to_le_bytes()[..], &(content.len() as u32).to_le_bytes()].concat();
        let name_len = (name.len() as u16).to_le_bytes();
        let offset = out.len() as u32;
        let method = method.to_le_bytes();
        out.extend(
            [b"PK\x03\x04\x14\0\0\0", &method[..], b"\0\0\0\0\0\0\0\0", &sizes, &name_len, b"\0\0"].concat(),
        );
        out.extend([name.as_bytes(), content].concat());
        directory.extend(
            [b"PK\x01\x02\x14\0\x14\0\0\0", &method[..], b"\0\0\0\0\0\0\0\0", &sizes, &name_len, &[0; 12]]
                .concat(),
        );
        directory.extend([&offset.to_le_bytes()[..], name.as_bytes()].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let [size, start] = [directory.len() as u32, out.len() as u32].map(u32::to_le_bytes);
    out.extend(directory);
    out.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count, &size, &start, b"\0\0"].concat());
    out
}

fn error_of(bytes: Vec<u8>) -> String {
    read_pytorch(ByteView::from_vec(bytes), "m.pt").unwrap_err().to_string()
}

#[test]
fn archives_that_are_not_as_torch_writes_them() {
    let empty = b"}.".as_slice();
    let one = |name, content| zip(&[(name, content)], 0);
    for (bytes, part) in [
        (zip(&[("a/data.pkl", empty)], 8), "compressed"),
        (one("a/data.pkl", empty), "without tensors"),
        (one("a/data.pkl", b"K\x01."), "no dictionary"),
        (one("a/data.pkl", b"]."), "a list"),
        (zip(&[("a/data.pkl", empty), ("a/byteorder", b"big")], 0), "big-endian"),
        (zip(&[("a/data.pkl", empty), ("a/constants.pkl", b"")], 0), "TorchScript"),
        (zip(&[("a/data.pkl", empty), ("a/data.pkl", empty)], 0), "twice"),
        (one("a/data.pkl", b"cos\nsystem\nX\x02\0\0\0ls\x85R."), "os.system"),
        (one("a/data.pkl", b"ctorch\nComplexFloatStorage\n."), "ComplexFloatStorage"),
        (b"PK\x03\x04 a/data.pkl".to_vec(), "incomplete"),
        (b"\x02\0\0\0\0\0\0\0{}".to_vec(), "not a PyTorch file but a safetensors file"),
        (Vec::new(), "empty"),
    ] {
        let message = error_of(bytes);
        assert!(message.starts_with("m.pt: ") && message.contains(part), "{part}: {message}");
    }
}

/// A pickle of one tensor of four f32 under the name `t`.
fn pickle(sizes: &[u8], strides: &[u8], offset: u8) -> Vec<u8> {
    let tuple = |numbers: &[u8]| {
        let numbers: Vec<u8> = numbers.iter().flat_map(|&n| [b'K', n]).collect();
        [b"(", &numbers[..], b"t"].concat()
    };
    [
        &b"}X\x01\0\0\0tctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n"[..],
        b"X\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ",
        &[b'K', offset],
        &tuple(sizes),
        &tuple(strides),
        b"\x89}tRs.",
    ]
    .concat()
}

#[test]
fn views_are_checked_against_their_storages() {
    let file =
        |pickle: &[u8], storage: usize| zip(&[("a/data.pkl", pickle), ("a/data/0", &vec![7; storage])], 0);
    let good = read_pytorch(ByteView::from_vec(file(&pickle(&[2, 2], &[2, 1], 0), 16)), "m.pt").unwrap();
    assert_eq!(good.tensors.get("t").unwrap().data.as_slice(), [7; 16]);
    for (bytes, part) in [
        (file(&pickle(&[2, 2], &[2, 1], 1), 16), "reach beyond its storage"),
        (file(&pickle(&[2, 2], &[200, 1], 0), 16), "reach beyond its storage"),
        (file(&pickle(&[2, 2], &[2], 0), 16), "as many strides"),
        (file(&pickle(&[255, 255], &[0, 0], 0), 16), "larger than the file"),
        (file(&pickle(&[2, 2], &[2, 1], 0), 15), "fewer than the pickle says"),
        (zip(&[("a/data.pkl", &pickle(&[2, 2], &[2, 1], 0))], 0), "not in the archive"),
    ] {
        let message = error_of(bytes);
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn shards_must_agree_with_their_index() {
    let bytes = zip(&[("a/data.pkl", &pickle(&[4], &[1], 0)), ("a/data/0", &[1; 16])], 0);
    let shard = ByteView::from_vec(bytes);
    let index = |text: &str| ShardIndex::from_json(text.as_bytes(), "pytorch_model.bin.index.json").unwrap();
    let good = index(r#"{"weight_map": {"t": "pytorch_model-00001-of-00001.bin"}}"#);
    let tensors = read_pytorch_shards(&good, "index", &mut |_| Ok(shard.clone())).unwrap();
    assert_eq!(tensors.get("t").unwrap().data.as_slice(), [1; 16]);
    let more = index(r#"{"weight_map": {"t": "a.bin", "u": "a.bin"}}"#);
    let error = read_pytorch_shards(&more, "index", &mut |_| Ok(shard.clone())).unwrap_err();
    assert!(matches!(error, FormatError::MissingFromShard { .. }), "{error}");
    assert!(ShardIndex::from_json(br#"{"weight_map": {"t": "../a.bin"}}"#, "index").is_err());
}

/// Archives beyond 4 GiB hold their sizes in 64 bits; a small one may as well.
#[test]
fn zip64_archives_are_read() {
    let small = zip(&[("a/data.pkl", &pickle(&[4], &[1], 0)), ("a/data/0", &[9; 16])], 0);
    let end = small.len() - 22;
    let number = |at: usize| u64::from(u32::from_le_bytes(small[at..at + 4].try_into().unwrap()));
    let (size, start) = (number(end + 12), number(end + 16));
    let mut entry = small[end - 46 - 8..end].to_vec();
    // The last entry: its three numbers go to an extra field.
    let offset = u64::from(u32::from_le_bytes(entry[42..46].try_into().unwrap()));
    entry[20..28].fill(0xff);
    entry[42..46].fill(0xff);
    entry[30] = 28;
    entry.extend([1, 0, 24, 0]);
    entry.extend([16u64, 16, offset].map(u64::to_le_bytes).concat());
    let mut bytes = [&small[..end - 46 - 8], &entry].concat();
    let record = bytes.len() as u64;
    let counts = [2u64, 2, size + 28, start].map(u64::to_le_bytes).concat();
    bytes.extend(
        [b"PK\x06\x06", &44u64.to_le_bytes()[..], &[45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0], &counts].concat(),
    );
    bytes.extend([b"PK\x06\x07\0\0\0\0", &record.to_le_bytes()[..], &1u32.to_le_bytes()].concat());
    bytes.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
    let file = read_pytorch(ByteView::from_vec(bytes), "m.pt").unwrap();
    assert_eq!(file.tensors.get("t").unwrap().data.as_slice(), [9; 16]);
}
