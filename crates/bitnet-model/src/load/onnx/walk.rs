//! Roles of products by the shape of the graph, for models whose names are lost.
//!
//! The *front* of a value is the set of products that it depends on without another product in between, less those that
//! others of the set depend on themselves (residual streams and activation scales reach back further). In a decoder the
//! fronts form a chain: nothing ← q, k, v ← o ← gate, up ← down ← q, k, v ... ← output layer. Query and key meet in the
//! first product of two of the three, in this order; the gate is the one that an activation function follows.

use std::collections::{HashMap, HashSet};

use bitnet_formats::{OnnxNode, StoredTensor};

use super::graph::Graph;
use super::linear::Linear;
use super::roles::Roles;
use crate::ModelSpec;
use crate::load::error::{LoadError, Result};

/// Largest front that a decoder has (three), with room for odd graphs.
const MAX_FRONT: usize = 16;
/// More products than any model has; bounds the table of dependencies.
const MAX_LINEARS: usize = 8192;
/// Largest part of a graph between two products.
const MAX_REGION: usize = 5_000;

/// Operators that attend as a whole, with query, key and value as their first inputs.
const ATTENTION: [&str; 3] = ["Attention", "MultiHeadAttention", "GroupQueryAttention"];
/// Operators that only a gate goes through.
const ACTIVATIONS: [&str; 9] =
    ["Sigmoid", "Relu", "Silu", "Swish", "QuickGelu", "Gelu", "Tanh", "Erf", "HardSwish"];

/// Fronts of all nodes.
pub(super) struct Fronts<'g, 'a> {
    graph: &'g Graph<'a>,
    linears: &'g [Linear<'a>],
    /// For each node, the front of its outputs: numbers of products, ascending.
    of_node: Vec<Vec<usize>>,
    /// For each product, those it depends on, as bits.
    before: Vec<Vec<u64>>,
    /// Nodes that are products.
    products: HashSet<usize>,
}

