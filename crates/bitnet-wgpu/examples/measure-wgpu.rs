//! How fast an adapter runs a model: decoding, prefill, bytes of weights a second, and where the time goes.
//!
//! `cargo run --release -p bitnet-wgpu --example measure-wgpu -- [shape or model] [--adapter NAME] [--depth N] [--batch N]
//! [--prompt N] [--tokens N] [--software] [--profile] [--plain]`. A shape is a name of `bitnet_model::synth::ShapePreset`
//! (`2B-4T`, `tiny`, ...), for which random weights are made in a temporary folder; anything else is a path.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bitnet_model::synth::{ShapePreset, SynthFormat, SynthOptions, Vocabulary, write};
use bitnet_model::{
    Batch, Executor, LoadOptions, LoadedModel, LogitRows, ModelSource, Sequence, TopLogits, load,
};
use bitnet_wgpu::{WgpuExecutor, WgpuOptions, adapters};

/// What is measured.
struct Arguments {
    model: String,
    options: WgpuOptions,
    depth: usize,
    batch: usize,
    prompt: usize,
    tokens: usize,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut a = Arguments {
        model: "2B-4T".to_owned(),
        options: WgpuOptions::default(),
        depth: 0,
        batch: 1,
        prompt: 512,
        tokens: 128,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--adapter" => a.options.adapter = Some(value()?),
            "--depth" => a.depth = value()?.parse()?,
            "--batch" => a.batch = value()?.parse()?,
            "--prompt" => a.prompt = value()?.parse()?,
            "--tokens" => a.tokens = value()?.parse()?,
            "--software" => a.options.allow_software = true,
            "--profile" => a.options.profile = true,
            "--plain" => (a.options.no_subgroups, a.options.no_packed_dot) = (true, true),
            other if other.starts_with("--") => return Err(format!("unknown option {other}").into()),
            other => a.model = other.to_owned(),
        }
    }
    Ok(a)
}

/// The model of a path, or one with random weights of a shape.
fn model(name: &str) -> Result<LoadedModel, Box<dyn Error>> {
    let path = if Path::new(name).exists() {
        PathBuf::from(name)
    } else {
        let folder = std::env::temp_dir().join(format!("bitnet-measure-{name}"));
        if !folder.join("config.json").exists() {
            let options = SynthOptions {
                format: SynthFormat::SafetensorsPacked,
                vocabulary: Vocabulary::Dummy,
                seed: 1,
                overwrite: true,
            };
            write(&folder, &ShapePreset::parse(name)?.spec(), &options, &mut |_, _| {})?;
        }
        folder
    };
    Ok(load(&ModelSource::Path(path), &LoadOptions::default())?)
}

/// Prints where the time of the kernels went since the last call.
fn times(executor: &mut WgpuExecutor, calls: usize) {
    for (label, time) in executor.take_times() {
        let micros = time.total.as_secs_f64() * 1e6;
        let each = micros / time.count.max(1) as f64;
        println!("    {label:<14}{:>10.1} us a call {each:>8.2} us a kernel", micros / calls as f64);
    }
}

fn prefill(executor: &mut WgpuExecutor, a: &Arguments) -> Result<(), Box<dyn Error>> {
    let tokens: Vec<u32> = (0..a.prompt as u32).map(|t| t % 251).collect();
    let blocks: Vec<u32> = (0..a.prompt.div_ceil(executor.info().block_size) as u32).collect();
    let mut top = [TopLogits::default()];
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        executor.take_times();
        let s = Sequence { tokens: &tokens, position: 0, blocks: &blocks, logits: LogitRows::Last };
        let start = Instant::now();
        executor.forward_top(&Batch { sequences: &[s] }, 1, &mut top)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("prefill of {}: {:.1} tokens/s ({:.2} ms)", a.prompt, a.prompt as f64 / best, best * 1e3);
    times(executor, 1);
    Ok(())
}

fn decode(executor: &mut WgpuExecutor, a: &Arguments) -> Result<(), Box<dyn Error>> {
    let size = executor.info().block_size;
    let per_text = (a.depth + a.tokens + 8).div_ceil(size);
    let tables: Vec<Vec<u32>> =
        (0..a.batch).map(|i| (i * per_text..(i + 1) * per_text).map(|b| b as u32).collect()).collect();
    let mut top = vec![TopLogits::default(); a.batch];
    let mut step = |executor: &mut WgpuExecutor, position: usize| {
        let one = |blocks| Sequence { tokens: &[7], position, blocks, logits: LogitRows::Last };
        let sequences: Vec<Sequence<'_>> = tables.iter().map(|t| one(t.as_slice())).collect();
        executor.forward_top(&Batch { sequences: &sequences }, 1, &mut top)
    };
    for position in 0..8 {
        step(executor, a.depth + position)?;
    }
    executor.take_times();
    let start = Instant::now();
    for position in 0..a.tokens {
        step(executor, a.depth + 8 + position)?;
    }
    let seconds = start.elapsed().as_secs_f64() / a.tokens as f64;
    let traffic = executor.info().traffic;
    let bytes = (traffic.layers.as_bytes() + traffic.output.as_bytes()) as f64;
    println!(
        "decoding of {} at depth {}: {:.1} tokens/s, {:.3} ms a step, {:.1} GB/s of weights",
        a.batch,
        a.depth,
        a.batch as f64 / seconds,
        seconds * 1e3,
        bytes / seconds / 1e9
    );
    times(executor, a.tokens);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let a = arguments()?;
    for adapter in adapters() {
        println!("{adapter}: {}, subgroups {:?}", adapter.driver, adapter.subgroup);
    }
    let model = model(&a.model)?;
    let start = Instant::now();
    let mut executor = WgpuExecutor::new(model.spec.clone(), &model.weights, &a.options, &mut |_, _| {})?;
    println!("{} in {:.1} s", executor.info().description, start.elapsed().as_secs_f64());
    let longest = (a.depth + a.tokens + 8).max(a.prompt);
    executor.reserve_blocks(a.batch.max(1) * longest.div_ceil(executor.info().block_size))?;
    prefill(&mut executor, &a)?;
    decode(&mut executor, &a)?;
    println!("{:?}", executor.memory());
    Ok(())
}
