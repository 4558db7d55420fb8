//! One transformer layer of the oracle: norms, quantisation, products, attention.

use bitnet_core::lanes;
use bitnet_quant::{TernaryMatrix, absmax};

use super::attention::{LayerCache, attention, slot};
use super::{rope_angles, rope_rotate};
use crate::executor::ExecError;
use crate::weights::{LayerExtras, LayerWeights};
use crate::{Activation, ModelSpec};

/// A ternary matrix as plain trits.
struct Matrix {
    cols: usize,
    scale: f32,
    trits: Vec<i8>,
}

impl Matrix {
    fn new(name: &str, m: &TernaryMatrix) -> Result<Self, ExecError> {
        let trits = m.to_trits().map_err(|source| ExecError::Weights { tensor: name.to_owned(), source })?;
        Ok(Self { cols: m.cols(), scale: m.scale(), trits })
    }

    /// `y[r] = sum(q * t) * (scale / s)` for one quantised row.
    fn multiply(&self, q: &[i8], s: f32) -> Vec<f32> {
        let factor = self.scale / s;
        self.trits
            .chunks_exact(self.cols)
            .map(|row| {
                let sum: i32 = row.iter().zip(q).map(|(&t, &q)| i32::from(t) * i32::from(q)).sum();
                sum as f32 * factor
            })
            .collect()
    }
}

/// A layer with its trits unpacked.
pub(super) struct Layer {
    attn_norm: Vec<f32>,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    attn_sub_norm: Option<Vec<f32>>,
    o: Matrix,
    ffn_norm: Vec<f32>,
    gate: Matrix,
    up: Matrix,
    ffn_sub_norm: Option<Vec<f32>>,
    down: Matrix,
    extras: LayerExtras,
}

/// Where a row is quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// Layer, from 0.
    pub layer: usize,
    /// The projections that read the row: `q, k, v`, `o`, `gate, up` or `down`; with norms before each of them every one
    /// of the seven alone.
    pub projection: &'static str,
    /// Position of the token.
    pub position: usize,
}

/// A function that sees a row before quantisation, its scale and its int8 values, which it may change.
pub(super) type Hook<'a> = &'a mut dyn FnMut(Site, &[f32], f32, &mut [i8]);

/// Which token of which text a layer is computed for, and where its keys and values go.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Layer, from 0.
    pub(super) layer: usize,
    /// The block table of the text.
    pub(super) blocks: &'a [u32],
    /// Position of the token.
    pub(super) position: usize,
}

