//! Float weights: rounded to trits while they are read.

use bitnet_core::DenseType;

use crate::absmean;

/// Weights that are decoded at a time: whole blocks of every type.
const CHUNK: usize = 512;

pub(super) fn decode(dtype: DenseType, inv: f32, data: &[u8], row: usize, out: &mut [i8]) {
    let row_bytes = out.len() / dtype.block_len() * dtype.block_bytes();
    let bytes = &data[row * row_bytes..][..row_bytes];
    let chunk_bytes = CHUNK / dtype.block_len() * dtype.block_bytes();
    let mut buf = [0.0f32; CHUNK];
    for (bytes, out) in bytes.chunks(chunk_bytes).zip(out.chunks_mut(CHUNK)) {
        let values = &mut buf[..out.len()];
        dtype.decode(bytes, values);
        for (o, &v) in out.iter_mut().zip(values.iter()) {
            *o = absmean::trit(v, inv);
        }
    }
}
