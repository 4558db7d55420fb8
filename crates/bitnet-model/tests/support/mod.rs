//! Small models for the loading tests, made from the reference vectors and changed in one respect each.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]
#![allow(unreachable_pub, missing_docs, reason = "a module of test binaries, not a library")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bitnet_core::bytes::ByteView;
use bitnet_formats::{GgufValue, StoredType, TensorPlan, create_gguf, create_safetensors, read_safetensors};
use bitnet_model::{LayerWeights, LoadError, LoadOptions, LoadedModel, ModelSource, load};
use bitnet_quant::I2sLayout;
use bitnet_quant::codec::pack_i2s;
use serde_json::Value;

pub const LAYER_PROJECTIONS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

pub fn testdata(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata")).join(name)
}

pub fn bundled(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../bitnet-tiny/model")).join(name)
}

pub fn load_path(path: &Path) -> Result<LoadedModel, LoadError> {
    load(&ModelSource::Path(path.to_owned()), &LoadOptions::default())
}

pub fn vector(name: &str) -> LoadedModel {
    load_path(&testdata("vectors").join(name)).unwrap()
}

/// Trits and scales of all projections, in order.
pub fn trits(model: &LoadedModel) -> Vec<(String, Vec<i8>)> {
    let mut all = Vec::new();
    for (i, layer) in model.weights.layers.iter().enumerate() {
        for (name, matrix) in layer.projections() {
            all.push((format!("{i}.{name}"), matrix.to_trits().unwrap()));
        }
    }
    all
}

pub fn scales(model: &LoadedModel) -> Vec<f32> {
    model.weights.layers.iter().flat_map(LayerWeights::projections).map(|(_, m)| m.scale()).collect()
}

#[derive(Clone)]
pub struct Tensor {
    pub stored: StoredType,
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    pub fn new(stored: StoredType, shape: &[u64], bytes: Vec<u8>) -> Self {
        Self { stored, shape: shape.to_vec(), bytes }
    }

    /// Zeros of a type with whole bytes.
    pub fn zeros(stored: StoredType, shape: &[u64]) -> Self {
        Self::new(stored, shape, vec![0; stored.byte_len(shape).unwrap() as usize])
    }
}

