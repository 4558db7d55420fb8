//! The same model in every type of GGUF: identical trits, and the logits of the original wherever the type holds its
//! scale. Where it does not, the scale is the nearest that it holds and the logits are those of that scale, bit for bit.
#![allow(clippy::unwrap_used, reason = "a failure in a helper fails the test")]

mod support;

use std::path::Path;

use bitnet_core::bytes::ByteView;
use bitnet_core::{BlockType, DType};
use bitnet_formats::{GgufValue, StoredType};
use bitnet_model::reference::ReferenceExecutor;
use bitnet_model::{
    Batch, DenseTensor, Executor, KvType, LoadError, LoadedModel, LogitRows, ModelSpec, Sequence, Weights,
};
use bitnet_quant::codec::{TlTiles, pack_i2s, pack_tl1, pack_tl2, pack_tq2_0};
use bitnet_quant::{I2sLayout, QuantError, TernaryMatrix};
use support::{Gguf, Kind, Tensor, bundled, load_path, scales, trits, vector};

const LAYOUT: I2sLayout = I2sLayout::Group128;
const TOKENS: [u32; 7] = [1, 300, 17, 17, 450, 2, 99];

/// Logits of the last of the tokens.
fn logits(spec: &ModelSpec, weights: &Weights) -> Vec<f32> {
    let mut executor = ReferenceExecutor::new(spec.clone(), weights, KvType::F32).unwrap();
    executor.reserve_blocks(2).unwrap();
    let sequence = Sequence { tokens: &TOKENS, position: 0, blocks: &[0, 1], logits: LogitRows::Last };
    let mut out = vec![0.0; spec.vocab_size];
    executor.forward(&Batch { sequences: &[sequence] }, &mut out).unwrap();
    out
}

/// The same weights with scales of its projections changed.
fn with_scales(weights: &Weights, change: &dyn Fn(usize, &str, f32) -> f32) -> Weights {
    let mut changed = weights.clone();
    for (i, layer) in changed.layers.iter_mut().enumerate() {
        let new = |name: &'static str, m: &TernaryMatrix| {
            let trits = m.to_trits().unwrap();
            let data = DType::F32.encode(&trits.into_iter().map(f32::from).collect::<Vec<f32>>());
            let codec = bitnet_quant::TritCodec::Dense { dtype: DType::F32.into(), inv: 1.0 };
            let scale = change(i, name, m.scale());
            let order = bitnet_quant::RowOrder::Natural;
            TernaryMatrix::new(m.rows(), m.cols(), scale, codec, order, ByteView::from_vec(data)).unwrap()
        };
        layer.q = new("attn_q", &layer.q);
        layer.k = new("attn_k", &layer.k);
        layer.v = new("attn_v", &layer.v);
        layer.o = new("attn_output", &layer.o);
        layer.gate = new("ffn_gate", &layer.gate);
        layer.up = new("ffn_up", &layer.up);
        layer.down = new("ffn_down", &layer.down);
    }
    changed
}

/// The scales that [`with_scales`] gives.
fn changed_scales(weights: &Weights, change: &dyn Fn(usize, &str, f32) -> f32) -> Vec<f32> {
    let names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let layers = weights.layers.iter().enumerate();
    layers
        .flat_map(|(i, layer)| {
            let named = names.into_iter().zip(layer.projections());
            named.map(|(name, (_, m))| change(i, name, m.scale())).collect::<Vec<f32>>()
        })
        .collect()
}

/// Stores a model as every kind that `kinds` names and compares.
fn compare(original: &LoadedModel, arch: &str, kinds: &[Kind]) {
    let base = Gguf::of(original, arch, LAYOUT);
    let original_logits = logits(&original.spec, &original.weights);
    for &kind in kinds {
        let mut gguf = base.clone();
        let changed = gguf.retype(kind, |_| true);
        assert!(!changed.is_empty(), "{kind:?}");
        let model = gguf.load().unwrap();
        assert_eq!(trits(&model), trits(original), "{kind:?}");
        let rounded = |layer: usize, name: &str, scale: f32| {
            let changed = changed.contains(&format!("blk.{layer}.{name}.weight"));
            if changed { kind.rounded(scale) } else { scale }
        };
        let wanted = changed_scales(&original.weights, &rounded);
        assert_eq!(scales(&model), wanted, "{kind:?}");
        let exact = wanted == scales(original);
        let ours = logits(&model.spec, &model.weights);
        if exact {
            assert_eq!(ours, original_logits, "{kind:?}");
        } else {
            assert_eq!(ours, logits(&original.spec, &with_scales(&original.weights, &rounded)), "{kind:?}");
        }
        if matches!(kind, Kind::F32 | Kind::Iq2Bn | Kind::Iq2BnR4) {
            assert!(exact, "{kind:?} holds every scale");
        }
    }
}

