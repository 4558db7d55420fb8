//! Every model in every form: the same trits, and the logits of the original or of its documented rounding.

use std::ops::ControlFlow;

use bitnet_convert::{ConvertError, ConvertOptions, OnnxWeights, TableType, Target, verify};
use bitnet_model::LoadOptions;
use bitnet_model::load::load;
use half::{bf16, f16};

use crate::support::{VECTORS, at, bundled, logits, open, rescaled, ternary, to, vector, with};

const WRITTEN: [Target; 6] = Target::ALL;

/// The scale that a form keeps.
fn kept(target: Target, scale: f32) -> f32 {
    match target {
        Target::SafetensorsPacked => bf16::from_f32(scale).to_f32(),
        Target::GgufTq1 | Target::GgufTq2 => f16::from_f32(scale).to_f32(),
        _ => scale,
    }
}

#[test]
fn vector_models_keep_trits_and_logits_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    for name in VECTORS {
        let original = open(&vector(name));
        for target in WRITTEN {
            let out = folder.path().join(format!("{name}-{target}"));
            let result = to(&at(&vector(name)), &out, target);
            let blocks = matches!(target, Target::GgufTq1 | Target::GgufTq2);
            if blocks && !original.spec.hidden_size.is_multiple_of(256) {
                let error = result.unwrap_err();
                assert!(matches!(error, ConvertError::Unsupported { .. }), "{name} {target}: {error}");
                assert!(error.to_string().contains("256"), "{error}");
                assert!(!out.exists());
                continue;
            }
            let report = result.unwrap();
            let converted = open(&out);
            let (trits, scales) = ternary(&original);
            let (found, after) = ternary(&converted);
            assert!(trits == found, "{name} {target}");
            let want: Vec<f32> = scales.iter().map(|&scale| kept(target, scale)).collect();
            let expected = logits(&original, &rescaled(&original.weights, &|scale| kept(target, scale)));
            let ours = logits(&converted, &converted.weights);
            if target == Target::SafetensorsBf16 {
                let close = |(a, b): (&f32, &f32)| (a / b - 1.0).abs() <= 2.5e-7;
                assert!(want.iter().zip(&after).all(close), "{name}: {want:?} {after:?}");
                if want != after {
                    continue;
                }
            }
            assert_eq!(want, after, "{name} {target}");
            assert_eq!(ours, expected, "{name} {target}: bits of the logits");
            assert_eq!(report.verification.lossless, want == scales, "{name} {target}");
            assert_eq!(report.verification.trits, original.spec.ternary_parameters());
        }
    }
}

#[test]
fn graphs_of_any_weights_come_back_as_i2_s_with_the_same_logits() {
    let folder = tempfile::tempdir().unwrap();
    let at_name = |name: &str| folder.path().join(name);
    let models = VECTORS.map(|name| (name, at(&vector(name))));
    for (name, source) in models.into_iter().chain([("bundled", bundled())]) {
        let original = load(&source, &LoadOptions::default()).unwrap();
        let expected = logits(&original, &original.weights);
        for onnx_weights in [OnnxWeights::Int8, OnnxWeights::Bits2] {
            let what = format!("{name} {onnx_weights:?}");
            let (graph, back) = (at_name(&format!("{what} graph")), at_name(&format!("{what}.gguf")));
            let options = ConvertOptions { onnx_weights, ..ConvertOptions::default() };
            let report = with(&source, &graph, Target::Onnx, &options).unwrap();
            assert!(report.verification.lossless, "{what}: {report:?}");
            let bits = if onnx_weights == OnnxWeights::Int8 { "8-bit" } else { "2-bit" };
            assert!(report.output_format.contains(bits), "{what}: {}", report.output_format);
            // From the folder and by the name of the file.
            to(&at(&graph.join("model.onnx")), &back, Target::GgufI2s).unwrap();
            let report = with(&at(&graph), &back, Target::GgufI2s, &force()).unwrap();
            assert!(report.verification.lossless, "{what}: {report:?}");
            let model = open(&back);
            assert!(ternary(&model) == ternary(&original), "{what}");
            assert!(logits(&model, &model.weights) == expected, "{what}: bits of the logits");
            // A GGUF file without a vocabulary names no tokens, which is told.
            let told =
                report.notes.iter().any(|note| note.contains("stop tokens that the output cannot name"));
            let same = model.generation.stop_tokens == original.generation.stop_tokens;
            assert_eq!((same, told), (original.tokenizer.is_some(), original.tokenizer.is_none()), "{what}");
        }
    }
    assert_eq!(
        crate::support::entries(&at_name("bundled Int8 graph")),
        ["config.json", "generation_config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"]
    );
}

