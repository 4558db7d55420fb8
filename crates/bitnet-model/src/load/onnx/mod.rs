//! ONNX models: graphs whose products are recognised as the projections of a decoder.
//!
//! Names go first, because exporters keep those of modules; where they are lost, roles follow from the graph. Weights are
//! taken as they lie in the file, in rows or columns, as floats or integers, behind transpositions, casts and
//! dequantisations. The graph is not computed: the configuration tells the architecture (`config.json` beside the model
//! or one folder up, or the copy that this engine writes into the file), and what a decoder of [`ModelSpec`] does not have
//! is refused by the name of its node.

mod constant;
mod graph;
mod linear;
mod names;
mod operators;
mod roles;
mod walk;
mod weights;

use bitnet_core::CoreError;
use bitnet_core::bytes::ByteView;
use bitnet_formats::{OnnxFile, StoredTensor, TensorSet, read_onnx};
use bitnet_quant::{Element, RowOrder, TritCodec};

use super::assemble::{Slot, assemble};
use super::config::HfConfig;
use super::error::{LoadError, Result};
use super::folder::Folder;
use super::json::JsonFile;
use super::naming::Naming;
use super::projection::{MasterRule, Projection};
use super::tensors::Tensors;
use super::{EmbeddingDefaults, GenerationDefaults, LoadOptions, LoadedModel, hugging, summaries, text};
use crate::export::onnx::CONFIG_KEY;
use crate::{LayerWeights, ModelSpec, Weights};
use graph::Graph;
use linear::Linears;
use roles::Roles;
use walk::Fronts;

const CONFIG: &str = "config.json";

/// Loads the ONNX model `name` of a folder.
///
/// # Errors
/// If files are missing or malformed, or the model cannot be run.
pub(super) fn load(folder: &Folder<'_>, name: &str, options: &LoadOptions) -> Result<LoadedModel> {
    let origin = folder.origin(name);
    let view = folder.open(name)?.ok_or_else(|| missing(folder, name, "give the path of an .onnx file"))?;
    let (file, file_bytes) = read(folder, view, &origin)?;
    let (config, config_file) = configuration(folder, &file, &origin)?;
    let (spec, weights, mut warnings) = build(&file, &origin, &config, &config_file)?;
    let mut generation = match folder.open("generation_config.json")? {
        None => GenerationDefaults::default(),
        Some(view) => {
            let json = JsonFile::parse(view.as_slice(), &folder.origin("generation_config.json"))?;
            GenerationDefaults::read(&json.root())?
        }
    };
    generation.bos = generation.bos.or(config.bos);
    generation.stop_tokens.splice(0..0, config.eos.iter().copied());
    let text = text::from_folder(folder, &config, false, options, &mut generation, &mut warnings)?;
    generation.finish(spec.vocab_size, text.tokenizer.as_deref(), &mut warnings);
    let is_name = |name: &&String| !name.trim().is_empty() && !name.chars().any(char::is_control);
    let own_name = file.metadata.get("bitnet.name").filter(is_name);
    let stem = name.strip_suffix(".onnx").unwrap_or(name);
    Ok(LoadedModel {
        name: own_name.map_or(stem, String::as_str).to_owned(),
        format: format!("ONNX (opset {}), {}", file.opset(), describe(&weights)),
        place: origin,
        spec,
        weights,
        tokenizer: text.tokenizer,
        tokenizer_note: text.note,
        chat_template: text.template,
        generation,
        warnings,
        tensors: summaries(&file.tensors),
        file_bytes,
        embedding: EmbeddingDefaults::default(),
    })
}

fn missing(folder: &Folder<'_>, file: &str, remedy: &'static str) -> LoadError {
    LoadError::MissingFile { place: folder.place(), file: file.to_owned(), remedy }
}

/// Reads the file and those that hold its data; also the bytes of all.
fn read(folder: &Folder<'_>, view: ByteView, origin: &str) -> Result<(OnnxFile, u64)> {
    let mut bytes = view.len() as u64;
    let mut absent = None;
    let file = read_onnx(view, origin, &mut |name| {
        let Some(data) = folder.open(name)? else {
            absent = Some(name.to_owned());
            let path = folder.origin(name).into();
            return Err(CoreError::Io { path, source: std::io::ErrorKind::NotFound.into() }.into());
        };
        bytes += data.len() as u64;
        Ok(data)
    });
    match (file, absent) {
        (_, Some(name)) => Err(missing(folder, &name, "it holds tensors of the model; fetch all its files")),
        (file, None) => Ok((file?, bytes)),
    }
}

