//! `bitnet inspect`: what is in a model.
//!
//! This module tells what the files say, `layers` what is in the layers, `page` draws that.

mod layers;
mod page;

use std::process::ExitCode;

use bitnet_core::MemorySize;
use bitnet_model::load::{LoadedModel, TensorSummary, load};
use bitnet_model::{Extras, LayerWeights, RopeScaling};
use bitnet_text::ChatTemplate;
use serde_json::{Value, json};

use self::layers::Layers;
use crate::args::InspectArgs;
use crate::error::CliError;
use crate::model;
use crate::output::{self, Notes, Table, count};

pub(super) fn run(args: &InspectArgs, notes: Notes) -> Result<ExitCode, CliError> {
    let options = model::load_options(&args.format)?;
    let name = args.model_flag.as_deref().or(args.model.as_deref());
    let model = load(&model::source(name, &args.format.hub, notes)?, &options)?;
    if let Some(path) = &args.html {
        output::check_writable(path)?;
    }
    let facts = Facts::of(&model);
    let wanted = args.layers || args.html.is_some() || args.sample.is_given();
    let layers = wanted.then(|| Layers::of(&model, &args.sample, notes)).transpose()?;
    if let (Some(path), Some(layers)) = (&args.html, &layers) {
        output::write_file(path, page::page(&model, &facts, layers).as_bytes())?;
    }
    if args.json {
        let mut out = as_json(&model, &facts, args.tensors);
        for (key, value) in layers.iter().flat_map(Layers::json) {
            out[key] = value;
        }
        output::json(&out)?;
    } else {
        match (&args.html, &layers) {
            (Some(path), _) => output::result(&format!("{}\n", path.display()))?,
            (None, Some(layers)) => output::result(&layers.text())?,
            (None, None) => output::result(&as_text(&model, &facts, args.tensors))?,
        }
        for warning in &model.warnings {
            notes.warn(warning);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Figures that follow from a model.
struct Facts {
    /// Bytes of the ternary weights as they are stored.
    ternary_bytes: u64,
    /// Type of storage, number of tensors, bytes; in the order of appearance.
    types: Vec<(String, usize, u64)>,
}

impl Facts {
    fn of(model: &LoadedModel) -> Self {
        let projections = model.weights.layers.iter().flat_map(LayerWeights::projections);
        let ternary_bytes = projections.map(|(_, matrix)| matrix.data().len() as u64).sum();
        let mut types: Vec<(String, usize, u64)> = Vec::new();
        for tensor in &model.tensors {
            match types.iter_mut().find(|(name, ..)| *name == tensor.stored) {
                Some((_, tensors, bytes)) => (*tensors, *bytes) = (*tensors + 1, *bytes + tensor.bytes),
                None => types.push((tensor.stored.clone(), 1, tensor.bytes)),
            }
        }
        Self { ternary_bytes, types }
    }
}

fn bits(bytes: u64, parameters: u64) -> f64 {
    bytes as f64 * 8.0 / parameters.max(1) as f64
}

fn share(model: &LoadedModel) -> f64 {
    model.spec.ternary_parameters() as f64 / model.spec.parameters().max(1) as f64
}

fn as_text(model: &LoadedModel, facts: &Facts, tensors: bool) -> String {
    let (spec, mut table) = (&model.spec, Table::default());
    let yes = |b: bool| if b { "yes" } else { "no" };
    table.row([&"name", &model.name]);
    table.row([&"format", &model.format]);
    table.row([&"architecture", &spec.architecture]);
    table.row([&"layers", &spec.num_layers]);
    table.row([&"hidden size", &spec.hidden_size]);
    table.row([&"feed-forward size", &format!("{}, {}", spec.intermediate_size, spec.activation)]);
    let heads = format!("{} of {}, {} for keys and values", spec.num_heads, spec.head_dim, spec.num_kv_heads);
    table.row([&"heads", &heads]);
    table.row([&"sub-norms", &yes(spec.sub_norms)]);
    for (name, value) in extras(&spec.extras) {
        table.row([&name, &value]);
    }
    table.row([&"tied output", &yes(spec.tied_output)]);
    table.row([&"norm epsilon", &spec.rms_norm_eps]);
    table.row([&"rotary base", &spec.rope_theta]);
    table.row([&"vocabulary", &count(spec.vocab_size as u64)]);
    table.row([&"context", &format!("{} tokens", count(spec.context_length as u64))]);
    let (all, ternary) = (spec.parameters(), spec.ternary_parameters());
    table.row([&"parameters", &format!("{} ({:.1} % ternary)", count(all), 100.0 * share(model))]);
    table.row([
        &"ternary weights",
        &format!("{}, {:.2} bits each", count(ternary), bits(facts.ternary_bytes, ternary)),
    ]);
    let size = MemorySize::bytes(model.file_bytes);
    table.row([&"weight files", &format!("{size}, {:.2} bits a parameter", bits(model.file_bytes, all))]);
    for (name, tensors, bytes) in &facts.types {
        table.row([&"", &format!("{tensors} tensors {name}, {}", MemorySize::bytes(*bytes))]);
    }
    text_rows(model, &mut table);
    let mut out = table.to_string();
    if tensors {
        let mut list = Table::default();
        let one_file = model.tensors.iter().all(|tensor| tensor.file == model.tensors[0].file);
        for tensor in &model.tensors {
            let offset = tensor.offset.map_or_else(|| "-".to_owned(), |at| format!("at {at}"));
            let file = if one_file { "" } else { file_name(&tensor.file) };
            let (shape, size) = (format!("{:?}", tensor.shape), MemorySize::bytes(tensor.bytes));
            list.row([&tensor.name, &tensor.stored, &shape, &size, &offset, &file]);
        }
        out += &format!("\n{list}");
    }
    out
}

/// The last part of a path.
fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// What the architecture has beside the plain shape, in words.
fn extras(extras: &Extras) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    let norms: Vec<&str> = [
        (extras.head_norms, "of query and key heads"),
        (extras.projection_norms, "before every projection"),
        (extras.post_norms, "behind attention and feed-forward part"),
    ]
    .iter()
    .filter_map(|(there, what)| there.then_some(*what))
    .collect();
    if !norms.is_empty() {
        rows.push(("more norms", norms.join(", ")));
    }
    if extras.scaled_embedding {
        rows.push(("embedding", "times the square root of the hidden size".to_owned()));
    }
    if let Some(scalar) = extras.query_pre_attn_scalar {
        rows.push(("query scalar", scalar.to_string()));
    }
    match &extras.rope_scaling {
        RopeScaling::None => {}
        RopeScaling::Linear(factor) => rows.push(("rotary scaling", format!("linear, factor {factor}"))),
        RopeScaling::Llama3 { factor, original_context, .. } => {
            rows.push(("rotary scaling", format!("llama3, factor {factor} over {original_context} tokens")));
        }
        RopeScaling::Factors(factors) => {
            rows.push(("rotary scaling", format!("{} factors", factors.len())));
        }
    }
    if let Some(sliding) = &extras.sliding {
        let layers = sliding.layers.iter().filter(|sliding| **sliding).count();
        let window =
            format!("{} tokens in {layers} layers, rotary base {}", sliding.window, sliding.rope_theta);
        rows.push(("sliding window", window));
    }
    rows
}

/// What concerns text: tokenizer, template, stop tokens, sampling defaults.
fn text_rows(model: &LoadedModel, table: &mut Table) {
    let tokenizer = match (&model.tokenizer, &model.tokenizer_note) {
        (Some(tokenizer), _) => {
            format!("{}, {} tokens", tokenizer.kind(), count(tokenizer.vocab_size() as u64))
        }
        (None, Some(note)) => format!("none: {note}"),
        (None, None) => "none".to_owned(),
    };
    table.row([&"tokenizer", &tokenizer]);
    let template = if model.chat_template.is_some() { "yes" } else { "none" };
    table.row([&"chat template", &template]);
    if let Some(pooling) = model.embedding.pooling {
        table.row([&"pooling", &pooling]);
    }
    let g = &model.generation;
    let token = |id: u32| match model.tokenizer.as_ref().and_then(|t| t.token_str(id)) {
        Some(text) => format!("{id} {text}"),
        None => id.to_string(),
    };
    table.row([&"first token", &g.bos.map_or_else(|| "none".to_owned(), token)]);
    let stop: Vec<String> = g.stop_tokens.iter().map(|&id| token(id)).collect();
    table.row([&"stop tokens", &if stop.is_empty() { "none".to_owned() } else { stop.join(", ") }]);
    let own = sampling(model);
    let defaults: Vec<String> = own.iter().map(|(name, value)| format!("{name} {value}")).collect();
    table.row([&"sampling defaults", &if own.is_empty() { "none".to_owned() } else { defaults.join(", ") }]);
}

/// The sampling defaults that the model sets.
fn sampling(model: &LoadedModel) -> serde_json::Map<String, Value> {
    let g = &model.generation;
    // A float as its shortest decimal, not as the nearest double of its nearest single.
    let number = |v: Option<f32>| v.and_then(|v| v.to_string().parse::<f64>().ok()).map(Value::from);
    let all = [
        ("do_sample", g.do_sample.map(Value::from)),
        ("temperature", number(g.temperature)),
        ("top_k", g.top_k.map(Value::from)),
        ("top_p", number(g.top_p)),
        ("min_p", number(g.min_p)),
        ("repetition_penalty", number(g.repetition_penalty)),
        ("max_new_tokens", g.max_new_tokens.map(Value::from)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn as_json(model: &LoadedModel, facts: &Facts, tensors: bool) -> Value {
    let spec = &model.spec;
    let types =
        facts.types.iter().map(|(name, n, bytes)| json!({"type": name, "tensors": n, "bytes": bytes}));
    let mut out = json!({
        "name": model.name,
        "format": model.format,
        "architecture": {
            "name": spec.architecture,
            "vocab_size": spec.vocab_size,
            "hidden_size": spec.hidden_size,
            "intermediate_size": spec.intermediate_size,
            "num_layers": spec.num_layers,
            "num_heads": spec.num_heads,
            "num_kv_heads": spec.num_kv_heads,
            "head_dim": spec.head_dim,
            "activation": spec.activation.to_string(),
            "sub_norms": spec.sub_norms,
            "rms_norm_eps": spec.rms_norm_eps.to_string().parse::<f64>().ok(),
            "rope_theta": spec.rope_theta,
            "context_length": spec.context_length,
            "tied_output": spec.tied_output,
            "extras": extras(&spec.extras).into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect::<serde_json::Map<_, _>>(),
        },
        "parameters": spec.parameters(),
        "ternary_parameters": spec.ternary_parameters(),
        "ternary_share": share(model),
        "file_bytes": model.file_bytes,
        "bits_per_parameter": bits(model.file_bytes, spec.parameters()),
        "ternary_bytes": facts.ternary_bytes,
        "bits_per_ternary_weight": bits(facts.ternary_bytes, spec.ternary_parameters()),
        "types": types.collect::<Vec<_>>(),
        "tokenizer": model.tokenizer.as_ref().map(|t| json!({"kind": t.kind(), "vocab_size": t.vocab_size()})),
        "tokenizer_note": model.tokenizer_note,
        "chat_template": model.chat_template.as_ref().map(ChatTemplate::source),
        "bos_token": model.generation.bos,
        "stop_tokens": model.generation.stop_tokens,
        "end_token": model.tokenizer.as_ref().and_then(|t| t.end()),
        "pooling": model.embedding.pooling.map(bitnet_model::Pooling::name),
        "prompts": model.embedding.prompts.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "generation_defaults": sampling(model),
        "warnings": model.warnings,
    });
    if tensors {
        let tensor = |t: &TensorSummary| {
            json!({
                "name": t.name,
                "type": t.stored,
                "shape": t.shape,
                "bytes": t.bytes,
                "file": t.file,
                "offset": t.offset,
            })
        };
        out["tensors"] = model.tensors.iter().map(tensor).collect();
    }
    out
}
