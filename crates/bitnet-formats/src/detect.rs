//! Which container some bytes are, by content and never by file name.

use crate::error::quoted;
use crate::safetensors::MAX_HEADER_BYTES;
use crate::{FormatError, Result};

/// Kinds of model files, and the things people have instead of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Container {
    /// A safetensors file.
    Safetensors,
    /// A GGUF file of any version.
    Gguf,
    /// A zip archive written by `torch.save`.
    PytorchZip,
    /// A file of `torch.save` before version 1.6.
    PytorchLegacy,
    /// An ONNX model (a protobuf that begins as ONNX files do).
    Onnx,
    /// A GGML file of the years before GGUF.
    OldGgml,
    /// The text that Git LFS leaves in place of a file.
    LfsPointer,
    /// An HTML or XML page.
    WebPage,
    /// No bytes at all.
    Empty,
    /// None of these.
    Unknown,
}

impl Container {
    /// What to call it in a message.
    pub const fn name(self) -> &'static str {
        match self {
            Container::Safetensors => "a safetensors file",
            Container::Gguf => "a GGUF file",
            Container::PytorchZip => "a PyTorch zip archive",
            Container::PytorchLegacy => "a PyTorch file of before version 1.6",
            Container::Onnx => "an ONNX model",
            Container::OldGgml => "a GGML file older than GGUF",
            Container::LfsPointer => "a Git LFS pointer",
            Container::WebPage => "a web page",
            Container::Empty => "an empty file",
            Container::Unknown => "of unknown content",
        }
    }
}

/// Long magic number with which old PyTorch files begin, pickled.
const TORCH_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
const LFS_MAGIC: &[u8] = b"version https://git-lfs.github.com/spec";
const OLD_GGML: [&[u8; 4]; 4] = [b"lmgg", b"tjgg", b"algg", b"fmgg"];

/// Says which container `bytes` are. The first few kilobytes are enough, except to tell a PyTorch archive whose pickle
/// is not its first entry from other zip archives.
pub fn detect(bytes: &[u8]) -> Container {
    if bytes.is_empty() {
        Container::Empty
    } else if bytes.starts_with(b"GGUF") {
        Container::Gguf
    } else if bytes.starts_with(LFS_MAGIC) {
        Container::LfsPointer
    } else if bytes.starts_with(TORCH_MAGIC) {
        Container::PytorchLegacy
    } else if bytes.starts_with(b"PK\x03\x04") && holds_pickle(bytes) {
        Container::PytorchZip
    } else if OLD_GGML.iter().any(|magic| bytes.starts_with(*magic)) {
        Container::OldGgml
    } else if is_safetensors(bytes) {
        Container::Safetensors
    } else if is_web_page(bytes) {
        Container::WebPage
    } else if is_onnx(bytes) {
        Container::Onnx
    } else {
        Container::Unknown
    }
}

fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return false };
    let length = u64::from_le_bytes(*length);
    (2..=MAX_HEADER_BYTES).contains(&length) && rest.first() == Some(&b'{')
}

/// Names are stored plainly in zip archives: in the first local headers and in the directory at the end.
fn holds_pickle(bytes: &[u8]) -> bool {
    const NAME: &[u8] = b"/data.pkl";
    let head = &bytes[..bytes.len().min(4096)];
    let tail = &bytes[bytes.len().saturating_sub(1 << 16)..];
    [head, tail].iter().any(|part| part.windows(NAME.len()).any(|window| window == NAME))
}

fn is_web_page(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    [&b"<!doctype html"[..], b"<html", b"<head", b"<?xml", b"<!--"]
        .iter()
        .any(|tag| bytes.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag)))
}

/// `ModelProto` begins with `ir_version` (field 1, a small number), then a string, the graph or the operator sets.
fn is_onnx(bytes: &[u8]) -> bool {
    matches!(bytes, [0x08, 1..=32, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42 | 0x72, ..])
}

/// Refuses bytes that are not `wanted`, saying what they are instead.
pub(crate) fn expect(wanted: Container, wanted_name: &'static str, bytes: &[u8], origin: &str) -> Result<()> {
    let found = detect(bytes);
    let origin = origin.to_owned();
    Err(match found {
        _ if found == wanted => return Ok(()),
        Container::Empty => FormatError::Empty { origin },
        Container::LfsPointer => FormatError::LfsPointer { origin, size: lfs_size(bytes) },
        Container::WebPage => FormatError::WebPage { origin },
        Container::Unknown => {
            let start = String::from_utf8_lossy(&bytes[..bytes.len().min(24)]);
            let found = format!("of unknown content that begins with {}", quoted(&start));
            FormatError::WrongContainer { origin, wanted: wanted_name, found }
        }
        _ => FormatError::WrongContainer { origin, wanted: wanted_name, found: found.name().to_owned() },
    })
}

/// The size line of a Git LFS pointer.
fn lfs_size(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(&bytes[..bytes.len().min(1024)]).ok()?;
    text.lines().find_map(|line| line.strip_prefix("size ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_decides() {
        let legacy: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";
        for (bytes, kind) in [
            (&b""[..], Container::Empty),
            (b"GGUF\x03\0\0\0", Container::Gguf),
            (b"\x02\0\0\0\0\0\0\0{}", Container::Safetensors),
            (b"\x02\0\0\0\0\0\0\0[]", Container::Unknown),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff{}", Container::Unknown),
            (b"PK\x03\x04\x14\0\0\0archive/data.pkl", Container::PytorchZip),
            (b"PK\x03\x04\x14\0\0\0word/document.xml", Container::Unknown),
            (legacy, Container::PytorchLegacy),
            (b"\x08\x08\x12\x07pytorch\x1a\x052.6.0:\xf0\x10", Container::Onnx),
            (b"tjgg\x03\0\0\0", Container::OldGgml),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", Container::LfsPointer),
            (b"\n <!DOCTYPE html><html>", Container::WebPage),
            (b"\xef\xbb\xbf<HTML lang=en>", Container::WebPage),
            (b"{\"weight_map\":{}}", Container::Unknown),
            (b"\x08", Container::Unknown),
        ] {
            assert_eq!(detect(bytes), kind, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_people_have_instead_is_named() {
        let message =
            |bytes: &[u8]| expect(Container::Gguf, "GGUF", bytes, "m.gguf").unwrap_err().to_string();
        assert!(message(b"").contains("m.gguf: the file is empty (0 bytes)"));
        let pointer = message(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1185\n");
        assert!(
            pointer.contains("Git LFS pointer")
                && pointer.contains("1185 bytes")
                && pointer.contains("lfs pull")
        );
        assert!(message(b"<html>").contains("web page"));
        assert!(message(b"\x02\0\0\0\0\0\0\0{}").contains("not a GGUF file but a safetensors file"));
        assert!(message(b"Entry not found").contains("begins with \"Entry not found\""));
        assert_eq!(message(b"\x01\n\xff").lines().count(), 1);
    }
}
