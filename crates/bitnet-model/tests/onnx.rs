//! ONNX in and out: what exporters write loads as the model they exported, and what is written loads again unchanged.
#![allow(clippy::unwrap_used, reason = "a failure in a helper fails the test")]

mod support;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bitnet_core::DType;
use bitnet_core::bytes::ByteView;
use bitnet_formats::{OnnxAttribute, OnnxFile, OnnxPlan, StoredTensor, TensorPlan, create_onnx, read_onnx};
use bitnet_model::export::{ExportError, OnnxOptions, OnnxWeights, onnx_bytes, write_onnx};
use bitnet_model::reference::ReferenceExecutor;
use bitnet_model::{
    Batch, Executor, KvType, LoadOptions, LoadedModel, LogitRows, ModelSource, Sequence, load,
};
use support::{bundled, load_path, scales, testdata, trits, vector};

const VECTORS: [&str; 4] =
    ["tiny-bitnet-packed", "tiny-bitnet-bf16", "tiny-bitnet-bf16-packed", "tiny-llama-bitlinear"];

fn logits(model: &LoadedModel, tokens: &[u32]) -> Vec<f32> {
    let mut executor = ReferenceExecutor::new(model.spec.clone(), &model.weights, KvType::F32).unwrap();
    let count = tokens.len().div_ceil(executor.info().block_size);
    executor.reserve_blocks(count).unwrap();
    let blocks: Vec<u32> = (0..count as u32).collect();
    let sequence = Sequence { tokens, position: 0, blocks: &blocks, logits: LogitRows::All };
    let mut out = vec![0.0; tokens.len() * model.spec.vocab_size];
    executor.forward(&Batch { sequences: &[sequence] }, &mut out).unwrap();
    out
}

fn write(model: &LoadedModel, dir: &Path, options: &OnnxOptions) -> PathBuf {
    let path = dir.join("model.onnx");
    let (mut last, mut total) = (0, 0);
    let mut told = |done, all| {
        (last, total) = (done, all);
        ControlFlow::Continue(())
    };
    write_onnx(model, &path, options, &mut told).unwrap();
    assert!(last == total && total == onnx_bytes(model, options).unwrap() && total > 0);
    path
}

/// Every tensor as it was, and the same logits.
fn assert_same(again: &LoadedModel, model: &LoadedModel, what: &str) {
    assert_eq!(again.spec, model.spec, "{what}");
    assert!(trits(again) == trits(model), "{what}: trits");
    assert_eq!(scales(again), scales(model), "{what}");
    let tables = |m: &LoadedModel| {
        let table = m.weights.output_layer();
        (m.weights.embedding.data().as_slice().to_vec(), table.data().as_slice().to_vec(), table.plain_type())
    };
    assert!(tables(again) == tables(model), "{what}: tables");
    let tokens = [1, 17, 300, 42, 3, 3, 99];
    let bits = |m: &LoadedModel| logits(m, &tokens).iter().map(|l| l.to_bits()).collect::<Vec<_>>();
    assert!(bits(again) == bits(model), "{what}: logits");
}

#[test]
fn what_is_written_loads_again_bit_for_bit() {
    for name in VECTORS {
        let model = vector(name);
        for weights in [OnnxWeights::Int8, OnnxWeights::Bits2] {
            for external_above in [u64::MAX, 0] {
                let dir = tempfile::tempdir().unwrap();
                let path = write(&model, dir.path(), &OnnxOptions { weights, external_above, tables: None });
                let data = dir.path().join("model.onnx.data");
                assert_eq!(data.exists(), external_above == 0);
                let what = format!("{name} {weights:?} {external_above}");
                let again = load_path(&path).unwrap();
                assert_same(&again, &model, &what);
                assert_eq!(again.name, model.name);
                assert_eq!(again.generation.stop_tokens, model.generation.stop_tokens);
                let bits = if weights == OnnxWeights::Int8 { "8-bit" } else { "2-bit" };
                assert!(again.format.contains(bits), "{}", again.format);
                // A folder with nothing else is the same model.
                assert_eq!(load_path(dir.path()).unwrap().spec, model.spec);
            }
        }
    }
}