impl<'g, 'a> Fronts<'g, 'a> {
    pub(super) fn new(graph: &'g Graph<'a>, linears: &'g [Linear<'a>]) -> Result<Self> {
        if linears.len() > MAX_LINEARS {
            let what = format!("a graph of {} products with weights", linears.len());
            return Err(graph.unsupported(what, "decoders of up to 1024 layers are"));
        }
        let number_of: HashMap<usize, usize> = linears.iter().enumerate().map(|(n, l)| (l.node, n)).collect();
        let count = graph.file.nodes.len();
        let words = linears.len().div_ceil(64);
        let mut fronts = Self {
            graph,
            linears,
            of_node: Vec::with_capacity(count),
            before: vec![vec![0; words]; linears.len()],
            products: number_of.keys().copied().collect(),
        };
        for index in 0..count {
            let front = match number_of.get(&index) {
                Some(&number) => {
                    let front = fronts.of_value(linears[number].activation);
                    for &earlier in &front {
                        for word in 0..words {
                            fronts.before[number][word] |= fronts.before[earlier][word];
                        }
                        fronts.before[number][earlier / 64] |= 1 << (earlier % 64);
                    }
                    vec![number]
                }
                None => fronts.joined(graph.node(index))?,
            };
            fronts.of_node.push(front);
        }
        Ok(fronts)
    }

    /// The front of a value; nothing for constants and inputs.
    fn of_value(&self, name: &str) -> Vec<usize> {
        let producer = self.graph.producer(name);
        producer.and_then(|index| self.of_node.get(index)).cloned().unwrap_or_default()
    }

    fn joined(&self, node: &OnnxNode) -> Result<Vec<usize>> {
        let mut all: Vec<usize> = Vec::new();
        for input in &node.inputs {
            if let Some(index) = self.graph.producer(input)
                && let Some(front) = self.of_node.get(index)
            {
                all.extend(front);
                all.sort_unstable();
                all.dedup();
                if all.len() > 2 * MAX_FRONT {
                    let what = format!("{}, which depends on many products at once", node.describe());
                    return Err(self
                        .graph
                        .unsupported(what, "decoders of attention and feed-forward layers are"));
                }
            }
        }
        let is_before = |x: usize, y: usize| self.before[y][x / 64] >> (x % 64) & 1 == 1;
        Ok(all.iter().copied().filter(|&x| !all.iter().any(|&y| is_before(x, y))).collect())
    }

    /// Finds the projections of all layers.
    ///
    /// # Errors
    /// Names the first layer that has another structure.
    pub(super) fn roles(&self, spec: &ModelSpec) -> Result<Roles> {
        let mut groups: HashMap<Vec<usize>, Vec<usize>> = HashMap::new();
        for (number, linear) in self.linears.iter().enumerate() {
            groups.entry(self.of_value(linear.activation)).or_default().push(number);
        }
        let group = |front: &[usize]| groups.get(front).cloned().unwrap_or_default();
        let mut roles = Roles::default();
        let mut front: Vec<usize> = Vec::new();
        for layer in 0..spec.num_layers {
            let wrong = |what: &str, found: &[usize]| self.wrong(layer, what, found);
            let three: [usize; 3] = group(&front)
                .try_into()
                .map_err(|found: Vec<usize>| wrong("query, key and value", &found))?;
            let [o]: [usize; 1] = group(&three)
                .try_into()
                .map_err(|found: Vec<usize>| wrong("the attention output", &found))?;
            let two: [usize; 2] =
                group(&[o]).try_into().map_err(|found: Vec<usize>| wrong("gate and up", &found))?;
            let [down]: [usize; 1] =
                group(&two).try_into().map_err(|found: Vec<usize>| wrong("down", &found))?;
            let [q, k, v] =
                self.query_key_value(three).ok_or_else(|| wrong("query, key and value", &three))?;
            let [gate, up] = self.gate_up(two).ok_or_else(|| wrong("gate and up", &two))?;
            for (projection, number) in [q, k, v, o, gate, up, down].into_iter().enumerate() {
                roles.put(layer, projection, number);
            }
            front = vec![down];
        }
        if let &[output] = group(&front).as_slice() {
            roles.output = Some(output);
        }
        Ok(roles)
    }

    fn wrong(&self, layer: usize, what: &str, found: &[usize]) -> LoadError {
        let names: Vec<String> = found
            .iter()
            .take(4)
            .map(|&number| self.graph.node(self.linears[number].node).describe())
            .collect();
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let what = format!("layer {layer} of the graph: {names} in the place of {what}");
        self.graph.unsupported(what, "decoders with separate q, k, v, o, gate, up and down projections are")
    }

    /// Tells apart the three products that attention reads.
    fn query_key_value(&self, three: [usize; 3]) -> Option<[usize; 3]> {
        let within = |front: &[usize]| !front.is_empty() && front.iter().all(|number| three.contains(number));
        for (index, node) in self.graph.file.nodes.iter().enumerate() {
            if !within(&self.of_node[index]) {
                continue;
            }
            let fronts: Vec<Vec<usize>> =
                node.inputs.iter().take(3).map(|name| self.of_value(name)).collect();
            match (node.op_type.as_str(), fronts.as_slice()) {
                (op, [q, k, v]) if ATTENTION.contains(&op) && [q, k, v].iter().all(|f| f.len() == 1) => {
                    return Some([q[0], k[0], v[0]]);
                }
                ("MatMul" | "FusedMatMul" | "Einsum", [q, k])
                    if q.len() == 1 && k.len() == 1 && q != k && within(q) && within(k) =>
                {
                    let v = three.into_iter().find(|&number| number != q[0] && number != k[0])?;
                    return Some([q[0], k[0], v]);
                }
                _ => {}
            }
        }
        None
    }

    /// Tells the gate from the other product that it multiplies.
    fn gate_up(&self, two: [usize; 2]) -> Option<[usize; 2]> {
        for node in &self.graph.file.nodes {
            let ("Mul", [a, b]) = (node.op_type.as_str(), node.inputs.as_slice()) else { continue };
            let (front_a, front_b) = (self.of_value(a), self.of_value(b));
            let (&[x], &[y]) = (front_a.as_slice(), front_b.as_slice()) else { continue };
            if x == y || !two.contains(&x) || !two.contains(&y) {
                continue;
            }
            return match (self.is_activated(a), self.is_activated(b)) {
                (true, false) => Some([x, y]),
                (false, true) => Some([y, x]),
                _ => None,
            };
        }
        None
    }

    /// Whether an activation function stands between a value and the product before it.
    fn is_activated(&self, name: &str) -> bool {
        let mut found = false;
        self.region(name, &mut |node| found |= ACTIVATIONS.contains(&node.op_type.as_str()));
        found
    }

    /// Visits the nodes that a value is computed by, as far back as they have the same front: back to products, inputs and
    /// constants, and not into the scales of activations of earlier rows.
    fn region(&self, name: &str, visit: &mut dyn FnMut(&'a OnnxNode)) {
        let front = self.of_value(name);
        let mut seen = HashSet::new();
        let mut todo: Vec<usize> = self.graph.producer(name).into_iter().collect();
        while let Some(index) = todo.pop() {
            if self.products.contains(&index)
                || self.of_node[index] != front
                || seen.len() >= MAX_REGION
                || !seen.insert(index)
            {
                continue;
            }
            let node = self.graph.node(index);
            visit(node);
            todo.extend(node.inputs.iter().filter_map(|input| self.graph.producer(input)));
        }
    }

    /// The weight of the RMS norm in front of a product of `len` columns, if there is one.
    ///
    /// # Errors
    /// If there are several, or the norm is of another kind.
    pub(super) fn norm(&self, number: usize, len: u64) -> Result<Option<&'a StoredTensor>> {
        let mut found: Vec<&'a StoredTensor> = Vec::new();
        let mut layer_norm = None;
        self.region(self.linears[number].activation, &mut |node| {
            let operands: &[usize] = match node.op_type.as_str() {
                "Mul" => &[0, 1],
                "SimplifiedLayerNormalization" | "RMSNormalization" => &[1],
                "SkipSimplifiedLayerNormalization" => &[2],
                "LayerNormalization" | "SkipLayerNormalization" => {
                    layer_norm = Some(node.describe());
                    return;
                }
                _ => return,
            };
            for &operand in operands {
                let Some(tensor) = node.input(operand).and_then(|name| self.graph.plain_tensor(name)) else {
                    continue;
                };
                let is_vector = tensor.shape.last() == Some(&len) && tensor.elements() == Some(len);
                if is_vector && !found.iter().any(|known| std::ptr::eq(*known, tensor)) {
                    found.push(tensor);
                }
            }
        });
        let only = "one RMS norm in front of a projection is";
        if let Some(what) = layer_norm {
            return Err(self.graph.unsupported(what, only));
        }
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            [a, b, ..] => {
                let node = self.graph.node(self.linears[number].node).describe();
                let what = format!("{node} behind the vectors {:?} and {:?}", a.name, b.name);
                Err(self.graph.unsupported(what, only))
            }
        }
    }
}
