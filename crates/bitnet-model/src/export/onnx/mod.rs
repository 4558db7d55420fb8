//! A model as an ONNX graph that any ONNX runtime runs, with a cache of keys and values.
//!
//! Inputs are `input_ids` `[batch, sequence]` (int64) and, for each layer, `past_key_values.N.{key,value}`
//! `[batch, num_kv_heads, past, head_dim]` (f32; `past` is 0 for a prompt); outputs are `logits`
//! `[batch, sequence, vocab_size]` and `present.N.{key,value}`. Sequences of a batch have the same length. Positions follow
//! from the length of the past.
//!
//! The graph computes what the arithmetic contract says: activations are rounded half to even to int8 with one scale a
//! token, products are exact 32-bit sums ([`OnnxWeights::Int8`]), all else is f32. Differences to the engine come from the
//! order in which a runtime sums floats, and from its exponential.
//!
//! `metadata_props` hold the configuration under [`CONFIG_KEY`], so that the file loads again without other files. Tables
//! keep their type unless another is asked for, scales are stored as f32: loading it again gives identical trits, scales
//! and tables.

mod config;
mod graph;
mod tensors;

use std::ops::ControlFlow;
use std::path::Path;

use bitnet_core::DType;
use bitnet_formats::{OnnxDim, OnnxPlan, OnnxValueInfo, StoredType, create_onnx};

use super::error::{ExportError, Result};
use crate::{Activation, Extras, LoadedModel, ModelSpec};
use graph::Builder;
use tensors::Item;

/// Key in `metadata_props` of the model's configuration, JSON in the form of `config.json`.
pub const CONFIG_KEY: &str = "bitnet.config";

/// The operator set that the graph needs.
const OPSET: i64 = 18;
/// The format version that belongs to it.
const IR_VERSION: i64 = 8;
/// Tensors smaller than this stay in the model file even if others do not.
const EXTERNAL_FROM: u64 = 1 << 10;

/// How ternary weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnnxWeights {
    /// One byte a weight, multiplied exactly by `MatMulInteger`: operators of ONNX itself, run by every runtime.
    #[default]
    Int8,
    /// Two bits a weight, multiplied by `MatMulNBits` of ONNX Runtime (`com.microsoft`), which computes with floats.
    Bits2,
}

/// How an ONNX file is written.
#[derive(Debug, Clone, Copy)]
pub struct OnnxOptions {
    /// How ternary weights are stored.
    pub weights: OnnxWeights,
    /// If the tensors have more bytes than this together, they go into a file beside the model (`NAME.data`).
    pub external_above: u64,
    /// Type of embedding and output layer; by default their own, or f32 if that is one of blocks.
    pub tables: Option<DType>,
}

impl Default for OnnxOptions {
    /// Bytes for weights, and a file beside the model from 1.5 GB on (protobuf ends at 2 GiB).
    fn default() -> Self {
        Self { weights: OnnxWeights::Int8, external_above: 1_500_000_000, tables: None }
    }
}

fn build<'a>(model: &'a LoadedModel, options: &OnnxOptions) -> Result<(Builder<'a>, u64)> {
    check(&model.spec)?;
    let builder = Builder::build(&model.spec, &model.weights, options);
    let total = builder.items.iter().map(Item::byte_len).sum();
    Ok((builder, total))
}

/// Bytes of the tensors that [`write_onnx`] would write, without those of the graph.
///
/// # Errors
/// [`ExportError`] if the graph has nothing for what the model does.
pub fn onnx_bytes(model: &LoadedModel, options: &OnnxOptions) -> Result<u64> {
    Ok(build(model, options)?.1)
}

/// Writes `model` to `path`, tensor by tensor, under a temporary name that is changed at the end. `progress` is told bytes
/// written and bytes in all, and answers whether to go on.
///
/// # Errors
/// [`ExportError`] if the graph has nothing for what the model does, the weights are damaged, a table does not fit its new
/// type, the file cannot be written or `progress` breaks. Then there is no file.
pub fn write_onnx(
    model: &LoadedModel,
    path: &Path,
    options: &OnnxOptions,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<()> {
    let spec = &model.spec;
    let (builder, total) = build(model, options)?;
    let mut opsets = vec![(String::new(), OPSET)];
    if options.weights == OnnxWeights::Bits2 {
        opsets.push(("com.microsoft".to_owned(), 1));
    }
    let plan = OnnxPlan {
        name: "bitnet".to_owned(),
        ir_version: IR_VERSION,
        opsets,
        metadata: vec![
            (CONFIG_KEY.to_owned(), config::config(model).to_string()),
            ("bitnet.name".to_owned(), model.name.clone()),
        ],
        nodes: builder.nodes,
        inputs: inputs(spec),
        outputs: outputs(spec),
        tensors: builder.items.iter().map(|item| item.plan.clone()).collect(),
        external_from: (total > options.external_above).then_some(EXTERNAL_FROM),
    };
    let mut writer = create_onnx(path, &plan)?;
    let mut done = 0;
    for item in &builder.items {
        writer.begin(&item.plan.name)?;
        item.emit(&mut |bytes| {
            done += bytes.len() as u64;
            writer.append(bytes)?;
            match progress(done, total) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(ExportError::Interrupted),
            }
        })?;
    }
    Ok(writer.finish()?)
}

/// Refuses what the graph would leave out.
fn check(spec: &ModelSpec) -> Result<()> {
    let what = if spec.activation == Activation::Gelu {
        spec.activation.to_string()
    } else if spec.extras != Extras::default() {
        "more norms, windows or other positions than the plain shape".to_owned()
    } else {
        return Ok(());
    };
    Err(ExportError::Unsupported { form: "ONNX", what })
}

fn named(name: &str) -> OnnxDim {
    OnnxDim::Named(name.to_owned())
}

/// Keys or values of a layer.
fn cache(spec: &ModelSpec, name: String, length: &str) -> OnnxValueInfo {
    let fixed = |size: usize| OnnxDim::Fixed(size as u64);
    let dims = vec![named("batch"), fixed(spec.num_kv_heads), named(length), fixed(spec.head_dim)];
    OnnxValueInfo { name, stored: StoredType::F32, dims }
}

fn caches(spec: &ModelSpec, prefix: &str, length: &str) -> Vec<OnnxValueInfo> {
    let both = |layer| ["key", "value"].map(|part| cache(spec, format!("{prefix}.{layer}.{part}"), length));
    (0..spec.num_layers).flat_map(both).collect()
}

fn inputs(spec: &ModelSpec) -> Vec<OnnxValueInfo> {
    let dims = vec![named("batch"), named("sequence")];
    let ids = OnnxValueInfo { name: "input_ids".to_owned(), stored: StoredType::I64, dims };
    [vec![ids], caches(spec, "past_key_values", "past")].concat()
}

fn outputs(spec: &ModelSpec) -> Vec<OnnxValueInfo> {
    let dims = vec![named("batch"), named("sequence"), OnnxDim::Fixed(spec.vocab_size as u64)];
    let logits = OnnxValueInfo { name: "logits".to_owned(), stored: StoredType::F32, dims };
    [vec![logits], caches(spec, "present", "past_and_sequence")].concat()
}