/// The configuration: that in the file belongs to it for sure; else the one beside it, or above a folder `onnx`.
fn configuration(folder: &Folder<'_>, file: &OnnxFile, origin: &str) -> Result<(HfConfig, String)> {
    if let Some(text) = file.metadata.get(CONFIG_KEY) {
        let name = format!("{origin}: metadata {CONFIG_KEY}");
        let json = JsonFile::parse(text.as_bytes(), &name)?;
        return Ok((HfConfig::read(&json.root())?, name));
    }
    for place in [CONFIG, "../config.json"] {
        // Above the folder only by the layout that exporters have, and only on disk.
        let is_above = place != CONFIG;
        if is_above && !matches!(folder, Folder::Disk(path) if path.ends_with("onnx")) {
            continue;
        }
        if let Some(view) = folder.open(place)? {
            let name = folder.origin(place);
            let json = JsonFile::parse(view.as_slice(), &name)?;
            return Ok((HfConfig::read(&json.root())?, name));
        }
    }
    let remedy = "an ONNX graph does not tell the architecture; put the model's config.json beside it";
    Err(missing(folder, CONFIG, remedy))
}

/// Puts the model together.
fn build(
    file: &OnnxFile,
    origin: &str,
    config: &HfConfig,
    config_file: &str,
) -> Result<(ModelSpec, Weights, Vec<String>)> {
    let graph = Graph::new(file, origin);
    operators::check(&graph, &config.spec)?;
    let linears = linear::find(&graph)?;
    let mut naming = Naming::hugging_face("model.");
    let model = Model { graph: &graph, linears: &linears, spec: &config.spec };
    let found = model.roles(&naming)?;
    if file.tensors.iter().any(|t| names::is_part(&t.name, 0, "inner_attn_ln")) {
        naming = Naming::first_bitnet("model.");
    }
    let mut set = TensorSet::new();
    model.tables(&found, &naming, config.tied, &mut set)?;
    model.norms(&found, &naming, &mut set)?;
    model.others(&mut set)?;
    let tensors = Tensors::new(&set, origin);
    let mut spec = config.spec.clone();
    spec.sub_norms = tensors.has_sub_norms(&naming);
    spec.tied_output = !tensors.contains(naming.output);
    let mut warnings = Vec::new();
    if spec.tied_output && config.tied == Some(false) {
        warnings.push(format!(
            "{config_file}: tie_word_embeddings is false, but the output layer is the embedding; it is taken so"
        ));
    }
    let rule = if config.says_bitnet { MasterRule::Quantise } else { MasterRule::TernaryOnly };
    let read = |slot: &Slot| model.projection(&found, &naming, slot, config, &tensors, config_file);
    let weights = assemble(&tensors, &spec, &naming, RowOrder::Natural, rule, &read)?;
    Ok((spec, weights, warnings))
}

/// What was found in a graph, for a configuration.
struct Model<'g, 'a> {
    graph: &'g Graph<'a>,
    linears: &'g Linears<'a>,
    spec: &'g ModelSpec,
}

/// Which product is what.
struct Found<'g, 'a> {
    roles: Roles,
    /// Needed to find norms where names are lost.
    fronts: Option<Fronts<'g, 'a>>,
}