/// Norms a row (each norm in turn) and quantises it for the named projections.
type Read<'a> = &'a mut dyn FnMut(&'static str, &[f32], &[&[f32]]) -> (Vec<i8>, f32);

impl Layer {
    /// Unpacks layer `number`.
    ///
    /// # Errors
    /// [`ExecError::Weights`] if a ternary tensor is damaged.
    pub(super) fn new(number: usize, l: &LayerWeights) -> Result<Self, ExecError> {
        let matrix = |name: &str, m| Matrix::new(&format!("layer {number} {name}"), m);
        Ok(Self {
            attn_norm: l.attn_norm.clone(),
            q: matrix("q", &l.q)?,
            k: matrix("k", &l.k)?,
            v: matrix("v", &l.v)?,
            attn_sub_norm: l.attn_sub_norm.clone(),
            o: matrix("o", &l.o)?,
            ffn_norm: l.ffn_norm.clone(),
            gate: matrix("gate", &l.gate)?,
            up: matrix("up", &l.up)?,
            ffn_sub_norm: l.ffn_sub_norm.clone(),
            down: matrix("down", &l.down)?,
            extras: l.extras.clone(),
        })
    }

    /// Adds to the residual stream `x` of a token what this layer makes of it. All earlier positions must be in `cache`.
    pub(super) fn forward(
        &self,
        spec: &ModelSpec,
        place: Place<'_>,
        cache: &mut LayerCache,
        x: &mut [f32],
        mut hook: Option<Hook<'_>>,
    ) {
        let Place { layer, blocks, position } = place;
        let eps = spec.rms_norm_eps;
        let mut read = |projection, x: &[f32], norms: &[&[f32]]| {
            let (h, mut q, scale) = norm_and_quantize(x, norms, eps);
            if let Some(hook) = &mut hook {
                hook(Site { layer, projection, position }, &h, scale, &mut q);
            }
            (q, scale)
        };
        let [mut query, mut key, value] = self.queries_keys_values(x, &mut read);
        if let Some([query_norm, key_norm]) = &self.extras.head_norms {
            norm_heads(&mut query, query_norm, eps);
            norm_heads(&mut key, key_norm, eps);
        }
        rotate_heads(spec, layer, position, &mut query);
        rotate_heads(spec, layer, position, &mut key);
        cache.store(slot(blocks, position), &key, &value);
        let o = attention(spec, layer, cache, blocks, position, &query);
        let (q, scale) = read("o", &o, &norms(&self.attn_sub_norm));
        let post = self.extras.post_norms.as_ref().map(|[attention, _]| attention.as_slice());
        add(x, self.o.multiply(&q, scale), post, eps);

        let m = self.activated(x, spec.activation, &mut read);
        let (q, scale) = read("down", &m, &norms(&self.ffn_sub_norm));
        let post = self.extras.post_norms.as_ref().map(|[_, ffn]| ffn.as_slice());
        add(x, self.down.multiply(&q, scale), post, eps);
    }

    fn queries_keys_values(&self, x: &[f32], read: Read<'_>) -> [Vec<f32>; 3] {
        let matrices = [&self.q, &self.k, &self.v];
        let Some([q, k, v, ..]) = &self.extras.projection_norms else {
            let (q, scale) = read("q, k, v", x, &[&self.attn_norm]);
            return matrices.map(|matrix| matrix.multiply(&q, scale));
        };
        let mut one = |name, matrix: &Matrix, norm: &[f32]| {
            let (q, scale) = read(name, x, &[&self.attn_norm, norm]);
            matrix.multiply(&q, scale)
        };
        [one("q", &self.q, q), one("k", &self.k, k), one("v", &self.v, v)]
    }

    /// `act(gate) * up`.
    fn activated(&self, x: &[f32], activation: Activation, read: Read<'_>) -> Vec<f32> {
        let [mut gate, up] = match &self.extras.projection_norms {
            None => {
                let (q, scale) = read("gate, up", x, &[&self.ffn_norm]);
                [self.gate.multiply(&q, scale), self.up.multiply(&q, scale)]
            }
            Some([.., gate_norm, up_norm]) => {
                let (q, scale) = read("gate", x, &[&self.ffn_norm, gate_norm]);
                let gate = self.gate.multiply(&q, scale);
                let (q, scale) = read("up", x, &[&self.ffn_norm, up_norm]);
                [gate, self.up.multiply(&q, scale)]
            }
        };
        for (g, u) in gate.iter_mut().zip(up) {
            *g = match activation {
                Activation::Relu2 => lanes::relu2(*g),
                Activation::Silu => lanes::silu(*g),
                Activation::Gelu => lanes::gelu_tanh(*g),
            } * u;
        }
        gate
    }
}

/// A norm that may be there, as a list.
fn norms(norm: &Option<Vec<f32>>) -> Vec<&[f32]> {
    norm.iter().map(Vec::as_slice).collect()
}

/// Adds `y`, normed first if there is a norm for it.
fn add(x: &mut [f32], mut y: Vec<f32>, norm: Option<&[f32]>, eps: f32) {
    if let Some(weight) = norm {
        let raw = y.clone();
        lanes::rms_norm(&raw, weight, eps, &mut y);
    }
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// RMS norms and int8 quantisation of one row: the normed row, its int8 values and their scale.
fn norm_and_quantize(x: &[f32], weights: &[&[f32]], eps: f32) -> (Vec<f32>, Vec<i8>, f32) {
    let mut h = x.to_vec();
    for weight in weights {
        let raw = h.clone();
        lanes::rms_norm(&raw, weight, eps, &mut h);
    }
    let mut q = vec![0; h.len()];
    let scale = absmax::quantize_row(&h, &mut q);
    (h, q, scale)
}

/// RMS norm of each head, which is as long as `weight`.
fn norm_heads(heads: &mut [f32], weight: &[f32], eps: f32) {
    for head in heads.chunks_exact_mut(weight.len()) {
        let raw = head.to_vec();
        lanes::rms_norm(&raw, weight, eps, head);
    }
}

fn rotate_heads(spec: &ModelSpec, layer: usize, position: usize, heads: &mut [f32]) {
    let half = spec.head_dim / 2;
    let (mut cos, mut sin) = (vec![0.0; half], vec![0.0; half]);
    rope_angles(spec, spec.is_sliding(layer), position, &mut cos, &mut sin);
    for head in heads.chunks_exact_mut(spec.head_dim) {
        rope_rotate(head, &cos, &sin);
    }
}