#[test]
fn vector_models_in_every_type() {
    for name in ["tiny-bitnet-packed", "tiny-bitnet-bf16", "tiny-bitnet-bf16-packed"] {
        compare(&vector(name), "bitnet-b1.58", &Kind::ALL);
    }
    compare(&vector("tiny-llama-bitlinear"), "llama", &Kind::ALL);
}

#[test]
fn the_bundled_model_in_every_type() {
    let model = load_path(&bundled("")).unwrap();
    compare(&model, "bitnet-b1.58", &[Kind::Tq1_0, Kind::Tq2_0, Kind::Iq1Bn, Kind::Iq2BnR4, Kind::Q8_0]);
    // Its scales are bf16, which f16 holds: nothing is lost.
    assert!(scales(&model).into_iter().all(|scale| Kind::Tq2_0.rounded(scale) == scale));
}

#[test]
fn separate_scales_multiply_what_is_found() {
    let folder = vector("tiny-bitnet-packed");
    for kind in [Kind::Tq1_0, Kind::Iq2Bn, Kind::Q8_0] {
        let mut gguf = Gguf::of(&folder, "bitnet-b1.58", LAYOUT);
        gguf.retype(kind, |name| name.starts_with("blk.0.attn_q"));
        let before = scales(&gguf.load().unwrap())[0];
        let half = Tensor::new(StoredType::F32, &[1], 0.5f32.to_le_bytes().to_vec());
        gguf.tensors.insert("blk.0.attn_q.scale".to_owned(), half);
        assert_eq!(scales(&gguf.load().unwrap())[0], 0.5 * before, "{kind:?}");
    }
}

#[test]
fn tables_in_every_type() {
    let folder = vector("tiny-bitnet-packed");
    let (rows, cols) = (folder.spec.vocab_size, folder.spec.hidden_size);
    let mut values = vec![0.0; rows * cols];
    for (row, out) in values.chunks_exact_mut(cols).enumerate() {
        folder.weights.embedding.decode_row(row, out);
    }
    for blocks in [BlockType::Q8_0, BlockType::Q4_0, BlockType::Q6K] {
        let mut bytes = Vec::new();
        assert!(blocks.encode(&values, &mut bytes));
        let mut gguf = Gguf::of(&folder, "bitnet-b1.58", LAYOUT);
        let stored = StoredType::of(blocks.into());
        let table = Tensor::new(stored, &[rows as u64, cols as u64], bytes.clone());
        gguf.tensors.insert("token_embd.weight".to_owned(), table.clone());
        let model = gguf.load().unwrap();
        assert_eq!(model.weights.embedding.stored(), blocks.into());
        // The same as the decoded values in f32.
        let mut decoded = vec![0.0; rows * cols];
        blocks.decode(&bytes, &mut decoded);
        let plain = ByteView::from_vec(DType::F32.encode(&decoded));
        let mut weights = folder.weights.clone();
        weights.embedding = DenseTensor::new(rows, cols, DType::F32, plain).unwrap();
        assert_eq!(logits(&model.spec, &model.weights), logits(&folder.spec, &weights), "{blocks}");
        // An output layer of its own.
        gguf.tensors.insert("output.weight".to_owned(), table);
        let untied = gguf.load().unwrap();
        assert!(!untied.spec.tied_output);
        assert_eq!(logits(&untied.spec, &untied.weights), logits(&folder.spec, &weights), "{blocks}");
    }
    // Types that are not written decode all the same.
    for blocks in BlockType::ALL {
        let mut gguf = Gguf::of(&folder, "bitnet-b1.58", LAYOUT);
        let stored = StoredType::of(blocks.into());
        gguf.tensors
            .insert("token_embd.weight".to_owned(), Tensor::zeros(stored, &[rows as u64, cols as u64]));
        assert!(logits(&folder.spec, &gguf.load().unwrap().weights).iter().all(|&l| l == 0.0), "{blocks}");
    }
}

