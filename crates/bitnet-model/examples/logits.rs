//! Logits of a model for given tokens through the scalar oracle, and, if asked for, the model as ONNX: for comparing with
//! other programs.
//!
//! ```text
//! logits MODEL TOKEN[,TOKEN...] [OUT.onnx [int8|bits2]]
//! ```
//!
//! Prints one line a token: its logits as hexadecimal bits of f32, separated by spaces. Keys and values are kept in f32.

use std::error::Error;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;

use bitnet_model::export::{OnnxOptions, OnnxWeights, write_onnx};
use bitnet_model::reference::ReferenceExecutor;
use bitnet_model::{Batch, Executor, KvType, LoadOptions, LogitRows, ModelSource, Sequence, load};

const USAGE: &str = "usage: logits MODEL TOKEN[,TOKEN...] [OUT.onnx [int8|bits2]]";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (path, tokens) = (arguments.next().ok_or(USAGE)?, arguments.next().ok_or(USAGE)?);
    let tokens = tokens.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let model = load(&ModelSource::Path(PathBuf::from(path)), &LoadOptions::default())?;
    if let Some(out) = arguments.next() {
        let weights = match arguments.next().as_deref() {
            None | Some("int8") => OnnxWeights::Int8,
            Some("bits2") => OnnxWeights::Bits2,
            Some(_) => return Err(USAGE.into()),
        };
        let options = OnnxOptions { weights, ..OnnxOptions::default() };
        write_onnx(&model, &PathBuf::from(out), &options, &mut |_, _| ControlFlow::Continue(()))?;
    }
    let mut executor = ReferenceExecutor::new(model.spec.clone(), &model.weights, KvType::F32)?;
    let count = tokens.len().div_ceil(executor.info().block_size);
    executor.reserve_blocks(count)?;
    let blocks: Vec<u32> = (0..count as u32).collect();
    let sequence = Sequence { tokens: &tokens, position: 0, blocks: &blocks, logits: LogitRows::All };
    let mut logits = vec![0.0; tokens.len() * model.spec.vocab_size];
    executor.forward(&Batch { sequences: &[sequence] }, &mut logits)?;
    let mut out = std::io::stdout().lock();
    for row in logits.chunks_exact(model.spec.vocab_size) {
        let row: Vec<String> = row.iter().map(|logit| format!("{:08x}", logit.to_bits())).collect();
        writeln!(out, "{}", row.join(" "))?;
    }
    Ok(())
}
