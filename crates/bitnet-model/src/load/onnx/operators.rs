//! Operators that no decoder of [`ModelSpec`](crate::ModelSpec) has: a graph with one of them is another architecture,
//! whatever its configuration says.

use super::graph::Graph;
use crate::load::error::Result;
use crate::{Activation, Extras, ModelSpec};

/// Other norms, activations, convolutions, recurrence and mixtures of experts.
const FOREIGN: [&str; 29] = [
    "LayerNormalization",
    "SkipLayerNormalization",
    "EmbedLayerNormalization",
    "InstanceNormalization",
    "BatchNormalization",
    "GroupNormalization",
    "Conv",
    "ConvTranspose",
    "LSTM",
    "GRU",
    "RNN",
    "Scan",
    "Loop",
    "TopK",
    "MoE",
    "QMoE",
    "Gelu",
    "FastGelu",
    "BiasGelu",
    "Erf",
    "Tanh",
    "Elu",
    "Selu",
    "LeakyRelu",
    "PRelu",
    "HardSigmoid",
    "HardSwish",
    "Softplus",
    "Mish",
];

/// Operators that attend.
const ATTEND: [&str; 4] = ["Softmax", "Attention", "MultiHeadAttention", "GroupQueryAttention"];

/// Refuses graphs of other architectures.
///
/// # Errors
/// Names the first node that does not belong into the model.
pub(super) fn check(graph: &Graph<'_>, spec: &ModelSpec) -> Result<()> {
    let nodes = &graph.file.nodes;
    let activation = spec.activation;
    let of_other_activation = match activation {
        _ if spec.extras != Extras::default() => {
            let what = "a graph whose configuration tells of more norms, windows or other positions";
            return Err(graph.unsupported(what, "decoders of the plain shape are"));
        }
        Activation::Relu2 => "Sigmoid",
        Activation::Silu => "Relu",
        Activation::Gelu => {
            let what = format!("a graph whose configuration says {activation}");
            return Err(graph.unsupported(what, "decoders with RMS norms and SiLU or ReLU² gates are"));
        }
    };
    for node in nodes {
        let op = node.op_type.as_str();
        // With alpha = 1, which is not the default, this is SiLU: ONNX Runtime fuses it so.
        let is_gelu = op == "QuickGelu" && node.float("alpha") != Some(1.0);
        if FOREIGN.contains(&op) || is_gelu {
            return Err(
                graph.unsupported(node.describe(), "decoders with RMS norms and SiLU or ReLU² gates are")
            );
        }
        if op == of_other_activation {
            let what = format!("{} in a model whose configuration says {activation}", node.describe());
            return Err(graph.unsupported(what, "take graph and config.json from the same model"));
        }
    }
    if !nodes.iter().any(|node| ATTEND.contains(&node.op_type.as_str())) {
        let what = "a graph without attention (no Softmax)";
        return Err(graph.unsupported(what, "decoders of attention and feed-forward layers are"));
    }
    Ok(())
}
