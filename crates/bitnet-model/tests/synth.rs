//! Synthetic models: every form loads, with the same trits.
#![allow(clippy::unwrap_used, reason = "a failure in a helper fails the test")]

mod support;

use std::path::Path;

use bitnet_model::synth::{self, ShapePreset, SynthError, SynthFormat, SynthOptions, Vocabulary};
use bitnet_model::{Activation, LoadedModel, ModelSpec, Pooling};
use support::{bundled, load_path, scales, testdata, trits};

fn options(format: SynthFormat) -> SynthOptions {
    SynthOptions { format, vocabulary: Vocabulary::Dummy, seed: 11, overwrite: false }
}

fn write(out: &Path, spec: &ModelSpec, options: &SynthOptions) -> Result<(), SynthError> {
    let mut last = (0, 0);
    synth::write(out, spec, options, &mut |done, total| {
        assert!(done > last.0 && done <= total && (last.1 == 0 || last.1 == total));
        last = (done, total);
    })?;
    assert!(last.0 == last.1 && last.1 > 0, "progress ends at the end");
    Ok(())
}

fn all_forms(spec: &ModelSpec) -> Vec<LoadedModel> {
    let dir = tempfile::tempdir().unwrap();
    [SynthFormat::SafetensorsPacked, SynthFormat::SafetensorsBf16, SynthFormat::GgufI2s]
        .into_iter()
        .enumerate()
        .map(|(i, format)| {
            let out = dir.path().join(format!("model-{i}"));
            write(&out, spec, &options(format)).unwrap();
            load_path(&out).unwrap()
        })
        .collect()
}

fn embedding(model: &LoadedModel) -> Vec<f32> {
    let table = &model.weights.embedding;
    let mut row = vec![0.0; table.cols()];
    (0..table.rows())
        .flat_map(|i| {
            table.decode_row(i, &mut row);
            row.clone()
        })
        .collect()
}

#[test]
fn every_form_of_a_2b_shaped_model_is_the_same_model() {
    let spec = ShapePreset::Tiny.spec();
    let models = all_forms(&spec);
    let formats: Vec<&str> = models.iter().map(|m| m.format.as_str()).collect();
    assert_eq!(
        formats,
        ["safetensors, packed (autobitlinear)", "safetensors, bf16 masters", "GGUF v3, I2_S"]
    );
    let (first, rest) = models.split_first().unwrap();
    assert_eq!(first.spec, spec);
    for model in rest {
        assert_eq!(trits(model), trits(first), "{}", model.format);
        assert_eq!(embedding(model), embedding(first), "{}", model.format);
        assert_eq!(ModelSpec { architecture: spec.architecture.clone(), ..model.spec.clone() }, spec);
        for (a, b) in scales(model).into_iter().zip(scales(first)) {
            assert!((a / b - 1.0).abs() < 0.03, "{a} {b}");
        }
    }
    for model in &models {
        assert_eq!(model.generation.stop_tokens, [769, 777], "{}", model.format);
        assert_eq!(model.generation.bos, Some(768));
        let tokenizer = model.require_tokenizer().unwrap();
        let ids = tokenizer.encode("bado kimu", bitnet_text::EncodeOptions::PROMPT).unwrap();
        assert_eq!(tokenizer.decode(&ids, true), "bado kimu");
        assert_eq!(
            ids,
            models[0].require_tokenizer().unwrap().encode("bado kimu", Default::default()).unwrap()
        );
        assert!(model.chat_template.is_some());
        assert!(model.warnings.is_empty(), "{:?}", model.warnings);
    }
}

#[test]
fn llama_shaped_models_with_their_permuted_rows() {
    let spec = ModelSpec {
        architecture: "LlamaForCausalLM".to_owned(),
        activation: Activation::Silu,
        sub_norms: false,
        tied_output: false,
        num_layers: 2,
        ..ShapePreset::Tiny.spec()
    };
    let models = all_forms(&spec);
    for model in &models[1..] {
        assert_eq!(trits(model), trits(&models[0]), "{}", model.format);
        assert!(!model.spec.tied_output && !model.spec.sub_norms);
    }
    assert!(models[2].spec.architecture.contains("llama"));
}

