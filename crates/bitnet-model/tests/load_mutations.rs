//! Thousands of damaged models: loading them is an error or a model, never a panic, and quick. `BITNET_MUTATIONS` sets the
//! number of models for each test.
#![allow(clippy::unwrap_used, reason = "a failure in a helper fails the test")]

mod support;

use bitnet_core::bytes::ByteView;
use bitnet_model::{LoadOptions, ModelSource, load};
use proptest::prelude::*;
use support::{Folder, Gguf, Kind, bundled, testdata, vector};

fn cases(count: u32) -> ProptestConfig {
    let asked = std::env::var("BITNET_MUTATIONS").ok();
    ProptestConfig {
        failure_persistence: None,
        cases: asked.map_or(count, |text| text.parse().expect("BITNET_MUTATIONS is a number")),
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    }
}

/// The files of a small model, as bytes.
fn files() -> Vec<(String, Vec<u8>)> {
    let vector = testdata("vectors/tiny-bitnet-bf16-packed");
    let read = |path: std::path::PathBuf| std::fs::read(path).unwrap();
    let template = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": true,
        "chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}"}"#;
    vec![
        ("config.json".to_owned(), read(vector.join("config.json"))),
        ("generation_config.json".to_owned(), read(bundled("generation_config.json"))),
        ("tokenizer_config.json".to_owned(), template.as_bytes().to_vec()),
        ("model.safetensors".to_owned(), read(vector.join("model.safetensors"))),
    ]
}

fn load_files(files: Vec<(String, Vec<u8>)>) {
    let files = files.into_iter().map(|(name, bytes)| (name, ByteView::from_vec(bytes))).collect();
    check(&ModelSource::Memory { name: "damaged".to_owned(), files });
}

/// Errors must be one line; models must be consistent.
fn check(source: &ModelSource) {
    match load(source, &LoadOptions::default()) {
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
        }
        Ok(model) => {
            model.spec.validate().unwrap();
            assert_eq!(model.weights.layers.len(), model.spec.num_layers);
            assert_eq!(model.weights.embedding.rows(), model.spec.vocab_size);
            assert!(model.generation.stop_tokens.iter().all(|&id| (id as usize) < model.spec.vocab_size));
        }
    }
}