/// A projection of the first layer in tiles, and what must come back.
fn tiled(gguf: &mut Gguf, kind: &str, name: &str, own_scale: bool) {
    let (trits, rows, cols, scale) = gguf.ternary(name);
    let (id, known_name, mut bytes) = if kind == "tl1" {
        (38, "tl1", pack_tl1(TlTiles::tl1(rows, cols).unwrap(), &trits, rows, cols).unwrap())
    } else {
        let mut bytes = pack_tl2(TlTiles::tl2(rows, cols).unwrap(), &trits, rows, cols).unwrap();
        // bitnet.cpp gives the tensor this room, whatever it needs.
        let room = (cols - 256) * rows / 3 * 5 / 8 + 256 * rows / 4;
        bytes.resize(room.next_multiple_of(32), 0);
        (if own_scale { 39 } else { 42 }, "tl2", bytes)
    };
    let shape = [rows as u64, cols as u64];
    if own_scale {
        let stored = Tensor::new(StoredType::F32, &[1], scale.to_le_bytes().to_vec());
        gguf.tensors.insert(name.replace(".weight", ".weight_scale"), stored);
    } else {
        bytes.extend(scale.to_le_bytes());
        bytes.extend([0; 28]);
    }
    gguf.tensors
        .insert(name.to_owned(), Tensor::new(StoredType::Ggml { id, name: known_name }, &shape, bytes));
}

/// One layer of the shapes of bitnet_b1_58-large, with few tokens. Trits follow from a formula.
fn large() -> Gguf {
    let small = vector("tiny-bitnet-packed");
    let mut gguf = Gguf::of(&small, "bitnet", LAYOUT);
    gguf.tensors.retain(|name, _| !name.starts_with("blk."));
    for (key, value) in [
        ("embedding_length", 1536),
        ("feed_forward_length", 4096),
        ("block_count", 1),
        ("attention.head_count", 16),
        ("attention.head_count_kv", 16),
        ("rope.dimension_count", 96),
    ] {
        gguf.set(&format!("bitnet.{key}"), GgufValue::U32(value));
    }
    gguf.tensors.insert("token_embd.weight".to_owned(), Tensor::zeros(StoredType::F16, &[64, 1536]));
    gguf.norm("output_norm", &[1.0; 1536]);
    for (name, len) in
        [("attn_norm", 1536), ("ffn_norm", 1536), ("attn_sub_norm", 1536), ("ffn_sub_norm", 4096)]
    {
        gguf.norm(&format!("blk.0.{name}"), &vec![1.0; len]);
    }
    for (i, name) in
        ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"].iter().enumerate()
    {
        let rows = if i == 4 || i == 5 { 4096 } else { 1536 };
        let cols = if i == 6 { 4096 } else { 1536 };
        let trits: Vec<i8> = (0..rows * cols)
            .map(|at: usize| ((at.wrapping_mul(0x9E37_79B9 + i) >> 11) % 3) as i8 - 1)
            .collect();
        let mut bytes = pack_i2s(LAYOUT, &trits, rows, cols).unwrap();
        bytes.extend(bitnet_quant::codec::i2s_tail(0.3 + i as f32));
        gguf.tensors.insert(
            format!("blk.0.{name}.weight"),
            Tensor::new(StoredType::I2S, &[rows as u64, cols as u64], bytes),
        );
    }
    gguf
}

#[test]
fn tiles_of_known_shapes() {
    let original = large();
    let want = original.load().unwrap();
    for (kind, names) in
        [("tl1", &["attn_q", "ffn_gate", "ffn_down"][..]), ("tl2", &["attn_q", "ffn_down"][..])]
    {
        for own_scale in [false, true] {
            let mut gguf = original.clone();
            for name in names {
                tiled(&mut gguf, kind, &format!("blk.0.{name}.weight"), own_scale);
            }
            let dir = tempfile::tempdir().unwrap();
            gguf.write_raw(&dir.path().join("m.gguf"));
            let model = load_path(&dir.path().join("m.gguf")).unwrap();
            assert!(trits(&model) == trits(&want), "{kind} {own_scale}");
            assert_eq!(scales(&model), scales(&want), "{kind} {own_scale}");
            assert!(model.format.contains(&kind.to_uppercase()), "{}", model.format);
        }
    }
}

