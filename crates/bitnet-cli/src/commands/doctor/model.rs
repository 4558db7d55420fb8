//! Models: the bundled one computes what the reference computes, and the one that was named loads.

use bitnet_cpu::{CpuExecutor, CpuOptions};
use bitnet_inference::{KvType, LoadOptions, ModelSource};
use bitnet_model::load::{LoadedModel, load};
use bitnet_model::reference::ReferenceExecutor;
use bitnet_model::{Batch, ExecError, Executor, LogitRows, Sequence};
use bitnet_quant::TritCounts;
use bitnet_text::EncodeOptions;

use super::finding::{Finding, State};
use crate::model;

const AREA: &str = "model";
/// What the two executors read; a few tokens pass through every part of a model.
const TEXT: &str = "Once upon a time";

/// Whether the bundled model is whole and computes what it should, with all threads and the kernels asked for.
pub(super) fn bundled(kernels: Option<&str>) -> Finding {
    let found = |state, message: String| Finding::new(AREA, "bundled", state, message);
    let damaged = |error: String| {
        found(State::Problem, format!("the bundled model is damaged: {error}"))
            .advise("install this program again")
    };
    let loaded = match load(&model::bundled(), &LoadOptions::default()) {
        Ok(loaded) => loaded,
        Err(error) => return damaged(error.to_string()),
    };
    let tokens = loaded.require_tokenizer().map_err(|error| error.to_string());
    let tokens =
        tokens.and_then(|t| t.encode(TEXT, EncodeOptions::PROMPT).map_err(|error| error.to_string()));
    let tokens = match tokens {
        Ok(tokens) => tokens,
        Err(error) => return damaged(error),
    };
    match agree(&loaded, &tokens, kernels) {
        Ok(true) => {
            let message =
                format!("the bundled model computes the bits of the reference ({} tokens)", tokens.len());
            found(State::Fine, message)
        }
        Ok(false) => {
            found(State::Problem, "the bundled model does not compute what the reference computes".to_owned())
                .advise(
                    "look for faults of memory or processor; else please report this with `bitnet devices`",
                )
        }
        Err(error) => found(State::Problem, format!("the bundled model does not run: {error}"))
            .advise("see the findings about processor and memory"),
    }
}

/// Whether the processor's executor gives the bits of the reference.
fn agree(model: &LoadedModel, tokens: &[u32], kernels: Option<&str>) -> Result<bool, ExecError> {
    let mut oracle = ReferenceExecutor::new(model.spec.clone(), &model.weights, KvType::default())?;
    let options = CpuOptions { kernels: kernels.map(str::to_owned), ..CpuOptions::default() };
    let mut cpu = CpuExecutor::new(model.spec.clone(), &model.weights, &options, &mut |_, _| {})?;
    let bits = |logits: Vec<f32>| logits.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    Ok(bits(logits(&mut oracle, tokens)?) == bits(logits(&mut cpu, tokens)?))
}

fn logits(executor: &mut dyn Executor, tokens: &[u32]) -> Result<Vec<f32>, ExecError> {
    let blocks: Vec<u32> = (0..tokens.len().div_ceil(executor.info().block_size) as u32).collect();
    executor.reserve_blocks(blocks.len())?;
    let mut logits = vec![0.0; executor.spec().vocab_size];
    let sequences = [Sequence { tokens, position: 0, blocks: &blocks, logits: LogitRows::Last }];
    executor.forward(&Batch { sequences: &sequences }, &mut logits)?;
    Ok(logits)
}

/// A model that was named: whether it loads, and with `deep` whether every ternary weight is one. Gives the model too.
pub(super) fn named(
    source: &ModelSource,
    options: &LoadOptions,
    deep: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> (Vec<Finding>, Option<LoadedModel>) {
    let found = |state, message: String| Finding::new(AREA, "named", state, message);
    let loaded = match load(source, options) {
        Ok(loaded) => loaded,
        Err(error) => {
            let advice = if error.is_damage() {
                "fetch the model again; `bitnet doctor --deep` compares the hashes of models in the cache"
            } else {
                "`bitnet inspect MODEL` shows what is in a model; the page on compatibility in the book what can be loaded"
            };
            return (vec![found(State::Problem, error.to_string()).advise(advice)], None);
        }
    };
    let message = format!("{} loads: {}", loaded.name, loaded.format);
    let mut findings = vec![found(State::Fine, message).value("name", loaded.name.clone())];
    for warning in &loaded.warnings {
        findings.push(Finding::new(AREA, "warning", State::Warning, warning.clone()));
    }
    if let (None, Some(note)) = (&loaded.tokenizer, &loaded.tokenizer_note) {
        let message = format!("there is no tokenizer: {note}");
        findings.push(
            Finding::new(AREA, "tokenizer", State::Problem, message)
                .advise("put the model's tokenizer.json into its folder, or name one with --tokenizer"),
        );
    }
    if deep {
        findings.push(weights(&loaded, progress));
    }
    (findings, Some(loaded))
}

/// Whether every stored code is that of a ternary weight.
fn weights(model: &LoadedModel, progress: &mut dyn FnMut(u64, u64)) -> Finding {
    let layers = &model.weights.layers;
    for (number, layer) in layers.iter().enumerate() {
        for (name, matrix) in layer.projections() {
            if let Err(error) = TritCounts::of(matrix) {
                let message = format!("layer {number}, {name}: {error}");
                return Finding::new(AREA, "weights", State::Problem, message)
                    .advise("fetch the model again");
            }
        }
        progress(number as u64 + 1, layers.len() as u64);
    }
    let count = model.spec.ternary_parameters();
    Finding::new(
        AREA,
        "weights",
        State::Fine,
        format!("all {} ternary weights are valid", crate::output::count(count)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_model_is_whole_on_every_kernel_set() {
        for set in bitnet_cpu::kernel_sets().into_iter().filter(|set| set.available) {
            let finding = bundled(Some(set.name));
            assert_eq!(finding.state, State::Fine, "{}: {}", set.name, finding.message);
        }
        assert_eq!(bundled(Some("abacus")).state, State::Problem);
    }

    #[test]
    fn models_that_do_not_load_are_problems() {
        let folder = tempfile::tempdir().unwrap();
        let options = LoadOptions::default();
        let look = |deep| named(&ModelSource::Path(folder.path().to_owned()), &options, deep, &mut |_, _| {});
        assert_eq!(look(false).0[0].state, State::Problem);
        for (name, bytes) in bitnet_tiny::files() {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let (findings, model) = look(true);
        assert!(
            model.is_some() && findings.iter().all(|finding| finding.state == State::Fine),
            "{findings:?}"
        );
        let weights = folder.path().join("model.safetensors");
        let bytes = std::fs::read(&weights).unwrap();
        std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
        let (findings, model) = look(false);
        assert!(model.is_none() && findings[0].advice.as_ref().unwrap().contains("again"), "{findings:?}");
    }
}
