//! GGUF files: every architecture, and the traps of each.
#![allow(clippy::unwrap_used, reason = "a failure in a helper fails the test")]

mod support;

use bitnet_core::DType;
use bitnet_formats::{GgufArray, GgufValue, StoredType};
use bitnet_model::{Activation, LoadError, LoadOptions, RopeScaling};
use bitnet_quant::{I2sLayout, TritCodec};
use support::{Gguf, Tensor, bundled, load_path, scales, trits, vector};

const QUARTER: I2sLayout = I2sLayout::Group128;

fn text(value: &str) -> GgufValue {
    GgufValue::String(value.to_owned())
}

#[test]
fn bitnet_architectures_give_the_trits_and_scales_of_the_folder() {
    let folder = vector("tiny-bitnet-packed");
    for (arch, activation) in
        [("bitnet-b1.58", Activation::Relu2), ("bitnet-25", Activation::Relu2), ("bitnet", Activation::Silu)]
    {
        let model = Gguf::of(&folder, arch, QUARTER).load().unwrap();
        assert_eq!(model.format, "GGUF v3, I2_S");
        assert_eq!(model.spec.activation, activation, "{arch}");
        assert_eq!((trits(&model), scales(&model)), (trits(&folder), scales(&folder)));
        let expected = bitnet_model::ModelSpec {
            architecture: format!("gguf {arch}"),
            activation,
            ..folder.spec.clone()
        };
        assert_eq!(model.spec, expected);
        assert_eq!(model.weights.layers[1].ffn_sub_norm, folder.weights.layers[1].ffn_sub_norm);
        assert_eq!(model.name, "model");
        assert!(model.warnings.is_empty(), "{:?}", model.warnings);
    }
}

#[test]
fn rows_of_llama_files_are_put_back_in_order() {
    let folder = vector("tiny-llama-bitlinear");
    let gguf = Gguf::of(&folder, "llama", QUARTER);
    let model = gguf.load().unwrap();
    assert_eq!(trits(&model), trits(&folder));
    assert_eq!(scales(&model), scales(&folder));
    assert!(!model.spec.tied_output && !model.spec.sub_norms && model.spec.activation == Activation::Silu);
    // The stored rows do differ: without the permutation the same bytes mean another matrix.
    let mut bitnet = Gguf::of(&folder, "bitnet", QUARTER);
    bitnet.tensors = gguf.tensors.clone();
    let wrong = trits(&bitnet.load().unwrap());
    let right = trits(&folder);
    assert_ne!(wrong[0], right[0]);
    assert_eq!(wrong[2], right[2]);
}

#[test]
fn byte_order_of_i2s_can_be_told() {
    let folder = vector("tiny-bitnet-packed");
    for layout in [I2sLayout::Group128, I2sLayout::Group64, I2sLayout::Rows4] {
        let gguf = Gguf::of(&folder, "bitnet-b1.58", layout);
        let options = LoadOptions { i2s_layout: layout, ..LoadOptions::default() };
        assert_eq!(trits(&gguf.load_with(&options).unwrap()), trits(&folder), "{layout:?}");
        let default = trits(&gguf.load().unwrap());
        assert_eq!(default == trits(&folder), layout == I2sLayout::Group128);
    }
}

#[test]
fn rows_that_are_not_whole_groups_tell_of_another_byte_order() {
    let mut gguf = Gguf::of(&vector("tiny-bitnet-bf16-packed"), "bitnet-b1.58", QUARTER);
    gguf.set("bitnet-b1.58.feed_forward_length", GgufValue::U32(192));
    for layer in 0..2 {
        for name in ["ffn_gate", "ffn_up"] {
            let tensor = Tensor::zeros(StoredType::I2S, &[192, 128]);
            gguf.tensors.insert(format!("blk.{layer}.{name}.weight"), tensor);
        }
        let mut down = Tensor::zeros(StoredType::I2S, &[128, 192]);
        down.bytes[128 * 48..][..4].copy_from_slice(&1f32.to_le_bytes());
        gguf.tensors.insert(format!("blk.{layer}.ffn_down.weight"), down);
        gguf.norm(&format!("blk.{layer}.ffn_sub_norm"), &[1.0; 192]);
    }
    let error = gguf.error();
    assert!(error.contains("192 columns in groups of 128") && error.contains("--i2s-layout"), "{error}");
}

