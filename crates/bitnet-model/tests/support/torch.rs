//! PyTorch archives as `torch.save` writes them, for models that are made by tests.

use bitnet_formats::StoredType;

use super::Tensor;

/// A file with this state dict.
pub fn archive<'a>(tensors: impl Iterator<Item = (&'a String, &'a Tensor)> + Clone) -> Vec<u8> {
    archive_of(&[b"\x80\x02", &dict(tensors.clone())[..], b"."].concat(), tensors)
}

/// A training checkpoint: the state dict under `model`, every name with `module.` before it.
pub fn checkpoint<'a>(tensors: impl Iterator<Item = (&'a String, &'a Tensor)> + Clone) -> Vec<u8> {
    let named: Vec<(String, Tensor)> =
        tensors.map(|(name, tensor)| (format!("module.{name}"), tensor.clone())).collect();
    let named = named.iter().map(|(name, tensor)| (name, tensor));
    let pickle =
        [b"\x80\x02}(", &text("epoch")[..], b"K\x03", &text("model"), &dict(named.clone()), b"u."].concat();
    archive_of(&pickle, named)
}

fn archive_of<'a>(pickle: &[u8], tensors: impl Iterator<Item = (&'a String, &'a Tensor)>) -> Vec<u8> {
    let mut entries = vec![("m/data.pkl".to_owned(), pickle.to_vec())];
    entries.extend(tensors.enumerate().map(|(i, (_, tensor))| (format!("m/data/{i}"), tensor.bytes.clone())));
    zip(&entries)
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn tuple(numbers: &[u64]) -> Vec<u8> {
    let numbers: Vec<u8> =
        numbers.iter().flat_map(|&n| [&b"J"[..], &(n as i32).to_le_bytes()].concat()).collect();
    [b"(", &numbers[..], b"t"].concat()
}

fn dict<'a>(tensors: impl Iterator<Item = (&'a String, &'a Tensor)>) -> Vec<u8> {
    let mut out = b"}(".to_vec();
    for (i, (name, tensor)) in tensors.enumerate() {
        let class = match tensor.stored {
            StoredType::BF16 => "BFloat16",
            StoredType::F16 => "Half",
            StoredType::F32 => "Float",
            StoredType::U8 => "Byte",
            StoredType::I8 => "Char",
            other => panic!("{other} is not written by tests"),
        };
        let count: u64 = tensor.shape.iter().product();
        let strides: Vec<u64> =
            (1..=tensor.shape.len()).map(|i| tensor.shape[i..].iter().product()).collect();
        out.extend([text(name), b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(), text("storage")].concat());
        out.extend(
            [format!("ctorch\n{class}Storage\n").into_bytes(), text(&i.to_string()), text("cpu")].concat(),
        );
        out.extend([&b"J"[..], &(count as i32).to_le_bytes(), b"tQK\x00", &tuple(&tensor.shape)].concat());
        out.extend([&tuple(&strides)[..], b"\x89ccollections\nOrderedDict\n)RtR"].concat());
    }
    out.push(b'u');
    out
}

fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let sizes = (content.len() as u32).to_le_bytes().repeat(2);
        let (name_len, offset) = ((name.len() as u16).to_le_bytes(), (out.len() as u32).to_le_bytes());
        out.extend(
            [&b"PK\x03\x04\x14\0"[..], &[0; 12], &sizes, &name_len, b"\0\0", name.as_bytes(), content]
                .concat(),
        );
        directory.extend(
            [&b"PK\x01\x02\x14\0\x14\0"[..], &[0; 12], &sizes, &name_len, &[0; 12], &offset].concat(),
        );
        directory.extend(name.as_bytes());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let [size, start] = [directory.len() as u32, out.len() as u32].map(u32::to_le_bytes);
    out.extend(directory);
    out.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count, &size, &start, b"\0\0"].concat());
    out
}
