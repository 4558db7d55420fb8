//! [`convert`] and [`verify`].

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use bitnet_formats::{TensorPlan, TensorWriter, create_gguf, create_safetensors};
use bitnet_model::load::load;
use bitnet_model::{LoadOptions, ModelSource};

use crate::error::{ConvertError, Result};
use crate::options::{Callback, Progress, Stage};
use crate::output::{HEADERS, Staging, check_place};
use crate::plan::{Item, items};
use crate::report::{Report, Verification};
use crate::source::Source;
use crate::verify::{ScaleRule, rule_of};
use crate::{ConvertOptions, Target, gguf, onnx, text, verify as compare};

/// Writes the model `source` as `target` to `out`: a folder or a file, as the target is.
///
/// It grows in a hidden folder beside `out`, is read back and compared, and then gets its name; if anything fails, or
/// `progress` breaks, nothing is left. Memory is that of the tokenizer and some blocks of rows, whatever the size of the
/// model.
///
/// # Errors
/// [`ConvertError`]: the source cannot be loaded, the target cannot hold it, there is no room, or what was written is not
/// what was read.
///
/// ```
/// use std::ops::ControlFlow;
///
/// use bitnet_convert::{ConvertOptions, Target, convert};
/// use bitnet_core::bytes::ByteView;
/// use bitnet_model::ModelSource;
///
/// let view = |(name, bytes): (&str, &'static [u8])| (name.to_owned(), ByteView::from_static(bytes));
/// let files = bitnet_tiny::files().into_iter().map(view).collect();
/// let source = ModelSource::Memory { name: bitnet_tiny::NAME.to_owned(), files };
/// let folder = tempfile::tempdir()?;
/// let out = folder.path().join("tiny.gguf");
/// let progress = &mut |_| ControlFlow::Continue(());
/// let report = convert(&source, &out, Target::GgufI2s, &ConvertOptions::default(), progress)?;
/// assert!(out.is_file() && report.verification.lossless);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn convert(
    source: &ModelSource,
    out: &Path,
    target: Target,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    check_place(out, path_of(source), target, options.overwrite)?;
    let start = Instant::now();
    let source = Source::open(source, &options.load)?;
    write_verified(&source, out, target, options, start, progress)
}

pub(crate) fn path_of(source: &ModelSource) -> Option<&Path> {
    match source {
        ModelSource::Path(path) => Some(path),
        ModelSource::Memory { .. } => None,
    }
}

/// Everything after loading.
pub(crate) fn write_verified(
    source: &Source,
    out: &Path,
    target: Target,
    options: &ConvertOptions,
    start: Instant,
    progress: Callback<'_>,
) -> Result<Report> {
    let mut notes = Vec::new();
    let staging = write(source, out, target, options, &mut notes, progress)?;
    let write_seconds = start.elapsed().as_secs_f64();

    let start = Instant::now();
    // The bytes just read and written are of no use to what follows.
    bitnet_core::process::trim_heap();
    let model = staging.model();
    let (verification, output) =
        read_back(source, &model, &LoadOptions::default(), true, options, &mut notes, progress)?;
    staging.finish()?;
    let mut all = source.model.warnings.clone();
    all.extend(notes);
    Ok(Report {
        model: source.model.name.clone(),
        source: source.model.place.clone(),
        source_format: source.model.format.clone(),
        output: out.display().to_string(),
        output_format: output.0,
        output_bytes: output.1,
        verification,
        notes: all,
        write_seconds,
        verify_seconds: start.elapsed().as_secs_f64(),
    })
}

