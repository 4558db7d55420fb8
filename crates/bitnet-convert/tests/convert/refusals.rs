//! What must not be written, and what must not be left: interruptions, full disks, damaged input, names in use.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use bitnet_convert::{ConvertError, ConvertOptions, Target, convert, quantize};
use bitnet_core::DType;
use bitnet_formats::{StoredType, TensorPlan, create_safetensors};
use bitnet_model::load::LoadedModel;

use crate::support::{at, bundled, entries, open, to, vector, with};

/// Writes a model as dense bf16 weights, each made of trit, scale and its place.
pub(crate) fn write_dense(model: &LoadedModel, folder: &Path, make: &dyn Fn(i8, f32, usize) -> f32) {
    let mut tensors: Vec<(String, Vec<u64>, Vec<f32>)> = Vec::new();
    let table = |t: &bitnet_model::DenseTensor| {
        let mut values = vec![0.0; t.rows() * t.cols()];
        values.chunks_mut(t.cols()).enumerate().for_each(|(row, out)| t.decode_row(row, out));
        (vec![t.rows() as u64, t.cols() as u64], values)
    };
    let weights = &model.weights;
    let (shape, values) = table(&weights.embedding);
    tensors.push(("model.embed_tokens.weight".to_owned(), shape, values));
    if let Some(output) = &weights.output {
        let (shape, values) = table(output);
        tensors.push(("lm_head.weight".to_owned(), shape, values));
    }
    let norm = |values: &[f32]| (vec![values.len() as u64], values.to_vec());
    let (shape, values) = norm(&weights.final_norm);
    tensors.push(("model.norm.weight".to_owned(), shape, values));
    for (i, layer) in weights.layers.iter().enumerate() {
        for (name, values) in [
            ("input_layernorm", Some(&layer.attn_norm)),
            ("post_attention_layernorm", Some(&layer.ffn_norm)),
            ("self_attn.attn_sub_norm", layer.attn_sub_norm.as_ref()),
            ("mlp.ffn_sub_norm", layer.ffn_sub_norm.as_ref()),
        ] {
            if let Some(values) = values {
                let (shape, values) = norm(values);
                tensors.push((format!("model.layers.{i}.{name}.weight"), shape, values));
            }
        }
        let names =
            ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down"];
        for (name, (_, m)) in names.iter().zip(layer.projections()) {
            let trits = m.to_trits().unwrap();
            let values = trits.iter().enumerate().map(|(at, &trit)| make(trit, m.scale(), at)).collect();
            let shape = vec![m.rows() as u64, m.cols() as u64];
            tensors.push((format!("model.layers.{i}.{name}_proj.weight"), shape, values));
        }
    }
    let plan: Vec<TensorPlan> = tensors
        .iter()
        .map(|(name, shape, _)| TensorPlan::new(name, StoredType::BF16, shape.clone()))
        .collect();
    let mut writer = create_safetensors(&folder.join("model.safetensors"), &plan, &BTreeMap::new()).unwrap();
    for (name, _, values) in &tensors {
        writer.write_tensor(name, &DType::BF16.encode(values)).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn an_interrupted_conversion_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for target in [Target::SafetensorsPacked, Target::GgufI2s, Target::Onnx] {
        let mut calls = 0;
        let out = folder.path().join("whole");
        convert(
            &bundled(),
            &out,
            target,
            &ConvertOptions { overwrite: true, ..Default::default() },
            &mut |_| {
                calls += 1;
                ControlFlow::Continue(())
            },
        )
        .unwrap();
        if out.is_dir() {
            std::fs::remove_dir_all(&out).unwrap();
        } else {
            std::fs::remove_file(&out).unwrap();
        }
        for stop in [1, 2, calls / 2, calls - 1, calls] {
            let mut left = stop;
            let out = folder.path().join("out");
            let error = convert(&bundled(), &out, target, &ConvertOptions::default(), &mut |_| {
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert!(matches!(error, Err(ConvertError::Interrupted)), "{target} at {stop} of {calls}");
            assert_eq!(entries(folder.path()), [""; 0], "{target} at {stop} of {calls}");
        }
    }
}

#[test]
fn what_was_killed_before_is_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    // No process has this number.
    let abandoned = folder.path().join(".m.gguf.4294967295.partial");
    std::fs::create_dir(&abandoned).unwrap();
    std::fs::write(abandoned.join("m.gguf"), b"half").unwrap();
    let other = folder.path().join(".other.gguf.4294967295.partial");
    std::fs::create_dir(&other).unwrap();
    to(&bundled(), &folder.path().join("m.gguf"), Target::GgufI2s).unwrap();
    let expected = [".other.gguf.4294967295.partial", "m.gguf"];
    assert_eq!(entries(folder.path()), expected, "and nothing of others");
}

#[test]
fn a_full_disk_is_seen_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sub").join("out.gguf");
    let options = ConvertOptions { keep_free: u64::MAX, ..ConvertOptions::default() };
    for (target, least) in [(Target::GgufI2s, 31_457_280 / 4), (Target::Onnx, 31_457_280)] {
        let mut calls = 0;
        let error = convert(&bundled(), &out, target, &options, &mut |_| {
            calls += 1;
            ControlFlow::Continue(())
        })
        .unwrap_err();
        let table = 2 * 8192 * 512;
        let ConvertError::DiskFull { needed, .. } = &error else { panic!("{error}") };
        assert!(needed.as_bytes() > least + table && needed.as_bytes() < 2 * least + 2 * table, "{error}");
        assert_eq!((calls, entries(folder.path())), (0, Vec::new()));
    }
}

#[test]
fn names_in_use_are_respected() {
    let folder = tempfile::tempdir().unwrap();
    let source = at(&vector("tiny-bitnet-packed"));
    let force = ConvertOptions { overwrite: true, ..ConvertOptions::default() };
    let out = folder.path().join("out");
    to(&source, &out, Target::SafetensorsPacked).unwrap();
    let error = to(&source, &out, Target::SafetensorsPacked).unwrap_err();
    assert!(matches!(error, ConvertError::Exists { .. }), "{error}");
    with(&source, &out, Target::SafetensorsBf16, &force).unwrap();
    assert!(open(&out).format.contains("masters"));
    for (target, why) in [
        (Target::GgufI2s, "a folder is not replaced by a file"),
        (Target::SafetensorsPacked, "model to convert"),
    ] {
        let error = with(&at(&out), &out, target, &force).unwrap_err();
        assert!(
            matches!(error, ConvertError::Protected { .. }) && error.to_string().contains(why),
            "{error}"
        );
    }
    let own = folder.path().join("own");
    std::fs::create_dir(&own).unwrap();
    to(&source, &own, Target::SafetensorsPacked).unwrap();
    let papers = folder.path().join("papers");
    std::fs::create_dir(&papers).unwrap();
    std::fs::write(papers.join("thesis.txt"), "years of work").unwrap();
    let error = with(&source, &papers, Target::SafetensorsPacked, &force).unwrap_err();
    assert!(matches!(error, ConvertError::Protected { .. }), "{error}");
    assert_eq!(entries(&papers), ["thesis.txt"]);
    let error = to(&source, Path::new(".."), Target::SafetensorsPacked).unwrap_err();
    assert!(matches!(error, ConvertError::Protected { .. } | ConvertError::Exists { .. }), "{error}");
    let error = to(&source, &folder.path().join("m.onnx"), Target::Onnx).unwrap_err();
    assert!(matches!(error, ConvertError::FolderNeeded { .. }), "{error}");
    assert!(!folder.path().join("m.onnx").exists());
    // One folder of a model may be replaced by another, in any form.
    std::fs::rename(folder.path().join("out"), folder.path().join("graph")).unwrap();
    let error = to(&source, &folder.path().join("graph"), Target::Onnx).unwrap_err();
    assert!(matches!(error, ConvertError::Exists { .. }), "{error}");
    with(&source, &folder.path().join("graph"), Target::Onnx, &force).unwrap();
    assert_eq!(entries(&folder.path().join("graph")), ["config.json", "model.onnx"]);
}

#[test]
fn damaged_models_are_refused_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    std::fs::create_dir(&source).unwrap();
    let original = vector("tiny-bitnet-packed");
    std::fs::copy(original.join("config.json"), source.join("config.json")).unwrap();
    let bytes = std::fs::read(original.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let start = json["model.layers.0.mlp.down_proj.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    let mut code3 = bytes.clone();
    code3[8 + header + start + 100] = 0xff;
    let mut scale = bytes.clone();
    let place =
        json["model.layers.0.mlp.down_proj.weight_scale"]["data_offsets"][0].as_u64().unwrap() as usize;
    scale[8 + header + place..][..2].copy_from_slice(&[0xff, 0xff]);
    for (damaged, part) in [
        (code3, "stands for no trit"),
        (bytes[..bytes.len() - 7].to_vec(), "missing"),
        (scale, "scale"),
        (Vec::new(), "empty"),
    ] {
        std::fs::write(source.join("model.safetensors"), damaged).unwrap();
        for target in Target::ALL {
            let error = to(&at(&source), &out, target).unwrap_err().to_string();
            assert!(error.contains(part), "{target}: {error}");
            assert_eq!(entries(folder.path()), ["source"], "{target} {part}");
        }
    }
}

#[test]
fn a_plain_checkpoint_is_quantised_only_when_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("llama"), folder.path().join("ternary"));
    std::fs::create_dir(&source).unwrap();
    let model = open(&vector("tiny-llama-bitlinear"));
    let config = std::fs::read(vector("tiny-llama-bitlinear").join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    config.as_object_mut().unwrap().remove("quantization_config");
    std::fs::write(source.join("config.json"), config.to_string()).unwrap();
    // Masters around their trits: a fifth of a unit of noise.
    let noise = |at: usize| ((at * 7919) % 1000) as f32 / 2500.0 - 0.2;
    write_dense(&model, &source, &|trit, _, at| 0.02 * (f32::from(trit) + noise(at)));
    let error = to(&at(&source), &out, Target::SafetensorsPacked).unwrap_err().to_string();
    assert!(error.contains("not a BitNet model"), "{error}");

    let run = |source: &Path, out: &Path| {
        let progress = &mut |_| ControlFlow::Continue(());
        quantize(&at(source), out, Target::SafetensorsPacked, &ConvertOptions::default(), progress)
    };
    let report = run(&source, &out).unwrap();
    assert_eq!(report.projections.len(), 14);
    assert!((0.1..0.9).contains(&report.zeros), "{report:?}");
    // The noise has a standard deviation of 0.115; the scale differs from one unit a little.
    assert!((0.05..0.6).contains(&report.relative_error), "{report:?}");
    let zeros: usize = crate::support::ternary(&open(&out)).0.iter().flatten().filter(|&&t| t == 0).count();
    assert_eq!(zeros as f64, (report.zeros * model.spec.ternary_parameters() as f64).round());
    assert_eq!(open(&out).spec.architecture, "LlamaForCausalLM");

    let again = folder.path().join("again");
    for ternary in [&out, &vector("tiny-bitnet-packed")] {
        let error = run(ternary, &again).unwrap_err();
        assert!(matches!(error, ConvertError::AlreadyTernary { .. }), "{error}");
    }
    write_dense(&model, &source, &|trit, scale, _| f32::from(trit) * scale);
    assert!(matches!(run(&source, &again).unwrap_err(), ConvertError::AlreadyTernary { .. }));
    assert!(!again.exists());
}
