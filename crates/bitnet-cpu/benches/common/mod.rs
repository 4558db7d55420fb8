//! What the benches share.
#![allow(dead_code, reason = "each bench uses a part")]

use std::time::Duration;

use bitnet_core::bytes::ByteView;
use bitnet_core::cpu::CpuFeatures;
use bitnet_cpu::{Form, kernel_sets};
use bitnet_model::conformance::Random;
use bitnet_model::{Activation, Extras, ModelSpec};
use bitnet_quant::{RowOrder, TernaryMatrix, TritCodec};
use criterion::Criterion;

/// Both forms of ternary weights.
pub(crate) const FORMS: [Form; 3] = Form::ALL;

/// Runs `benches` as the command line says. Measurements are short: there are many, and what a shared machine does to
/// a figure in a minute is more than what longer ones gain.
pub(crate) fn run(benches: impl FnOnce(&mut Criterion)) {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    benches(&mut criterion);
    criterion.final_summary();
}

/// Whether every bench runs only once, to see that it works (`-- --test`): shapes are small then.
pub(crate) fn testing() -> bool {
    std::env::args().any(|arg| arg == "--test")
}

/// Names of the kernel sets that this processor can run, the fastest first.
pub(crate) fn sets() -> Vec<&'static str> {
    kernel_sets().into_iter().filter(|set| set.available).map(|set| set.name).collect()
}

/// [`sets`] without scalar code, for work that would take it minutes. All sets where there is nothing else or the work
/// is small.
pub(crate) fn fast_sets() -> Vec<&'static str> {
    let sets = sets();
    if testing() || sets.len() == 1 {
        sets
    } else {
        sets.into_iter().filter(|&set| set != "scalar").collect()
    }
}

/// One thread, and all cores.
pub(crate) fn thread_counts() -> Vec<usize> {
    let mut counts = vec![1, CpuFeatures::detect().cores];
    counts.dedup();
    counts
}

pub(crate) fn random_matrix(rows: usize, cols: usize) -> TernaryMatrix {
    let mut random = Random::new(1);
    let trits: Vec<i8> = (0..rows * cols).map(|_| random.next_trit()).collect();
    let data = ByteView::from_vec(bitnet_quant::codec::pack_hf(&trits, rows, cols).expect("rows in fours"));
    TernaryMatrix::new(rows, cols, 0.02, TritCodec::HfPacked, RowOrder::Natural, data).expect("packed to fit")
}

/// The 2B-4T shape with other numbers of layers and tokens.
pub(crate) fn spec(num_layers: usize, vocab_size: usize) -> ModelSpec {
    ModelSpec {
        architecture: "bench".to_owned(),
        vocab_size,
        hidden_size: 2560,
        intermediate_size: 6912,
        num_layers,
        num_heads: 20,
        num_kv_heads: 5,
        head_dim: 128,
        activation: Activation::Relu2,
        sub_norms: true,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        context_length: 4096,
        tied_output: true,
        extras: Extras::default(),
    }
}
