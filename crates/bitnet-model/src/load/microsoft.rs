//! Checkpoints of microsoft/BitNet's GPU programs (`model_state.pt`, `model_state_int2.pt`, `model_state_fp16.pt`): names of
//! TorchScale, query, key and value in one matrix and gate and up in another, query and key rows with interleaved rotary
//! halves.
//!
//! Weights are masters, ternary floats, or int8 tensors with tiles of two-bit codes and four bf16 scales, one for each
//! matrix of a fused one. They come without a configuration: that of bitnet-b1.58-2B-4T is taken where the shapes are its.

use bitnet_formats::{StoredTensor, StoredType, TensorSet};
use bitnet_quant::int2_tiles::TILE_ROWS;
use bitnet_quant::{RowOrder, TritCodec};
use serde_json::json;

use super::assemble::{Slot, assemble};
use super::config::HfConfig;
use super::error::{LoadError, Result};
use super::hugging::HfModel;
use super::json::JsonFile;
use super::naming::Naming;
use super::projection::{Form, MasterRule, Projection};
use super::tensors::{Tensors, check_shape, unsupported_type};
use crate::ModelSpec;

/// Hidden size, feed-forward size, and rows of query, key and value of bitnet-b1.58-2B-4T.
const SHAPE_2B: [u64; 3] = [2560, 6912, 3840];

/// Scales of a fused matrix.
const SCALES: usize = 4;

/// Whether the tensors have the names of these checkpoints.
pub(super) fn is_microsoft(set: &TensorSet) -> bool {
    set.get("tok_embeddings.weight").is_some() && set.get("layers.0.attention.wqkv.weight").is_some()
}

/// The configuration of a checkpoint without one, as `config.json` would have it.
///
/// # Errors
/// If the shapes are not those of bitnet-b1.58-2B-4T: they do not tell how many heads there are.
pub(super) fn config(set: &TensorSet, place: &str) -> Result<JsonFile> {
    let shape = |name: &str| set.get(name).map(|tensor| tensor.shape.clone()).unwrap_or_default();
    let embedding = shape("tok_embeddings.weight");
    let (qkv, gate_up) = (shape("layers.0.attention.wqkv.weight"), shape("layers.0.feed_forward.w13.weight"));
    let first = |shape: &[u64]| shape.first().copied().unwrap_or(0);
    let found = [embedding.get(1).copied().unwrap_or(0), first(&gate_up) / 2, first(&qkv)];
    if found != SHAPE_2B {
        let [hidden, ffn, qkv] = found;
        return Err(LoadError::Unsupported {
            file: place.to_owned(),
            what: format!(
                "a checkpoint without config.json of hidden size {hidden}, feed-forward size {ffn} and {qkv} rows of \
                 query, key and value"
            ),
            remedy: "only bitnet-b1.58-2B-4T is known by its shapes: put the model's config.json beside it",
        });
    }
    let layers =
        (0..).take_while(|layer| set.get(&format!("layers.{layer}.attention.wqkv.weight")).is_some()).count();
    let text = json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2",
        "vocab_size": first(&embedding), "hidden_size": found[0], "intermediate_size": found[1],
        "num_hidden_layers": layers, "num_attention_heads": 20, "num_key_value_heads": 5,
        "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0,
        "bos_token_id": 128_000, "eos_token_id": 128_001
    });
    JsonFile::parse(text.to_string().as_bytes(), place)
}

/// Puts a model together; `place` is the file, for messages.
///
/// # Errors
/// If a tensor is missing, superfluous or does not fit the configuration.
pub(super) fn build(set: &TensorSet, place: &str, config: &HfConfig) -> Result<HfModel> {
    let tensors = Tensors::new(set, place);
    let naming = Naming::torch_scale();
    let mut spec = config.spec.clone();
    spec.sub_norms = tensors.has_sub_norms(&naming);
    // Tied tables are written as two views of one storage.
    let place_of = |name: &str| set.get(name).map(|tensor| tensor.data.as_slice().as_ptr_range());
    let output = place_of(naming.output);
    spec.tied_output = output.is_none() || output == place_of(&naming.embedding);
    let order = RowOrder::RotaryInterleaved { head_dim: spec.head_dim };
    let read = |slot: &Slot| projection(&tensors, &spec, slot);
    let weights = assemble(&tensors, &spec, &naming, order, MasterRule::Quantise, &read)?;
    Ok(HfModel { spec, weights, warnings: Vec::new() })
}

/// Where the rows of a projection lie.
struct Part {
    /// Name of the matrix without `.weight`.
    matrix: String,
    /// Rows of that matrix.
    rows: usize,
    /// The first that is meant.
    first: usize,
    /// Place among the scales.
    scale: usize,
}