#[test]
fn architecture_bitnet_with_a_large_vocabulary_is_the_2b_model() {
    let folder = vector("tiny-bitnet-bf16-packed");
    let mut gguf = Gguf::of(&folder, "bitnet", QUARTER);
    gguf.tensors.insert("token_embd.weight".to_owned(), Tensor::zeros(StoredType::F16, &[128_256, 128]));
    let model = gguf.load().unwrap();
    assert_eq!(model.spec.activation, Activation::Relu2);
    assert!(model.warnings[0].contains("--activation"), "{:?}", model.warnings);
    let silu = LoadOptions { activation: Some(Activation::Silu), ..LoadOptions::default() };
    let model = gguf.load_with(&silu).unwrap();
    assert_eq!((model.spec.activation, model.warnings.len()), (Activation::Silu, 0));
    let small = Gguf::of(&folder, "bitnet", QUARTER);
    let relu2 = LoadOptions { activation: Some(Activation::Relu2), ..LoadOptions::default() };
    assert_eq!(small.load_with(&relu2).unwrap().spec.activation, Activation::Relu2);
    // Other architectures say what they mean.
    let model = Gguf::of(&folder, "bitnet-b1.58", QUARTER).load_with(&silu).unwrap();
    assert_eq!(model.spec.activation, Activation::Relu2);
    assert!(model.warnings[0].contains("ignored"));
}

#[test]
fn separate_scales_multiply() {
    let folder = vector("tiny-bitnet-bf16-packed");
    let mut gguf = Gguf::of(&folder, "bitnet", QUARTER);
    let half = Tensor::new(StoredType::F32, &[1], 0.5f32.to_le_bytes().to_vec());
    gguf.tensors.insert("blk.0.attn_q.scale".to_owned(), half.clone());
    assert_eq!(scales(&gguf.load().unwrap())[0], 0.5 * scales(&folder)[0]);
    // Converters that write this scale store plain trits as f16.
    let q = &folder.weights.layers[0].q;
    let floats: Vec<f32> = q.to_trits().unwrap().into_iter().map(f32::from).collect();
    let tensor =
        Tensor::new(StoredType::F16, &[q.rows() as u64, q.cols() as u64], DType::F16.encode(&floats));
    gguf.tensors.insert("blk.0.attn_q.weight".to_owned(), tensor);
    let model = gguf.load().unwrap();
    assert_eq!((scales(&model)[0], trits(&model) == trits(&folder)), (0.5, true));
    assert_eq!(model.format, "GGUF v3, f16 masters and I2_S");
}

#[test]
fn float_masters_in_bitnet_files_are_quantised_and_in_llama_files_refused() {
    let masters = vector("tiny-bitnet-bf16");
    let mut bitnet = Gguf::of(&masters, "bitnet-b1.58", QUARTER);
    let mut llama = Gguf::of(&vector("tiny-llama-bitlinear"), "llama", QUARTER);
    let q = &masters.weights.layers[0].q;
    let tensor = Tensor::new(StoredType::BF16, &[128, 128], q.data().as_slice().to_vec());
    for gguf in [&mut bitnet, &mut llama] {
        gguf.tensors.insert("blk.0.attn_q.weight".to_owned(), tensor.clone());
    }
    let model = bitnet.load().unwrap();
    assert_eq!(model.weights.layers[0].q.to_trits().unwrap(), q.to_trits().unwrap());
    assert_eq!(model.weights.layers[0].q.scale(), q.scale());
    assert!(matches!(model.weights.layers[0].q.codec(), TritCodec::Dense { .. }));
    assert!(matches!(llama.load(), Err(LoadError::NotBitNet { .. })));
}

#[test]
fn half_precision_norms() {
    let folder = vector("tiny-bitnet-packed");
    let mut gguf = Gguf::of(&folder, "bitnet-25", QUARTER);
    let norm = &folder.weights.layers[0].attn_norm;
    let tensor = Tensor::new(StoredType::BF16, &[norm.len() as u64], DType::BF16.encode(norm));
    gguf.tensors.insert("blk.0.attn_norm.weight".to_owned(), tensor);
    assert_eq!(&gguf.load().unwrap().weights.layers[0].attn_norm, norm);
}