#[test]
fn what_has_no_single_scale_or_unknown_tiles_is_named() {
    let base = Gguf::of(&vector("tiny-bitnet-packed"), "bitnet-b1.58", LAYOUT);
    let name = "blk.1.ffn_up.weight";
    let (trits, rows, cols, _) = base.ternary(name);
    let half = rows / 2;
    let mut bytes = pack_tq2_0(&trits[..half * cols], half, cols, 0.5).unwrap();
    bytes.extend(pack_tq2_0(&trits[half * cols..], rows - half, cols, 0.25).unwrap());
    let mut gguf = base.clone();
    let shape = [rows as u64, cols as u64];
    gguf.tensors.insert(name.to_owned(), Tensor::new(StoredType::TQ2_0, &shape, bytes));
    let error = gguf.load().unwrap_err();
    assert!(
        matches!(
            &error,
            LoadError::Quant { source: QuantError::SeveralScales { first: 0.5, other: 0.25, .. }, .. }
        ),
        "{error}"
    );
    assert!(error.to_string().contains(name) && error.to_string().contains("model.gguf"), "{error}");

    // Masters in a block type have lost too much.
    let masters: Vec<f32> = (0..rows * cols).map(|i| (i as f32).sin()).collect();
    let mut bytes = Vec::new();
    assert!(BlockType::Q4_0.encode(&masters, &mut bytes));
    gguf.tensors.insert(name.to_owned(), Tensor::new(StoredType::Q4_0, &shape, bytes));
    let error = gguf.error();
    assert!(error.contains(name) && error.contains("q4_0") && error.contains("not ternary"), "{error}");

    let tl1 = StoredType::Ggml { id: 38, name: "tl1" };
    gguf.tensors.insert(name.to_owned(), Tensor::new(tl1, &shape, vec![0; rows * cols / 4 + 32]));
    let dir = tempfile::tempdir().unwrap();
    gguf.write_raw(&dir.path().join("m.gguf"));
    let error = load_path(&dir.path().join("m.gguf")).unwrap_err().to_string();
    assert!(error.contains("of type tl1 and shape [512, 256]") && error.contains("i2_s"), "{error}");
}

/// Writes some tensors of a file as part `number` of `count`.
fn write_part(gguf: &Gguf, path: &Path, number: u16, count: u16, keep: impl Fn(usize) -> bool) {
    let mut part = gguf.clone();
    if number > 0 {
        part.metadata.clear();
    }
    part.set("split.no", GgufValue::U16(number));
    part.set("split.count", GgufValue::U16(count));
    part.set("split.tensors.count", GgufValue::I32(gguf.tensors.len() as i32));
    let names: Vec<String> = gguf.tensors.keys().cloned().collect();
    part.tensors.retain(|name, _| keep(names.iter().position(|n| n == name).unwrap()));
    part.write(path);
}

#[test]
fn models_in_several_files() {
    let folder = vector("tiny-bitnet-packed");
    let gguf = Gguf::of(&folder, "bitnet-b1.58", LAYOUT);
    let dir = tempfile::tempdir().unwrap();
    let path = |number: u16| dir.path().join(format!("m-0000{}-of-00003.gguf", number + 1));
    for number in 0..3u16 {
        write_part(&gguf, &path(number), number, 3, |at| at % 3 == usize::from(number));
    }
    let bytes: u64 = (0..3).map(|number| std::fs::metadata(path(number)).unwrap().len()).sum();
    for place in [path(0), path(2), dir.path().to_owned()] {
        let model = load_path(&place).unwrap();
        assert_eq!((trits(&model), scales(&model)), (trits(&folder), scales(&folder)));
        assert_eq!((model.name.as_str(), model.file_bytes), ("m", bytes));
    }
    std::fs::remove_file(path(1)).unwrap();
    for place in [path(0), path(2), dir.path().to_owned()] {
        let error = load_path(&place).unwrap_err().to_string();
        assert!(error.contains("m-00002-of-00003.gguf") && error.contains("part 2 of 3"), "{error}");
    }
    write_part(&gguf, &path(1), 1, 3, |at| at % 3 == 1);
    std::fs::remove_file(path(0)).unwrap();
    let error = load_path(dir.path()).unwrap_err().to_string();
    assert!(error.contains("\"m-00001-of-00003.gguf\" is missing"), "{error}");
}
