//! Checkpoints of others: 1bitLLM's folders and microsoft/BitNet's files for GPUs.

use std::collections::BTreeMap;

use bitnet_core::DType;
use bitnet_formats::StoredType;
use bitnet_model::LoadedModel;
use bitnet_quant::int2_tiles::pack_int2_tiles;
use bitnet_quant::{RowOrder, TernaryMatrix};
use serde_json::json;

use super::{Folder, Tensor, testdata};

/// The values of a float tensor in another type.
pub fn converted(tensor: &Tensor, from: DType, to: DType, stored: StoredType) -> Tensor {
    let mut values = vec![0.0; tensor.bytes.len() / from.size()];
    from.decode(&tensor.bytes, &mut values);
    Tensor::new(stored, &tensor.shape, to.encode(&values))
}

/// A model as 1bitLLM publishes: names of its own, float masters, a SentencePiece vocabulary with added tokens.
pub fn first_bitnet() -> Folder {
    let mut folder = Folder::vector("tiny-bitnet-bf16");
    folder.rename("self_attn.attn_sub_norm", "self_attn.inner_attn_ln");
    folder.rename("mlp.ffn_sub_norm", "mlp.ffn_layernorm");
    folder.resize_vocabulary(1502);
    folder.config["architectures"] = json!(["BitnetForCausalLM"]);
    folder.config["model_type"] = json!("llama");
    folder.config["hidden_act"] = json!("silu");
    folder.config["weight_bits"] = json!(1);
    folder.config["input_bits"] = json!(8);
    folder.config["pad_token_id"] = json!(1500);
    folder.config["bos_token_id"] = json!(1);
    folder.config["eos_token_id"] = json!(2);
    folder.config["quantization_config"] = json!(null);
    folder.file("tokenizer.model", std::fs::read(testdata("sentencepiece/llama2.model")).unwrap());
    folder.file("added_tokens.json", r#"{"<pad>": 1500, "<extra>": 1501}"#);
    let tokens = r#"{"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "add_bos_token": true}"#;
    folder.file("tokenizer_config.json", tokens);
    folder
}

/// How the weights of a TorchScale checkpoint are stored.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scale {
    Tiles,
    TernaryBf16,
}

/// The model as `model_state*.pt` of microsoft/BitNet.
pub fn torch_scale(model: &LoadedModel, form: Scale) -> BTreeMap<String, Tensor> {
    let mut tensors = BTreeMap::new();
    let bf16 =
        |values: &[f32]| Tensor::new(StoredType::BF16, &[values.len() as u64], DType::BF16.encode(values));
    let weights = &model.weights;
    let shape = [weights.embedding.rows() as u64, weights.embedding.cols() as u64];
    let table = Tensor::new(StoredType::BF16, &shape, weights.embedding.data().as_slice().to_vec());
    tensors.insert("tok_embeddings.weight".to_owned(), table);
    tensors.insert("norm.weight".to_owned(), bf16(&weights.final_norm));
    for (i, layer) in weights.layers.iter().enumerate() {
        let mut put = |name: &str, tensor: Tensor| drop(tensors.insert(format!("layers.{i}.{name}"), tensor));
        put("attention_norm.weight", bf16(&layer.attn_norm));
        put("ffn_norm.weight", bf16(&layer.ffn_norm));
        put("attention.attn_sub_norm.weight", bf16(layer.attn_sub_norm.as_ref().unwrap()));
        put("feed_forward.ffn_sub_norm.weight", bf16(layer.ffn_sub_norm.as_ref().unwrap()));
        for (name, parts, rotated) in [
            ("attention.wqkv", vec![&layer.q, &layer.k, &layer.v], 2),
            ("attention.wo", vec![&layer.o], 0),
            ("feed_forward.w13", vec![&layer.gate, &layer.up], 0),
            ("feed_forward.w2", vec![&layer.down], 0),
        ] {
            let (weight, scale) = fused(&parts, rotated, model.spec.head_dim, form);
            put(&format!("{name}.weight"), weight);
            if form == Scale::Tiles {
                put(&format!("{name}.weight_scale"), scale);
            }
        }
    }
    tensors
}

/// One matrix of several, the first `rotated` with interleaved rotary halves, and the four scales.
fn fused(parts: &[&TernaryMatrix], rotated: usize, head_dim: usize, form: Scale) -> (Tensor, Tensor) {
    let cols = parts[0].cols();
    let (mut all, mut values, mut scales) = (Vec::new(), Vec::new(), [0.0; 4]);
    for (i, part) in parts.iter().enumerate() {
        let order = if i < rotated { RowOrder::RotaryInterleaved { head_dim } } else { RowOrder::Natural };
        let trits = part.to_trits().unwrap();
        let mut stored = vec![0; trits.len()];
        for (row, trits) in trits.chunks_exact(cols).enumerate() {
            stored[order.stored_row(row) * cols..][..cols].copy_from_slice(trits);
        }
        values.extend(stored.iter().map(|&t| f32::from(t) * part.scale()));
        all.extend(stored);
        scales[i] = part.scale();
    }
    let rows = all.len() / cols;
    let scale = Tensor::new(StoredType::BF16, &[4], DType::BF16.encode(&scales));
    let weight = match form {
        Scale::Tiles => {
            let bytes = pack_int2_tiles(&all, rows, cols).unwrap();
            Tensor::new(StoredType::I8, &[rows as u64, cols as u64 / 4], bytes)
        }
        Scale::TernaryBf16 => {
            Tensor::new(StoredType::BF16, &[rows as u64, cols as u64], DType::BF16.encode(&values))
        }
    };
    (weight, scale)
}
