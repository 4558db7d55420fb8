//! Measures the CUDA executor on a model of the shape of BitNet b1.58 2B-4T, with weights made up in memory.
//!
//! `cargo run --release -p bitnet-cuda --example measure-cuda`; the program runs by itself on a machine without cargo. It prints
//! tokens a second of whole calls, as the engine makes them, and what each kind of kernel takes by the device's events.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use bitnet_core::MemorySize;
use bitnet_cuda::{CudaExecutor, CudaOptions, devices};
use bitnet_model::synth::ShapePreset;
use bitnet_model::{Batch, Executor, LogitRows, Sequence, TopLogits};

#[path = "../../bitnet-model/examples/made_up/mod.rs"]
mod made_up;

/// Positions of a block of keys and values.
const BLOCK: usize = 32;

/// Block tables of some sequences that have nothing in common.
fn tables(sequences: usize, positions: usize) -> Vec<Vec<u32>> {
    let each = positions.div_ceil(BLOCK) as u32;
    (0..sequences as u32).map(|s| (s * each..(s + 1) * each).collect()).collect()
}

/// Tokens a second of `steps` steps from `depth` on, and milliseconds of a step.
fn decode(executor: &mut CudaExecutor, sequences: usize, depth: usize, steps: usize) -> (f64, f64) {
    const WARM: usize = 8;
    let tables = tables(sequences, depth + WARM + steps);
    executor.reserve_blocks(tables.iter().map(Vec::len).sum()).unwrap();
    let mut top = vec![TopLogits::default(); sequences];
    let mut begin = Instant::now();
    for step in 0..WARM + steps {
        if step == WARM {
            begin = Instant::now();
        }
        let tokens: Vec<u32> = top.iter().map(|top| top.ids.first().copied().unwrap_or(1)).collect();
        let batch: Vec<Sequence<'_>> = tables
            .iter()
            .zip(&tokens)
            .map(|(blocks, token)| Sequence {
                tokens: std::slice::from_ref(token),
                position: depth + step,
                blocks,
                logits: LogitRows::Last,
            })
            .collect();
        executor.forward_top(&Batch { sequences: &batch }, 1, &mut top).unwrap();
    }
    let step = begin.elapsed().as_secs_f64() / steps as f64;
    (sequences as f64 / step, step * 1e3)
}

/// Tokens a second of one prompt, the best of some runs.
fn prefill(executor: &mut CudaExecutor, tokens: usize, runs: usize) -> f64 {
    let table = tables(1, tokens).swap_remove(0);
    executor.reserve_blocks(table.len()).unwrap();
    let prompt: Vec<u32> = (0..tokens as u32).map(|i| i * 7919 % 128_000).collect();
    let mut top = [TopLogits::default()];
    let mut best = f64::INFINITY;
    for _ in 0..runs {
        let begin = Instant::now();
        let s = Sequence { tokens: &prompt, position: 0, blocks: &table, logits: LogitRows::Last };
        executor.forward_top(&Batch { sequences: &[s] }, 1, &mut top).unwrap();
        best = best.min(begin.elapsed().as_secs_f64());
    }
    tokens as f64 / best
}

/// Prints what each kind of kernel takes, beside the bytes of weights it reads and the operations it does.
fn parts(executor: &mut CudaExecutor, name: &str, sequences: &[Sequence<'_>]) {
    let spec = executor.spec().clone();
    let tokens: usize = sequences.iter().map(|s| s.tokens.len()).sum();
    let (hidden, ffn, q, kv) = (spec.hidden_size, spec.intermediate_size, spec.q_size(), spec.kv_size());
    println!("{name}:");
    for (part, seconds) in executor.time_parts(&Batch { sequences }).unwrap() {
        let weights = match part {
            "q, k, v" => hidden * (q + 2 * kv),
            "o" => hidden * q,
            "gate, up" => 2 * hidden * ffn,
            "down" => hidden * ffn,
            _ => 0,
        } * spec.num_layers;
        let bytes = if part == "output" {
            executor.info().traffic.output_scan.as_bytes() as f64
        } else {
            weights as f64 / 4.0
        };
        println!(
            "  {part:<10} {:8.3} ms  {:7.0} GB/s of weights  {:7.1} Tops",
            seconds * 1e3,
            bytes / seconds / 1e9,
            2.0 * weights as f64 * tokens as f64 / seconds / 1e12
        );
    }
}

fn main() {
    println!("{:#?}", devices().unwrap());
    let spec = ShapePreset::parse(&std::env::args().nth(1).unwrap_or("2b4t".to_owned())).unwrap().spec();
    let begin = Instant::now();
    let weights = made_up::weights(&spec);
    println!("weights made up in {:.1} s", begin.elapsed().as_secs_f64());
    let begin = Instant::now();
    let options = CudaOptions { kernels: std::env::args().nth(2), ..CudaOptions::default() };
    let mut executor = CudaExecutor::new(spec, &weights, &options, &mut |_, _| {}).unwrap();
    println!("loaded in {:.1} s: {:?}", begin.elapsed().as_secs_f64(), executor.info());
    println!("device copy {:.0} GB/s", executor.measure_bandwidth().unwrap() / 1e9);
    for (sequences, depth, steps) in [(1, 0, 200), (1, 3500, 200), (8, 0, 100), (64, 0, 50), (64, 1000, 50)] {
        let (rate, step) = decode(&mut executor, sequences, depth, steps);
        println!("decode {sequences:>2} at depth {depth:>4}: {rate:9.1} tokens/s, {step:.3} ms a step");
    }
    for tokens in [512, 2048] {
        let rate = prefill(&mut executor, tokens, 4);
        println!("prefill of {tokens}: {rate:.0} tokens/s, {:.2} ms", tokens as f64 / rate * 1e3);
    }
    let tables = tables(64, 4096);
    executor.reserve_blocks(64 * 128).unwrap();
    let one = |table, position| Sequence { tokens: &[1], position, blocks: table, logits: LogitRows::Last };
    parts(&mut executor, "one sequence at depth 10", &[one(&tables[0], 10)]);
    parts(&mut executor, "one sequence at depth 3500", &[one(&tables[0], 3500)]);
    let many: Vec<Sequence<'_>> = tables.iter().map(|table| one(table, 10)).collect();
    parts(&mut executor, "8 sequences at depth 10", &many[..8]);
    parts(&mut executor, "64 sequences at depth 10", &many);
    let prompt: Vec<u32> = (0..2048).collect();
    let s = Sequence { tokens: &prompt, position: 0, blocks: &tables[0], logits: LogitRows::Last };
    parts(&mut executor, "a prompt of 2048", &[s]);
    println!("{:?}", executor.statistics());
    println!("memory in use: {}", MemorySize::bytes(executor.statistics().pool.in_use.as_bytes()));
}
