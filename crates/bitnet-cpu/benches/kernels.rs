//! How fast the kernels are, beside what the machine can do: `cargo bench -p bitnet-cpu`.
//!
//! Machines are noisy: every figure is the median of runs that are interleaved with the others, and the memory
//! bandwidth is measured in the same rounds.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use bitnet_core::DType;
use bitnet_core::bytes::ByteView;
use bitnet_cpu::{BitLinear, CpuExecutor, CpuOptions, kernel_sets};
use bitnet_model::conformance::{Random, random_weights};
use bitnet_model::{Activation, Batch, Executor, LogitRows, ModelSpec, Sequence};
use bitnet_quant::{RowOrder, TernaryMatrix, TritCodec};

/// Interleaved rounds.
const ROUNDS: usize = 15;

fn main() {
    products();
    decode_and_prefill();
}

/// One quantised row times one matrix, by kernel set.
fn products() {
    println!("one BitLinear, one row, one thread (quantisation included)\n");
    println!("{:<12} {:>12} {:>14} {:>12} {:>12}", "kernels", "shape", "operations/s", "GMAC/s", "GB/s");
    for (rows, cols) in [(768, 768), (6912, 2560)] {
        let matrix = random_matrix(rows, cols);
        let x: Vec<f32> = (0..cols).map(|i| (i as f32 * 0.37).sin()).collect();
        let mut layers: Vec<BitLinear> = kernel_sets()
            .into_iter()
            .filter(|s| s.available)
            .map(|s| BitLinear::new(&matrix, Some(s.name)).expect("an available set"))
            .collect();
        let mut seconds = vec![Vec::new(); layers.len()];
        for _ in 0..ROUNDS {
            for (layer, seconds) in layers.iter_mut().zip(&mut seconds) {
                let repeat = if layer.kernel_set_name() == "scalar" { 2 } else { 100 };
                let start = Instant::now();
                for _ in 0..repeat {
                    black_box(layer.forward(black_box(&x)));
                }
                seconds.push(start.elapsed().as_secs_f64() / f64::from(repeat));
            }
        }
        for (layer, seconds) in layers.iter().zip(&mut seconds) {
            let s = median(seconds);
            println!(
                "{:<12} {:>12} {:>14.0} {:>12.1} {:>12.2}",
                layer.kernel_set_name(),
                format!("{rows}x{cols}"),
                1.0 / s,
                (rows * cols) as f64 / s / 1e9,
                layer.weight_bytes() as f64 / s / 1e9,
            );
        }
    }
    println!();
}

/// Four layers of the 2B-4T shape with a small vocabulary: decoding is limited by memory, prefill by the multiplier.
fn decode_and_prefill() {
    let spec = ModelSpec {
        architecture: "bench".to_owned(),
        vocab_size: 512,
        hidden_size: 2560,
        intermediate_size: 6912,
        num_layers: 4,
        num_heads: 20,
        num_kv_heads: 5,
        head_dim: 128,
        activation: Activation::Relu2,
        sub_norms: true,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        context_length: 4096,
        tied_output: true,
    };
    let weights = random_weights(&spec, DType::BF16, &mut Random::new(1));
    let tokens: Vec<u32> = (0..192).map(|i| i % 512).collect();
    let blocks: Vec<u32> = (0..16).collect();
    let macs = spec.ternary_parameters() as f64;
    println!("{} ternary layers of the 2B-4T shape ({:.0} MB)\n", spec.num_layers, macs / 4e6);
    println!("{:<12} {:>7} {:>18} {:>18}", "kernels", "threads", "decode GB/s", "prefill GMAC/s");
    let mut runs = Vec::new();
    for set in kernel_sets().into_iter().filter(|s| s.available && s.name != "scalar") {
        for threads in [1, 2] {
            let options = CpuOptions {
                threads: Some(threads),
                kernels: Some(set.name.to_owned()),
                ..CpuOptions::default()
            };
            let mut executor =
                CpuExecutor::new(spec.clone(), &weights, &options, &mut |_, _| {}).expect("an available set");
            executor.reserve_blocks(16).expect("memory");
            runs.push((executor, Vec::new(), Vec::new()));
        }
    }
    let mut logits = vec![0.0; 512];
    let mut bandwidth = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (executor, decode, prefill) in &mut runs {
            let mut pass = |tokens: &[u32], position| {
                let s = Sequence { tokens, position, blocks: &blocks, logits: LogitRows::Last };
                let start = Instant::now();
                executor.forward(&Batch { sequences: &[s] }, &mut logits).expect("a valid batch");
                start.elapsed().as_secs_f64()
            };
            prefill.push(macs * tokens.len() as f64 / pass(&tokens, 0) / 1e9);
            for i in 0..8 {
                decode.push(macs / 4.0 / pass(&[7], 192 + i) / 1e9);
            }
        }
        for (threads, samples) in [1, 2].into_iter().zip(&mut bandwidth) {
            samples.push(read_bandwidth(threads));
        }
    }
    for (executor, decode, prefill) in &mut runs {
        let (name, threads) = (executor.kernel_set_name(), executor.threads());
        println!("{name:<12} {threads:>7} {:>18.1} {:>18.1}", median(decode), median(prefill));
    }
    for (threads, samples) in [1, 2].into_iter().zip(&mut bandwidth) {
        println!("{:<12} {threads:>7} {:>18.1}", "(memory)", median(samples));
    }
}

fn random_matrix(rows: usize, cols: usize) -> TernaryMatrix {
    let mut random = Random::new(1);
    let trits: Vec<i8> = (0..rows * cols).map(|_| random.next_trit()).collect();
    let data = ByteView::from_vec(bitnet_quant::codec::pack_hf(&trits, rows, cols).expect("rows in fours"));
    TernaryMatrix::new(rows, cols, 0.02, TritCodec::HfPacked, RowOrder::Natural, data).expect("packed to fit")
}

/// GB/s of reading 256 MiB by `threads` threads.
fn read_bandwidth(threads: usize) -> f64 {
    const WORDS: usize = 32 << 20;
    thread_local!(static DATA: Vec<u64> = vec![1; WORDS]);
    DATA.with(|data| {
        let start = Instant::now();
        let sum: u64 = std::thread::scope(|scope| {
            let parts: Vec<_> = data
                .chunks(WORDS / threads)
                .map(|part| scope.spawn(move || part.iter().fold(0u64, |a, &b| a.wrapping_add(b))))
                .collect();
            parts.into_iter().map(|p| p.join().expect("no panic")).fold(0, u64::wrapping_add)
        });
        black_box(sum);
        (WORDS * 8) as f64 / start.elapsed().as_secs_f64() / 1e9
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
