//! [`Survey`]: what there is to do, found by reading the inputs once before anything is computed.

use std::io::Read;

use ring::digest::{Context, SHA256};
use serde_json::{Value, json};

use super::input::{InputFile, unreadable};
use crate::args::{InputFormat, TextMode};
use crate::commands::resume::hex;
use crate::error::CliError;
use crate::interrupt;
use crate::output::{Notes, Progress};

/// The fields of rows, as far as they are known beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fields {
    /// There are none: all inputs are text.
    None,
    /// These columns, in all inputs.
    Columns(Vec<String>),
    /// Each row may have others.
    Any,
}

/// What the inputs hold.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Survey {
    /// How many rows; unknown for stdin.
    pub(super) rows: Option<u64>,
    pub(super) fields: Fields,
    /// For each input its name, size and hash, which say whether it is still the same when a run is resumed.
    pub(super) inputs: Value,
}

/// Reads the inputs; None if Ctrl-C ended it.
///
/// # Errors
/// If one cannot be read.
pub(super) fn survey(
    files: &[InputFile],
    mode: TextMode,
    limit: Option<usize>,
    notes: Notes,
) -> Result<Option<Survey>, CliError> {
    let limit = limit.map_or(u64::MAX, |limit| limit as u64);
    let mut progress = Progress::new("reading the inputs", notes);
    let (mut rows, mut fields, mut inputs) = (Some(0_u64), None, Vec::new());
    for (done, file) in files.iter().enumerate() {
        progress.set(done as u64, files.len() as u64);
        let Some(path) = &file.path else {
            rows = None;
            inputs.push(json!({"path": "-"}));
            let unknown = if file.format == InputFormat::Text { Fields::None } else { Fields::Any };
            fields = Some(together(fields, unknown));
            continue;
        };
        let (bytes, sha256) = hash(file, path)?;
        inputs.push(json!({"path": file.name, "bytes": bytes, "sha256": sha256}));
        let reader = file.open(mode)?;
        fields = Some(together(
            fields,
            match (file.format, reader.columns) {
                (_, Some(columns)) => Fields::Columns(columns),
                (InputFormat::Text, None) => Fields::None,
                (_, None) => Fields::Any,
            },
        ));
        for entry in reader.entries {
            if interrupt::requested() {
                return Ok(None);
            }
            match &mut rows {
                Some(rows) if *rows < limit => {
                    entry?;
                    *rows += 1;
                }
                _ => break,
            }
        }
    }
    let fields = fields.unwrap_or(Fields::None);
    Ok(Some(Survey { rows, fields, inputs: Value::Array(inputs) }))
}

/// What is known of the fields of two inputs.
fn together(one: Option<Fields>, other: Fields) -> Fields {
    match one {
        None => other,
        Some(one) if one == other => one,
        Some(_) => Fields::Any,
    }
}

/// Size and hash of a file.
fn hash(file: &InputFile, path: &std::path::Path) -> Result<(u64, String), CliError> {
    let failed = |error: std::io::Error| unreadable(&file.name, &error);
    let mut source = std::fs::File::open(path).map_err(failed)?;
    let (mut context, mut buffer, mut bytes) = (Context::new(&SHA256), vec![0; 1 << 20], 0_u64);
    loop {
        match source.read(&mut buffer).map_err(failed)? {
            0 => return Ok((bytes, hex(context.finish().as_ref()))),
            n => {
                context.update(&buffer[..n]);
                bytes += n as u64;
            }
        }
    }
}