/// The tokenizer of the official file: no pre-tokenizer, no end-of-turn token, the wrong template.
fn official_tokenizer(gguf: &mut Gguf, size: usize) {
    let mut tokens: Vec<String> = (0..size).map(|id| format!("t{id}x")).collect();
    for (id, character) in (33..127u8).enumerate() {
        tokens[id] = char::from(character).to_string();
    }
    tokens[94] = "Ġ".to_owned();
    tokens[95] = "at".to_owned();
    tokens[96] = "123".to_owned();
    for (id, name) in [(0, "begin_of_text"), (1, "end_of_text"), (9, "eot_id")] {
        tokens[size - 256 + id] = format!("<|{name}|>");
    }
    let kinds = (0..size).map(|id| if id >= size - 256 { 3 } else { 1 }).collect();
    for (key, value) in [
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.tokens", GgufValue::Array(GgufArray::Strings(tokens))),
        ("tokenizer.ggml.scores", GgufValue::Array(GgufArray::F32(vec![0.0; size]))),
        ("tokenizer.ggml.token_type", GgufValue::Array(GgufArray::I32(kinds))),
        ("tokenizer.ggml.merges", GgufValue::Array(GgufArray::Strings(vec!["a t".to_owned()]))),
        ("tokenizer.ggml.bos_token_id", GgufValue::U32(size as u32 - 256)),
        ("tokenizer.ggml.eos_token_id", GgufValue::U32(size as u32 - 255)),
        ("tokenizer.ggml.add_bos_token", GgufValue::Bool(true)),
        ("tokenizer.chat_template", text("Human: {{ x }}\n\nBITNETAssistant: ")),
    ] {
        gguf.set(key, value);
    }
}

#[test]
fn official_file_lacks_pre_tokenizer_and_has_the_wrong_template() {
    let folder = vector("tiny-bitnet-bf16-packed");
    let mut gguf = Gguf::of(&folder, "bitnet-b1.58", QUARTER);
    gguf.tensors.insert("token_embd.weight".to_owned(), Tensor::zeros(StoredType::F16, &[128_256, 128]));
    official_tokenizer(&mut gguf, 128_256);
    let model = gguf.load().unwrap();
    let tokenizer = model.require_tokenizer().unwrap();
    assert!(tokenizer.kind().contains("llama"), "{}", tokenizer.kind());
    // Llama 3 splits digits in threes and takes a piece that is a token whole; GPT-2 would merge nothing here.
    let ids = tokenizer.encode("123at", bitnet_text::EncodeOptions::PROMPT).unwrap();
    assert_eq!(ids, [128_000, 96, 95]);
    assert_eq!(model.generation.stop_tokens, [128_001, 128_009]);
    assert_eq!(model.generation.bos, Some(128_000));
    let template = model.chat_template.as_ref().unwrap().source();
    assert!(template.contains("Assistant: ") && !template.contains("BITNET"));
    assert!(
        model
            .warnings
            .iter()
            .any(|w| w.contains("tokenizer.chat_template") && w.contains("none is trained on"))
    );
    assert_eq!(model.warnings.len(), 1);
    let options = LoadOptions { chat_template: Some("mine".to_owned()), ..LoadOptions::default() };
    assert_eq!(gguf.load_with(&options).unwrap().chat_template.unwrap().source(), "mine");
}

#[test]
fn end_of_turn_token_of_the_file_stops_too() {
    let mut gguf = Gguf::of(&vector("tiny-bitnet-packed"), "bitnet-b1.58", QUARTER);
    official_tokenizer(&mut gguf, 512);
    gguf.set("tokenizer.ggml.pre", text("llama-bpe"));
    gguf.set("tokenizer.ggml.eot_token_id", GgufValue::U32(300));
    gguf.set("general.name", text("named"));
    let model = gguf.load().unwrap();
    assert_eq!(
        (model.generation.stop_tokens.as_slice(), model.name.as_str()),
        (&[257, 300, 265][..], "named")
    );
}

