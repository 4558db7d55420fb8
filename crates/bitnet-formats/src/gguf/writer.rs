//! Writing GGUF files while the tensors are being computed.

use std::collections::HashSet;
use std::path::Path;

use super::value::{GgufValue, encode_string};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_DIMENSIONS};
use crate::error::quoted;
use crate::output::{Slot, TensorWriter};
use crate::tensor::TensorPlan;
use crate::{FormatError, Result, ggml};

const VERSION: u32 = 3;
/// ggml keeps names in 64 bytes with a closing zero.
const MAX_NAME_BYTES: usize = 63;

/// Starts a GGUF file (version 3, little-endian, alignment 32) with this metadata that will hold the planned tensors.
///
/// I2_S tensors are given with their 32-byte tail.
///
/// # Errors
/// [`FormatError::BadPlan`] for keys or names that occur twice, names of more than 63 bytes, more than four
/// dimensions, types that GGUF does not have or whose size is not known, and another alignment than 32;
/// [`FormatError::Io`] if the file cannot be created.
pub fn create_gguf(
    path: &Path,
    metadata: &[(String, GgufValue)],
    plan: &[TensorPlan],
) -> Result<TensorWriter> {
    let mut head = Vec::new();
    head.extend(MAGIC);
    head.extend(VERSION.to_le_bytes());
    head.extend((plan.len() as u64).to_le_bytes());
    head.extend((metadata.len() as u64).to_le_bytes());
    encode_metadata(path, metadata, &mut head)?;
    let (mut slots, data_len) = encode_plan(path, plan, &mut head)?;
    let data_start = (head.len() as u64).next_multiple_of(DEFAULT_ALIGNMENT);
    for slot in &mut slots {
        slot.at += data_start;
    }
    TensorWriter::create(path, &head, slots, data_start + data_len)
}

fn bad(path: &Path, field: String, problem: impl Into<String>) -> FormatError {
    FormatError::BadPlan { path: path.to_owned(), field, problem: problem.into() }
}

fn encode_metadata(path: &Path, metadata: &[(String, GgufValue)], head: &mut Vec<u8>) -> Result<()> {
    let mut keys = HashSet::new();
    for (key, value) in metadata {
        let field = || format!("metadata {}", quoted(key));
        if !keys.insert(key.as_str()) {
            return Err(bad(path, field(), "the key occurs twice"));
        }
        if key == ALIGNMENT_KEY && *value != GgufValue::U32(DEFAULT_ALIGNMENT as u32) {
            return Err(bad(
                path,
                field(),
                format!("files are written with alignment u32 {DEFAULT_ALIGNMENT} only"),
            ));
        }
        encode_string(key, head);
        head.extend(value.type_id().to_le_bytes());
        value.encode(head);
    }
    Ok(())
}

/// Appends the tensor entries; returns the slots, placed from the beginning of the data, and the length of the data.
fn encode_plan(path: &Path, plan: &[TensorPlan], head: &mut Vec<u8>) -> Result<(Vec<Slot>, u64)> {
    let mut names = HashSet::new();
    let mut slots = Vec::with_capacity(plan.len());
    let mut data_len = 0u64;
    for TensorPlan { name, stored, shape } in plan {
        let bad = |problem: String| bad(path, format!("tensor {}", quoted(name)), problem);
        if !names.insert(name.as_str()) {
            return Err(bad("the name occurs twice in the plan".to_owned()));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(bad(format!(
                "the name has {} bytes, but at most {MAX_NAME_BYTES} are allowed",
                name.len()
            )));
        }
        if shape.len() > MAX_DIMENSIONS as usize {
            return Err(bad(format!("shape {shape:?} has more than {MAX_DIMENSIONS} dimensions")));
        }
        let id = ggml::id_of(*stored).ok_or_else(|| bad(format!("GGUF has no type {stored}")))?;
        let len = stored
            .byte_len(shape)
            .ok_or_else(|| bad(format!("the size of {stored} {shape:?} is not known")))?;
        encode_string(name, head);
        head.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|dim| head.extend(dim.to_le_bytes()));
        head.extend(id.to_le_bytes());
        head.extend(data_len.to_le_bytes());
        slots.push(Slot { name: name.clone(), at: data_len, len });
        let end = data_len.checked_add(len).and_then(|end| end.checked_next_multiple_of(DEFAULT_ALIGNMENT));
        data_len = end.ok_or_else(|| bad("the file would be too large".to_owned()))?;
    }
    Ok((slots, data_len))
}
