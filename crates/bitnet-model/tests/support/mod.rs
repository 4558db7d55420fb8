//! Small models for the loading tests, made from the reference vectors and changed in one respect each.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]
#![allow(unreachable_pub, missing_docs, reason = "a module of test binaries, not a library")]

pub mod checkpoints;
pub mod torch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bitnet_core::bytes::ByteView;
use bitnet_core::{BlockType, DType};
use bitnet_formats::{
    GgufValue, StoredType, TensorPlan, create_gguf, create_safetensors, read_gguf, read_safetensors,
};
use bitnet_model::{LayerWeights, LoadError, LoadOptions, LoadedModel, ModelSource, load};
use bitnet_quant::codec::{pack_i2s, pack_iq1_bn, pack_iq2_bn, pack_iq2_bn_r4, pack_tq1_0, pack_tq2_0};
use bitnet_quant::{I2sLayout, RowOrder, TernaryMatrix, TritCodec};
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
        let bytes = DType::F32.encode(values);
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

    /// Writes the file by hand, with types whose size the writer does not know.
    pub fn write_raw(&self, path: &Path) {
        Gguf { metadata: self.metadata.clone(), tensors: BTreeMap::new() }.write(path);
        let mut bytes = std::fs::read(path).unwrap();
        bytes.truncate(head_len(&bytes));
        bytes[8..16].copy_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        let mut offset = 0u64;
        for (name, tensor) in &self.tensors {
            let id = match tensor.stored {
                StoredType::Ggml { id, .. } => id,
                StoredType::I2S => 36,
                StoredType::F32 => 0,
                StoredType::F16 => 1,
                StoredType::BF16 => 30,
                other => panic!("{other} is not needed here"),
            };
            bytes.extend((name.len() as u64).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|dim| bytes.extend(dim.to_le_bytes()));
            bytes.extend(id.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            offset += (tensor.bytes.len() as u64).next_multiple_of(32);
        }
        for tensor in self.tensors.values() {
            bytes.resize(bytes.len().next_multiple_of(32), 0);
            bytes.extend(&tensor.bytes);
        }
        std::fs::write(path, bytes).unwrap();
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

/// Length of the metadata of a file without tensors: the least with which it can be read.
fn head_len(bytes: &[u8]) -> usize {
    let readable = |len: usize| read_gguf(ByteView::from_vec(bytes[..len].to_vec()), "head").is_ok();
    (0..=bytes.len()).rev().take_while(|&len| readable(len)).last().unwrap()
}

/// How the projections of a GGUF file are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Tq1_0,
    Tq2_0,
    Iq1Bn,
    Iq2Bn,
    Iq2BnR4,
    F32,
    F16,
    BF16,
    Q8_0,
}

impl Kind {
    pub const ALL: [Kind; 9] = [
        Kind::Tq1_0,
        Kind::Tq2_0,
        Kind::Iq1Bn,
        Kind::Iq2Bn,
        Kind::Iq2BnR4,
        Kind::F32,
        Kind::F16,
        Kind::BF16,
        Kind::Q8_0,
    ];

    pub fn stored(self) -> StoredType {
        match self {
            Kind::Tq1_0 => StoredType::TQ1_0,
            Kind::Tq2_0 => StoredType::TQ2_0,
            Kind::Iq1Bn => StoredType::IQ1_BN,
            Kind::Iq2Bn => StoredType::IQ2_BN,
            Kind::Iq2BnR4 => StoredType::IQ2_BN_R4,
            Kind::F32 => StoredType::F32,
            Kind::F16 => StoredType::F16,
            Kind::BF16 => StoredType::BF16,
            Kind::Q8_0 => StoredType::Q8_0,
        }
    }

    /// What a scale becomes in this type.
    pub fn rounded(self, scale: f32) -> f32 {
        let through = |dtype: DType, value: f32| {
            let mut out = [0.0];
            dtype.decode(&dtype.encode(&[value]), &mut out);
            out[0]
        };
        match self {
            Kind::Tq1_0 | Kind::Tq2_0 | Kind::Iq1Bn | Kind::F16 => through(DType::F16, scale),
            Kind::BF16 => through(DType::BF16, scale),
            Kind::Q8_0 => through(DType::F16, scale / 127.0) * 127.0,
            Kind::Iq2Bn | Kind::Iq2BnR4 | Kind::F32 => scale,
        }
    }

    /// The bytes of a matrix; `None` if the type cannot hold its shape.
    pub fn pack(self, trits: &[i8], rows: usize, cols: usize, scale: f32) -> Option<Vec<u8>> {
        let values = || trits.iter().map(|&t| f32::from(t) * scale).collect::<Vec<f32>>();
        match self {
            Kind::Tq1_0 => pack_tq1_0(trits, rows, cols, scale).ok(),
            Kind::Tq2_0 => pack_tq2_0(trits, rows, cols, scale).ok(),
            Kind::Iq1Bn => pack_iq1_bn(trits, rows, cols, scale).ok(),
            Kind::Iq2Bn => pack_iq2_bn(trits, rows, cols, scale).ok(),
            Kind::Iq2BnR4 => pack_iq2_bn_r4(trits, rows, cols, scale).ok(),
            Kind::F32 => Some(DType::F32.encode(&values())),
            Kind::F16 => Some(DType::F16.encode(&values())),
            Kind::BF16 => Some(DType::BF16.encode(&values())),
            Kind::Q8_0 => {
                let mut out = Vec::new();
                BlockType::Q8_0.encode(&values(), &mut out).then_some(out)
            }
        }
    }
}

impl Gguf {
    /// The trits and the scale of an I2_S tensor in groups of 128.
    pub fn ternary(&self, name: &str) -> (Vec<i8>, usize, usize, f32) {
        let tensor = &self.tensors[name];
        assert_eq!(tensor.stored, StoredType::I2S);
        let (rows, cols) = (tensor.shape[0] as usize, tensor.shape[1] as usize);
        let (codes, tail) = tensor.bytes.split_at(rows * cols / 4);
        let data = ByteView::from_vec(codes.to_vec());
        let codec = TritCodec::I2S(I2sLayout::Group128);
        let matrix = TernaryMatrix::new(rows, cols, 1.0, codec, RowOrder::Natural, data).unwrap();
        (matrix.to_trits().unwrap(), rows, cols, f32::from_le_bytes(tail[..4].try_into().unwrap()))
    }

    /// Stores the I2_S tensors that `choose` names as another type, where that can hold their shape; returns the names.
    pub fn retype(&mut self, kind: Kind, choose: impl Fn(&str) -> bool) -> Vec<String> {
        let ternary = |(name, tensor): (&String, &Tensor)| {
            (tensor.stored == StoredType::I2S && choose(name)).then(|| name.clone())
        };
        let names: Vec<String> = self.tensors.iter().filter_map(ternary).collect();
        let mut changed = Vec::new();
        for name in names {
            let (trits, rows, cols, scale) = self.ternary(&name);
            if let Some(bytes) = kind.pack(&trits, rows, cols, scale) {
                let tensor = Tensor::new(kind.stored(), &[rows as u64, cols as u64], bytes);
                self.tensors.insert(name.clone(), tensor);
                changed.push(name);
            }
        }
        changed
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