fn part(tensors: &Tensors<'_>, spec: &ModelSpec, slot: &Slot) -> Part {
    let whole = Part { matrix: slot.name.clone(), rows: slot.rows, first: 0, scale: 0 };
    if tensors.contains(&format!("{}.weight", slot.name)) {
        return whole;
    }
    let (q, kv, ffn) = (spec.q_size(), spec.kv_size(), spec.intermediate_size);
    let fused = |end: &str, into: &str, rows, first, scale| {
        slot.name.strip_suffix(end).map(|start| Part { matrix: format!("{start}{into}"), rows, first, scale })
    };
    fused(".wq", ".wqkv", q + 2 * kv, 0, 0)
        .or_else(|| fused(".wk", ".wqkv", q + 2 * kv, q, 1))
        .or_else(|| fused(".wv", ".wqkv", q + 2 * kv, q + kv, 2))
        .or_else(|| fused(".w1", ".w13", 2 * ffn, 0, 0))
        .or_else(|| fused(".w3", ".w13", 2 * ffn, ffn, 1))
        .unwrap_or(whole)
}

fn projection(tensors: &Tensors<'_>, spec: &ModelSpec, slot: &Slot) -> Result<Projection> {
    let part = part(tensors, spec, slot);
    let tensor = tensors.require(&format!("{}.weight", part.matrix))?;
    let form = if tensor.stored == StoredType::I8 {
        check_tiles(tensor, &part, slot)?;
        let scales = tensors.norm(&format!("{}.weight_scale", part.matrix), SCALES)?;
        Form::Ternary(TritCodec::Int2Tiles, scales[part.scale])
    } else {
        let remedy = "int8 (tiles of two-bit codes) and f32, f16 or bf16 are supported for projections";
        let dtype = tensor.stored.dense().ok_or_else(|| unsupported_type(tensor, remedy))?;
        check_shape(tensor, &[part.rows, slot.cols])?;
        Form::Masters { dtype: dtype.into(), factor: None }
    };
    let row_bytes = (tensor.data.len() / part.rows.max(1)) as u64;
    let [start, end] = [part.first, part.first + slot.rows].map(|row| row as u64 * row_bytes);
    let data = tensor.data.slice(start, end, &tensor.origin)?;
    Ok(slot.filled(tensor, form, data))
}

/// Tiles must not be cut.
fn check_tiles(tensor: &StoredTensor, part: &Part, slot: &Slot) -> Result<()> {
    let quant =
        |source| LoadError::Quant { file: tensor.origin.to_string(), tensor: tensor.name.clone(), source };
    TritCodec::Int2Tiles.byte_len(part.rows, slot.cols).map_err(quant)?;
    if !part.first.is_multiple_of(TILE_ROWS) {
        // The rows before have a size of their own that is no multiple of a tile.
        TritCodec::Int2Tiles.byte_len(part.first, slot.cols).map_err(quant)?;
    }
    check_shape(tensor, &[part.rows, slot.cols / 4])
}

#[cfg(test)]
mod tests {
    use bitnet_core::bytes::ByteView;

    use super::*;
    use crate::synth::ShapePreset;

    fn set(hidden: u64, ffn: u64, qkv: u64) -> TensorSet {
        let mut set = TensorSet::new();
        let mut put = |name: String, shape: [u64; 2]| {
            let (data, origin) = (ByteView::from_vec(Vec::new()), "m.pt".into());
            set.insert(StoredTensor { name, shape: shape.to_vec(), stored: StoredType::BF16, data, origin })
                .unwrap();
        };
        put("tok_embeddings.weight".to_owned(), [128_256, hidden]);
        for layer in 0..30 {
            put(format!("layers.{layer}.attention.wqkv.weight"), [qkv, hidden]);
            put(format!("layers.{layer}.feed_forward.w13.weight"), [2 * ffn, hidden]);
        }
        set
    }

    #[test]
    fn the_2b_model_is_known_by_its_shapes_and_no_other() {
        let set_2b = set(2560, 6912, 3840);
        assert!(is_microsoft(&set_2b) && !is_microsoft(&TensorSet::new()));
        let spec = HfConfig::read(&config(&set_2b, "m.pt").unwrap().root()).unwrap().spec;
        let wanted = ShapePreset::B2_4T.spec();
        // These two are told by the tensors.
        assert_eq!(ModelSpec { sub_norms: true, tied_output: true, ..spec }, wanted);
        let message = config(&set(3200, 8640, 4800), "m.pt").unwrap_err().to_string();
        assert!(message.starts_with("m.pt: ") && message.contains("hidden size 3200"), "{message}");
        assert!(message.contains("put the model's config.json beside it"), "{message}");
    }
}
