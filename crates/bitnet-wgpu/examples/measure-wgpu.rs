//! Measures an adapter on a model of the shape of BitNet b1.58 2B-4T, with weights made up in memory: the rate of copies on
//! the device, decoding of one text at the beginning and far from it, of eight texts, and prompts.
//!
//! `cargo run --release -p bitnet-wgpu --example measure-wgpu -- [shape] [--adapter NAME] [--software] [--quick] [--profile]
//! [--plain]`; the program runs by itself on a machine without cargo. A shape is a name of `bitnet_model::synth::ShapePreset`
//! (`2b4t`, `tiny`, ...). `--quick` takes a quarter of the steps, `--profile` tells where the time goes (and takes more of it),
//! `--plain` does without subgroups and packed dot products.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::error::Error;
use std::time::Instant;

use bitnet_model::synth::ShapePreset;
use bitnet_model::{ExecError, Executor};
use bitnet_wgpu::{WgpuExecutor, WgpuOptions, adapters};

#[path = "../../bitnet-model/examples/made_up/mod.rs"]
mod made_up;
use made_up::texts::{self, WARM};

/// What is measured.
struct Arguments {
    shape: String,
    options: WgpuOptions,
    quick: bool,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut a = Arguments { shape: "2b4t".to_owned(), options: WgpuOptions::default(), quick: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--adapter" => a.options.adapter = Some(words.next().ok_or("--adapter needs a value")?),
            "--software" => a.options.allow_software = true,
            "--quick" => a.quick = true,
            "--profile" => a.options.profile = true,
            "--plain" => (a.options.no_subgroups, a.options.no_packed_dot) = (true, true),
            other if other.starts_with("--") => return Err(format!("unknown option {other}").into()),
            other => other.clone_into(&mut a.shape),
        }
    }
    Ok(a)
}

/// Prints where the time of the kernels went since the last call.
fn times(executor: &mut WgpuExecutor, calls: usize) {
    for (label, time) in executor.take_times() {
        let micros = time.total.as_secs_f64() * 1e6;
        let each = micros / time.count.max(1) as f64;
        println!("    {label:<18}{:>10.1} us a call {each:>8.2} us a kernel", micros / calls as f64);
    }
}

/// Steps of some texts from a depth on, each with the tokens that were the most likely before.
fn decode(
    executor: &mut WgpuExecutor,
    texts: usize,
    depth: usize,
    steps: usize,
    rate: f64,
) -> Result<(), ExecError> {
    let seconds = texts::decode(executor, texts, depth, steps, |executor| drop(executor.take_times()))?;
    let traffic = executor.info().traffic;
    let weights = (traffic.layers.as_bytes() + traffic.output_scan.as_bytes()) as f64 / seconds;
    println!(
        "decode {texts:>2} at depth {depth:>4}: {:9.1} tokens/s, {:.3} ms a step, {:.1} GB/s of weights, {:.0} % of a copy's",
        texts as f64 / seconds,
        seconds * 1e3,
        weights / 1e9,
        weights / rate * 100.0
    );
    times(executor, steps);
    Ok(())
}

/// A prompt, the best of some runs.
fn prefill(executor: &mut WgpuExecutor, tokens: usize, runs: usize) -> Result<(), ExecError> {
    let best = texts::prefill(executor, tokens, runs, |executor| drop(executor.take_times()))?;
    let operations = 2.0 * executor.spec().ternary_parameters() as f64 * tokens as f64 / best;
    println!(
        "prefill of {tokens}: {:.0} tokens/s, {:.2} ms, {:.1} Tops",
        tokens as f64 / best,
        best * 1e3,
        operations / 1e12
    );
    times(executor, 1);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let a = arguments()?;
    for adapter in adapters() {
        println!("{adapter}: {}, subgroups {:?}", adapter.driver, adapter.subgroup);
    }
    let spec = ShapePreset::parse(&a.shape)?.spec();
    let context = spec.context_length;
    let begin = Instant::now();
    let weights = made_up::weights(&spec);
    println!("weights made up in {:.1} s", begin.elapsed().as_secs_f64());
    let begin = Instant::now();
    let mut executor = WgpuExecutor::new(spec, &weights, &a.options, &mut |_, _| {})?;
    println!("loaded in {:.1} s: {:?}", begin.elapsed().as_secs_f64(), executor.info());
    let rate = executor.measure_bandwidth()?;
    println!("device copy {:.1} GB/s", rate / 1e9);
    let (steps, runs) = if a.quick { (50, 2) } else { (200, 4) };
    for (texts, depth, steps) in [(1, 0, steps), (1, 3500, steps), (8, 0, steps / 2)] {
        if depth + WARM + steps <= context {
            decode(&mut executor, texts, depth, steps, rate)?;
        }
    }
    for tokens in [512, 2048] {
        if tokens <= context {
            prefill(&mut executor, tokens, runs)?;
        }
    }
    let memory = executor.memory();
    println!("device: {}\nreadback: {}", memory.device, memory.readback);
    Ok(())
}
