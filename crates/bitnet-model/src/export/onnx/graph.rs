//! The nodes of the graph: one function for each part of the model, in the order of computation.
//!
//! Values are named after the modules of transformers (`/model/layers.0/self_attn/q_proj/MatMulInteger_output_0`), as
//! PyTorch's exporter names them, and weights as in a checkpoint.

use bitnet_core::DType;
use bitnet_formats::{OnnxAttribute, OnnxNode};
use bitnet_quant::{TernaryMatrix, absmax};

use super::tensors::Item;
use super::{OnnxOptions, OnnxWeights};
use crate::load::naming::Naming;
use crate::{Activation, DenseTensor, LayerWeights, ModelSpec, Weights};

/// Largest block of `MatMulNBits`; all blocks have the same scale, so that large ones only save space.
const MAX_BLOCK: usize = 128;
/// Smallest one that ONNX Runtime takes.
const MIN_BLOCK: usize = 16;

/// Element types by number, for `Cast`.
const FLOAT: i64 = 1;
const INT8: i64 = 3;

/// Names of values that all layers read.
struct Shared {
    /// `[sequence, head_dim]`: the cosines of the angles, twice.
    cos: String,
    sin: String,
    /// `[sequence, past + sequence]`: whether a query sees a key.
    visible: String,
}

/// A row that was quantised, by names of values.
struct Quantized {
    /// What the product reads: int8, or f32 that int8 values stand for.
    row: String,
    /// The scale, `[batch, sequence, 1]`.
    scale: String,
}

/// Nodes and initialisers being put together.
pub(super) struct Builder<'a> {
    pub(super) nodes: Vec<OnnxNode>,
    pub(super) items: Vec<Item<'a>>,
    spec: &'a ModelSpec,
    form: OnnxWeights,
    tables: Option<DType>,
    naming: Naming,
}

fn int(value: i64) -> OnnxAttribute {
    OnnxAttribute::Int(value)
}

impl<'a> Builder<'a> {
    /// The whole graph of a model.
    pub(super) fn build(spec: &'a ModelSpec, weights: &'a Weights, options: &OnnxOptions) -> Self {
        let naming = Naming::hugging_face("model.");
        let (form, tables) = (options.weights, options.tables);
        let mut b = Self { nodes: Vec::new(), items: Vec::new(), spec, form, tables, naming };
        b.constants();
        let embedding = b.naming.embedding.clone();
        b.items.push(Item::table(&embedding, &weights.embedding, tables));
        let row = b.op("/model/embed_tokens", "Gather", &[&embedding, "input_ids"]);
        let mut x = b.cast_to_float("/model/embed_tokens", row, &weights.embedding);
        let shared = b.shared();
        for (layer, weights) in weights.layers.iter().enumerate() {
            x = b.layer(layer, weights, &x, &shared);
        }
        b.logits(weights, &x);
        b
    }

    /// Adds a node at `path` and returns the name of its output.
    fn op(&mut self, path: &str, op: &str, inputs: &[&str]) -> String {
        self.op_with(path, op, inputs, &[])
    }

    fn op_with(&mut self, path: &str, op: &str, inputs: &[&str], with: &[(&str, OnnxAttribute)]) -> String {
        let output = format!("{path}/{op}_output_0");
        let mut node = OnnxNode::new(op, inputs, &[&output]);
        node.name = format!("{path}/{op}");
        node.attributes = with.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self.nodes.push(node);
        output
    }

    /// Gives the last node's output the name of an output of the graph.
    fn rename_last(&mut self, name: &str) {
        if let Some(node) = self.nodes.last_mut() {
            node.outputs = vec![name.to_owned()];
        }
    }

