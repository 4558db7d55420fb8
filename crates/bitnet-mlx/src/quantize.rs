//! Rows as int8, ternary products of them, activations.

use bitnet_model::Activation;

use crate::error::MlxError;
use crate::pack::{Matrix, int, padded};
use crate::sys::{Array, Stream};

/// Numbers that graphs need as arrays of one element, and others of few.
#[derive(Debug)]
pub(crate) struct Constants {
    pub(crate) zero: Array,
    /// The largest magnitude of an int8 activation, 127.
    pub(crate) steps: Array,
    /// The largest weight of int8 attention, 255.
    pub(crate) weight_steps: Array,
    /// The smallest maximum of a row that counts, 1e-5.
    floor: Array,
    /// The largest number of half precision, and the smallest.
    pub(crate) half_range: [Array; 2],
    /// What scores are multiplied by.
    pub(crate) score_scale: Array,
    /// The numbers 1 and 0: the halves of a head the other way round.
    pub(crate) swapped: Array,
    /// Of the activation GELU: twice the square root of 2 / pi, and that times 0.044715.
    gelu: [Array; 2],
}

/// Rows that are quantised for products.
#[derive(Debug)]
pub(crate) struct Rows {
    /// Whole numbers of -127..=127 in single precision, `[rows, padded columns]`.
    q: Array,
    /// What they were multiplied by, `[rows, 1]`.
    scale: Array,
}

impl Constants {
    /// For a model whose scores are multiplied by `score_scale`.
    ///
    /// # Errors
    /// [`MlxError`].
    pub(crate) fn new(score_scale: f32) -> Result<Self, MlxError> {
        let one = |value: f32| Array::from_f32(&[value], &[1]);
        Ok(Self {
            zero: one(0.0)?,
            steps: one(127.0)?,
            weight_steps: one(255.0)?,
            floor: one(1e-5)?,
            half_range: [one(65504.0)?, one(-65504.0)?],
            score_scale: one(score_scale)?,
            swapped: Array::from_i32(&[1, 0], &[2])?,
            gelu: [one(1.595_769_2)?, one(0.071_354_814)?],
        })
    }

    /// Norms rows `[n, columns]` by each weight in turn and quantises them: `q = round(x s)`, `s = 127 / max(max|x|, 1e-5)`.
    ///
    /// No clamp is needed: `|x s|` is at most 127 but for rounding errors far below a half. A row with something that is
    /// not a number becomes one of such, so that results tell.
    ///
    /// # Errors
    /// [`MlxError`].
    pub(crate) fn read(&self, s: &Stream, x: &Array, norms: &[&Array], eps: f32) -> Result<Rows, MlxError> {
        let mut h = x.clone();
        for norm in norms {
            h = s.rms_norm(&h, Some(norm), eps)?;
        }
        let largest = s.maximum(&s.max_last(&s.abs(&h)?)?, &self.floor)?;
        let scale = s.divide(&self.steps, &largest)?;
        let mut q = s.round(&s.multiply(&h, &scale)?)?;
        let (rows, columns) = (q.dim(0), q.dim(1));
        let missing = int(padded(columns as usize))? - columns;
        if missing > 0 {
            let zeros = s.zeros(&[rows, missing], crate::sys::Dtype::F32)?;
            q = s.concatenate(&[&q, &zeros], 1)?;
        }
        Ok(Rows { q, scale })
    }

    /// `act(gate) * up`.
    ///
    /// # Errors
    /// [`MlxError`].
    pub(crate) fn activate(
        &self,
        s: &Stream,
        activation: Activation,
        gate: &Array,
        up: &Array,
    ) -> Result<Array, MlxError> {
        let activated = match activation {
            Activation::Relu2 => s.square(&s.maximum(gate, &self.zero)?)?,
            Activation::Silu => s.multiply(gate, &s.sigmoid(gate)?)?,
            Activation::Gelu => {
                let [linear, cubic] = &self.gelu;
                let slope = s.add(&s.multiply(&s.square(gate)?, cubic)?, linear)?;
                s.multiply(gate, &s.sigmoid(&s.multiply(gate, &slope)?)?)?
            }
        };
        s.multiply(&activated, up)
    }

    /// `steps / largest` and `largest / steps`, or zeros where the first is not finite: for keys, values and weights of int8.
    ///
    /// # Errors
    /// [`MlxError`].
    pub(crate) fn scales(&self, s: &Stream, largest: &Array, steps: &Array) -> Result<[Array; 2], MlxError> {
        let inverse = s.divide(steps, largest)?;
        let there = s.is_finite(&inverse)?;
        let scale = s.choose(&there, &s.divide(largest, steps)?, &self.zero)?;
        Ok([s.choose(&there, &inverse, &self.zero)?, scale])
    }

    /// Rows of the last dimension as whole numbers of -127..=127, and the scales that give them back, as
    /// `bitnet_model::kv::quantize_row`.
    ///
    /// # Errors
    /// [`MlxError`].
    pub(crate) fn int8(&self, s: &Stream, x: &Array) -> Result<[Array; 2], MlxError> {
        let [inverse, scale] = self.scales(s, &s.max_last(&s.abs(x)?)?, &self.steps)?;
        Ok([s.round(&s.multiply(x, &inverse)?)?, scale])
    }
}

impl Rows {
    /// `sum(q t) * (weight scale / s)`, `[rows, rows of the matrix]`: the sums are exact.
    ///
    /// # Errors
    /// [`MlxError`].
    pub(crate) fn times(&self, s: &Stream, matrix: &Matrix) -> Result<Array, MlxError> {
        let sums = s.ternary(&self.q, &matrix.codes)?;
        s.multiply(&sums, &s.divide(&matrix.factors, &self.scale)?)
    }
}