fn force() -> ConvertOptions {
    ConvertOptions { overwrite: true, ..ConvertOptions::default() }
}

#[test]
fn packed_models_come_back_as_they_were_from_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let at_name = |name: &str| folder.path().join(name);
    to(&bundled(), &at_name("first"), Target::SafetensorsPacked).unwrap();
    let weights = std::fs::read(at_name("first/model.safetensors")).unwrap();
    let original = open(&at_name("first"));
    for target in WRITTEN {
        let (there, back) = (at_name(&format!("there-{target}")), at_name(&format!("back-{target}")));
        let report = to(&at(&at_name("first")), &there, target).unwrap();
        let texts = report.verification.texts.unwrap();
        assert!(texts.texts > 8000 && texts.conversations == 2, "{target}: {texts:?}");
        to(&at(&there), &back, Target::SafetensorsPacked).unwrap();
        // The scales are bf16 numbers, which f16 and absmean to the last bit keep.
        assert!(std::fs::read(back.join("model.safetensors")).unwrap() == weights, "{target}");
        let model = open(&back);
        assert_eq!(model.generation.stop_tokens, original.generation.stop_tokens, "{target}");
        assert_eq!(model.generation.bos, original.generation.bos, "{target}");
        assert_eq!(
            model.chat_template.unwrap().source(),
            original.chat_template.as_ref().unwrap().source(),
            "{target}"
        );
        if !target.is_gguf() {
            assert_eq!(model.generation, original.generation, "{target}");
        }
        verify(&bundled(), &back, &ConvertOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    }
}

#[test]
fn tables_are_rounded_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    for (tables, target, limit) in [
        (TableType::F16, Target::GgufI2s, 1e-3),
        (TableType::F16, Target::SafetensorsPacked, 1e-3),
        (TableType::F16, Target::Onnx, 1e-3),
        (TableType::Bf16, Target::GgufTq2, 0.0),
        (TableType::Q8_0, Target::GgufI2s, 4.5e-3),
    ] {
        let out = folder.path().join(format!("{tables:?}-{target}"));
        let options = ConvertOptions { tables, ..ConvertOptions::default() };
        let found = with(&bundled(), &out, target, &options).unwrap().verification.tables;
        assert_eq!(found.values, 8192 * 512);
        assert!(found.max_relative <= limit, "{tables:?} {target}: {found:?}");
        // A few bf16 numbers of the table are too small for f16 to hold them exactly.
        assert_eq!(found.max_relative > 1e-6, tables == TableType::Q8_0, "{tables:?} {target}: {found:?}");
        // From blocks to a folder: what they stand for is kept.
        if tables == TableType::Q8_0 {
            let back = folder.path().join("back");
            assert_eq!(
                to(&at(&out), &back, Target::SafetensorsPacked).unwrap().verification.tables.changed,
                0
            );
        }
    }
    let options = ConvertOptions { tables: TableType::Q8_0, ..ConvertOptions::default() };
    let out = folder.path().join("no");
    for target in [Target::SafetensorsPacked, Target::Onnx] {
        let error = with(&bundled(), &out, target, &options).unwrap_err();
        assert!(error.to_string().contains("q8_0") && !out.exists(), "{error}");
    }
}

