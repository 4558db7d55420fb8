//! [`Machine`]: a call as passes, a pass as one graph.

use bitnet_model::{Batch, ExecError, Want};

use crate::attention::Heads;
use crate::error::MlxError;
use crate::kv::KvCache;
use crate::layer::Frame;
use crate::model::Model;
use crate::pack::int;
use crate::plan::{Pass, cut};
use crate::quantize::Constants;
use crate::sys::{Array, Stream, eval};
use crate::want::Sink;

/// All that forward passes need.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) stream: Stream,
    pub(crate) model: Model,
    pub(crate) kv: KvCache,
    pub(crate) constants: Constants,
    pub(crate) heads: Heads,
    /// Most rows of a pass.
    pub(crate) max_rows: usize,
}

impl Machine {
    /// Runs a batch, from `rows` instead of the rows of the embedding if they are given.
    ///
    /// # Errors
    /// [`ExecError::Device`] and [`ExecError::OutOfDeviceMemory`], which may cost all keys and values (see `kv`);
    /// [`ExecError::NotFinite`].
    pub(crate) fn run(
        &mut self,
        batch: &Batch<'_>,
        rows: Option<&[f32]>,
        want: Want<'_>,
    ) -> Result<(), ExecError> {
        let mut sink = Sink::new(want);
        for pieces in cut(&self.model.spec, batch, self.max_rows) {
            let pass = Pass::new(&self.model.spec, &pieces);
            let x = self.input(&pass, rows)?;
            self.pass(&pass, &x, &mut sink)?;
        }
        if sink.finite { Ok(()) } else { Err(ExecError::NotFinite) }
    }

    /// The residual stream before the first layer.
    fn input(&self, pass: &Pass<'_>, rows: Option<&[f32]>) -> Result<Vec<f32>, ExecError> {
        let spec = &self.model.spec;
        let width = spec.hidden_size;
        let mut x = vec![0.0; pass.rows() * width];
        let mut out = x.chunks_exact_mut(width);
        let mut scratch = Vec::new();
        for piece in &pass.pieces {
            for (i, (&token, out)) in piece.tokens.iter().zip(&mut out).enumerate() {
                match rows {
                    Some(rows) => out.copy_from_slice(&rows[(piece.first + i) * width..][..width]),
                    None => self.model.embedding.read_row(token as usize, &mut scratch, out)?,
                }
            }
        }
        if spec.extras.scaled_embedding {
            x.iter_mut().for_each(|x| *x *= spec.embedding_scale());
        }
        Ok(x)
    }

    fn pass(&mut self, pass: &Pass<'_>, x: &[f32], sink: &mut Sink<'_>) -> Result<(), MlxError> {
        let given = self.graph(pass, x, sink.wants_logits());
        let computed = given.and_then(|given| {
            eval(&self.kv.arrays().chain(&given).collect::<Vec<_>>())?;
            Ok(given)
        });
        let given = self.kv.settle(&self.stream, computed)?;
        if let Some(given) = given {
            sink.take(given.f32s()?, given.dim(1) as usize);
        }
        Ok(())
    }

    /// The results of a pass, `[wanted rows, hidden_size or vocab_size]`; none if no row is wanted.
    fn graph(&mut self, pass: &Pass<'_>, x: &[f32], logits: bool) -> Result<Option<Array>, MlxError> {
        let Self { stream: s, model, kv, constants, heads, .. } = self;
        let frame = Frame::new(s, &model.spec, constants, *heads, pass)?;
        let mut x = Array::from_f32(x, &[int(pass.rows())?, int(model.spec.hidden_size)?])?;
        for (number, layer) in model.layers.iter().enumerate() {
            x = frame.layer(number, layer, kv, &x)?;
        }
        if pass.wanted.is_empty() {
            return Ok(None);
        }
        let wanted = Array::from_i32(&pass.wanted, &[int(pass.wanted.len())?])?;
        let hidden =
            s.rms_norm(&s.take(&x, &wanted, 0)?, Some(&model.final_norm), model.spec.rms_norm_eps)?;
        let given = if logits { s.matmul(&hidden, &model.output)? } else { hidden };
        s.in_rows(&given).map(Some)
    }
}