/// A damage to some bytes.
#[derive(Debug, Clone)]
enum Damage {
    Replace(usize, u8),
    Remove(usize, usize),
    Insert(usize, Vec<u8>),
    Truncate(usize),
    /// Puts a number in place of the digits at or after a place.
    Number(usize, &'static str),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = any::<usize>();
    let numbers = prop::sample::select(vec![
        "0",
        "-1",
        "3",
        "7",
        "1e999",
        "0.5",
        "18446744073709551615",
        "1000000000000",
        "null",
        "\"x\"",
        "[]",
        "{}",
        "99999999999999999999999999",
        "true",
        "[1,2,3]",
        "512",
        "64",
    ]);
    prop_oneof![
        (place, any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (place, 1usize..40).prop_map(|(at, len)| Damage::Remove(at, len)),
        (place, prop::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        place.prop_map(Damage::Truncate),
        (place, numbers.clone()).prop_map(|(at, number)| Damage::Number(at, number)),
        (place, numbers).prop_map(|(at, number)| Damage::Number(at, number)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage, reach: usize) {
    let reach = reach.min(bytes.len()).max(1);
    match damage {
        _ if bytes.is_empty() => {}
        Damage::Replace(at, byte) => bytes[at % reach] = *byte,
        Damage::Remove(at, len) => {
            let at = at % reach;
            bytes.drain(at..(at + len).min(bytes.len()));
        }
        Damage::Insert(at, new) => {
            let at = at % reach;
            bytes.splice(at..at, new.iter().copied());
        }
        Damage::Truncate(at) => bytes.truncate(at % reach),
        Damage::Number(at, number) => {
            let Some(start) = (at % reach..reach).find(|&i| bytes[i].is_ascii_digit()) else { return };
            let end = (start..bytes.len())
                .find(|&i| !(bytes[i].is_ascii_digit() || matches!(bytes[i], b'.' | b'e' | b'-')))
                .unwrap_or(bytes.len());
            bytes.splice(start..end, number.bytes());
        }
    }
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn damaged_configuration_files(which in 0usize..3, damages in prop::collection::vec(damage(), 1..4)) {
        let mut files = files();
        for damage in &damages {
            apply(&mut files[which].1, damage, usize::MAX);
        }
        load_files(files);
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn damaged_model_folders(
        damages in prop::collection::vec((0usize..4, damage()), 1..5),
        absent in prop::option::weighted(0.2, 0usize..4),
    ) {
        let mut files = files();
        for (which, damage) in &damages {
            // The header is where damage matters; some of it goes to the data as well.
            apply(&mut files[*which].1, damage, 6000);
        }
        if let Some(absent) = absent {
            files.remove(absent);
        }
        load_files(files);
    }
}

proptest! {
    #![proptest_config(cases(6000))]

    #[test]
    fn damaged_gguf_models(damages in prop::collection::vec(damage(), 1..4)) {
        use std::sync::OnceLock;
        static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
        let bytes = BYTES.get_or_init(|| {
            let mut gguf = Gguf::of(&vector("tiny-bitnet-bf16-packed"), "bitnet", bitnet_quant::I2sLayout::Group128);
            // One projection of each type.
            for (name, kind) in [
                ("ffn_gate", Kind::Iq1Bn), ("ffn_up", Kind::Iq2BnR4), ("attn_q", Kind::F16), ("attn_k", Kind::Q8_0),
            ] {
                gguf.retype(kind, |tensor| tensor.contains(name));
            }
            for (layer, kind) in [("blk.0", Kind::Tq1_0), ("blk.1", Kind::Tq2_0)] {
                gguf.retype(kind, |tensor| tensor.starts_with(layer) && tensor.contains("ffn_down"));
            }
            let dir = tempfile::tempdir().unwrap();
            gguf.write(&dir.path().join("m.gguf"));
            std::fs::read(dir.path().join("m.gguf")).unwrap()
        });
        let mut bytes = bytes.clone();
        for damage in &damages {
            apply(&mut bytes, damage, 3000);
        }
        load_files(vec![("m.gguf".to_owned(), bytes)]);
    }
}

/// An exported graph and one of our own, with what belongs to it.
fn onnx_files(fixture: bool) -> Vec<(String, Vec<u8>)> {
    let files = |names: &[&str], folder: &std::path::Path| {
        let read = |name: &&str| ((*name).to_owned(), std::fs::read(folder.join(name)).unwrap());
        names.iter().map(read).collect()
    };
    if fixture {
        return files(&["model.onnx", "config.json"], &testdata("onnx/integers"));
    }
    let dir = tempfile::tempdir().unwrap();
    let options = bitnet_model::export::OnnxOptions { external_above: 0, ..Default::default() };
    let model = vector("tiny-bitnet-bf16-packed");
    let go_on = &mut |_, _| std::ops::ControlFlow::Continue(());
    bitnet_model::export::write_onnx(&model, &dir.path().join("m.onnx"), &options, go_on).unwrap();
    files(&["m.onnx", "m.onnx.data"], dir.path())
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn damaged_onnx_models(fixture in any::<bool>(), damages in prop::collection::vec(damage(), 1..4)) {
        use std::sync::OnceLock;
        type Files = Vec<(String, Vec<u8>)>;
        static FILES: [OnceLock<Files>; 2] = [OnceLock::new(), OnceLock::new()];
        let mut files = FILES[usize::from(fixture)].get_or_init(|| onnx_files(fixture)).clone();
        for damage in &damages {
            apply(&mut files[0].1, damage, usize::MAX);
        }
        load_files(files);
    }
}

#[test]
fn names_and_numbers_of_onnx_graphs_changed_in_place() {
    // Changes that keep every length, so that it is the graph and not the container that is damaged.
    let files = onnx_files(true);
    let graph = &files[0].1;
    for at in (0..graph.len()).step_by(61) {
        let mut files = files.clone();
        files[0].1[at] = graph[(at * 7 + 13) % graph.len()];
        load_files(files);
    }
}

#[test]
fn configurations_with_every_field_wrong_in_turn() {
    let base = Folder::vector("tiny-bitnet-bf16-packed").config;
    let wrong = [
        serde_json::json!(null),
        serde_json::json!(-1),
        serde_json::json!(0),
        serde_json::json!("x"),
        serde_json::json!([]),
        serde_json::json!({}),
        serde_json::json!(1e300),
        serde_json::json!(u64::MAX),
        serde_json::json!(true),
        serde_json::json!([[1]]),
    ];
    for key in base.as_object().unwrap().keys() {
        for value in &wrong {
            let mut files = files();
            let mut config = base.clone();
            config[key] = value.clone();
            files[0].1 = config.to_string().into_bytes();
            load_files(files);
        }
    }
}