#[test]
fn unusable_tokenizers_are_noted() {
    let folder = vector("tiny-bitnet-packed");
    let plain = Gguf::of(&folder, "bitnet-b1.58", QUARTER);
    let note = |gguf: &Gguf| gguf.load().unwrap().tokenizer_note.unwrap();
    assert!(note(&plain).contains("tokenizer.ggml.model"));
    let mut other = plain.clone();
    other.set("tokenizer.ggml.model", text("bert"));
    assert!(note(&other).contains("bert"));
    official_tokenizer(&mut other, 512);
    other.set("tokenizer.ggml.pre", text("falcon-e"));
    assert!(note(&other).contains("falcon-e"));
    assert!(other.load().unwrap().require_tokenizer().unwrap_err().to_string().contains("--tokenizer"));
    let options = LoadOptions { tokenizer: Some(bundled("tokenizer.json")), ..LoadOptions::default() };
    assert!(other.load_with(&options).unwrap().tokenizer.is_some());
    official_tokenizer(&mut other, 512);
    other.set("tokenizer.ggml.token_type", GgufValue::Array(GgufArray::I32(vec![1; 5])));
    assert!(other.error().contains("token_type"));
}

#[test]
fn head_sizes_and_rotary_positions() {
    let folder = vector("tiny-llama-bitlinear");
    let base = Gguf::of(&folder, "llama", QUARTER);
    let with = |key: &str, value: GgufValue| {
        let mut gguf = base.clone();
        gguf.set(key, value);
        gguf
    };
    assert!(with("llama.rope.dimension_count", GgufValue::U32(32)).error().contains("expected [64, 128]"));
    let mut gguf = with("llama.rope.dimension_count", GgufValue::U32(32));
    gguf.set("llama.attention.key_length", GgufValue::U32(64));
    assert!(gguf.error().contains("rope.dimension_count = 32 with heads of 64"), "{}", gguf.error());
    let mut gguf = base.clone();
    gguf.metadata.remove("llama.rope.dimension_count");
    assert_eq!(gguf.load().unwrap().spec.head_dim, 64);
    let mut gguf = with("llama.rope.scaling.type", text("linear"));
    gguf.set("llama.rope.scaling.factor", GgufValue::F32(1.0));
    gguf.load().unwrap();
    gguf.set("llama.rope.scaling.factor", GgufValue::F32(4.0));
    assert_eq!(gguf.load().unwrap().spec.extras.rope_scaling, RopeScaling::Linear(4.0));
    gguf.norm("rope_freqs", &[8.0; 32]);
    assert!(gguf.error().contains("rope_freqs.weight together with rope.scaling"));
    assert!(with("llama.rope.scaling.type", text("yarn")).error().contains("yarn"));
    let mut gguf = base.clone();
    gguf.norm("rope_freqs", &[1.0; 32]);
    gguf.load().unwrap();
    gguf.norm("rope_freqs", &[8.0; 32]);
    assert_eq!(gguf.load().unwrap().spec.extras.rope_scaling, RopeScaling::Factors(vec![8.0; 32]));
    gguf.norm("rope_freqs", &[0.0; 32]);
    assert!(gguf.error().contains("rope_scaling"));
}