#[test]
fn every_form_of_every_family_is_the_same_model() {
    for (preset, formats) in [
        (ShapePreset::TinyLlama, ["safetensors, packed (bitlinear)", "GGUF v3, I2_S"]),
        (ShapePreset::TinyFalcon3, ["safetensors, packed (bitlinear)", "GGUF v3, I2_S"]),
        (ShapePreset::TinyQwen3, ["safetensors, packed (autobitlinear)", "GGUF v3, I2_S"]),
        (ShapePreset::TinyGemma3, ["safetensors, packed (autobitlinear)", "GGUF v3, I2_S"]),
    ] {
        let (spec, name) = (preset.spec(), preset.name());
        let models = all_forms(&spec);
        assert_eq!([&models[0], &models[2]].map(|m| m.format.as_str()), formats, "{name}");
        for model in &models {
            assert_eq!(
                model.spec,
                ModelSpec { architecture: model.spec.architecture.clone(), ..spec.clone() }
            );
            assert_eq!(trits(model), trits(&models[0]), "{name}, {}", model.format);
            assert_eq!(model.warnings, Vec::<String>::new(), "{name}, {}", model.format);
            for (a, b) in scales(model).into_iter().zip(scales(&models[0])) {
                assert!((a / b - 1.0).abs() < 0.03, "{name}: {a} {b}");
            }
            for (a, b) in model.weights.layers.iter().zip(&models[0].weights.layers) {
                assert_eq!(a.extras, b.extras, "{name}, {}", model.format);
                assert_eq!(
                    (&a.attn_norm, &a.ffn_norm),
                    (&vec![1.0; spec.hidden_size], &b.ffn_norm),
                    "{name}"
                );
            }
            let embeds = spec.extras.projection_norms;
            assert_eq!(model.embedding.pooling, embeds.then_some(Pooling::Last), "{name}, {}", model.format);
            let tokenizer = model.require_tokenizer().unwrap();
            assert_eq!(tokenizer.end(), embeds.then_some(769), "{name}, {}", model.format);
        }
    }
}

#[test]
fn embedding_shapes_are_published_without_prefix_and_output_layer() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model");
    write(&out, &ShapePreset::TinyGemma3.spec(), &options(SynthFormat::SafetensorsBf16)).unwrap();
    let model = load_path(&out).unwrap();
    let names: Vec<&str> = model.tensors.iter().map(|t| t.name.as_str()).collect();
    for name in [
        "embed_tokens.weight",
        "layers.0.self_attn.q_proj.norm.weight",
        "layers.2.pre_feedforward_layernorm.weight",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert!(!names.contains(&"lm_head.weight"));
    assert_eq!((model.format.as_str(), model.embedding.normalize), ("safetensors, bf16 masters", Some(true)));
    // Norms of the architecture are stored without their one.
    let config = std::fs::read_to_string(out.join("config.json")).unwrap();
    assert!(config.contains("gemma3_text") && !config.contains("quantization_config"));
}

#[test]
fn seeds_determine_the_weights() {
    let dir = tempfile::tempdir().unwrap();
    let spec = ModelSpec { num_layers: 1, ..ShapePreset::Tiny.spec() };
    let weights = |seed: u64, name: &str| {
        let out = dir.path().join(name);
        write(&out, &spec, &SynthOptions { seed, ..options(SynthFormat::SafetensorsPacked) }).unwrap();
        std::fs::read(out.join("model.safetensors")).unwrap()
    };
    assert_eq!(weights(1, "a"), weights(1, "b"));
    assert_ne!(weights(1, "c"), weights(2, "d"));
}

