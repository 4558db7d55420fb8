//! Comparison of two models: every trit, scale, norm and table value.

use std::ops::{ControlFlow, Range};

use bitnet_core::DenseType;
use bitnet_model::load::LoadedModel;
use bitnet_model::{DenseTensor, ModelSpec};
use bitnet_quant::{TernaryMatrix, TritCodec};

use crate::error::{ConvertError, Result};
use crate::options::{Callback, Progress, Stage};
use crate::plan::rounded;
use crate::report::{Rounding, Verification};
use crate::stream::gather;

/// How a scale may differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ScaleRule {
    /// Not at all.
    Equal,
    /// It is the bf16 number next to it.
    Bf16,
    /// It is the f16 number next to it.
    F16,
    /// By as much, relatively.
    Within(f64),
}

impl ScaleRule {
    fn holds(self, before: f32, after: f32) -> bool {
        match self {
            Self::Equal => before == after,
            Self::Bf16 => half::bf16::from_f32(before).to_f32() == after,
            Self::F16 => half::f16::from_f32(before).to_f32() == after,
            Self::Within(limit) => relative(before, after) <= limit,
        }
    }
}

fn relative(before: f32, after: f32) -> f64 {
    if before == after { 0.0 } else { (f64::from(after) / f64::from(before) - 1.0).abs() }
}

/// Compares models, projections by `rule`, with tables in the type that they have in `output`.
///
/// # Errors
/// [`ConvertError::Mismatch`] with the first difference that the form of the output does not explain.
pub(crate) fn weights(
    source: &LoadedModel,
    output: &LoadedModel,
    rule: ScaleRule,
    threads: usize,
    progress: Callback<'_>,
) -> Result<Verification> {
    specs(&source.spec, &output.spec)?;
    let (left, right) = (&source.weights, &output.weights);
    let mut found = Verification::default();
    norm("the final norm", &left.final_norm, &right.final_norm, &mut found)?;
    let mut tables = vec![("the embedding", &left.embedding, &right.embedding)];
    if let (Some(a), Some(b)) = (&left.output, &right.output) {
        tables.push(("the output layer", a, b));
    }
    let layers = || left.layers.iter().zip(&right.layers).enumerate();
    let table_bytes: u64 = tables.iter().map(|(_, table, _)| table.data().len() as u64).sum();
    let total = layers()
        .flat_map(|(_, (layer, _))| layer.projections())
        .fold(table_bytes, |sum, (_, matrix)| sum + matrix.data().len() as u64);
    let mut done = 0;
    let mut step = |bytes: usize| {
        done += bytes as u64;
        match progress(Progress { stage: Stage::Verify, done, total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ConvertError::Interrupted),
        }
    };
    for (number, (a, b)) in layers() {
        for (name, before, after) in [
            ("attn_norm", Some(&a.attn_norm), Some(&b.attn_norm)),
            ("ffn_norm", Some(&a.ffn_norm), Some(&b.ffn_norm)),
            ("attn_sub_norm", a.attn_sub_norm.as_ref(), b.attn_sub_norm.as_ref()),
            ("ffn_sub_norm", a.ffn_sub_norm.as_ref(), b.ffn_sub_norm.as_ref()),
        ] {
            if let (Some(before), Some(after)) = (before, after) {
                norm(&format!("layer {number}, {name}"), before, after, &mut found)?;
            }
        }
        for ((name, before), (_, after)) in a.projections().into_iter().zip(b.projections()) {
            matrix(&format!("layer {number}, {name}"), before, after, rule, threads, &mut found)?;
            step(before.data().len())?;
        }
    }
    for (name, before, after) in tables {
        found.tables.add(table(name, before, after, threads)?);
        step(before.data().len())?;
    }
    found.lossless = found.scales.changed == 0 && found.tables.changed == 0;
    Ok(found)
}

