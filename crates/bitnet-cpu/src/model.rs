//! [`Model`]: the weights in the layout of this crate, and all else that is the same for every pass.

use std::sync::Arc;

use bitnet_model::{DenseTensor, LayerExtras, ModelSpec};

use crate::int8_rows::Int8Rows;
use crate::kernels::KernelSet;
use crate::layout::{Form, Strips};

/// One layer in the layout of this crate.
pub(crate) struct Layer {
    pub(crate) attn_norm: Vec<f32>,
    /// Parts: queries, keys, values.
    pub(crate) qkv: Strips,
    pub(crate) attn_sub_norm: Option<Vec<f32>>,
    pub(crate) o: Strips,
    pub(crate) ffn_norm: Vec<f32>,
    pub(crate) gate: Strips,
    pub(crate) up: Strips,
    pub(crate) ffn_sub_norm: Option<Vec<f32>>,
    pub(crate) down: Strips,
    pub(crate) extras: LayerExtras,
}

/// What is the same for every pass. Clones share the memory of the weights.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) spec: ModelSpec,
    pub(crate) kernels: &'static KernelSet,
    pub(crate) layers: Arc<[Layer]>,
    pub(crate) embedding: DenseTensor,
    pub(crate) output: DenseTensor,
    /// The output layer in int8, if it is kept so.
    pub(crate) int8: Option<Arc<Int8Rows>>,
    pub(crate) final_norm: Vec<f32>,
}

impl Model {
    /// How ternary weights are kept.
    pub(crate) fn form(&self) -> Form {
        self.layers.first().map_or(Form::TwoBit, |layer| layer.qkv.form())
    }
}
