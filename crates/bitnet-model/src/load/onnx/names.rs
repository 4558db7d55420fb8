//! Names of modules in the names of nodes and tensors.
//!
//! PyTorch's exporters keep them: `model.layers.0.self_attn.q_proj.weight` for a parameter, and
//! `/model/layers.0/self_attn/q_proj/MatMul` for the node if the parameter itself was renamed (`onnx::MatMul_812`).

use crate::load::naming::Naming;

/// Parts of a name.
fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(['.', '/', ':'])
}

/// The number of the layer in a name, and the words behind it.
fn layer(name: &str) -> Option<(usize, Vec<&str>)> {
    let mut words = words(name).skip_while(|word| *word != "layers");
    words.next()?;
    let number = words.next()?.parse().ok()?;
    Some((number, words.collect()))
}

/// The layer and the number of the projection (in the order of [`Parts::projections`](crate::load::naming::Parts)).
pub(super) fn projection(naming: &Naming, name: &str) -> Option<(usize, usize)> {
    let (number, words) = layer(name)?;
    let find = |part: &&str| part.rsplit('.').next().is_some_and(|last| words.contains(&last));
    let projection = naming.parts.projections.iter().position(find)?;
    Some((number, projection))
}

/// Whether a name is that of a part (`input_layernorm`) of a layer.
pub(super) fn is_part(name: &str, number: usize, part: &str) -> bool {
    let last = part.rsplit('.').next().unwrap_or(part);
    layer(name).is_some_and(|(found, words)| found == number && words.contains(&last))
}

/// Whether a word is in a name that has no layer.
pub(super) fn is_global(name: &str, word: &str) -> bool {
    layer(name).is_none() && words(name).any(|found| found == word)
}

/// The name that a parameter has in a checkpoint: without what wrappers put in front.
pub(super) fn in_checkpoint(name: &str) -> Option<&str> {
    let at = name.find("model.layers.")?;
    let is_parameter = [".weight", ".weight_scale", ".bias"].iter().any(|end| name.ends_with(end));
    (is_parameter && !name.chars().any(char::is_control)).then(|| &name[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_names() {
        let naming = Naming::hugging_face("model.");
        for (name, want) in [
            ("model.layers.0.self_attn.q_proj.weight", Some((0, 0))),
            ("/model/layers.12/mlp/down_proj/MatMul", Some((12, 6))),
            ("/model/layers.3/attn/v_proj/MatMul_Q2", Some((3, 2))),
            ("base.model.layers.1.mlp.gate_proj.base_layer.weight", Some((1, 4))),
            ("model.layers.x.mlp.gate_proj.weight", None),
            ("onnx::MatMul_812", None),
            ("/model/layers.0/self_attn/MatMul", None),
        ] {
            assert_eq!(projection(&naming, name), want, "{name}");
        }
        assert!(is_part("model.layers.2.input_layernorm.weight", 2, "input_layernorm"));
        assert!(!is_part("model.layers.2.input_layernorm.weight", 1, "input_layernorm"));
        assert!(is_part("model.layers.2.self_attn.attn_sub_norm.weight", 2, "self_attn.attn_sub_norm"));
        assert!(is_global("model.norm.weight", "norm") && !is_global("model.layers.0.norm.weight", "norm"));
        assert_eq!(in_checkpoint("m.model.layers.0.a.bias"), Some("model.layers.0.a.bias"));
    }
}