#[test]
fn what_cannot_be_run_is_named() {
    let base = Gguf::of(&vector("tiny-bitnet-packed"), "bitnet-b1.58", QUARTER);
    let with_tensor = |name: &str, tensor: Tensor| {
        let mut gguf = base.clone();
        gguf.tensors.insert(name.to_owned(), tensor);
        gguf.error()
    };
    let iq4 = StoredType::Ggml { id: 20, name: "iq4_nl" };
    for name in ["token_embd.weight", "output_norm.weight", "blk.0.attn_q.weight"] {
        let shape: &[u64] = if name.starts_with("output") {
            &[256]
        } else {
            &[if name.starts_with('t') { 512 } else { 256 }, 256]
        };
        let error = with_tensor(name, Tensor::zeros(iq4, shape));
        assert!(
            error.contains(name) && error.contains("iq4_nl") && error.contains("not supported"),
            "{error}"
        );
    }
    let error = with_tensor("blk.1.attn_q.bias", Tensor::zeros(StoredType::F32, &[256]));
    assert!(error.contains("blk.1.attn_q.bias"), "{error}");
    let error = with_tensor("blk.2.attn_norm.weight", Tensor::zeros(StoredType::F32, &[256]));
    assert!(error.contains("blk.2.attn_norm.weight"), "{error}");
    let error = with_tensor("blk.0.attn_norm.weight", Tensor::zeros(StoredType::F32, &[255]));
    assert!(error.contains("[255], expected [256]"), "{error}");
    let mut split = base.clone();
    split.set("split.count", GgufValue::U16(3));
    assert!(split.error().contains("split.no"));
    split.set("split.no", GgufValue::U16(1));
    assert!(
        split.error().contains("\"-00002-of-00003.gguf\", but is called \"model.gguf\""),
        "{}",
        split.error()
    );
    let mut other = base.clone();
    other.set("general.architecture", text("qwen2"));
    assert!(other.error().contains("qwen2"));
    let mut llama = Gguf::of(&vector("tiny-llama-bitlinear"), "llama", QUARTER);
    llama.tensors.insert("blk.0.attn_q.weight".to_owned(), Tensor::zeros(StoredType::Q8_0, &[128, 128]));
    assert!(llama.error().contains("not a BitNet model"), "{}", llama.error());
    llama.tensors.insert("blk.0.attn_q.weight".to_owned(), Tensor::zeros(iq4, &[128, 128]));
    assert!(llama.error().contains("not a BitNet model"), "{}", llama.error());
}

#[test]
fn missing_keys_and_lying_sizes_are_named() {
    let base = Gguf::of(&vector("tiny-bitnet-packed"), "bitnet-b1.58", QUARTER);
    for key in [
        "embedding_length",
        "block_count",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
        "context_length",
    ] {
        let mut gguf = base.clone();
        gguf.metadata.remove(&format!("bitnet-b1.58.{key}"));
        let error = gguf.error();
        assert!(error.contains(&format!("bitnet-b1.58.{key}")) && error.contains("missing"), "{error}");
    }
    for (key, value) in [
        ("block_count", GgufValue::U64(1_000_000_000_000)),
        ("block_count", GgufValue::U32(0)),
        ("attention.head_count", GgufValue::U32(0)),
        ("attention.head_count_kv", GgufValue::U32(3)),
        ("embedding_length", GgufValue::U64(u64::MAX)),
        ("embedding_length", text("256")),
        ("feed_forward_length", GgufValue::U32(513)),
        ("attention.layer_norm_rms_epsilon", GgufValue::F32(f32::NAN)),
        ("rope.freq_base", GgufValue::F32(0.0)),
        ("rope.dimension_count", GgufValue::U32(7)),
    ] {
        let mut gguf = base.clone();
        gguf.set(&format!("bitnet-b1.58.{key}"), value);
        assert!(gguf.error().contains("model.gguf"), "{key}");
    }
    let mut gguf = base.clone();
    let q = gguf.tensors.get_mut("blk.0.attn_q.weight").unwrap();
    let tail = q.bytes.len() - 32;
    q.bytes[tail..tail + 4].copy_from_slice(&(-1.0f32).to_le_bytes());
    assert!(gguf.error().contains("blk.0.attn_q.weight: weight scale -1"), "{}", gguf.error());
}

#[test]
fn a_folder_with_one_gguf_is_that_gguf() {
    let folder = vector("tiny-bitnet-packed");
    let gguf = Gguf::of(&folder, "bitnet-b1.58", QUARTER);
    let dir = tempfile::tempdir().unwrap();
    gguf.write(&dir.path().join("one.gguf"));
    assert_eq!(load_path(dir.path()).unwrap().name, "one");
    gguf.write(&dir.path().join("two.GGUF"));
    let error = load_path(dir.path()).unwrap_err().to_string();
    assert!(error.contains("several models (one.gguf, two.GGUF)"), "{error}");
    assert_eq!(trits(&load_path(&dir.path().join("two.GGUF")).unwrap()), trits(&folder));
}
