//! ONNX folders: the graph that `bitnet-model` writes, with configuration, tokenizer and template beside it.

use std::path::Path;

use bitnet_core::DType;
use bitnet_model::export::{OnnxOptions, onnx_bytes, write_onnx};

use crate::error::{ConvertError, Result};
use crate::options::{Callback, Progress, Stage};
use crate::output::Staging;
use crate::source::Source;
use crate::{ConvertOptions, TableType, Target};

/// Writes the folder: `model.onnx`, `model.onnx.data` if the tensors are large, and the small files.
pub(crate) fn write(
    source: &Source,
    out: &Path,
    options: &ConvertOptions,
    notes: &mut Vec<String>,
    progress: Callback<'_>,
) -> Result<Staging> {
    let tables = match options.tables {
        TableType::Keep => None,
        TableType::F16 => Some(DType::F16),
        TableType::Bf16 => Some(DType::BF16),
        TableType::Q8_0 => {
            return Err(ConvertError::Unsupported {
                target: Target::Onnx.name(),
                what: "tables as q8_0".to_owned(),
                remedy: "keep the type of the tables, or write them as f16",
            });
        }
    };
    let onnx = OnnxOptions { weights: options.onnx_weights, tables, ..OnnxOptions::default() };
    let bytes = onnx_bytes(&source.model, &onnx)?;
    let staging = Staging::folder(source, out, Target::Onnx, bytes, options.keep_free, notes)?;
    write_onnx(&source.model, &staging.weights(), &onnx, &mut |done, total| {
        progress(Progress { stage: Stage::Write, done, total })
    })?;
    Ok(staging)
}