impl<'a> Model<'_, 'a> {
    /// Roles by name, else by the graph.
    fn roles(&self, naming: &Naming) -> Result<Found<'_, 'a>> {
        let linears = &self.linears.found;
        let (mut roles, fronts) = match Roles::by_names(self.graph, linears, naming, self.spec) {
            Some(roles) if self.has_named_norms(naming) => (roles, None),
            // Norms that were cast before they were stored lose their names.
            Some(roles) => (roles, Some(Fronts::new(self.graph, linears)?)),
            None if self.has_checkpoint_names(naming) => (Roles::default(), None),
            None => {
                if let Some(what) = self.linears.obscured.first() {
                    let remedy = "weights behind transpositions, casts and dequantisations are";
                    return Err(self.graph.unsupported(what.clone(), remedy));
                }
                let fronts = Fronts::new(self.graph, linears)?;
                (fronts.roles(self.spec)?, Some(fronts))
            }
        };
        for (number, linear) in linears.iter().enumerate() {
            if roles.has(number) {
                continue;
            }
            let is_output =
                [linear.rows, linear.cols] == [self.spec.vocab_size as u64, self.spec.hidden_size as u64];
            if !is_output || roles.output.is_some() {
                let what = format!("{} with weights", self.graph.node(linear.node).describe());
                return Err(self
                    .graph
                    .unsupported(what, "seven projections a layer and one output layer are"));
            }
            roles.output = Some(number);
        }
        Ok(Found { roles, fronts })
    }

    /// Whether the norms of the first layer and the last one can be found by their names.
    fn has_named_norms(&self, naming: &Naming) -> bool {
        let first =
            self.vector(self.spec.hidden_size, &|name| names::is_part(name, 0, naming.parts.attn_norm));
        first.is_some() && self.final_norm().is_some()
    }

    fn final_norm(&self) -> Option<&'a StoredTensor> {
        let fits = |name: &str| names::is_global(name, "norm") || name.contains("final_norm");
        self.vector(self.spec.hidden_size, &fits)
    }

    /// Whether all projections are there under the names of a checkpoint, so that the graph need not be understood.
    fn has_checkpoint_names(&self, naming: &Naming) -> bool {
        let is_there = |layer, part: &&str| self.graph.tensor(&naming.weight(layer, part)).is_some();
        (0..self.spec.num_layers)
            .all(|layer| naming.parts.projections.iter().all(|part| is_there(layer, part)))
    }

    /// Puts embedding and output layer into `set`.
    fn tables(
        &self,
        found: &Found<'_, 'a>,
        naming: &Naming,
        tied: Option<bool>,
        set: &mut TensorSet,
    ) -> Result<()> {
        let embedding = self.embedding()?;
        let output = found.roles.output.and_then(|number| self.linears.found.get(number));
        match output {
            Some(linear) if tied != Some(false) && weights::is_same(linear, embedding) => {}
            Some(linear) if std::ptr::eq(linear.weight.tensor(), embedding) => {}
            Some(linear) => set.insert(renamed(&weights::table(self.graph, linear)?, naming.output))?,
            None => match self.graph.tensor(naming.output) {
                Some(tensor) => set.insert(tensor.clone())?,
                None if tied == Some(true) => {}
                None => {
                    return Err(LoadError::MissingTensor {
                        file: self.graph.origin.to_owned(),
                        tensor: naming.output.to_owned(),
                        remedy: "the graph ends without an output layer; export the model for text generation",
                    });
                }
            },
        }
        Ok(set.insert(renamed(embedding, &naming.embedding))?)
    }

    /// The table that the first `Gather` of the right shape reads.
    fn embedding(&self) -> Result<&'a StoredTensor> {
        let shape = [self.spec.vocab_size as u64, self.spec.hidden_size as u64];
        let named =
            || self.graph.file.tensors.iter().find(|tensor| names::is_global(&tensor.name, "embed_tokens"));
        for node in self.graph.file.nodes.iter().filter(|node| node.op_type == "Gather") {
            let table = node.input(0).and_then(|name| self.graph.plain_tensor(name));
            if let Some(table) = table.filter(|table| table.shape == shape) {
                return Ok(table);
            }
        }
        named().ok_or_else(|| LoadError::MissingTensor {
            file: self.graph.origin.to_owned(),
            tensor: format!("embedding of shape {shape:?} that a Gather reads"),
            remedy: "config.json and graph do not belong together, or the embedding is quantised",
        })
    }

    /// Puts the norms into `set`.
    fn norms(&self, found: &Found<'_, 'a>, naming: &Naming, set: &mut TensorSet) -> Result<()> {
        let (spec, parts) = (self.spec, &naming.parts);
        for layer in 0..spec.num_layers {
            for (part, readers, len) in [
                (parts.attn_norm, &[0, 1, 2][..], spec.hidden_size),
                (parts.attn_sub_norm, &[3], spec.q_size()),
                (parts.ffn_norm, &[4, 5], spec.hidden_size),
                (parts.ffn_sub_norm, &[6], spec.intermediate_size),
            ] {
                let tensor = match &found.fronts {
                    None => self.vector(len, &|name| names::is_part(name, layer, part)),
                    Some(fronts) => {
                        let readers: Vec<usize> = readers
                            .iter()
                            .filter_map(|&projection| found.roles.get(layer, projection))
                            .collect();
                        self.common_norm(fronts, &readers, len)?
                    }
                };
                if let Some(tensor) = tensor {
                    set.insert(renamed(tensor, &naming.weight(layer, part)))?;
                }
            }
        }
        let len = spec.hidden_size;
        let last = match (&found.fronts, found.roles.output) {
            (Some(fronts), Some(output)) => fronts.norm(output, len as u64)?,
            _ => self.final_norm(),
        };
        last.map_or(Ok(()), |tensor| Ok(set.insert(renamed(tensor, &naming.final_norm))?))
    }

    /// The vector of a length whose name fits.
    fn vector(&self, len: usize, fits: &dyn Fn(&str) -> bool) -> Option<&'a StoredTensor> {
        let is_norm = |tensor: &&StoredTensor| {
            tensor.elements() == Some(len as u64) && tensor.stored.dense().is_some() && fits(&tensor.name)
        };
        self.graph.file.tensors.iter().find(is_norm)
    }

    /// The norm that all readers of a row share.
    fn common_norm(
        &self,
        fronts: &Fronts<'_, 'a>,
        readers: &[usize],
        len: usize,
    ) -> Result<Option<&'a StoredTensor>> {
        let mut common = None;
        for &reader in readers {
            let norm = fronts.norm(reader, len as u64)?;
            match (common, norm) {
                (None, norm) => common = Some(norm),
                (Some(Some(a)), Some(b)) if std::ptr::eq::<StoredTensor>(a, b) => {}
                (Some(None), None) => {}
                (Some(_), _) => {
                    let node = self.graph.node(self.linears.found[reader].node).describe();
                    let what = format!("{node} behind a norm of its own");
                    return Err(self
                        .graph
                        .unsupported(what, "one norm for all projections that read a row is"));
                }
            }
        }
        Ok(common.flatten())
    }

    /// Adds parameters of layers that nothing stands for, so that they are refused by name: biases, other norms.
    fn others(&self, set: &mut TensorSet) -> Result<()> {
        let products: Vec<&str> =
            self.linears.found.iter().map(|linear| linear.weight.tensor().name.as_str()).collect();
        for tensor in &self.graph.file.tensors {
            let Some(name) = names::in_checkpoint(&tensor.name) else { continue };
            // The scale of a weight that a product of the graph reads was found in the graph.
            let weight = name.strip_suffix("_scale");
            if weight.is_some_and(|weight| products.iter().any(|product| product.ends_with(weight))) {
                continue;
            }
            // A bias of zeros changes nothing; one that is added elsewhere was refused with its node.
            let is_nothing = name.ends_with(".bias") && self.graph.is_zero(&tensor.name);
            if !is_nothing && set.get(name).is_none() && !products.contains(&tensor.name.as_str()) {
                set.insert(renamed(tensor, name))?;
            }
        }
        Ok(())
    }

    /// The projection of a slot: a product of the graph, or a tensor under the name of a checkpoint.
    fn projection(
        &self,
        found: &Found<'_, 'a>,
        naming: &Naming,
        slot: &Slot,
        config: &HfConfig,
        tensors: &Tensors<'_>,
        config_file: &str,
    ) -> Result<Projection> {
        let place = names::projection(naming, &slot.name);
        let number = place.and_then(|(layer, projection)| found.roles.get(layer, projection));
        match (number.and_then(|number| self.linears.found.get(number)), place) {
            (Some(linear), Some((_, projection))) => {
                let rotary = (projection < 2).then_some(self.spec.head_dim);
                weights::projection(self.graph, slot, linear, rotary)
            }
            _ => hugging::projection(tensors, config.scale_rule, config_file, slot),
        }
    }
}

/// The same tensor under the name of a checkpoint.
fn renamed(tensor: &StoredTensor, name: &str) -> StoredTensor {
    let mut tensor = tensor.clone();
    name.clone_into(&mut tensor.name);
    // A norm may be stored with leading dimensions of one.
    if tensor.shape.len() > 1 && tensor.shape[..tensor.shape.len() - 1].iter().all(|&dim| dim == 1) {
        tensor.shape.drain(..tensor.shape.len() - 1);
    }
    tensor
}

/// How the projections are stored, for people.
fn describe(weights: &Weights) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for (_, matrix) in weights.layers.iter().flat_map(LayerWeights::projections) {
        let kind = match matrix.codec() {
            TritCodec::Dense { dtype, .. } => format!("{dtype} weights"),
            TritCodec::Elements(elements) => match elements.element {
                Element::Master { dtype, .. } => format!("{dtype} weights"),
                Element::Int { bits, .. } => format!("{bits}-bit weights"),
            },
            codec => codec.name().to_owned(),
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds.join(" and ")
}
