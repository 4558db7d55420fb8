//! Weights made up in memory, for programs that measure executors: a model of any shape within a second or two; and what
//! they measure on it.

pub(crate) mod texts;

use bitnet_core::DType;
use bitnet_core::bytes::ByteView;
use bitnet_model::{DenseTensor, LayerExtras, LayerWeights, ModelSpec, Weights};
use bitnet_quant::{RowOrder, TernaryMatrix, TritCodec};

/// A fast generator (xorshift64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn matrix(rows: usize, cols: usize, noise: &mut Noise) -> TernaryMatrix {
    let code = |bits: u64| ((bits & 0xffff) * 3) >> 16;
    let byte = |bits: u64| code(bits) | code(bits >> 16) << 2 | code(bits >> 32) << 4 | code(bits >> 48) << 6;
    let bytes = (0..rows * cols / 4).map(|_| byte(noise.next()) as u8).collect();
    let scale = 1.2 / (cols as f32).sqrt();
    TernaryMatrix::new(rows, cols, scale, TritCodec::HfPacked, RowOrder::Natural, ByteView::from_vec(bytes))
        .unwrap()
}

/// One layer whose matrices all layers share on the host; on a device each has its own.
pub(crate) fn weights(spec: &ModelSpec) -> Weights {
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let (hidden, ffn, q, kv) = (spec.hidden_size, spec.intermediate_size, spec.q_size(), spec.kv_size());
    let mut matrix = |rows, cols| matrix(rows, cols, &mut noise);
    let layer = LayerWeights {
        attn_norm: vec![1.0; hidden],
        q: matrix(q, hidden),
        k: matrix(kv, hidden),
        v: matrix(kv, hidden),
        attn_sub_norm: spec.sub_norms.then(|| vec![1.0; q]),
        o: matrix(hidden, q),
        ffn_norm: vec![1.0; hidden],
        gate: matrix(ffn, hidden),
        up: matrix(ffn, hidden),
        ffn_sub_norm: spec.sub_norms.then(|| vec![1.0; ffn]),
        down: matrix(hidden, ffn),
        extras: LayerExtras::default(),
    };
    let mut table = Vec::with_capacity(2 * spec.vocab_size * hidden);
    while table.len() < 2 * spec.vocab_size * hidden {
        // Four bf16 numbers of magnitudes from 2^-7 to 2^-6.
        table
            .extend_from_slice(&(noise.next() & 0x807f_807f_807f_807f | 0x3c00_3c00_3c00_3c00).to_le_bytes());
    }
    Weights {
        embedding: DenseTensor::new(spec.vocab_size, hidden, DType::BF16, ByteView::from_vec(table)).unwrap(),
        output: None,
        final_norm: vec![1.0; hidden],
        layers: vec![layer; spec.num_layers],
    }
}