#[test]
fn masters_of_the_source_are_copied_and_ternary_floats_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (copy, remade) = (folder.path().join("copy"), folder.path().join("remade"));
    let source = vector("tiny-bitnet-bf16");
    let report = to(&at(&source), &copy, Target::SafetensorsBf16).unwrap();
    assert!(report.verification.lossless && report.notes.iter().any(|n| n.contains("copied")), "{report:?}");

    // The commonest mistake of converters: masters that are trits times scale.
    let model = open(&source);
    let wrong = folder.path().join("wrong");
    std::fs::create_dir(&wrong).unwrap();
    std::fs::copy(source.join("config.json"), wrong.join("config.json")).unwrap();
    crate::refusals::write_dense(&model, &wrong, &|trit, scale, _| f32::from(trit) * scale);
    let report = to(&at(&wrong), &remade, Target::SafetensorsBf16).unwrap();
    assert!(report.notes.iter().any(|n| n.contains("three values already")), "{:?}", report.notes);
    let (before, after) = (ternary(&open(&wrong)), ternary(&open(&remade)));
    assert!(before.0 == after.0);
    assert!(before.1.iter().zip(&after.1).all(|(a, b)| (a / b - 1.0).abs() < 2.5e-7));
}

#[test]
fn a_comparison_finds_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    to(&at(&vector("tiny-bitnet-packed")), &out, Target::SafetensorsPacked).unwrap();
    let check = |name: &str| {
        verify(&at(&vector(name)), &out, &ConvertOptions::default(), &mut |_| ControlFlow::Continue(()))
    };
    assert!(check("tiny-bitnet-packed").unwrap().verification.lossless);
    let error = check("tiny-llama-bitlinear").unwrap_err().to_string();
    assert!(error.contains("hidden_size is 128 in the original and 256"), "{error}");

    let file = out.join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let set =
        bitnet_formats::read_safetensors(bitnet_core::bytes::ByteView::from_vec(bytes.clone()), "m").unwrap();
    let tensor = set.tensors.get("model.layers.1.mlp.up_proj.weight").unwrap().data.as_slice();
    let place = bytes.windows(tensor.len()).position(|w| w == tensor).unwrap();
    // Code 1 is a zero; 0 and 2 become it.
    bytes[place] = if bytes[place] & 3 == 1 { bytes[place] ^ 1 } else { (bytes[place] & !3) | 1 };
    std::fs::write(&file, bytes).unwrap();
    let error = check("tiny-bitnet-packed").unwrap_err().to_string();
    assert!(error.contains("layer 1, up[0, 0]"), "{error}");
}

#[test]
fn the_first_reproductions_get_the_names_of_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("first"), folder.path().join("out"));
    std::fs::create_dir(&source).unwrap();
    let original = vector("tiny-bitnet-packed");
    let text = std::fs::read_to_string(original.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["architectures"] = serde_json::json!(["BitnetForCausalLM"]);
    config["model_type"] = serde_json::json!("llama");
    config["hidden_act"] = serde_json::json!("silu");
    config["weight_bits"] = serde_json::json!(1);
    std::fs::write(source.join("config.json"), config.to_string()).unwrap();
    let view = bitnet_core::bytes::ByteView::map_file(&original.join("model.safetensors")).unwrap();
    let set = bitnet_formats::read_safetensors(view, "m").unwrap().tensors;
    let name = |name: &str| {
        name.replace("self_attn.attn_sub_norm", "self_attn.inner_attn_ln")
            .replace("ffn_sub_norm", "ffn_layernorm")
    };
    let plan: Vec<bitnet_formats::TensorPlan> = set
        .iter()
        .map(|t| bitnet_formats::TensorPlan::new(name(&t.name), t.stored, t.shape.clone()))
        .collect();
    let path = source.join("model.safetensors");
    let mut writer =
        bitnet_formats::create_safetensors(&path, &plan, &std::collections::BTreeMap::new()).unwrap();
    for tensor in &set {
        writer.write_tensor(&name(&tensor.name), tensor.data.as_slice()).unwrap();
    }
    writer.finish().unwrap();

    assert!(to(&at(&source), &out, Target::SafetensorsPacked).unwrap().verification.lossless);
    let written = std::fs::read_to_string(out.join("config.json")).unwrap();
    assert!(written.contains("BitNetForCausalLM") && written.contains("silu"), "{written}");
    assert!(!written.contains("weight_bits"), "{written}");
    assert!(open(&out).tensors.iter().any(|t| t.name == "model.layers.0.self_attn.attn_sub_norm.weight"));
    to(&at(&source), &folder.path().join("m.gguf"), Target::GgufI2s).unwrap();
    assert_eq!(open(&folder.path().join("m.gguf")).spec.architecture, "gguf bitnet");
}
