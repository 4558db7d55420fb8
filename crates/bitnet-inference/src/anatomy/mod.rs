//! What is in the layers of a model: how the trits of each projection are distributed, and what its activations are like.
//!
//! * [`Anatomy::of`]: looks at the weights of a [`LoadedModel`], and with a sample text at what goes into each projection.
//! * [`ActivationRange`]: figures of the rows before a projection, and of what quantisation to int8 makes of them.
//!
//! Activations are those of the scalar reference, layer by layer: any model can be looked into that fits on the disk.
//!
//! ```
//! use bitnet_inference::anatomy::Anatomy;
//! use bitnet_inference::{EngineError, InferenceEngine};
//! # use bitnet_model::load::{LoadOptions, ModelSource, load};
//! # use bitnet_core::bytes::ByteView;
//! # let files = bitnet_tiny::files().map(|(name, bytes)| (name.to_owned(), ByteView::from_static(bytes)));
//! # let source = ModelSource::Memory { name: "bitnet-tiny".to_owned(), files: files.to_vec() };
//! let model = load(&source, &LoadOptions::default())?;
//! let anatomy = Anatomy::of(&model, &[1, 2, 3], &mut |_, _| {})?;
//! let down = anatomy.layers[0].projections.iter().find(|p| p.name == "down").unwrap();
//! println!("{:.3} bits a weight, up to {}", down.trits.entropy(), down.input.as_ref().unwrap().absmax);
//! # Ok::<(), EngineError>(())
//! ```

mod activations;

use bitnet_model::load::LoadedModel;
use bitnet_model::reference::walk;
use bitnet_model::{ExecError, LayerWeights};
use bitnet_quant::TritCounts;

pub use self::activations::ActivationRange;
use self::activations::Ranges;
use crate::error::EngineError;

/// All layers of a model.
#[derive(Debug, Clone)]
pub struct Anatomy {
    /// The layers, first to last.
    pub layers: Vec<LayerAnatomy>,
    /// Trits of all of them.
    pub trits: TritCounts,
    /// Tokens of the sample.
    pub sample_tokens: usize,
}

/// One layer.
#[derive(Debug, Clone)]
pub struct LayerAnatomy {
    /// Its projections in the order of use: `q`, `k`, `v`, `o`, `gate`, `up` and `down`.
    pub projections: Vec<ProjectionAnatomy>,
    /// Trits of all of them.
    pub trits: TritCounts,
}

/// One ternary projection.
#[derive(Debug, Clone)]
pub struct ProjectionAnatomy {
    /// Its name.
    pub name: &'static str,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// What a trit stands for.
    pub scale: f32,
    /// How its trits are distributed.
    pub trits: TritCounts,
    /// What goes into it; `None` without a sample. Projections that read the same rows have the same.
    pub input: Option<ActivationRange>,
}

impl Anatomy {
    /// Looks at all weights, and at the activations that `sample` leads to if it has tokens. `progress` hears how much of
    /// the work is done.
    ///
    /// # Errors
    /// [`EngineError::Exec`] if a ternary tensor is damaged, or the model does not have one of the tokens.
    pub fn of(
        model: &LoadedModel,
        sample: &[u32],
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, EngineError> {
        let layers = &model.weights.layers;
        // To count a layer takes about as long as one token in it.
        let (counted, all) = (layers.len() as u64, (layers.len() * (sample.len() + 1)) as u64);
        let mut anatomy =
            Self { layers: Vec::new(), trits: TritCounts::default(), sample_tokens: sample.len() };
        for (number, weights) in layers.iter().enumerate() {
            let layer = count(number, weights)?;
            anatomy.trits += &layer.trits;
            anatomy.layers.push(layer);
            progress(number as u64 + 1, all);
        }
        if !sample.is_empty() {
            let mut ranges = Ranges::new(layers.len());
            walk(
                &model.spec,
                &model.weights,
                sample,
                &mut |site, row, _, q| ranges.observe(site, row, q),
                &mut |done, _| progress(counted + done, all),
            )?;
            for (number, layer) in anatomy.layers.iter_mut().enumerate() {
                for projection in &mut layer.projections {
                    projection.input = ranges.of(number, projection.name).cloned();
                }
            }
        }
        Ok(anatomy)
    }
}

/// Counts the trits of a layer.
fn count(number: usize, weights: &LayerWeights) -> Result<LayerAnatomy, ExecError> {
    let mut layer = LayerAnatomy { projections: Vec::new(), trits: TritCounts::default() };
    for (name, matrix) in weights.projections() {
        let damaged = |source| ExecError::Weights { tensor: format!("layer {number} {name}"), source };
        let trits = TritCounts::of(matrix).map_err(damaged)?;
        layer.trits += &trits;
        let (rows, cols, scale) = (matrix.rows(), matrix.cols(), matrix.scale());
        layer.projections.push(ProjectionAnatomy { name, rows, cols, scale, trits, input: None });
    }
    Ok(layer)
}
