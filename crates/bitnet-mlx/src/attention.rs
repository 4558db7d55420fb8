//! Grouped-query attention of a group over the paged cache: explicit products and a softmax.
//!
//! MLX's fused attention is not used: its result for a row depends on how many rows there are.

use bitnet_model::kv::INT8_BLOCK;
use bitnet_model::{KvType, ModelSpec};

use crate::error::MlxError;
use crate::kv::{LayerKv, Rows};
use crate::pack::int;
use crate::plan::{Group, View};
use crate::quantize::Constants;
use crate::sys::{Array, Dtype, Stream};

/// A view on the device.
#[derive(Debug)]
pub(crate) struct DeviceView {
    /// `[sequences, positions]`.
    rows: Array,
    /// `[sequences, 1, 1, tokens, positions]`.
    mask: Array,
    positions: i32,
}

/// A group on the device.
#[derive(Debug)]
pub(crate) struct DeviceGroup {
    pub(crate) rows: std::ops::Range<i32>,
    sequences: i32,
    tokens: i32,
    /// For layers without and with a sliding window.
    views: [Option<DeviceView>; 2],
}

impl DeviceGroup {
    /// Uploads a group.
    ///
    /// # Errors
    /// [`MlxError`].
    pub(crate) fn new(group: &Group) -> Result<Self, MlxError> {
        let (sequences, tokens) = (int(group.sequences)?, int(group.tokens)?);
        let upload = |view: &View| {
            let positions = int(view.positions)?;
            let rows = Array::from_i32(&view.rows, &[sequences, positions])?;
            let mask = Array::from_f32(&view.mask, &[sequences, 1, 1, tokens, positions])?;
            Ok::<_, MlxError>(DeviceView { rows, mask, positions })
        };
        let [full, sliding] = group.views.each_ref().map(|view| view.as_ref().map(upload).transpose());
        let rows = int(group.rows.start)?..int(group.rows.end)?;
        Ok(Self { rows, sequences, tokens, views: [full?, sliding?] })
    }
}

/// What attention needs to know of a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) kv_type: KvType,
    /// Key heads, query heads of each, width.
    kv: i32,
    each: i32,
    width: i32,
}

impl Heads {
    /// Of a model.
    ///
    /// # Errors
    /// [`MlxError::Unsupported`] for sizes that MLX cannot count.
    pub(crate) fn new(spec: &ModelSpec, kv_type: KvType) -> Result<Self, MlxError> {
        let each = int(spec.num_heads / spec.num_kv_heads)?;
        Ok(Self { kv_type, kv: int(spec.num_kv_heads)?, each, width: int(spec.head_dim)? })
    }

    /// What queries `[rows of the group, query heads, width]` find, `[rows of the group, query heads * width]`. Their keys and
    /// values are stored already.
    ///
    /// # Errors
    /// [`MlxError`].
    pub(crate) fn attend(
        &self,
        s: &Stream,
        constants: &Constants,
        group: &DeviceGroup,
        sliding: bool,
        cache: &LayerKv,
        queries: &Array,
    ) -> Result<Array, MlxError> {
        let Some(view) = &group.views[usize::from(sliding)] else {
            return Err(MlxError::Device("a layer of a kind that the model has not".to_owned()));
        };
        let Self { kv, each, width, .. } = *self;
        let (sequences, tokens, positions) = (group.sequences, group.tokens, view.positions);
        let rows = each * tokens;
        let split = s.reshape(queries, &[sequences, tokens, kv, each, width])?;
        let queries = s.reshape(&s.transpose(&split, &[0, 2, 3, 1, 4])?, &[sequences, kv, rows, width])?;
        let keys = self.gather(s, &cache.keys, view, group)?;
        let values = self.gather(s, &cache.values, view, group)?;
        let scores = self.scores(s, constants, &queries, &keys)?;
        let scores = s.reshape(&scores, &[sequences, kv, each, tokens, positions])?;
        let weights = s.softmax_last(&s.add(&scores, &view.mask)?)?;
        let weights = s.reshape(&weights, &[sequences, kv, rows, positions])?;
        let found = match self.kv_type {
            KvType::F32 | KvType::F16 => s.matmul(&weights, &values.elements)?,
            KvType::Int8 => weigh_int8(s, constants, &weights, &values)?,
        };
        let split = s.reshape(&found, &[sequences, kv, each, tokens, width])?;
        s.reshape(&s.transpose(&split, &[0, 3, 1, 2, 4])?, &[sequences * tokens, kv * each * width])
    }

    /// Keys or values that a group looks at, `[sequences, key heads, positions, width]` in single precision, and for int8
    /// their scales, `[sequences, key heads, 1, positions]`.
    fn gather(
        &self,
        s: &Stream,
        rows: &Rows,
        view: &DeviceView,
        group: &DeviceGroup,
    ) -> Result<Rows, MlxError> {
        let Self { kv, width, .. } = *self;
        let (sequences, positions) = (group.sequences, view.positions);
        let taken = s.take(&rows.elements, &view.rows, 0)?;
        let split = s.reshape(&taken, &[sequences, positions, kv, width])?;
        let elements = s.in_rows(&s.cast(&s.transpose(&split, &[0, 2, 1, 3])?, Dtype::F32)?)?;
        let scales = match &rows.scales {
            Some(scales) => {
                let taken = s.transpose(&s.take(scales, &view.rows, 0)?, &[0, 2, 1])?;
                Some(s.reshape(&taken, &[sequences, kv, 1, positions])?)
            }
            None => None,
        };
        Ok(Rows { elements, scales })
    }

    /// Scores, `[sequences, key heads, rows, positions]`.
    fn scores(
        &self,
        s: &Stream,
        constants: &Constants,
        queries: &Array,
        keys: &Rows,
    ) -> Result<Array, MlxError> {
        let turned = s.transpose(&keys.elements, &[0, 1, 3, 2])?;
        let Some(key_scales) = &keys.scales else {
            return s.multiply(&s.matmul(queries, &turned)?, &constants.score_scale);
        };
        // Whole numbers: the sums are exact.
        let [q, scale] = constants.int8(s, queries)?;
        let factor = s.multiply(&s.multiply(&scale, &constants.score_scale)?, key_scales)?;
        s.multiply(&s.matmul(&q, &turned)?, &factor)
    }
}

/// Weighted values of int8: weights times the scales of values are whole numbers of 0..=255, block by block of positions, so
/// that the sum of a block is exact.
fn weigh_int8(s: &Stream, constants: &Constants, weights: &Array, values: &Rows) -> Result<Array, MlxError> {
    let Some(scales) = &values.scales else {
        return Err(MlxError::Device("values of int8 without scales".to_owned()));
    };
    let block = INT8_BLOCK as i32;
    let [sequences, kv, rows, positions] = [0, 1, 2, 3].map(|axis| weights.dim(axis));
    let (blocks, width) = (positions / block, values.elements.dim(3));
    let scaled = s.reshape(&s.multiply(weights, scales)?, &[sequences, kv, rows, blocks, block])?;
    let [inverse, factor] = constants.scales(s, &s.max_last(&scaled)?, &constants.weight_steps)?;
    let q = s.transpose(&s.round(&s.multiply(&scaled, &inverse)?)?, &[0, 1, 3, 2, 4])?;
    let values = s.reshape(&values.elements, &[sequences, kv, blocks, block, width])?;
    let factor = s.transpose(&factor, &[0, 1, 3, 2, 4])?;
    s.sum(&s.multiply(&s.matmul(&q, &values)?, &factor)?, 2)
}
