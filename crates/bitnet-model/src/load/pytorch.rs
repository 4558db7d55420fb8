//! Which PyTorch file of a folder holds the weights, and reading it.

use bitnet_core::bytes::ByteView;
use bitnet_formats::{Container, TensorSet, detect, read_pytorch, read_safetensors};

use super::error::Result;

/// The file that transformers writes.
const SINGLE: &str = "pytorch_model.bin";
/// The index of several.
pub(super) const INDEX: &str = "pytorch_model.bin.index.json";
/// What microsoft/BitNet's scripts for GPUs write, the exact and smallest first.
const MICROSOFT: [&str; 3] = ["model_state_int2.pt", "model_state.pt", "model_state_fp16.pt"];
/// Endings of PyTorch files.
const ENDINGS: [&str; 4] = [".bin", ".pt", ".pth", ".ckpt"];
/// How files that trainers leave beside the weights begin.
const NO_WEIGHTS: [&str; 5] = ["training_args", "optimizer", "scheduler", "rng_state", "scaler"];

/// The PyTorch files of a folder that may hold weights.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// None.
    Nothing,
    /// One, under a name that tells.
    Named(String),
    /// Several, listed in [`INDEX`].
    Sharded,
    /// Files under any names.
    Others(Vec<String>),
}

/// Looks for PyTorch weights among the files of a folder.
pub(super) fn find(names: &[String]) -> Found {
    let has = |name: &&&str| names.iter().any(|n| n == **name);
    if has(&&SINGLE) {
        return Found::Named(SINGLE.to_owned());
    }
    if has(&&INDEX) {
        return Found::Sharded;
    }
    if let Some(name) = MICROSOFT.iter().find(has) {
        return Found::Named((*name).to_owned());
    }
    let is_weights =
        |name: &&String| has_ending(name) && !NO_WEIGHTS.iter().any(|start| name.starts_with(start));
    let others: Vec<String> = names.iter().filter(is_weights).cloned().collect();
    if others.is_empty() { Found::Nothing } else { Found::Others(others) }
}

/// Whether a file is named like PyTorch files are.
pub(super) fn has_ending(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Reads one file of weights, PyTorch or safetensors by its content; returns the name of its kind as well. `name` decides
/// who explains what is wrong with a file that is neither.
///
/// # Errors
/// Those of the readers.
pub(super) fn read_either(
    view: ByteView,
    name: &str,
    origin: &str,
    warnings: &mut Vec<String>,
) -> Result<(TensorSet, &'static str)> {
    let torch = match detect(view.as_slice()) {
        Container::PytorchZip | Container::PytorchLegacy => true,
        Container::Safetensors => false,
        _ => has_ending(name),
    };
    if !torch {
        return Ok((read_safetensors(view, origin)?.tensors, "safetensors"));
    }
    let file = read_pytorch(view, origin)?;
    if !file.skipped.is_empty() {
        let skipped = file.skipped.join(", ");
        warnings.push(format!("{origin}: only the weights of this checkpoint are used, not {skipped}"));
    }
    Ok((file.tensors, "PyTorch"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Found {
        find(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn names_that_tell_go_first() {
        assert_eq!(of(&["config.json", "training_args.bin", "optimizer.pt"]), Found::Nothing);
        assert_eq!(of(&["a.bin", "pytorch_model.bin"]), Found::Named("pytorch_model.bin".to_owned()));
        assert_eq!(of(&["pytorch_model-00001-of-00002.bin", INDEX]), Found::Sharded);
        assert_eq!(
            of(&["model_state.pt", "model_state_int2.pt"]),
            Found::Named("model_state_int2.pt".to_owned())
        );
        assert_eq!(of(&["a.PTH", "b.txt"]), Found::Others(vec!["a.PTH".to_owned()]));
    }
}