fn write(
    source: &Source,
    out: &Path,
    target: Target,
    options: &ConvertOptions,
    notes: &mut Vec<String>,
    progress: Callback<'_>,
) -> Result<Staging> {
    if target == Target::Onnx {
        return onnx::write(source, out, options, notes, progress);
    }
    let list = items(&source.model, target, options.tables, notes)?;
    let plans: Vec<TensorPlan> = list.iter().map(|item| item.plan.clone()).collect();
    let total: u64 = list.iter().map(Item::byte_len).sum();
    if target.is_gguf() {
        let metadata = gguf::metadata(source, target, notes)?;
        // The vocabulary is what is large in the metadata.
        let text = source.model.tokenizer.as_ref().map_or(0, |t| 64 * t.vocab_size() as u64);
        let staging = Staging::create(out, target, total + text + HEADERS, options.keep_free)?;
        let writer = create_gguf(&staging.weights(), &metadata, &plans)?;
        fill(writer, &list, total, options, progress)?;
        return Ok(staging);
    }
    let staging = Staging::folder(source, out, target, total, options.keep_free, notes)?;
    // Readers of transformers look for this key.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let writer = create_safetensors(&staging.weights(), &plans, &metadata)?;
    fill(writer, &list, total, options, progress)?;
    Ok(staging)
}

fn fill(
    mut writer: TensorWriter,
    list: &[Item<'_>],
    total: u64,
    options: &ConvertOptions,
    progress: Callback<'_>,
) -> Result<()> {
    let mut done = 0;
    for item in list {
        writer.begin(&item.plan.name)?;
        item.emit(options.threads(), &mut |bytes| {
            writer.append(bytes)?;
            done += bytes.len() as u64;
            match progress(Progress { stage: Stage::Write, done, total }) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(ConvertError::Interrupted),
            }
        })?;
    }
    Ok(writer.finish()?)
}

/// Loads what is at `output` and compares it with the source. Gives the findings, and form and size of the output.
fn read_back(
    source: &Source,
    output: &Path,
    load_options: &LoadOptions,
    made_here: bool,
    options: &ConvertOptions,
    notes: &mut Vec<String>,
    progress: Callback<'_>,
) -> Result<(Verification, (String, u64))> {
    let output = load(&ModelSource::Path(output.to_owned()), load_options)?;
    let rule = rule_of(&output, made_here);
    let mut found = compare::weights(&source.model, &output, rule, options.threads(), progress)?;
    if found.scales.changed > 0 {
        let why = match rule {
            ScaleRule::Bf16 => "this form stores them as bf16",
            ScaleRule::F16 => "this form stores them as f16",
            ScaleRule::Within(_) => "their reciprocals were rounded on the way",
            ScaleRule::Equal => "they differ",
        };
        let scales = found.scales;
        notes.push(format!(
            "{} of {} weight scales are rounded, by {:.2e} at most: {why}",
            scales.changed, scales.values, scales.max_relative
        ));
    }
    if found.tables.changed > 0 {
        notes.push(format!(
            "embedding and output layer are rounded, by {:.2e} of the largest value of a row at most",
            found.tables.max_relative
        ));
    }
    found.texts = text::compare(&source.model, &output, notes)?;
    Ok((found, (output.format, output.file_bytes)))
}

/// Compares a model with one that is there, as [`convert`] does with what it wrote. Scales of packed weights may differ
/// by what the roundings of other converters explain, and no more than 1/128.
///
/// # Errors
/// [`ConvertError::Mismatch`] with the first difference; [`ConvertError::Load`] if one of them does not load.
pub fn verify(
    source: &ModelSource,
    output: &Path,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report> {
    let start = Instant::now();
    let source = Source::open(source, &options.load)?;
    let mut notes = source.model.warnings.clone();
    let (verification, (output_format, output_bytes)) =
        read_back(&source, output, &options.load, false, options, &mut notes, progress)?;
    Ok(Report {
        model: source.model.name.clone(),
        source: source.model.place.clone(),
        source_format: source.model.format.clone(),
        output: output.display().to_string(),
        output_format,
        output_bytes,
        verification,
        notes,
        write_seconds: 0.0,
        verify_seconds: start.elapsed().as_secs_f64(),
    })
}