/// What the architecture must have in common.
fn specs(a: &ModelSpec, b: &ModelSpec) -> Result<()> {
    let facts = |s: &ModelSpec| {
        [
            ("vocab_size", s.vocab_size.to_string()),
            ("hidden_size", s.hidden_size.to_string()),
            ("intermediate_size", s.intermediate_size.to_string()),
            ("num_layers", s.num_layers.to_string()),
            ("num_heads", s.num_heads.to_string()),
            ("num_kv_heads", s.num_kv_heads.to_string()),
            ("head_dim", s.head_dim.to_string()),
            ("activation", s.activation.to_string()),
            ("sub_norms", s.sub_norms.to_string()),
            ("rms_norm_eps", s.rms_norm_eps.to_string()),
            // GGUF files hold it in single precision.
            ("rope_theta", (s.rope_theta as f32).to_string()),
            ("context_length", s.context_length.to_string()),
            ("tied_output", s.tied_output.to_string()),
        ]
    };
    for ((name, before), (_, after)) in facts(a).into_iter().zip(facts(b)) {
        if before != after {
            return Err(ConvertError::mismatch(format!(
                "{name} is {before} in the original and {after} in the output"
            )));
        }
    }
    Ok(())
}

fn norm(name: &str, before: &[f32], after: &[f32], found: &mut Verification) -> Result<()> {
    if before.len() != after.len() {
        let (a, b) = (before.len(), after.len());
        return Err(ConvertError::mismatch(format!(
            "{name} has {a} values in the original and {b} in the output"
        )));
    }
    if let Some(i) = before.iter().zip(after).position(|(a, b)| a.to_bits() != b.to_bits()) {
        let (a, b) = (before[i], after[i]);
        return Err(ConvertError::mismatch(format!(
            "{name}[{i}] is {a} in the original and {b} in the output"
        )));
    }
    found.norm_values += before.len() as u64;
    Ok(())
}

/// Compares trits and scale of two matrices and gives their pages back.
fn matrix(
    name: &str,
    before: &TernaryMatrix,
    after: &TernaryMatrix,
    rule: ScaleRule,
    threads: usize,
    found: &mut Verification,
) -> Result<()> {
    let (rows, cols) = (before.rows(), before.cols());
    if (rows, cols) != (after.rows(), after.cols()) {
        let (r, c) = (after.rows(), after.cols());
        return Err(ConvertError::mismatch(format!(
            "{name} has the shape [{rows}, {cols}] in the original and [{r}, {c}] in the output"
        )));
    }
    let compare = |range: Range<usize>| {
        let (mut a, mut b) = (vec![0i8; cols], vec![0i8; cols]);
        let mut ones = false;
        for row in range {
            before.decode_row(row, &mut a).map_err(ConvertError::quant(name))?;
            after.decode_row(row, &mut b).map_err(ConvertError::quant(name))?;
            if a != b {
                let col = a.iter().zip(&b).position(|(a, b)| a != b).unwrap_or(0);
                let (a, b) = (a[col], b[col]);
                return Err(ConvertError::mismatch(format!(
                    "{name}[{row}, {col}] is {a} in the original and {b} in the output"
                )));
            }
            ones |= a.iter().any(|&t| t != 0);
        }
        Ok(ones)
    };
    let ones = gather(rows, before.data().len().max(after.data().len()), threads, &compare)?;
    before.data().release();
    after.data().release();
    found.ternary_tensors += 1;
    found.trits += (rows * cols) as u64;
    // The scale of a matrix of zeros means nothing, and some forms do not keep it.
    if ones.contains(&true) {
        scale(name, before, after, rule, found)?;
    }
    Ok(())
}

fn scale(
    name: &str,
    before: &TernaryMatrix,
    after: &TernaryMatrix,
    rule: ScaleRule,
    found: &mut Verification,
) -> Result<()> {
    let (a, b) = (before.scale(), after.scale());
    if !rule.holds(a, b) {
        return Err(ConvertError::mismatch(format!(
            "the scale of {name} is {a} in the original and {b} in the output"
        )));
    }
    found.scales.add(Rounding { values: 1, changed: u64::from(a != b), max_relative: relative(a, b) });
    Ok(())
}