/// A Hugging Face folder.
#[derive(Clone)]
pub struct Folder {
    pub config: Value,
    pub tensors: BTreeMap<String, Tensor>,
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Folder {
    /// One of the reference vectors.
    pub fn vector(name: &str) -> Self {
        let dir = testdata("vectors").join(name);
        let view = ByteView::map_file(&dir.join("model.safetensors")).unwrap();
        let set = read_safetensors(view, name).unwrap().tensors;
        let tensor =
            |t: &bitnet_formats::StoredTensor| Tensor::new(t.stored, &t.shape, t.data.as_slice().to_vec());
        Self {
            config: serde_json::from_slice(&std::fs::read(dir.join("config.json")).unwrap()).unwrap(),
            tensors: set.iter().map(|t| (t.name.clone(), tensor(t))).collect(),
            files: BTreeMap::new(),
        }
    }

    pub fn file(&mut self, name: &str, content: impl Into<Vec<u8>>) -> &mut Self {
        self.files.insert(name.to_owned(), content.into());
        self
    }

    /// Puts a bigger vocabulary of zeros in place of the embedding.
    pub fn resize_vocabulary(&mut self, rows: u64) {
        let cols = self.tensors["model.embed_tokens.weight"].shape[1];
        let table = Tensor::zeros(StoredType::BF16, &[rows, cols]);
        self.tensors.insert("model.embed_tokens.weight".to_owned(), table);
        self.config["vocab_size"] = rows.into();
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        let renamed = std::mem::take(&mut self.tensors).into_iter();
        self.tensors = renamed.map(|(name, tensor)| (name.replace(from, to), tensor)).collect();
    }

    pub fn write(&self, dir: &Path) {
        std::fs::write(dir.join("config.json"), self.config.to_string()).unwrap();
        write_safetensors(&dir.join("model.safetensors"), self.tensors.iter());
        for (name, content) in &self.files {
            std::fs::write(dir.join(name), content).unwrap();
        }
    }

    pub fn load(&self) -> Result<LoadedModel, LoadError> {
        self.load_with(&LoadOptions::default())
    }

    pub fn load_with(&self, options: &LoadOptions) -> Result<LoadedModel, LoadError> {
        let dir = tempfile::tempdir().unwrap();
        self.write(dir.path());
        load(&ModelSource::Path(dir.path().to_owned()), options)
    }

    pub fn error(&self) -> String {
        self.load().map(|model| model.spec).unwrap_err().to_string()
    }
}

pub fn write_safetensors<'a>(path: &Path, tensors: impl Iterator<Item = (&'a String, &'a Tensor)> + Clone) {
    let plan: Vec<TensorPlan> =
        tensors.clone().map(|(name, t)| TensorPlan::new(name, t.stored, t.shape.clone())).collect();
    let mut writer = create_safetensors(path, &plan, &BTreeMap::new()).unwrap();
    for (name, tensor) in tensors {
        writer.write_tensor(name, &tensor.bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// A GGUF file.
#[derive(Clone)]
pub struct Gguf {
    pub metadata: BTreeMap<String, GgufValue>,
    pub tensors: BTreeMap<String, Tensor>,
}

impl Gguf {
    /// The same model as GGUF of an architecture, as converters write it.
    pub fn of(model: &LoadedModel, arch: &str, layout: I2sLayout) -> Self {
        let spec = &model.spec;
        let mut gguf = Self { metadata: BTreeMap::new(), tensors: BTreeMap::new() };
        gguf.metadata.insert("general.architecture".to_owned(), GgufValue::String(arch.to_owned()));
        for (key, value) in [
            ("context_length", spec.context_length),
            ("embedding_length", spec.hidden_size),
            ("feed_forward_length", spec.intermediate_size),
            ("block_count", spec.num_layers),
            ("attention.head_count", spec.num_heads),
            ("attention.head_count_kv", spec.num_kv_heads),
            ("rope.dimension_count", spec.head_dim),
        ] {
            gguf.metadata.insert(format!("{arch}.{key}"), GgufValue::U32(value as u32));
        }
        gguf.set(&format!("{arch}.attention.layer_norm_rms_epsilon"), GgufValue::F32(spec.rms_norm_eps));
        gguf.set(&format!("{arch}.rope.freq_base"), GgufValue::F32(spec.rope_theta as f32));
        let weights = &model.weights;
        for (name, table) in
            [("token_embd.weight", Some(&weights.embedding)), ("output.weight", weights.output.as_ref())]
        {
            let Some(table) = table else { continue };
            let stored = StoredType::of(table.stored());
            let shape = [table.rows() as u64, table.cols() as u64];
            gguf.tensors
                .insert(name.to_owned(), Tensor::new(stored, &shape, table.data().as_slice().to_vec()));
        }
        gguf.norm("output_norm", &weights.final_norm);
        for (i, layer) in weights.layers.iter().enumerate() {
            gguf.norm(&format!("blk.{i}.attn_norm"), &layer.attn_norm);
            gguf.norm(&format!("blk.{i}.ffn_norm"), &layer.ffn_norm);
            for (name, norm) in
                [("attn_sub_norm", &layer.attn_sub_norm), ("ffn_sub_norm", &layer.ffn_sub_norm)]
            {
                if let Some(norm) = norm {
                    gguf.norm(&format!("blk.{i}.{name}"), norm);
                }
            }
            let names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
            for (name, (_, matrix)) in names.into_iter().zip(layer.projections()) {
                let (rows, cols) = (matrix.rows(), matrix.cols());
                let mut trits = matrix.to_trits().unwrap();
                if arch == "llama" && matches!(name, "attn_q" | "attn_k") {
                    trits = interleave(&trits, cols, spec.head_dim);
                }
                let mut bytes = pack_i2s(layout, &trits, rows, cols).unwrap();
                bytes.extend_from_slice(&matrix.scale().to_le_bytes());
                bytes.extend_from_slice(&[0xA5; 28]);
                let tensor = Tensor::new(StoredType::I2S, &[rows as u64, cols as u64], bytes);
                gguf.tensors.insert(format!("blk.{i}.{name}.weight"), tensor);
            }
        }
        gguf
    }

    pub fn norm(&mut self, name: &str, values: &[f32]) {
        let bytes = bitnet_core::DType::F32.encode(values);
        let tensor = Tensor::new(StoredType::F32, &[values.len() as u64], bytes);
        self.tensors.insert(format!("{name}.weight"), tensor);
    }

    pub fn set(&mut self, key: &str, value: GgufValue) {
        self.metadata.insert(key.to_owned(), value);
    }

    pub fn write(&self, path: &Path) {
        let plan: Vec<TensorPlan> =
            self.tensors.iter().map(|(name, t)| TensorPlan::new(name, t.stored, t.shape.clone())).collect();
        let metadata: Vec<(String, GgufValue)> = self.metadata.clone().into_iter().collect();
        let mut writer = create_gguf(path, &metadata, &plan).unwrap();
        for (name, tensor) in &self.tensors {
            writer.write_tensor(name, &tensor.bytes).unwrap();
        }
        writer.finish().unwrap();
    }

    pub fn load(&self) -> Result<LoadedModel, LoadError> {
        self.load_with(&LoadOptions::default())
    }

    pub fn load_with(&self, options: &LoadOptions) -> Result<LoadedModel, LoadError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        self.write(&path);
        load(&ModelSource::Path(path), options)
    }

    pub fn error(&self) -> String {
        self.load().map(|model| model.spec).unwrap_err().to_string()
    }
}

/// Rows of each head `[2][head_dim/2]` become `[head_dim/2][2]`, as the converters for llama do.
fn interleave(trits: &[i8], cols: usize, head_dim: usize) -> Vec<i8> {
    let mut out = Vec::with_capacity(trits.len());
    for head in trits.chunks_exact(head_dim * cols) {
        for j in 0..head_dim / 2 {
            for half in 0..2 {
                out.extend_from_slice(&head[(half * head_dim / 2 + j) * cols..][..cols]);
            }
        }
    }
    out
}