#[test]
fn the_bundled_model_survives() {
    let model = load_path(&bundled("")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = write(&model, dir.path(), &OnnxOptions::default());
    std::fs::copy(bundled("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let again = load_path(&path).unwrap();
    assert_same(&again, &model, "bitnet-tiny");
    assert!(again.tokenizer.is_some());
    assert_eq!(again.name, "model");
}

#[test]
fn whoever_asks_to_stop_gets_no_file() {
    let model = vector("tiny-bitnet-packed");
    for external_above in [u64::MAX, 0] {
        let options = OnnxOptions { external_above, ..OnnxOptions::default() };
        let mut calls = 0;
        let count = |_, _| {
            calls += 1;
            ControlFlow::Continue(())
        };
        let dir = tempfile::tempdir().unwrap();
        write_onnx(&model, &dir.path().join("whole.onnx"), &options, &mut { count }).unwrap();
        for stop in [1, calls / 2, calls] {
            let dir = tempfile::tempdir().unwrap();
            let mut left = stop;
            let result = write_onnx(&model, &dir.path().join("m.onnx"), &options, &mut |_, _| {
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert!(matches!(result, Err(ExportError::Interrupted)), "{stop} of {calls}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{stop} of {calls}");
        }
    }
}

#[test]
fn tables_are_rounded_to_the_type_asked_for() {
    let model = load_path(&bundled("")).unwrap();
    let (rows, cols) = (model.weights.embedding.rows(), model.weights.embedding.cols());
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let dir = tempfile::tempdir().unwrap();
        let path = write(&model, dir.path(), &OnnxOptions { tables: Some(dtype), ..OnnxOptions::default() });
        let again = load_path(&path).unwrap();
        assert_eq!(again.weights.embedding.plain_type(), dtype);
        let (mut before, mut after) = (vec![0.0; cols], vec![0.0; cols]);
        for row in 0..rows {
            model.weights.embedding.decode_row(row, &mut before);
            again.weights.embedding.decode_row(row, &mut after);
            let mut rounded = vec![0.0; cols];
            dtype.decode(&dtype.encode(&before), &mut rounded);
            assert_eq!(after, rounded, "{dtype} row {row}");
        }
    }
}

#[test]
fn missing_data_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let options = OnnxOptions { external_above: 0, ..OnnxOptions::default() };
    let path = write(&vector("tiny-bitnet-packed"), dir.path(), &options);
    let data = dir.path().join("model.onnx.data");
    let bytes = std::fs::read(&data).unwrap();
    std::fs::write(&data, &bytes[..bytes.len() - 1]).unwrap();
    let message = load_path(&path).unwrap_err().to_string();
    assert!(message.contains("model.onnx.data") && message.contains("1 bytes are missing"), "{message}");
    std::fs::remove_file(&data).unwrap();
    let message = load_path(&path).unwrap_err().to_string();
    assert!(message.contains("model.onnx.data is missing"), "{message}");
}

#[test]
fn exported_graphs_give_the_logits_of_onnxruntime() {
    let text = std::fs::read(testdata("onnx/expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let tokens: Vec<u32> =
        expected["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
    let models = expected["logits"].as_object().unwrap();
    assert_eq!(models.len(), 5);
    for (name, want) in models {
        let want: Vec<f32> = want.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        let model = load_path(&testdata("onnx").join(name)).unwrap();
        assert_eq!(model.spec.tied_output, !matches!(name.as_str(), "anonymous" | "integers"), "{name}");
        let found = logits(&model, &tokens);
        let largest = want.iter().fold(0.0f32, |a, v| a.max(v.abs()));
        let difference = want.iter().zip(&found).fold(0.0f32, |a, (x, y)| a.max((x - y).abs()));
        // A wrong transposition, scale or role is off by a multiple of the largest logit.
        assert!(difference < 1e-4 * largest, "{name}: {difference} of {largest}");
    }
}

/// A fixture, to be changed in one respect and loaded again.
struct Changed {
    file: OnnxFile,
    config: serde_json::Value,
}

impl Changed {
    fn fixture(name: &str) -> Self {
        let dir = testdata("onnx").join(name);
        let open = |file: &str| ByteView::map_file(&dir.join(file)).unwrap();
        let file = read_onnx(open("model.onnx"), "model.onnx", &mut |name| Ok(open(name))).unwrap();
        let config = serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap();
        Self { file, config }
    }

    fn node(&mut self, op: &str) -> &mut bitnet_formats::OnnxNode {
        self.file.nodes.iter_mut().find(|node| node.op_type == op).unwrap()
    }

    fn load(&self) -> Result<LoadedModel, bitnet_model::LoadError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), self.config.to_string()).unwrap();
        let tensors: Vec<&StoredTensor> = self.file.tensors.iter().collect();
        let plan = OnnxPlan {
            ir_version: self.file.ir_version,
            opsets: self.file.opsets.clone(),
            nodes: self.file.nodes.clone(),
            tensors: tensors.iter().map(|t| TensorPlan::new(&t.name, t.stored, t.shape.clone())).collect(),
            ..OnnxPlan::default()
        };
        let path = dir.path().join("model.onnx");
        let mut writer = create_onnx(&path, &plan).unwrap();
        for tensor in tensors {
            writer.write_tensor(&tensor.name, tensor.data.as_slice()).unwrap();
        }
        writer.finish().unwrap();
        load(&ModelSource::Path(path), &LoadOptions::default())
    }

    fn error(&self) -> String {
        self.load().map(|model| model.spec).unwrap_err().to_string()
    }
}

#[test]
fn a_rewritten_fixture_is_the_same_model() {
    for name in ["torch-named", "anonymous", "blocks", "integers", "masters"] {
        let original = load_path(&testdata("onnx").join(name)).unwrap();
        let again = Changed::fixture(name).load().unwrap();
        assert!(trits(&again) == trits(&original) && scales(&again) == scales(&original), "{name}");
    }
}

#[test]
fn names_and_graph_agree() {
    for name in ["torch-named", "blocks", "masters"] {
        let named = load_path(&testdata("onnx").join(name)).unwrap();
        let mut changed = Changed::fixture(name);
        // Without the names of nodes and with numbers for those of tensors, roles follow from the graph.
        let mut renamed = bitnet_formats::TensorSet::new();
        for (number, tensor) in changed.file.tensors.iter().enumerate() {
            let name = format!("t{number}");
            for node in &mut changed.file.nodes {
                node.name.clear();
                node.inputs
                    .iter_mut()
                    .filter(|input| **input == tensor.name)
                    .for_each(|input| *input = name.clone());
            }
            renamed.insert(StoredTensor { name, ..tensor.clone() }).unwrap();
        }
        changed.file.tensors = renamed;
        let anonymous = changed.load().unwrap();
        assert!(trits(&anonymous) == trits(&named) && scales(&anonymous) == scales(&named), "{name}");
        assert_eq!(logits(&anonymous, &[3, 17, 39]), logits(&named, &[3, 17, 39]), "{name}");
    }
}

#[test]
fn norms_without_names_are_found_in_the_graph() {
    let named = load_path(&testdata("onnx/torch-named")).unwrap();
    let mut changed = Changed::fixture("torch-named");
    let mut renamed = bitnet_formats::TensorSet::new();
    for (number, tensor) in changed.file.tensors.iter().enumerate() {
        let is_norm = tensor.name.contains("norm");
        let name = if is_norm { format!("onnx::Mul_{number}") } else { tensor.name.clone() };
        for node in &mut changed.file.nodes {
            node.inputs
                .iter_mut()
                .filter(|input| **input == tensor.name)
                .for_each(|input| *input = name.clone());
        }
        renamed.insert(StoredTensor { name, ..tensor.clone() }).unwrap();
    }
    changed.file.tensors = renamed;
    assert_eq!(logits(&changed.load().unwrap(), &[3, 17, 39]), logits(&named, &[3, 17, 39]));
}

#[test]
fn what_is_no_such_decoder_is_refused_by_name() {
    let error = |name: &str, change: &dyn Fn(&mut Changed)| {
        let mut changed = Changed::fixture(name);
        change(&mut changed);
        let message = changed.error();
        assert!(message.contains("model.onnx") && message.lines().count() == 1, "{message}");
        message
    };
    let message = error("blocks", &|c| {
        c.node("MatMulNBits").attributes.iter_mut().for_each(|(name, value)| {
            if name == "bits" {
                *value = OnnxAttribute::Int(4);
            }
        });
    });
    assert!(message.contains("MatMulNBits") && message.contains("bits = 4"), "{message}");

    let message = error("anonymous", &|c| {
        c.node("Gemm").attributes.push(("alpha".to_owned(), OnnxAttribute::Float(0.5)));
    });
    assert!(message.contains("Gemm") && message.contains("alpha"), "{message}");

    let message = error("anonymous", &|c| {
        for node in &mut c.file.nodes {
            if node.op_type == "Cast" {
                node.op_type = "Floor".to_owned();
            }
        }
    });
    assert!(message.contains("Floor"), "{message}");

    let rename = |c: &mut Changed, from: &str, to: &str| {
        c.file.nodes.iter_mut().filter(|n| n.op_type == from).for_each(|n| n.op_type = to.to_owned());
    };
    let message = error("anonymous", &|c| rename(c, "Softmax", "Identity"));
    assert!(message.contains("without attention"), "{message}");
    let message = error("anonymous", &|c| rename(c, "Sigmoid", "Tanh"));
    assert!(message.contains("(Tanh)"), "{message}");
    let message = error("torch-named", &|c| c.config["hidden_act"] = "silu".into());
    assert!(message.contains("(Relu)") && message.contains("SiLU"), "{message}");
    // A bias behind a projection: the two halves of a residual stream are no constants, this is one.
    let message = error("blocks", &|c| {
        let bias = c.file.tensors.iter().find(|t| t.shape == [32]).unwrap().name.clone();
        let at = c.file.nodes.iter().position(|n| n.op_type == "MatMulNBits").unwrap();
        let y = c.file.nodes[at].outputs[0].clone();
        c.file.nodes[at].outputs[0] = "before_bias".to_owned();
        c.file.nodes.insert(at + 1, bitnet_formats::OnnxNode::new("Add", &["before_bias", &bias], &[&y]));
    });
    assert!(message.contains("(Add)") && message.contains("bias"), "{message}");

    let message = error("torch-named", &|c| c.config["num_hidden_layers"] = 3.into());
    assert!(message.contains("layer 2"), "{message}");
    let message = error("torch-named", &|c| c.config["num_hidden_layers"] = 1.into());
    assert!(message.contains("node") && message.contains("MatMul"), "{message}");
    let message = error("torch-named", &|c| c.config["intermediate_size"] = 64.into());
    assert!(message.contains("[48]") && message.contains("[64]"), "{message}");
}

#[test]
fn differing_block_scales_are_refused_with_their_values() {
    let mut changed = Changed::fixture("blocks");
    let mut set = bitnet_formats::TensorSet::new();
    for tensor in &changed.file.tensors {
        let mut tensor = tensor.clone();
        if tensor.name.ends_with("q_proj.MatMul.weight_scales") {
            let mut bytes = tensor.data.as_slice().to_vec();
            bytes[20..24].copy_from_slice(&7.5f32.to_le_bytes());
            tensor.data = ByteView::from_vec(bytes);
        }
        set.insert(tensor).unwrap();
    }
    changed.file.tensors = set;
    let message = changed.error();
    assert!(
        message.contains("7.5") && message.contains("block 5") && message.contains("q_proj"),
        "{message}"
    );
}

#[test]
fn a_graph_without_configuration_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(testdata("onnx/blocks/model.onnx"), dir.path().join("model.onnx")).unwrap();
    let message = load_path(dir.path()).unwrap_err().to_string();
    assert!(message.contains("config.json") && message.contains("architecture"), "{message}");
    // Exporters put the graph into a folder of its own below the configuration.
    let below = dir.path().join("onnx");
    std::fs::create_dir(&below).unwrap();
    std::fs::rename(dir.path().join("model.onnx"), below.join("model.onnx")).unwrap();
    std::fs::copy(testdata("onnx/blocks/config.json"), dir.path().join("config.json")).unwrap();
    assert_eq!(load_path(&below).unwrap().spec.vocab_size, 40);
}