/// Compares tables in blocks of rows, read past the mapping. Values of the output must be those of the original rounded
/// to its type.
fn table(name: &str, before: &DenseTensor, after: &DenseTensor, threads: usize) -> Result<Rounding> {
    let (rows, cols) = (before.rows(), before.cols());
    if (rows, cols) != (after.rows(), after.cols()) {
        return Err(ConvertError::mismatch(format!("the shape of {name} has changed")));
    }
    let compare = |range: Range<usize>| {
        if before.stored() == after.stored() {
            return equal_rows(name, before, after, range);
        }
        let bytes = after.stored().bytes_of(cols).unwrap_or(0);
        let (mut buffer, mut stored) = (Vec::new(), vec![0u8; bytes]);
        let mut values = vec![0.0f32; cols];
        let mut found = Rounding::default();
        for row in range {
            let original = before.read_rows(row..row + 1, &mut buffer)?;
            original.dtype.decode(original.bytes, &mut values);
            after.data().read_into(row * bytes, &mut stored)?;
            found.add(rounded_row(name, &values, after.stored(), &stored)?);
        }
        Ok(found)
    };
    let mut all = Rounding::default();
    for part in gather(rows, before.data().len(), threads, &compare)? {
        all.add(part);
    }
    Ok(all)
}

/// Compares rows of tables in one type, byte by byte.
fn equal_rows(
    name: &str,
    before: &DenseTensor,
    after: &DenseTensor,
    range: Range<usize>,
) -> Result<Rounding> {
    const ROWS: usize = 64;
    let bytes = before.stored().bytes_of(before.cols()).unwrap_or(0);
    let (mut a, mut b) = (vec![0u8; ROWS * bytes], vec![0u8; ROWS * bytes]);
    for start in range.clone().step_by(ROWS) {
        let len = (range.end - start).min(ROWS) * bytes;
        before.data().read_into(start * bytes, &mut a[..len])?;
        after.data().read_into(start * bytes, &mut b[..len])?;
        if let Some(at) = a[..len].iter().zip(&b[..len]).position(|(a, b)| a != b) {
            let row = start + at / bytes.max(1);
            return Err(ConvertError::mismatch(format!("{name} differs in row {row}")));
        }
    }
    Ok(Rounding { values: (range.len() * before.cols()) as u64, ..Rounding::default() })
}

/// Compares a row with its rounded form.
fn rounded_row(name: &str, before: &[f32], stored: DenseType, bytes: &[u8]) -> Result<Rounding> {
    if rounded(stored, before).as_deref() != Some(bytes) {
        return Err(ConvertError::mismatch(format!("{name} is not the original rounded to {stored}")));
    }
    let mut after = vec![0.0f32; before.len()];
    stored.decode(bytes, &mut after);
    let largest = before.iter().fold(0.0f32, |max, v| max.max(v.abs()));
    let mut found = Rounding { values: before.len() as u64, ..Rounding::default() };
    for (a, b) in before.iter().zip(&after).filter(|(a, b)| a != b) {
        found.changed += 1;
        found.max_relative = found.max_relative.max(f64::from((a - b).abs()) / f64::from(largest));
    }
    Ok(found)
}

/// What rounding the form of a matrix explains; none if it was not made here.
pub(crate) fn rule_of(output: &LoadedModel, made_here: bool) -> ScaleRule {
    let first = output.weights.layers.first().map(|layer| layer.q.codec());
    match first {
        // Packers of others store reciprocals as well, rounded to bf16.
        Some(TritCodec::HfPacked) if !made_here => ScaleRule::Within(1.0 / 128.0),
        Some(TritCodec::HfPacked) => ScaleRule::Bf16,
        Some(TritCodec::Tq1_0 | TritCodec::Tq2_0 | TritCodec::Iq1Bn) => ScaleRule::F16,
        // The reciprocal of a reciprocal, in single precision, of a mean that is met to about as much.
        Some(TritCodec::Dense { .. }) => ScaleRule::Within(8.0 / f64::from(1u32 << 24)),
        _ => ScaleRule::Equal,
    }
}
