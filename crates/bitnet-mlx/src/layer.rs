//! One transformer layer as a part of the graph.

use bitnet_model::ModelSpec;

use crate::attention::{DeviceGroup, Heads};
use crate::error::MlxError;
use crate::kv::KvCache;
use crate::model::Layer;
use crate::pack::int;
use crate::plan::{Pass, has_layers};
use crate::quantize::Constants;
use crate::sys::{Array, Stream};

/// What all layers of a pass need.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) stream: &'a Stream,
    pub(crate) spec: &'a ModelSpec,
    pub(crate) constants: &'a Constants,
    pub(crate) heads: Heads,
    groups: Vec<DeviceGroup>,
    /// Where keys and values of the rows go.
    slots: Array,
    /// See [`Pass::rotation`]; for layers without and with a sliding window.
    rotations: [Option<[Array; 2]>; 2],
}

impl<'a> Frame<'a> {
    /// Uploads what is known of a pass.
    ///
    /// # Errors
    /// [`MlxError`].
    pub(crate) fn new(
        stream: &'a Stream,
        spec: &'a ModelSpec,
        constants: &'a Constants,
        heads: Heads,
        pass: &Pass<'_>,
    ) -> Result<Self, MlxError> {
        let rows = int(pass.rows())?;
        let shape = [rows, 1, 2, int(spec.head_dim / 2)?];
        let rotation = |sliding| {
            if !has_layers(spec, sliding) {
                return Ok(None);
            }
            let [straight, crossed] = pass.rotation(spec, sliding);
            Ok::<_, MlxError>(Some([Array::from_f32(&straight, &shape)?, Array::from_f32(&crossed, &shape)?]))
        };
        let groups: Result<Vec<DeviceGroup>, MlxError> = pass.groups.iter().map(DeviceGroup::new).collect();
        let slots = Array::from_i32(&pass.slots(), &[rows])?;
        let rotations = [rotation(false)?, rotation(true)?];
        Ok(Self { stream, spec, constants, heads, groups: groups?, slots, rotations })
    }

    /// Adds to the residual stream `x`, `[rows, hidden_size]`, what a layer makes of it.
    ///
    /// # Errors
    /// [`MlxError`].
    pub(crate) fn layer(
        &self,
        number: usize,
        layer: &Layer,
        kv: &mut KvCache,
        x: &Array,
    ) -> Result<Array, MlxError> {
        let (s, eps, norms) = (self.stream, self.spec.rms_norm_eps, &layer.norms);
        let (heads, values) = self.heads_and_values(number, layer, x)?;
        let (q_heads, kv_heads) = (int(self.spec.num_heads)?, int(self.spec.num_kv_heads)?);
        let queries = s.part(&heads, 1, 0..q_heads)?;
        let keys = s.part(&heads, 1, q_heads..q_heads + kv_heads)?;
        let form = kv.form();
        let Some(cache) = kv.layer_mut(number) else {
            return Err(MlxError::Device(format!("no keys and values of layer {number}")));
        };
        cache.store(s, self.constants, form, &self.slots, [&keys, &values])?;
        let sliding = self.spec.is_sliding(number);
        let mut found = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            let queries = match &self.groups[..] {
                [_] => queries.clone(),
                _ => s.part(&queries, 0, group.rows.clone())?,
            };
            found.push(self.heads.attend(s, self.constants, group, sliding, cache, &queries)?);
        }
        let found = match &found[..] {
            [one] => one.clone(),
            all => s.concatenate(&all.iter().collect::<Vec<_>>(), 0)?,
        };
        let sub: Vec<&Array> = norms.attention_sub.iter().collect();
        let y = self.constants.read(s, &found, &sub, eps)?.times(s, &layer.o)?;
        let x = self.add(x, y, norms.post.as_ref().map(|[attention, _]| attention))?;

        let activated = self.activated(layer, &x)?;
        let sub: Vec<&Array> = norms.ffn_sub.iter().collect();
        let y = self.constants.read(s, &activated, &sub, eps)?.times(s, &layer.down)?;
        self.add(&x, y, norms.post.as_ref().map(|[_, ffn]| ffn))
    }

    /// Adds `y`, normed first if there is a norm for it.
    fn add(&self, x: &Array, y: Array, norm: Option<&Array>) -> Result<Array, MlxError> {
        let y = match norm {
            Some(norm) => self.stream.rms_norm(&y, Some(norm), self.spec.rms_norm_eps)?,
            None => y,
        };
        self.stream.add(x, &y)
    }

    /// Queries and keys, normed and rotated, `[rows, query and key heads, head_dim]`, and values.
    fn heads_and_values(&self, number: usize, layer: &Layer, x: &Array) -> Result<(Array, Array), MlxError> {
        let (s, spec) = (self.stream, self.spec);
        let (eps, width, half) = (spec.rms_norm_eps, int(spec.head_dim)?, int(spec.head_dim / 2)?);
        let rows = x.dim(0);
        let all = self.projected(x, &layer.norms.attention, projection_norms(layer, 0..3), &layer.qkv)?;
        let split = s.reshape(&all, &[rows, -1, width])?;
        let rotated = int(spec.num_heads + spec.num_kv_heads)?;
        let mut heads = s.part(&split, 1, 0..rotated)?;
        let values = s.part(&split, 1, rotated..rotated + int(spec.num_kv_heads)?)?;
        if let Some(weights) = &layer.norms.heads {
            heads = s.multiply(&s.rms_norm(&heads, None, eps)?, weights)?;
        }
        let Some([straight, crossed]) = &self.rotations[usize::from(spec.is_sliding(number))] else {
            return Err(MlxError::Device("a layer of a kind that the model has not".to_owned()));
        };
        let halves = s.reshape(&heads, &[rows, rotated, 2, half])?;
        let other = s.take(&halves, &self.constants.swapped, 2)?;
        let turned = s.add(&s.multiply(&halves, straight)?, &s.multiply(&other, crossed)?)?;
        Ok((s.reshape(&turned, &[rows, rotated, width])?, values))
    }

    /// The products of one normed row with one matrix, or of a row normed for each with each, side by side.
    fn projected(
        &self,
        x: &Array,
        norm: &Array,
        own: Option<&[Array]>,
        matrices: &[crate::pack::Matrix],
    ) -> Result<Array, MlxError> {
        let (s, eps) = (self.stream, self.spec.rms_norm_eps);
        let mut results = Vec::with_capacity(matrices.len());
        for (i, matrix) in matrices.iter().enumerate() {
            let mut norms = vec![norm];
            norms.extend(own.and_then(|own| own.get(i)));
            results.push(self.constants.read(s, x, &norms, eps)?.times(s, matrix)?);
        }
        match &results[..] {
            [one] => Ok(one.clone()),
            all => s.concatenate(&all.iter().collect::<Vec<_>>(), 1),
        }
    }

    /// `act(gate) * up`.
    fn activated(&self, layer: &Layer, x: &Array) -> Result<Array, MlxError> {
        let s = self.stream;
        let both = self.projected(x, &layer.norms.ffn, projection_norms(layer, 3..5), &layer.gate_up)?;
        let width = int(self.spec.intermediate_size)?;
        let (gate, up) = (s.part(&both, 1, 0..width)?, s.part(&both, 1, width..2 * width)?);
        self.constants.activate(s, self.spec.activation, &gate, &up)
    }
}

/// Norms of their own of some projections, if the layer has such.
fn projection_norms(layer: &Layer, which: std::ops::Range<usize>) -> Option<&[Array]> {
    layer.norms.projections.as_ref().and_then(|norms| norms.get(which))
}
