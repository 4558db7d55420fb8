//! Writing safetensors while the tensors are being computed.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::path::Path;

use super::{MAX_HEADER_BYTES, METADATA_KEY, TYPES};
use crate::error::quoted;
use crate::output::{Slot, TensorWriter};
use crate::tensor::TensorPlan;
use crate::{FormatError, Result};

/// Starts a safetensors file that will hold the planned tensors.
///
/// In the file, tensors of wide elements lie before those of narrow ones, so that each is
/// aligned to its elements; among equals, the order of the plan holds.
///
/// # Errors
/// [`FormatError::BadPlan`] for names that occur twice, types that safetensors does not have and sizes beyond all
/// bounds; [`FormatError::Io`] if the file cannot be created.
pub fn create_safetensors(
    path: &Path,
    plan: &[TensorPlan],
    metadata: &BTreeMap<String, String>,
) -> Result<TensorWriter> {
    let lens = check(path, plan)?;
    let mut order: Vec<usize> = (0..plan.len()).collect();
    order.sort_by_key(|&place| std::cmp::Reverse(plan[place].stored.element_size()));
    let mut starts = vec![0u64; plan.len()];
    let mut data_len = 0u64;
    for &place in &order {
        starts[place] = data_len;
        data_len =
            data_len.checked_add(lens[place]).ok_or_else(|| bad(path, &plan[place], "too many bytes"))?;
    }
    let header = header(plan, metadata, &order, &starts, &lens);
    if header.len() as u64 - 8 > MAX_HEADER_BYTES {
        let problem =
            format!("the header would have {} bytes, but {MAX_HEADER_BYTES} are allowed", header.len());
        return Err(FormatError::BadPlan { path: path.to_owned(), field: "the header".to_owned(), problem });
    }
    let base = header.len() as u64;
    let slots = plan.iter().zip(starts.iter().zip(&lens));
    let slots = slots.map(|(plan, (&start, &len))| Slot { name: plan.name.clone(), at: base + start, len });
    TensorWriter::create(path, &header, slots.collect(), base + data_len)
}

fn bad(path: &Path, tensor: &TensorPlan, problem: impl Into<String>) -> FormatError {
    let field = format!("tensor {}", quoted(&tensor.name));
    FormatError::BadPlan { path: path.to_owned(), field, problem: problem.into() }
}

/// Checks names and types and returns the byte counts.
fn check(path: &Path, plan: &[TensorPlan]) -> Result<Vec<u64>> {
    let mut names = HashSet::new();
    let lens = plan.iter().map(|tensor| {
        if tensor.name == METADATA_KEY {
            return Err(bad(path, tensor, "this name is reserved"));
        }
        if !names.insert(tensor.name.as_str()) {
            return Err(bad(path, tensor, "the name occurs twice in the plan"));
        }
        if type_name(tensor).is_none() {
            return Err(bad(path, tensor, format!("safetensors has no type {}", tensor.stored)));
        }
        let len = tensor.stored.byte_len(&tensor.shape);
        len.ok_or_else(|| bad(path, tensor, format!("shape {:?} is too large", tensor.shape)))
    });
    lens.collect()
}

fn type_name(tensor: &TensorPlan) -> Option<&'static str> {
    TYPES.iter().find(|(_, stored)| *stored == tensor.stored).map(|&(name, _)| name)
}

/// Length and JSON, padded with spaces so that the data begins at a multiple of eight.
fn header(
    plan: &[TensorPlan],
    metadata: &BTreeMap<String, String>,
    order: &[usize],
    starts: &[u64],
    lens: &[u64],
) -> Vec<u8> {
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let mut json = String::from("{");
    if !metadata.is_empty() {
        let pairs: Vec<String> = metadata.iter().map(|(k, v)| format!("{}:{}", text(k), text(v))).collect();
        let _ = write!(json, "{}:{{{}}}", text(METADATA_KEY), pairs.join(","));
    }
    for &place in order {
        let tensor = &plan[place];
        let (name, dtype) = (text(&tensor.name), type_name(tensor).unwrap_or_default());
        let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
        let (start, end) = (starts[place], starts[place] + lens[place]);
        let comma = if json.len() > 1 { "," } else { "" };
        let _ = write!(
            json,
            "{comma}{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{}],\"data_offsets\":[{start},{end}]}}",
            shape.join(",")
        );
    }
    json.push('}');
    while !json.len().is_multiple_of(8) {
        json.push(' ');
    }
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes
}
