//! [`quantize`]: a ternary model from a full-precision checkpoint, and how much of it is lost.

use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::time::Instant;

use bitnet_core::DenseType;
use bitnet_model::ModelSource;
use bitnet_quant::{TernaryMatrix, TritCodec, absmean};
use serde::Serialize;

use crate::convert::{path_of, write_verified};
use crate::error::{ConvertError, Result};
use crate::options::{Callback, Progress, Stage};
use crate::output::check_place;
use crate::report::Report;
use crate::source::Source;
use crate::stream::gather;
use crate::{ConvertOptions, Target};

/// What rounding did to one projection.
#[derive(Debug, Clone, Serialize)]
pub struct ProjectionError {
    /// Layer, from 0.
    pub layer: usize,
    /// `q`, `k`, `v`, `o`, `gate`, `up` or `down`.
    pub projection: &'static str,
    /// Output and input features.
    pub shape: [usize; 2],
    /// What a trit stands for.
    pub scale: f32,
    /// Share of trits that are zero, 0 to 1.
    pub zeros: f64,
    /// Root of the summed squares of what changed, relative to that of the weights.
    pub relative_error: f64,
    /// Whether it was ternary before, so that nothing changed.
    pub already_ternary: bool,
}

/// What a quantisation did.
#[derive(Debug, Clone, Serialize)]
pub struct QuantizeReport {
    /// Each projection, layer by layer.
    pub projections: Vec<ProjectionError>,
    /// Relative error over all weights of all projections.
    pub relative_error: f64,
    /// Share of zeros among all trits.
    pub zeros: f64,
    /// What was written.
    pub report: Report,
}

/// Sums over one projection.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    weights: f64,
    errors: f64,
    zeros: u64,
}

impl Sums {
    fn add(&mut self, other: Self) {
        self.weights += other.weights;
        self.errors += other.errors;
        self.zeros += other.zeros;
    }

    fn relative_error(&self) -> f64 {
        if self.weights > 0.0 { (self.errors / self.weights).sqrt() } else { 0.0 }
    }
}

/// Rounds the projections of a full-precision checkpoint to trits by absmean and writes the model as [`crate::convert`]
/// does. Float projections are taken for masters, whatever the configuration says.
///
/// The result computes what its weights say, but only a model that was trained with ternary weights speaks.
///
/// # Errors
/// [`ConvertError::AlreadyTernary`] for models whose weights are packed or hold three values only, and those of
/// [`crate::convert`].
pub fn quantize(
    source: &ModelSource,
    out: &Path,
    target: Target,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<QuantizeReport> {
    check_place(out, path_of(source), target, options.overwrite)?;
    let start = Instant::now();
    let mut load = options.load.clone();
    load.dense_as_masters = true;
    let source = Source::open(source, &load)?;
    let (projections, sums, trits) = measure(&source, options.threads(), progress)?;
    let ternary = projections.iter().filter(|p| p.already_ternary).count();
    if ternary == projections.len() {
        let (place, found) = (source.model.place.clone(), source.model.format.clone());
        return Err(ConvertError::AlreadyTernary { place, found });
    }
    let mut report = write_verified(&source, out, target, options, start, progress)?;
    if ternary > 0 {
        report.notes.push(format!("{ternary} projections were ternary already and are passed through"));
    }
    Ok(QuantizeReport {
        projections,
        relative_error: sums.relative_error(),
        zeros: sums.zeros as f64 / trits.max(1) as f64,
        report,
    })
}

/// Compares masters with their trits.
fn measure(
    source: &Source,
    threads: usize,
    progress: Callback<'_>,
) -> Result<(Vec<ProjectionError>, Sums, u64)> {
    let total = source.ternary_bytes();
    let (mut done, mut trits) = (0, 0);
    let mut all = Sums::default();
    let mut found = Vec::new();
    for (layer, weights) in source.model.weights.layers.iter().enumerate() {
        for (projection, matrix) in weights.projections() {
            let name = format!("layer {layer}, {projection}");
            let (sums, already_ternary) = match matrix.codec() {
                TritCodec::Dense { dtype, inv } => of_masters(&name, matrix, dtype, inv, threads)?,
                _ => {
                    let (place, found) = (source.model.place.clone(), source.model.format.clone());
                    return Err(ConvertError::AlreadyTernary { place, found });
                }
            };
            let count = (matrix.rows() * matrix.cols()) as u64;
            found.push(ProjectionError {
                layer,
                projection,
                shape: [matrix.rows(), matrix.cols()],
                scale: matrix.scale(),
                zeros: sums.zeros as f64 / count.max(1) as f64,
                relative_error: sums.relative_error(),
                already_ternary,
            });
            all.add(sums);
            trits += count;
            done += matrix.data().len() as u64;
            matrix.data().release();
            if progress(Progress { stage: Stage::Measure, done, total }).is_break() {
                return Err(ConvertError::Interrupted);
            }
        }
    }
    Ok((found, all, trits))
}

fn of_masters(
    name: &str,
    matrix: &TernaryMatrix,
    dtype: DenseType,
    inv: f32,
    threads: usize,
) -> Result<(Sums, bool)> {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let data = matrix.data().as_slice();
    let measured = absmean::measure(dtype, data).map_err(ConvertError::quant(name))?;
    let scale = f64::from(1.0 / inv);
    let row_bytes = dtype.bytes_of(cols).unwrap_or(0);
    let sum = |range: Range<usize>| {
        let mut values = vec![0.0f32; cols];
        let mut sums = Sums::default();
        for row in range {
            dtype.decode(&data[row * row_bytes..][..row_bytes], &mut values);
            for &value in &values {
                let trit = absmean::trit(value, inv);
                let error = f64::from(value) - f64::from(trit) * scale;
                sums.weights += f64::from(value) * f64::from(value);
                sums.errors += error * error;
                sums.zeros += u64::from(trit == 0);
            }
        }
        Ok(sums)
    };
    let mut all = Sums::default();
    for part in gather(rows, data.len(), threads, &sum)? {
        all.add(part);
    }
    Ok((all, measured.already_ternary))
}
