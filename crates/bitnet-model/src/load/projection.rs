//! [`Projection`]: a ternary matrix found in a file, before float masters are measured.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bitnet_core::bytes::ByteView;
use bitnet_core::{DType, DenseType};
use bitnet_quant::absmean;
use bitnet_quant::{Element, Elements, QuantError, RowOrder, TernaryMatrix, TritCodec};

use super::error::{LoadError, Result};
use super::outline::is_glancing;

/// How a projection is stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// Trits with their scale as a multiplier.
    Ternary(TritCodec, f32),
    /// Trits with a scale in each block or row, which must be the same everywhere.
    Scaled {
        /// How they are stored.
        codec: TritCodec,
        /// A separate scale that multiplies the product.
        factor: Option<f32>,
    },
    /// Float weights, to be rounded to trits by absmean.
    Masters {
        /// How they are stored.
        dtype: DenseType,
        /// A separate scale that multiplies the product.
        factor: Option<f32>,
    },
    /// The same, stored as `[cols, rows]`.
    MastersInColumns {
        /// Element type.
        dtype: DType,
        /// Output features, the length of a stored row.
        rows: usize,
        /// A separate scale that multiplies the product.
        factor: Option<f32>,
    },
}

/// A ternary matrix `[rows, cols]` found in a file; its shape fits the model.
#[derive(Debug)]
pub(super) struct Projection {
    /// Name of the tensor.
    pub(super) tensor: String,
    /// The file it is in.
    pub(super) file: Arc<str>,
    /// Output features.
    pub(super) rows: usize,
    /// Input features.
    pub(super) cols: usize,
    /// Order of the stored rows.
    pub(super) order: RowOrder,
    /// How it is stored.
    pub(super) form: Form,
    /// The weights without scales and padding.
    pub(super) data: ByteView,
}

/// What float weights are accepted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MasterRule {
    /// The model says that it is a BitNet model: masters to be quantised.
    Quantise,
    /// It does not: only weights that have at most the values `-a, 0, a` already.
    TernaryOnly,
}

impl Projection {
    fn quant(&self, source: QuantError) -> LoadError {
        LoadError::Quant { file: self.file.to_string(), tensor: self.tensor.clone(), source }
    }

    /// Codec and scale; masters are measured for it, scales compared.
    fn resolve(&self, rule: MasterRule) -> Result<(TritCodec, f32)> {
        match self.form {
            Form::Ternary(codec, scale) => Ok((codec, scale)),
            Form::Scaled { codec, factor } => {
                let scale = codec.common_scale(self.data.as_slice(), self.rows, self.cols);
                self.data.release();
                let scale = scale.map_err(|source| self.quant(source))?.unwrap_or(1.0);
                Ok((codec, scale * factor.unwrap_or(1.0)))
            }
            Form::Masters { dtype, factor } => self.measure(dtype, factor, rule),
            Form::MastersInColumns { dtype, factor, .. } => self.measure(dtype.into(), factor, rule),
        }
    }

    fn measure(&self, dtype: DenseType, factor: Option<f32>, rule: MasterRule) -> Result<(TritCodec, f32)> {
        let m = absmean::measure(dtype, self.data.as_slice()).map_err(|source| self.quant(source))?;
        self.data.release();
        if !m.already_ternary && rule == MasterRule::TernaryOnly {
            let why = format!(
                "tensor {} holds {dtype} weights that are not ternary, and nothing in the configuration says that they \
                 are to be quantised",
                self.tensor
            );
            return Err(LoadError::NotBitNet { file: self.file.to_string(), why });
        }
        if !m.already_ternary && dtype.plain().is_none() {
            return Err(LoadError::Unsupported {
                file: self.file.to_string(),
                what: format!("tensor {} with {dtype} weights that are not ternary", self.tensor),
                remedy: "take masters in f32, f16 or bf16, or ternary weights",
            });
        }
        if !m.already_ternary && factor.is_some() {
            return Err(LoadError::Unsupported {
                file: self.file.to_string(),
                what: format!("tensor {} with both float masters and a scale of its own", self.tensor),
                remedy: "take the packed weights or the masters without scales",
            });
        }
        let codec = match self.form {
            Form::MastersInColumns { rows, dtype, .. } => {
                let element = Element::Master { dtype, inv: m.inv };
                TritCodec::Elements(Elements { element, transposed: true, stride: rows })
            }
            _ => TritCodec::Dense { dtype, inv: m.inv },
        };
        Ok((codec, m.scale * factor.unwrap_or(1.0)))
    }

    fn finish(self, (codec, scale): (TritCodec, f32)) -> Result<TernaryMatrix> {
        TernaryMatrix::new(self.rows, self.cols, scale, codec, self.order, self.data.clone())
            .map_err(|source| self.quant(source))
    }
}

/// Turns projections into matrices. Masters and scales are scanned on all cores, one thread a tensor, so that the result does
/// not depend on the number of threads.
///
/// # Errors
/// That of the first projection in order that cannot be used.
pub(super) fn finish_all(projections: Vec<Projection>, rule: MasterRule) -> Result<Vec<TernaryMatrix>> {
    if is_glancing() {
        return finish_at_a_glance(projections, rule);
    }
    let scanned = projections.iter().filter(|p| !matches!(p.form, Form::Ternary(..))).count();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(scanned);
    let resolved = if threads > 1 {
        resolve_in_parallel(&projections, rule, threads)?
    } else {
        projections.iter().map(|p| p.resolve(rule)).collect::<Result<_>>()?
    };
    projections.into_iter().zip(resolved).map(|(p, r)| p.finish(r)).collect()
}

/// The same for an outline: what is scanned of the first projection of a form stands for all of that form. The scales are
/// not the right ones.
fn finish_at_a_glance(projections: Vec<Projection>, rule: MasterRule) -> Result<Vec<TernaryMatrix>> {
    let mut known: HashMap<String, (TritCodec, f32)> = HashMap::new();
    let mut finish = |projection: Projection| {
        let resolved = match projection.form {
            Form::Ternary(codec, scale) => (codec, scale),
            form => {
                let key = format!("{form:?}");
                if !known.contains_key(&key) {
                    known.insert(key.clone(), projection.resolve(rule)?);
                }
                known[&key]
            }
        };
        projection.finish(resolved)
    };
    projections.into_iter().map(&mut finish).collect()
}

fn resolve_in_parallel(
    projections: &[Projection],
    rule: MasterRule,
    threads: usize,
) -> Result<Vec<(TritCodec, f32)>> {
    let next = AtomicUsize::new(0);
    let mut results: Vec<(usize, Result<(TritCodec, f32)>)> = std::thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(projection) = projections.get(index) else { return done };
                let result = projection.resolve(rule);
                if result.is_err() {
                    // The others finish what they hold, all of it earlier in order or equally wrong.
                    next.store(projections.len(), Ordering::Relaxed);
                }
                done.push((index, result));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
