//! Measures the CUDA executor on a model of the shape of BitNet b1.58 2B-4T, with weights made up in memory.
//!
//! `cargo run --release -p bitnet-cuda --example measure-cuda`; the program runs by itself on a machine without cargo. It prints
//! tokens a second of whole calls, as the engine makes them, and what each kind of kernel takes by the device's events.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use bitnet_core::MemorySize;
use bitnet_cuda::{CudaExecutor, CudaOptions, devices};
use bitnet_model::synth::ShapePreset;
use bitnet_model::{Batch, Executor, LogitRows, Sequence};

#[path = "../../bitnet-model/examples/made_up/mod.rs"]
mod made_up;
use made_up::texts::{decode, prefill, tables};

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
        let step = decode(&mut executor, sequences, depth, steps, |_| {}).unwrap();
        let rate = sequences as f64 / step;
        println!(
            "decode {sequences:>2} at depth {depth:>4}: {rate:9.1} tokens/s, {:.3} ms a step",
            step * 1e3
        );
    }
    for tokens in [512, 2048] {
        let seconds = prefill(&mut executor, tokens, 4, |_| {}).unwrap();
        println!("prefill of {tokens}: {:.0} tokens/s, {:.2} ms", tokens as f64 / seconds, seconds * 1e3);
    }
    let tables = tables(&mut executor, 64, 4096).unwrap();
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