    /// Numbers that many nodes read.
    fn constants(&mut self) {
        let spec = self.spec;
        let half = spec.head_dim / 2;
        let (heads, kv, d) = (spec.num_heads as i64, spec.num_kv_heads as i64, spec.head_dim as i64);
        let inv_freq: Vec<f32> = (0..half)
            .map(|j| (1.0 / spec.rope_theta.powf((2 * j) as f64 / spec.head_dim as f64)) as f32)
            .collect();
        for (name, value) in [
            ("eps", spec.rms_norm_eps),
            ("floor", absmax::AMAX_FLOOR),
            ("int8_max", 127.0),
            ("int8_min", -128.0),
            ("head_scale", 1.0 / (spec.head_dim as f32).sqrt()),
            ("hidden", f32::MIN),
        ] {
            self.items.push(Item::floats(name, &[], &[value]));
        }
        self.items.push(Item::floats("inv_freq", &[half as u64], &inv_freq));
        for (name, value) in [("index_0", 0), ("index_1", 1), ("index_2", 2)] {
            self.items.push(Item::ints(name, &[value], true));
        }
        for (name, values) in [
            ("last_axis", &[-1][..]),
            ("first_axis", &[0]),
            ("second_axis", &[1]),
            ("third_axis", &[2]),
            ("halves", &[d / 2, d / 2]),
            ("split_queries", &[0, 0, kv, heads / kv, d]),
            ("split_keys", &[0, 0, kv, d]),
            ("join_heads", &[0, 0, heads * d]),
        ] {
            self.items.push(Item::ints(name, values, false));
        }
    }

    /// Positions, rotary angles and the causal mask.
    fn shared(&mut self) -> Shared {
        let at = "/model/positions";
        let shape = self.op(at, "Shape", &["past_key_values.0.key"]);
        let past = self.op(at, "Gather", &[&shape, "index_2"]);
        let ids = self.op("/model/input_ids", "Shape", &["input_ids"]);
        let sequence = self.op("/model/input_ids", "Gather", &[&ids, "index_1"]);
        let total = self.op(at, "Add", &[&past, &sequence]);
        let positions = self.op(at, "Range", &[&past, &total, "index_1"]);
        let positions = self.op(at, "Unsqueeze", &[&positions, "second_axis"]);
        let keys = self.op("/model/keys", "Range", &["index_0", &total, "index_1"]);
        let keys = self.op("/model/keys", "Unsqueeze", &[&keys, "first_axis"]);
        let visible = self.op("/model/mask", "LessOrEqual", &[&keys, &positions]);
        let at = "/model/rotary_emb";
        let floats = self.op_with(at, "Cast", &[&positions], &[("to", int(FLOAT))]);
        let angles = self.op(at, "Mul", &[&floats, "inv_freq"]);
        let angles = self.op_with(at, "Concat", &[&angles, &angles], &[("axis", int(-1))]);
        Shared { cos: self.op(at, "Cos", &[&angles]), sin: self.op(at, "Sin", &[&angles]), visible }
    }

    fn layer(&mut self, layer: usize, w: &'a LayerWeights, x: &str, shared: &Shared) -> String {
        let parts = self.naming.parts;
        let path = |part: &str| format!("/model/layers.{layer}/{}", part.replace('.', "/"));
        let tensor = |naming: &Naming, part: &str| naming.part(layer, part);
        let names: Vec<(String, String)> =
            parts.projections.iter().map(|part| (path(part), tensor(&self.naming, part))).collect();
        let linear = |b: &mut Self, i: usize, matrix: &'a TernaryMatrix, row: &Quantized| {
            b.linear(&names[i].0, &names[i].1, matrix, row)
        };
        let norm = |b: &mut Self, part: &str, x: &str, weight: &[f32]| {
            let name = b.naming.weight(layer, part);
            b.norm(&path(part), &name, x, weight)
        };

        let h = norm(self, parts.attn_norm, x, &w.attn_norm);
        let row = self.quantize(&path("self_attn"), &h);
        let [q, k, v] = [(0, &w.q), (1, &w.k), (2, &w.v)].map(|(i, matrix)| linear(self, i, matrix, &row));
        let mut o = self.attention(layer, [&q, &k, &v], shared);
        if let Some(weight) = &w.attn_sub_norm {
            o = norm(self, parts.attn_sub_norm, &o, weight);
        }
        let row = self.quantize(&path("self_attn/o_proj"), &o);
        let o = linear(self, 3, &w.o, &row);
        let x = self.op(&path("self_attn/residual"), "Add", &[x, &o]);

