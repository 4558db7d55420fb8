//! Models to convert, and what they compute.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bitnet_convert::{ConvertError, ConvertOptions, Report, Target, convert};
use bitnet_core::bytes::ByteView;
use bitnet_model::load::{LoadedModel, load};
use bitnet_model::reference::ReferenceExecutor;
use bitnet_model::{
    Batch, Executor, KvType, LayerWeights, LoadOptions, LogitRows, ModelSource, Sequence, Weights,
};
use bitnet_quant::TernaryMatrix;

/// The vector models.
pub(crate) const VECTORS: [&str; 4] =
    ["tiny-bitnet-packed", "tiny-bitnet-bf16", "tiny-bitnet-bf16-packed", "tiny-llama-bitlinear"];

pub(crate) fn vector(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/vectors")).join(name)
}

pub(crate) fn bundled() -> ModelSource {
    let view = |(name, bytes): (&str, &'static [u8])| (name.to_owned(), ByteView::from_static(bytes));
    let files = bitnet_tiny::files().into_iter().map(view).collect();
    ModelSource::Memory { name: bitnet_tiny::NAME.to_owned(), files }
}

pub(crate) fn at(path: &Path) -> ModelSource {
    ModelSource::Path(path.to_owned())
}

pub(crate) fn open(path: &Path) -> LoadedModel {
    load(&at(path), &LoadOptions::default()).unwrap()
}

pub(crate) fn to(source: &ModelSource, out: &Path, target: Target) -> Result<Report, ConvertError> {
    with(source, out, target, &ConvertOptions::default())
}

pub(crate) fn with(
    source: &ModelSource,
    out: &Path,
    target: Target,
    options: &ConvertOptions,
) -> Result<Report, ConvertError> {
    convert(source, out, target, options, &mut |_| ControlFlow::Continue(()))
}

/// Names of everything in a folder, hidden files included.
pub(crate) fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

/// Logits of the scalar oracle for a few tokens.
pub(crate) fn logits(model: &LoadedModel, weights: &Weights) -> Vec<f32> {
    let tokens: Vec<u32> = [1u32, 77, 300, 2, 511, 9].map(|t| t % model.spec.vocab_size as u32).into();
    let mut executor = ReferenceExecutor::new(model.spec.clone(), weights, KvType::F32).unwrap();
    let count = tokens.len().div_ceil(executor.info().block_size);
    executor.reserve_blocks(count).unwrap();
    let blocks: Vec<u32> = (0..count as u32).collect();
    let sequence = Sequence { tokens: &tokens, position: 0, blocks: &blocks, logits: LogitRows::All };
    let mut out = vec![0.0; tokens.len() * model.spec.vocab_size];
    executor.forward(&Batch { sequences: &[sequence] }, &mut out).unwrap();
    out
}

/// The weights with every scale changed.
pub(crate) fn rescaled(weights: &Weights, round: &dyn Fn(f32) -> f32) -> Weights {
    let change = |m: &TernaryMatrix| {
        let (rows, cols, scale) = (m.rows(), m.cols(), round(m.scale()));
        TernaryMatrix::new(rows, cols, scale, m.codec(), m.order(), m.data().clone()).unwrap()
    };
    let mut weights = weights.clone();
    for layer in &mut weights.layers {
        let LayerWeights { q, k, v, o, gate, up, down, .. } = layer;
        for matrix in [q, k, v, o, gate, up, down] {
            *matrix = change(matrix);
        }
    }
    weights
}

/// Trits of all projections, and their scales.
pub(crate) fn ternary(model: &LoadedModel) -> (Vec<Vec<i8>>, Vec<f32>) {
    let all = || model.weights.layers.iter().flat_map(LayerWeights::projections).map(|(_, m)| m);
    (all().map(|m| m.to_trits().unwrap()).collect(), all().map(TernaryMatrix::scale).collect())
}