#[test]
fn nothing_is_replaced_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let spec = ModelSpec { num_layers: 1, ..ShapePreset::Tiny.spec() };
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let packed = options(SynthFormat::SafetensorsPacked);
    write(&folder, &spec, &packed).unwrap();
    assert!(matches!(write(&folder, &spec, &packed), Err(SynthError::Exists { .. })));
    write(&folder, &spec, &SynthOptions { overwrite: true, ..packed.clone() }).unwrap();
    let gguf = options(SynthFormat::GgufI2s);
    let file = dir.path().join("new/model.gguf");
    write(&file, &spec, &gguf).unwrap();
    assert!(matches!(write(&file, &spec, &gguf), Err(SynthError::Exists { .. })));
    write(&file, &spec, &SynthOptions { overwrite: true, ..gguf.clone() }).unwrap();
    // A folder never gives way to a file, nor a file to a folder.
    let force = |format| SynthOptions { overwrite: true, ..options(format) };
    assert!(matches!(write(&folder, &spec, &force(SynthFormat::GgufI2s)), Err(SynthError::Exists { .. })));
    assert!(matches!(
        write(&file, &spec, &force(SynthFormat::SafetensorsBf16)),
        Err(SynthError::Exists { .. })
    ));
    let names = |path: &Path| {
        let mut names: Vec<String> =
            std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    };
    let expected = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names(&folder), expected, "no temporary files stay");
}

#[test]
fn impossible_shapes_and_vocabularies() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let tiny = ShapePreset::Tiny.spec();
    let message =
        |spec: &ModelSpec, options: &SynthOptions| write(&out, spec, options).unwrap_err().to_string();
    let gguf = options(SynthFormat::GgufI2s);
    assert!(message(&ShapePreset::B3B.spec(), &gguf).contains("8640"));
    let odd = ModelSpec { intermediate_size: 510, ..tiny.clone() };
    assert!(message(&odd, &options(SynthFormat::SafetensorsPacked)).contains("intermediate_size = 510"));
    assert!(message(&ModelSpec { num_heads: 3, ..tiny.clone() }, &gguf).contains("num_kv_heads"));
    let relu = ModelSpec { sub_norms: false, ..tiny.clone() };
    assert!(message(&relu, &gguf).contains("no architecture name"));
    assert!(message(&ModelSpec { vocab_size: 100, ..tiny.clone() }, &gguf).contains("too few"));
    let given = SynthOptions { vocabulary: Vocabulary::Tokenizer(bundled("tokenizer.json")), ..gguf.clone() };
    assert!(message(&tiny, &given).contains("8192 tokens, but the model only 1024"));
    let absent = SynthOptions { vocabulary: Vocabulary::Tokenizer("/no/such/file".into()), ..gguf };
    assert!(message(&tiny, &absent).contains("/no/such/file"));
    assert!(!out.exists(), "nothing is left of what could not be written");
}

#[test]
fn a_given_tokenizer_is_kept_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let text = "Once upon a time, 1234 naïve  cats!\n";
    for (size, path) in [(8192, bundled("tokenizer.json")), (128_256, testdata("llama3-tokenizer.model"))] {
        let spec = ModelSpec {
            vocab_size: size,
            hidden_size: 128,
            num_layers: 1,
            num_heads: 2,
            num_kv_heads: 1,
            ..ShapePreset::Tiny.spec()
        };
        let ids: Vec<Vec<u32>> = [SynthFormat::SafetensorsPacked, SynthFormat::GgufI2s]
            .into_iter()
            .map(|format| {
                // The same place again: nothing of the smaller model may stay.
                let out = dir.path().join(format!("{format:?}"));
                let vocabulary = Vocabulary::Tokenizer(path.clone());
                let options = SynthOptions { vocabulary, overwrite: true, ..options(format) };
                write(&out, &spec, &options).unwrap();
                let model = load_path(&out).unwrap();
                let tokenizer = model.require_tokenizer().unwrap();
                assert_eq!(tokenizer.vocab_size(), size);
                assert_eq!(model.generation.stop_tokens.len(), 2);
                tokenizer.encode(text, bitnet_text::EncodeOptions::PROMPT).unwrap()
            })
            .collect();
        assert_eq!(ids[0], ids[1], "{size}");
        assert!(ids[0].len() < 20);
    }
}