        let h = norm(self, parts.ffn_norm, &x, &w.ffn_norm);
        let row = self.quantize(&path("mlp"), &h);
        let [gate, up] = [(4, &w.gate), (5, &w.up)].map(|(i, matrix)| linear(self, i, matrix, &row));
        let act = self.activation(&path("mlp/act_fn"), &gate);
        let mut m = self.op(&path("mlp"), "Mul", &[&act, &up]);
        if let Some(weight) = &w.ffn_sub_norm {
            m = norm(self, parts.ffn_sub_norm, &m, weight);
        }
        let row = self.quantize(&path("mlp/down_proj"), &m);
        let m = linear(self, 6, &w.down, &row);
        self.op(&path("mlp/residual"), "Add", &[&x, &m])
    }

    /// `(x * (1 / sqrt(mean(x^2) + eps))) * weight`.
    fn norm(&mut self, path: &str, tensor: &str, x: &str, weight: &[f32]) -> String {
        self.items.push(Item::floats(tensor, &[weight.len() as u64], weight));
        let square = self.op(&format!("{path}/square"), "Mul", &[x, x]);
        let mean = self.op(path, "ReduceMean", &[&square, "last_axis"]);
        let sum = self.op(path, "Add", &[&mean, "eps"]);
        let root = self.op(path, "Sqrt", &[&sum]);
        let factor = self.op(path, "Reciprocal", &[&root]);
        let scaled = self.op(&format!("{path}/scaled"), "Mul", &[x, &factor]);
        self.op(path, "Mul", &[&scaled, tensor])
    }

    /// `q = clamp(round_half_even(x * s), -128, 127)` with `s = 127 / max(max|x|, 1e-5)`.
    fn quantize(&mut self, path: &str, x: &str) -> Quantized {
        let path = &format!("{path}/quantize");
        let abs = self.op(path, "Abs", &[x]);
        let largest = self.op_with(path, "ReduceMax", &[&abs, "last_axis"], &[("keepdims", int(1))]);
        let largest = self.op(path, "Max", &[&largest, "floor"]);
        let scale = self.op(path, "Div", &["int8_max", &largest]);
        let scaled = self.op(path, "Mul", &[x, &scale]);
        let rounded = self.op(path, "Round", &[&scaled]);
        let clipped = self.op(path, "Clip", &[&rounded, "int8_min", "int8_max"]);
        let row = match self.form {
            OnnxWeights::Int8 => self.op_with(path, "Cast", &[&clipped], &[("to", int(INT8))]),
            OnnxWeights::Bits2 => self.op(&format!("{path}/row"), "Div", &[&clipped, &scale]),
        };
        Quantized { row, scale }
    }

    /// A projection; `tensor` is its name without `.weight`.
    fn linear(&mut self, path: &str, tensor: &str, matrix: &'a TernaryMatrix, x: &Quantized) -> String {
        let (weight, scale) = (format!("{tensor}.weight"), format!("{tensor}.weight_scale"));
        match self.form {
            OnnxWeights::Int8 => {
                self.items.push(Item::columns(&weight, matrix));
                self.items.push(Item::floats(&scale, &[1], &[matrix.scale()]));
                let sums = self.op(path, "MatMulInteger", &[&x.row, &weight]);
                let sums = self.op_with(path, "Cast", &[&sums], &[("to", int(FLOAT))]);
                let factor = self.op(path, "Div", &[&scale, &x.scale]);
                self.op(path, "Mul", &[&sums, &factor])
            }
            OnnxWeights::Bits2 => {
                let (rows, cols) = (matrix.rows(), matrix.cols());
                let block = cols.next_power_of_two().clamp(MIN_BLOCK, MAX_BLOCK);
                let count = rows * cols.div_ceil(block);
                self.items.push(Item::blocks(&weight, matrix, block));
                self.items.push(Item::floats(&scale, &[count as u64], &vec![matrix.scale(); count]));
                let attributes = [
                    ("K", int(cols as i64)),
                    ("N", int(rows as i64)),
                    ("bits", int(2)),
                    ("block_size", int(block as i64)),
                ];
                let y = self.op_with(path, "MatMulNBits", &[&x.row, &weight, &scale], &attributes);
                if let Some(node) = self.nodes.last_mut() {
                    "com.microsoft".clone_into(&mut node.domain);
                }
                y
            }
        }
    }

    /// Grouped-query attention over the past and the new tokens: `[batch, sequence, heads * head_dim]`.
    fn attention(&mut self, layer: usize, [q, k, v]: [&str; 3], shared: &Shared) -> String {
        let at = |part: &str| format!("/model/layers.{layer}/self_attn/{part}");
        let permuted = |b: &mut Self, path: &str, x: &str, order: &[i64]| {
            b.op_with(path, "Transpose", &[x], &[("perm", OnnxAttribute::Ints(order.to_vec()))])
        };
        // Queries by group: [batch, kv_heads, heads / kv_heads, sequence, head_dim].
        let q = self.op(&at("queries"), "Reshape", &[q, "split_queries"]);
        let q = permuted(self, &at("queries"), &q, &[0, 2, 3, 1, 4]);
        let q = self.rotate(&at("queries"), &q, shared);
        let k = self.op(&at("keys"), "Reshape", &[k, "split_keys"]);
        let k = permuted(self, &at("keys"), &k, &[0, 2, 1, 3]);
        let k = self.rotate(&at("keys"), &k, shared);
        let v = self.op(&at("values"), "Reshape", &[v, "split_keys"]);
        let v = permuted(self, &at("values"), &v, &[0, 2, 1, 3]);
        let [k, v] = [("key", k), ("value", v)].map(|(part, new)| {
            let past = format!("past_key_values.{layer}.{part}");
            self.op_with(&at(part), "Concat", &[&past, &new], &[("axis", int(2))]);
            let present = format!("present.{layer}.{part}");
            self.rename_last(&present);
            self.op(&at(part), "Unsqueeze", &[&present, "third_axis"])
        });
        let k = permuted(self, &at("key"), &k, &[0, 1, 2, 4, 3]);
        let scores = self.op(&at("scores"), "MatMul", &[&q, &k]);
        let scores = self.op(&at("scores"), "Mul", &[&scores, "head_scale"]);
        let scores = self.op(&at("scores"), "Where", &[&shared.visible, &scores, "hidden"]);
        let shares = self.op_with(&at("scores"), "Softmax", &[&scores], &[("axis", int(-1))]);
        let o = self.op(&at("weighted"), "MatMul", &[&shares, &v]);
        let o = permuted(self, &at("weighted"), &o, &[0, 3, 1, 2, 4]);
        self.op(&at("weighted"), "Reshape", &[&o, "join_heads"])
    }

    /// Rotary positions in half-split pairing.
    fn rotate(&mut self, path: &str, x: &str, shared: &Shared) -> String {
        let path = &format!("{path}/rotate");
        let (low, high) = (format!("{path}/low"), format!("{path}/high"));
        let mut split = OnnxNode::new("Split", &[x, "halves"], &[&low, &high]).with("axis", int(-1));
        split.name = format!("{path}/Split");
        self.nodes.push(split);
        let negative = self.op(path, "Neg", &[&high]);
        let turned = self.op_with(path, "Concat", &[&negative, &low], &[("axis", int(-1))]);
        let with_cos = self.op(&format!("{path}/cos"), "Mul", &[x, &shared.cos]);
        let with_sin = self.op(&format!("{path}/sin"), "Mul", &[&turned, &shared.sin]);
        self.op(path, "Add", &[&with_cos, &with_sin])
    }

    fn activation(&mut self, path: &str, x: &str) -> String {
        match self.spec.activation {
            Activation::Relu2 => {
                let positive = self.op(path, "Relu", &[x]);
                self.op(path, "Mul", &[&positive, &positive])
            }
            // Models with GELU are refused before.
            Activation::Silu | Activation::Gelu => {
                let gate = self.op(path, "Sigmoid", &[x]);
                self.op(path, "Mul", &[x, &gate])
            }
        }
    }

    /// The final norm and the output layer.
    fn logits(&mut self, weights: &'a Weights, x: &str) {
        let final_norm = self.naming.final_norm.clone();
        let h = self.norm("/model/norm", &final_norm, x, &weights.final_norm);
        let name = match &weights.output {
            None => self.naming.embedding.clone(),
            Some(table) => {
                self.items.push(Item::table(self.naming.output, table, self.tables));
                self.naming.output.to_owned()
            }
        };
        let table = self.cast_to_float("/lm_head", name, weights.output_layer());
        let columns =
            self.op_with("/lm_head", "Transpose", &[&table], &[("perm", OnnxAttribute::Ints(vec![1, 0]))]);
        self.op("/lm_head", "MatMul", &[&h, &columns]);
        self.rename_last("logits");
    }

    /// Values of a table's rows as f32.
    fn cast_to_float(&mut self, path: &str, value: String, table: &DenseTensor) -> String {
        if self.tables.unwrap_or(table.plain_type()) == DType::F32 {
            return value;
        }
        self.op_with(path, "Cast", &[&value], &[("to", int(FLOAT))])
    }
}
